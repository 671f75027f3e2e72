// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
)

// Waiter is told what a command came to. Update does so, so that Done is called
// on a goroutine that must not be held up.
type Waiter = command.Waiter

// pending is one command on its way. It belongs to its proposer until queued;
// then whoever takes it from the queue tells exactly one outcome, either to
// its waiter or, when that is nil, through done.
type pending struct {
	ctx    context.Context // nil: none
	until  time.Time       // not proposed later than this; zero: no matter when
	reign  uint64          // that the command is signed with, 0: none
	cmd    []byte
	waiter Waiter
	done   chan outcome
}

type outcome struct {
	res *command.Result // its reader's own
	err error
}

var pendings = sync.Pool{New: func() any { return &pending{done: make(chan outcome, 1)} }}

func newPending() *pending { return pendings.Get().(*pending) }

// free gives p back; only after its outcome was received.
func (p *pending) free() {
	p.ctx, p.waiter, p.until, p.reign = nil, nil, time.Time{}, 0
	pendings.Put(p)
}

// fail tells an error.
func (p *pending) fail(err error) {
	if p.waiter == nil {
		p.done <- outcome{err: err}
		return
	}
	w := p.waiter
	p.free()
	w.Done(nil, err)
}

// late reports why p is not worth proposing any more; nil when it is.
func (p *pending) late(now time.Time) error {
	const op = "metaplane.Propose"
	if p.ctx != nil && p.ctx.Err() != nil {
		return orca.PathE(op, "", orca.EndKind(p.ctx.Err()), p.ctx.Err())
	}
	if !p.until.IsZero() && now.After(p.until) {
		return orca.E(op, orca.Timeout, "the request's time was over before it was proposed")
	}
	return nil
}

func fail(ops []*pending, err error) {
	for _, p := range ops {
		p.fail(err)
	}
}

// opQueue holds what waits to be proposed.
type opQueue struct {
	wake chan struct{} // has a token when ops may not be empty

	mu     sync.Mutex
	ops    []*pending
	closed bool
}

// put queues p, which is not touched any more, unless it refuses: Busy when
// limit wait already, Unavailable when closed.
func (q *opQueue) put(p *pending, limit int) error {
	const op = "metaplane.Propose"
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return orca.E(op, orca.Unavailable, "the group is closed")
	case len(q.ops) >= limit:
		q.mu.Unlock()
		return orca.E(op, orca.Busy, "too many commands wait to be committed")
	}
	q.ops = append(q.ops, p)
	first := len(q.ops) == 1
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// take moves queued commands into e and returns them in order; late ones are
// failed. It leaves what is too much for one entry, with a token in wake.
func (q *opQueue) take(e *command.Entry) []*pending {
	now := time.Now()
	var out, late []*pending
	q.mu.Lock()
	n := 0
	for _, p := range q.ops {
		if e.Len() >= maxOps || e.Size() >= maxBytes {
			break
		}
		n++
		if p.late(now) != nil {
			late = append(late, p)
			continue
		}
		e.Add(p.cmd)
		out = append(out, p)
	}
	rest := copy(q.ops, q.ops[n:])
	clear(q.ops[rest:])
	q.ops = q.ops[:rest]
	q.mu.Unlock()
	if rest > 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	for _, p := range late {
		p.fail(p.late(now))
	}
	return out
}

// close refuses all later commands and returns those that wait.
func (q *opQueue) close() []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops := q.ops
	q.ops, q.closed = nil, true
	return ops
}

// flight is one journal entry that was proposed. Whoever takes it out of the
// table tells its commands their outcome: apply, or who has seen it fail.
type flight struct {
	id    uint64
	reign uint64 // the latest of its commands, 0: none is signed
	ops   []*pending
	void  chan struct{} // closed when a new reign makes it void
}

// flightTable are the entries on their way, by the number in their tags.
type flightTable struct {
	mu   sync.Mutex
	last uint64
	by   map[uint64]*flight
}

