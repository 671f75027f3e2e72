// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"strings"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// Target names an inode: Path is resolved from directory Ino (0: the root); an
// empty Path is Ino itself.
type Target struct {
	Ino  orca.Ino
	Path string
}

// Path is the target at an absolute path.
func Path(p string) Target { return Target{Path: p} }

// At is the entry name of directory dir.
func At(dir orca.Ino, name string) Target { return Target{Ino: dir, Path: name} }

// ByIno is the inode itself.
func ByIno(ino orca.Ino) Target { return Target{Ino: ino} }

// String formats the target for messages: the path, or ino:hex/name.
func (t Target) String() string {
	switch {
	case t.Ino == 0:
		return t.Path
	case t.Path == "":
		return "ino:" + t.Ino.String()
	}
	return "ino:" + t.Ino.String() + "/" + t.Path
}

// pb checks and encodes the target.
func (t Target) pb() (*metapb.Target, error) {
	if t.Ino == 0 {
		p, err := orca.CleanPath(t.Path)
		if err != nil {
			return nil, err
		}
		return &metapb.Target{Path: p}, nil
	}
	if t.Path == "" {
		return &metapb.Target{Ino: uint64(t.Ino)}, nil
	}
	for c := range strings.SplitSeq(t.Path, "/") {
		if err := orca.CheckName(c); err != nil {
			return nil, err
		}
	}
	return &metapb.Target{Ino: uint64(t.Ino), Path: t.Path}, nil
}

// Sync says how a read of the namespace looks at the store below. The zero
// value is the path's own interval.
type Sync struct {
	mode  uint32
	every time.Duration
}

// SyncNever uses what the namespace knows (a directory never loaded is still
// loaded once).
func SyncNever() Sync { return Sync{mode: 1} }

// SyncEvery looks at the store when the last look is older than d; 0: always.
func SyncEvery(d time.Duration) Sync { return Sync{mode: 2, every: d} }

func (s Sync) pb() *metapb.SyncOption {
	if s.mode == 0 {
		return nil
	}
	return &metapb.SyncOption{Mode: s.mode, IntervalMs: s.every.Milliseconds()}
}

// Info is what the namespace says about one name.
type Info struct {
	orca.Attr
	// Name is the last component, "" when the target was an inode number.
	Name string
	// Parent is the directory of the name, when the target was a name.
	Parent orca.Ino
	// MountPoint is true for the root of a mount.
	MountPoint bool
	// TTL is how long a gateway may cache this (0: not at all).
	TTL time.Duration
}

func callerPB(c orca.Caller) *metapb.Caller {
	return &metapb.Caller{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func infoOf(name string, a *metapb.Attr, parent uint64, ttlMS int64) Info {
	i := Info{Attr: a.Orca(), Name: name, Parent: orca.Ino(parent), TTL: time.Duration(ttlMS) * time.Millisecond}
	if a != nil {
		i.MountPoint = a.MountPoint
	}
	return i
}

// base returns the last name of a target, "" for an inode.
func (t Target) base() string {
	_, name := orca.SplitPath(t.Path)
	return name
}
