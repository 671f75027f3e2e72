// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"context"
	"slices"
	"time"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

const (
	defaultList = 1000
	maxList     = 10_000
)

// stat describes a job, waiting for its end when asked to.
func (m *Master) stat(ctx context.Context, q *jobpb.StatRequest) (*jobpb.Job, error) {
	end := time.Now().Add(min(time.Duration(q.WaitMs)*time.Millisecond, maxWait))
	for {
		changed := m.changes()
		j, err := m.find(ctx, q.Job)
		if err != nil {
			return nil, err
		}
		left := time.Until(end)
		if jobs.Finished(j.State) || left <= 0 || !wait(ctx, changed, left) {
			m.soft([]*jobpb.Job{j})
			return j, nil
		}
	}
}

// find returns a job of the machine, or an intent as a job.
func (m *Master) find(ctx context.Context, id uint64) (*jobpb.Job, error) {
	if id&jobs.IntentBit != 0 {
		owed, err := m.intents(ctx)
		if err != nil {
			return nil, err
		}
		for _, j := range owed {
			if j.Id == id {
				return j, nil
			}
		}
	} else {
		var j *jobpb.Job
		m.read(func(s fsm.Store) { j = machine.Job(s, id) })
		if j != nil {
			return j, nil
		}
	}
	return nil, orca.E("jobmaster.stat", orca.NotFound, "no such job (finished ones are forgotten after a while)")
}

// list returns jobs by id, and behind them what is owed to the stores.
func (m *Master) list(ctx context.Context, q *jobpb.ListRequest) (*jobpb.ListReply, error) {
	limit := int(q.Limit)
	if limit == 0 {
		limit = defaultList
	}
	limit = min(limit, maxList)
	rep := &jobpb.ListReply{}
	want := func(j *jobpb.Job) bool {
		return j.Id > q.After && (q.Kind == jobpb.Kind_NONE || j.Spec.Kind == q.Kind) && (!q.Active || !jobs.Finished(j.State))
	}
	add := func(j *jobpb.Job) bool {
		if !want(j) {
			return true
		}
		if len(rep.Jobs) == limit {
			rep.More = true
			return false
		}
		rep.Jobs = append(rep.Jobs, j)
		return true
	}
	if q.After&jobs.IntentBit == 0 {
		m.read(func(s fsm.Store) { machine.Jobs(s, q.After, add) })
	}
	if !rep.More {
		owed, err := m.intents(ctx)
		if err != nil {
			return nil, err
		}
		for _, j := range owed {
			if !add(j) {
				break
			}
		}
	}
	m.soft(rep.Jobs)
	return rep, nil
}

// soft adds what only the queue knows: who works on it, and how far they are.
func (m *Master) soft(js []*jobpb.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	by := make(map[uint64]*jobpb.Job, len(js))
	for _, j := range js {
		if !jobs.Finished(j.State) {
			by[j.Id] = j
		}
	}
	for _, w := range m.q.leased {
		j := by[w.job]
		if j == nil {
			continue
		}
		j.BytesDone += w.bytes
		if !slices.Contains(j.Workers, w.worker) {
			j.Workers = append(j.Workers, w.worker)
		}
	}
	for _, w := range m.q.paused {
		if j := by[w.job]; j != nil && w.key.File != 0 {
			j.Attempts, j.Error = w.attempts, w.err
		}
	}
}

// intents returns what the metaplane still owes to stores, as jobs in order.
func (m *Master) intents(ctx context.Context) ([]*jobpb.Job, error) {
	rep, err := m.ns.Report(ctx, &metapb.ReportRequest{H: &metapb.Header{}})
	if err != nil {
		return nil, err
	}
	var out []*jobpb.Job
	for _, in := range rep.Intents {
		k, ok := intentKind(in.Op)
		if !ok {
			continue
		}
		path := in.Source
		if path == "" {
			path = in.Target
		}
		out = append(out, &jobpb.Job{
			Id: jobs.IntentBit | in.Id, Spec: &jobpb.Spec{Kind: k, Path: path}, State: jobpb.State_RUNNING, Created: in.Created,
			Started: in.Created, Attempts: uint32(in.Attempts), Error: in.Error, Source: in.Source, Target: in.Target,
		})
	}
	slices.SortFunc(out, func(a, b *jobpb.Job) int { return int(int64(a.Id) - int64(b.Id)) })
	return out, nil
}

// intentKind tells what an intent is to its reader; that of a persist is shown
// as the job that it belongs to.
func intentKind(op string) (jobpb.Kind, bool) {
	switch op {
	case metapb.IntentOp_INTENT_PERSIST.String():
		return 0, false
	case metapb.IntentOp_INTENT_MOVE.String(), metapb.IntentOp_INTENT_RENAME.String():
		return jobpb.Kind_UFS_MOVE, true
	case metapb.IntentOp_INTENT_REMOVE_TREE.String(), metapb.IntentOp_INTENT_REMOVE.String():
		return jobpb.Kind_UFS_DELETE, true
	}
	return jobpb.Kind_UFS_OTHER, true
}