func (t *flightTable) add(f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.by[f.id] = f
}

// next returns the number of the next flight.
func (t *flightTable) next() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	return t.last
}

// take removes a flight; nil when it was taken before.
func (t *flightTable) take(id uint64) *flight {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.by[id]
	delete(t.by, id)
	return f
}

// outlived takes the flights that were signed with an earlier reign than what
// is on record now.
func (t *flightTable) outlived(reign uint64) (out []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, f := range t.by {
		if f.reign != 0 && f.reign < reign {
			delete(t.by, id)
			out = append(out, f)
		}
	}
	return out
}

// reigned fails what a new reign makes void: the entries of an earlier one that
// have not been applied never will be, or the machine refuses them. Else their
// clients would wait until the entries are given up.
func (g *Group) reigned(reign uint64) {
	if reign == g.update.reign {
		return
	}
	g.update.reign = reign
	for _, f := range g.table.outlived(reign) {
		fail(f.ops, errOutlived)
		close(f.void)
	}
}

// deposed fails the signed commands that wait to be proposed: this member leads
// no more, so that the machine would refuse them, and what is on its way may
// hold the batcher up.
func (g *Group) deposed() {
	fail(g.queue.signed(), errOutlived)
}

// signed takes the signed commands out.
func (q *opQueue) signed() (out []*pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := q.ops[:0]
	for _, p := range q.ops {
		if p.reign != 0 {
			out = append(out, p)
		} else {
			rest = append(rest, p)
		}
	}
	clear(q.ops[len(rest):])
	q.ops = rest
	return out
}

var errOutlived = orca.E("metaplane.Propose", orca.NotLeader, "another member leads now")

// claim takes the flight of an entry that this process has proposed; nil for
// one of another process, or of an earlier life of this one.
func (g *Group) claim(entry []byte) *flight {
	if proposer, id, ok := command.TagOf(entry); ok && proposer == g.proposer {
		return g.table.take(id)
	}
	return nil
}

// batchLoop packs what waits into entries and proposes them.
func (g *Group) batchLoop() {
	defer close(g.flights)
	defer func() {
		fail(g.queue.close(), orca.E("metaplane.Propose", orca.Unavailable, "the group is closed"))
	}()
	var e command.Entry
	for {
		select {
		case <-g.queue.wake:
		case <-g.quit:
			return
		}
		select {
		case g.turn <- struct{}{}:
		case <-g.quit:
			return
		}
		select {
		case g.slots <- struct{}{}:
		case <-g.quit:
			return
		}
		// Proposers that were woken together arrive together: let them, for
		// three times the commands share an entry then.
		runtime.Gosched()
		g.batch(&e)
		<-g.turn
	}
}

// batch packs what waits into an entry and proposes it, if there is anything and
// this host leads; else it gives the slot back.
func (g *Group) batch(e *command.Entry) {
	f := &flight{id: g.table.next(), void: make(chan struct{})}
	e.Reset(true)
	e.Tag(g.proposer, f.id)
	if f.ops = g.queue.take(e); len(f.ops) == 0 {
		<-g.slots
		return
	}
	for _, p := range f.ops {
		f.reign = max(f.reign, p.reign)
	}
	if leads, _ := g.Leader(); f.reign != 0 && !leads {
		fail(f.ops, errOutlived)
		<-g.slots
		return
	}
	g.Stats.Proposals.Add(1)
	g.Stats.Commands.Add(int64(len(f.ops)))
	g.launch(f, e.Bytes())
}

// launch proposes an entry; dragonboat copies it.
func (g *Group) launch(f *flight, entry []byte) {
	session := g.host.nh.GetNoOPSession(g.shard)
	deadline := time.Now().Add(g.host.cfg.ProposeTimeout)
	g.table.add(f)
	for {
		changed := g.LeaderChanged()
		rs, err := g.host.nh.Propose(session, entry, time.Until(deadline))
		if err == nil {
			g.flights <- arrival{f.id, rs, changed, f.void}
			return
		}
		if !g.again(err, deadline) {
			if g.table.take(f.id) != nil {
				fail(f.ops, proposeError(err))
			}
			<-g.slots
			return
		}
	}
}

