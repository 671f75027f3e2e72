// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package jobworker runs the work of jobs on one worker: it polls the job
// master for as much as it has slots, runs it with package task, renews the
// leases, and reports.
//
// Goroutines: one that polls, one that renews, one that reports, and one per
// piece of work (at most Config.Slots). Close cancels the work and ends them
// all; what was canceled is reported as such, if the master can be reached,
// so that another worker begins at once. Locks: Worker.mu guards the running
// work and is a leaf.
package jobworker

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
	"orca/jobs/task"
	"orca/metaplane/metapb"
)

// Namespace is what the worker asks of the metaplane; metaplane.Namespace is
// one.
type Namespace interface {
	task.Namespace
	Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error)
}

// Config bounds a Worker. Zero fields have the stated defaults.
type Config struct {
	// ID returns the worker's id, 0 before it is registered. Required.
	ID func() uint64
	// Slots is how much work runs at one time. Default 8.
	Slots int
	// Bandwidth of all work, in bytes per second; 0: no bound.
	Bandwidth int64
	// Wait is how long a poll waits for work. Default 10 s.
	Wait time.Duration
	// Pause is how long to wait after a failed call. Default 500 ms.
	Pause time.Duration
	// Goodbye bounds the last report of Close. Default 2 s.
	Goodbye time.Duration
	// Settle is called before results are reported: it makes what the work
	// cached outlive a kill of this process, and known to the metaplane, so
	// that who hears that a load is done finds it done. It obeys its context.
	// Nil: nothing to do.
	Settle func(ctx context.Context)
}

// patience is how long a task waits for workers that a metaplane which has just
// started does not know yet: they find it within a second or two.
const patience = 10 * time.Second

func (c *Config) setDefaults() {
	c.Slots = cmp.Or(c.Slots, 8)
	c.Wait = cmp.Or(c.Wait, 10*time.Second)
	c.Pause = cmp.Or(c.Pause, 500*time.Millisecond)
	c.Goodbye = cmp.Or(c.Goodbye, 2*time.Second)
}

// Validate reports what cannot be.
func (c *Config) Validate() error {
	if c.ID == nil || c.Slots < 0 || c.Bandwidth < 0 || c.Wait < 0 || c.Pause < 0 {
		return orca.E("jobworker.Config", orca.Invalid, "no id, or a limit is negative")
	}
	return nil
}

// Stats count what the worker did, for telemetry.
type Stats struct {
	Loads, Persists, Failures, Dropped, Bytes atomic.Int64
	Replications, Evictions                   atomic.Int64 // tasks
	Running                                   atomic.Int64
}

// run is one piece of work in progress.
type run struct {
	what   *jobpb.Running
	bytes  atomic.Int64
	cancel context.CancelFunc
	// dropped: the master does not want its result.
	dropped atomic.Bool
}

// Worker runs work.
type Worker struct {
	// Stats may be read at any time.
	Stats Stats

	cfg    Config
	ns     Namespace
	blocks task.Blocks
	stores task.Stores
	all    *task.Throttle
	log    *slog.Logger

	ctx     context.Context //nolint:containedctx // ends with Close
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	works   sync.WaitGroup
	slots   chan struct{}
	results chan *jobpb.Result
	lease   atomic.Int64 // ns

	mu    sync.Mutex
	runs  map[*run]struct{}         // GUARDED_BY(mu)
	rates map[uint64]*task.Throttle // by job, while it has runs; GUARDED_BY(mu)
}

// New makes a worker; Start begins.
func New(cfg Config, ns Namespace, blocks task.Blocks, stores task.Stores, log *slog.Logger) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	w := &Worker{
		cfg: cfg, ns: ns, blocks: blocks, stores: stores, log: log, all: task.NewThrottle(cfg.Bandwidth),
		slots: make(chan struct{}, cfg.Slots), results: make(chan *jobpb.Result, cfg.Slots),
		runs: map[*run]struct{}{}, rates: map[uint64]*task.Throttle{},
	}
	w.lease.Store(int64(20 * time.Second))
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w, nil
}

// Start begins to poll.
func (w *Worker) Start() {
	w.loops.Go(w.pollLoop)
	w.loops.Go(w.renewLoop)
	w.loops.Go(w.reportLoop)
}

