// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"sync"
	"time"

	"orca"
	"orca/tiers"
	"orca/tiers/alloc"
	"orca/tiers/cryptfile"
)

// candidatesLocked orders the directories for a need; the first now of them
// have room at once.
func (s *Store) candidatesLocked(n alloc.Need, write bool) (order []alloc.Place, now int) {
	ps := make([]alloc.Place, 0, len(s.places))
	for i, p := range s.places {
		if p.Healthy() && !p.closing {
			ps = append(ps, alloc.Place{Index: i, Tier: p.Tier, Capacity: p.Usable(), Free: p.Free(),
				Evictable: p.evictable(write), Durable: p.Tier != orca.MEM, Last: p.last, Placed: p.placed})
		}
	}
	return s.alloc.Order(ps, n)
}

// takeRoom reserves need.Room bytes in the best directory, waiting for the
// background to evict when that can help; for a write wanted copies, too.
func (s *Store) takeRoom(ctx context.Context, op string, need alloc.Need, write bool) (*place, error) {
	var timer *time.Timer
	var asked *place
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, orca.E(op, orca.Unavailable, "store is closed")
		}
		order, now := s.candidatesLocked(need, write)
		for _, c := range order[:now] {
			if p := s.places[c.Index]; p.Take(need.Room) {
				s.placements++
				p.last, p.placed = s.placements, p.placed+need.Length
				s.servedLocked(asked)
				s.excessWakeLocked(p)
				s.mu.Unlock()
				return p, nil
			}
		}
		if len(order) > now {
			asked = s.places[order[now].Index]
			asked.ask(need.Room, write)
		}
		asked.waitLocked()
		freed := s.freed
		s.mu.Unlock()
		if len(order) == 0 {
			s.waited(asked)
			s.Metrics.NoSpace.Add(1)
			return nil, orca.E(op, orca.NoSpace, "no tier directory has room for the block")
		}
		if timer == nil {
			timer = time.NewTimer(s.cfg.RoomWait)
			defer timer.Stop()
			s.Metrics.RoomWaits.Add(1)
		}
		if err := s.awaitRoom(ctx, op, asked, freed, timer); err != nil {
			return nil, err
		}
	}
}

// takeMore reserves n bytes in one directory, waiting likewise.
func (s *Store) takeMore(ctx context.Context, op string, p *place, n int64, write bool) error {
	var timer *time.Timer
	for {
		if p.Take(n) {
			s.mu.Lock()
			if timer != nil {
				s.servedLocked(p)
			}
			s.excessWakeLocked(p)
			s.mu.Unlock()
			return nil
		}
		s.mu.Lock()
		hopeless := s.closed || !p.Healthy() || p.Free()+p.evictable(write) < n
		if !hopeless {
			p.ask(n, write)
			p.waitLocked()
		}
		freed := s.freed
		s.mu.Unlock()
		if hopeless {
			s.Metrics.NoSpace.Add(1)
			return orca.PathE(op, p.Path, orca.NoSpace, nil)
		}
		if timer == nil {
			timer = time.NewTimer(s.cfg.RoomWait)
			defer timer.Stop()
			s.Metrics.RoomWaits.Add(1)
		}
		if err := s.awaitRoom(ctx, op, p, freed, timer); err != nil {
			return err
		}
	}
}

// withSpace does what needs up to n bytes of the file system below a directory,
// n reserved already. When there is no space although the quota had some, the
// directory is taken to be as large as what it holds now, clean blocks leave,
// and it is done again, for as long as RoomWait.
func (s *Store) withSpace(ctx context.Context, op string, p *place, n int64, write bool, do func() error) error {
	var timer *time.Timer
	for {
		err := do()
		if orca.KindOf(err) != orca.NoSpace {
			if timer != nil {
				s.mu.Lock()
				s.servedLocked(p)
				s.mu.Unlock()
			}
			return err
		}
		if p.Refused() {
			continue
		}
		s.mu.Lock()
		if s.closed || !p.Healthy() || p.evictable(write) == 0 {
			s.mu.Unlock()
			s.Metrics.NoSpace.Add(1)
			return err
		}
		p.ask(n, write)
		p.waitLocked()
		freed := s.freed
		s.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(s.cfg.RoomWait)
			defer timer.Stop()
			s.Metrics.RoomWaits.Add(1)
		}
		if werr := s.awaitRoom(ctx, op, p, freed, timer); werr != nil {
			return err
		}
	}
}

