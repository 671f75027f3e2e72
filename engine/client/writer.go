// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
)

// CreateOptions shape a new file or a new version of one.
type CreateOptions struct {
	WriteType orca.WriteType // zero: the FS's default, then the path's
	Mode      uint32         // permission bits of a new file; zero: 0644, unless ExactMode
	ExactMode bool           // Mode is meant even when it is zero
	Overwrite bool           // replace the content of a file that is there (else Exists)
	Exclusive bool           // Exists whatever is there
	Parents   bool           // make missing directories (0755)
	BlockSize int64          // of a file too long to be one block; 0: the cluster's
	Replicas  uint32         // workers to hold it once sealed; 0: the cluster's default, or what the file has
	// Expect is how long the content will be, if that is known: what quotas
	// have no room for is then refused by Create, not by Close.
	Expect int64
	// Steal takes over a write session that another writer holds: its Close
	// fails with Stale. Else the second writer gets Busy.
	Steal bool
	// Existing starts from the current content instead of from an empty file
	// (implies Overwrite), for appending and random writes.
	Existing bool
}

// Writer writes one new version of one file into a private file on a worker.
// Nobody sees any of it before Publish or Close; an overwritten file keeps its
// old content until then. It is safe for concurrent use; after an error of
// Publish or Close nothing of this version is visible and the Writer is done.
type Writer struct {
	fs   *FS
	name string

	mu        sync.Mutex
	sess      *metapb.WriteSession // GUARDED_BY(mu), as all below
	attr      orca.Attr
	way       *chain    // to the workers that have the private file
	local     *os.File  // private file of a worker on this host
	pipe      *pipeline // else: the way of its bytes
	spare     *os.File  // local, to be read, while it is sealed with further copies; else nil
	remote    bool      // no private file on this host is to be used any more
	moved     bool      // another worker has begun to seal it
	pos       int64     // of Write
	length    int64     // of the private file, as far as written here
	changed   bool      // since the last publication, through this Writer
	published bool
	mark      os.FileInfo // of local at the last publication
	expect    int64       // that room is held for, until the first publication
	askAt     int64       // the length from which on quotas are to be asked
	err       error       // why the Writer is done
	done      bool
}

var _ interface {
	io.WriteCloser
	io.WriterAt
} = (*Writer)(nil)

// Create opens a write session and a private file for it, on a worker of this
// node if there is one. Exists, NotFound (parent), IsDir, Permission, ReadOnly,
// Busy (another writer), NoSpace, OverQuota. Follow it by Close or Abort.
func (fs *FS) Create(ctx context.Context, t Target, o CreateOptions) (*Writer, error) {
	r, err := fs.create(ctx, t, o, false)
	if err != nil {
		return nil, err
	}
	if r.Session == nil {
		return nil, &orca.Error{Op: "client.Create", Path: t.String(), Kind: orca.Internal, Msg: "no session in the reply"}
	}
	w := &Writer{fs: fs, name: t.String(), sess: r.Session, attr: r.Attr.Orca(), changed: true, expect: o.Expect, askAt: max(o.Expect, askFrom)}
	if err := w.place(ctx, r.Workers); err != nil {
		w.abandon()
		return nil, err
	}
	fs.sessions.add(w, r.Session)
	if o.Existing {
		if err := w.preload(ctx, t); err != nil {
			return nil, errors.Join(err, w.Abort())
		}
	}
	return w, nil
}

// CreateEmpty makes an empty file in one request; with Overwrite an existing
// one loses its content.
func (fs *FS) CreateEmpty(ctx context.Context, t Target, o CreateOptions) (Info, error) {
	r, err := fs.create(ctx, t, o, true)
	if err != nil {
		return Info{}, err
	}
	return infoOf(t.base(), r.Attr, 0, 0), nil
}

func (fs *FS) create(ctx context.Context, t Target, o CreateOptions, complete bool) (*metapb.CreateReply, error) {
	tp, err := t.pb()
	if err != nil {
		return nil, err
	}
	if o.WriteType == orca.WriteDefault {
		o.WriteType = fs.cfg.WriteType
	}
	if o.Mode == 0 && !o.ExactMode {
		o.Mode = 0o644
	}
	return fs.meta.Create(ctx, &metapb.CreateRequest{
		H: fs.header(), Target: tp, Mode: o.Mode & 0o7777, Parents: o.Parents, Exclusive: o.Exclusive,
		Overwrite: o.Overwrite || o.Existing, WriteType: uint32(o.WriteType), BlockSize: o.BlockSize,
		Replicas: o.Replicas, Complete: complete, Steal: o.Steal, ExpectLength: o.Expect,
	})
}