// again waits a little if an error of Propose passes by itself (around an
// election, or when dragonboat's queue is full).
func (g *Group) again(err error, deadline time.Time) bool {
	if !errors.Is(err, dragonboat.ErrShardNotReady) && !errors.Is(err, dragonboat.ErrSystemBusy) {
		return false
	}
	if time.Until(deadline) < 50*time.Millisecond {
		return false
	}
	select {
	case <-time.After(2 * time.Millisecond):
		return true
	case <-g.quit:
		return false
	}
}

func proposeError(err error) error {
	const op = "metaplane.Propose"
	switch {
	case errors.Is(err, dragonboat.ErrSystemBusy):
		return orca.PathE(op, "", orca.Busy, err)
	case errors.Is(err, dragonboat.ErrTimeout), errors.Is(err, dragonboat.ErrTimeoutTooSmall):
		return orca.PathE(op, "", orca.Timeout, err)
	}
	return orca.PathE(op, "", orca.Unavailable, err)
}

// completeLoop waits for the end of the entries in order: the results have
// been told by then (see deliver), unless there are none.
func (g *Group) completeLoop() {
	const op = "metaplane.Propose"
	for a := range g.flights {
		r, err := g.await(a)
		if err != nil {
			if f := g.table.take(a.id); f != nil {
				g.Stats.Timeouts.Add(1)
				fail(f.ops, err)
			}
			<-g.slots
			continue
		}
		if f := g.table.take(a.id); f != nil {
			switch {
			case r.Completed():
				fail(f.ops, orca.E(op, orca.Internal, "an entry was applied without its commands"))
			case r.Dropped():
				g.Stats.Dropped.Add(1)
				fail(f.ops, orca.E(op, orca.Unavailable, "no leader"))
			default:
				g.Stats.Timeouts.Add(1)
				fail(f.ops, orca.E(op, orca.Timeout, "not committed in time; the outcome is unknown"))
			}
		}
		a.rs.Release()
		<-g.slots
	}
}

// arrival is a flight whose end is to be waited for.
type arrival struct {
	id      uint64
	rs      *dragonboat.RequestState
	changed <-chan struct{} // closed when the leader is another one
	void    <-chan struct{} // closed when its commands have been told that it is lost
}

// leaderGrace is for how long an entry that was proposed under another leader
// may still be committed by its successor before its outcome is given up.
const leaderGrace = 250 * time.Millisecond

// await waits for the end of an entry. An entry of a leader that is gone may
// never have one.
func (g *Group) await(a arrival) (dragonboat.RequestResult, error) {
	const op = "metaplane.Propose"
	var giveUp <-chan time.Time
	for changed := a.changed; ; {
		select {
		case r := <-a.rs.ResultC():
			return r, nil
		case <-changed:
			changed, giveUp = nil, time.After(leaderGrace)
		case <-a.void:
			return dragonboat.RequestResult{}, errOutlived
		case <-giveUp:
			return dragonboat.RequestResult{}, orca.E(op, orca.Timeout, "the leader has changed; the outcome is unknown")
		case <-g.quit:
			return dragonboat.RequestResult{}, orca.E(op, orca.Timeout, "the group is closing; the outcome is unknown")
		}
	}
}

// deliver tells the commands of an applied entry what they came to.
func (f *flight) deliver(out *fsm.Output) {
	const op = "metaplane.Propose"
	for i, p := range f.ops {
		if i >= len(out.Decoded) {
			p.fail(orca.E(op, orca.Internal, "an entry has more commands than results"))
			continue
		}
		res := out.Decoded[i]
		if p.waiter == nil {
			out.Decoded[i] = nil // kept
			p.done <- outcome{res: res}
			continue
		}
		w := p.waiter
		p.free()
		w.Done(res, command.Err(op, res))
	}
}
