// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"orca"
	"orca/jobs"
	"orca/jobs/jobclient"
	"orca/jobs/jobpb"
)

// Job is work in the background: a load, a persist, or what the store below
// has still to be brought in line with (UFS_*, which are shown, not
// submitted).
type Job = jobpb.Job

// JobKind is the kind of a job.
type JobKind = jobpb.Kind

// The kinds of jobs that can be submitted.
const (
	JobLoad    = jobpb.Kind_LOAD
	JobPersist = jobpb.Kind_PERSIST
)

// JobSpec is what a job shall do.
type JobSpec struct {
	Kind JobKind
	Path string
	// Recursive takes a directory with all below it; else only a file is
	// accepted.
	Recursive bool
	// Bandwidth bounds each worker, in bytes per second; 0: no bound.
	Bandwidth int64
	// Replicas is on how many workers each block of a load shall be; 0: 1.
	Replicas uint32
}

// Submit starts a job and returns its id at once. What of a tree lives in other
// groups is not in it, and makes it fail: see SubmitTree. NotFound, IsDir (without
// Recursive), Permission, Busy (too many jobs).
func (fs *FS) Submit(ctx context.Context, s JobSpec) (uint64, error) {
	return fs.submit(ctx, s, 0, nil)
}

// SubmitTree is Submit of a tree that may reach into several groups: what lives in
// another one than Path is a job of its own there, and they share the bandwidth. It
// returns the ids, that of Path first. When one cannot be started the others are
// canceled.
func (fs *FS) SubmitTree(ctx context.Context, s JobSpec) (ids []uint64, err error) {
	apart, err := fs.apart(ctx, s)
	if err != nil {
		return nil, err
	}
	tree := uint64(0)
	if n := int64(len(apart)); n > 0 {
		tree = rand.Uint64() | 1
		if s.Bandwidth > 0 {
			s.Bandwidth = max(s.Bandwidth/(n+1), 1)
		}
	}
	defer func() {
		if err != nil {
			for _, id := range ids {
				_ = fs.CancelJob(context.WithoutCancel(ctx), id) // what cannot be told ends by itself
			}
			ids = nil
		}
	}()
	for i, path := range append([]string{s.Path}, apart...) {
		part := s
		part.Path = path
		var below []string
		if i == 0 {
			below = apart
		}
		id, err := fs.submit(ctx, part, tree, below)
		if orca.KindOf(err) == orca.NotFound && i > 0 {
			continue // it has just been removed
		}
		if err != nil {
			return ids, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// apart returns the paths of a tree that live in another group than its root.
func (fs *FS) apart(ctx context.Context, s JobSpec) ([]string, error) {
	g, ok := fs.meta.(grouped)
	if !ok || !s.Recursive {
		return nil, nil
	}
	root, err := orca.CleanPath(s.Path)
	if err != nil {
		return nil, err
	}
	return g.Junctions(ctx, fs.header(), root)
}

func (fs *FS) submit(ctx context.Context, s JobSpec, tree uint64, apart []string) (uint64, error) {
	p, err := orca.CleanPath(s.Path)
	if err != nil {
		return 0, err
	}
	group := uint16(0)
	if g, ok := fs.meta.(grouped); ok {
		if group, err = g.GroupOf(ctx, p); err != nil {
			return 0, err
		}
	}
	return fs.jobs().In(group).Submit(ctx, &jobpb.Spec{
		Kind: s.Kind, Path: p, Recursive: s.Recursive, Bandwidth: s.Bandwidth, Replicas: s.Replicas,
		Uid: fs.caller.Uid, Gid: fs.caller.Gid, Groups: fs.caller.Groups, Tree: tree, Apart: apart,
	})
}

// jobs speaks with the job master as this view's caller.
func (fs *FS) jobs() *jobclient.Client { return jobclient.New(fs.meta, fs.caller) }

// Load brings files into the workers' cache: it submits a job and returns its
// id. A directory is taken with all below it.
func (fs *FS) Load(ctx context.Context, path string) (uint64, error) {
	return fs.Submit(ctx, JobSpec{Kind: JobLoad, Path: path, Recursive: true})
}

// Persist brings unpersisted files into their store, as Load does.
func (fs *FS) Persist(ctx context.Context, path string) (uint64, error) {
	return fs.Submit(ctx, JobSpec{Kind: JobPersist, Path: path, Recursive: true})
}

// Job returns the state of a job; with a wait, when it ends or after that
// time. NotFound when it is unknown, or was finished too long ago.
func (fs *FS) Job(ctx context.Context, id uint64, wait time.Duration) (*Job, error) {
	return fs.jobs().In(jobs.GroupOf(id)).Stat(ctx, id, wait)
}

// JobFilter narrows Jobs.
type JobFilter struct {
	Kind   JobKind // zero: all
	Active bool    // leave finished ones out
}

// Jobs returns jobs in the order of their ids.
func (fs *FS) Jobs(ctx context.Context, f JobFilter) ([]*Job, error) {
	groups, err := fs.groups(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Job
	for _, g := range groups {
		js, err := fs.jobsIn(ctx, g, f)
		if err != nil {
			return nil, err
		}
		out = append(out, js...)
	}
	slices.SortFunc(out, func(a, b *Job) int { return cmp.Compare(a.Id, b.Id) })
	return out, nil
}

// jobsIn returns the jobs of a group.
func (fs *FS) jobsIn(ctx context.Context, group uint16, f JobFilter) ([]*Job, error) {
	var out []*Job
	after := uint64(0)
	for {
		js, more, err := fs.jobs().In(group).List(ctx, &jobpb.ListRequest{Kind: f.Kind, Active: f.Active, After: after})
		if err != nil {
			return nil, err
		}
		out = append(out, js...)
		if !more || len(js) == 0 {
			return out, nil
		}
		after = js[len(js)-1].Id
	}
}

// CancelJob stops a job; what it has done stays.
func (fs *FS) CancelJob(ctx context.Context, id uint64) error {
	return fs.jobs().In(jobs.GroupOf(id)).Cancel(ctx, id)
}

// jobPoll is how often WaitJob reports progress.
const jobPoll = 300 * time.Millisecond

// WaitJob waits for the end of a job and returns its last state; progress, if
// not nil, is called on the way. Ending ctx leaves the job running.
func (fs *FS) WaitJob(ctx context.Context, id uint64, progress func(*Job)) (*Job, error) {
	return fs.jobs().In(jobs.GroupOf(id)).Wait(ctx, id, jobPoll, progress)
}

// WaitJobs waits for the end of jobs and returns their last states, in the order of
// ids; progress, if not nil, is called on the way, with the bytes of all of them.
func (fs *FS) WaitJobs(ctx context.Context, ids []uint64, progress func(done, bytes int64)) ([]*Job, error) {
	out := make([]*Job, len(ids))
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for i, id := range ids {
		g.Go(func() error {
			j, err := fs.WaitJob(ctx, id, func(j *Job) {
				mu.Lock()
				defer mu.Unlock()
				out[i] = j
				if progress == nil {
					return
				}
				var done, bytes int64
				for _, j := range out {
					done, bytes = done+j.GetBytesDone(), bytes+j.GetBytes()
				}
				progress(done, bytes)
			})
			mu.Lock()
			defer mu.Unlock()
			out[i] = j
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// JobEnded reports whether a job will change no more.
func JobEnded(j *Job) bool { return jobs.Finished(j.State) }

// JobError returns why a job did not complete; nil if it did or still may.
func JobError(j *Job) error {
	switch j.State {
	case jobpb.State_FAILED:
		msg := j.Error
		if msg == "" {
			msg = "some files failed"
		}
		return &orca.Error{Op: "client.Job", Path: j.Spec.GetPath(), Kind: orca.UFSFailure, Msg: msg}
	case jobpb.State_CANCELED:
		return &orca.Error{Op: "client.Job", Path: j.Spec.GetPath(), Kind: orca.Canceled, Msg: "the job was canceled"}
	}
	return nil
}
