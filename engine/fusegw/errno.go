// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
	"orca/engine/errmap"
)

// status translates an error for the kernel, by the one table. Errors of the
// private file on this host are plain errnos and stay what they are. ENOSYS is
// never answered: the kernel would not ask again for the life of the mount.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	e := syscall.Errno(0)
	if orca.KindOf(err) == orca.Internal && errors.As(err, &e) && e != 0 {
		if e == syscall.ENOSYS {
			e = syscall.EOPNOTSUPP
		}
		return fuse.Status(e)
	}
	if e = errmap.Errno(err); e == syscall.ENOSYS {
		e = syscall.EOPNOTSUPP
	}
	return fuse.Status(e)
}