// waitLocked counts who is about to wait for room in a directory, waited ends that;
// nil is none in particular. It is counted with what it asks for, so that nobody
// takes that back in between.
func (p *place) waitLocked() {
	if p != nil {
		p.waiting++
	}
}

func (s *Store) waited(p *place) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.waiting--
}

// awaitRoom waits for room after waitLocked.
func (s *Store) awaitRoom(ctx context.Context, op string, p *place, freed <-chan struct{}, timer *time.Timer) error {
	s.roomWaiters.Add(1)
	begin := time.Now()
	defer func() {
		s.roomWaiters.Add(-1)
		s.waited(p)
		s.Metrics.RoomWaitTime.Observe(time.Since(begin))
	}()
	s.wake()
	select {
	case <-freed:
		return nil
	case <-timer.C:
		s.Metrics.NoSpace.Add(1)
		return orca.E(op, orca.NoSpace, "nothing left the tier directory in time")
	case <-ctx.Done():
		return orca.PathE(op, "", orca.Canceled, ctx.Err())
	case <-s.done:
		return orca.E(op, orca.Unavailable, "store is closed")
	}
}

// servedLocked takes back what was asked of a directory when somebody has his
// room and nobody else waits for any there: the background may not have looked between the
// room's return and its taking, and would let one block more leave. A nil p was
// not asked.
func (s *Store) servedLocked(p *place) {
	if p != nil && !p.shelter && p.waiting == 0 {
		p.askedLocked()
	}
}

// excessWakeLocked wakes the background when a directory is over its high mark.
func (s *Store) excessWakeLocked(p *place) {
	if s.excessLocked(p) > 0 && p.choosable() {
		s.wake()
	}
}

// room is quota for private files.
type room struct {
	s *Store
	p *place

	mu   sync.Mutex
	held int64 // GUARDED_BY(mu)
	done bool  // GUARDED_BY(mu)
}

var _ tiers.Room = (*room)(nil)

// Reserve implements tiers.Store.
func (s *Store) Reserve(ctx context.Context, bytes int64, durable bool) (tiers.Room, error) {
	p, err := s.takeRoom(ctx, "tiered.Reserve", alloc.Need{Length: bytes, Room: bytes, Durable: durable}, true)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	p.rooms++ // what it reserves keeps the directory from being let go meanwhile
	s.mu.Unlock()
	return &room{s: s, p: p, held: bytes}, nil
}

// Dir implements tiers.Room.
func (r *room) Dir() string { return r.p.Scratch() }

// Key implements tiers.Room.
func (r *room) Key() *cryptfile.Key { return r.p.Key() }

// Tier implements tiers.Room.
func (r *room) Tier() orca.Tier { return r.p.Tier }

// Resize implements tiers.Room.
func (r *room) Resize(ctx context.Context, bytes int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resizeLocked(ctx, bytes)
}

// WithSpace implements tiers.Room.
func (r *room) WithSpace(ctx context.Context, n int64, do func() error) error {
	return r.s.withSpace(ctx, "tiered.WithSpace", r.p, n, true, do)
}

func (r *room) resizeLocked(ctx context.Context, bytes int64) error {
	switch d := bytes - r.held; {
	case r.done:
		return orca.E("tiered.Resize", orca.Invalid, "room was released")
	case d > 0:
		if err := r.s.takeMore(ctx, "tiered.Resize", r.p, d, true); err != nil {
			return err
		}
	case d < 0:
		r.giveLocked(-d)
	}
	r.held = bytes
	return nil
}

func (r *room) giveLocked(n int64) {
	r.p.Return(n)
	r.s.mu.Lock()
	r.s.freedLocked()
	r.s.mu.Unlock()
}

// take moves n bytes from the reservation to its caller.
func (r *room) take(ctx context.Context, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > r.held {
		if err := r.resizeLocked(ctx, n); err != nil {
			return err
		}
	}
	r.held -= n
	return nil
}

// put undoes take.
func (r *room) put(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		r.giveLocked(n)
		return
	}
	r.held += n
}

// Release implements tiers.Room.
func (r *room) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return
	}
	r.done = true
	r.s.mu.Lock()
	r.p.rooms--
	r.s.mu.Unlock()
	r.giveLocked(r.held)
	r.held = 0
}
