// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"context"
	"math/rand/v2"
	"time"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
)

const (
	// maxWait caps a long poll.
	maxWait = 30 * time.Second
	// maxSlots caps the work of one poll.
	maxSlots = 256
	// maxTries is how often a task may cost its worker the lease.
	maxTries = 10
)

var _ metaserver.HostedHandler = (*Master)(nil)

// message is what vtprotobuf generates.
type message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

// ServeHosted implements metaserver.HostedHandler.
func (m *Master) ServeHosted(ctx context.Context, r *metapb.HostedRequest, propose metaserver.Propose) ([]byte, error) {
	const op = "jobmaster.ServeHosted"
	m.mu.Lock()
	leading := m.term != 0
	m.mu.Unlock()
	if !leading {
		return nil, orca.E(op, orca.Unavailable, "the job master is not (yet) at work here")
	}
	decode := func(q message) error {
		if err := q.UnmarshalVT(r.Body); err != nil {
			return orca.PathE(op, r.Method, orca.Invalid, err)
		}
		return nil
	}
	var rep message
	var err error
	switch r.Method {
	case jobs.MethodSubmit:
		q := &jobpb.SubmitRequest{}
		if err = decode(q); err == nil {
			rep, err = m.submit(ctx, r.H, q, proposer(propose))
		}
	case jobs.MethodStat:
		q := &jobpb.StatRequest{}
		if err = decode(q); err == nil {
			rep, err = m.stat(ctx, q)
		}
	case jobs.MethodList:
		q := &jobpb.ListRequest{}
		if err = decode(q); err == nil {
			rep, err = m.list(ctx, q)
		}
	case jobs.MethodCancel:
		q := &jobpb.CancelRequest{}
		if err = decode(q); err == nil {
			rep, err = m.drop(ctx, r.H, q, proposer(propose))
		}
	case jobs.MethodPoll:
		q := &jobpb.PollRequest{}
		if err = decode(q); err == nil {
			rep, err = m.poll(ctx, q)
		}
	case jobs.MethodReport:
		q := &jobpb.ReportRequest{}
		if err = decode(q); err == nil {
			rep, err = m.report(ctx, q)
		}
	default:
		return nil, &orca.Error{Op: op, Path: r.Method, Kind: orca.Unsupported, Msg: "no such method"}
	}
	if err != nil {
		return nil, err
	}
	b, err := rep.MarshalVT()
	if err != nil {
		return nil, orca.PathE(op, r.Method, orca.Internal, err)
	}
	return b, nil
}

// submit makes a job of the caller.
func (m *Master) submit(ctx context.Context, h *metapb.Header, q *jobpb.SubmitRequest, propose proposer) (*jobpb.SubmitReply, error) {
	const op = "jobmaster.submit"
	s := q.Spec
	if s == nil {
		return nil, orca.E(op, orca.Invalid, "no specification")
	}
	p, err := orca.CleanPath(s.Path)
	if err != nil {
		return nil, err
	}
	if s.Bandwidth < 0 {
		return nil, orca.E(op, orca.Invalid, "negative bandwidth")
	}
	s.Path = p
	c := h.GetCaller()
	s.Uid, s.Gid, s.Groups = c.GetUid(), c.GetGid(), c.GetGroups()
	rep, err := m.apply(ctx, propose, &jobpb.Command{Submit: &jobpb.Submit{Spec: s, MaxActive: m.cfg.MaxActive}})
	if err != nil {
		return nil, err
	}
	m.Stats.Submitted.Add(1)
	return &jobpb.SubmitReply{Job: rep.Job}, nil
}

// drop cancels a job.
func (m *Master) drop(ctx context.Context, h *metapb.Header, q *jobpb.CancelRequest, propose proposer) (*jobpb.Empty, error) {
	if q.Job&jobs.IntentBit != 0 {
		return nil, orca.E("jobmaster.cancel", orca.Unsupported, "the namespace has changed already: what is owed to the store cannot be canceled")
	}
	_, err := m.apply(ctx, propose, &jobpb.Command{Cancel: &jobpb.Cancel{Job: q.Job, Uid: h.GetCaller().GetUid()}})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, w := range m.q.works {
		if k.Job == q.Job {
			m.q.remove(w)
		}
	}
	if stop := m.planned[q.Job]; stop != nil {
		stop()
	}
	return &jobpb.Empty{}, nil
}

