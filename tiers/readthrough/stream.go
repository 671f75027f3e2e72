// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"context"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers"
)

const (
	// bufSize is the piece that is read, summed and written while it is hot
	// in the processor's cache.
	bufSize = 256 << 10
	// readSize bounds one read from a source into the block.
	readSize = 512 << 10
	// maxFailures bounds the attempts to go on without any progress.
	maxFailures = 3
)

var bufs = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}

// run fetches until the claim is done, nobody wants more, or it fails.
func (st *stream) run(ctx context.Context) {
	f := st.f
	slot, err := f.s.acquire(ctx, f)
	if err == nil {
		err = st.fetch(ctx)
		f.s.release(slot)
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
			req := dataplane.ReadRequest{ID: f.id, Off: pos, N: end - pos, Grant: *f.grant.Load(), Direct: f.direct.Load()}
			if b, skip, err = f.s.openBody(ctx, &src, req, skip, f.away); err != nil {
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
		n, err := st.copy(ctx, b, *buf, min(limit, end)-pos)
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

// copy moves up to n bytes from the body into the block, and wakes those whose
// bytes are there. It returns how many bytes are stored.
func (st *stream) copy(ctx context.Context, b body, buf []byte, n int64) (int64, error) {
	total := int64(0)
	for total < n {
		var got int64
		var err error
		if v := st.window(ctx, n-total); v != nil {
			got, err = st.into(b, v)
			v.Close()
		} else {
			got, err = st.through(ctx, b, buf, n-total)
		}
		total += got
		if err != nil {
			st.move(0, true)
			return total, err
		}
	}
	return total, nil
}

// window lends memory of the block at the position of the stream, nil when
// there is none.
func (st *stream) window(ctx context.Context, n int64) tiers.Window {
	w, ok := st.f.w.(tiers.Windower)
	if !ok {
		return nil
	}
	rctx, cancel := context.WithTimeout(ctx, st.f.s.cfg.RoomWait)
	defer cancel()
	return w.Window(rctx, st.at(), n)
}

// into reads the body straight into the block until the window is full. Each
// piece is summed while it is hot in the processor's cache.
func (st *stream) into(b body, v tiers.Window) (total int64, err error) {
	old := debug.SetPanicOnFault(true) // a page that the medium lost is an error
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			err = &orca.Error{Op: "readthrough.fill", Path: st.f.id.String(), Kind: orca.Busy, Msg: "memory of the tier was lost"}
		}
	}()
	have := 0 // bytes of the window that are read and not stored
	for p := v.Bytes(); len(p) > 0 && err == nil; p = v.Bytes() {
		var got int
		got, err = b.Read(p[have:min(len(p), have+readSize)])
		st.arrived(b, got)
		have += got
		whole := int(alignDown(int64(have)))
		if whole < bufSize && whole < len(p) && err == nil && !st.awaited(int64(whole)) {
			continue
		}
		if whole > 0 {
			if serr := v.Store(whole); serr != nil {
				return total, serr
			}
			have -= whole
			total += int64(whole)
			st.move(int64(whole), false)
		}
	}
	if err != nil && len(v.Bytes()) == 0 {
		return total, nil // all there; whoever reads on sees it again
	}
	return total, st.ended(err)
}

// through reads a piece of the body into buf and writes it to the block.
func (st *stream) through(ctx context.Context, b body, buf []byte, n int64) (int64, error) {
	p := buf[:min(n, int64(len(buf)), st.piece())]
	got, err := io.ReadFull(b, p)
	st.arrived(b, got)
	if err != nil {
		// Whole grains that did arrive are kept.
		p = p[:alignDown(int64(got))]
		err = st.ended(err)
	}
	if len(p) > 0 {
		if werr := st.put(ctx, p); werr != nil {
			return 0, werr
		}
		st.move(int64(len(p)), false)
	}
	return int64(len(p)), err
}

// ended gives the early end of a body its kind.
func (st *stream) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &orca.Error{Op: "readthrough.fill", Path: st.f.id.String(), Kind: orca.UFSFailure, Msg: "the source ended early", Err: io.ErrUnexpectedEOF}
	}
	return err
}

// arrived notes bytes of the source.
func (st *stream) arrived(b body, n int) {
	st.watch.Reset(st.f.s.cfg.Stall)
	if b.peer {
		st.f.s.Metrics.PeerBytes.Add(int64(n))
	} else {
		st.f.s.Metrics.UFSBytes.Add(int64(n))
	}
}

// put stores p at the position of the stream.
func (st *stream) put(ctx context.Context, p []byte) error {
	rctx, cancel := context.WithTimeout(ctx, st.f.s.cfg.RoomWait)
	defer cancel()
	return roomError(rctx, ctx, st.f.w.WriteGrains(rctx, p, st.at()))
}

// at returns the position of the stream.
func (st *stream) at() int64 {
	st.f.mu.Lock()
	defer st.f.mu.Unlock()
	return st.pos
}

// awaited reports whether somebody waits for no more than the next n bytes.
func (st *stream) awaited(n int64) bool {
	st.f.mu.Lock()
	defer st.f.mu.Unlock()
	return n > 0 && st.need > 0 && st.pos+n >= st.need
}

// piece returns how many bytes to read at once: what somebody waits for, if
// that is little.
func (st *stream) piece() int64 {
	st.f.mu.Lock()
	defer st.f.mu.Unlock()
	if st.need > st.pos {
		return alignUp(st.need - st.pos)
	}
	return bufSize
}

// move notes that n bytes more are stored, and wakes the waiters when that is
// what one of them waits for, or now.
func (st *stream) move(n int64, now bool) {
	st.f.mu.Lock()
	st.pos += n
	woken := now || st.need > 0 && st.pos >= st.need
	if woken {
		st.need = 0 // those who wait for more say so again
		st.f.tickLocked()
	}
	first := woken && st.pos-st.start <= grain
	st.f.mu.Unlock()
	if first {
		runtime.Gosched() // whoever waits for the first bytes goes before the next ones
	}
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
