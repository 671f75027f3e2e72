// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockfile"
)

// Forward is another worker as this one writes to it; *blockclient.Client is
// one.
type Forward interface {
	dataplane.Writes
	dataplane.Chains
}

// Peers is the way to other workers.
type Peers interface {
	// Forward returns the worker at addr; release, called once, ends its use
	// and says what came of it.
	Forward(addr string) (w Forward, release func(error), err error)
}

const (
	// linkPatience is how long the workers behind may take over one piece, per
	// hop: below what the one before, and the client, waits for this one.
	linkPatience = 8 * time.Second
	// linkSeal is how long they may take to seal, and a second more for each
	// sealRate bytes.
	linkSeal  = 20 * time.Second
	sealRate  = 16 << 20
	abortWait = 2 * time.Second
	// pushPiece is what a sealed file is sent in, pushWindow of them at a time.
	pushPiece  = 16 * orca.GrainSize
	pushWindow = 4
)

// link is the private file of the next worker of a chain.
type link struct {
	dataplane.Link
	w       Forward
	release func(error)
	below   []dataplane.Link // behind it, nearest first
	grant   dataplane.Grant
	// copies is how many workers, from that one on, have everything; 0: it is
	// left out from now on.
	copies atomic.Int32
	end    sync.Once
}

// finish ends the use of the worker, once.
func (l *link) finish(err error) { l.end.Do(func() { l.release(err) }) }

// lost leaves the link out for good, with those behind it: their private files
// are given up, because nobody else could reach them.
func (s *Service) lost(l *link, err error) {
	l.copies.Store(0)
	l.finish(err)
	for _, b := range l.below {
		w, release, err := s.cfg.Peers.Forward(b.Addr)
		if err != nil {
			continue // it finds out by itself
		}
		w.Resume(b.Handle, l.grant)
		s.abort(w, b.Handle, release)
	}
}

// drop gives up the private files behind a handle.
func (s *Service) drop(l *link) {
	if l != nil && l.copies.Swap(0) != 0 {
		s.abort(l.w, l.Handle, l.finish)
	}
}

// abort is a courtesy that nobody waits for: a private file that is not asked
// for is dropped in time.
func (s *Service) abort(w Forward, handle uint64, release func(error)) {
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), abortWait)
		defer cancel()
		release(w.Abort(ctx, handle))
	})
}

// do makes a call about the next worker's private file, which costs the link
// when it fails: what that worker has is not what was written any more.
func (s *Service) do(ctx context.Context, l *link, call func(context.Context) (copies int, err error)) int {
	if l == nil || l.copies.Load() == 0 {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, linkPatience*time.Duration(min(len(l.below)+1, 3)))
	defer cancel()
	copies, err := call(ctx)
	if err != nil {
		s.Metrics.LinksLost.Add(1)
		s.log.Warn("a worker of a chain is left out", "worker", l.Worker, "addr", l.Addr, "err", err)
		s.lost(l, err)
		return 0
	}
	for { // it only sinks
		old := l.copies.Load()
		if int(old) <= copies || l.copies.CompareAndSwap(old, int32(copies)) {
			return min(int(old), copies)
		}
	}
}

// CreateChain implements dataplane.Chains.
func (s *Service) CreateChain(ctx context.Context, t dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	id, err := s.CreateWrite(ctx, t)
	if err != nil || t.Type == orca.Through {
		return id, nil, err
	}
	h, err := s.find("writeback.CreateChain", id)
	if err != nil {
		return 0, nil, err
	}
	l := s.connect(ctx, &t, t.Chain, t.Replicas)
	if l == nil {
		return id, nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.drop(l)
		return 0, nil, orca.E("writeback.CreateChain", orca.Unavailable, "the worker stops")
	}
	h.link = l
	return id, append([]dataplane.Link{l.Link}, l.below...), nil
}

