// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// renumberedMax bounds the directories that are remembered to have another number.
const renumberedMax = 1 << 12

// renumbered are the node ids of directories that a rename on this mount has taken
// to another group, where they have another number: the kernel goes on with the
// id that it had, at the new name and in who works there. What is below such a
// directory it looks up again: it is told to right after the rename, and until
// then calls for the old numbers are ESTALE, after which it does for most calls.
type renumbered struct {
	by atomic.Pointer[map[uint64]orca.Ino] // never changed in place; nil: none
	mu sync.Mutex                          // serialises changes
}

// ino returns the number that a node id has now.
func (r *renumbered) ino(id uint64) (orca.Ino, bool) {
	by := r.by.Load()
	if by == nil {
		return 0, false
	}
	ino, ok := (*by)[id]
	return ino, ok
}

// any reports whether there are any.
func (r *renumbered) any() bool { return r.by.Load() != nil }

// ids returns the node ids of other numbers that an inode is known by.
func (r *renumbered) ids(ino orca.Ino) (ids []uint64) {
	if by := r.by.Load(); by != nil {
		for id, now := range *by {
			if now == ino {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
	}
	return ids
}

// change replaces the map by what change makes of a copy.
func (r *renumbered) change(change func(by map[uint64]orca.Ino)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	by := map[uint64]orca.Ino{}
	if old := r.by.Load(); old != nil {
		by = maps.Clone(*old)
	}
	if change(by); len(by) == 0 {
		r.by.Store(nil)
		return
	}
	r.by.Store(&by)
}

// moved notes that a directory has another number; id is the node id of the old
// one.
func (r *renumbered) moved(id uint64, from, to orca.Ino, own uint64) {
	r.change(func(by map[uint64]orca.Ino) {
		for k, now := range by {
			if now == from {
				by[k] = to
			}
		}
		if by[id] = to; len(by) > renumberedMax {
			clear(by) // the kernel looks them up again
		}
		delete(by, own) // it came back
	})
}

// forgotten notes that the kernel has forgotten a node id.
func (r *renumbered) forgotten(id uint64) {
	if _, ok := r.ino(id); ok {
		r.change(func(by map[uint64]orca.Ino) { delete(by, id) })
	}
}

// apart reports whether what is renamed between two directories gets another number:
// they live in two groups, or were put into one group each by itself.
func (g *gateway) apart(ctx context.Context, c orca.Caller, dir, newDir orca.Ino) bool {
	switch {
	case dir.Home() != newDir.Home():
		return true
	case dir == newDir || dir.Home() == 1:
		return false
	}
	a, err := g.fs.Stat(ctx, c, dir)
	if err != nil {
		return false // the rename says what is wrong
	}
	b, err := g.fs.Stat(ctx, c, newDir)
	return err == nil && a.MountID != b.MountID
}

// departing prepares for a rename to another group: who has the file open goes on
// with what is there now, and what is being written below a directory is
// published. It returns the directory's number, 0 of anything else.
func (g *gateway) departing(ctx context.Context, c orca.Caller, dir orca.Ino, name string) orca.Ino {
	e, err := g.fs.Lookup(ctx, c, dir, name)
	switch {
	case err != nil:
	case e.Type == orca.TypeFile:
		g.keepInoOpen(ctx, e.Ino)
	case e.Type == orca.TypeDir:
		g.publishAll(ctx)
		return e.Ino
	}
	return 0
}

// lives is fuse.OK for a directory that is there, and else the status that makes
// the kernel look again: it may be below one that has another number.
func (g *gateway) lives(in *fuse.InHeader, ino orca.Ino) fuse.Status {
	if !g.renumbered.any() {
		return fuse.OK
	}
	ctx, cancel := g.call()
	defer cancel()
	if _, err := g.fs.Stat(ctx, g.caller(in), ino); orca.KindOf(err) == orca.NotFound {
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.OK
}
