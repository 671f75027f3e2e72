// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workers

import (
	"context"
	"slices"

	"orca"
	"orca/metaplane/metapb"
)

// orderQueue keeps one worker's orders in order of arrival; a newer order of
// the same kind for a file replaces the older one in place. To pin and to unpin
// are of one kind; to keep a copy as long as there is room (PIN with a version)
// is another.
type orderQueue struct {
	list []*metapb.WorkerOrder
	at   map[orderKey]int // index in list
}

type orderKey struct {
	kind metapb.WorkerOrder_Kind
	file uint64
	soft bool
}

func keyOf(o *metapb.WorkerOrder) orderKey {
	k := orderKey{kind: o.Kind, file: o.File}
	switch o.Kind {
	case metapb.WorkerOrder_PIN, metapb.WorkerOrder_UNPIN:
		k.kind, k.soft = metapb.WorkerOrder_PIN, o.Version > 0
	}
	return k
}

func (q *orderQueue) add(o *metapb.WorkerOrder, limit int) bool {
	k := keyOf(o)
	if i, ok := q.at[k]; ok {
		if o.Kind == metapb.WorkerOrder_FREE_FILE && q.list[i].Version == 0 {
			return true // the file is deleted: that order says more
		}
		q.list[i] = o
		return true
	}
	if len(q.list) >= limit {
		return false
	}
	if q.at == nil {
		q.at = map[orderKey]int{}
	}
	q.at[k] = len(q.list)
	q.list = append(q.list, o)
	return true
}

func (q *orderQueue) take(n int) []*metapb.WorkerOrder {
	if n >= len(q.list) {
		out := q.list
		q.list, q.at = nil, nil
		return out
	}
	out := slices.Clone(q.list[:n])
	rest := slices.Clone(q.list[n:])
	q.list, q.at = nil, nil
	for _, o := range rest {
		q.add(o, len(rest))
	}
	return out
}

// OrderHolders queues an order for every worker on record as holding any
// version of the file.
func (r *Registry) OrderHolders(kind metapb.WorkerOrder_Kind, ino orca.Ino, version uint32) {
	s := r.shard(ino)
	s.mu.RLock()
	var ids []uint64
	if h := s.files[ino]; h != nil {
		for _, x := range h.held {
			if !slices.Contains(ids, x.worker) {
				ids = append(ids, x.worker)
			}
		}
	}
	s.mu.RUnlock()
	r.Order(ids, kind, ino, version)
}

// Free has every worker drop the clean blocks of a file whose version is given:
// those on record as holding it, and those whose next report says so. What was
// read a moment ago is on no record yet.
func (r *Registry) Free(ino orca.Ino, version uint32) {
	r.mu.Lock()
	r.freed.add(uint64(ino), version)
	r.mu.Unlock()
	r.OrderHolders(metapb.WorkerOrder_FREE_FILE, ino, version)
}

// Freed waits until every live worker has dropped what Free has been called for
// so far, or ctx ends; not for one whose link is lost, which has died or hears
// of it when it is back. An order that is carried out later than its Free is
// acknowledged would also drop what was read since.
func (r *Registry) Freed(ctx context.Context) error {
	r.mu.Lock()
	n := r.freed.next
	r.mu.Unlock()
	for {
		r.mu.Lock()
		now := r.cfg.Now()
		behind := slices.ContainsFunc(r.order, func(w *worker) bool { return w.obeyed < n && !w.cut && r.liveLocked(w, now) })
		if r.carried == nil {
			r.carried = make(chan struct{})
		}
		carried := r.carried
		r.mu.Unlock()
		if !behind {
			return nil
		}
		select {
		case <-carried:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// carriedLocked wakes those who wait in Freed.
func (r *Registry) carriedLocked() {
	if r.carried != nil {
		close(r.carried)
		r.carried = nil
	}
}

// freedCap is how many freed files are remembered; of what is freed beyond, the
// blocks that were not on record are evicted in time.
const freedCap = 1 << 16

// freedFiles is a ring of the files that were freed last, numbered.
type freedFiles struct {
	ring []uint64
	next uint64 // number of the next one
	of   map[uint64]freedFile
}

type freedFile struct {
	number  uint64
	version uint32
}

func (f *freedFiles) add(ino uint64, version uint32) {
	if f.of == nil {
		f.of, f.ring = map[uint64]freedFile{}, make([]uint64, freedCap)
	}
	at := f.next % freedCap
	if old := f.ring[at]; f.next >= freedCap && f.of[old].number == f.next-freedCap {
		delete(f.of, old)
	}
	f.ring[at] = ino
	f.of[ino] = freedFile{f.next, version}
	f.next++
}

// freeLateLocked adds orders for the files of a report that were freed since the
// worker's last one; more says that the report goes on.
func (r *Registry) freeLateLocked(w *worker, files []*metapb.FileReport, more bool) {
	for _, f := range files {
		if e, ok := r.freed.of[f.File]; ok && e.number >= w.freed && f.Cached > 0 {
			o := &metapb.WorkerOrder{Kind: metapb.WorkerOrder_FREE_FILE, File: f.File, Version: e.version}
			if !w.orders.add(o, r.cfg.MaxOrders) {
				r.Stats.OrdersDropped.Add(1)
			}
		}
	}
	if !more {
		w.freed = r.freed.next
	}
}

// OrderAll queues an order for every known worker: pins concern also those
// that hold nothing yet.
func (r *Registry) OrderAll(kind metapb.WorkerOrder_Kind, ino orca.Ino, version uint32) {
	r.mu.RLock()
	ids := make([]uint64, 0, len(r.workers))
	for id := range r.workers {
		ids = append(ids, id)
	}
	r.mu.RUnlock()
	r.Order(ids, kind, ino, version)
}

// Order queues an order for the workers given.
func (r *Registry) Order(ids []uint64, kind metapb.WorkerOrder_Kind, ino orca.Ino, version uint32) {
	if len(ids) == 0 {
		return
	}
	o := &metapb.WorkerOrder{Kind: kind, File: uint64(ino), Version: version}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if w := r.workers[id]; w != nil && !w.orders.add(o, r.cfg.MaxOrders) {
			r.Stats.OrdersDropped.Add(1)
		}
	}
}

// DropOrders forgets all orders: another node gives them from now on.
func (r *Registry) DropOrders() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.workers {
		w.orders = orderQueue{}
	}
}
