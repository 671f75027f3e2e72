// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metapb holds the messages of the metaplane, generated from
// meta.proto and command.proto, and the one conversion that every client
// needs.
package metapb

import (
	"time"

	"orca"
)

// Orca returns the attributes in the project's own vocabulary; a nil Attr is
// the zero value. A file without a block size gets orca.DefaultBlockSize.
func (x *Attr) Orca() orca.Attr {
	if x == nil {
		return orca.Attr{}
	}
	r := orca.Attr{
		Ino: orca.Ino(x.Ino), Type: orca.FileType(x.Type), Mode: x.Mode, UID: x.Uid, GID: x.Gid,
		Nlink: x.Nlink, Length: x.Length, BlockSize: x.BlockSize, Version: x.Version,
		Mtime: unixNano(x.Mtime), Ctime: unixNano(x.Ctime), Atime: unixNano(x.Atime),
		Persist: orca.PersistState(x.Persist), Pinned: x.Pinned, MountID: x.MountId,
		UFSPath: x.UfsPath, UFSPending: x.UfsPending, Fingerprint: x.Fingerprint,
		CachedBytes: x.CachedBytes, Target: x.Target,
	}
	if len(x.Runs) > 0 {
		r.Runs = make([]orca.Run, len(x.Runs))
		for i, run := range x.Runs {
			r.Runs[i] = orca.Run{First: run.First, Version: run.Version}
		}
	}
	if r.BlockSize <= 0 {
		r.BlockSize = orca.DefaultBlockSize
	}
	return r
}

func unixNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
