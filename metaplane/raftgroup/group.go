// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
)

// Stats counts what a group did.
type Stats struct {
	Proposals, Commands, Shed, Timeouts atomic.Int64
	// ReadIndexes are rounds that were asked for so that reads are linearizable:
	// one for all who wait, and more only around an election; ReadWaits are the
	// reads that waited for one.
	ReadIndexes, ReadWaits atomic.Int64
	// Dropped are entries that Raft refused, since nobody led or the leadership
	// was being handed over. HandOvers is how often this host has asked another
	// one to lead, and Summons how often it was reminded that it is to.
	Dropped, HandOvers, Summons atomic.Int64
	// PreVotes are messages that asked another member whether it would vote for
	// this one, PreVotesAgain is how often such a question of another one was put
	// to the engine once more, and PreVotesHeld are the answers that were not sent
	// since it was somebody else's turn (ballot).
	PreVotes, PreVotesAgain, PreVotesHeld atomic.Int64
}

// Group is one Raft group with its machine.
type Group struct {
	Stats         Stats
	host          *Host
	shard         uint64
	part          *part // GUARDED_BY(host.f.mu) once the group runs
	machineConfig fsm.Config
	hosted        map[string]fsm.Hosted
	dir           string // of its stores
	log           *slog.Logger
	queue         opQueue
	flights       chan arrival // entries on their way, in order
	slots         chan struct{}
	// turn is taken by who proposes an entry, and kept while this host hands the
	// leadership over, which handing is taken for.
	turn, handing chan struct{}
	table         flightTable
	// proposer marks the entries of this process, in this life.
	proposer uint64
	update   updateScratch
	quit     chan struct{}
	wg       sync.WaitGroup
	stopped  sync.Once
	events   watcher
	effects  chan fsm.Effect
	dropped  atomic.Int64
	reads    reader
	// membership and changes have a token after a change of the members, for
	// promotionLoop and removalLoop.
	membership, changes chan struct{}
	removed             atomic.Pointer[[]uint64] // replicas that were members
	summons             atomic.Bool              // told to lead, and not yet campaigning
	ballot              ballot
	// grown are the bytes applied since the journal was cut last; cut has a
	// token when it is to be cut. Update's.
	grown int
	cut   chan struct{}

	db      *inodekv.DB // changed by openStore and a snapshot only
	machine *fsm.Machine

	mu      sync.Mutex
	leader  uint64 // replica, 0: none
	term    uint64
	changed chan struct{}
	heir    uint64        // replica that the leadership is handed to, 0: it is not
	stays   chan struct{} // closed when that is over, nil while it is not
}

func newGroup(h *Host, shard uint64, p *part) *Group {
	g := &Group{
		host: h, shard: shard, part: p, dir: h.cfg.Dir, machineConfig: h.cfg.Machine, hosted: h.cfg.Hosted, log: h.log, flights: make(chan arrival, inFlight), proposer: rand.Uint64(),
		slots: make(chan struct{}, inFlight), turn: make(chan struct{}, 1), handing: make(chan struct{}, 1), quit: make(chan struct{}),
		effects: make(chan fsm.Effect, effectQueue), changed: make(chan struct{}),
		membership: make(chan struct{}, 1), changes: make(chan struct{}, 1), cut: make(chan struct{}, 1),
	}
	g.queue.wake = make(chan struct{}, 1)
	g.table.by = make(map[uint64]*flight)
	g.reads.g = g
	return g
}

// run starts the goroutines.
func (g *Group) run() {
	g.wg.Go(g.batchLoop)
	g.wg.Go(g.completeLoop)
	g.wg.Go(g.cutLoop)
	if g.learns() {
		g.wg.Go(g.promotionLoop)
	}
	if !g.Alone() && g.shard == firstGroup {
		g.wg.Go(g.removalLoop)
	}
}

// stop ends them; proposals after it are refused.
func (g *Group) stop() {
	g.stopped.Do(func() { close(g.quit) })
	g.wg.Wait()
	g.events.close()
}

// openStore opens the store and the machine on it.
func (g *Group) openStore() error {
	db, err := inodekv.Open(g.storeConfig(g.part.Store), g.log)
	if err != nil {
		return err
	}
	m, err := fsm.Open(g.machineConfig, db, g.hosted, g.log)
	if err != nil {
		_ = db.Close(false)
		return err
	}
	g.db, g.machine = db, m
	g.events.start(db.Applied())
	return nil
}