// place makes the private file on the first worker that takes it, in the order
// of the write policy. How long the file will be is not known yet.
func (w *Writer) place(ctx context.Context, candidates []*Worker) error {
	if len(candidates) == 0 {
		ws, err := w.fs.peers.list(ctx)
		if err != nil {
			return err
		}
		candidates = ws
	}
	if err := w.enough(ctx); err != nil {
		return err
	}
	policy := w.fs.cfg.WritePolicy
	ordered := w.fs.order(policy, orca.Ino(w.sess.File), 0, candidates)
	if node := policy.Confined(); node != "" {
		ordered = slices.DeleteFunc(ordered, func(c *Worker) bool { return c.Node != node })
	}
	// One that does not answer is asked last.
	slices.SortStableFunc(ordered, func(a, b *Worker) int { return w.fs.peers.lateness(a) - w.fs.peers.lateness(b) })
	var cause error
	for _, c := range ordered {
		err := w.placeOn(ctx, c)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctxError("client.Create", ctx)
		}
		cause = worse(cause, err)
	}
	if cause == nil {
		cause = &orca.Error{Op: "client.Create", Path: w.name, Kind: orca.Unavailable, Msg: "no live worker"}
	}
	return cause
}

func (w *Writer) placeOn(ctx context.Context, c *Worker) error {
	pr, err := w.fs.peers.get(ctx, c)
	if err != nil {
		return err
	}
	t, h := w.target(), head{peer: pr}
	local := pr.local && !w.remote
	var behind []dataplane.Link
	if !local {
		t.Chain = w.candidates(ctx, pr)
	}
	if c, ok := pr.blocks.(dataplane.Chains); ok && len(t.Chain) > 0 {
		h.chain = c
		h.handle, behind, err = c.CreateChain(ctx, t)
	} else {
		h.handle, err = pr.blocks.CreateWrite(ctx, t)
	}
	if err != nil {
		return err
	}
	w.way = newChain(w.fs, t.Grant, h, behind)
	if local {
		f, err := pr.blocks.WriteFile(ctx, h.handle)
		if err == nil {
			w.local = f
			return nil
		}
		w.fs.log.Debug("no descriptor of the private file; writing through the worker", "worker", pr.id, "err", err)
	}
	w.pipe = newPipeline(w.way)
	return nil
}

// target is what the worker must know of the session.
func (w *Writer) target() dataplane.WriteTarget {
	s := w.sess
	return dataplane.WriteTarget{
		Session: s.Id, Fence: s.Fence, File: orca.Ino(s.File), Version: s.Version,
		Type: orca.WriteType(s.WriteType), MountID: s.MountId, UFSKey: s.UfsKey,
		Mode: w.attr.Mode, UID: w.attr.UID, GID: w.attr.GID,
		BlockSize: s.BlockSize, WholeMax: s.WholeMax, Replicas: s.Replicas, Grant: grantOf(s.Grant),
		Expect: s.Expect,
	}
}

// preload copies the current content into the private file.
func (w *Writer) preload(ctx context.Context, t Target) error {
	if w.sess.File != 0 {
		t = ByIno(orca.Ino(w.sess.File))
	}
	f, err := w.fs.Open(ctx, t, ReadOptions{Sync: SyncNever()})
	if errors.Is(err, orca.NotFound) {
		return nil // a new file: nothing to start from
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteTo(w); err != nil {
		return err
	}
	w.mu.Lock()
	w.pos = 0
	w.mu.Unlock()
	return nil
}

// Info returns the attributes of the version being written (or last
// published).
func (w *Writer) Info() Info {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, name := orca.SplitPath(w.name)
	i := Info{Attr: w.attr, Name: name}
	i.Length = max(w.length, w.localSizeLocked())
	return i
}

// Local returns the private file when it is on this host, nil otherwise. What
// is written to it (by the kernel, for a mount) counts as written here. It
// belongs to w.
func (w *Writer) Local() *os.File {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.local
}

// Workers returns the ids of the workers that have what was written so far,
// the one that w speaks with first. The others of a file that is written on
// this host get it when it is published.
func (w *Writer) Workers() []uint64 {
	w.mu.Lock()
	way := w.way
	w.mu.Unlock()
	return way.workers()
}

// Write appends at the position of earlier Writes.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.writeLocked(p, w.pos)
	w.pos += int64(n)
	return n, err
}

