// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
)

// maxBlocks bounds the blocks of one open file (64 TiB at the default size).
const maxBlocks = 1 << 20

// maxPinned bounds the descriptors one File holds open beside the cache's.
const maxPinned = 64

// ReadOptions shape how a file is opened for reading.
type ReadOptions struct {
	// Type says what reading leaves in the cache; the zero value is the FS's
	// default. CACHE_PROMOTE and NO_CACHE reads always go through a worker.
	Type orca.ReadType
	Sync Sync
	// Holder is told before somebody else removes the file. Of a target by inode
	// only. Nil: nobody.
	Holder *Holder
}

// File reads one version of one file. It is safe for concurrent use; Read,
// Seek and WriteTo share one position. It satisfies io.Reader, io.ReaderAt,
// io.Seeker, io.Closer, io.WriterTo and fs.File.
type File struct {
	fs   *FS
	info Info
	typ  orca.ReadType
	hold *Holder // that has the file until it is closed; nil: none
	// ino is the number of the file: another one than it was opened by once its
	// directory has moved to another group. fingerprint tells that it is the same.
	ino         atomic.Uint64
	fingerprint string

	grant  atomic.Pointer[dataplane.Grant]
	blocks []atomic.Pointer[descriptor] // by index; nil: not local, or not tried
	first  [1]atomic.Pointer[descriptor]
	closed atomic.Bool

	ra readAhead // of readers by range

	mu      sync.Mutex
	pos     int64              // of Read; GUARDED_BY(mu)
	pinned  []uint32           // blocks with a descriptor, oldest first
	tries   map[uint32]attempt // blocks that had no descriptor
	absent  time.Time          // until then no block is expected on the local worker
	workers []*Worker          // in the order of the read policy
	locs    map[uint64]*metapb.Location
}

// attempt says when a block that was not complete locally is worth asking for
// again.
type attempt struct {
	next time.Time
	wait time.Duration
}

// Open opens a file for reading. NotFound, IsDir, Permission; Unavailable when
// the content has to be restored first.
func (fs *FS) Open(ctx context.Context, t Target, o ReadOptions) (*File, error) {
	tp, err := t.pb()
	if err != nil {
		return nil, err
	}
	q := &metapb.OpenRequest{H: fs.header(), Target: tp, Sync: o.Sync.pb()}
	if o.Holder == nil || t.Ino == 0 || t.Path != "" {
		return fs.open(ctx, t, q, o)
	}
	q.Holder, q.Hold = o.Holder.id, o.Holder.begin()
	f, err := fs.open(ctx, t, q, o)
	if err != nil {
		o.Holder.failed(q.Hold, t.Ino)
		return nil, err
	}
	o.Holder.opened(q.Hold, f.info.Ino)
	f.hold = o.Holder
	return f, nil
}

func (fs *FS) open(ctx context.Context, t Target, q *metapb.OpenRequest, o ReadOptions) (*File, error) {
	r, err := fs.meta.Open(ctx, q)
	if err != nil {
		return nil, err
	}
	f := &File{fs: fs, info: infoOf(t.base(), r.Attr, 0, r.TtlMs), typ: o.Type, fingerprint: r.Attr.GetFingerprint()}
	f.ino.Store(uint64(f.info.Ino))
	if f.typ == orca.ReadCache {
		f.typ = fs.cfg.ReadType
	}
	switch f.info.Type {
	case orca.TypeDir:
		return nil, orca.PathE("client.Open", t.String(), orca.IsDir, nil)
	case orca.TypeSymlink:
		return nil, &orca.Error{Op: "client.Open", Path: t.String(), Kind: orca.Invalid, Msg: "a symbolic link"}
	}
	n := (f.info.Length + f.info.BlockSize - 1) / f.info.BlockSize
	if n > maxBlocks {
		return nil, orca.PathE("client.Open", t.String(), orca.TooLarge, nil)
	}
	f.blocks = f.first[:min(n, 1)]
	if n > 1 {
		f.blocks = make([]atomic.Pointer[descriptor], n)
	}
	f.adopt(r)
	return f, nil
}

// adopt takes grant, locations and workers from an answer about this version.
func (f *File) adopt(r *metapb.OpenReply) {
	g := grantOf(r.Grant)
	f.grant.Store(&g)
	f.fs.peers.learn(r.Workers)
	locs := make(map[uint64]*metapb.Location, len(r.Locations))
	for _, l := range r.Locations {
		locs[l.Worker] = l
	}
	live := make([]*Worker, 0, len(r.Workers))
	for _, w := range r.Workers {
		if w.Live || locs[w.Id] != nil {
			live = append(live, w)
		}
	}
	ws := f.fs.order(f.fs.cfg.ReadPolicy, orca.Ino(f.ino.Load()), f.info.Length, live)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers, f.locs, f.absent = ws, locs, time.Time{}
	if l := f.localLocked(); l != nil && locs[l.Id] == nil && f.info.Persist == orca.Persisted {
		// A first read would cost one more round trip, for a refusal.
		f.absent = time.Now().Add(attemptMin)
	}
}

