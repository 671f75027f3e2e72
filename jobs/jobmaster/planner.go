// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/jobs/plan"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

const (
	// planLot is how many files are planned in one command.
	planLot = 1000
	// awaitWindow caps the promises that one job waits for.
	awaitWindow = 10_000
	// promiseCalls is how many promises are asked for at one time.
	promiseCalls = 16
	// planPause is how long a planner waits after a retryable failure.
	planPause = time.Second
)

// planLocked starts the planner of a job, once.
func (m *Master) planLocked(job uint64) {
	if m.planned[job] != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	m.planned[job] = cancel
	m.wg.Go(func() {
		defer func() {
			cancel()
			m.mu.Lock()
			delete(m.planned, job)
			m.mu.Unlock()
		}()
		select {
		case m.plans <- struct{}{}:
			defer func() { <-m.plans }()
			m.plan(ctx, job)
		case <-ctx.Done():
		}
	})
}

// plan plans a job to its end, a lot at a time, never far ahead of the workers.
func (m *Master) plan(ctx context.Context, job uint64) {
	for {
		changed := m.changes()
		var j *jobpb.Job
		m.read(func(s fsm.Store) { j = machine.Job(s, job) })
		if j == nil || j.Planned || jobs.Finished(j.State) {
			return
		}
		window := m.cfg.Window
		if j.Spec.Kind == jobpb.Kind_PERSIST {
			window = awaitWindow
		}
		if j.OpenTasks >= window {
			if !wait(ctx, changed, time.Second) {
				return
			}
			continue
		}
		p, err := m.lot(ctx, j)
		if err == nil {
			_, err = m.apply(ctx, nil, &jobpb.Command{Planned: p})
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, orca.Stale): // canceled meanwhile, or planned by another
		case orca.KindOf(err).Retryable():
			if !wait(ctx, nil, planPause) {
				return
			}
		default:
			end := &jobpb.Planned{Job: job, From: j.Cursor, Cursor: j.Cursor, Last: true, Error: err.Error()}
			if _, err := m.apply(ctx, nil, &jobpb.Command{Planned: end}); err != nil {
				m.log.Warn("a job that cannot be planned could not be ended", "job", job, "err", err)
				return
			}
		}
	}
}

// changes returns a channel that is closed at the next change.
func (m *Master) changes() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// wait returns at a change, after d, or false when ctx ended.
func wait(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-t.C:
	}
	return true
}

// lot plans the next files of a job.
func (m *Master) lot(ctx context.Context, j *jobpb.Job) (*jobpb.Planned, error) {
	h := &metapb.Header{Caller: &metapb.Caller{Uid: j.Spec.Uid, Gid: j.Spec.Gid, Groups: j.Spec.Groups}}
	w := &walker{ns: m.ns, h: h, root: j.Spec.Path, recursive: j.Spec.Recursive}
	entries, cursor, last, err := w.next(ctx, j.Cursor, planLot)
	if err != nil {
		return nil, err
	}
	p := &jobpb.Planned{Job: j.Id, From: j.Cursor, Cursor: cursor, Last: last}
	for _, f := range w.foreign {
		if slices.Contains(j.Spec.Apart, f.path) {
			continue // it has one
		}
		p.Failures = append(p.Failures, &jobpb.Failure{Path: f.path, Error: fmt.Sprintf("lives in group %d: it takes a job of its own", orca.Ino(f.attr.Ino).Home())})
	}
	if j.Spec.Kind == jobpb.Kind_PERSIST {
		return p, m.promises(ctx, h, p, entries)
	}
	var files []plan.File
	for _, e := range entries {
		a := e.attr
		if a.Type != uint32(orca.TypeFile) || a.Persist != uint32(orca.Persisted) || a.Length == 0 {
			p.Skipped++ // nothing to fetch
			continue
		}
		files = append(files, plan.File{Ino: orca.Ino(a.Ino), Version: a.Version, Path: e.path, Length: a.Length, BlockSize: a.BlockSize})
	}
	p.Tasks = plan.Tasks(files, m.cfg.Task)
	return p, nil
}

