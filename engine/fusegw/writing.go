// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
)

// writing is the private file of an inode: what all its writers on this mount
// share. It holds the next version from the first write (or open, where that
// is by passthrough) until the last handle is closed.
//
// What was written since the last publication is told by the file's own size
// and modification time, which see every write, also the kernel's: at each
// publication the time is set to a stamp of 1970 that no write can leave.
type writing struct {
	g   *gateway
	ino orca.Ino
	n   atomic.Pointer[node] // the incarnation it is open in, if any
	f   atomic.Pointer[os.File]

	pub sync.Mutex // serialises prepare, publish, unlink; held over I/O, not while a removal is waited for

	mu       sync.Mutex
	caller   orca.Caller // who opened it last: its sessions are theirs
	attr     orca.Attr   // as published, with what setAttr changed since
	sess     Writer      // nil between publications
	sessFile bool        // f is the session's own private file
	stamp    time.Time   // of the last publication
	size     int64       // at that time
	force    bool        // to be published though nothing was written
	pending  *entryKey   // new: not in the namespace yet
	unlinked bool
	leaving  int           // removals of its name whose outcome is not known
	decided  chan struct{} // closed when that is 0 again; nil: it is
	later    Change        // to apply after the next publication
	laterBy  orca.Caller
	laterAt  time.Time // modification time of f when later.Mtime was set
}

func (g *gateway) newWriting(c orca.Caller, a *orca.Attr) *writing {
	return &writing{g: g, ino: a.Ino, caller: c, attr: *a}
}

// newFile starts the write of a file that sess has just created.
func (g *gateway) newFile(ctx context.Context, c orca.Caller, sess Writer, k entryKey, mode uint32) (*writing, error) {
	a := sess.Attr()
	made := a.Mode
	a.Length, a.Mode = 0, mode
	a.Type = orca.TypeFile
	if now := time.Now(); a.Mtime.IsZero() {
		a.Mtime, a.Ctime, a.Atime = now, now, now
	}
	if a.Nlink == 0 {
		a.Nlink = 1
	}
	w := g.newWriting(c, &a)
	w.attr.Version = 0
	w.pending = &k
	if made != mode { // the FS does not take every mode
		w.later.Mode, w.laterBy = &mode, c
	}
	f, err := w.privateFile(sess)
	if err == nil {
		err = w.start(f, sess)
	}
	if err != nil {
		_ = sess.Abort(ctx)
		return nil, err
	}
	g.mu.Lock()
	g.pending[k] = w
	g.writes[w.ino] = w
	g.mu.Unlock()
	return w, nil
}

// adopt shows w instead of what the metaplane says of its inode; disown ends
// that.
func (g *gateway) adopt(w *writing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes[w.ino] = w
}

func (g *gateway) disown(w *writing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writes[w.ino] == w {
		delete(g.writes, w.ino)
	}
}

// file returns the private file, nil before it is prepared.
func (w *writing) file() *os.File { return w.f.Load() }

// privateFile returns the session's private file, or one made here when that is
// on another host.
func (w *writing) privateFile(sess Writer) (*os.File, error) {
	local := sess.Local()
	if local == nil {
		f, err := scratchFile(w.g.cfg.SpoolDir)
		if err != nil {
			return nil, orca.PathE("fusegw.spool", w.g.cfg.SpoolDir, orca.NoSpace, err)
		}
		return f, nil
	}
	fd, err := unix.FcntlInt(local.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), local.Name()), nil
}

// start makes f the private file, with what it holds as published, and sess
// (nil: none) the session that will publish it. From here on readers see f: it
// must hold already what they are to see. On failure f is closed and sess is
// still the caller's.
func (w *writing) start(f *os.File, sess Writer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.markLocked(f); err != nil {
		_ = f.Close()
		return err
	}
	w.sess, w.sessFile = sess, sess != nil && sess.Local() != nil
	w.f.Store(f)
	return nil
}

// stamps makes each stamp different from the last.
func (w *writing) markLocked(f *os.File) error {
	next := time.Unix(1, 0)
	if w.stamp.Equal(next) {
		next = time.Unix(2, 0)
	}
	tv := []unix.Timeval{{Sec: next.Unix()}, {Sec: next.Unix()}}
	if err := unix.Futimes(int(f.Fd()), tv); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	w.stamp, w.size = next, st.Size()
	return nil
}

