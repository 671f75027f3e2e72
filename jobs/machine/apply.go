// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package machine

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/metaplane/fsm"
)

// apply is one command on its way through the machine.
type apply struct {
	m     *Machine
	tx    fsm.Tx
	now   int64
	rep   *jobpb.Reply
	count jobpb.Counters
	dirty bool // count is to be saved
}

func (a *apply) load() {
	get(a.tx, countersKey(), &a.count)
	a.count.LastJob = max(a.count.LastJob, a.m.base)
}

func (a *apply) save() {
	if a.dirty {
		a.tx.Set(countersKey(), encode(&a.count))
	}
}

func (a *apply) refuse(k orca.Kind, msg string) {
	a.rep.Kind, a.rep.Error = uint32(k), msg
}

func (a *apply) job(id uint64) *jobpb.Job {
	j := &jobpb.Job{}
	if !get(a.tx, jobKey(id), j) {
		return nil
	}
	return j
}

func (a *apply) put(j *jobpb.Job) { a.tx.Set(jobKey(j.Id), encode(j)) }

// clean makes s storable in a protobuf string.
func clean(s string) string {
	const most = 4096
	return strings.ToValidUTF8(s[:min(len(s), most)], "�")
}

// submit makes a job that waits to be planned.
func (a *apply) submit(s *jobpb.Submit) {
	sp := s.Spec
	switch {
	case sp == nil || sp.Kind != jobpb.Kind_LOAD && sp.Kind != jobpb.Kind_PERSIST:
		a.refuse(orca.Invalid, "a job of this kind cannot be submitted")
		return
	case s.MaxActive > 0 && a.count.Active >= s.MaxActive:
		a.refuse(orca.Busy, fmt.Sprintf("there are %d unfinished jobs", a.count.Active))
		return
	}
	a.count.LastJob++
	a.count.Active++
	a.dirty = true
	j := &jobpb.Job{Id: a.count.LastJob, Spec: sp, State: jobpb.State_CREATED, Created: a.now}
	a.put(j)
	a.rep.Job = j.Id
	a.m.came(Key{Job: j.Id})
}

// repair makes a job of tasks that the checker of copies has planned.
func (a *apply) repair(r *jobpb.Repair) {
	sp := r.Spec
	switch {
	case sp == nil || sp.Kind != jobpb.Kind_REPLICATE && sp.Kind != jobpb.Kind_EVICT || len(r.Tasks) == 0:
		a.refuse(orca.Invalid, "not a repair")
		return
	case len(r.Tasks) > maxTasks:
		a.refuse(orca.TooLarge, "too many tasks in one plan")
		return
	}
	a.count.LastJob++
	a.count.Active++
	a.dirty = true
	j := &jobpb.Job{Id: a.count.LastJob, Spec: sp, State: jobpb.State_RUNNING, Created: a.now, Started: a.now, Planned: true}
	a.addTasks(j, r.Tasks)
	a.put(j)
	a.rep.Job = j.Id
}

// addTasks gives a job open tasks.
func (a *apply) addTasks(j *jobpb.Job, tasks []*jobpb.Task) {
	for _, t := range tasks {
		t.Job, t.Id = j.Id, j.NextTask+1
		j.NextTask++
		j.OpenTasks++
		for _, i := range t.Items {
			a.know(j, i)
		}
		a.tx.Set(taskKey(t.Job, t.Id), encode(t))
		a.m.came(Key{Job: t.Job, Task: t.Id})
	}
}

// cancel ends a submitted job; what runs of it is dropped.
func (a *apply) cancel(c *jobpb.Cancel) {
	j := a.job(c.Job)
	switch {
	case j == nil:
		a.refuse(orca.NotFound, "no such job")
	case jobs.Finished(j.State):
		// Canceling twice is no error.
	case c.Uid != 0 && c.Uid != j.Spec.GetUid():
		a.refuse(orca.Permission, "the job is another user's")
	case a.promised(j):
		a.refuse(orca.Unsupported, "the writer of this file was promised that it will be persisted")
	default:
		a.dropTasks(j.Id)
		j.OpenTasks = 0
		a.finish(j, jobpb.State_CANCELED, "")
	}
}

// promised reports whether the job stands for a single promise.
func (a *apply) promised(j *jobpb.Job) bool {
	return j.Spec.GetKind() == jobpb.Kind_PERSIST && j.NextTask == promiseTask
}

