// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
)

const (
	// bufSize is the piece that is read, summed and written while it is hot
	// in the processor's cache.
	bufSize = 256 << 10
	// maxFailures bounds the attempts to go on without any progress.
	maxFailures = 3
)

var bufs = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}

// run fetches until the claim is done, nobody wants more, or it fails.
func (st *stream) run(ctx context.Context) {
	f := st.f
	err := f.s.acquire(ctx)
	if err == nil {
		err = st.fetch(ctx)
		f.s.release()
	}
	f.mu.Lock()
	st.done, st.err = true, err
	for i, o := range f.streams {
		if o == st {
			f.streams = append(f.streams[:i], f.streams[i+1:]...)
			break
		}
	}
	f.tickLocked()
	f.mu.Unlock()
}

func (f *fill) tickLocked() {
	close(f.tick)
	f.tick = make(chan struct{})
}

// fetch is the loop of a stream.
func (st *stream) fetch(ctx context.Context) error {
	f := st.f
	buf := bufs.Get().(*[]byte)
	defer bufs.Put(buf)
	st.watch = time.AfterFunc(f.s.cfg.Stall, st.cancel)
	defer st.watch.Stop()
	var b body
	defer func() {
		if b.ReadCloser != nil {
			b.Close()
		}
	}()
	var speed pace
	var end int64 // of the open body
	skip, failures := 0, 0
	for {
		f.mu.Lock()
		pos, limit, stop, open := st.pos, min(st.limit, st.stop), st.stop, st.open
		src := f.src
		f.mu.Unlock()
		if pos >= stop {
			return nil
		}
		if pos >= limit {
			if f.s.cfg.FillRest {
				st.goOn()
				continue
			}
			st.watch.Stop()
			if !st.park(ctx, b.ReadCloser != nil) {
				return nil
			}
			st.watch.Reset(f.s.cfg.Stall)
			continue
		}
		if b.ReadCloser == nil {
			if end = limit; open {
				end = stop
			}
			was := src.Key + src.Attr.Fingerprint
			var err error
			req := dataplane.ReadRequest{ID: f.id, Off: pos, N: end - pos, Grant: *f.grant.Load()}
			if b, skip, err = f.s.openBody(ctx, &src, req, skip); err != nil {
				if failures++; f.s.giveUp(ctx, err, failures) {
					return f.failed(ctx, err, false)
				}
				continue
			}
			if src.Key+src.Attr.Fingerprint != was {
				f.mu.Lock()
				f.src = src
				f.mu.Unlock()
			}
		}
		n, err := st.copy(ctx, b, *buf, min(limit, end)-pos, &speed)
		if n > 0 {
			failures = 0
		}
		if err != nil || pos+n >= end {
			b.Close()
			b.ReadCloser = nil
		}
		if err == nil {
			continue
		}
		if b.peer {
			skip++ // the next source goes on from here
			f.s.Metrics.PeerErrors.Add(1)
			continue
		}
		if failures++; f.s.giveUp(ctx, err, failures) {
			return f.failed(ctx, err, true)
		}
	}
}

// goOn moves the limit to the end of the claim.
func (st *stream) goOn() {
	st.f.mu.Lock()
	defer st.f.mu.Unlock()
	st.limit, st.open = st.stop, true
}

// giveUp decides after a failure whether to end, or pauses before the next
// attempt.
func (s *Service) giveUp(ctx context.Context, err error, failures int) bool {
	k := orca.KindOf(err)
	if k == orca.NoSpace || k == orca.Stale || k == orca.NotFound {
		return true
	}
	s.Metrics.UFSErrors.Add(1)
	if ctx.Err() != nil || failures >= maxFailures || !k.Retryable() && k != orca.UFSFailure && k != orca.Internal {
		return true
	}
	return !pause(ctx, time.Duration(20<<failures)*time.Millisecond)
}

// failed gives the end of a stream the kind that its waiters can act on.
func (f *fill) failed(ctx context.Context, err error, writing bool) error {
	switch {
	case f.s.ctx.Err() != nil:
		return orca.PathE("readthrough.fill", f.id.String(), orca.Unavailable, err)
	case ctx.Err() != nil:
		return &orca.Error{Op: "readthrough.fill", Path: f.id.String(), Kind: orca.Timeout, Msg: "the source delivered nothing in time", Err: err}
	case writing && orca.KindOf(err) == orca.NotFound:
		f.dead.Store(true)
		return errRestart
	case orca.KindOf(err) == orca.Internal:
		return orca.PathE("readthrough.fill", f.id.String(), orca.UFSFailure, err)
	}
	return err
}

// copy moves up to n bytes from the body into the block, and wakes waiters at
// a growing pace. It returns how many bytes are stored.
func (st *stream) copy(ctx context.Context, b body, buf []byte, n int64, speed *pace) (int64, error) {
	f := st.f
	total := int64(0)
	for total < n {
		piece := min(n-total, speed.next())
		for piece > 0 {
			p := buf[:min(piece, int64(len(buf)))]
			got, err := io.ReadFull(b, p)
			st.watch.Reset(f.s.cfg.Stall)
			if err != nil {
				// Whole grains that did arrive are kept.
				p = p[:alignDown(int64(got))]
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					err = &orca.Error{Op: "readthrough.fill", Path: f.id.String(), Kind: orca.UFSFailure, Msg: "the source ended early", Err: io.ErrUnexpectedEOF}
				}
			}
			if len(p) > 0 {
				if werr := st.put(ctx, p); werr != nil {
					return total, werr
				}
			}
			total += int64(len(p))
			piece -= int64(len(p))
			if b.peer {
				f.s.Metrics.PeerBytes.Add(int64(got))
			} else {
				f.s.Metrics.UFSBytes.Add(int64(got))
			}
			if err != nil {
				st.advance(int64(len(p)))
				return total, err
			}
			st.move(int64(len(p)))
		}
		st.advance(0)
	}
	return total, nil
}

// put stores p at the position of the stream.
func (st *stream) put(ctx context.Context, p []byte) error {
	st.f.mu.Lock()
	pos := st.pos
	st.f.mu.Unlock()
	rctx, cancel := context.WithTimeout(ctx, st.f.s.cfg.RoomWait)
	defer cancel()
	return roomError(rctx, ctx, st.f.w.WriteGrains(rctx, p, pos))
}

// move notes that n bytes more are stored.
func (st *stream) move(n int64) {
	st.f.mu.Lock()
	st.pos += n
	st.f.mu.Unlock()
}

// advance is move, and wakes the waiters.
func (st *stream) advance(n int64) {
	st.f.mu.Lock()
	st.pos += n
	st.f.tickLocked()
	st.f.mu.Unlock()
}

// park waits until somebody wants more; false: end.
func (st *stream) park(ctx context.Context, holding bool) bool {
	s := st.f.s
	if !holding {
		// Nothing is kept open: whoever wants more begins another stream.
		select {
		case <-st.wake:
			return true
		default:
			return false
		}
	}
	s.mu.Lock()
	s.parked[st] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.parked, st)
		s.mu.Unlock()
	}()
	t := time.NewTimer(s.cfg.Idle)
	defer t.Stop()
	select {
	case <-st.wake:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}
