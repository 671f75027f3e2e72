// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"slices"
	"time"

	"orca/jobs/machine"
)

// anyone is the queue of work that every worker may take.
const anyone = 0

// rehomeLot caps how many lonely promises are looked after at one time.
const rehomeLot = 64

// work is one task or promise.
type work struct {
	files    []uint64 // of a repair
	key      machine.Key
	job      uint64
	version  uint32   // of a promise
	holders  []uint64 // who may take it; none: anyone
	attempts uint32
	err      string

	since    time.Time // queued; for rehoming
	worker   uint64    // that leases it; 0: none
	deadline time.Time // of the lease
	paused   time.Time // not before; zero: queued
	bytes    int64     // progress
	gone     bool      // finished: still in some queue
}

// queue is all open work. Work is in the queue of each worker that may take
// it; what was taken or finished through another one is passed over.
type queue struct {
	works  map[machine.Key]*work
	lines  map[uint64][]*work
	leased map[machine.Key]*work
	paused map[machine.Key]*work
}

func newQueue() *queue {
	return &queue{
		works: map[machine.Key]*work{}, lines: map[uint64][]*work{},
		leased: map[machine.Key]*work{}, paused: map[machine.Key]*work{},
	}
}

// add queues new work; a newer version of a promise takes the older one's
// place, also while that is being worked on.
func (q *queue) add(w *work, now time.Time) {
	if old := q.works[w.key]; old != nil {
		if old.version == w.version {
			return
		}
		q.remove(old)
	}
	q.works[w.key] = w
	q.line(w, now)
}

// line puts work where its takers find it.
func (q *queue) line(w *work, now time.Time) {
	w.worker, w.bytes, w.paused, w.since = 0, 0, time.Time{}, now
	if len(w.holders) == 0 {
		q.lines[anyone] = append(q.lines[anyone], w)
	}
	for _, h := range w.holders {
		q.lines[h] = append(q.lines[h], w)
	}
}

// remove ends work.
func (q *queue) remove(w *work) {
	w.gone = true
	if q.works[w.key] == w {
		delete(q.works, w.key)
	}
	if q.leased[w.key] == w {
		delete(q.leased, w.key)
	}
	if q.paused[w.key] == w {
		delete(q.paused, w.key)
	}
}

// take leases up to n pieces to a worker.
func (q *queue) take(worker uint64, n int, until time.Time) []*work {
	var out []*work
	for _, line := range []uint64{worker, anyone} {
		ws := q.lines[line]
		i := 0
		for ; i < len(ws) && len(out) < n; i++ {
			w := ws[i]
			if w.gone || w.worker != 0 || !w.paused.IsZero() {
				continue
			}
			q.lease(w, worker, until)
			out = append(out, w)
		}
		if ws = ws[i:]; len(ws) == 0 {
			delete(q.lines, line)
		} else {
			q.lines[line] = ws
		}
	}
	return out
}

func (q *queue) lease(w *work, worker uint64, until time.Time) {
	w.worker, w.deadline, w.paused = worker, until, time.Time{}
	q.leased[w.key] = w
	delete(q.paused, w.key)
}

// renew prolongs the lease of a worker, or gives it one on work that it does
// already (after a failover); false: it is to drop it.
func (q *queue) renew(k machine.Key, version uint32, worker uint64, bytes int64, until time.Time) bool {
	w := q.works[k]
	if w == nil || w.version != version || w.worker != 0 && w.worker != worker {
		return false
	}
	q.lease(w, worker, until)
	w.bytes = bytes
	return true
}

// pause takes the lease away until a time.
func (q *queue) pause(w *work, until time.Time) {
	delete(q.leased, w.key)
	w.worker, w.bytes, w.paused = 0, 0, until
	q.paused[w.key] = w
}

// expire ends leases whose workers are silent.
func (q *queue) expire(now time.Time) int {
	n := 0
	for k, w := range q.leased {
		if now.After(w.deadline) {
			delete(q.leased, k)
			w.attempts++
			q.line(w, now)
			n++
		}
	}
	return n
}

// release queues what has paused long enough.
func (q *queue) release(now time.Time) {
	for k, w := range q.paused {
		if now.After(w.paused) {
			delete(q.paused, k)
			q.line(w, now)
		}
	}
}

// lonely returns promises that no holder came for in time.
func (q *queue) lonely(now time.Time, after time.Duration) []*work {
	var out []*work
	for line, ws := range q.lines {
		if line == anyone || len(ws) == 0 || now.Sub(ws[0].since) < after {
			continue
		}
		for _, w := range ws {
			if !w.gone && w.worker == 0 && w.paused.IsZero() && now.Sub(w.since) >= after && len(out) < rehomeLot {
				w.since = now
				out = append(out, w)
			}
		}
	}
	return out
}

// alsoFor lets further workers take it.
func (q *queue) alsoFor(w *work, workers []uint64) {
	if w.gone || w.worker != 0 {
		return
	}
	for _, id := range workers {
		if !slices.Contains(w.holders, id) {
			w.holders = append(w.holders, id)
			q.lines[id] = append(q.lines[id], w)
		}
	}
}
