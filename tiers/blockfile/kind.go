// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockfile

import (
	"errors"
	"os"
	"syscall"

	"orca"
)

// kindOf classifies an error of the operating system.
func kindOf(err error) orca.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return orca.NoSpace
	case errors.Is(err, os.ErrNotExist):
		return orca.NotFound
	case errors.Is(err, syscall.EROFS):
		return orca.ReadOnly
	case errors.Is(err, syscall.EFBIG):
		return orca.TooLarge
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return orca.Busy
	}
	return orca.Internal
}

// Broken reports whether err means that the medium itself cannot be trusted
// any more (as opposed to being full or the file being gone).
func Broken(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENODEV) ||
		errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.EUCLEAN)
}