// changedLocked reports whether anything was written since the stamp.
func (w *writing) changedLocked() bool {
	f := w.file()
	if f == nil {
		return false
	}
	st, err := f.Stat()
	return err != nil || st.Size() != w.size || !st.ModTime().Equal(w.stamp)
}

// ahead reports whether the private file is newer than the namespace.
func (w *writing) ahead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending != nil || w.unlinked || w.leaving > 0 || w.force || w.changedLocked()
}

func (w *writing) isPending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending != nil
}

func (w *writing) version() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.attr.Version
}

// publishedPages returns the version that the kernel's pages hold after the
// last close, 0 when they are not a version.
func (w *writing) publishedPages() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unlinked || w.leaving > 0 || w.force || w.changedLocked() {
		return 0
	}
	return w.attr.Version
}

func (w *writing) setForce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.force = true
}

func (w *writing) setCaller(c orca.Caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.caller = c
}

// show returns the attributes as this mount shows them.
func (w *writing) show() orca.Attr {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.attr
	if w.unlinked {
		a.Nlink = 0
	}
	f := w.file()
	if f == nil {
		return a
	}
	st, err := f.Stat()
	if err != nil {
		return a
	}
	a.Length = st.Size()
	if m := st.ModTime(); !m.Equal(w.stamp) && (w.later.Mtime == nil || !m.Equal(w.laterAt)) {
		a.Mtime, a.Ctime = m, m
	}
	return a
}

// prepare makes the private file with the first keep bytes of the old content
// (-1: all), unless there is one.
func (w *writing) prepare(ctx context.Context, keep int64) error {
	w.pub.Lock()
	defer w.pub.Unlock()
	if w.file() != nil {
		return nil
	}
	sess, err := w.overwrite(ctx)
	if err != nil {
		return err
	}
	if keep < 0 {
		keep = 1<<63 - 1
	}
	f, err := w.privateFile(sess)
	if err == nil && keep > 0 {
		if err = w.fillOld(ctx, f, keep); err != nil {
			_ = f.Close()
		}
	}
	if err == nil {
		err = w.start(f, sess)
	}
	if err != nil {
		_ = sess.Abort(ctx)
	}
	return err
}

// overwrite opens a session for the next version.
func (w *writing) overwrite(ctx context.Context) (sess Writer, err error) {
	w.mu.Lock()
	c := w.caller
	w.mu.Unlock()
	err = w.g.retryBusy(ctx, func() (err error) { sess, err = w.g.fs.Overwrite(ctx, c, w.ino); return err })
	return sess, err
}

// fillOld copies old content into f. The daemon reads it as itself: the writer
// need not be allowed to.
func (w *writing) fillOld(ctx context.Context, f *os.File, keep int64) error {
	old, err := w.g.fs.Open(ctx, orca.Caller{}, w.ino)
	if err != nil {
		return err
	}
	defer func() { _ = old.Close() }()
	n, err := copyOld(ctx, f, old, keep)
	w.g.m.Copied.Add(n)
	return err
}

// truncate sets the length of the private file.
func (w *writing) truncate(ctx context.Context, length int64) error {
	if err := w.prepare(ctx, length); err != nil {
		return err
	}
	return w.file().Truncate(length)
}

// sync makes the private file durable.
func (w *writing) sync(ctx context.Context) error {
	w.mu.Lock()
	sess, own := w.sess, w.sessFile
	w.mu.Unlock()
	f := w.file()
	switch {
	case f == nil:
		return nil
	case sess != nil && own:
		return sess.Sync(ctx)
	}
	return f.Sync()
}

// settle publishes what there is to publish, and ends the write session.
func (w *writing) settle(ctx context.Context) error {
	if err := w.stay(ctx); err != nil {
		return err
	}
	defer w.pub.Unlock()
	if err := w.publishLocked(ctx, true); err != nil {
		return err
	}
	w.dropSession(ctx)
	return nil
}

// stay takes w.pub when no removal of the name is on its way: until its outcome
// is known nobody can say whether there is a name to publish under, and what is
// acknowledged without having been published would be lost if the name stayed.
func (w *writing) stay(ctx context.Context) error {
	for {
		w.pub.Lock()
		w.mu.Lock()
		decided := w.decided
		w.mu.Unlock()
		if decided == nil {
			return nil
		}
		w.pub.Unlock()
		select {
		case <-decided:
		case <-ctx.Done():
			return &orca.Error{Op: "fusegw.publish", Kind: orca.Timeout, Msg: "the file is being removed, and it is not known yet whether it was", Err: ctx.Err()}
		}
	}
}