// Info returns what was opened: name, attributes, version.
func (f *File) Info() Info { return f.info }

// Size returns the length of the file in bytes.
func (f *File) Size() int64 { return f.info.Length }

// ReadAt reads len(p) bytes from off; io.EOF when the file ends before. A
// block that is complete on a local worker is read with one pread, or from a
// mapping, and no allocation.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	return f.ReadAtContext(context.Background(), p, off)
}

// ReadAtContext is ReadAt that gives up when ctx ends.
func (f *File) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, orca.E("client.ReadAt", orca.Invalid, "negative offset")
	}
	if f.closed.Load() {
		return 0, errClosed
	}
	rest := f.info.Length - off
	if rest <= 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	short := int64(len(p)) > rest
	if short {
		p = p[:rest]
	}
	for n := 0; n < len(p); {
		m, err := f.readBlock(ctx, p[n:], off+int64(n))
		n += m
		if err != nil {
			return n, err
		}
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}

var errClosed error = &orca.Error{Op: "client.File", Kind: orca.Invalid, Msg: "file already closed", Err: os.ErrClosed}

// readBlock reads from the one block that holds off, up to its end.
func (f *File) readBlock(ctx context.Context, p []byte, off int64) (int, error) {
	bs := f.info.BlockSize
	i := off / bs
	boff := off - i*bs
	if left := bs - boff; int64(len(p)) > left {
		p = p[:left]
	}
	idx := uint32(i)
	if d := f.local(ctx, idx); d != nil {
		n, err := d.readAt(p, boff)
		d.release()
		if err == nil {
			f.fs.stats.LocalReads.Add(1)
			f.fs.stats.LocalBytes.Add(int64(n))
			return n, nil
		}
		f.unpin(idx, d) // a bad disk below the descriptor: ask a worker
		f.postpone(idx)
	}
	return f.ra.read(ctx, f, idx, boff, p)
}

// local returns a referenced descriptor of block idx; nil when it has to be
// read through a worker. The one that f holds costs no lock.
func (f *File) local(ctx context.Context, idx uint32) *descriptor {
	if d := f.blocks[idx].Load(); d != nil && d.acquire() {
		if !d.over.Load() || f.renew(ctx, idx, d) {
			return d
		}
		d.release()
	}
	if f.typ != orca.ReadCache {
		return nil
	}
	return f.descriptor(ctx, idx, false)
}

// Backing returns a read-only descriptor of the whole file when it is one
// complete block on a local worker. It belongs to f: use it until f is closed,
// and do not close it.
func (f *File) Backing(ctx context.Context) (*os.File, bool) {
	if len(f.blocks) != 1 || f.typ != orca.ReadCache || f.closed.Load() {
		return nil, false
	}
	d := f.blocks[0].Load()
	if d == nil {
		if d = f.descriptor(ctx, 0, true); d == nil {
			return nil, false
		}
		d.release() // the one that f holds is enough
	}
	return d.file, true
}

// descriptor returns a referenced descriptor of block idx and pins it in f;
// nil when the block is not complete on a local worker. now asks even if an
// earlier attempt is recent.
func (f *File) descriptor(ctx context.Context, idx uint32, now bool) *descriptor {
	id := f.blockID(idx)
	if d := f.fs.descs.get(id); d != nil {
		if !d.over.Load() || f.renew(ctx, idx, d) {
			f.fs.stats.DescriptorHits.Add(1)
			f.pin(idx, d)
			return d
		}
		d.release()
	}
	w := f.localWorker()
	if w == nil || !f.due(idx, now) {
		return nil
	}
	pr, err := f.fs.peers.get(ctx, w)
	if err != nil {
		f.postpone(idx)
		return nil
	}
	file, length, gen, err := pr.blocks.Descriptor(ctx, id, *f.grant.Load())
	if err != nil {
		f.postpone(idx)
		return nil
	}
	if length != f.info.BlockLength(idx) {
		_ = file.Close() // not this file's block as we know it
		f.postpone(idx)
		return nil
	}
	f.fs.stats.Descrips.Add(1)
	d := f.fs.descs.put(id, file, length, gen)
	f.pin(idx, d)
	return d
}

func (f *File) blockID(idx uint32) orca.BlockID {
	return orca.BlockID{File: orca.Ino(f.ino.Load()), Version: f.info.BlockVersion(idx), Index: idx}
}

