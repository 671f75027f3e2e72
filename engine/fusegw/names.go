// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"orca"
)

// negativeTTL bounds how long the kernel believes that a name is not there.
const negativeTTL = 5 * time.Second

// pendingTTL is for names that only this mount shows as yet.
const pendingTTL = time.Second

// Lookup finds a name. Files that are being written here show as written.
func (g *gateway) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	g.count(OpLookup)
	dir, st := g.ino(h.NodeId)
	if !st.Ok() {
		return st
	}
	if w := g.pendingAt(dir, name); w != nil {
		g.writingEntry(w, out)
		return fuse.OK
	}
	ctx, cancel := g.call()
	defer cancel()
	c, since := g.caller(h), g.stale.now()
	e, err := g.fs.Lookup(ctx, c, dir, name)
	if orca.KindOf(err) == orca.NotFound {
		return g.negative(ctx, c, dir, since, out)
	}
	if err != nil {
		return g.fail(err)
	}
	if g.stale.changed(since, dir, e.Ino) {
		e.TTL = 0
	}
	g.entry(&e, out)
	return fuse.OK
}

// negative lets the kernel remember that a name is missing, for at most as
// long as the directory may be believed.
func (g *gateway) negative(ctx context.Context, c orca.Caller, dir orca.Ino, since uint64, out *fuse.EntryOut) fuse.Status {
	d, err := g.fs.Stat(ctx, c, dir)
	if orca.KindOf(err) == orca.NotFound && g.renumbered.any() {
		return fuse.Status(syscall.ESTALE) // it may be below one that has another number
	}
	ttl := g.entryTTL(min(d.TTL, negativeTTL))
	if err != nil || ttl <= 0 || g.stale.changed(since, dir, dir) {
		return fuse.ENOENT
	}
	*out = fuse.EntryOut{}
	out.SetEntryTimeout(ttl)
	return fuse.OK
}

// entry answers with an inode, and counts the kernel's reference.
func (g *gateway) entry(e *Entry, out *fuse.EntryOut) {
	if w := g.writingOf(e.Ino); w != nil {
		g.writingEntry(w, out)
		out.SetEntryTimeout(g.entryTTL(e.TTL))
		return
	}
	*out = fuse.EntryOut{NodeId: g.grant(e.Ino, e.Version)}
	fillAttr(&e.Attr, &out.Attr)
	out.SetEntryTimeout(g.entryTTL(e.TTL))
	out.SetAttrTimeout(g.ttl(e.TTL))
}

// writingEntry answers with a file being written.
func (g *gateway) writingEntry(w *writing, out *fuse.EntryOut) {
	a := w.show()
	*out = fuse.EntryOut{NodeId: g.grant(w.ino, a.Version)}
	fillAttr(&a, &out.Attr)
	out.SetEntryTimeout(min(pendingTTL, g.cfg.MaxTTL))
}

// Mkdir makes a directory.
func (g *gateway) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	g.count(OpMkdir)
	return g.make(&in.InHeader, name, out, func(ctx context.Context, c orca.Caller, dir orca.Ino) (Entry, error) {
		return g.fs.Mkdir(ctx, c, dir, name, in.Mode&0o7777)
	})
}

// Symlink makes a symbolic link.
func (g *gateway) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	g.count(OpSymlink)
	return g.make(h, name, out, func(ctx context.Context, c orca.Caller, dir orca.Ino) (Entry, error) {
		return g.fs.Symlink(ctx, c, dir, name, target)
	})
}

// Mknod makes an empty regular file. Nothing else exists in Orca.
func (g *gateway) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	g.count(OpCreate)
	if t := in.Mode & syscall.S_IFMT; t != 0 && t != syscall.S_IFREG {
		return fuse.EPERM
	}
	return g.make(&in.InHeader, name, out, func(ctx context.Context, c orca.Caller, dir orca.Ino) (Entry, error) {
		w, err := g.fs.Create(ctx, c, dir, name, in.Mode&0o7777)
		if err != nil {
			return Entry{}, err
		}
		a, err := w.Close(ctx)
		return Entry{Attr: a}, err
	})
}

