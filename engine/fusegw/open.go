// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// openState is how an incarnation with open handles is served. The mode is
// decided by the first open and stays until the last release.
type openState struct {
	b       *backing // passthrough; nil: cached, served by the daemon
	version uint32   // of the content
	attr    orca.Attr
	file    File // of that version, for all handles; nil where no READ needs it
	handles int
	writers int
	w       *writing // once opened for writing
}

// current is the version of the content that is shown.
func (o *openState) current() uint32 {
	if o.w != nil {
		return o.w.version()
	}
	return o.version
}

// handle is one open file.
type handle struct {
	n    *node
	file File // what READ reads, unless something is being written: the node's
	w    *writing
}

// Open opens a file.
func (g *gateway) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.count(OpOpen)
	n, st := g.hold(in.NodeId)
	if !st.Ok() {
		return st
	}
	ctx, cancel := g.longCall()
	defer cancel()
	h, c := &handle{n: n}, g.caller(&in.InHeader)
	if in.Flags&(syscall.O_ACCMODE|syscall.O_TRUNC) == syscall.O_TRUNC {
		// Not portable, but Linux truncates.
		if err := g.truncate(ctx, c, in.NodeId, n.ino, 0, false); err != nil {
			g.drop(n)
			return g.failInode(err)
		}
	}
	n.mu.Lock()
	st = g.openLocked(ctx, h, c, in.Flags, out)
	n.mu.Unlock()
	switch {
	case st == fuse.ENOENT && !g.bounced(in.Pid):
		st = fuse.Status(syscall.ESTALE) // replaced by now: look again
	case st == fuse.Status(syscall.ESTALE) && g.bounced(in.Pid):
		st = g.openIdle(ctx, h, &in.InHeader, in.Flags, out)
	}
	if !st.Ok() {
		g.drop(n)
		return st
	}
	g.addHandle(h, out)
	if out.OpenFlags&fuse.FOPEN_PASSTHROUGH == 0 {
		if err := g.keepLeaving(ctx, n); err != nil {
			g.closeHandle(out.Fh)
			if g.bounced(in.Pid) {
				return fuse.ENOENT
			}
			return fuse.Status(syscall.ESTALE)
		}
	}
	g.landed(in.Pid)
	return fuse.OK
}

// bounceFor is how soon another ESTALE for the same thread is taken for the
// same open(2): the kernel looks up only once more. It spans that lookup.
const bounceFor = time.Second

// landed ends what bounced noted: the thread's next open(2) is another.
func (g *gateway) landed(tid uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.bounces, tid)
}

// bounced notes that a thread is being sent back, and reports whether it was
// just before.
func (g *gateway) bounced(tid uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	last, ok := g.bounces[tid]
	if g.bounces == nil || len(g.bounces) > groupCacheMax {
		g.bounces = map[uint32]time.Time{}
	}
	if ok && now.Sub(last) < bounceFor {
		delete(g.bounces, tid)
		return true
	}
	g.bounces[tid] = now
	return false
}

// openIdle serves an open that lost a race against others twice: it waits for
// their handles to close. An idle incarnation fits anything.
func (g *gateway) openIdle(ctx context.Context, h *handle, in *fuse.InHeader, flags uint32, out *fuse.OpenOut) fuse.Status {
	st := fuse.Status(syscall.ESTALE)
	c, n := g.caller(in), h.n
	for end := time.Now().Add(g.cfg.BusyRetry); time.Now().Before(end); time.Sleep(time.Millisecond) {
		n.mu.Lock()
		if n.open == nil {
			n.nudged = n.told.Load()
			n.told.Store(0) // not to be sent back once more
			st = g.openCurrent(ctx, h, c, flags, out)
		}
		n.mu.Unlock()
		if st != fuse.Status(syscall.ESTALE) {
			return st
		}
	}
	return st
}

func (g *gateway) addHandle(h *handle, out *fuse.OpenOut) {
	out.Fh = g.nextFh.Add(1)
	g.mu.Lock()
	g.handles[out.Fh] = h
	g.mu.Unlock()
}

func (g *gateway) handle(fh uint64) *handle {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.handles[fh]
}

func (g *gateway) openLocked(ctx context.Context, h *handle, c orca.Caller, flags uint32, out *fuse.OpenOut) fuse.Status {
	if !g.current(h.n) {
		return fuse.Status(syscall.ESTALE)
	}
	return g.openCurrent(ctx, h, c, flags, out)
}

func (g *gateway) openCurrent(ctx context.Context, h *handle, c orca.Caller, flags uint32, out *fuse.OpenOut) fuse.Status {
	var st fuse.Status
	write := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if write {
		st = g.openWrite(ctx, h, c, flags)
	} else {
		st = g.openRead(ctx, h, c)
	}
	if st.Ok() {
		g.joined(h, write, out)
	}
	return st
}