// promiseTask is Job.next_task of the job of one promise, which has no tasks.
const promiseTask = ^uint32(0)

func (a *apply) dropTasks(job uint64) {
	var ids []uint32
	a.tx.Scan(numbered('t', job), nil, func(k, _ []byte) bool {
		ids = append(ids, binary.BigEndian.Uint32(k[9:]))
		return true
	})
	for _, id := range ids {
		a.tx.Delete(taskKey(job, id))
		a.m.went(Key{Job: job, Task: id})
	}
	a.m.went(Key{Job: job})
}

// finish stores the job in its last state.
func (a *apply) finish(j *jobpb.Job, s jobpb.State, msg string) {
	j.State, j.Finished, j.Planned = s, a.now, true
	if msg != "" {
		j.Error = clean(msg)
	}
	if !a.promised(j) {
		a.count.Active--
	}
	a.count.Finished++
	a.dirty = true
	a.tx.Set(finishedKey(a.now, j.Id), []byte{1})
	a.put(j)
}

// settle stores the job, and finishes it when nothing is left of it.
func (a *apply) settle(j *jobpb.Job) {
	if !j.Planned || j.OpenTasks > 0 {
		a.put(j)
		return
	}
	if j.FilesFailed > 0 {
		a.finish(j, jobpb.State_FAILED, fmt.Sprintf("%d of %d files failed", j.FilesFailed, j.Files))
		return
	}
	j.Error = ""
	a.finish(j, jobpb.State_COMPLETED, "")
}

func fail(j *jobpb.Job, fs []*jobpb.Failure) {
	j.FilesFailed += int64(len(fs))
	for _, f := range fs {
		if len(j.Failures) >= MaxFailures {
			return
		}
		j.Failures = append(j.Failures, &jobpb.Failure{Path: clean(f.Path), Error: clean(f.Error)})
	}
}

// planned adds tasks to a job.
func (a *apply) planned(p *jobpb.Planned) {
	j := a.job(p.Job)
	switch {
	case j == nil || jobs.Finished(j.State) || j.Planned || j.Cursor != p.From:
		a.refuse(orca.Stale, "the plan does not continue the job's")
		return
	case len(p.Tasks)+len(p.Awaited) > maxTasks:
		a.refuse(orca.TooLarge, "too many tasks in one plan")
		return
	}
	if j.State == jobpb.State_CREATED {
		j.State, j.Started = jobpb.State_RUNNING, a.now
	}
	a.addTasks(j, p.Tasks)
	for _, i := range p.Awaited {
		a.know(j, i)
		a.await(j, i)
	}
	j.Files += p.Skipped + int64(len(p.Failures))
	j.FilesDone += p.Skipped
	j.FilesSkipped += p.Skipped
	fail(j, p.Failures)
	j.Cursor, j.Planned = p.Cursor, p.Last
	if p.Error != "" {
		a.dropTasks(j.Id)
		j.OpenTasks = 0
		a.finish(j, jobpb.State_FAILED, p.Error)
		return
	}
	a.settle(j)
}

// know counts an item; a large file counts once, with its first block.
func (a *apply) know(j *jobpb.Job, i *jobpb.Item) {
	if i.FirstBlock == 0 {
		j.Files++
	}
	j.Bytes += i.Bytes
}

// await lets a job wait for the promise of a file. Without a promise the file
// was persisted between its listing and now.
func (a *apply) await(j *jobpb.Job, i *jobpb.Item) {
	p := &jobpb.Persist{}
	if !get(a.tx, persistKey(i.File), p) || len(p.Parents) >= maxParents {
		j.FilesDone++
		j.BytesDone += i.Bytes
		return
	}
	p.Parents = append(p.Parents, j.Id)
	j.OpenTasks++
	a.tx.Set(persistKey(i.File), encode(p))
}

// taskDone ends a task; only the first report of it counts.
func (a *apply) taskDone(d *jobpb.Done) {
	key := taskKey(d.Job, d.Task)
	if a.tx.Get(key) == nil {
		return
	}
	a.tx.Delete(key)
	a.m.went(Key{Job: d.Job, Task: d.Task})
	j := a.job(d.Job)
	if j == nil || jobs.Finished(j.State) {
		return
	}
	j.OpenTasks--
	j.FilesDone += d.Files
	j.FilesSkipped += d.Skipped
	j.BytesDone += d.Bytes
	fail(j, d.Failures)
	a.settle(j)
}