// Close cancels what runs, and ends.
func (w *Worker) Close() {
	w.cancel()
	w.loops.Wait()
}

// call makes one request to the job master.
func (w *Worker) call(ctx context.Context, method string, q, rep interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}) error {
	b, err := q.MarshalVT()
	if err != nil {
		return orca.PathE("jobworker."+method, "", orca.Internal, err)
	}
	out, err := w.ns.Hosted(ctx, &metapb.HostedRequest{H: &metapb.Header{}, Machine: jobs.Machine, Method: method, Body: b, Read: jobs.Reads(method)})
	if err != nil {
		return err
	}
	if err := rep.UnmarshalVT(out.Body); err != nil {
		return orca.PathE("jobworker."+method, "", orca.Corrupt, err)
	}
	return nil
}

func (w *Worker) pause(d time.Duration) {
	select {
	case <-w.ctx.Done():
	case <-time.After(d):
	}
}

// pollLoop asks for as much work as there are free slots.
func (w *Worker) pollLoop() {
	defer func() {
		w.works.Wait()
		close(w.results)
	}()
	for w.ctx.Err() == nil {
		id := w.cfg.ID()
		if id == 0 {
			w.pause(w.cfg.Pause / 5)
			continue
		}
		select { // wait for a slot; it is given back when there is no work
		case w.slots <- struct{}{}:
		case <-w.ctx.Done():
			return
		}
		free := 1
		for free < w.cfg.Slots {
			select {
			case w.slots <- struct{}{}:
				free++
				continue
			default:
			}
			break
		}
		rep := &jobpb.PollReply{}
		err := w.call(w.ctx, jobs.MethodPoll, &jobpb.PollRequest{
			Worker: id, Slots: uint32(free), WaitMs: w.cfg.Wait.Milliseconds(), Running: w.running(),
		}, rep)
		if err == nil {
			w.obey(rep)
			for _, work := range rep.Work {
				if free == 0 {
					break // more than was asked for: its lease runs out
				}
				free--
				w.begin(work)
			}
		}
		for range free {
			<-w.slots
		}
		if err != nil && w.ctx.Err() == nil {
			w.log.Debug("the job master does not answer", "err", err)
			w.pause(w.cfg.Pause)
		}
	}
}

// running names what runs.
func (w *Worker) running() []*jobpb.Running {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*jobpb.Running, 0, len(w.runs))
	for r := range w.runs {
		k := r.what
		out = append(out, &jobpb.Running{Job: k.Job, Task: k.Task, File: k.File, Version: k.Version, Bytes: r.bytes.Load()})
	}
	return out
}

// obey drops what the master does not want any more.
func (w *Worker) obey(rep *jobpb.PollReply) {
	if rep.LeaseMs > 0 {
		w.lease.Store(rep.LeaseMs * int64(time.Millisecond))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range rep.Drop {
		for r := range w.runs {
			k := r.what
			if k.Job == d.Job && k.Task == d.Task && k.File == d.File && k.Version == d.Version && !r.dropped.Swap(true) {
				w.Stats.Dropped.Add(1)
				r.cancel()
			}
		}
	}
}

// renewLoop renews the leases of what runs.
func (w *Worker) renewLoop() {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(time.Duration(w.lease.Load()) / 4):
		}
		run := w.running()
		if len(run) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(w.ctx, time.Duration(w.lease.Load())/2)
		rep := &jobpb.PollReply{}
		err := w.call(ctx, jobs.MethodPoll, &jobpb.PollRequest{Worker: w.cfg.ID(), Running: run}, rep)
		cancel()
		if err == nil {
			w.obey(rep)
		}
	}
}

