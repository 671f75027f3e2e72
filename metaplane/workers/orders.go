// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workers

import (
	"slices"

	"orca"
	"orca/metaplane/metapb"
)

// orderQueue keeps one worker's orders in order of arrival; a newer order of
// the same kind for a file replaces the older one in place.
type orderQueue struct {
	list []*metapb.WorkerOrder
	at   map[orderKey]int // index in list
}

type orderKey struct {
	kind metapb.WorkerOrder_Kind
	file uint64
}

func (q *orderQueue) add(o *metapb.WorkerOrder, limit int) bool {
	k := orderKey{o.Kind, o.File}
	if i, ok := q.at[k]; ok {
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
