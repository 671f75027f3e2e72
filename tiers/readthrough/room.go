// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"sync"
	"sync/atomic"
	"time"
)

// noRoom remembers for a while that no tier had room for a block: those that are
// as long are passed on uncached meanwhile, without each waiting for room itself.
// A shorter one may fit, above all when the other is too long for any directory:
// who reads that all the time must not keep everything else out of the cache.
type noRoom struct {
	until atomic.Int64 // unix ns; 0: nothing was refused

	mu     sync.Mutex
	length int64 // of the shortest block that was refused; GUARDED_BY(mu)
}

// lacking reports whether some block was refused a moment ago.
func (r *noRoom) lacking() bool { return time.Now().UnixNano() < r.until.Load() }

// lacks reports whether a block of this length would be refused, too.
func (r *noRoom) lacks(length int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return length >= r.length && r.lacking()
}

// refused notes that there was no room for a block, for so long.
func (r *noRoom) refused(length int64, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.lacking() || length < r.length {
		r.length = length
	}
	r.until.Store(time.Now().Add(wait).UnixNano())
}