// ReadFrom appends all of r; from a file to a private file on this host the
// kernel copies.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if src, ok := r.(*os.File); ok {
		w.mu.Lock()
		if w.local != nil && w.usableLocked() == nil {
			start, serr := src.Seek(0, io.SeekCurrent)
			n, err := w.copyLocked(src)
			w.mu.Unlock()
			if !errors.Is(err, orca.NoSpace) || serr != nil {
				return n, err
			}
			// The worker can make room: go on through Write.
			if _, serr := src.Seek(start+n, io.SeekStart); serr != nil {
				return n, err
			}
			m, err := w.readFrom(r)
			return n + m, err
		}
		w.mu.Unlock()
	}
	return w.readFrom(r)
}

func (w *Writer) readFrom(r io.Reader) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	var sum int64
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			sum += int64(m)
			if werr != nil {
				return sum, werr
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

func (w *Writer) copyLocked(src *os.File) (int64, error) {
	if st, err := src.Stat(); err == nil {
		if at, err := src.Seek(0, io.SeekCurrent); err == nil {
			if err := w.roomLocked(w.pos + max(0, st.Size()-at)); err != nil {
				return 0, err
			}
		}
	}
	w.changed = true
	if _, err := w.local.Seek(w.pos, io.SeekStart); err != nil {
		return 0, fileError("client.Write", w.name, err)
	}
	n, err := w.local.ReadFrom(src)
	w.pos += n
	w.length = max(w.length, w.pos)
	w.fs.stats.WrittenBytes.Add(n)
	if err != nil {
		return n, fileError("client.Write", w.name, err)
	}
	return n, nil
}

// WriteAt writes at off; a gap before it reads as zeros.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, orca.E("client.WriteAt", orca.Invalid, "negative offset")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeLocked(p, off)
}

func (w *Writer) writeLocked(p []byte, off int64) (int, error) {
	if err := w.usableLocked(); err != nil {
		return 0, err
	}
	if err := w.roomLocked(off + int64(len(p))); err != nil {
		return 0, err
	}
	w.changed = true
	var n int
	var err error
	if w.local != nil {
		n, err = w.local.WriteAt(p, off)
		if err != nil && isNoSpace(err) {
			// The worker can make room, which a writer of its file cannot.
			var m int
			m, err = w.askRoomLocked(p[n:], off+int64(n))
			n += m
		} else if err != nil {
			err = fileError("client.Write", w.name, err)
		}
	} else {
		n, err = w.pipe.write(p, off)
	}
	w.length = max(w.length, off+int64(n))
	w.fs.stats.WrittenBytes.Add(int64(n))
	return n, err
}

// askRoomLocked writes p through the worker, which lets clean blocks leave a
// directory whose disk is full.
func (w *Writer) askRoomLocked(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		k := min(len(p)-n, chunkSize)
		if err = w.way.write(context.Background(), p[n:n+k], off+int64(n)); err == nil {
			n += k
		}
	}
	return n, err
}

// ReadAt reads back from the private file. Unsupported when it is on another
// host.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	local, err := w.local, w.usableLocked()
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if local == nil {
		return 0, orca.PathE("client.Writer.ReadAt", w.name, orca.Unsupported, nil)
	}
	return local.ReadAt(p, off)
}

// Truncate sets the length of the private file.
func (w *Writer) Truncate(ctx context.Context, length int64) error {
	if length < 0 {
		return orca.E("client.Truncate", orca.Invalid, "negative length")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return err
	}
	w.changed, w.length = true, length
	if w.local != nil {
		if err := w.local.Truncate(length); err != nil {
			return fileError("client.Truncate", w.name, err)
		}
		return nil
	}
	if err := w.pipe.flush(ctx); err != nil {
		return err
	}
	return w.way.truncate(ctx, length)
}

// Sync makes what was written durable on the worker, without publishing it.
func (w *Writer) Sync(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return err
	}
	if w.pipe != nil {
		if err := w.pipe.flush(ctx); err != nil {
			return err
		}
	}
	return w.way.do(ctx, func(h head) error { return h.peer.blocks.Sync(ctx, h.handle) })
}

