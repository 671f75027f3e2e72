// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"sync"
	"time"
)

const (
	// farAfter is how long a store takes at least from being asked to its
	// first byte to count as far.
	farAfter = 15 * time.Millisecond
	// farPart is what one GET of a far store fetches for a reader in order: a
	// few of the windows of a connection, so that the wait for the first byte
	// is small beside the rest, and a read-ahead holds several.
	farPart = 8 << 20
)

// latencies remembers how long the store of each mount takes to answer a GET.
type latencies struct {
	mu sync.Mutex
	m  map[uint32]time.Duration // GUARDED_BY(mu)
}

// note counts a GET. The best of late counts: a slow answer may be that of a
// busy store, or of a connection that had to be made.
func (l *latencies) note(mount uint32, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[uint32]time.Duration{}
	}
	if was, ok := l.m[mount]; ok && d > was {
		d = was + (d-was)/16
	}
	l.m[mount] = d
}

// far reports whether several connections to the store of a mount are faster
// than one.
func (l *latencies) far(mount uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.m[mount] >= farAfter
}
