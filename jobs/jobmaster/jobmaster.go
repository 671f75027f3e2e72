// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package jobmaster schedules jobs beside the leader of the metaplane: it
// plans what was submitted, leases work to the workers that poll for it, and
// retries what failed.
//
// Flow: machine (hosted by the metaplane) says what work is fresh → queue →
// lease to a polling worker → its report → a command to the machine. A load is
// planned by a walk of the namespace that stays a bounded number of tasks
// ahead of the workers; its cursor is in the machine, so that it is resumed
// anywhere. A promise to persist goes to a worker that holds the file, and is
// retried for ever with backoff.
//
// Everything here is soft state: after a restart or a failover open work is
// read from the machine, and workers that still run something get their lease
// anew when they renew it.
//
// The copies of files with bounds are compared with those bounds in rounds; what
// is missing or too many becomes jobs like any other, a window of files at a
// time, those first that are nowhere else (repair.go, ADR 0014).
//
// Goroutines: one loop, one checker of copies, and one planner per job being planned (at most
// Config.Planners). Close ends them. Locks: Master.mu guards the queue and is
// never held across a call out of the package.
//
// It refuses requests when its group does not lead (Unavailable).
package jobmaster

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/jobs/plan"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
)

// Group is what the master needs of the Raft group; *raftgroup.Group is one.
type Group interface {
	Propose(ctx context.Context, c *command.Command) (*command.Result, error)
	Machine() *fsm.Machine
	Leader() (leading bool, term uint64)
	LeaderChanged() <-chan struct{}
}

// Namespace is what planners ask of the metaplane.
type Namespace interface {
	Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error)
	List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error)
	Locations(ctx context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error)
	Report(ctx context.Context, r *metapb.ReportRequest) (*metapb.ReportReply, error)
}

// Service is what the master asks of the metaplane; *metaserver.Service is one.
type Service interface {
	Namespace
	Replicated(after orca.Ino, limit int) (files []metaserver.Replicated, next orca.Ino, err error)
	LiveWorkers() []*metapb.Worker
	KeepCopy(worker uint64, file orca.Ino, on bool)
	Held(ctx context.Context, file orca.Ino, version uint32, worker uint64) error
}

// Config bounds a Master. Zero fields have the stated defaults.
type Config struct {
	// Lease is how long a worker may be silent. Default 20 s.
	Lease time.Duration
	// Retention is how long a finished job is remembered, Keep how many are.
	// Defaults 24 h and 10,000.
	Retention time.Duration
	Keep      int64
	// MaxActive caps submitted jobs that are not finished. Default 10,000.
	MaxActive int64
	// Window caps the open tasks of one job. Default 64.
	Window uint32
	// Planners caps jobs being planned at one time. Default 4.
	Planners int
	// FirstPause and LongestPause bound the backoff of a promise. Defaults
	// 1 s and 60 s.
	FirstPause, LongestPause time.Duration
	// Rehome is after what time without a holder that polls other workers
	// that have the data are looked for. Default 10 s.
	Rehome time.Duration
	// Tick is how often leases and pauses are looked at. Default 200 ms.
	Tick time.Duration
	// Task bounds one task.
	Task plan.Limits
	// RepairAfter is for how long copies of a file may be too few or too many
	// before that is put right. Default DefaultRepairAfter.
	RepairAfter time.Duration
	// Settle is how long who begins to lead waits for the reports of workers:
	// before, no copy counts as missing or too many, and no worker as gone.
	// Default 10 s, as long as one that falls silent counts as live.
	Settle time.Duration
	// RepairRate bounds the bytes per second that one worker copies for that.
	// Default DefaultRepairRate.
	RepairRate int64
	// RepairWindow caps the files whose copies are being put right at one time.
	// Default 1024.
	RepairWindow int
}

// Defaults of Config.
const (
	DefaultRepairAfter = 30 * time.Second
	DefaultRepairRate  = 128 << 20
)

func (c *Config) setDefaults() {
	c.Lease = cmp.Or(c.Lease, 20*time.Second)
	c.Retention = cmp.Or(c.Retention, 24*time.Hour)
	c.Keep = cmp.Or(c.Keep, 10_000)
	c.MaxActive = cmp.Or(c.MaxActive, 10_000)
	c.Window = cmp.Or(c.Window, 64)
	c.Planners = cmp.Or(c.Planners, 4)
	c.FirstPause = cmp.Or(c.FirstPause, time.Second)
	c.LongestPause = cmp.Or(c.LongestPause, time.Minute)
	c.Rehome = cmp.Or(c.Rehome, 10*time.Second)
	c.Tick = cmp.Or(c.Tick, 200*time.Millisecond)
	c.RepairAfter = cmp.Or(c.RepairAfter, DefaultRepairAfter)
	c.Settle = cmp.Or(c.Settle, 10*time.Second)
	c.RepairRate = cmp.Or(c.RepairRate, DefaultRepairRate)
	c.RepairWindow = cmp.Or(c.RepairWindow, 1024)
}

