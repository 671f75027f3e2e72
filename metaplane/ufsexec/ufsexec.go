// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ufsexec keeps the promises that the namespace made to the stores
// below it: namespace → UFS. It executes intents and cleans up after sessions
// that nobody completed.
//
// Flow of a synchronous operation: the state machine answers a mutation with
// an undecided intent; metaserver calls Executor.Run, which makes the one
// idempotent UFS call and proposes Decide; its result is the operation's. What
// is known to be refused aborts. What is unknown (a timeout, a lost answer) is
// repeated until it is known; the caller may leave meanwhile.
//
// Flow of a deferred operation: the namespace has changed already; the
// executor drains the intent (copy, cut over, delete file by file; or delete a
// tree) and proposes FinishIntent. Every step may be repeated, so a crash at
// any point is followed by doing it again. Failures are retried for ever, with
// backoff, and shown by Status.
//
// On gaining leadership every intent in the state is taken up again, as one
// whose call may have been made before. On losing it all work stops where it
// is; the next leader does it.
//
// Goroutines: one loop, one per intent in work (at most Config.Concurrent
// drains; one per undecided intent, of which the state machine caps the
// number), Config.Copies copies per drain. Close ends them all. Locks:
// Executor.mu guards the runs; it is not held across a call.
package ufsexec

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// Group is what the executor needs of a Raft group; *raftgroup.Group is one.
type Group interface {
	Propose(ctx context.Context, c *command.Command) (*command.Result, error)
	Machine() *fsm.Machine
	ReadReady(ctx context.Context) error
	Leader() (leading bool, term uint64)
	LeaderChanged() <-chan struct{}
}

// Stores opens the store of a mount; *mount.Stores is one.
type Stores interface {
	FS(ctx context.Context, mountID uint32) (ufs.FS, error)
	// At opens the store of a mount at another URI than its root's.
	At(ctx context.Context, mountID uint32, uri string) (ufs.FS, error)
}

// Syncer imports single names; *ufssync.Syncer is one.
type Syncer interface {
	// Name asks the UFS about one name of a directory and applies the answer.
	Name(ctx context.Context, p ufssync.Place) (found bool, err error)
	// Removing is called before anything is removed from a store whose
	// listings may be late; on an error it is not removed.
	Removing(ctx context.Context, mountID uint32) error
	// Removed notes that the executor removed a key (with all below it).
	Removed(mountID uint32, key string)
}

