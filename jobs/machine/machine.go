// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package machine is the state machine of jobs: pure, with no clock, no
// randomness and no I/O beyond the transaction that its host hands in. The
// metaplane hosts it (fsm.Hosted), so that a promise to persist a file is in
// the same batch as the completion of that file.
//
// Records, by key (big endian, so that they sort by number):
//
//	n                        jobpb.Counters
//	j|job                    jobpb.Job
//	t|job|task               jobpb.Task     open tasks of a load or a repair
//	p|file                   jobpb.Persist  open promises
//	f|finished|job           nothing        finished jobs by age
//
// A promise always has a job of its own, so that it is listed; jobs that a
// person submitted for a path wait for the promises of the files below it.
//
// Beside the records there is one derived set, of work that came up since the
// job master last asked (Fresh); Reopen rebuilds it. mu guards it and is a
// leaf. The machine refuses to cancel promises, to finish anything twice, and
// plans that do not start where the last one ended.
package machine

import (
	"encoding/binary"
	"fmt"
	"sync"

	"orca"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/metaplane/fsm"
)

const (
	// MaxFailures caps the failures that a job remembers by name.
	MaxFailures = 100
	// maxParents caps the jobs that wait for one promise.
	maxParents = 64
	// maxTasks caps the tasks and awaited items of one plan.
	maxTasks = 4096
)

// Key names one piece of work: a job to plan (Job alone), a task (Job and
// Task) or a promise (File).
type Key struct {
	Job  uint64
	Task uint32
	File uint64
}

// Machine implements fsm.Hosted and fsm.Reopener.
type Machine struct {
	base uint64 // of the numbers of jobs

	mu    sync.Mutex
	fresh map[Key]struct{} // GUARDED_BY(mu)
}

var (
	_ fsm.Hosted   = (*Machine)(nil)
	_ fsm.Reopener = (*Machine)(nil)
)

// New makes a machine of the first group; its records are its host's.
func New() *Machine { return In(1) }

// In makes a machine of a group: see jobs.GroupSpan.
func In(group uint16) *Machine {
	m := &Machine{fresh: map[Key]struct{}{}}
	if group > 1 {
		m.base = uint64(group) * jobs.GroupSpan
	}
	return m
}

// Fresh returns the work that came up since the last call, in no order. Work
// may be named that has ended meanwhile.
func (m *Machine) Fresh() []Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Key, 0, len(m.fresh))
	for k := range m.fresh {
		out = append(out, k)
	}
	clear(m.fresh)
	return out
}

func (m *Machine) came(k Key) {
	m.mu.Lock()
	m.fresh[k] = struct{}{}
	m.mu.Unlock()
}

func (m *Machine) went(k Key) {
	m.mu.Lock()
	delete(m.fresh, k)
	m.mu.Unlock()
}

// Reopen implements fsm.Reopener: all open work is fresh again.
func (m *Machine) Reopen(s fsm.Store) error {
	open := Open(s)
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.fresh)
	for _, k := range open {
		m.fresh[k] = struct{}{}
	}
	return nil
}

// Apply implements fsm.Hosted: cmd is a jobpb.Command, the result a
// jobpb.Reply.
func (m *Machine) Apply(tx fsm.Tx, cmd []byte, now int64) []byte {
	var c jobpb.Command
	rep := &jobpb.Reply{}
	if err := c.UnmarshalVT(cmd); err != nil {
		rep.Kind, rep.Error = uint32(orca.Corrupt), "not a job command"
		return encode(rep)
	}
	a := &apply{m: m, tx: tx, now: now, rep: rep}
	a.load()
	switch {
	case c.Submit != nil:
		a.submit(c.Submit)
	case c.Cancel != nil:
		a.cancel(c.Cancel)
	case c.Planned != nil:
		a.planned(c.Planned)
	case c.Repair != nil:
		a.repair(c.Repair)
	}
	for _, d := range c.Done {
		if d.File != 0 {
			a.persistDone(d)
		} else {
			a.taskDone(d)
		}
	}
	for _, n := range c.Notes {
		a.note(n)
	}
	if c.Expire != nil {
		a.expire(c.Expire)
	}
	a.save()
	return encode(rep)
}