// Validate reports what cannot be.
func (c *Config) Validate() error {
	if c.Lease < 0 || c.Retention < 0 || c.Keep < 0 || c.MaxActive < 0 || c.Planners < 0 || c.FirstPause < 0 ||
		c.LongestPause < 0 || c.Rehome < 0 || c.Tick < 0 || c.RepairAfter < 0 || c.Settle < 0 || c.RepairRate < 0 || c.RepairWindow < 0 {
		return orca.E("jobmaster.Config", orca.Invalid, "a limit is negative")
	}
	return nil
}

// Stats count what the master did, for telemetry.
type Stats struct {
	Submitted, Leased, Completed, Retries, Expired, Forgotten atomic.Int64
	// Open and Running are gauges: work that waits or runs, and that runs.
	Open, Running atomic.Int64
	// UnderReplicated and OverReplicated are gauges of files, as the last round
	// has found them; CopiesMade and CopiesDropped count.
	UnderReplicated, OverReplicated atomic.Int64
	CopiesMade, CopiesDropped       atomic.Int64
	Rounds                          atomic.Int64
}

// Master schedules jobs.
type Master struct {
	// Stats may be read at any time.
	Stats Stats

	cfg   Config
	mach  *machine.Machine
	log   *slog.Logger
	group Group
	ns    Service

	ctx    context.Context //nolint:containedctx // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{}
	copies chan struct{} // wakes the checker of copies
	plans  chan struct{} // slots of planners

	mu      sync.Mutex
	term    uint64                        // in which this node leads; 0: it does not; GUARDED_BY(mu)
	q       *queue                        // GUARDED_BY(mu)
	planned map[uint64]context.CancelFunc // running planners; GUARDED_BY(mu)
	changed chan struct{}                 // closed at the next change; GUARDED_BY(mu)
	retries map[uint64]*retry             // of copies that could not be made, by file; GUARDED_BY(mu)
	swept   time.Time                     // last look for finished jobs to forget; of the loop
}

// New makes a master over a machine; it serves nothing before Start.
func New(cfg Config, m *machine.Machine, log *slog.Logger) (*Master, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	ma := &Master{
		cfg: cfg, mach: m, log: log, wake: make(chan struct{}, 1), copies: make(chan struct{}, 1), plans: make(chan struct{}, cfg.Planners),
		planned: map[uint64]context.CancelFunc{}, retries: map[uint64]*retry{}, changed: make(chan struct{}), q: newQueue(),
	}
	ma.ctx, ma.cancel = context.WithCancel(context.Background())
	return ma, nil
}

// Start begins to schedule over an open group.
func (m *Master) Start(g Group, ns Service) {
	m.mu.Lock()
	m.group, m.ns = g, ns
	m.mu.Unlock()
	m.wg.Go(m.loop)
	m.wg.Go(m.checkLoop)
}

// Close ends what Start began. What is open stays in the machine.
func (m *Master) Close() {
	m.cancel()
	m.wg.Wait()
}