// joined counts a handle and answers in the mode of its node.
func (g *gateway) joined(h *handle, write bool, out *fuse.OpenOut) {
	n, o := h.n, h.n.open
	o.handles++
	n.opens.Store(int32(o.handles))
	if write {
		o.writers++
		h.w = o.w
	} else {
		out.OpenFlags |= fuse.FOPEN_NOFLUSH
	}
	if o.b != nil {
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = o.b.id
		g.m.PassOpens.Add(1)
		if !write {
			g.m.PassReads.Add(1)
		}
		return
	}
	v := o.current()
	if n.pages == v || o.handles > 1 {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	n.pages = v
}

// openRead joins what is open or makes the first handle. On success n.open is
// set.
func (g *gateway) openRead(ctx context.Context, h *handle, c orca.Caller) fuse.Status {
	n := h.n
	o := n.open
	if o != nil && o.w != nil && o.w.ahead() {
		// What is here is newer than what the metaplane knows.
		if a := o.w.show(); !allowed(&a, c, fuse.R_OK) {
			return fuse.EACCES
		}
		h.file = o.file
		return fuse.OK
	}
	f, err := g.openHeld(ctx, c, n.ino)
	if orca.KindOf(err) == orca.NotFound {
		if f = g.graves.exhume(n.ino, c); f != nil {
			err = nil
		} else if n.kept.Load() != nil && allowed(&o.attr, c, fuse.R_OK) {
			h.file = o.file // removed, but a copy is here
			return fuse.OK
		}
	}
	if err != nil {
		return g.fail(err)
	}
	a := f.Attr()
	switch {
	case o != nil && o.current() != a.Version:
		_ = f.Close()
		return g.reincarnate(n)
	case g.outdated(n, a.Version):
		_ = f.Close()
		return fuse.Status(syscall.ESTALE)
	case o == nil:
		o = &openState{version: a.Version, attr: a}
		why := FallbackShared
		if n.fresh.IsZero() || time.Now().After(n.fresh) {
			o.b, why = g.backingFor(ctx, f)
		}
		if o.b == nil {
			g.m.Fallbacks[why].Add(1)
		}
		n.open = o
	case o.b == nil:
		g.m.Fallbacks[FallbackShared].Add(1)
	}
	if o.b != nil {
		_ = f.Close() // the kernel reads the file itself
		return fuse.OK
	}
	if o.file == nil {
		o.file = f
	} else {
		_ = f.Close()
	}
	h.file = o.file
	return fuse.OK
}

// openWrite joins or starts the write of an inode. On success n.open.w is set.
func (g *gateway) openWrite(ctx context.Context, h *handle, c orca.Caller, flags uint32) fuse.Status {
	if g.cfg.ReadOnly {
		return fuse.EROFS
	}
	n := h.n
	o := n.open
	truncate := flags&syscall.O_TRUNC != 0
	if o != nil && o.w != nil {
		return g.joinWrite(ctx, h, c, truncate)
	}
	if o != nil && o.b != nil {
		return g.reincarnate(n) // a block file is never written
	}
	e, err := g.fs.Stat(ctx, c, n.ino)
	switch {
	case err != nil:
		return g.fail(err)
	case e.Type == orca.TypeDir:
		return fuse.Status(syscall.EISDIR)
	case !allowed(&e.Attr, c, fuse.W_OK):
		return fuse.EACCES
	case o != nil && o.version != e.Version:
		return g.reincarnate(n)
	case g.outdated(n, e.Version):
		return fuse.Status(syscall.ESTALE)
	}
	w := g.newWriting(c, &e.Attr)
	var old File
	readWrite := flags&syscall.O_ACCMODE == syscall.O_RDWR
	switch {
	case truncate:
		err = w.prepare(ctx, 0)
		w.setForce()
	case readWrite:
		// Most of these never write: copy at the first WRITE.
		old, err = g.openVersion(ctx, c, o, &e.Attr)
	default:
		err = w.prepare(ctx, e.Length)
	}
	if err != nil {
		w.end()
		return g.fail(err)
	}
	if o == nil {
		o = &openState{version: e.Version, attr: e.Attr}
		g.backWriting(o, w, readWrite)
		n.open = o
	}
	if o.file == nil {
		o.file = old
	}
	h.file = o.file
	o.w = w
	w.n.Store(n)
	n.live.Store(w)
	g.adopt(w)
	return fuse.OK
}

// openVersion opens the version that a is of, unless o has it open.
func (g *gateway) openVersion(ctx context.Context, c orca.Caller, o *openState, a *orca.Attr) (File, error) {
	if o != nil && o.file != nil {
		return nil, nil
	}
	f, err := g.openHeld(ctx, c, a.Ino)
	if err == nil && f.Attr().Version != a.Version {
		_ = f.Close()
		return nil, syscall.ESTALE // replaced since: look again
	}
	return f, err
}

// backWriting passes a private file through, if it can be. Not for read-write
// handles: these can be mapped, and a mapping of the backing file outlives the
// handle unseen.
func (g *gateway) backWriting(o *openState, w *writing, readWrite bool) {
	why := FallbackLazy
	if !readWrite {
		why = FallbackDisabled
		if g.m.PassEnabled.Load() {
			if b, ok := g.backings.register(w.file(), w.ino, 0, false); ok {
				o.b = b
				return
			}
			why = FallbackRegister
		}
	}
	g.m.Fallbacks[why].Add(1)
}

// joinWrite opens an inode for writing that is, or was, being written.
func (g *gateway) joinWrite(ctx context.Context, h *handle, c orca.Caller, truncate bool) fuse.Status {
	n, w := h.n, h.n.open.w
	if !w.ahead() {
		e, err := g.fs.Stat(ctx, c, n.ino)
		if err != nil {
			return g.fail(err)
		}
		if e.Version != w.version() {
			return g.reincarnate(n)
		}
	}
	if a := w.show(); !allowed(&a, c, fuse.W_OK) {
		return fuse.EACCES
	}
	w.setCaller(c)
	if truncate {
		if err := w.prepare(ctx, 0); err != nil {
			return g.fail(err)
		}
		if err := w.truncate(ctx, 0); err != nil {
			return g.fail(err)
		}
		w.setForce()
	}
	h.file = n.open.file
	g.adopt(w)
	return fuse.OK
}

// outdated reports, once per version, that the kernel's attributes are of
// another version: ESTALE makes it look the name up again, so that an open
// sees the size of what it opens.
func (g *gateway) outdated(n *node, version uint32) bool {
	told := n.told.Load()
	if told == 0 || told == version || n.nudged == version || time.Now().Before(n.fresh) {
		return false
	}
	n.nudged = version
	return true
}

// Create makes and opens a file. Until its first publication only this mount
// shows it.
func (g *gateway) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	g.count(OpCreate)
	dir, st := g.ino(in.NodeId)
	if !st.Ok() {
		return st
	}
	if g.cfg.ReadOnly {
		return fuse.EROFS
	}
	exclusive := in.Flags&syscall.O_EXCL != 0
	taken := func() fuse.Status {
		if exclusive {
			return fuse.Status(syscall.EEXIST)
		}
		return fuse.Status(syscall.ESTALE) // look again, then open it
	}
	if g.pendingAt(dir, name) != nil {
		return taken()
	}
	ctx, cancel := g.call()
	defer cancel()
	c := g.caller(&in.InHeader)
	var sess Writer
	err := g.retryBusy(ctx, func() (err error) { sess, err = g.fs.Create(ctx, c, dir, name, in.Mode&0o7777); return err })
	if orca.KindOf(err) == orca.Exists {
		return taken()
	}
	if err != nil {
		return g.fail(err)
	}
	w, err := g.newFile(ctx, c, sess, entryKey{dir, name}, in.Mode&0o7777)
	if err != nil {
		return g.fail(err)
	}
	a := w.show()
	out.EntryOut = fuse.EntryOut{NodeId: g.grant(w.ino, 0)}
	fillAttr(&a, &out.Attr)
	out.SetEntryTimeout(g.entryTTL(g.dirTTL(ctx, c, dir)))
	n, st := g.hold(out.NodeId)
	if !st.Ok() {
		return st
	}
	h := &handle{n: n}
	n.mu.Lock()
	defer n.mu.Unlock()
	readWrite := in.Flags&syscall.O_ACCMODE == syscall.O_RDWR
	n.open = &openState{attr: a, w: w}
	if write := in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY; write {
		g.backWriting(n.open, w, readWrite)
	}
	w.n.Store(n)
	n.live.Store(w)
	// An O_RDONLY creator counts as a writer too: its release publishes.
	g.joined(h, true, &out.OpenOut)
	g.addHandle(h, &out.OpenOut)
	return fuse.OK
}

