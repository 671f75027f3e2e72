// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// Link gives a file one more name. One that is being written is published
// before, so that there is something to name.
func (g *gateway) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	g.count(OpLink)
	ino, st := g.ino(in.Oldnodeid)
	if !st.Ok() {
		return st
	}
	w := g.writingOf(ino)
	if w != nil {
		ctx, cancel := g.call()
		defer cancel()
		if err := w.settle(ctx); err != nil {
			return g.fail(err)
		}
	}
	st = g.make(&in.InHeader, name, out, func(ctx context.Context, c orca.Caller, dir orca.Ino) (Entry, error) {
		e, err := g.fs.Link(ctx, c, ino, dir, name)
		if err == nil && w != nil {
			w.setNames(e.Nlink)
		}
		return e, err
	})
	if st == fuse.ENOENT { // by its number: it may have another one by now
		return fuse.Status(syscall.ESTALE)
	}
	return st
}

// setNames notes how many names a file has that is being written.
func (w *writing) setNames(n uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attr.Nlink = n
}

// exchange has two names change places; what is being written of them is
// published before. across: both get other numbers (apart).
func (g *gateway) exchange(ctx context.Context, c orca.Caller, dir orca.Ino, name string, newDir orca.Ino, newName string, across bool) fuse.Status {
	if err := g.settleName(ctx, c, newDir, newName); err != nil {
		return g.fail(err)
	}
	if across {
		g.keepOpen(ctx, c, dir, name)
		g.keepOpen(ctx, c, newDir, newName)
	}
	done1, done2 := g.own.begin(dir, name), g.own.begin(newDir, newName)
	err := g.whileQuiet(ctx, func() error { return g.fs.Exchange(ctx, c, dir, name, newDir, newName) })
	now := func(dir orca.Ino, name string) (ino orca.Ino) {
		if err != nil {
			return 0
		}
		if e, err := g.fs.Lookup(ctx, c, dir, name); err == nil {
			ino = e.Ino
		}
		return ino
	}
	if across && err == nil {
		done1(now(dir, name), errRenumbered)
		done2(now(newDir, newName), errRenumbered)
		return fuse.OK
	}
	done1(now(dir, name), err)
	done2(now(newDir, newName), err)
	if orca.KindOf(err) == orca.Unsupported {
		return fuse.EINVAL // what renameat2 says where a file system cannot
	}
	return g.fail(err)
}

// otherNames is asked before a name of an inode goes: whether others stay, so
// that the inode is not going. One such removal runs at a time, until unlock,
// else each of two could count on the name that the other takes.
func (g *gateway) otherNames(ctx context.Context, c orca.Caller, dir orca.Ino, name string, e *Entry) (more bool, unlock func()) {
	if e.Nlink < 2 {
		return false, nil
	}
	g.linked.Lock()
	now, err := g.fs.Lookup(ctx, c, dir, name)
	if err != nil || now.Ino != e.Ino || now.Nlink < 2 {
		g.linked.Unlock()
		return false, nil
	}
	return true, g.linked.Unlock
}

// lostName notes that a file with more names has lost one.
func (g *gateway) lostName(ctx context.Context, ino orca.Ino) {
	if e, err := g.fs.Stat(ctx, orca.Caller{}, ino); err == nil {
		if w := g.writingOf(ino); w != nil {
			w.setNames(e.Nlink)
		}
	}
}
