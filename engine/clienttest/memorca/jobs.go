// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memorca

import (
	"context"
	"strings"
	"time"

	"orca"
	"orca/dataplane"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

// Hosted implements metaplane.Admin: the job master. A job whose path ends in
// "/slow" never ends by itself.
func (o *Orca) Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error) {
	if r.Machine != jobs.Machine {
		return nil, orca.PathE("memorca.Hosted", r.Machine, orca.Unsupported, nil)
	}
	b, err := o.job(ctx, r)
	if err != nil {
		return nil, err
	}
	return &metapb.HostedReply{Body: b}, nil
}

func (o *Orca) job(ctx context.Context, r *metapb.HostedRequest) ([]byte, error) {
	switch r.Method {
	case jobs.MethodSubmit:
		var q jobpb.SubmitRequest
		if err := q.UnmarshalVT(r.Body); err != nil {
			return nil, orca.PathE("memorca.job", r.Method, orca.Invalid, err)
		}
		id, err := o.submit(ctx, q.Spec)
		if err != nil {
			return nil, err
		}
		return (&jobpb.SubmitReply{Job: id}).MarshalVT()
	case jobs.MethodList:
		var q jobpb.ListRequest
		if err := q.UnmarshalVT(r.Body); err != nil {
			return nil, orca.PathE("memorca.job", r.Method, orca.Invalid, err)
		}
		return o.listJobs(&q).MarshalVT()
	case jobs.MethodStat:
		var q jobpb.StatRequest
		if err := q.UnmarshalVT(r.Body); err != nil {
			return nil, orca.PathE("memorca.job", r.Method, orca.Invalid, err)
		}
		j, err := o.jobByID(q.Job)
		if err != nil {
			return nil, err
		}
		return j.MarshalVT()
	case jobs.MethodCancel:
		var q jobpb.CancelRequest
		if err := q.UnmarshalVT(r.Body); err != nil {
			return nil, orca.PathE("memorca.job", r.Method, orca.Invalid, err)
		}
		j, err := o.jobByID(q.Job)
		if err != nil {
			return nil, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if !jobs.Finished(j.State) {
			j.State, j.Finished = jobpb.State_CANCELED, time.Now().UnixNano()
		}
		return (&jobpb.Empty{}).MarshalVT()
	}
	return nil, orca.PathE("memorca.job", r.Method, orca.Unsupported, nil)
}

func (o *Orca) jobByID(id uint64) (*jobpb.Job, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, j := range o.jobs {
		if j.Id == id {
			return j, nil
		}
	}
	return nil, orca.E("memorca.job", orca.NotFound, "no such job")
}

// listJobs gives two a page, so that paging is always used.
func (o *Orca) listJobs(q *jobpb.ListRequest) *jobpb.ListReply {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &jobpb.ListReply{}
	for _, j := range o.jobs {
		if j.Id <= q.After || q.Kind != 0 && q.Kind != j.Spec.Kind || q.Active && jobs.Finished(j.State) {
			continue
		}
		if len(r.Jobs) == 2 {
			r.More = true
			break
		}
		r.Jobs = append(r.Jobs, j)
	}
	return r
}

// submit does a job at once.
func (o *Orca) submit(ctx context.Context, s *jobpb.Spec) (uint64, error) {
	leave, err := o.enter("Submit")
	if err != nil {
		return 0, err
	}
	n, err := o.resolveLocked("memorca.Submit", &metapb.Target{Path: s.Path})
	if err != nil {
		leave()
		return 0, err
	}
	var files []*inode
	collectLocked(o, n, &files)
	j := &jobpb.Job{Id: uint64(len(o.jobs) + 1), Spec: s, State: jobpb.State_RUNNING, Planned: true,
		Created: time.Now().UnixNano(), Started: time.Now().UnixNano(), Files: int64(len(files))}
	o.jobs = append(o.jobs, j)
	leave()
	if strings.HasSuffix(s.Path, "/slow") {
		return j.Id, nil
	}
	for _, f := range files {
		o.doFile(ctx, j, f)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	j.State, j.Finished = jobpb.State_COMPLETED, time.Now().UnixNano()
	if j.FilesFailed > 0 {
		j.State = jobpb.State_FAILED
	}
	return j.Id, nil
}

func collectLocked(o *Orca, n *inode, out *[]*inode) {
	if n.children == nil && n.visible {
		*out = append(*out, n)
	}
	for _, name := range sortedNames(n.children) {
		collectLocked(o, o.inodes[n.children[name]], out)
	}
}

func (o *Orca) doFile(ctx context.Context, j *jobpb.Job, f *inode) {
	o.mu.Lock()
	a := cloneAttr(&f.attr)
	o.mu.Unlock()
	var err error
	if j.Spec.Kind == jobpb.Kind_LOAD && a.Length > 0 {
		id := orca.BlockID{File: orca.Ino(a.Ino), Version: a.Version}
		for ; err == nil && int64(id.Index)*a.BlockSize < a.Length; id.Index++ {
			var x dataplane.Extent
			if x, err = o.workers[0].Open(ctx, dataplane.ReadRequest{ID: id, N: 1}); err == nil {
				x.Release()
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		j.FilesFailed++
		j.Failures = append(j.Failures, &jobpb.Failure{Path: "/" + f.name, Error: err.Error()})
		return
	}
	if j.Spec.Kind == jobpb.Kind_PERSIST {
		f.attr.Persist = uint32(orca.Persisted)
	}
	j.FilesDone++
	j.Bytes += a.Length
	j.BytesDone += a.Length
}
