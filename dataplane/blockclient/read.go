// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
)

// step is how many bytes are received before they are checksummed: they are
// still in the second-level cache then.
const step = 256 << 10

// ReadAt implements dataplane.Reader. With verification the range is widened
// to whole grains on the wire; what was not asked for is thrown away. After a
// bad grain it asks once more, with ReadRequest.Verify set. p holds n bytes
// that passed; what follows in p is undefined.
func (c *Client) ReadAt(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if req.Off < 0 {
		return 0, orca.PathE("blockclient.ReadAt", req.ID.String(), orca.Invalid, nil)
	}
	c.metrics.Reads.Add(1)
	n := 0
	if c.local != nil && len(p) > c.cfg.SmallRead && req.Type == orca.ReadCache && !c.shared.apart(req.ID) {
		var err error
		if n, err = c.readInPlace(ctx, &req, p); err == nil || !errors.Is(err, orca.Unsupported) && !errors.Is(err, orca.Unavailable) {
			c.metrics.ReadBytes.Add(int64(n))
			return n, err
		}
		req.Off += int64(n)
	}
	if req.Ahead > 0 && len(p)-n > c.cfg.SmallRead {
		m, done, err := c.readAhead(ctx, &req, p[n:])
		if n += m; done {
			return n, err
		}
		req.Off += int64(m)
	}
	m, err := c.readRanges(ctx, req, p[n:])
	return n + m, err
}

// readRanges reads over a connection.
func (c *Client) readRanges(ctx context.Context, req dataplane.ReadRequest, p []byte) (int, error) {
	n, err := c.readOnce(ctx, &req, p)
	if errors.Is(err, orca.Corrupt) && !req.Verify && !c.cfg.NoVerify {
		// The wire, or the worker's disk: it finds out, and has other sources.
		req.Verify = true
		n, err = c.readOnce(ctx, &req, p)
	}
	c.metrics.ReadBytes.Add(int64(n))
	return n, err
}

// readOnce reads over the nearest way, and what that one does not serve over
// the network.
func (c *Client) readOnce(ctx context.Context, req *dataplane.ReadRequest, p []byte) (int, error) {
	w := c.wayOf(req.Grant.UID)
	n, err := c.readOver(ctx, w, req, p)
	if err == nil || !c.turnedAway(ctx, w, req.Grant.UID, err) {
		return n, err
	}
	rest := *req
	rest.Off += int64(n)
	m, err := c.readOver(ctx, &c.far, &rest, p[n:])
	return n + m, err
}

// readOver reads over one way.
func (c *Client) readOver(ctx context.Context, w *way, req *dataplane.ReadRequest, p []byte) (int, error) {
	r := pullPool.Get().(*pull)
	defer r.recycle()
	r.begin(c, w, req, p)
	var n int
	var err error
	if r.exact {
		n, err = r.piece(ctx)
	} else if len(p) <= c.cfg.SmallRead { // of what is asked for: widened to grains it may be two more
		n, err = r.small(ctx)
	} else {
		n, err = r.bulk(ctx)
	}
	c.metrics.Verified.Add(int64(r.ver.ok))
	c.brought(w, n)
	if err != nil && err != io.EOF {
		if errors.Is(err, orca.Corrupt) {
			c.metrics.Corrupt.Add(1)
		}
		return n, fmt.Errorf("read %v at %d: %w", req.ID, req.Off, err)
	}
	return n, err
}

// pull is one read under way. It asks for block bytes [start, end), grain
// aligned when verifying, of which [off, off+len(p)) are p.
type pull struct {
	c          *Client
	w          *way
	p          []byte
	off        int64
	start, end int64
	exact      bool          // the worker verifies, and sends no more than is asked for
	patience   time.Duration // of the request
	asking
	verify bool
	ver    verifier
	edge   []byte // takes what was not asked for
	ranges []span // outstanding, oldest first
	next   int64  // from here on nothing has been asked for yet
	eof    int64  // where the block ends, once known; else -1
	bad    int64  // where a range failed; else -1
}

// span is one outstanding range: [pos, end) is still to come.
type span struct {
	seq      uint64
	pos, end int64
}