// Publish makes what was written so far the visible version, and leaves the
// Writer open. It does nothing when nothing changed since the last time.
func (w *Writer) Publish(ctx context.Context) (Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usableLocked(); err != nil {
		return Info{}, err
	}
	if w.published && !w.dirtyLocked() {
		return Info{Attr: w.attr}, nil
	}
	if err := w.commitLocked(ctx, true); err != nil {
		return Info{}, w.failLocked(err)
	}
	return Info{Attr: w.attr}, nil
}

// Close publishes what was not yet published and ends the session. OverQuota
// when a directory above has no room for what was written. An error
// means that the file is as it was before (or as last published).
func (w *Writer) Close() error { return w.CloseContext(context.Background()) }

// CloseContext is Close that gives up, abandoning the version, when ctx ends.
func (w *Writer) CloseContext(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		if w.err != nil {
			return w.err
		}
		return errClosed
	}
	if err := w.usableLocked(); err != nil {
		return w.failLocked(err)
	}
	if w.published && !w.dirtyLocked() {
		w.endLocked(true)
		return nil
	}
	if err := w.commitLocked(ctx, false); err != nil {
		return w.failLocked(err)
	}
	w.endLocked(false)
	return nil
}

// Abort drops what was not published and ends the session.
func (w *Writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return nil
	}
	w.endLocked(true)
	return nil
}

// commitLocked seals the private file and completes the version.
func (w *Writer) commitLocked(ctx context.Context, keep bool) error {
	if w.pipe != nil {
		if err := w.pipe.flush(ctx); err != nil {
			return err
		}
	}
	var mark os.FileInfo
	if w.local != nil {
		if keep {
			st, err := w.local.Stat()
			if err != nil {
				return fileError("client.Publish", w.name, err)
			}
			mark = st
		} else {
			if w.sess.Replicas > 1 {
				f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(w.local.Fd())))
				if err != nil {
					return fileError("client.Close", w.name, err)
				}
				w.spare = f
			}
			// Adopted as it is only when no writer can exist any more.
			if err := w.local.Close(); err != nil {
				return fileError("client.Close", w.name, err)
			}
			w.local = nil
		}
	}
	s, err := w.sealLocked(ctx, keep)
	if failed(err) && w.spare != nil && ctx.Err() == nil {
		if err = w.rescueLocked(ctx, err); err == nil {
			s, err = w.sealLocked(ctx, keep)
		}
	}
	if err != nil {
		return err
	}
	holders := append([]uint64{w.way.head().peer.id}, s.Holders...)
	req := &metapb.CompleteRequest{
		H: w.fs.header(), Session: w.sess.Id, Fence: w.sess.Fence, Length: s.Length, BlockSize: s.BlockSize,
		Fingerprint: s.Fingerprint, Workers: holders, Durable: s.Durable, Crc32C: s.CRC32C, Keep: keep,
	}
	if !s.UFSMtime.IsZero() {
		req.Mtime = s.UFSMtime.UnixNano()
	}
	r, err := w.fs.meta.Complete(ctx, req)
	if err != nil {
		return err
	}
	w.fs.stats.Published.Add(1)
	w.attr, w.published, w.changed, w.mark = r.Attr.Orca(), true, false, mark
	w.expect, w.askAt = 0, max(w.attr.Length, askFrom)
	w.fs.sessions.remove(w.sess.Id)
	if keep {
		if r.Session == nil {
			return &orca.Error{Op: "client.Publish", Path: w.name, Kind: orca.Internal, Msg: "no session in the reply"}
		}
		w.sess = r.Session
		w.fs.sessions.add(w, r.Session)
	}
	return nil
}