// promise records that a version of a file is to be persisted.
func (a *apply) promise(f *fsm.PersistFile) {
	key := persistKey(uint64(f.File))
	p := &jobpb.Persist{}
	if get(a.tx, key, p) {
		if p.Version == f.Version {
			return
		}
		p.Attempts, p.Error = 0, "" // a newer version takes the place of the old
	} else {
		a.count.LastJob++
		a.count.Persists++
		a.dirty = true
		p = &jobpb.Persist{Job: a.count.LastJob, File: uint64(f.File), Created: a.now}
	}
	p.Version, p.Length, p.MountId, p.Workers = f.Version, f.Length, f.Mount, slices.Clone(f.Workers)
	p.Path = clean(f.Path)
	a.tx.Set(key, encode(p))
	j := a.job(p.Job)
	if j == nil {
		j = &jobpb.Job{
			Id: p.Job, Created: a.now, Started: a.now, State: jobpb.State_RUNNING, Files: 1,
			Planned: true, NextTask: promiseTask, OpenTasks: 1,
		}
	}
	j.Spec = &jobpb.Spec{Kind: jobpb.Kind_PERSIST, Path: p.Path}
	j.Bytes, j.Attempts, j.Error = f.Length, 0, ""
	a.put(j)
	a.m.came(Key{File: p.File})
}

// persistDone ends a promise, unless a newer version has taken its place.
func (a *apply) persistDone(d *jobpb.Done) {
	p := &jobpb.Persist{}
	key := persistKey(d.File)
	if !get(a.tx, key, p) || p.Version != d.Version {
		return
	}
	a.tx.Delete(key)
	a.m.went(Key{File: d.File})
	a.count.Persists--
	a.dirty = true
	if j := a.job(p.Job); j != nil && !jobs.Finished(j.State) {
		j.OpenTasks, j.Attempts = 0, p.Attempts
		a.outcome(j, p, d)
		switch d.Outcome {
		case jobpb.Outcome_PERSISTED:
			j.Error = ""
			a.finish(j, jobpb.State_COMPLETED, "")
		case jobpb.Outcome_GONE:
			a.finish(j, jobpb.State_CANCELED, "the file is gone, or has a newer version")
		default:
			a.finish(j, jobpb.State_FAILED, "no worker has the data any more")
		}
	}
	for _, id := range p.Parents {
		if j := a.job(id); j != nil && !jobs.Finished(j.State) {
			j.OpenTasks--
			a.outcome(j, p, d)
			a.settle(j)
		}
	}
}

// outcome counts what became of one file.
func (a *apply) outcome(j *jobpb.Job, p *jobpb.Persist, d *jobpb.Done) {
	switch d.Outcome {
	case jobpb.Outcome_PERSISTED:
		j.FilesDone++
		j.BytesDone += p.Length
	case jobpb.Outcome_GONE:
		j.FilesDone++
		j.FilesSkipped++
	default:
		fail(j, []*jobpb.Failure{{Path: p.Path, Error: "no worker has the data any more"}})
	}
}

// note remembers why a promise is being retried.
func (a *apply) note(n *jobpb.Note) {
	p := &jobpb.Persist{}
	if !get(a.tx, persistKey(n.File), p) || p.Version != n.Version {
		return
	}
	p.Attempts, p.Error = n.Attempts, clean(n.Error)
	a.tx.Set(persistKey(n.File), encode(p))
	if j := a.job(p.Job); j != nil {
		j.Attempts, j.Error = p.Attempts, p.Error
		a.put(j)
	}
}

// expire forgets finished jobs, oldest first.
func (a *apply) expire(e *jobpb.Expire) {
	var keys [][]byte
	over := a.count.Finished - e.Keep
	a.tx.Scan([]byte{'f'}, nil, func(k, _ []byte) bool {
		n := int64(len(keys))
		if n >= e.Limit || int64(binary.BigEndian.Uint64(k[1:])) >= e.Before && n >= over {
			return false
		}
		keys = append(keys, slices.Clone(k))
		return true
	})
	for _, k := range keys {
		a.tx.Delete(k)
		a.tx.Delete(jobKey(binary.BigEndian.Uint64(k[9:])))
	}
	a.count.Finished -= int64(len(keys))
	a.dirty = a.dirty || len(keys) > 0
	a.rep.Expired = int64(len(keys))
}