// begin runs one piece of work; it owns a slot.
func (w *Worker) begin(work *jobpb.Work) {
	ctx, cancel := context.WithCancel(w.ctx)
	r := &run{cancel: cancel, what: &jobpb.Running{}}
	env := &task.Env{
		NS: w.ns, Blocks: w.blocks, Stores: w.stores, Self: w.cfg.ID(), Throttles: []*task.Throttle{w.all}, Patience: patience,
		Progress: func(n int64) {
			r.bytes.Add(n)
			w.Stats.Bytes.Add(n)
		},
	}
	switch {
	case work.Task != nil:
		r.what.Job, r.what.Task = work.Task.Job, work.Task.Id
	case work.Persist != nil:
		r.what.File, r.what.Version = work.Persist.File, work.Persist.Version
	}
	w.mu.Lock()
	w.runs[r] = struct{}{}
	if work.Bandwidth > 0 && work.Task != nil {
		t := w.rates[work.Task.Job]
		if t == nil {
			t = task.NewThrottle(work.Bandwidth)
			w.rates[work.Task.Job] = t
		}
		env.Throttles = append(env.Throttles, t)
	}
	w.mu.Unlock()
	w.Stats.Running.Add(1)
	w.works.Go(func() {
		defer func() { <-w.slots }()
		defer cancel()
		res := w.do(ctx, env, work)
		w.end(r)
		if !r.dropped.Load() {
			w.results <- res
		}
	})
}

// end forgets a run, and the rate of its job with the last one.
func (w *Worker) end(r *run) {
	w.Stats.Running.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.runs, r)
	for o := range w.runs {
		if o.what.Job == r.what.Job {
			return
		}
	}
	delete(w.rates, r.what.Job)
}

// do runs one piece of work to its result.
func (w *Worker) do(ctx context.Context, env *task.Env, work *jobpb.Work) *jobpb.Result {
	var d *jobpb.Done
	var err error
	if t := work.Task; t != nil {
		switch work.Kind {
		case jobpb.Kind_REPLICATE:
			d, err = task.Replicate(ctx, env, t)
			w.Stats.Replications.Add(1)
		case jobpb.Kind_EVICT:
			d, err = task.Evict(ctx, env, t)
			w.Stats.Evictions.Add(1)
		default:
			d, err = task.Load(ctx, env, t, work.Replicas)
			w.Stats.Loads.Add(1)
		}
		if err != nil {
			d = &jobpb.Done{Job: t.Job, Task: t.Id}
		}
	} else {
		p := work.Persist
		d, err = task.Persist(ctx, env, p, work.UfsKey)
		if err != nil {
			d = &jobpb.Done{File: p.File, Version: p.Version}
			if ctx.Err() == nil {
				w.log.Warn("a file could not be persisted yet", "ino", p.File, "path", p.Path, "err", err)
			}
		}
		w.Stats.Persists.Add(1)
	}
	res := &jobpb.Result{Done: d}
	if err != nil {
		w.Stats.Failures.Add(1)
		res.Error, res.Kind = err.Error(), uint32(orca.KindOf(err))
		if ctx.Err() != nil {
			res.Kind = uint32(orca.Canceled)
		}
	}
	return res
}

// reportLoop sends results; those that come while it sends go together.
func (w *Worker) reportLoop() {
	for first := range w.results {
		q := &jobpb.ReportRequest{Worker: w.cfg.ID(), Results: []*jobpb.Result{first}}
		for more := true; more; {
			select {
			case r, ok := <-w.results:
				if more = ok; ok {
					q.Results = append(q.Results, r)
				}
			default:
				more = false
			}
		}
		if w.cfg.Settle != nil {
			w.cfg.Settle(w.ctx)
		}
		w.report(q)
	}
}

// report repeats a report until it is heard: results are idempotent. When the
// worker stops it tries once more.
func (w *Worker) report(q *jobpb.ReportRequest) {
	for {
		ctx, cancel := w.ctx, context.CancelFunc(func() {})
		last := w.ctx.Err() != nil
		if last {
			ctx, cancel = context.WithTimeout(context.WithoutCancel(w.ctx), w.cfg.Goodbye)
		}
		err := w.call(ctx, jobs.MethodReport, q, &jobpb.Empty{})
		cancel()
		if err == nil || last {
			return
		}
		if k := orca.KindOf(err); !k.Retryable() && k != orca.Canceled && k != orca.SessionExpired {
			w.log.Warn("results of jobs were refused; the work will be done again", "err", err)
			return
		}
		w.pause(w.cfg.Pause)
	}
}
