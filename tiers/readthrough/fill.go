// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers"
)

const grain = int64(orca.GrainSize)

func alignDown(n int64) int64 { return n &^ (grain - 1) }
func alignUp(n int64) int64   { return (n + grain - 1) &^ (grain - 1) }

// fill is what goes on about one block.
type fill struct {
	s     *Service
	id    orca.BlockID
	ready chan struct{} // closed when set up; what follows is fixed then
	err   error
	w     tiers.Filler
	size  int64 // length of the block
	away  bool  // this worker has handed the block on: others ask the next home
	grant atomic.Pointer[dataplane.Grant]
	dead  atomic.Bool // nobody may join any more
	// direct: no further worker may be asked to fetch. Another one waits, and two
	// would wait for one another; or this one is to have a copy of its own.
	direct atomic.Bool

	users int // GUARDED_BY(Service.mu)

	mu      sync.Mutex
	src     Source        // GUARDED_BY(mu)
	streams []*stream     // disjoint claims; GUARDED_BY(mu)
	tick    chan struct{} // closed and replaced at progress; GUARDED_BY(mu)
	next    bool          // the block after this one has been begun; GUARDED_BY(mu)
}

// stream fetches one range in order.
type stream struct {
	f      *fill
	cancel context.CancelFunc
	wake   chan struct{}

	// GUARDED_BY(fill.mu)
	pos   int64 // next byte to fetch
	limit int64 // fetch up to here, then park
	stop  int64 // bound of the claim
	need  int64 // wake waiters when pos gets here; 0: nobody waits
	start int64 // where it began
	open  bool  // one GET up to stop, rather than up to limit
	err   error
	done  bool

	watch *time.Timer // cancels when the source stalls; of run alone
}

// end makes the stream give up; never blocks.
func (st *stream) end() { st.cancel() }

func (st *stream) nudge() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// setUp finds the source and makes the block.
func (f *fill) setUp() {
	defer close(f.ready)
	ctx, cancel := context.WithTimeout(f.s.ctx, f.s.cfg.Stall)
	defer cancel()
	src, err := f.s.source(ctx, f.id, false)
	if err == nil {
		f.mu.Lock()
		f.src = src
		f.mu.Unlock()
		f.size = src.Attr.BlockLength(f.id.Index)
		f.w, err = f.begin(ctx)
	}
	if err != nil {
		f.err = err
		f.dead.Store(true)
	}
}

// begin makes the block, waiting for room no longer than RoomWait.
func (f *fill) begin(ctx context.Context) (tiers.Filler, error) {
	rctx, cancel := context.WithTimeout(ctx, f.s.cfg.RoomWait)
	defer cancel()
	w, err := f.s.store.Begin(rctx, f.id, f.size)
	return w, roomError(rctx, ctx, err)
}

// roomError turns the end of a wait for room into NoSpace.
func roomError(waited, ctx context.Context, err error) error {
	if err != nil && waited.Err() != nil && ctx.Err() == nil {
		return orca.PathE("readthrough.fill", "", orca.NoSpace, err)
	}
	return err
}

// wait returns an extent as soon as the first bytes that req asks for are there
// (all of them with Whole), and sees to it that somebody fetches them.
func (f *fill) wait(ctx context.Context, req dataplane.ReadRequest, seq bool, window int64) (dataplane.Extent, error) {
	const op = "readthrough.Open"
	select {
	case <-f.ready:
	case <-ctx.Done():
		return dataplane.Extent{}, ended(op, f.id, ctx)
	}
	if f.err != nil {
		return dataplane.Extent{}, f.err
	}
	if req.Off >= f.size {
		return nothing(), nil
	}
	req.N = min(req.N, f.size-req.Off)
	f.grant.Store(&req.Grant)
	if seq {
		f.beginNext(req, window)
	}
	for absent := 0; ; {
		e, err := f.s.store.Get(f.id, req.Off, req.N)
		off := req.Off
		switch {
		case err == nil && (!req.Whole || e.N == req.N || (off+e.N)%grain != 0):
			return e, nil
		case err == nil:
			off += e.N
			e.Release()
		case orca.KindOf(err) != orca.NotFound:
			return e, err
		}
		st, tick := f.demand(off, req.Off+req.N-off, seq, req.Whole, window)
		if st == nil {
			// Present for the fill and absent for the store: removed.
			if absent++; off == req.Off && absent > 1 {
				f.dead.Store(true)
				return dataplane.Extent{}, errRestart
			}
			continue
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return dataplane.Extent{}, ended(op, f.id, ctx)
		case <-f.s.ctx.Done():
			return dataplane.Extent{}, orca.E(op, orca.Unavailable, "worker is stopping")
		}
		f.mu.Lock()
		err = st.err
		failed := st.done && err != nil && off >= st.pos
		f.mu.Unlock()
		if failed && off > req.Off {
			req.Whole = false // the first bytes are there
		} else if failed {
			return dataplane.Extent{}, err
		}
	}
}

