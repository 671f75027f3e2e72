// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"

	"orca/jobs"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
)

// jobsRole is the job machine in the namespace's group.
type jobsRole struct {
	machine *machine.Machine
}

func newJobsRole() *jobsRole { return &jobsRole{machine: machine.New()} }

func (j *jobsRole) hosted() map[string]fsm.Hosted {
	return map[string]fsm.Hosted{jobs.Machine: j.machine}
}

func (j *jobsRole) serve(*metaserver.Config) {}

func (j *jobsRole) start(*raftgroup.Group, *slog.Logger) {}

func (j *jobsRole) close() {}

type jobWorkerRole struct{}

func newJobWorker(ns namespaceOfWorker, w *workerRole, stores mountsOf, log *slog.Logger) *jobWorkerRole {
	return &jobWorkerRole{}
}

func (j *jobWorkerRole) start(uint64) {}
func (j *jobWorkerRole) close()       {}
