// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"os"
	"slices"
	"strconv"
	"time"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/evict"
)

// AddDir opens a further directory while the store runs, with the blocks that
// are in it, as Open does: of two copies the better one stays. Exists when it is
// there already, Busy when another worker holds it.
func (s *Store) AddDir(c dir.Config) error {
	const op = "tiered.AddDir"
	s.change.Lock()
	defer s.change.Unlock()
	if err := c.Validate(); err != nil {
		return err
	}
	for _, p := range s.dirs() {
		if p.Path == c.Path {
			return &orca.Error{Op: op, Path: c.Path, Kind: orca.Exists, Msg: "is a tier directory already"}
		}
	}
	policy, err := evict.New(s.cfg.Policy)
	if err != nil {
		return err
	}
	p := &place{policy: policy, wanted: evict.NewLRU(), swept: make(chan struct{})}
	l, d, err := load(c, func(fn func(*blockfile.Record)) (*dir.Dir, error) { return dir.Open(c, s.cfg.Ops, s.log, fn) })
	if err != nil {
		return err
	}
	p.Dir = d
	found := newDormant(l)
	for i := range found.entries { // they are in nobody's way awake, and who is there sees them
		l.live = append(l.live, found.take(i, p))
	}
	for _, b := range l.live {
		if s.recoverable(p, b) {
			s.takeOver(p, b)
		}
	}
	p.Regain()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = d.Close()
		return orca.E(op, orca.Unavailable, "store is closed")
	}
	s.places = append(slices.Clone(s.places), p)
	s.failed = slices.DeleteFunc(slices.Clone(s.failed), func(u tiers.Usage) bool { return u.Dir == c.Path })
	s.rankTiersLocked()
	s.feed.reset() // what it holds is reported in full
	s.freedLocked()
	s.wg.Add(1)
	go s.sweepOnce(p)
	s.wake()
	return nil
}

// takeOver adds one block that was found in a new directory, when nobody is
// about to bring it.
func (s *Store) takeOver(p *place, b *block) {
	for {
		s.mu.Lock()
		if s.arriving[b.ID] == 0 {
			s.mergeLocked(p, b)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		time.Sleep(time.Millisecond) // as Begin does
	}
}

// sweepOnce is sweep, and says when it has ended.
func (s *Store) sweepOnce(p *place) {
	defer close(p.swept)
	s.sweep(p)
}

// drainPoll is how often a removal looks whether the directory is empty.
const drainPoll = 20 * time.Millisecond

// RemoveDir lets go of a directory while the store runs: nothing new comes
// there, complete blocks move to other directories (the only copies durably,
// before they leave), others leave, and when no writer and no reader is in it any
// more, it is closed; its files are gone then. When ctx ends before, or it
// cannot be done, the directory is in use again, without what has moved.
// NotFound; Busy for the last one; NoSpace when what has to stay would not fit
// elsewhere, or would not be durable there.
func (s *Store) RemoveDir(ctx context.Context, path string) error {
	s.change.Lock()
	defer s.change.Unlock()
	p, err := s.startDrain(path)
	if err != nil {
		return err
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		empty, stuck := s.drained(p)
		if empty {
			break
		}
		if stuck == nil {
			s.wakeMover()
			s.wake()
			select {
			case <-tick.C:
				continue
			case <-s.done:
				stuck = orca.E("tiered.RemoveDir", orca.Unavailable, "store is closed")
			case <-ctx.Done():
				stuck = &orca.Error{Op: "tiered.RemoveDir", Path: path, Kind: orca.Canceled, Msg: "given up; the directory is in use again", Err: ctx.Err()}
			}
		}
		s.mu.Lock()
		p.closing, p.todo = false, nil
		s.mu.Unlock()
		return stuck
	}
	<-p.swept
	p.compacting.Lock()
	defer p.compacting.Unlock()
	if err := p.Close(); err != nil && p.Healthy() {
		s.log.Warn("closing a tier directory", "dir", path, "err", err) // it is gone all the same
	}
	return nil
}

// startDrain marks a directory for removal, if the others can take what is in it.
func (s *Store) startDrain(path string) (*place, error) {
	const op = "tiered.RemoveDir"
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.places, func(p *place) bool { return p.Path == path })
	if i < 0 {
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.NotFound, Msg: "no such tier directory"}
	}
	p := s.places[i]
	room, durable, others := int64(0), int64(0), 0
	for _, o := range s.places {
		if o == p || !o.Healthy() {
			continue
		}
		others++
		n := o.Free() + o.listed + o.leaving
		room += n
		if o.Tier != orca.MEM {
			durable += n
		}
	}
	if others == 0 {
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Busy, Msg: "is the last tier directory of this worker"}
	}
	stays, only := int64(0), int64(0)
	if p.Used()-p.listed-p.leaving > 0 {
		for _, b := range s.blocks {
			switch {
			case b.at != p || !b.dirty && !b.pinned:
			case b.dirty && p.Tier != orca.MEM:
				only += b.charged
				fallthrough
			default:
				stays += b.charged
			}
		}
	}
	switch {
	case only > durable:
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.NoSpace, Msg: strconv.FormatInt(only, 10) +
			" bytes in it are nowhere else yet, and no other durable directory has room for them"}
	case stays > room:
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.NoSpace, Msg: strconv.FormatInt(stays, 10) +
			" bytes in it have to stay in this worker, and the other directories have no room for them"}
	}
	p.closing, p.stuck, p.todo = true, nil, nil
	return p, nil
}

