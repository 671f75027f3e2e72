// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import "sync/atomic"

// Stats counts what an FS did. Fields only grow.
type Stats struct {
	LocalReads, LocalBytes   atomic.Int64 // through a descriptor
	RangeReads, RangeBytes   atomic.Int64 // through a worker
	PrefetchedBytes          atomic.Int64 // asked for ahead of the reader
	Failovers                atomic.Int64 // a worker failed and another was asked
	Refreshes                atomic.Int64 // grants and locations asked again
	WrittenBytes             atomic.Int64
	Published                atomic.Int64 // completed versions
	SessionsExpired          atomic.Int64
	WatchLost                atomic.Int64 // times all caches had to be dropped
	DescriptorHits, Descrips atomic.Int64 // descriptor cache hits; descriptors received
}

// Stats returns the live counters of the FS.
func (fs *FS) Stats() *Stats { return &fs.core.stats }