func keyOf(r *jobpb.Running) machine.Key { return machine.Key{Job: r.Job, Task: r.Task, File: r.File} }

// poll renews leases and hands out work, waiting for some.
func (m *Master) poll(ctx context.Context, q *jobpb.PollRequest) (*jobpb.PollReply, error) {
	if q.Worker == 0 {
		return nil, orca.E("jobmaster.poll", orca.Invalid, "a worker without id")
	}
	rep := &jobpb.PollReply{LeaseMs: m.cfg.Lease.Milliseconds()}
	m.mu.Lock()
	until := time.Now().Add(m.cfg.Lease)
	for _, r := range q.Running {
		if !m.q.renew(keyOf(r), r.Version, q.Worker, r.Bytes, until) {
			rep.Drop = append(rep.Drop, r)
		}
	}
	m.mu.Unlock()
	if q.Slots == 0 || len(rep.Drop) > 0 {
		return rep, nil
	}
	end := time.Now().Add(min(time.Duration(q.WaitMs)*time.Millisecond, maxWait))
	for {
		m.mu.Lock()
		changed := m.changed
		works := m.q.take(q.Worker, int(min(q.Slots, maxSlots)), time.Now().Add(m.cfg.Lease))
		m.mu.Unlock()
		if len(works) > 0 {
			if err := m.equip(ctx, works, rep); err != nil {
				return nil, err
			}
		}
		left := time.Until(end)
		if len(rep.Work) > 0 || left <= 0 {
			return rep, nil
		}
		if !wait(ctx, changed, left) || m.ctx.Err() != nil {
			return rep, nil
		}
	}
}