// drained takes a directory out when nothing is in it any more; stuck says why
// that will not be.
func (s *Store) drained(p *place) (empty bool, stuck error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.blocks > 0 || p.leaving > 0 || p.rooms > 0 || p.Used() > 0 {
		return false, p.stuck
	}
	s.places = slices.DeleteFunc(slices.Clone(s.places), func(o *place) bool { return o == p })
	p.lastFail = os.ErrClosed // who flushes it late has nothing to say
	s.rankTiersLocked()
	s.feed.reset()
	return true, nil
}

// drainOne moves one block out of a directory that is being removed, or lets it
// leave; false when there is none that can go now.
func (m *mover) drainOne(p *place) bool {
	s := m.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.closing {
		return false
	}
	if len(p.todo) == 0 && p.blocks > 0 { // once; and for what was on its way here then
		for id, b := range s.blocks {
			if b.at == p {
				p.todo = append(p.todo, id)
			}
		}
		p.dormant.each(func(e *entry) { p.todo = append(p.todo, e.id()) })
	}
	var later []orca.BlockID
	for len(p.todo) > 0 {
		id := p.todo[0]
		p.todo = p.todo[1:]
		b := s.blockLocked(id)
		if b == nil || b.at != p {
			continue
		}
		if b.fillers == 0 && m.expelLocked(b) {
			p.todo = append(p.todo, later...)
			return true
		}
		later = append(later, id)
	}
	p.todo = later
	return false
}

// expelLocked moves a block out of its directory, or lets it leave; it gives
// the lock up meanwhile. False: it is still there.
func (m *mover) expelLocked(b *block) bool {
	s := m.s
	if b.have != nil && b.dirty {
		b.at.stuck = &orca.Error{Op: "tiered.RemoveDir", Path: b.ID.String(), Kind: orca.Corrupt, Msg: "the only copy is damaged, and cannot move"}
		return false
	}
	to := s.shelterLocked(b)
	if to != nil && s.startMoveLocked(b, to, true) {
		s.mu.Unlock()
		m.force = true
		moved, gone := m.move(b, to)
		m.force = false
		s.mu.Lock()
		if moved {
			s.Metrics.Drained.Add(1)
		}
		if moved || gone {
			return true
		}
	}
	if !b.mayLeave() && !b.gone && !b.at.Healthy() {
		b.at.stuck = &orca.Error{Op: "tiered.RemoveDir", Path: b.ID.String(), Kind: orca.Corrupt, Msg: "the directory has failed, and the only copy cannot be read"}
	}
	if !b.mayLeave() || !b.at.closing {
		return false
	}
	s.evictLocked(b, DirRemoved)
	return true
}

// shelterLocked returns where a block of a directory that is being removed goes:
// the same tier, else a slower one, else a faster one. nil when no directory has
// room now; if the block has to stay, room is asked for.
func (s *Store) shelterLocked(b *block) *place {
	if b.have != nil {
		return nil
	}
	var best, later *place
	distance := func(p *place) int {
		if d := int(p.Tier) - int(b.at.Tier); d >= 0 {
			return d
		}
		return int(orca.HDD) + 1
	}
	for _, o := range s.places {
		switch {
		case o.closing || !o.Healthy() || b.length > o.Quota()/2 || b.dirty && o.Tier == orca.MEM && b.at.Tier != orca.MEM:
		case b.mayLeave() && o.Used()+b.length > s.mark(o, s.cfg.Marks.High):
		case o.Free() >= b.length:
			if best == nil || distance(o) < distance(best) || distance(o) == distance(best) && o.Free() > best.Free() {
				best = o
			}
		case !b.mayLeave() && o.Free()+o.listed+o.leaving >= b.length && (later == nil || distance(o) < distance(later)):
			later = o
		}
	}
	switch {
	case best != nil:
	case later != nil:
		later.ask(b.length, true)
		later.shelter = true
		s.wake()
	case !b.mayLeave():
		b.at.stuck = &orca.Error{Op: "tiered.RemoveDir", Path: b.ID.String(), Kind: orca.NoSpace, Msg: "no other directory has room for a block that has to stay"}
	}
	return best
}
