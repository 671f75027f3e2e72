// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"io"

	"orca"
	"orca/dataplane"
)

// Sequential reads a block from an offset on, ahead of its user: Window
// segments are in flight or wait to be consumed, each of Segment bytes. It is
// an io.Reader for one goroutine; Close must be called.
//
//	consumed │ current │ ready │ in flight │
//	          ◄────────── window ──────────►
type Sequential struct {
	r      dataplane.Reader
	req    dataplane.ReadRequest
	ctx    context.Context
	cancel context.CancelFunc
	ring   []segment // ring[turn] is the current one
	turn   int
	next   int64 // offset of the segment to be fetched next
	end    int64
	err    error // sticky
}

// segment is a buffer with its fetch.
type segment struct {
	buf  []byte
	rest []byte        // not yet consumed
	err  error         // comes after rest
	done chan struct{} // receives one element when rest and err are set
	busy bool          // being fetched, or ready and not yet waited for
}

// SequentialConfig says how far to read ahead. The zero value means the
// defaults.
type SequentialConfig struct {
	Segment int // bytes; default 2 MiB
	Window  int // segments; default 3
}

// NewSequential reads [req.Off, req.Off+req.N) of req.ID through r; more than
// one segment is announced as sequential. The first Read starts the prefetch. ctx ends it.
func NewSequential(ctx context.Context, r dataplane.Reader, req dataplane.ReadRequest, cfg SequentialConfig) (*Sequential, error) {
	if cfg.Segment < 0 || cfg.Window < 0 || req.Off < 0 || req.N < 0 {
		return nil, orca.E("blockclient.NewSequential", orca.Invalid, "a size is negative")
	}
	setDefault(&cfg.Segment, 2<<20)
	setDefault(&cfg.Window, 3)
	req.Sequential = req.Sequential || req.N > int64(cfg.Segment)
	s := &Sequential{r: r, req: req, ring: make([]segment, cfg.Window), next: req.Off, end: req.Off + req.N}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for i := range s.ring {
		s.ring[i].done = make(chan struct{}, 1)
		s.ring[i].buf = make([]byte, 0, min(int64(cfg.Segment), max(req.N, 1)))
	}
	return s, nil
}

// Read returns what is there of the current segment, waiting for its first
// byte only: io.EOF at the end of the range or of the block.
func (s *Sequential) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.prefetch()
	cur := &s.ring[s.turn]
	if cur.busy {
		<-cur.done // the fetch ends with s.ctx at the latest
		cur.busy = false
	}
	n := copy(p, cur.rest)
	cur.rest = cur.rest[n:]
	if len(cur.rest) > 0 {
		return n, nil
	}
	if s.err = cur.err; s.err == nil {
		s.turn = (s.turn + 1) % len(s.ring)
		s.prefetch() // before the user looks at what it got
		if cur = &s.ring[s.turn]; !cur.busy && len(cur.rest) == 0 {
			s.err = io.EOF
		}
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.Read(p)
}

// prefetch fetches into every segment of the ring that is free.
func (s *Sequential) prefetch() {
	for i := range s.ring {
		seg := &s.ring[(s.turn+i)%len(s.ring)]
		if seg.busy || len(seg.rest) > 0 {
			continue
		}
		if s.next >= s.end {
			return
		}
		req := s.req
		req.Off = s.next
		seg.buf = seg.buf[:min(int64(cap(seg.buf)), s.end-s.next)]
		s.next += int64(len(seg.buf))
		seg.busy = true
		go s.fetch(seg, req)
	}
}

func (s *Sequential) fetch(seg *segment, req dataplane.ReadRequest) {
	n, err := s.r.ReadAt(s.ctx, req, seg.buf)
	seg.rest, seg.err = seg.buf[:n], err
	seg.done <- struct{}{}
}

// Close ends the prefetch and waits for it.
func (s *Sequential) Close() error {
	s.cancel()
	for i := range s.ring {
		if seg := &s.ring[i]; seg.busy {
			<-seg.done
			seg.busy = false
		}
	}
	if s.err == nil {
		s.err = orca.E("blockclient.Sequential", orca.Canceled, "reader is closed")
	}
	return nil
}
