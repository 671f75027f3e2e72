// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package tiers is the contract of a worker's block store. Its rooms, in
// reading order: blockfile (bytes and index of one block on disk), evict and
// alloc (pure policies), dir (one storage directory), tiered (the composed
// store: place, pin, watermark, recover), readthrough (miss → UFS once per
// page → cache and reply), writeback (private files of writers → upload, seal,
// adopt). tiers/tiertest is the suite of Store.
//
// A block is immutable: grains are added until it is complete, never changed;
// it is evicted by leaving the index, waiting for pins, and unlink.
package tiers

import (
	"context"
	"os"

	"orca"
	"orca/dataplane"
)

// Meta describes one block in a store.
type Meta struct {
	ID       orca.BlockID
	Tier     orca.Tier
	Length   int64 // of the block when complete
	Cached   int64 // bytes present
	Complete bool
	// Dirty blocks are the only copy: never evicted, fsynced.
	Dirty  bool
	Pinned bool
}

// Usage is the state of one tier directory.
type Usage struct {
	Tier     orca.Tier
	Dir      string
	Capacity int64
	Used     int64
	Blocks   int64
	Healthy  bool
}

// Store keeps blocks. It is safe for concurrent use.
type Store interface {
	// Get pins a range that is wholly or partly present: the extent covers
	// the longest present run of grains from off, at most n bytes. NotFound
	// when the grain at off is absent.
	Get(id orca.BlockID, off, n int64) (dataplane.Extent, error)
	// Descriptor re-opens a complete block read-only. NotFound, Unsupported
	// (partial).
	Descriptor(ctx context.Context, id orca.BlockID) (*os.File, int64, uint64, error)
	// Begin returns a filler of the block, creating it with this length in a
	// directory that has room (evicting is not done in line: NoSpace).
	Begin(id orca.BlockID, length int64) (Filler, error)
	// Adopt takes ownership of a private file as a complete block: it is
	// moved (renamed) into the store with the sums given, and fsynced with its
	// index and directory when dirty. path must be in a directory handed out
	// by Scratch.
	Adopt(id orca.BlockID, path string, length int64, sums []uint32, dirty bool) error
	// Scratch reserves bytes in a tier directory and returns a folder in it
	// for private files; release returns what was not adopted. NoSpace.
	Scratch(bytes int64, durable bool) (dir string, tier orca.Tier, release func(), err error)
	// Clean marks a dirty block as persisted: evictable from now on.
	Clean(id orca.BlockID) error
	// Pin keeps a file's blocks from eviction, or no longer.
	Pin(file orca.Ino, pinned bool)
	// Remove unlinks a block as soon as no pin holds it. NotFound.
	Remove(id orca.BlockID) error
	// RemoveFile removes all blocks of a file but those of version keep
	// (0: all).
	RemoveFile(file orca.Ino, keep uint32)
	// Stat returns one block. NotFound.
	Stat(id orca.BlockID) (Meta, error)
	// Each calls fn for every block until it returns false.
	Each(fn func(Meta) bool)
	// Usage returns one element per directory.
	Usage() []Usage
	// Changes returns the files whose blocks were added or removed since the
	// cursor, for the worker's report to the metaplane; full is true when the
	// cursor is too old and Each must be used.
	Changes(cursor uint64) (files []FileReport, next uint64, full bool)
	// Close flushes the index and stops background work.
	Close() error
}

// FileReport says how much of one version of a file is held here.
type FileReport struct {
	File     orca.Ino
	Version  uint32
	Cached   int64 // bytes; 0: nothing any more
	Complete []uint32
	Tier     orca.Tier
	Dirty    bool
}

// Filler adds grains to one block. Several may exist for one block.
type Filler interface {
	// Missing returns the first absent range within [off, off+n), grain
	// aligned (the last grain may be short); n 0 when nothing is missing.
	Missing(off, n int64) (moff, mn int64)
	// WriteGrains stores whole grains at a grain-aligned off, with sums
	// computed from p; the block is complete when its last grain is there.
	// Grains already present are left as they are.
	WriteGrains(p []byte, off int64) error
	// Close ends the filler; what was written stays.
	Close() error
}
