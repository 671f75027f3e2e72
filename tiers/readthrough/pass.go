// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockfile"
)

// bodiesCap bounds the GETs kept open between ranges that are passed through.
const bodiesCap = 32

// pass serves a range without keeping it: it is fetched into a memory file of
// its own, at most a page, that goes with its extent. A sequential reader
// continues on the same GET.
func (s *Service) pass(ctx context.Context, req dataplane.ReadRequest, seq bool) (dataplane.Extent, error) {
	const op = "readthrough.pass"
	var none dataplane.Extent
	src, err := s.source(ctx, req.ID, false)
	if err != nil {
		return none, err
	}
	size := src.Attr.BlockLength(req.ID.Index)
	if req.Off >= size {
		return nothing(), nil
	}
	select {
	case s.passes <- struct{}{}:
	case <-ctx.Done():
		return none, ended(op, req.ID, ctx)
	case <-s.ctx.Done():
		return none, orca.E(op, orca.Unavailable, "worker is stopping")
	}
	start := alignDown(req.Off)
	end := min(size, alignUp(req.Off+req.N), start+orca.PageSize)
	f, sums, err := s.passRange(ctx, req, &src, start, end, size, seq)
	if err != nil {
		<-s.passes
		return none, err
	}
	s.Metrics.Passed.Add(1)
	s.Metrics.PassBytes.Add(end - start)
	return dataplane.Extent{File: f, Off: req.Off - start, N: min(req.N, end-req.Off), Sums: sums, SumOff: 0,
		Release: sync.OnceFunc(func() {
			f.Close()
			<-s.passes
		})}, nil
}

// passRange fetches [start, end) into a memory file.
func (s *Service) passRange(ctx context.Context, req dataplane.ReadRequest, src *Source, start, end, size int64, seq bool) (*os.File, []uint32, error) {
	const op = "readthrough.pass"
	fd, err := unix.MemfdCreate("orca-range", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, orca.PathE(op, req.ID.String(), orca.Busy, err)
	}
	f := os.NewFile(uintptr(fd), "memfd:"+req.ID.String())
	buf := bufs.Get().(*[]byte)
	defer bufs.Put(buf)
	sums := make([]uint32, 0, blockfile.Grains(end-start))
	skip, failures := 0, 0
	for pos := start; pos < end; {
		b, err := s.passBody(ctx, req, src, pos, end, size, seq, &skip)
		if err != nil {
			if failures++; s.giveUp(ctx, err, failures) {
				f.Close()
				return nil, nil, s.passFailed(ctx, req.ID, err)
			}
			continue
		}
		for err == nil && pos < end {
			p := (*buf)[:min(int64(len(*buf)), end-pos)]
			var n int
			n, err = io.ReadFull(b, p)
			if err != nil {
				n = int(alignDown(int64(n)))
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					err = &orca.Error{Op: op, Path: req.ID.String(), Kind: orca.UFSFailure, Msg: "the source ended early", Err: io.ErrUnexpectedEOF}
				}
			}
			if _, werr := f.WriteAt(p[:n], pos-start); werr != nil {
				b.drop()
				f.Close()
				return nil, nil, orca.PathE(op, req.ID.String(), orca.Busy, werr)
			}
			sums = blockfile.AppendSums(sums, p[:n])
			pos += int64(n)
		}
		if b.stop(); err != nil {
			b.drop()
			if b.peer {
				skip++
				continue
			}
			if failures++; s.giveUp(ctx, err, failures) {
				f.Close()
				return nil, nil, s.passFailed(ctx, req.ID, err)
			}
			continue
		}
		if b.peer {
			s.Metrics.PeerBytes.Add(end - start)
		} else {
			s.Metrics.UFSBytes.Add(end - start)
		}
		if b.pos = end; end < b.end {
			s.bodies.put(b)
		} else {
			b.drop()
		}
	}
	return f, sums, nil
}

func (s *Service) passFailed(ctx context.Context, id orca.BlockID, err error) error {
	if ctx.Err() != nil {
		return ended("readthrough.pass", id, ctx)
	}
	if orca.KindOf(err) == orca.Internal {
		return orca.PathE("readthrough.pass", id.String(), orca.UFSFailure, err)
	}
	return err
}

// passBody returns a GET that stands at pos.
func (s *Service) passBody(ctx context.Context, req dataplane.ReadRequest, src *Source, pos, end, size int64, seq bool, skip *int) (*kept, error) {
	if b := s.bodies.take(req.ID, pos); b != nil {
		b.start(ctx, s.cfg.Stall)
		return b, nil
	}
	bctx, cancel := context.WithCancel(s.ctx)
	b := &kept{id: req.ID, pos: pos, end: end, cancel: cancel}
	if seq {
		b.end = size
	}
	b.start(ctx, s.cfg.Stall)
	var err error
	req.Off, req.N = pos, b.end-pos
	b.body, *skip, err = s.openBody(bctx, src, req, *skip, false)
	if err != nil {
		b.stop()
		cancel()
		return nil, err
	}
	return b, nil
}

// kept is a GET that outlives one request.
type kept struct {
	body
	id     orca.BlockID
	pos    int64
	end    int64
	cancel context.CancelFunc
	timer  *time.Timer // while kept
	stop   func() bool // ends the tie to the current request
}

// start ties the body to a request: when that ends, so does the read.
func (b *kept) start(ctx context.Context, stall time.Duration) {
	t := time.AfterFunc(stall, b.cancel)
	untie := context.AfterFunc(ctx, b.cancel)
	b.stop = func() bool { t.Stop(); return untie() }
}

func (b *kept) drop() {
	b.cancel()
	if b.ReadCloser != nil {
		b.Close()
	}
}

// bodies keeps GETs for sequential readers that bypass the cache.
type bodies struct {
	idle time.Duration

	mu     sync.Mutex
	m      map[bodyKey]*kept // GUARDED_BY(mu)
	closed bool              // GUARDED_BY(mu)
}

type bodyKey struct {
	id  orca.BlockID
	pos int64
}

func (c *bodies) take(id orca.BlockID, pos int64) *kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := bodyKey{id, pos}
	b := c.m[k]
	if b == nil {
		return nil
	}
	delete(c.m, k)
	b.timer.Stop()
	return b
}

func (c *bodies) put(b *kept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := bodyKey{b.id, b.pos}
	if c.closed || len(c.m) >= bodiesCap || c.m[k] != nil {
		b.drop()
		return
	}
	if c.m == nil {
		c.m = map[bodyKey]*kept{}
	}
	c.m[k] = b
	b.timer = time.AfterFunc(c.idle, func() {
		c.mu.Lock()
		mine := c.m[k] == b
		if mine {
			delete(c.m, k)
		}
		c.mu.Unlock()
		if mine {
			b.drop()
		}
	})
}

func (c *bodies) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for k, b := range c.m {
		b.timer.Stop()
		b.drop()
		delete(c.m, k)
	}
}
