// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapRoom is how much garbage may wait to be collected, in bytes, or a
	// quarter of what is in use if that is more. Go's own rule is as much as is in
	// use: a namespace of ten million inodes would have twice its memory.
	heapRoom = 128 << 20
	// heapPercent is Go's default, and the most: small heaps keep it.
	heapPercent = 100
	heapEvery   = 2 * time.Second
	// freeEvery is how often memory that is not used may be given back at once:
	// that costs a collection, and faults when it is needed again.
	freeEvery = time.Minute
)

// boundHeap holds the garbage of a process with a large namespace to heapRoom
// until ctx ends, and gives back what the garbage of a start has left, which reads
// the journal: Go itself gives back slowly, and not all. Whoever sets GOGC to
// something else has the last word.
func boundHeap(ctx context.Context) {
	now := debug.SetGCPercent(heapPercent)
	if now != heapPercent {
		debug.SetGCPercent(now)
		return
	}
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	var freed time.Time
	tick := time.NewTicker(heapEvery)
	defer tick.Stop()
	for {
		metrics.Read(heap)
		live := heap[0].Value.Uint64()
		if want := gcPercent(live); want != now {
			now = want
			debug.SetGCPercent(now)
		}
		if heap[1].Value.Uint64() > idleRoom(live) && time.Since(freed) >= freeEvery {
			debug.FreeOSMemory()
			freed = time.Now()
		}
		select {
		case <-ctx.Done():
			debug.SetGCPercent(heapPercent)
			return
		case <-tick.C:
		}
	}
}

// gcPercent is the garbage collector's percentage for a heap with so many bytes
// in use; in steps, for each change is a collection.
func gcPercent(live uint64) int {
	const step = 10
	p := heapPercent
	if live > heapRoom {
		p = int(heapPercent * heapRoom / live)
	}
	return max(p/step*step, 30)
}

// idleRoom is how much memory may lie unused between two collections, with so many
// bytes in use: what may be garbage, and half as much.
func idleRoom(live uint64) uint64 {
	return max(heapRoom, live*uint64(gcPercent(live))/100) * 3 / 2
}
