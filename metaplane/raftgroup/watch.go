// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/fsm"
)

// seqBits is how many events one entry may have: a cursor is the Raft index
// and the ordinal of an event within its entry, so it means the same in every
// replica and after a restart.
const seqBits = 20

// watcher is a ring of the last events.
type watcher struct {
	mu     sync.Mutex
	ring   []fsm.Event // cursors[i] is the cursor of ring[i]
	curs   []uint64
	head   int    // index of the oldest
	n      int    // events in the ring
	floor  uint64 // the last event that is not in the ring any more
	last   uint64 // cursor of the present
	more   chan struct{}
	waited bool // somebody was given more
	closed bool
}

// start begins anew at a Raft index.
func (w *watcher) start(applied uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ring == nil {
		w.ring, w.curs = make([]fsm.Event, eventRing), make([]uint64, eventRing)
		w.more = make(chan struct{})
	}
	w.head, w.n = 0, 0
	w.floor = applied<<seqBits | (1<<seqBits - 1)
	w.last = w.floor
}

// add appends the events of an entry.
func (w *watcher) add(index uint64, events []fsm.Event) {
	if len(events) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range events {
		w.last = index<<seqBits | uint64(min(i, 1<<seqBits-1))
		if w.n == len(w.ring) {
			w.floor = w.curs[w.head]
			w.head = (w.head + 1) % len(w.ring)
			w.n--
		}
		at := (w.head + w.n) % len(w.ring)
		w.ring[at], w.curs[at] = e, w.last
		w.n++
	}
	if w.waited { // not a new channel per entry when nobody has it
		close(w.more)
		w.more, w.waited = make(chan struct{}), false
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed && w.more != nil {
		close(w.more)
		w.more = make(chan struct{})
	}
	w.closed = true
}

// after returns the events behind a cursor that are in the ring.
func (w *watcher) after(cursor uint64) (events []fsm.Event, next uint64, lost bool, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cursor == 0 {
		return nil, w.last, false, nil
	}
	lost = cursor < w.floor || cursor > w.last
	if lost {
		return nil, w.last, true, nil
	}
	lo, hi := 0, w.n
	for lo < hi {
		mid := (lo + hi) / 2
		if w.curs[(w.head+mid)%len(w.ring)] <= cursor {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < w.n; lo++ {
		events = append(events, w.ring[(w.head+lo)%len(w.ring)])
	}
	if len(events) == 0 && !w.closed {
		w.waited = true
		return nil, cursor, false, w.more
	}
	return events, max(w.last, cursor), false, nil
}

func (w *watcher) watch(ctx context.Context, cursor uint64) ([]fsm.Event, uint64, bool) {
	for {
		events, next, lost, more := w.after(cursor)
		if more == nil {
			return events, next, lost
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, next, false
		}
	}
}

// reader proves that local reads are linearizable.
type reader struct {
	g      *Group
	proven atomic.Bool // a single voter, and a round has succeeded; set under mu
	mu     sync.Mutex
	epoch  uint64 // of membership
	next   *round // gathers readers while a round is on its way
	busy   bool   // a round is on its way
}

// round is one ReadIndex, shared by all who came before it was issued.
type round struct {
	done chan struct{}
	led  atomic.Bool // one who came counted on this member's leading
	err  error
}

func (r *reader) reset() {
	r.mu.Lock()
	r.proven.Store(false)
	r.epoch++
	r.mu.Unlock()
}

// ReadReady returns when reads on Machine() are linearizable: for a single
// voter at once after the first success since start and since the last change
// of membership, else after one round, shared with all who wait. NotLeader: this
// host led when it was called, and leads no more. Unavailable, Timeout,
// Canceled.
func (g *Group) ReadReady(ctx context.Context) error {
	r := &g.reads
	if r.proven.Load() {
		return nil
	}
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	g.Stats.ReadWaits.Add(1)
	if leads, _ := g.Leader(); leads {
		mine.led.Store(true)
	}
	if !r.busy {
		r.busy = true
		go r.loop()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return orca.PathE("metaplane.ReadReady", "", orca.EndKind(ctx.Err()), ctx.Err())
	case <-g.quit:
		return orca.E("metaplane.ReadReady", orca.Unavailable, "the group is closing")
	}
}

// ReadProven reports whether ReadReady would return at once.
func (g *Group) ReadProven() bool { return g.reads.proven.Load() }

// loop runs rounds as long as readers wait for one.
func (r *reader) loop() {
	for {
		r.mu.Lock()
		now, epoch := r.next, r.epoch
		r.next = nil
		if now == nil {
			r.busy = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		now.err = r.g.readIndex(&now.led)
		r.mu.Lock()
		if now.err == nil && r.epoch == epoch && r.g.Alone() {
			r.proven.Store(true)
		}
		r.mu.Unlock()
		close(now.done)
	}
}

// readAgain is after how long an unanswered ReadIndex is made again: messages
// between members are lost while a link is made or mended.
const readAgain = 500 * time.Millisecond

// readIndex makes one ReadIndex, trying again around an election, unless led:
// then it ends with the leadership.
func (g *Group) readIndex(led *atomic.Bool) error {
	const op = "metaplane.ReadReady"
	deadline := time.Now().Add(g.host.cfg.ProposeTimeout)
	for {
		changed := g.LeaderChanged()
		if leads, _ := g.Leader(); led.Load() && !leads {
			// The one that leads now may be out of reach for long.
			return orca.E(op, orca.NotLeader, "this member does not lead any more")
		}
		g.Stats.ReadIndexes.Add(1)
		rs, err := g.host.nh.ReadIndex(g.shard, min(time.Until(deadline), readAgain))
		if err == nil {
			select {
			case res := <-rs.ResultC():
				ok := res.Completed()
				rs.Release()
				if ok {
					return nil
				}
			case <-changed: // who was asked leads no more, perhaps
			case <-g.quit:
				return orca.E(op, orca.Unavailable, "the group is closing")
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-g.quit:
			}
			if time.Until(deadline) < 50*time.Millisecond {
				return orca.E(op, orca.Unavailable, "no leader answered in time")
			}
			continue
		}
		if !g.again(err, deadline) {
			return orca.PathE(op, "", orca.Unavailable, err)
		}
	}
}
