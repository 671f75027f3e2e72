// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
)

// laneIdle ends a lane whose reader has not come back for so long, or for
// Config.IdleTimeout: the worker holds its block, and the kernel what was sent.
const laneIdle = 2 * time.Second

// lane is a bulk connection that belongs to a reader which goes through a
// block in order. Ranges behind its last read are outstanding when it comes
// back, so that the worker sends while the reader looks at its bytes, and the
// socket is the buffer: what is read ahead is received straight into the
// memory that the reader brings.
//
//	… had │ rest of a grain │ range │ range │ range │
//	      ▲ pos            ▲ at                     ▲ next
//
// Ranges are received in order. A reply that overtakes is put aside.
type lane struct {
	c    *Client
	w    *way
	s    *transport.Stream
	req  dataplane.ReadRequest // what its reads have in common; Grant.Token is token
	pos  int64                 // where the reader goes on
	next int64                 // from here on nothing has been asked for yet
	due  []due                 // outstanding, oldest first
	asking
	verify bool
	ver    verifier

	left int    // bytes of the frame of due[0] that are still to be received
	more bool   // another frame of its reply follows
	edge []byte // one grain, when the reader does not take a whole one
	rest []byte // received and verified, and to be had first; in edge or over
	over *cargo
	skip int // bytes before the first one that the reader wants

	token []byte
	since time.Time // when the reader left
}

// due is one outstanding range.
type due struct {
	span
	early *cargo // what came before its turn
	ended bool   // the reply is complete
}

// cargo holds bytes of a range that came before their turn.
type cargo struct {
	n   int
	buf [1 << 20]byte
}

var cargoPool = sync.Pool{New: func() any { return new(cargo) }}

// readAhead reads p over the lane of its reader, or a new one; n bytes are good.
// Unless done the rest has to be read otherwise: a lane fails for what it was
// asked for long ago.
func (c *Client) readAhead(ctx context.Context, req *dataplane.ReadRequest, p []byte) (n int, done bool, err error) {
	w := c.wayOf(req.Grant.UID)
	l, err := w.streams.lane(ctx, req)
	if err == nil && l == nil {
		l, err = c.newLane(ctx, w, req)
	} else if err == nil {
		c.metrics.Ahead.Add(1)
	}
	if err != nil {
		return 0, true, err
	}
	n, intact, err := l.serve(ctx, req, p)
	c.metrics.Verified.Add(int64(l.ver.ok))
	c.metrics.ReadBytes.Add(int64(n))
	l.ver.ok = 0
	c.brought(l.w, n)
	l.w.streams.leave(l, intact)
	if err != nil {
		c.turnedAway(ctx, l.w, req.Grant.UID, err)
	}
	switch {
	case err == nil:
		return n, true, nil
	case errors.Is(err, orca.Corrupt):
		c.metrics.Corrupt.Add(1)
		req.Verify = true // the worker finds out, and has other sources
	case ctx.Err() != nil || l.s.Err() != nil && errors.Is(err, orca.Timeout): // not the worker's, of an earlier read
		return n, true, fmt.Errorf("read %v at %d: %w", req.ID, req.Off, err)
	}
	return n, false, nil
}

// newLane begins a lane where req does.
func (c *Client) newLane(ctx context.Context, w *way, req *dataplane.ReadRequest) (*lane, error) {
	s, _, err := w.streams.get(ctx)
	if err != nil && c.turnedAway(ctx, w, req.Grant.UID, err) {
		w = &c.far
		s, _, err = w.streams.get(ctx)
	}
	if err != nil {
		return nil, err
	}
	l := &lane{c: c, w: w, s: s, req: *req, pos: req.Off, next: req.Off, verify: !c.cfg.NoVerify, edge: make([]byte, orca.GrainSize)}
	l.token = bytes.Clone(req.Grant.Token)
	l.req.Grant.Token = l.token
	l.about(&l.req)
	if l.verify {
		l.skip = int(req.Off % orca.GrainSize)
		l.next -= int64(l.skip)
	}
	return l, nil
}

// serve asks for what comes next and fills p, n bytes of which are good.
// intact says that the reader may come back.
func (l *lane) serve(ctx context.Context, req *dataplane.ReadRequest, p []byte) (n int, intact bool, err error) {
	deadline := l.c.deadline(ctx, req.Patience, len(p))
	l.s.SetDeadline(deadline)
	if ctx.Done() != nil {
		// Of another goroutine: an end of ctx interrupts the receive.
		stop := context.AfterFunc(ctx, func() { l.s.SetDeadline(time.Unix(1, 0)) })
		defer func() {
			if !stop() {
				intact = false // the interruption may be yet to come
			}
		}()
	}
	end := req.Off + int64(len(p))
	l.ask(deadline, end+req.Ahead, max(end, req.Until))
	if err = l.s.Flush(); err == nil {
		n, err = l.read(p)
	}
	l.pos += int64(n)
	if err != nil {
		return n, false, cause(ctx, err)
	}
	return n, true, nil
}

// fits reports whether a read goes on where the lane stands, with the same
// rights and wishes.
func (l *lane) fits(req *dataplane.ReadRequest) bool {
	a, b := &l.req, req
	return l.pos == b.Off && a.ID == b.ID && a.Type == b.Type && a.Sequential == b.Sequential &&
		a.OnlyCached == b.OnlyCached && a.Verify == b.Verify && a.Whole == b.Whole && a.Direct == b.Direct &&
		a.Grant.File == b.Grant.File && a.Grant.Version == b.Grant.Version && a.Grant.UID == b.Grant.UID &&
		bytes.Equal(a.Grant.Token, b.Grant.Token)
}