// OnHosted is metaserver.Config.OnHosted: the machine has applied something.
func (m *Master) OnHosted(name string) {
	if name != jobs.Machine {
		return
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// loop follows leadership, takes in fresh work and watches the clocks.
func (m *Master) loop() {
	tick := time.NewTicker(m.cfg.Tick)
	defer tick.Stop()
	for {
		leader := m.group.LeaderChanged()
		leading, term := m.group.Leader()
		if !leading {
			term = 0
		}
		m.lead(term)
		if leading {
			m.takeIn(m.mach.Fresh())
			m.clocks()
		}
		m.announce()
		select {
		case <-m.ctx.Done():
			m.lead(0)
			return
		case <-leader:
		case <-m.wake:
		case <-tick.C:
		}
	}
}

// lead begins or, with 0, ends a term: another one may have led since the last.
func (m *Master) lead(term uint64) {
	m.mu.Lock()
	if m.term == term {
		m.mu.Unlock()
		return
	}
	m.term, m.q = term, newQueue()
	for _, stop := range m.planned {
		stop()
	}
	clear(m.planned)
	m.mu.Unlock()
	if term == 0 {
		return
	}
	m.mach.Fresh() // all of it is read below
	var open []machine.Key
	m.read(func(s fsm.Store) { open = machine.Open(s) })
	m.takeIn(open)
}

// read reads the machine's records.
func (m *Master) read(fn func(fsm.Store)) { m.group.Machine().ReadHosted(jobs.Machine, fn) }

// announce wakes everybody who waits for a change.
func (m *Master) announce() {
	m.mu.Lock()
	close(m.changed)
	m.changed = make(chan struct{})
	m.Stats.Open.Store(int64(len(m.q.works)))
	m.Stats.Running.Store(int64(len(m.q.leased)))
	m.mu.Unlock()
}

// takeIn queues work and starts planners.
func (m *Master) takeIn(keys []machine.Key) {
	if len(keys) == 0 {
		return
	}
	var works []*work
	var plans []uint64
	m.read(func(s fsm.Store) {
		for _, k := range keys {
			switch {
			case k.File != 0:
				if p := machine.Persist(s, k.File); p != nil {
					works = append(works, &work{key: k, version: p.Version, holders: p.Workers, attempts: p.Attempts, err: p.Error, job: p.Job})
				}
			case k.Task != 0:
				w := &work{key: k, job: k.Job}
				if t := machine.Task(s, k.Job, k.Task); t != nil && t.Worker != 0 {
					w.holders = []uint64{t.Worker}
					for _, i := range t.Items {
						w.files = append(w.files, i.File)
					}
				}
				works = append(works, w)
			default:
				plans = append(plans, k.Job)
			}
		}
	})
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.term == 0 {
		return
	}
	for _, w := range works {
		m.q.add(w, now)
	}
	for _, job := range plans {
		m.planLocked(job)
	}
}

// clocks ends leases and pauses, looks for other holders, and forgets old jobs.
func (m *Master) clocks() {
	now := time.Now()
	m.mu.Lock()
	expired := m.q.expire(now)
	m.q.release(now)
	lonely := m.q.lonely(now, m.cfg.Rehome)
	m.mu.Unlock()
	m.Stats.Expired.Add(int64(expired))
	for _, w := range lonely {
		m.rehome(w)
	}
	if now.Sub(m.swept) > time.Minute {
		m.swept = now
		m.forget(now)
	}
}

// rehome lets other workers have a promise that nobody came for.
func (m *Master) rehome(w *work) {
	ctx, cancel := context.WithTimeout(m.ctx, 5*time.Second)
	defer cancel()
	rep, err := m.ns.Locations(ctx, &metapb.LocationsRequest{H: &metapb.Header{}, Target: &metapb.Target{Ino: w.key.File}})
	if err != nil {
		return
	}
	var also []uint64
	for _, l := range rep.Locations {
		also = append(also, l.Worker)
	}
	m.mu.Lock()
	m.q.alsoFor(w, also)
	m.mu.Unlock()
}

// forget expires finished jobs, a lot at a time.
func (m *Master) forget(now time.Time) {
	const lot = 1000
	before := now.Add(-m.cfg.Retention).UnixNano()
	for {
		due := false
		m.read(func(s fsm.Store) { due = machine.Due(s, before, m.cfg.Keep) })
		if !due {
			return
		}
		rep, err := m.apply(m.ctx, nil, &jobpb.Command{Expire: &jobpb.Expire{Before: before, Keep: m.cfg.Keep, Limit: lot}})
		if err != nil {
			m.log.Debug("old jobs stay for now", "err", err)
			return
		}
		m.Stats.Forgotten.Add(rep.Expired)
		if rep.Expired < lot {
			return
		}
	}
}

// proposer commits a command of the machine; that of a request is exactly once.
type proposer func(ctx context.Context, cmd []byte) ([]byte, error)

// apply commits a command and returns its reply, or its refusal.
func (m *Master) apply(ctx context.Context, propose proposer, c *jobpb.Command) (*jobpb.Reply, error) {
	const op = "jobmaster.apply"
	b, err := c.MarshalVT()
	if err != nil {
		return nil, orca.PathE(op, "", orca.Invalid, err)
	}
	var out []byte
	if propose != nil {
		out, err = propose(ctx, b)
	} else {
		var res *command.Result
		res, err = m.group.Propose(ctx, &command.Command{
			Now: time.Now().UnixNano(), Hosted: &metapb.HostedOp{Machine: jobs.Machine, Body: b}})
		if err == nil {
			out = res.Value
		}
	}
	if err != nil {
		return nil, err
	}
	rep := &jobpb.Reply{}
	if err := rep.UnmarshalVT(out); err != nil {
		return nil, orca.PathE(op, "", orca.Corrupt, err)
	}
	if rep.Kind != 0 {
		return nil, orca.E("jobs", orca.Kind(rep.Kind), rep.Error)
	}
	return rep, nil
}