// make runs a call that makes a name.
func (g *gateway) make(h *fuse.InHeader, name string, out *fuse.EntryOut,
	fn func(context.Context, orca.Caller, orca.Ino) (Entry, error)) fuse.Status {
	dir, st := g.ino(h.NodeId)
	if !st.Ok() {
		return st
	}
	if g.pendingAt(dir, name) != nil {
		return fuse.Status(syscall.EEXIST)
	}
	ctx, cancel := g.call()
	defer cancel()
	c, done := g.caller(h), g.own.begin(dir, name)
	since := g.stale.now()
	var e Entry
	err := g.retryBusy(ctx, func() (err error) { e, err = fn(ctx, c, dir); return err })
	done(e.Ino, err)
	if err != nil {
		return g.fail(err)
	}
	if e.TTL == 0 { // replies of mutations carry none: what was just made is known
		e.TTL = g.dirTTL(ctx, c, dir)
	}
	if g.stale.changed(since, e.Ino, e.Ino) {
		e.TTL = 0
	}
	g.entry(&e, out)
	return fuse.OK
}

// dirTTL is how long names of a directory may be believed.
func (g *gateway) dirTTL(ctx context.Context, c orca.Caller, dir orca.Ino) time.Duration {
	d, err := g.fs.Stat(ctx, c, dir)
	if err != nil {
		return 0
	}
	return d.TTL
}

// Unlink removes a file. Handles open here keep what they have.
func (g *gateway) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	g.count(OpUnlink)
	dir, st := g.ino(h.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, cancel := g.call()
	defer cancel()
	if w := g.pendingAt(dir, name); w != nil {
		if w.unlink(ctx) {
			return fuse.OK
		} // else it was published in between
	}
	c := g.caller(h)
	removed := g.beginRemoval(ctx, c, dir, name)
	done := g.own.begin(dir, name)
	err := g.retryBusy(ctx, func() error { return g.fs.Unlink(ctx, c, dir, name) })
	done(0, err)
	removed(err)
	return g.fail(err)
}

// Rmdir removes an empty directory.
func (g *gateway) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	g.count(OpRmdir)
	dir, st := g.ino(h.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, cancel := g.call()
	defer cancel()
	c := g.caller(h)
	g.settleDir(ctx, c, dir, name)
	done := g.own.begin(dir, name)
	err := g.whileQuiet(ctx, func() error { return g.fs.Rmdir(ctx, c, dir, name) })
	done(0, err)
	return g.fail(err)
}

// whileQuiet calls fn; when that meets files being written, it ends the write
// sessions of this mount (publishing what changed) and tries again.
func (g *gateway) whileQuiet(ctx context.Context, fn func() error) error {
	err := fn()
	if orca.KindOf(err) != orca.Busy {
		return err
	}
	g.publishAll(ctx)
	return g.retryBusy(ctx, fn)
}

// errRenumbered is the outcome of a rename into another group: the kernel has the
// old number under the new name, so what the watch stream says of that is news. Until
// it is heard, the old number is ESTALE, upon which the kernel looks the name up again.
var errRenumbered = orca.E("fusegw.Rename", orca.Stale, "the file has another number")

// keepOpen goes before the file at a name gets another number: what a worker here
// has of it stays with who has it open.
func (g *gateway) keepOpen(ctx context.Context, c orca.Caller, dir orca.Ino, name string) {
	if e, err := g.fs.Lookup(ctx, c, dir, name); err == nil && e.Type == orca.TypeFile {
		g.keepInoOpen(ctx, e.Ino)
	}
}

