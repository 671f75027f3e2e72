// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufssync

import "sync"

// recent remembers a number (a time, a count) for the keys touched last, in
// two generations: when the young one is full it becomes the old one, and the
// old one is forgotten.
type recent[K comparable] struct {
	limit int

	mu         sync.Mutex
	young, old map[K]int64
}

func newRecent[K comparable](limit int) *recent[K] {
	return &recent[K]{limit: max(limit/2, 1), young: map[K]int64{}}
}

func (r *recent[K]) get(k K) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.getLocked(k)
}

func (r *recent[K]) getLocked(k K) int64 {
	if v, ok := r.young[k]; ok {
		return v
	}
	return r.old[k]
}

func (r *recent[K]) set(k K, v int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(k, v)
}

func (r *recent[K]) setLocked(k K, v int64) {
	if len(r.young) >= r.limit {
		r.old, r.young = r.young, make(map[K]int64, r.limit/4)
	}
	r.young[k] = v
}

// count adds one and returns the sum.
func (r *recent[K]) count(k K) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.getLocked(k) + 1
	r.setLocked(k, n)
	return n
}

func (r *recent[K]) drop(k K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, k)
	delete(r.old, k)
}

func (r *recent[K]) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.young)+len(r.old) == 0
}
