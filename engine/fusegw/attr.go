// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// GetAttr answers stat(2). A file being written here shows its private file.
func (g *gateway) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.count(OpGetattr)
	ino, st := g.ino(in.NodeId)
	if !st.Ok() {
		return st
	}
	if w := g.writingOf(ino); w != nil {
		a := w.show()
		fillAttr(&a, &out.Attr)
		return fuse.OK
	}
	ctx, cancel := g.call()
	defer cancel()
	since := g.stale.now()
	e, err := g.fs.Stat(ctx, g.caller(&in.InHeader), ino)
	if orca.KindOf(err) == orca.NotFound && (g.openAttr(in.NodeId, &e.Attr) || g.graves.attr(ino, &e.Attr)) {
		err, e.Nlink, e.TTL = nil, 0, 0 // unlinked while open
	}
	if err != nil {
		return g.failInode(err)
	}
	g.attr(&e, since, out)
	return fuse.OK
}

// failInode is fail for calls by inode: one that is gone is ESTALE, so that the
// kernel looks the name up again.
func (g *gateway) failInode(err error) fuse.Status {
	if orca.KindOf(err) == orca.NotFound {
		return fuse.Status(syscall.ESTALE)
	}
	return g.fail(err)
}

// openAttr returns the attributes that an open node had at its last open. What
// was opened by its creator was empty then: the private file knows better, for
// as long as there is a handle.
func (g *gateway) openAttr(id uint64, a *orca.Attr) bool {
	n, st := g.hold(id)
	if !st.Ok() {
		return false
	}
	defer g.drop(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.open == nil:
		return false
	case n.open.w != nil:
		*a = n.open.w.show()
	default:
		*a = n.open.attr
	}
	return true
}

func (g *gateway) attr(e *Entry, since uint64, out *fuse.AttrOut) {
	if g.stale.changed(since, e.Ino, e.Ino) {
		e.TTL = 0
	}
	g.tell(e.Ino, e.Version)
	fillAttr(&e.Attr, &out.Attr)
	out.SetTimeout(g.ttl(e.TTL))
}

// SetAttr answers chmod, chown, utimens and truncate.
func (g *gateway) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.count(OpSetattr)
	ino, st := g.ino(in.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, cancel := g.longCall()
	defer cancel()
	c := g.caller(&in.InHeader)
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if err := g.truncate(ctx, c, in.NodeId, ino, int64(in.Size), in.Valid&fuse.FATTR_FH != 0); err != nil {
			return g.failInode(err)
		}
	}
	ch, any := changeOf(in)
	if w := g.writingOf(ino); w != nil {
		if any {
			if err := w.setAttr(ctx, c, ch); err != nil {
				return g.fail(err)
			}
		}
		a := w.show()
		fillAttr(&a, &out.Attr)
		return fuse.OK
	}
	var e Entry
	var err error
	since := g.stale.now()
	if any {
		err = g.retryBusy(ctx, func() (err error) { e, err = g.fs.SetAttr(ctx, c, ino, ch); return err })
	} else {
		e, err = g.fs.Stat(ctx, c, ino)
	}
	if err != nil {
		return g.failInode(err)
	}
	g.attr(&e, since, out)
	return fuse.OK
}

func changeOf(in *fuse.SetAttrIn) (ch Change, any bool) {
	if m, ok := in.GetMode(); ok {
		m &= 0o7777
		ch.Mode, any = &m, true
	}
	if u, ok := in.GetUID(); ok {
		ch.UID, any = &u, true
	}
	if gid, ok := in.GetGID(); ok {
		ch.GID, any = &gid, true
	}
	if t, ok := in.GetATime(); ok {
		ch.Atime, any = &t, true
	}
	if t, ok := in.GetMTime(); ok {
		ch.Mtime, any = &t, true
	}
	return ch, any
}

// truncate sets the length: of the private file when the inode is being
// written, else as a version of its own.
func (g *gateway) truncate(ctx context.Context, c orca.Caller, id uint64, ino orca.Ino, length int64, byHandle bool) error {
	n, st := g.hold(id)
	if !st.Ok() {
		return syscall.Errno(st)
	}
	defer g.drop(n)
	n.mu.Lock()
	if n.open != nil && n.open.w != nil {
		w := n.open.w
		err := w.truncate(ctx, length)
		n.mu.Unlock()
		if err != nil || byHandle {
			return err
		}
		// By path, with a writer whose last close may still be on its way to
		// us: who opens the file next is to see it truncated.
		return w.publish(ctx, false)
	}
	defer n.mu.Unlock()
	e, err := g.fs.Stat(ctx, c, ino)
	if err != nil {
		return err
	}
	if e.Type != orca.TypeFile {
		return orca.E("fusegw.Truncate", orca.IsDir, "")
	}
	if e.Length == length {
		now := time.Now()
		_, err := g.fs.SetAttr(ctx, c, ino, Change{Mtime: &now})
		return err
	}
	w := g.newWriting(c, &e.Attr)
	defer w.end()
	if err := w.prepare(ctx, min(e.Length, length)); err != nil {
		return err
	}
	if err := w.truncate(ctx, length); err != nil {
		return err
	}
	return w.publish(ctx, true)
}

