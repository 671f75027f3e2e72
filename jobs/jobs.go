// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package jobs is the contract of work that outlives its request: persist and
// load, and the view of what the metaplane still owes to a store. Its rooms,
// in reading order: jobpb (messages), machine (the pure state machine, hosted
// by the metaplane in its own journal and batch), plan (a listing cut into
// bounded tasks; pure), task (what a worker does for one of them), jobmaster
// (beside the leader: plans, leases, retries), jobworker (polls and runs) and
// jobclient (submit, list, stat, cancel, wait).
//
// The truth is the machine's: jobs, tasks that are open, and promises to
// persist. Leases, progress and backoff are soft state of the job master;
// when it is lost, open work is simply handed out again, because every task
// may be done twice without harm, and is counted once.
package jobs

import (
	"orca"
	"orca/jobs/jobpb"
)

// Machine is the name that the metaplane hosts the state machine under.
const Machine = "jobs"

// The methods of the job master, in HostedRequest.method.
const (
	MethodSubmit = "submit" // SubmitRequest → SubmitReply
	MethodStat   = "stat"   // StatRequest → Job
	MethodList   = "list"   // ListRequest → ListReply
	MethodCancel = "cancel" // CancelRequest → Empty
	MethodPoll   = "poll"   // PollRequest → PollReply, of workers
	MethodReport = "report" // ReportRequest → Empty, of workers
)

// Reads reports whether a method changes nothing, or may be done twice, so that
// it needs no number (HostedRequest.read).
func Reads(method string) bool { return method != MethodSubmit && method != MethodCancel }

// GroupSpan is how many jobs a group can number: those of group G, from 2 on,
// begin at G times it, those of the first at 0.
const GroupSpan = 1_000_000_000_000

// GroupOf returns the group that a job belongs to.
func GroupOf(id uint64) uint16 {
	if id&IntentBit != 0 {
		return orca.Ino(id &^ IntentBit).Home()
	}
	return max(uint16(min(id/GroupSpan, 1<<16-1)), 1)
}

// IntentBit marks the ids of jobs that are intents of the metaplane.
const IntentBit = 1 << 62

// Finished reports whether a job has come to its end.
func Finished(s jobpb.State) bool {
	return s == jobpb.State_COMPLETED || s == jobpb.State_FAILED || s == jobpb.State_CANCELED
}