func (g *gateway) keepInoOpen(ctx context.Context, ino orca.Ino) {
	g.mu.Lock()
	id, ok := g.aliases[ino]
	if !ok {
		id = g.nodeID(ino)
	}
	g.mu.Unlock()
	n, st := g.hold(id)
	if !st.Ok() {
		return
	}
	defer g.drop(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open != nil && n.open.file != nil {
		n.open.file.Backing(ctx)
	}
}

// Rename moves a name. Files being written are published before, so that there
// is something to move.
func (g *gateway) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	g.count(OpRename)
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	dir, st := g.ino(in.NodeId)
	newDir, st2 := g.ino(in.Newdir)
	if !st.Ok() || !st2.Ok() {
		return fuse.Status(syscall.ESTALE)
	}
	noReplace := in.Flags&unix.RENAME_NOREPLACE != 0
	ctx, cancel := g.call()
	c := g.caller(&in.InHeader)
	across := g.apart(ctx, c, dir, newDir)
	if across { // all that is below a directory is copied from group to group
		cancel()
		ctx, cancel = g.longCall()
	}
	defer cancel()
	if err := g.settleName(ctx, c, dir, name); err != nil {
		return g.fail(err)
	}
	if dir == newDir && name == newName {
		return fuse.OK
	}
	if in.Flags&unix.RENAME_EXCHANGE != 0 {
		if noReplace {
			return fuse.EINVAL
		}
		return g.exchange(ctx, c, dir, name, newDir, newName, across)
	}
	if w := g.pendingAt(newDir, newName); w != nil {
		if noReplace {
			return fuse.Status(syscall.EEXIST)
		}
		// It is published, for it has to be there again if the rename fails.
		if err := w.settle(ctx); err != nil {
			return g.fail(err)
		}
	}
	var leaves orca.Ino
	if across {
		leaves = g.departing(ctx, c, dir, name)
	}
	removed := func(error) {}
	if !noReplace {
		g.settleDir(ctx, c, newDir, newName)
		if e, err := g.fs.Lookup(ctx, c, newDir, newName); err == nil && e.Type == orca.TypeFile {
			g.bury(ctx, e.Ino)
		}
		removed = g.beginRemoval(ctx, c, newDir, newName)
	}
	done1, done2 := g.own.begin(dir, name), g.own.begin(newDir, newName)
	err := g.whileQuiet(ctx, func() error { return g.fs.Rename(ctx, c, dir, name, newDir, newName, noReplace) })
	removed(err)
	done1(0, err)
	var moved orca.Ino
	if err == nil {
		if e, err := g.fs.Lookup(ctx, c, newDir, newName); err == nil {
			moved = e.Ino
		}
	}
	if across && err == nil {
		if leaves != 0 && moved != 0 {
			g.renumbered.moved(g.nodeID(leaves), leaves, moved, g.nodeID(moved))
		}
		done2(moved, errRenumbered)
		if leaves != 0 { // the kernel need not wait for the watch stream
			g.note(note{parent: newDir, name: newName})
		}
		return fuse.OK
	}
	done2(moved, err)
	return g.fail(err)
}

// settleName publishes the file at dir/name if it is being written here, and
// ends its write session.
func (g *gateway) settleName(ctx context.Context, c orca.Caller, dir orca.Ino, name string) error {
	w := g.pendingAt(dir, name)
	if w == nil {
		g.mu.Lock()
		none := len(g.writes) == 0
		g.mu.Unlock()
		if none {
			return nil
		}
		e, err := g.fs.Lookup(ctx, c, dir, name)
		if err != nil {
			return err
		}
		if w = g.writingOf(e.Ino); w == nil {
			return nil
		}
	}
	return w.settle(ctx)
}

// settleDir publishes the new files below dir/name, so that it does not pass
// for an empty directory.
func (g *gateway) settleDir(ctx context.Context, c orca.Caller, dir orca.Ino, name string) {
	g.mu.Lock()
	none := len(g.pending) == 0
	g.mu.Unlock()
	if none {
		return
	}
	e, err := g.fs.Lookup(ctx, c, dir, name)
	if err != nil || e.Type != orca.TypeDir {
		return // the call itself says so
	}
	g.mu.Lock()
	var in []*writing
	for k, w := range g.pending {
		if k.dir == e.Ino {
			in = append(in, w)
		}
	}
	g.mu.Unlock()
	for _, w := range in {
		if err := w.settle(ctx); err != nil {
			g.cfg.Logger.Error("a file being written was not published", "ino", w.ino, "err", err)
		}
	}
}

// Readlink returns the text of a symbolic link.
func (g *gateway) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	g.count(OpReadlink)
	ino, st := g.ino(h.NodeId)
	if !st.Ok() {
		return nil, st
	}
	ctx, cancel := g.call()
	defer cancel()
	e, err := g.fs.Stat(ctx, g.caller(h), ino)
	if err != nil {
		return nil, g.failInode(err)
	}
	if e.Type != orca.TypeSymlink {
		return nil, fuse.EINVAL
	}
	return []byte(e.Target), fuse.OK
}
