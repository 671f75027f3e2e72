// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package jobclient submits jobs and watches them. It is a thin stub of the
// job master over the metaplane's Hosted call; identity and exactly-once are
// those of the session that it is given. No goroutines.
package jobclient

import (
	"context"
	"time"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

// Namespace is what the client asks; metaplane.Namespace is one.
type Namespace interface {
	Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error)
}

// Client talks to the job master. It is safe for concurrent use.
type Client struct {
	ns     Namespace
	caller *metapb.Caller
	group  uint32
}

// New makes a client that speaks for caller; nil: for whom ns speaks.
func New(ns Namespace, caller *metapb.Caller) *Client { return &Client{ns: ns, caller: caller} }

// In returns the client of a group's job master.
func (c *Client) In(group uint16) *Client {
	return &Client{ns: c.ns, caller: c.caller, group: uint32(group)}
}

// message is what vtprotobuf generates.
type message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

func (c *Client) call(ctx context.Context, method string, q, rep message) error {
	b, err := q.MarshalVT()
	if err != nil {
		return orca.PathE("jobclient."+method, "", orca.Invalid, err)
	}
	out, err := c.ns.Hosted(ctx, &metapb.HostedRequest{H: &metapb.Header{Caller: c.caller, Group: c.group}, Machine: jobs.Machine, Method: method, Body: b, Read: jobs.Reads(method)})
	if err != nil {
		return err
	}
	if err := rep.UnmarshalVT(out.Body); err != nil {
		return orca.PathE("jobclient."+method, "", orca.Corrupt, err)
	}
	return nil
}

// Submit asks for a LOAD or a PERSIST and returns the job's id. Invalid; Busy
// when too many jobs are unfinished.
func (c *Client) Submit(ctx context.Context, s *jobpb.Spec) (uint64, error) {
	rep := &jobpb.SubmitReply{}
	err := c.call(ctx, jobs.MethodSubmit, &jobpb.SubmitRequest{Spec: s}, rep)
	return rep.Job, err
}

// Stat returns a job; with a wait, when it ends or after that time. NotFound;
// finished jobs are forgotten after a while.
func (c *Client) Stat(ctx context.Context, id uint64, wait time.Duration) (*jobpb.Job, error) {
	j := &jobpb.Job{}
	if err := c.call(ctx, jobs.MethodStat, &jobpb.StatRequest{Job: id, WaitMs: wait.Milliseconds()}, j); err != nil {
		return nil, err
	}
	return j, nil
}

// List returns jobs by id, what is owed to stores last; more says that there
// are others behind the last one.
func (c *Client) List(ctx context.Context, q *jobpb.ListRequest) (js []*jobpb.Job, more bool, err error) {
	rep := &jobpb.ListReply{}
	err = c.call(ctx, jobs.MethodList, q, rep)
	return rep.Jobs, rep.More, err
}

// Cancel ends a job; one that is finished already is left alone. NotFound,
// Permission; Unsupported for what was promised (persists of ASYNC_THROUGH
// files, what is owed to a store).
func (c *Client) Cancel(ctx context.Context, id uint64) error {
	return c.call(ctx, jobs.MethodCancel, &jobpb.CancelRequest{Job: id}, &jobpb.Empty{})
}

// Wait waits for the end of a job and returns it; progress, if not nil, is
// called with each state seen, about every interval (0: 500 ms).
func (c *Client) Wait(ctx context.Context, id uint64, interval time.Duration, progress func(*jobpb.Job)) (*jobpb.Job, error) {
	if interval <= 0 {
		interval = 500 * time.Millisecond
	}
	for {
		j, err := c.Stat(ctx, id, interval)
		if err != nil {
			return nil, err
		}
		if progress != nil {
			progress(j)
		}
		if jobs.Finished(j.State) {
			return j, nil
		}
	}
}
