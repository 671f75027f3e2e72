// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
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

func newJobsRole(log *slog.Logger) (*jobsRole, error) {
	j := &jobsRole{machine: machine.New()}
	var err error
	j.master, err = jobmaster.New(jobmaster.Config{}, j.machine, log)
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
	return telemetry.Counters("orca_jobs", "Jobs and their tasks.", &j.master.Stats, "Open", "Running")
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

// startJobs begins to poll for work.
func (w *workerRole) startJobs(ns jobworker.Namespace, stores mountsOf) error {
	var err error
	w.jobs, err = jobworker.New(jobworker.Config{ID: w.agent.id, Settle: w.settle}, ns, w.blocks, stores, w.log)
	if err != nil {
		return err
	}
	w.jobs.Start()
	return nil
}