// equip turns leased work into what the worker needs. Work whose end the
// namespace knows already is ended instead.
func (m *Master) equip(ctx context.Context, works []*work, rep *jobpb.PollReply) error {
	var ended []*jobpb.Done
	var over []*work
	for _, w := range works {
		out, done := m.prepare(w)
		switch {
		case out != nil:
			rep.Work = append(rep.Work, out)
			m.Stats.Leased.Add(1)
		default:
			over = append(over, w)
			if done != nil {
				ended = append(ended, done)
			}
		}
	}
	if len(over) == 0 {
		return nil
	}
	if len(ended) > 0 {
		if _, err := m.apply(ctx, nil, &jobpb.Command{Done: ended}); err != nil {
			return err // the leases run out, and it is tried again
		}
		m.Stats.Completed.Add(int64(len(ended)))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range over {
		m.q.remove(w)
	}
	return nil
}

// prepare returns what to hand out, or how the work has ended; neither: it is
// not open any more.
func (m *Master) prepare(w *work) (*jobpb.Work, *jobpb.Done) {
	var j *jobpb.Job
	var t *jobpb.Task
	var p *jobpb.Persist
	m.read(func(s fsm.Store) {
		j = machine.Job(s, w.job)
		if w.key.File != 0 {
			p = machine.Persist(s, w.key.File)
		} else {
			t = machine.Task(s, w.key.Job, w.key.Task)
		}
	})
	if w.key.File != 0 {
		if p == nil || p.Version != w.version {
			return nil, nil
		}
		key, outcome := m.settled(p)
		if outcome != jobpb.Outcome_NO_OUTCOME {
			return nil, &jobpb.Done{File: p.File, Version: p.Version, Outcome: outcome}
		}
		return &jobpb.Work{Persist: p, UfsKey: key}, nil
	}
	if t == nil || j == nil {
		return nil, nil
	}
	if w.attempts >= maxTries {
		d := &jobpb.Done{Job: t.Job, Task: t.Id}
		for _, i := range t.Items {
			d.Failures = append(d.Failures, &jobpb.Failure{Path: i.Path, Error: "workers were lost over this task too often"})
		}
		return nil, d
	}
	return &jobpb.Work{Task: t, Bandwidth: j.Spec.Bandwidth, Replicas: j.Spec.Replicas, Kind: j.Spec.Kind}, nil
}

// settled asks the namespace about a promise: its key in the store while it is
// to be kept, else what became of it.
func (m *Master) settled(p *jobpb.Persist) (key string, o jobpb.Outcome) {
	v, err := m.group.Machine().Lookup(orca.Ino(p.File))
	switch {
	case orca.KindOf(err) == orca.NotFound:
		return "", jobpb.Outcome_GONE
	case err != nil:
		return "", jobpb.Outcome_NO_OUTCOME // the worker meets it, too
	case v.Attr.Version != p.Version:
		return "", jobpb.Outcome_GONE
	}
	switch orca.PersistState(v.Attr.Persist) {
	case orca.Persisted:
		return "", jobpb.Outcome_PERSISTED
	case orca.Lost:
		return "", jobpb.Outcome_LOST
	case orca.NotPersisted:
		return "", jobpb.Outcome_GONE
	}
	return v.Key, jobpb.Outcome_NO_OUTCOME
}

// report takes the results of a worker.
func (m *Master) report(ctx context.Context, q *jobpb.ReportRequest) (*jobpb.Empty, error) {
	c := &jobpb.Command{}
	type end struct {
		k       machine.Key
		version uint32
	}
	var ends []end
	now := time.Now()
	for _, r := range q.Results {
		d := r.Done
		if d == nil {
			continue
		}
		k := machine.Key{Job: d.Job, Task: d.Task, File: d.File}
		if r.Kind == 0 && d.File != 0 && d.Outcome == jobpb.Outcome_GONE {
			// A worker sees GONE also where its intent was settled for it.
			_, o := m.settled(&jobpb.Persist{File: d.File, Version: d.Version})
			if o == jobpb.Outcome_NO_OUTCOME {
				r.Kind, r.Error = uint32(orca.Stale), "the promise is still open"
			}
			d.Outcome = o
		}
		if r.Kind == 0 && d.Task != 0 {
			if err := m.repaired(ctx, d, q.Worker, now); err != nil {
				return nil, err // it is reported again
			}
		}
		if r.Kind == 0 {
			c.Done = append(c.Done, d)
			ends = append(ends, end{k, d.Version})
			continue
		}
		if n := m.retry(k, d.Version, q.Worker, r, now); n != nil {
			c.Notes = append(c.Notes, n)
		}
	}
	if len(c.Done)+len(c.Notes) == 0 {
		return &jobpb.Empty{}, nil
	}
	if _, err := m.apply(ctx, nil, c); err != nil {
		return nil, err
	}
	m.Stats.Completed.Add(int64(len(c.Done)))
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range ends {
		if w := m.q.works[e.k]; w != nil && w.version == e.version {
			m.q.remove(w)
		}
	}
	return &jobpb.Empty{}, nil
}

// retry pauses work that failed; now and then the reason is worth a note in
// the machine: at the 1st, 2nd, 4th, 8th… failure.
func (m *Master) retry(k machine.Key, version uint32, worker uint64, r *jobpb.Result, now time.Time) *jobpb.Note {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.q.works[k]
	if w == nil || w.version != version || w.worker != worker {
		return nil
	}
	m.Stats.Retries.Add(1)
	w.attempts++
	w.err = r.Error
	d := m.cfg.LongestPause
	if shift := w.attempts - 1; shift < 16 {
		d = min(d, m.cfg.FirstPause<<shift)
	}
	if orca.Kind(r.Kind) == orca.Canceled {
		d = 0 // the worker stops: another one may begin at once
	}
	m.q.pause(w, now.Add(d/2+rand.N(d/2+1)))
	if k.File == 0 || w.attempts&(w.attempts-1) != 0 {
		return nil
	}
	return &jobpb.Note{File: k.File, Version: version, Attempts: w.attempts, Error: r.Error}
}