// Access answers access(2) where the kernel asks (it decides itself under
// default_permissions).
func (g *gateway) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	ino, st := g.ino(in.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, cancel := g.call()
	defer cancel()
	c := g.caller(&in.InHeader)
	e, err := g.fs.Stat(ctx, c, ino)
	if err != nil {
		return g.fail(err)
	}
	if !allowed(&e.Attr, c, in.Mask) {
		return fuse.EACCES
	}
	return fuse.OK
}

// StatFs answers df.
func (g *gateway) StatFs(_ <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	g.count(OpStatfs)
	ino, st := g.ino(in.NodeId)
	if !st.Ok() {
		ino = g.cfg.Root
	}
	ctx, cancel := g.call()
	defer cancel()
	s, err := g.fs.Statfs(ctx, g.cfg.Root, ino)
	if err != nil {
		return g.fail(err)
	}
	const unit = 4096
	*out = fuse.StatfsOut{
		Blocks: uint64(s.Total) / unit, Bfree: uint64(s.Free) / unit, Bavail: uint64(s.Free) / unit,
		Files: uint64(s.TotalFiles), Ffree: uint64(s.FreeFiles), Bsize: unit, Frsize: unit, NameLen: orca.MaxName,
	}
	return fuse.OK
}

// xattrTarget is the inode of an attribute call. New files have none before
// they are published.
func (g *gateway) xattrTarget(ctx context.Context, h *fuse.InHeader) (orca.Ino, fuse.Status) {
	g.count(OpXattr)
	ino, st := g.ino(h.NodeId)
	if !st.Ok() {
		return 0, st
	}
	if w := g.writingOf(ino); w != nil && w.isPending() {
		if err := w.publish(ctx, true); err != nil {
			return 0, g.fail(err)
		}
	}
	return ino, fuse.OK
}

// GetXAttr reads an extended attribute.
func (g *gateway) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if ino, st := g.ino(h.NodeId); !st.Ok() {
		return 0, st
	} else if w := g.writingOf(ino); w != nil && w.isPending() {
		return 0, fuse.ENODATA
	}
	ctx, cancel := g.call()
	defer cancel()
	ino, st := g.xattrTarget(ctx, h)
	if !st.Ok() {
		return 0, st
	}
	v, err := g.fs.GetXattr(ctx, g.caller(h), ino, name)
	if err != nil {
		return 0, g.fail(err)
	}
	return copyOut(dest, v)
}

// ListXAttr reads the names of the extended attributes, each ended by NUL.
func (g *gateway) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if ino, st := g.ino(h.NodeId); !st.Ok() {
		return 0, st
	} else if w := g.writingOf(ino); w != nil && w.isPending() {
		return 0, fuse.OK
	}
	ctx, cancel := g.call()
	defer cancel()
	ino, st := g.xattrTarget(ctx, h)
	if !st.Ok() {
		return 0, st
	}
	names, err := g.fs.ListXattr(ctx, g.caller(h), ino)
	if err != nil {
		return 0, g.fail(err)
	}
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return copyOut(dest, b)
}

// copyOut copies a value out; an empty buffer asks for the length only.
func copyOut(dest, v []byte) (uint32, fuse.Status) {
	if len(dest) == 0 {
		return uint32(len(v)), fuse.OK
	}
	if len(dest) < len(v) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// SetXAttr writes an extended attribute.
func (g *gateway) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	if strings.HasPrefix(name, "system.") {
		// ACLs: kept as they come they would hold nobody back. Programs set
		// the mode instead.
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	ctx, cancel := g.call()
	defer cancel()
	ino, st := g.xattrTarget(ctx, &in.InHeader)
	if !st.Ok() {
		return st
	}
	const create, replace = 1, 2
	value := append([]byte(nil), data...)
	return g.fail(g.fs.SetXattr(ctx, g.caller(&in.InHeader), ino, name, value, in.Flags&create != 0, in.Flags&replace != 0))
}

// RemoveXAttr removes an extended attribute.
func (g *gateway) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	ctx, cancel := g.call()
	defer cancel()
	ino, st := g.xattrTarget(ctx, h)
	if !st.Ok() {
		return st
	}
	return g.fail(g.fs.RemoveXattr(ctx, g.caller(h), ino, name))
}