// promises has the unpersisted files promised, and waits for them in p.
func (m *Master) promises(ctx context.Context, h *metapb.Header, p *jobpb.Planned, entries []entry) error {
	type answer struct {
		ask bool
		err error
	}
	answers := make([]answer, len(entries))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(promiseCalls)
	for i, e := range entries {
		if e.attr.Type != uint32(orca.TypeFile) || e.attr.Persist == uint32(orca.Persisted) {
			continue
		}
		answers[i].ask = true
		g.Go(func() error {
			_, err := m.group.Propose(gctx, &command.Command{
				Now: time.Now().UnixNano(), Caller: h.Caller,
				Persist: &metapb.PersistOp{Target: &metapb.Target{Ino: e.attr.Ino}},
			})
			if orca.KindOf(err).Retryable() {
				return err
			}
			answers[i].err = err
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, e := range entries {
		switch a := answers[i]; {
		case !a.ask, errors.Is(a.err, orca.NotFound):
			p.Skipped++
		case a.err != nil:
			p.Failures = append(p.Failures, &jobpb.Failure{Path: e.path, Error: a.err.Error()})
		default:
			p.Awaited = append(p.Awaited, &jobpb.Item{File: e.attr.Ino, Version: e.attr.Version, Path: e.path, Bytes: e.attr.Length})
		}
	}
	return nil
}

// entry is a file or symbolic link that a walk met.
type entry struct {
	path string
	attr *metapb.Attr
}

// walker visits a tree in order, from any cursor on.
type walker struct {
	ns        Namespace
	h         *metapb.Header
	root      string
	recursive bool
	foreign   []entry // mounts in other groups, which were passed over
}

// next returns up to limit entries behind the cursor, and the cursor behind
// them; last says that there are no more. A directory that vanishes on the way
// is passed over.
func (w *walker) next(ctx context.Context, cursor string, limit int) (out []entry, next string, last bool, err error) {
	const op = "jobmaster.walk"
	if cursor == "" {
		rep, err := w.ns.Stat(ctx, &metapb.StatRequest{H: w.h, Target: &metapb.Target{Path: w.root}})
		switch {
		case err != nil:
			return nil, "", false, err
		case rep.Attr.Type != uint32(orca.TypeDir):
			return []entry{{w.root, rep.Attr}}, w.root, true, nil
		case !w.recursive:
			return nil, "", false, &orca.Error{Op: op, Path: w.root, Kind: orca.IsDir, Msg: "is a directory: ask for all below it"}
		}
	}
	stack := plan.Resume(w.root, cursor)
	next = cursor
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		rep, err := w.ns.List(ctx, &metapb.ListRequest{H: w.h, Target: &metapb.Target{Path: top.Dir}, After: top.After})
		if err != nil {
			if k := orca.KindOf(err); (k == orca.NotFound || k == orca.NotDir) && len(stack) > 1 {
				stack = stack[:len(stack)-1]
				continue
			}
			return nil, "", false, err
		}
		down := false
		for _, e := range rep.Entries {
			top.After = e.Name
			path := orca.JoinPath(top.Dir, e.Name)
			if e.Attr.MountPoint && orca.Ino(e.Attr.Ino).Home() != orca.Ino(rep.Dir.GetIno()).Home() {
				w.foreign = append(w.foreign, entry{path, e.Attr})
				continue
			}
			if e.Attr.Type == uint32(orca.TypeDir) {
				stack = append(stack, plan.Level{Dir: path})
				down = true
				break
			}
			out, next = append(out, entry{path, e.Attr}), path
			if len(out) == limit {
				return out, next, false, nil
			}
		}
		if !down && !rep.More {
			stack = stack[:len(stack)-1]
		}
	}
	return out, next, true, nil
}