// sealLocked has the worker seal and upload. The store refuses an upload that
// would replace something other than what the session was opened over; where
// that is our own doing (a chmod or utimens through Orca changes the
// fingerprint of a local file) the namespace knows the present fingerprint,
// and the upload is tried again over it.
func (w *Writer) sealLocked(ctx context.Context, keep bool) (dataplane.SealResult, error) {
	s, err := w.sealOnceLocked(ctx, keep)
	if orca.KindOf(err) != orca.Conflict || w.sess.Expect == "" {
		return s, err
	}
	r, serr := w.fs.meta.Stat(ctx, &metapb.StatRequest{H: w.fs.header(), Target: &metapb.Target{Ino: w.sess.File}, Sync: SyncNever().pb()})
	if serr != nil || r.Attr.Fingerprint == "" || r.Attr.Fingerprint == w.sess.Expect {
		return s, err
	}
	// Only while the session holds: what a writer that took it over has
	// published must stay. A takeover after this question changes the
	// fingerprint again, and the second attempt is refused like the first.
	held, herr := w.fs.meta.Renew(ctx, &metapb.RenewRequest{H: w.fs.header(), Sessions: []uint64{w.sess.Id}})
	if herr != nil {
		return s, err
	}
	if len(held.Expired) > 0 {
		return s, &orca.Error{Op: "client.Close", Path: w.name, Kind: orca.Stale, Msg: "another writer took the session over", Err: err}
	}
	w.sess.Expect = r.Attr.Fingerprint
	return w.sealOnceLocked(ctx, keep)
}

// sealOnceLocked has the first worker seal, or the next one of its chain when
// that fails.
func (w *Writer) sealOnceLocked(ctx context.Context, keep bool) (s dataplane.SealResult, err error) {
	if w.sess.Replicas > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sealWait+time.Duration(max(w.length, w.localSizeLocked())/sealRate)*time.Second)
		defer cancel()
	}
	t := w.target()
	err = w.way.do(ctx, func(h head) error {
		t.Chain, t.Takeover = w.candidates(ctx, h.peer), w.moved || h.at > 0
		s, err = h.peer.blocks.Seal(ctx, h.handle, t, keep)
		return err
	})
	if err == nil && keep {
		w.way.sealed(t.Grant)
	}
	return s, err
}

// dirtyLocked reports whether anything was written since the last publication,
// here or through the private file's descriptor.
func (w *Writer) dirtyLocked() bool {
	if w.changed || w.local == nil || w.mark == nil {
		return w.changed
	}
	st, err := w.local.Stat()
	return err != nil || st.Size() != w.mark.Size() || !st.ModTime().Equal(w.mark.ModTime())
}

func (w *Writer) localSizeLocked() int64 {
	if w.local == nil {
		return 0
	}
	st, err := w.local.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

func (w *Writer) usableLocked() error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return errClosed
	}
	return nil
}

// failLocked ends the Writer with err, leaving no half version behind.
func (w *Writer) failLocked(err error) error {
	w.err = err
	w.endLocked(true)
	return err
}

// endLocked ends the session; abandon also drops the private file. The worker
// and the metaplane would find out by themselves, so failures only delay that.
func (w *Writer) endLocked(abandon bool) {
	w.done = true
	w.fs.sessions.remove(w.sess.Id)
	if w.local != nil {
		_ = w.local.Close() // dropped unread
		w.local = nil
	}
	if w.spare != nil {
		_ = w.spare.Close()
		w.spare = nil
	}
	if w.pipe != nil {
		w.pipe.stop()
	}
	if abandon {
		w.abandon()
	}
}

// abandonWait bounds the courtesy calls of a Writer that gives up.
const abandonWait = 2 * time.Second

func (w *Writer) abandon() {
	ctx, stop := context.WithTimeout(context.Background(), abandonWait)
	defer stop()
	if w.way != nil {
		h := w.way.head()
		if err := h.peer.blocks.Abort(ctx, h.handle); err != nil && !errors.Is(err, orca.NotFound) {
			w.fs.log.Debug("abort a private file", "worker", h.peer.id, "err", err)
		}
	}
	_, err := w.fs.meta.Abandon(ctx, &metapb.AbandonRequest{H: w.fs.header(), Session: w.sess.Id, Fence: w.sess.Fence})
	if err != nil {
		w.fs.log.Debug("abandon a write session", "err", err)
	}
}

// expire ends the Writer because its session is gone.
func (w *Writer) expire(session uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done || w.sess.Id != session {
		return
	}
	w.fs.stats.SessionsExpired.Add(1)
	w.err = &orca.Error{Op: "client.Writer", Path: w.name, Kind: orca.SessionExpired}
}

// fileError types an error of the private file on this host.
func fileError(op, path string, err error) error {
	k := orca.Internal
	switch {
	case isNoSpace(err):
		k = orca.NoSpace
	case errors.Is(err, os.ErrClosed):
		k = orca.Invalid
	case isTooLarge(err):
		k = orca.TooLarge
	}
	return orca.PathE(op, path, k, err)
}