func (g *Group) storeConfig(n uint64) inodekv.Config {
	c := g.host.cfg
	return inodekv.Config{
		Dir: storeDir(g.dir, n), FlushEvery: c.FlushEvery, FlushOps: c.FlushOps, CacheBytes: c.CacheBytes,
		OnFatal: g.host.fatal, Die: g.host.die,
	}
}

func (g *Group) closeStore(flush bool) error {
	if g.db == nil {
		return nil
	}
	return errors.Join(g.machine.Close(), g.db.Close(flush))
}

// CompactStore rewrites the store as small as it gets; see inodekv.
func (g *Group) CompactStore(ctx context.Context) error { return g.db.Compact(ctx) }

// Machine returns the machine to read from.
func (g *Group) Machine() *fsm.Machine { return g.machine }

// Leader reports whether this host leads the group, and the current term.
func (g *Group) Leader() (leading bool, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leader == g.host.f.replica(), g.term
}

// LeaderReplica returns the replica that leads as far as this host knows (0:
// none), and the current term.
func (g *Group) LeaderReplica() (replica, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leader, g.term
}

// Alone reports whether the group has one voter for ever: this host.
func (g *Group) Alone() bool { return g.host.f.alone() }

// Learns reports whether this host is a member without a vote so far.
func (g *Group) Learns() bool {
	return g.learns() && !g.votes()
}

// learns reports whether the replica is known to this host as a learner.
func (g *Group) learns() bool {
	g.host.f.mu.Lock()
	defer g.host.f.mu.Unlock()
	return g.part.Learner
}

// Number is that of the group; the first is 1.
func (g *Group) Number() uint16 { return uint16(g.shard) }

// Replica is this host's number in the group.
func (g *Group) Replica() uint64 { return g.host.f.replica() }

// LeaderChanged returns a channel that is closed at the next change of Leader.
func (g *Group) LeaderChanged() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Propose commits and applies one command and returns its result. The result
// of a refused command is returned together with its orca.Error. Else: Busy
// (queue full: not applied), Unavailable (no leader, closed: not applied),
// Timeout and Canceled (outcome unknown: retry with the same client and seq).
func (g *Group) Propose(ctx context.Context, c *command.Command) (*command.Result, error) {
	const op = "metaplane.Propose"
	p := newPending()
	p.ctx = ctx
	if err := g.enqueue(p, c); err != nil {
		return nil, err
	}
	select {
	case out := <-p.done:
		p.free()
		if out.err != nil {
			return nil, out.err
		}
		return out.res, command.Err(op, out.res)
	case <-ctx.Done():
		return nil, orca.PathE(op, "", orca.EndKind(ctx.Err()), ctx.Err())
	case <-g.quit:
		return nil, orca.E(op, orca.Timeout, "the group is closing; the outcome is unknown")
	}
}

// Start proposes one command and returns; w is told its outcome, which is as
// Propose describes it. A command that is not proposed by until (zero: no
// matter when) ends with Timeout. An error of Start itself is Busy, Unavailable
// or TooLarge: nothing was queued and w is not told. c is encoded before Start
// returns.
func (g *Group) Start(c *command.Command, until time.Time, w Waiter) error {
	p := newPending()
	p.waiter, p.until = w, until
	return g.enqueue(p, c)
}

// enqueue encodes a command into p and queues it; an error gives p back.
func (g *Group) enqueue(p *pending, c *command.Command) error {
	var err error
	p.reign = c.Reign
	if p.cmd, err = command.Append(p.cmd[:0], c); err == nil {
		if err = g.queue.put(p, g.host.cfg.Queue); orca.KindOf(err) == orca.Busy {
			g.Stats.Shed.Add(1)
		}
	}
	if err != nil {
		p.free()
	}
	return err
}

// Effects returns the channel of effects of applied commands. It has one
// reader. When it is full effects are dropped: Dropped counts them, and the
// reader finds the work by scanning the machine.
func (g *Group) Effects() <-chan fsm.Effect { return g.effects }

// Dropped returns how many effects were dropped so far.
func (g *Group) Dropped() int64 { return g.dropped.Load() }

// Watch returns the events after cursor (0: none, just the present cursor),
// waiting until there is one or ctx ends (no error then). lost says that
// events between cursor and the first returned were dropped. Cursors stay
// valid across restarts.
func (g *Group) Watch(ctx context.Context, cursor uint64) (events []fsm.Event, next uint64, lost bool) {
	return g.events.watch(ctx, cursor)
}

// publish hands out what an applied entry caused.
func (g *Group) publish(out *fsm.Output) {
	g.events.add(out.Index, out.Events)
	for _, e := range out.Effects {
		select {
		case g.effects <- e:
		default:
			g.dropped.Add(1)
		}
	}
}
