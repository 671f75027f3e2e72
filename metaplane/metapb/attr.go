// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metapb holds the messages of the metaplane, generated from
// meta.proto and command.proto, and the one conversion that every client
// needs.
package metapb

import (
	"encoding/binary"
	"math/bits"
	"slices"
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
		ReplicaMin: int(x.ReplicaMin), ReplicaMax: int(x.ReplicaLimit) - 1,
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

// AppendEntry appends one element of ListReply.entries, encoded.
func AppendEntry(dst, name []byte, a *Attr) ([]byte, error) {
	attr := a.SizeVT()
	n := 1 + varintLen(len(name)) + len(name) + 1 + varintLen(attr) + attr
	dst = append(dst, 1<<3|2)
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = append(dst, 1<<3|2)
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = append(dst, 2<<3|2)
	dst = binary.AppendUvarint(dst, uint64(attr))
	dst = slices.Grow(dst, attr)
	dst = dst[:len(dst)+attr]
	_, err := a.MarshalToSizedBufferVT(dst[len(dst)-attr:])
	return dst, err
}

func varintLen(n int) int { return (bits.Len64(uint64(n)|1) + 6) / 7 }

func unixNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