// ask asks for whole ranges, until all before want has been asked for, and
// nothing from until on. Ranges begin where the worker's pages do.
func (l *lane) ask(deadline time.Time, want, until int64) {
	size := int64(min(l.c.cfg.Range, len(cargo{}.buf)))
	if l.verify {
		until += (orca.GrainSize - until%orca.GrainSize) % orca.GrainSize
	}
	for l.next < min(want, until) {
		k := min(size-l.next%size, until-l.next)
		seq := l.s.Queue(frame.OpRead, time.Until(deadline), l.request(l.next, k))
		l.due = append(l.due, due{span: span{seq, l.next, l.next + k}})
		l.next += k
	}
}

// read fills p, n bytes of which are good.
func (l *lane) read(p []byte) (n int, err error) {
	for l.skip > 0 {
		if err := l.stock(); err != nil {
			return 0, err
		}
		k := min(l.skip, len(l.rest))
		l.rest = l.rest[k:]
		l.skip -= k
	}
	for n < len(p) {
		if len(l.rest) == 0 {
			if err := l.turn(); err != nil {
				return n, err
			}
			k := min(len(p)-n, l.left)
			if l.verify && k < l.left {
				k -= k % orca.GrainSize
			}
			if k > 0 {
				if err := l.body(p[n : n+k]); err != nil {
					return n, err
				}
				n += k
				continue
			}
		}
		if err := l.stock(); err != nil {
			return n, err
		}
		k := copy(p[n:], l.rest)
		l.rest = l.rest[k:]
		n += k
	}
	return n, nil
}

// stock sees to it that there is a rest.
func (l *lane) stock() error {
	if len(l.rest) > 0 {
		return nil
	}
	if err := l.turn(); err != nil || len(l.rest) > 0 {
		return err
	}
	grain := l.edge[:min(len(l.edge), l.left)]
	if err := l.body(grain); err != nil {
		return err
	}
	l.rest = grain
	return nil
}

// empty reports whether nothing is outstanding or left over.
func (l *lane) empty() bool {
	return len(l.rest) == 0 && l.left == 0 && (len(l.due) == 0 || len(l.due) == 1 && l.due[0].ended)
}

// drop gives memory back.
func (l *lane) drop() {
	l.dropCargo()
	for i := range l.due {
		if e := l.due[i].early; e != nil {
			cargoPool.Put(e)
		}
	}
	l.due = nil
}

// body receives and verifies the next bytes of the current frame, which end
// with a grain.
func (l *lane) body(p []byte) error {
	for len(p) > 0 {
		dst := p[:min(len(p), step)]
		if err := l.s.ReadBody(dst); err != nil {
			return err
		}
		if l.verify {
			if err := l.ver.feed(dst); err != nil {
				return err
			}
		}
		l.left -= len(dst)
		p = p[len(dst):]
	}
	if l.left > 0 {
		return nil
	}
	l.due[0].ended = !l.more
	if l.verify {
		return l.ver.finish()
	}
	return nil
}

// turn sees to it that there is something to receive, a frame of the oldest
// range, or a rest: what came of it before its turn.
func (l *lane) turn() error {
	l.dropCargo()
	for l.left == 0 {
		if len(l.due) == 0 {
			return io.EOF
		}
		d := &l.due[0]
		switch {
		case d.early != nil:
			l.over, d.early = d.early, nil
			l.rest = l.over.buf[:l.over.n]
			return nil
		case d.ended:
			short := d.pos < d.end
			l.due = append(l.due[:0], l.due[1:]...)
			if short { // the block ends here
				return io.EOF
			}
			continue
		}
		if err := l.frame(); err != nil {
			return err
		}
	}
	return nil
}

// frame receives the head of the next frame, and all of it if it is not of the
// oldest range.
func (l *lane) frame() error {
	n := l.due[0].end - l.due[0].pos
	h, meta, err := l.s.Recv(4*int((n+orca.GrainSize-1)/orca.GrainSize), int(n))
	if err != nil {
		return err
	}
	i := 0
	for i < len(l.due) && (l.due[i].seq != h.Seq || l.due[i].ended) {
		i++
	}
	if i == len(l.due) {
		return errProtocol
	}
	d := &l.due[i]
	if h.Status != orca.OK {
		return frame.DecodeError(h.Status, meta)
	}
	if n = int64(h.Body); n > d.end-d.pos {
		return errProtocol
	}
	if l.verify {
		if err := l.ver.start(d.pos, meta, int(n)); err != nil {
			return err
		}
	}
	d.pos += n
	l.more = h.Flags&frame.FlagMore != 0
	if i == 0 && n > 0 {
		l.left = int(n)
		return nil
	}
	d.ended = !l.more
	if n == 0 {
		return nil
	}
	return l.putAside(d, int(n))
}

// putAside receives a frame that came before its turn.
func (l *lane) putAside(d *due, n int) error {
	if d.early == nil {
		d.early = cargoPool.Get().(*cargo)
		d.early.n = 0
	}
	e := d.early
	p := e.buf[e.n : e.n+n]
	if err := l.s.ReadBody(p); err != nil {
		return err
	}
	e.n += n
	l.c.metrics.Overtook.Add(1)
	if !l.verify {
		return nil
	}
	if err := l.ver.feed(p); err != nil {
		return err
	}
	return l.ver.finish()
}

func (l *lane) dropCargo() {
	if l.over != nil {
		cargoPool.Put(l.over)
		l.over, l.rest = nil, nil
	}
}