func (w *writing) dropSession(ctx context.Context) {
	w.mu.Lock()
	sess := w.sess
	w.sess, w.sessFile = nil, false
	w.mu.Unlock()
	if sess != nil {
		_ = sess.Abort(ctx) // it ends by itself otherwise
	}
}

// publish makes what was written since the last publication the next version.
// Without last, a file that was only opened is left for its release.
func (w *writing) publish(ctx context.Context, last bool) error {
	if err := w.stay(ctx); err != nil {
		return err
	}
	defer w.pub.Unlock()
	return w.publishLocked(ctx, last)
}

// publishLocked is publish, with w.pub held.
func (w *writing) publishLocked(ctx context.Context, last bool) error {
	w.mu.Lock()
	need := w.changedLocked() || last && (w.force || w.pending != nil)
	if w.unlinked || w.file() == nil || !need {
		w.mu.Unlock()
		return nil
	}
	w.latchMtimeLocked()
	err := w.markLocked(w.file())
	sess, own, k := w.sess, w.sessFile, w.pending
	w.sess, w.sessFile = nil, false
	w.mu.Unlock()
	if err != nil {
		return err
	}
	done := func(orca.Ino, error) {}
	if k != nil {
		done = w.g.own.begin(k.dir, k.name)
	}
	a, err := w.seal(ctx, sess, own)
	if kind := orca.KindOf(err); k == nil && (kind == orca.Stale || kind == orca.SessionExpired) {
		a, err = w.seal(ctx, nil, false) // the session is of the past, the data is here
	}
	done(w.ino, err)
	if err != nil {
		w.g.m.PublishFailures.Add(1)
		w.failed(k)
		return err
	}
	w.g.m.Publishes.Add(1)
	return w.published(ctx, &a)
}

// latchMtimeLocked decides whether an explicit modification time still holds:
// a write after it overrides it.
func (w *writing) latchMtimeLocked() {
	if w.later.Mtime == nil {
		return
	}
	if st, err := w.file().Stat(); err == nil && !st.ModTime().Equal(w.laterAt) {
		w.later.Mtime = nil
	}
}

// seal brings the private file into a session and closes that.
func (w *writing) seal(ctx context.Context, sess Writer, own bool) (orca.Attr, error) {
	if sess == nil {
		var err error
		if sess, err = w.overwrite(ctx); err != nil {
			return orca.Attr{}, err
		}
	}
	if !own {
		if err := w.transfer(ctx, sess); err != nil {
			_ = sess.Abort(ctx)
			return orca.Attr{}, err
		}
	}
	return sess.Close(ctx)
}

// transfer writes the private file into a session that has one of its own.
func (w *writing) transfer(ctx context.Context, sess Writer) error {
	f := w.file()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if local := sess.Local(); local != nil {
		if err := local.Truncate(st.Size()); err != nil {
			return err
		}
		if copyRange(local, f, st.Size()) == st.Size() {
			return nil
		}
	}
	buf := make([]byte, maxWrite)
	for off := int64(0); off < st.Size(); {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), st.Size()-off)], off)
		if n == 0 {
			return err
		}
		if err := sess.WriteAt(ctx, buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return sess.Truncate(ctx, st.Size())
}

// failed keeps the content for another attempt; a new file that could not be
// published vanishes with its session.
func (w *writing) failed(k *entryKey) {
	w.mu.Lock()
	w.force = true
	if k != nil {
		w.pending, w.unlinked = nil, true
	}
	w.mu.Unlock()
	if k != nil {
		w.g.forgetPending(w, *k)
		w.g.note(note{parent: k.dir, name: k.name})
	}
}

func (g *gateway) forgetPending(w *writing, k entryKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pending[k] == w {
		delete(g.pending, k)
	}
}

// published records the new version and applies what had to wait for it.
func (w *writing) published(ctx context.Context, a *orca.Attr) error {
	w.mu.Lock()
	k, ch, by := w.pending, w.later, w.laterBy
	shown := w.attr
	w.attr = *a
	if k != nil { // the mode asked for meanwhile
		w.attr.Mode, w.attr.UID, w.attr.GID = shown.Mode, shown.UID, shown.GID
	}
	if ch.Mtime != nil {
		w.attr.Mtime = *ch.Mtime
	}
	w.pending, w.force, w.later = nil, false, Change{}
	w.mu.Unlock()
	if k != nil {
		w.g.forgetPending(w, *k)
	}
	if n := w.n.Load(); n != nil {
		n.told.Store(a.Version) // the kernel wrote it: it knows the size
	}
	if ch == (Change{}) {
		return nil
	}
	_, err := w.g.fs.SetAttr(ctx, by, w.ino, ch)
	return err
}