var pullPool = sync.Pool{New: func() any { return &pull{edge: make([]byte, orca.GrainSize)} }}

func (r *pull) begin(c *Client, w *way, req *dataplane.ReadRequest, p []byte) {
	r.c, r.w, r.p, r.off, r.verify, r.patience = c, w, p, req.Off, !c.cfg.NoVerify, req.Patience
	r.about(req)
	r.start, r.end = req.Off, req.Off+int64(len(p))
	if r.verify {
		r.start -= r.start % orca.GrainSize
		r.end += (orca.GrainSize - r.end%orca.GrainSize) % orca.GrainSize
	}
	// Up to half of the grains: sending the rest costs more than it costs the
	// worker to verify them.
	r.exact = r.verify && len(p) > 0 && len(p) <= c.cfg.SmallRead && 2*int64(len(p)) <= r.end-r.start
	r.msg.Exact = r.exact
	r.ver.ok = 0
}

func (r *pull) recycle() {
	r.c, r.w, r.p, r.grant.Token = nil, nil, nil, nil
	r.ver.sums = nil
	pullPool.Put(r)
}

// small reads by one multiplexed call and copies.
func (r *pull) small(ctx context.Context) (int, error) {
	r.c.metrics.Small.Add(1)
	resp, err := r.w.small.CallWithin(ctx, r.patience, frame.OpRead, r.request(r.start, r.end-r.start), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Release()
	if int64(len(resp.Body)) > r.end-r.start {
		return 0, errProtocol
	}
	if r.verify {
		if err := r.ver.start(r.start, resp.Meta, len(resp.Body)); err != nil {
			return 0, err
		}
		if err := r.ver.feed(resp.Body); err != nil {
			return 0, err
		}
		if err := r.ver.finish(); err != nil {
			return 0, err
		}
	}
	skip := int(r.off - r.start)
	if len(resp.Body) < skip {
		return 0, io.EOF
	}
	n := copy(r.p, resp.Body[skip:])
	if n < len(r.p) {
		return n, io.EOF
	}
	return n, nil
}

// piece reads a few bytes of a grain or two by one multiplexed call.
func (r *pull) piece(ctx context.Context) (int, error) {
	r.c.metrics.Small.Add(1)
	resp, err := r.w.small.CallWithin(ctx, r.patience, frame.OpRead, r.request(r.off, int64(len(r.p))), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Release()
	if len(resp.Body) > len(r.p) {
		return 0, errProtocol
	}
	if len(resp.Body) == 0 {
		return 0, io.EOF
	}
	if len(resp.Meta) != 4 || binary.BigEndian.Uint32(resp.Meta) != crc32.Checksum(resp.Body, castagnoli) {
		return 0, errPiece
	}
	r.ver.ok = 1
	if n := copy(r.p, resp.Body); n < len(r.p) {
		return n, io.EOF
	}
	return len(r.p), nil
}

var errPiece = orca.E("blockclient.verify", orca.Corrupt, "checksum of a small read does not hold")

var errProtocol = orca.E("blockclient.ReadAt", orca.Internal, "worker answered what was not asked")

// bulk reads over a stream. A stream from the pool that turns out to be closed
// is replaced once: reads may be repeated.
func (r *pull) bulk(ctx context.Context) (int, error) {
	for {
		r.ranges, r.next, r.eof, r.bad = r.ranges[:0], r.start, -1, -1
		s, used, err := r.w.streams.get(ctx)
		if err != nil {
			return 0, err
		}
		n, clean, err := r.over(ctx, s)
		r.w.streams.put(s, clean)
		if used && n == 0 && !clean && errors.Is(err, orca.Unavailable) && ctx.Err() == nil {
			r.c.metrics.Redials.Add(1)
			continue
		}
		return n, err
	}
}

// deadline is when a read of n bytes over a stream is given up.
func (c *Client) deadline(ctx context.Context, patience time.Duration, n int) time.Time {
	wait := c.cfg.StallTimeout
	if patience > 0 {
		wait = min(wait, patience)
	}
	deadline := time.Now().Add(wait + time.Duration(n>>20)*time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return deadline
}

// over pulls all ranges over s. clean says that nothing is left on s.
func (r *pull) over(ctx context.Context, s *transport.Stream) (n int, clean bool, err error) {
	deadline := r.c.deadline(ctx, r.patience, len(r.p))
	s.SetDeadline(deadline)
	if ctx.Done() != nil {
		// Of another goroutine: an end of ctx interrupts the receive.
		stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
		defer func() {
			if !stop() {
				clean = false // the interruption may be yet to come
			}
		}()
	}
	depth := r.c.cfg.Depth
	if depth == 0 {
		depth = 2
		if s.OnHost() {
			depth = 1
		}
	}
	for {
		for len(r.ranges) < depth && r.next < r.end && r.eof < 0 {
			k := min(int64(r.c.cfg.Range), r.end-r.next)
			seq := s.Queue(frame.OpRead, time.Until(deadline), r.request(r.next, k))
			r.ranges = append(r.ranges, span{seq, r.next, r.next + k})
			r.next += k
		}
		if len(r.ranges) == 0 {
			break
		}
		if err := s.Flush(); err != nil {
			return r.done(), false, cause(ctx, err)
		}
		if err := r.frame(s); err != nil {
			return r.done(), s.Left() == 0 && len(r.ranges) == 0 && s.Err() == nil, cause(ctx, err)
		}
	}
	if n = r.done(); n < len(r.p) {
		return n, true, io.EOF
	}
	return n, true, nil
}

// done returns how many bytes of p have arrived without a gap.
func (r *pull) done() int {
	end := r.next
	if r.eof >= 0 {
		end = min(end, r.eof)
	}
	if r.bad >= 0 {
		end = min(end, r.bad)
	}
	for _, sp := range r.ranges {
		end = min(end, sp.pos)
	}
	return int(min(max(end-r.off, 0), int64(len(r.p))))
}

// frame receives one frame of whichever range.
func (r *pull) frame(s *transport.Stream) error {
	n := r.ranges[0].end - r.ranges[0].pos
	h, meta, err := s.Recv(4*int((n+orca.GrainSize-1)/orca.GrainSize), int(n))
	if err != nil {
		return err
	}
	i := 0
	for i < len(r.ranges) && r.ranges[i].seq != h.Seq {
		i++
	}
	if i == len(r.ranges) {
		return errProtocol
	}
	sp := &r.ranges[i]
	if h.Status != orca.OK {
		err := frame.DecodeError(h.Status, meta)
		r.bad = sp.pos
		r.drop(i)
		return err
	}
	n = int64(h.Body)
	if n > sp.end-sp.pos {
		return errProtocol
	}
	if err := r.body(s, sp.pos, int(n), meta); err != nil {
		return err
	}
	sp.pos += n
	if h.Flags&frame.FlagMore != 0 {
		return nil
	}
	if sp.pos < sp.end && (r.eof < 0 || sp.pos < r.eof) {
		r.eof = sp.pos
	}
	r.drop(i)
	return nil
}

func (r *pull) drop(i int) { r.ranges = append(r.ranges[:i], r.ranges[i+1:]...) }

// body receives n bytes of the block from pos into p (or into the edge) and
// verifies them a step behind.
func (r *pull) body(s *transport.Stream, pos int64, n int, sums []byte) error {
	if r.verify {
		if err := r.ver.start(pos, sums, n); err != nil {
			return err
		}
	}
	for n > 0 {
		dst := r.place(pos, min(n, step))
		if err := s.ReadBody(dst); err != nil {
			return err
		}
		if r.verify {
			if err := r.ver.feed(dst); err != nil {
				return err
			}
		}
		pos += int64(len(dst))
		n -= len(dst)
	}
	if r.verify {
		return r.ver.finish()
	}
	return nil
}

// place returns where up to n bytes from block offset pos belong.
func (r *pull) place(pos int64, n int) []byte {
	switch at := pos - r.off; {
	case at < 0:
		return r.edge[:min(int64(n), -at, int64(len(r.edge)))]
	case at < int64(len(r.p)):
		return r.p[at:min(at+int64(n), int64(len(r.p)))]
	default:
		return r.edge[:min(n, len(r.edge))]
	}
}