// renew asks the worker whether d, whose lease is over, is still the file of
// its block, and reports whether d may be used on. A block that has left the
// worker is given up when it can be had again, and else kept, as an open file
// is that was removed; so is one whose worker does not answer.
func (f *File) renew(ctx context.Context, idx uint32, d *descriptor) bool {
	w := f.localWorker()
	if w == nil || !d.renewing.CompareAndSwap(false, true) {
		return true
	}
	defer d.renewing.Store(false)
	err := f.vouched(ctx, w, d)
	if ctx.Err() != nil {
		return true // the next reader asks
	}
	if k := orca.KindOf(err); k == orca.NotFound || k == orca.Unsupported {
		// A grain read through the worker brings the block back if it has a source.
		if _, perr := f.fetch(ctx, idx, 0, make([]byte, 1), false); perr != nil && !errors.Is(perr, orca.Corrupt) {
			err = nil
		}
	}
	switch orca.KindOf(err) {
	case orca.NotFound, orca.Unsupported, orca.Corrupt, orca.Stale:
		f.fs.stats.LeasesEnded.Add(1)
		f.unpin(idx, d)
		return false
	}
	f.fs.stats.LeasesRenewed.Add(1)
	f.fs.descs.leases.grant(d)
	return true
}

// vouched asks for the descriptor again: Stale when the block has another file
// now.
func (f *File) vouched(ctx context.Context, w *Worker, d *descriptor) error {
	g, err := f.currentGrant(ctx)
	if err != nil {
		return nil // the file is gone or cannot be asked about: its descriptor stays good
	}
	pr, err := f.fs.peers.get(ctx, w)
	if err != nil {
		return err
	}
	file, _, gen, err := pr.blocks.Descriptor(ctx, d.id, *g)
	if err != nil {
		return err
	}
	if gen != d.gen {
		err = orca.PathE("client.renew", d.id.String(), orca.Stale, nil)
	}
	return errors.Join(err, file.Close())
}

// pin keeps d for the next reads of f, with a reference of its own.
func (f *File) pin(idx uint32, d *descriptor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() || !f.blocks[idx].CompareAndSwap(nil, d) {
		return
	}
	d.refs.Add(1) // the caller's reference keeps it above 0
	f.pinned = append(f.pinned, idx)
	if len(f.pinned) > maxPinned {
		f.unpinLocked(f.pinned[0])
	}
}

// unpin forgets a descriptor, here and in the cache.
func (f *File) unpin(idx uint32, d *descriptor) {
	f.fs.descs.drop(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocks[idx].Load() == d {
		f.unpinLocked(idx)
	}
}

func (f *File) unpinLocked(idx uint32) {
	for i, x := range f.pinned {
		if x == idx {
			f.pinned = append(f.pinned[:i], f.pinned[i+1:]...)
			break
		}
	}
	if d := f.blocks[idx].Swap(nil); d != nil {
		d.release()
	}
}

// localWorker returns the live worker of this node, nil if there is none.
func (f *File) localWorker() *Worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.localLocked()
}

func (f *File) localLocked() *Worker {
	for _, w := range f.workers {
		if w.Live && f.fs.peers.isLocal(w) {
			return w
		}
	}
	return nil
}

const (
	attemptMin = 20 * time.Millisecond
	attemptMax = time.Second
)

// due reports whether block idx is worth asking for.
func (f *File) due(idx uint32, now bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now {
		return true
	}
	t, ok := f.tries[idx]
	return (!ok || !time.Now().Before(t.next)) && (f.absent.IsZero() || !time.Now().Before(f.absent))
}

// postpone remembers that block idx had no descriptor.
func (f *File) postpone(idx uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tries == nil || len(f.tries) > 1024 {
		f.tries = map[uint32]attempt{}
	}
	t := f.tries[idx]
	t.wait = min(max(t.wait*2, attemptMin), attemptMax)
	t.next = time.Now().Add(t.wait)
	f.tries[idx] = t
}

// filled notes that a range read reached the end of block idx: it may be
// complete here now.
func (f *File) filled(idx uint32) {
	f.mu.Lock()
	delete(f.tries, idx)
	f.absent = time.Time{}
	f.mu.Unlock()
}

// Close lets go of descriptors and read-ahead. Reads after it fail.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return errClosed
	}
	f.ra.close()
	if f.hold != nil {
		f.hold.release(f.info.Ino)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pinned) > 0 {
		f.unpinLocked(f.pinned[0])
	}
	return nil
}

func grantOf(g *metapb.Grant) dataplane.Grant {
	if g == nil {
		return dataplane.Grant{}
	}
	return dataplane.Grant{
		File: orca.Ino(g.File), Version: g.Version, UID: g.Uid, Write: g.Write,
		Expiry: timeOf(g.Expiry), Token: g.Token,
	}
}