// Config bounds an Executor. The zero value means the defaults.
type Config struct {
	// Concurrent caps drains at one time. Default 8.
	Concurrent int
	// Copies caps copies at one time of one drain. Default 8.
	Copies int
	// CallTimeout bounds one UFS call, a copy aside. Default 60 s.
	CallTimeout time.Duration
	// CopyTimeout bounds the copy of one object. Default 1 h.
	CopyTimeout time.Duration
	// FirstPause and LongestPause bound the backoff. Defaults 50 ms and 30 s.
	FirstPause, LongestPause time.Duration
	// Tick is how often the state is searched for forgotten work. Default 1 s.
	Tick time.Duration
	// PersistTimeout is how long a worker may hold a name between
	// PersistPrepare and PersistCommit. Default 10 min.
	PersistTimeout time.Duration
	// Settle is how long a store may be late in showing an object that was
	// just made; before, its absence is not believed. Default 30 s.
	Settle time.Duration
	// SessionTTL is the term that a new leader grants to every open session.
	// Default 15 s.
	SessionTTL time.Duration
	// Fence is asked before each change of a store, and its error is what the
	// change comes to; nil: there is only one executor.
	Fence func(ctx context.Context) error
	// Transfer asks the group that a file goes to for its decision about an
	// intent, and what comes back of an exchange; an error that is not a Refused says
	// that it has made none yet. It bounds its calls itself. nil: there are no other
	// groups.
	Transfer func(ctx context.Context, intent uint64) (back *metapb.TransferOp, err error)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

func (c *Config) setDefaults() {
	c.Concurrent = cmp.Or(c.Concurrent, 8)
	c.Copies = cmp.Or(c.Copies, 8)
	c.CallTimeout = cmp.Or(c.CallTimeout, time.Minute)
	c.CopyTimeout = cmp.Or(c.CopyTimeout, time.Hour)
	c.FirstPause = cmp.Or(c.FirstPause, 50*time.Millisecond)
	c.LongestPause = cmp.Or(c.LongestPause, 30*time.Second)
	c.Tick = cmp.Or(c.Tick, time.Second)
	c.PersistTimeout = cmp.Or(c.PersistTimeout, 10*time.Minute)
	c.Settle = cmp.Or(c.Settle, 30*time.Second)
	c.SessionTTL = cmp.Or(c.SessionTTL, 15*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Stats are counters for telemetry.
type Stats struct {
	Committed    atomic.Int64 // undecided intents that took effect
	Aborted      atomic.Int64
	Drained      atomic.Int64
	Retries      atomic.Int64
	FilesMoved   atomic.Int64
	BytesMoved   atomic.Int64
	FilesRemoved atomic.Int64
	Sessions     atomic.Int64 // remains swept
}

// Status is how the work on one intent goes.
type Status struct {
	Attempts int64
	Err      string // of the last attempt
}

// Executor is safe for concurrent use.
type Executor struct {
	cfg    Config
	group  Group
	stores Stores
	sync   Syncer
	log    *slog.Logger
	Stats  Stats

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}
	wake   chan struct{}
	begun  int64 // ns since 1970; what was intended before may have been worked on

	mu       sync.Mutex
	runs     map[uint64]*run // by intent
	sessions map[uint64]bool // being swept
	closed   bool
	reign    *reign // the present one; nil: this node does not lead
}

// reign is one term in which this node leads.
type reign struct {
	term uint64
	ctx  context.Context //nolint:containedctx // ends with the term
	stop context.CancelFunc
	// inherited are the undecided intents of before: their calls may have been
	// made.
	inherited map[uint64]bool
	granted   bool // sessions have their new term; of the loop
}

// run is the work on one intent; several callers may wait for it.
type run struct {
	reign    *reign
	done     chan struct{}
	res      *command.Result
	err      error
	attempts atomic.Int64
	last     atomic.Pointer[error]
	copied   sync.Map // of a move, see move.copied
	slowest  int      // bounds the backoff: doublings of the first pause
}

// New makes an executor; Start begins its work.
func New(cfg Config, g Group, stores Stores, sync Syncer, log *slog.Logger) *Executor {
	cfg.setDefaults()
	if cfg.Fence != nil {
		stores = fenced{stores, cfg.Fence}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Executor{
		cfg: cfg, group: g, stores: stores, sync: sync, log: log,
		ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, cfg.Concurrent), wake: make(chan struct{}, 1),
		runs: map[uint64]*run{}, sessions: map[uint64]bool{}, begun: cfg.Now().UnixNano(),
	}
}

// Start begins to look for work.
func (e *Executor) Start() {
	e.wg.Add(1)
	go e.loop()
}

// Close stops all work where it is and waits for that.
func (e *Executor) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
	return nil
}

// Wake makes the loop look for work now.
func (e *Executor) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Status returns how the work on an intent goes.
func (e *Executor) Status(id uint64) Status {
	e.mu.Lock()
	r := e.runs[id]
	e.mu.Unlock()
	if r == nil {
		return Status{}
	}
	st := Status{Attempts: r.attempts.Load()}
	if p := r.last.Load(); p != nil {
		st.Err = (*p).Error()
	}
	return st
}

// ErrDecided says that an intent was decided before Run looked: its operation
// has a result, which the same (client, seq) gets.
var ErrDecided = orca.E("ufsexec.Run", orca.Busy, "already decided: ask again")

// Run executes an undecided intent and returns the result of its operation.
// When ctx ends first the work goes on, and the error is Canceled for who gave up,
// else that of the last attempt (with its kind, if retryable) or Timeout.
func (e *Executor) Run(ctx context.Context, in *command.Intent) (*command.Result, error) {
	r, err := e.start(in)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.done:
		return r.res, r.err
	case <-ctx.Done():
	}
	end := orca.EndKind(ctx.Err())
	if p := r.last.Load(); p != nil && end == orca.Timeout {
		k := orca.KindOf(*p)
		if !k.Retryable() {
			k = orca.Unavailable
		}
		return nil, &orca.Error{Op: "ufsexec.Run", Path: cmp.Or(in.Target, in.Source), Kind: k, Msg: "the store has not answered yet", Err: *p}
	}
	return nil, &orca.Error{Op: "ufsexec.Run", Path: cmp.Or(in.Target, in.Source), Kind: end, Err: ctx.Err()}
}

// Settle waits until an undecided intent is decided, or ctx ends: a reader
// needs to know which key the content is at.
func (e *Executor) Settle(ctx context.Context, in *command.Intent) {
	if in.Copying {
		return // it is where it was, for as long as that takes
	}
	r, err := e.start(in)
	if err != nil {
		return
	}
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

// start begins the work on an intent, or joins it.
func (e *Executor) start(in *command.Intent) (*run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, orca.E("ufsexec.start", orca.Unavailable, "shutting down")
	}
	if r := e.runs[in.Id]; r != nil {
		return r, nil
	}
	if in.Op == metapb.IntentOp_INTENT_REGROUP { // no store is asked: metaserver ends it
		return nil, orca.E("ufsexec.start", orca.Busy, "a directory is on its way to another group")
	}
	g := e.reignLocked()
	if g == nil {
		return nil, orca.E("ufsexec.start", orca.Unavailable, "this member does not lead any more")
	}
	r := &run{reign: g, done: make(chan struct{}), slowest: 12}
	if in.Op == metapb.IntentOp_INTENT_TRANSFER {
		r.slowest = 4 // a name is kept from its readers meanwhile
	}
	e.runs[in.Id] = r
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		if in.Deferred || in.Op == metapb.IntentOp_INTENT_PERSIST {
			r.err = e.drainAll(r, in)
		} else {
			r.res, r.err = e.decide(r, in)
		}
		e.mu.Lock()
		delete(e.runs, in.Id)
		e.mu.Unlock()
		close(r.done)
	}()
	return r, nil
}