// OnPersistNeeded implements fsm.Hosted.
func (m *Machine) OnPersistNeeded(tx fsm.Tx, f fsm.PersistFile, now int64) {
	a := &apply{m: m, tx: tx, now: now, rep: &jobpb.Reply{}}
	a.load()
	a.promise(&f)
	a.save()
}

// message is what vtprotobuf generates.
type message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

func encode(m message) []byte {
	b, err := m.MarshalVT()
	if err != nil {
		panic(fmt.Sprintf("BUG: machine: encode %T: %v", m, err)) // only invalid UTF-8 could, and bytes are cleaned
	}
	return b
}

// Keys.

func countersKey() []byte { return []byte{'n'} }

func numbered(space byte, ns ...uint64) []byte {
	b := []byte{space}
	for _, n := range ns {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func jobKey(id uint64) []byte       { return numbered('j', id) }
func persistKey(file uint64) []byte { return numbered('p', file) }

func taskKey(job uint64, task uint32) []byte {
	return binary.BigEndian.AppendUint32(numbered('t', job), task)
}

func finishedKey(at int64, job uint64) []byte { return numbered('f', uint64(at), job) }

// Reading, for the job master.

// getter is the part of fsm.Tx and fsm.Store that finds one record.
type getter interface{ Get(key []byte) []byte }

// get decodes the record at key into m; false when there is none.
func get(s getter, key []byte, m message) bool {
	b := s.Get(key)
	if b == nil {
		return false
	}
	if err := m.UnmarshalVT(b); err != nil {
		panic(fmt.Sprintf("BUG: machine: record %x: %v", key, err))
	}
	return true
}

// Job returns a job, nil if it is not known (any more).
func Job(s fsm.Store, id uint64) *jobpb.Job {
	j := &jobpb.Job{}
	if !get(s, jobKey(id), j) {
		return nil
	}
	return j
}

// Task returns an open task, nil if there is none.
func Task(s fsm.Store, job uint64, task uint32) *jobpb.Task {
	t := &jobpb.Task{}
	if !get(s, taskKey(job, task), t) {
		return nil
	}
	return t
}

// Persist returns an open promise, nil if there is none.
func Persist(s fsm.Store, file uint64) *jobpb.Persist {
	p := &jobpb.Persist{}
	if !get(s, persistKey(file), p) {
		return nil
	}
	return p
}

// Counts returns the machine's counters.
func Counts(s fsm.Store) *jobpb.Counters {
	c := &jobpb.Counters{}
	get(s, countersKey(), c)
	return c
}

// Jobs calls fn with the jobs after an id, in order, until it returns false.
func Jobs(s fsm.Store, after uint64, fn func(*jobpb.Job) bool) {
	var from []byte
	if after != 0 {
		from = jobKey(after)
	}
	s.Scan([]byte{'j'}, from, func(_, v []byte) bool {
		j := &jobpb.Job{}
		return j.UnmarshalVT(v) != nil || fn(j)
	})
}

// Open returns all open work: jobs to plan, tasks and promises.
func Open(s fsm.Store) []Key {
	var out []Key
	Jobs(s, 0, func(j *jobpb.Job) bool {
		if !j.Planned && !jobs.Finished(j.State) {
			out = append(out, Key{Job: j.Id})
		}
		return true
	})
	s.Scan([]byte{'t'}, nil, func(k, _ []byte) bool {
		out = append(out, Key{Job: binary.BigEndian.Uint64(k[1:]), Task: binary.BigEndian.Uint32(k[9:])})
		return true
	})
	s.Scan([]byte{'p'}, nil, func(k, _ []byte) bool {
		out = append(out, Key{File: binary.BigEndian.Uint64(k[1:])})
		return true
	})
	return out
}

// Due reports whether a finished job may be forgotten: one that finished
// before, or more than keep are kept.
func Due(s fsm.Store, before, keep int64) bool {
	if Counts(s).Finished > keep {
		return true
	}
	due := false
	s.Scan([]byte{'f'}, nil, func(k, _ []byte) bool {
		due = int64(binary.BigEndian.Uint64(k[1:])) < before
		return false
	})
	return due
}
