// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"orca/engine/telemetry"
	"orca/jobs"
	"orca/jobs/jobmaster"
	"orca/jobs/jobworker"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
	"orca/metaplane/metaserver"
)

// jobsRole is the job machine in the namespace's group, and the master beside
// it that schedules.
type jobsRole struct {
	machine *machine.Machine
	master  *jobmaster.Master
	started bool
}

func newJobsRole(cfg *Config, group uint16, log *slog.Logger) (*jobsRole, error) {
	j := &jobsRole{machine: machine.In(group)}
	var err error
	j.master, err = jobmaster.New(jobmaster.Config{RepairAfter: cfg.RepairAfter, RepairRate: cfg.RepairRate}, j.machine, log)
	return j, err
}

// hosted is what shares the group's journal.
func (j *jobsRole) hosted() map[string]fsm.Hosted {
	return map[string]fsm.Hosted{jobs.Machine: j.machine}
}

// attach lets the namespace service pass requests for jobs on.
func (j *jobsRole) attach(cfg *metaserver.Config) {
	cfg.Hosted = map[string]metaserver.HostedHandler{jobs.Machine: j.master}
	cfg.OnHosted = j.master.OnHosted
	cfg.OnCopies = j.master.OnCopies
}

func (j *jobsRole) start(s *metaserver.Service) {
	j.master.Start(s.Reigned(), s)
	j.started = true
}

func (j *jobsRole) close() {
	if j.started {
		j.master.Close()
	}
}

func (j *jobsRole) sources() telemetry.Source {
	return telemetry.Counters("orca_jobs", "Jobs and their tasks.", &j.master.Stats, "Open", "Running", "UnderReplicated", "OverReplicated")
}

// settleWithin bounds how long finished work waits to be written down and
// told; both are repeated in the background when they fail.
const settleWithin = 5 * time.Second

// settle makes what work has cached survive a kill, and known.
func (w *workerRole) settle(ctx context.Context) {
	_ = w.store.Flush() // a failure is logged by the store, and tried again
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	w.agent.tell(ctx)
}

// startJobs begins to poll a group for work.
func (w *workerRole) startJobs(ns jobworker.Namespace, stores mountsOf) (*jobworker.Worker, error) {
	j, err := jobworker.New(jobworker.Config{ID: w.agent.id, Settle: w.settle}, ns, w.blocks, stores, w.log)
	if err == nil {
		j.Start()
	}
	return j, err
}

// groupJobs is the work of the groups beside the first.
type groupJobs struct {
	mu     sync.Mutex
	of     []*jobworker.Worker // GUARDED_BY(mu)
	closed bool                // GUARDED_BY(mu)
}

// add begins to poll a group, if the worker still runs.
func (g *groupJobs) add(start func() (*jobworker.Worker, error)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	j, err := start()
	if err == nil {
		g.of = append(g.of, j)
	}
	return err
}

func (g *groupJobs) close() {
	g.mu.Lock()
	of := g.of
	g.closed = true
	g.mu.Unlock()
	for _, j := range of {
		j.Close()
	}
}