// reignLocked returns the present reign, beginning it if it is new; nil when
// this node does not lead. Everything of earlier terms must have been applied.
func (e *Executor) reignLocked() *reign {
	leads, term := e.group.Leader()
	if g := e.reign; g != nil && (!leads || g.term != term) {
		g.stop()
		e.reign = nil
	}
	if !leads || e.reign != nil {
		return e.reign
	}
	g := &reign{term: term, inherited: map[uint64]bool{}}
	g.ctx, g.stop = context.WithCancel(e.ctx)
	for _, in := range e.group.Machine().Intents() {
		g.inherited[in.Id] = !in.Deferred
	}
	e.reign = g
	return g
}

// reigns is reignLocked for the loop; first says that it is a new one.
func (e *Executor) reigns() (g *reign, first bool) {
	e.mu.Lock()
	old := e.reign
	e.mu.Unlock()
	if leads, term := e.group.Leader(); leads && (old == nil || old.term != term) {
		if err := e.group.ReadReady(e.ctx); err != nil {
			return nil, false
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	g = e.reignLocked()
	return g, g != nil && !g.granted
}

// again notes a failed attempt and pauses; false when the executor stops.
func (e *Executor) again(r *run, err error, attempt int) bool {
	r.last.Store(&err)
	e.Stats.Retries.Add(1)
	pause := e.cfg.FirstPause << min(attempt, r.slowest)
	t := time.NewTimer(min(pause, e.cfg.LongestPause))
	defer t.Stop()
	select {
	case <-r.reign.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// loop looks for work whenever it is woken, and every Tick, while this node
// leads.
func (e *Executor) loop() {
	defer e.wg.Done()
	tick := time.NewTicker(e.cfg.Tick)
	defer tick.Stop()
	for {
		changed := e.group.LeaderChanged()
		if g, first := e.reigns(); g != nil {
			e.round(g, first)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-changed:
		case <-e.wake:
		case <-tick.C:
		}
	}
}

// round takes up what the state says is to be done. On the first round of a
// reign every open session gets a full term; until it has, none expires.
func (e *Executor) round(g *reign, first bool) {
	if first {
		if err := e.grantTerms(g); err != nil {
			e.log.Warn("sessions got no new term", "err", err)
			return
		}
		g.granted = true
	}
	m := e.group.Machine()
	now := e.cfg.Now().UnixNano()
	for _, in := range m.Intents() {
		switch {
		case in.Op == metapb.IntentOp_INTENT_REGROUP:
		case in.Op == metapb.IntentOp_INTENT_PERSIST && !in.Unsure:
			if now-in.Created > int64(e.cfg.PersistTimeout) {
				e.release(g, in)
			}
		case in.Op == metapb.IntentOp_INTENT_PERSIST:
			_, _ = e.start(in)
		case in.Deferred || first || in.Client == 0 || // nobody waits for it
			now-in.Created > int64(2*time.Second):
			_, _ = e.start(in)
		}
	}
	e.expireSessions(g, now)
	if old := m.Expired(now, expireBatch); len(old) > 0 {
		e.expireTrash(g, old)
	}
	if m.Sweepable(now) {
		e.sweepTrash(g)
	}
}

// expireBatch is how much of what was deleted expires in one round.
const expireBatch = 256

// expireTrash removes from the trash what has been there for long enough.
func (e *Executor) expireTrash(g *reign, inos []uint64) {
	ctx, cancel := context.WithTimeout(g.ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(), PurgeTrash: &metapb.PurgeTrashOp{Inos: inos, Expired: true}})
	if err != nil {
		e.log.Debug("the trash was not swept", "err", err) // the next round tries again
	}
}

// release gives up a persist whose worker did not come back in time: what it
// did is found out by looking.
func (e *Executor) release(g *reign, in *command.Intent) {
	ctx, cancel := context.WithTimeout(g.ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(),
		PersistCommit: &metapb.PersistCommitOp{Intent: in.Id, Unsure: true}})
	e.log.Warn("persist was not committed in time", "ino", in.Ino, "intent", in.Id, "err", err)
}

// sweepTrash frees detached inodes, a batch per command.
func (e *Executor) sweepTrash(g *reign) {
	for more := true; more && g.ctx.Err() == nil; {
		ctx, cancel := context.WithTimeout(g.ctx, e.cfg.CallTimeout)
		res, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(),
			SweepTrash: &metapb.SweepTrashOp{Limit: 512}})
		cancel()
		if err != nil {
			return // the next round goes on
		}
		more = res.More
	}
}

// refused reports whether a store's error is final: the call had no effect and
// never will.
func refused(k orca.Kind) bool {
	return slices.Contains([]orca.Kind{orca.Invalid, orca.NotFound, orca.Exists, orca.NotDir, orca.IsDir, orca.NotEmpty,
		orca.Permission, orca.NameTooLong, orca.ReadOnly, orca.CrossMount, orca.NoSpace, orca.Conflict,
		orca.Unsupported, orca.Unauthenticated, orca.TooLarge}, k)
}