// connect makes a private file on the first of the candidates that takes one,
// which looks after the rest: copies are to be made on copies-1 of them. nil
// when none does, or none is to.
func (s *Service) connect(ctx context.Context, t *dataplane.WriteTarget, candidates []dataplane.Link, copies uint32) *link {
	if s.cfg.Peers == nil || copies < 2 {
		return nil
	}
	for i, c := range candidates {
		next := *t
		next.Linked, next.Takeover = true, false
		next.Replicas, next.Chain = copies-1, candidates[i+1:]
		l, err := s.connectTo(ctx, c, next)
		if err == nil {
			return l
		}
		s.log.Warn("a worker takes no part in a chain", "worker", c.Worker, "addr", c.Addr, "err", err)
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

func (s *Service) connectTo(ctx context.Context, c dataplane.Link, t dataplane.WriteTarget) (*link, error) {
	w, release, err := s.cfg.Peers.Forward(c.Addr)
	if err != nil {
		return nil, err
	}
	l := &link{Link: c, w: w, release: release, grant: t.Grant}
	ctx, cancel := context.WithTimeout(ctx, linkPatience*time.Duration(min(t.Replicas, 3)))
	defer cancel()
	if l.Handle, l.below, err = w.CreateChain(ctx, t); err != nil {
		release(err)
		return nil, err
	}
	l.copies.Store(int32(1 + len(l.below)))
	return l, nil
}

// WriteChain implements dataplane.Chains. The next worker gets p while this one
// writes it.
func (s *Service) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	const op = "writeback.WriteChain"
	if sums != nil && !slices.Equal(blockfile.AppendSums(make([]uint32, 0, len(sums)), p), sums) {
		s.Metrics.CorruptPieces.Add(1)
		return 0, orca.E(op, orca.Corrupt, "what arrived is not what was sent")
	}
	h, err := s.find(op, id)
	if err != nil {
		return 0, err
	}
	h.mu.RLock()
	l := h.link
	h.mu.RUnlock()
	if len(p) == 0 {
		return 1 + s.do(ctx, l, func(ctx context.Context) (int, error) { return l.w.WriteChain(ctx, l.Handle, nil, 0, nil) }), nil
	}
	if l == nil || l.copies.Load() == 0 {
		return 1, s.writeAt(ctx, h, p, off)
	}
	mine := make(chan error, 1)
	go func() { mine <- s.writeAt(ctx, h, p, off) }()
	copies := s.do(ctx, l, func(ctx context.Context) (int, error) { return l.w.WriteChain(ctx, l.Handle, p, off, sums) })
	if copies > 0 {
		s.Metrics.BytesForwarded.Add(int64(len(p)))
	}
	return 1 + copies, <-mine
}

// copies is what is known of the copies of a sealed file on other workers.
type copies struct {
	n       int // workers that have one
	holders []uint64
}

func (c *copies) add(worker uint64, r dataplane.SealResult) {
	c.n += r.Copies
	c.holders = append(append(c.holders, worker), r.Holders...)
}

// content is what is to be copied: n bytes, their sums and checksum.
type content struct {
	r    io.ReaderAt
	n    int64
	sums []uint32
	crc  uint32
}

// sealLinks has t.Replicas-1 copies sealed on other workers: by the chain that
// was written through, as far as it has everything, and for the rest by workers
// that get all of it now. Fewer is no error.
func (s *Service) sealLinks(ctx context.Context, l *link, t *dataplane.WriteTarget, c content, keep bool) (got copies) {
	want := int(t.Replicas) - 1
	if t.Type == orca.Through || want < 1 || s.cfg.Peers == nil {
		s.drop(l)
		return got
	}
	next := *t
	next.Linked, next.Takeover, next.WantCRC, next.WantLength = true, false, c.crc, c.n
	tried := map[uint64]bool{}
	if l != nil && l.copies.Load() > 0 {
		tried[l.Worker] = true
		next.Replicas, next.Chain = uint32(want), others(t.Chain, tried)
		if r, err := s.sealLink(ctx, l, next, keep); err == nil {
			got.add(l.Worker, r)
		}
	} else if l != nil {
		tried[l.Worker] = true // it has just failed: asked last
	}
	candidates := others(t.Chain, tried)
	if l != nil && got.n == 0 {
		candidates = append(candidates, l.Link)
	}
	for len(candidates) > 0 && got.n < want && ctx.Err() == nil {
		at := candidates[0]
		candidates = candidates[1:]
		if slices.Contains(got.holders, at.Worker) {
			continue
		}
		next.Replicas, next.Chain = uint32(want-got.n), candidates
		r, err := s.push(ctx, at, next, c)
		if err != nil {
			s.log.Warn("a worker does not take a copy", "worker", at.Worker, "addr", at.Addr, "ino", t.File.String(), "err", err)
			continue
		}
		got.add(at.Worker, r)
	}
	return got
}

// others returns the candidates without those that were tried.
func others(ls []dataplane.Link, tried map[uint64]bool) (out []dataplane.Link) {
	for _, l := range ls {
		if !tried[l.Worker] {
			out = append(out, dataplane.Link{Worker: l.Worker, Addr: l.Addr})
		}
	}
	return out
}

func (s *Service) sealLink(ctx context.Context, l *link, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	ctx, cancel := context.WithTimeout(ctx, linkSeal*time.Duration(min(t.Replicas, 3))+time.Duration(t.WantLength/sealRate)*time.Second)
	defer cancel()
	l.w.Resume(l.Handle, t.Grant)
	r, err := l.w.Seal(ctx, l.Handle, t, keep)
	if err == nil && (r.CRC32C != t.WantCRC || r.Length != t.WantLength) {
		err = orca.E("writeback.chain", orca.Corrupt, "the copy is another one")
	}
	if err != nil {
		s.Metrics.LinksLost.Add(1)
		s.log.Warn("a worker of a chain does not seal", "worker", l.Worker, "addr", l.Addr, "ino", t.File.String(), "err", err)
		s.lost(l, err)
		return r, err
	}
	if !keep {
		l.copies.Store(0)
		l.finish(nil)
	}
	return r, nil
}

// push sends a sealed file to a worker, and through it to those behind.
func (s *Service) push(ctx context.Context, to dataplane.Link, t dataplane.WriteTarget, c content) (dataplane.SealResult, error) {
	l, err := s.connectTo(ctx, to, t)
	if err != nil {
		return dataplane.SealResult{}, err
	}
	if err := s.send(ctx, l, c); err != nil {
		s.drop(l)
		return dataplane.SealResult{}, err
	}
	return s.sealLink(ctx, l, t, false)
}

var pushBuffers = sync.Pool{New: func() any { return new([pushPiece]byte) }}

// send streams the content through a link, a window of pieces at a time.
func (s *Service) send(ctx context.Context, l *link, c content) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	slots := make(chan struct{}, pushWindow)
	failed := make(chan error, pushWindow)
	var wg sync.WaitGroup
	for off := int64(0); off < c.n && ctx.Err() == nil; off += pushPiece {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.sendPiece(ctx, l, c, off); err != nil {
				cancel()
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	if ctx.Err() != nil {
		return orca.PathE("writeback.chain", l.Addr, orca.Canceled, ctx.Err())
	}
	return nil
}

func (s *Service) sendPiece(ctx context.Context, l *link, c content, off int64) error {
	buf := pushBuffers.Get().(*[pushPiece]byte)
	defer pushBuffers.Put(buf)
	p := buf[:min(pushPiece, c.n-off)]
	if n, err := c.r.ReadAt(p, off); n < len(p) {
		return orca.PathE("writeback.chain", l.Addr, orca.Corrupt, fmt.Errorf("the sealed file became shorter: %w", err))
	}
	g := int(off / orca.GrainSize)
	// The sums are those of the file when it was sealed: the receiver sees
	// what has changed since on the medium, as well as on the way.
	sums := c.sums[g : g+blockfile.Grains(int64(len(p)))]
	if s.do(ctx, l, func(ctx context.Context) (int, error) { return l.w.WriteChain(ctx, l.Handle, p, off, sums) }) == 0 {
		return orca.PathE("writeback.chain", l.Addr, orca.Unavailable, errLinkLost)
	}
	s.Metrics.BytesForwarded.Add(int64(len(p)))
	return nil
}

var errLinkLost = errors.New("the worker has left the chain")

// stored is the content of a sealed version in the store of this worker.
type storedFile struct {
	s         *Service
	id        orca.BlockID
	blockSize int64
	length    int64
}

// ReadAt implements io.ReaderAt; grains are verified.
func (f *storedFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < f.length {
		id := f.id
		id.Index = uint32(off / f.blockSize)
		within := off % f.blockSize
		k, err := f.piece(id, p[n:], within)
		n += k
		off += int64(k)
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *storedFile) piece(id orca.BlockID, p []byte, within int64) (int, error) {
	ext, err := f.s.store.Get(id, within, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer ext.Release()
	n := min(int64(len(p)), ext.N)
	if n <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	if ext.File == nil {
		return ext.ReadAt(p[:n], ext.Off)
	}
	return f.s.cfg.Ops.ReadAt(ext.File, p[:n], ext.Off)
}

// sums reads all of it.
func (f *storedFile) sums(ctx context.Context) (c content, err error) {
	c = content{r: f, n: f.length, sums: make([]uint32, 0, blockfile.Grains(f.length))}
	buf := make([]byte, min(uploadBuf, max(f.length, 1)))
	for off := int64(0); off < f.length; {
		if ctx.Err() != nil {
			return c, orca.PathE("writeback.Seal", f.id.String(), orca.Canceled, ctx.Err())
		}
		p := buf[:min(int64(len(buf)), f.length-off)]
		if n, err := f.ReadAt(p, off); n < len(p) {
			return c, orca.PathE("writeback.Seal", f.id.String(), orca.Corrupt, err)
		}
		c.sums = blockfile.AppendSums(c.sums, p)
		c.crc = crc32.Update(c.crc, blockfile.Castagnoli, p)
		off += int64(len(p))
	}
	return c, nil
}

// promote makes this worker, which has sealed a copy for the one before it,
// answer for the whole chain, because that one has failed: it sees to it that
// what the client is promised holds.
func (s *Service) promote(ctx context.Context, p *sealed, t *dataplane.WriteTarget) (*sealed, error) {
	res := p.res
	got := copies{n: res.Copies - 1, holders: slices.Clone(res.Holders)}
	want := int(t.Replicas)
	f := &storedFile{s: s, id: orca.BlockID{File: t.File, Version: t.Version}, blockSize: res.BlockSize, length: res.Length}
	through := t.Type == orca.CacheThrough
	if res.Length > 0 && (got.n+1 < want || through) {
		c, err := f.sums(ctx)
		if err != nil {
			return nil, err
		}
		if missing := want - 1 - got.n; missing > 0 {
			more := *t
			tried := map[uint64]bool{}
			for _, h := range got.holders {
				tried[h] = true
			}
			more.Replicas, more.Chain = uint32(missing+1), others(t.Chain, tried)
			extra := s.sealLinks(ctx, nil, &more, c, false)
			got.n += extra.n
			got.holders = append(got.holders, extra.holders...)
		}
		if got.n+1 < want && t.Type == orca.MustCache {
			return nil, tooFew(t, got.n+1)
		}
		if got.n+1 < want && t.Type == orca.AsyncThrough {
			s.Metrics.AsyncAsSync.Add(1)
			through = true
		}
	}
	if through {
		up, err := s.upload(ctx, t, io.NewSectionReader(f, 0, res.Length), res.Length)
		if err != nil {
			return nil, err
		}
		res.Fingerprint, res.UFSMtime, res.Durable = up.Info.Fingerprint, up.Info.Mtime, false
		for i := uint32(0); int64(i)*res.BlockSize < res.Length; i++ {
			id := f.id
			id.Index = i
			_ = s.store.Clean(id) // gone is as good
		}
	}
	res.Copies, res.Holders = got.n+1, got.holders
	return &sealed{session: t.Session, fence: t.Fence, version: t.Version, res: res}, nil
}

// tooFew refuses to acknowledge fewer copies than were promised.
func tooFew(t *dataplane.WriteTarget, n int) error {
	return &orca.Error{Op: "writeback.Seal", Path: t.File.String(), Kind: orca.NoSpace,
		Msg: fmt.Sprintf("%d copies are promised and %d could be made: too few workers take one", t.Replicas, n)}
}