// Release closes a handle. Nobody waits for it: what is published only here
// was never written since the last flush, but for a duplicate handle.
func (g *gateway) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	g.count(OpRelease)
	g.closeHandle(in.Fh)
}

func (g *gateway) closeHandle(fh uint64) {
	g.mu.Lock()
	h := g.handles[fh]
	delete(g.handles, fh)
	g.mu.Unlock()
	if h != nil {
		g.releaseHandle(h)
	}
}

func (g *gateway) releaseHandle(h *handle) {
	n := h.n
	defer g.drop(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.open
	if h.w != nil {
		if o.writers--; o.writers == 0 {
			g.lastWriter(h.w)
		}
	}
	o.handles--
	n.opens.Store(int32(o.handles))
	if o.handles > 0 {
		return
	}
	n.open = nil
	n.live.Store(nil)
	if o.file != nil {
		_ = o.file.Close()
	}
	if f := n.kept.Swap(nil); f != nil {
		_ = f.Close()
	}
	if o.b != nil {
		g.backings.release(o.b)
	}
	if o.w == nil {
		return
	}
	if o.b == nil {
		n.pages = o.w.publishedPages()
	}
	o.w.end()
}

// lastWriter publishes what remains and ends the write session.
func (g *gateway) lastWriter(w *writing) {
	ctx, cancel := g.longCall()
	defer cancel()
	if err := w.settle(ctx); err != nil {
		g.cfg.Logger.Error("a file was not published after its last close", "ino", w.ino, "err", err)
		return
	}
	g.disown(w)
}