func ended(op string, id orca.BlockID, ctx context.Context) error {
	k := orca.Canceled
	if ctx.Err() == context.DeadlineExceeded {
		k = orca.Timeout
	}
	return orca.PathE(op, id.String(), k, ctx.Err())
}

// demand returns the stream that fetches off, beginning one if need be, and
// the channel that its next progress closes; nil when the grain is present.
func (f *fill) demand(off, n int64, seq, whole bool, window int64) (*stream, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	start := alignDown(off)
	if moff, mn := f.w.Missing(start, 1); mn == 0 || moff != start {
		return nil, nil
	}
	upTo := min(f.size, alignUp(off+n))
	if !seq && f.size <= f.s.cfg.Page {
		upTo = f.size
	}
	if seq {
		upTo = f.edge(off+n, window)
	}
	f.s.track.reach(f.id, upTo)
	for _, st := range f.streams {
		if st.done || st.pos > start || start >= st.stop {
			continue
		}
		if !seq && start-st.pos > f.s.cfg.Jump && start >= st.limit {
			st.stop = start // it was not going there yet: the jumper fetches on
			break
		}
		st.limit = max(st.limit, min(upTo, st.stop))
		f.s.track.reach(f.id, st.limit)
		st.open = st.open || seq && window > f.s.cfg.Page
		st.nudge()
		st.awaitLocked(start, off+n, whole)
		f.spreadLocked(start, upTo, seq && window > f.s.cfg.Page)
		return st, f.tick
	}
	st := f.launchLocked(start, upTo, seq && window > f.s.cfg.Page)
	st.awaitLocked(start, off+n, whole)
	f.spreadLocked(st.stop, upTo, seq && window > f.s.cfg.Page)
	return st, f.tick
}

// aheadStep is the size of a huge page.
const aheadStep = 2 << 20

// edge returns up to where to fetch for a reader in order that has read up to
// end. Ahead of it whole huge pages are fetched: only they are lent as windows,
// and what is beside them is copied once more.
func (f *fill) edge(end, window int64) int64 {
	to := alignUp(end + window)
	if window > f.s.cfg.Page {
		to = (to + aheadStep - 1) / aheadStep * aheadStep
	}
	return min(f.size, to)
}

// spreadLocked fetches [from, upTo) by streams of a part each when its store is
// far: one connection carries no more than its window in a round trip.
func (f *fill) spreadLocked(from, upTo int64, open bool) {
	if !open || !f.s.lat.far(f.src.Attr.MountID) {
		return
	}
	for at := alignDown(from); at < upTo; {
		moff, mn := f.w.Missing(at, upTo-at)
		if mn == 0 {
			return
		}
		at = moff
		st := f.claimedLocked(at)
		if st == nil {
			at = f.launchLocked(at, upTo, true).stop
			continue
		}
		if st.stop-st.limit > farPart { // from before the store was known to be far
			st.stop = (st.limit + farPart) / farPart * farPart
		}
		if to := min(upTo, st.stop); st.limit < to {
			st.limit, st.open = to, true
			st.nudge()
		}
		at = st.stop
	}
	f.s.track.reach(f.id, upTo)
}

