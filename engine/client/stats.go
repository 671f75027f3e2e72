// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import "sync/atomic"

// Stats counts what an FS did. Fields only grow.
type Stats struct {
	LocalReads, LocalBytes   atomic.Int64 // through a descriptor
	RangeReads, RangeBytes   atomic.Int64 // through a worker
	DomainReads, DomainBytes atomic.Int64 // of what a worker on this node sent: over its Unix socket
	PrefetchedBytes          atomic.Int64 // asked for ahead of the reader
	Failovers                atomic.Int64 // a worker failed and another was asked
	WriteFailovers           atomic.Int64 // the worker that a file was written to failed, and another went on
	Hedges, HedgesWon        atomic.Int64 // reads sent to a second worker; of these, those that it answered first
	Refreshes                atomic.Int64 // grants and locations asked again
	WrittenBytes             atomic.Int64
	Published                atomic.Int64 // completed versions
	SessionsExpired          atomic.Int64
	WatchLost                atomic.Int64 // times all caches had to be dropped
	DescriptorHits, Descrips atomic.Int64 // descriptor cache hits; descriptors received
	LeasesRenewed            atomic.Int64 // a descriptor's worker vouched for it again
	LeasesEnded              atomic.Int64 // it did not: the block left, or has another file
	MappedViews, MappedBytes atomic.Int64 // lent without a copy
	CopiedViews, CopiedBytes atomic.Int64
}

// Held says what an FS holds at the moment.
type Held struct {
	Views       int // not released yet
	Mappings    int // blocks mapped into this process
	Descriptors int // open block descriptors, in the cache or in Files
}

// Held returns what the FS holds at the moment; a program that has released
// its views and closed its files and the FS holds nothing.
func (fs *FS) Held() Held {
	return Held{Views: fs.views.count(), Mappings: fs.descs.maps.count(), Descriptors: fs.descs.leases.count()}
}

// Stats returns the live counters of the FS.
func (fs *FS) Stats() *Stats { return &fs.core.stats }