// setAttr changes attributes: at once, and again after a publication where
// that would undo it.
func (w *writing) setAttr(ctx context.Context, c orca.Caller, ch Change) error {
	if err := w.stay(ctx); err != nil {
		return err
	}
	defer w.pub.Unlock()
	if !w.isPending() {
		w.mu.Lock()
		gone := w.unlinked
		w.mu.Unlock()
		if !gone {
			if _, err := w.g.fs.SetAttr(ctx, c, w.ino, ch); err != nil {
				return err
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	set := func(p **uint32, to *uint32, v *uint32) {
		if v == nil {
			return
		}
		*to = *v
		if w.pending != nil {
			*p = v
		}
	}
	set(&w.later.Mode, &w.attr.Mode, ch.Mode)
	set(&w.later.UID, &w.attr.UID, ch.UID)
	set(&w.later.GID, &w.attr.GID, ch.GID)
	w.laterBy = c
	w.attr.Ctime = time.Now()
	unpublished := w.pending != nil || w.force || w.changedLocked()
	if ch.Atime != nil {
		w.attr.Atime = *ch.Atime
		if unpublished {
			w.later.Atime = ch.Atime
		}
	}
	if ch.Mtime != nil {
		w.attr.Mtime = *ch.Mtime
		if st, err := w.file().Stat(); err == nil && unpublished {
			w.later.Mtime, w.laterAt = ch.Mtime, st.ModTime()
		}
	}
	return nil
}

// unlink ends a new file before it was published: nothing more is. false when
// it was published meanwhile, so that there is a name to remove.
func (w *writing) unlink(ctx context.Context) bool {
	w.pub.Lock()
	defer w.pub.Unlock()
	w.mu.Lock()
	k := w.pending
	w.pending, w.unlinked = nil, w.unlinked || k != nil
	w.mu.Unlock()
	if k == nil {
		return false
	}
	w.dropSession(ctx)
	w.g.forgetPending(w, *k)
	return true
}

// cutOff ends the write session, which would stand in the way of a removal.
func (w *writing) cutOff(ctx context.Context) {
	w.pub.Lock()
	defer w.pub.Unlock()
	w.dropSession(ctx)
}

// leave says that the name may be going; left is called with the outcome.
func (w *writing) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leaving++; w.decided == nil {
		w.decided = make(chan struct{})
	}
}

func (w *writing) left(gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlinked = w.unlinked || gone
	if w.leaving--; w.leaving == 0 {
		close(w.decided)
		w.decided = nil
	}
}

func (w *writing) isLeaving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leaving > 0
}

// end drops the private file.
func (w *writing) end() {
	w.pub.Lock()
	defer w.pub.Unlock()
	ctx, cancel := w.g.call()
	defer cancel()
	w.dropSession(ctx)
	w.g.disown(w)
	w.mu.Lock()
	k := w.pending
	w.mu.Unlock()
	if k != nil {
		w.g.forgetPending(w, *k)
	}
	if f := w.f.Swap(nil); f != nil {
		_ = f.Close()
	}
}

// publishAll ends the write sessions of the mount, but for those of files that
// are being removed: they have none, and the caller may be who removes them.
func (g *gateway) publishAll(ctx context.Context) {
	g.mu.Lock()
	var all []*writing
	for _, w := range g.writes {
		all = append(all, w)
	}
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b *writing) int { return int(int64(a.ino) - int64(b.ino)) })
	for _, w := range all {
		if w.isLeaving() {
			continue
		}
		if err := w.settle(ctx); err != nil {
			g.cfg.Logger.Error("a file being written was not published", "ino", w.ino, "err", err)
		}
	}
}

// shutdown frees what is left when nothing is served any more.
func (g *gateway) shutdown(ctx context.Context) {
	g.publishAll(ctx)
	g.mu.Lock()
	handles := g.handles
	g.handles = map[uint64]*handle{}
	g.mu.Unlock()
	for _, h := range handles {
		g.releaseHandle(h)
	}
}