// claimedLocked returns the stream that fetches an offset or is on its way
// there.
func (f *fill) claimedLocked(at int64) *stream {
	for _, st := range f.streams {
		if !st.done && st.pos <= at && at < st.stop {
			return st
		}
	}
	return nil
}

// awaitLocked asks for a wake-up when the grain at start is there; when end is,
// for who wants the whole range. A stream that is under way gathers up to
// bufSize in either case: waking a reader for each grain costs more than the
// grain.
func (st *stream) awaitLocked(start, end int64, whole bool) {
	need := start + grain
	if whole {
		need = end
	} else if st.pos-st.start >= orca.PageSize {
		need = min(start+bufSize, end)
	}
	need = min(max(need, start+1), st.limit, st.stop)
	if st.need == 0 || need < st.need {
		st.need = need
	}
}

// launchLocked begins a stream at an absent grain that nobody has claimed.
func (f *fill) launchLocked(start, upTo int64, open bool) *stream {
	_, mn := f.w.Missing(start, f.size-start)
	stop := start + mn
	for _, o := range f.streams {
		if !o.done && o.pos > start {
			stop = min(stop, o.pos)
		}
	}
	if !open && !f.s.cfg.FillRest {
		// What is asked for is claimed, and no more: a jumper stays small.
		stop = min(stop, max(upTo, start+grain))
	} else if open && f.s.lat.far(f.src.Attr.MountID) {
		stop = min(stop, (start+farPart)/farPart*farPart)
	}
	ctx, cancel := context.WithCancel(f.s.ctx)
	st := &stream{f: f, cancel: cancel, wake: make(chan struct{}, 1), start: start, pos: start, limit: min(upTo, stop), stop: stop, open: open}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.closed {
		cancel()
		st.done, st.err = true, orca.E("readthrough.Open", orca.Unavailable, "worker is stopping")
		return st
	}
	f.users++
	f.streams = append(f.streams, st)
	f.s.wg.Go(func() {
		st.run(ctx)
		cancel()
		f.s.leave(f)
	})
	return st
}

// ahead moves the stream in front of a sequential reader on.
func (f *fill) ahead(end, window int64) {
	select {
	case <-f.ready:
	default:
		return
	}
	if f.err != nil {
		return
	}
	upTo := f.edge(end, window)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.s.lat.far(f.src.Attr.MountID) {
		f.spreadLocked(end, upTo, window > f.s.cfg.Page)
		return
	}
	for _, st := range f.streams {
		if !st.done && st.pos >= alignDown(end) && st.pos <= upTo && st.limit < upTo && st.limit < st.stop {
			st.limit = min(upTo, st.stop)
			f.s.track.reach(f.id, st.limit)
			st.nudge()
			return
		}
	}
	if moff, mn := f.w.Missing(alignDown(end), upTo-alignDown(end)); mn > 0 && len(f.streams) == 0 && window > f.s.cfg.Page {
		f.launchLocked(moff, upTo, true)
	}
}

// beginNext starts the following block of a long file when a sequential
// reader comes near the end of this one.
func (f *fill) beginNext(req dataplane.ReadRequest, window int64) {
	over := req.Off + req.N + window - f.size
	f.mu.Lock()
	attr := &f.src.Attr
	next := req.ID
	next.Index++
	if over <= 0 || f.next || int64(next.Index)*attr.BlockSize >= attr.Length {
		f.mu.Unlock()
		return
	}
	f.next = true
	next.Version = attr.BlockVersion(next.Index)
	f.mu.Unlock()
	req.ID, req.Off, req.N = next, 0, 1
	if e, err := f.s.store.Get(next, 0, 1); err == nil {
		e.Release()
		return
	}
	n, joined, err := f.s.join(req)
	if err != nil {
		return
	}
	if joined {
		f.s.leave(n)
		return
	}
	go func() { // ends with setUp, which Close waits for
		defer f.s.leave(n)
		if <-n.ready; n.err == nil {
			n.demand(0, min(over, n.size), true, false, window)
		}
	}()
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
