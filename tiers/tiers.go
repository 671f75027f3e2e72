// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package tiers is the contract of a worker's block store. Its rooms, in
// reading order: blockfile (bytes and index of one block on disk), cryptfile (the
// same, encrypted), evict and
// alloc (pure policies), dir (one storage directory), tiered (the composed
// store: place, pin, watermark, recover), readthrough (miss → UFS once per
// page → cache and reply), writeback (private files of writers → upload, seal,
// adopt), scrub (reads every block again, on a schedule, and finds what has
// rotted). tiers/tiertest is the suite of Store.
//
// A block is immutable: grains are added until it is complete, never changed;
// it is evicted by leaving the index, waiting for pins, and unlink.
package tiers

import (
	"context"
	"os"

	"orca"
	"orca/dataplane"
	"orca/tiers/cryptfile"
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
	// the present run of grains from off, at most n bytes (fewer when grains
	// recovered from disk had to be verified first). NotFound when the grain
	// at off is absent; a clean block with a bad grain is quarantined and
	// absent from then on; a bad grain of a dirty block is Corrupt.
	Get(id orca.BlockID, off, n int64) (dataplane.Extent, error)
	// Held is Get of what needs neither a file opened nor a grain verified;
	// else false. It makes no system call.
	Held(id orca.BlockID, off, n int64) (dataplane.Extent, bool)
	// Descriptor re-opens a complete block read-only. NotFound, Unsupported
	// (partial), Corrupt (quarantined, and not here again: what an earlier
	// descriptor reads is not to be believed).
	Descriptor(ctx context.Context, id orca.BlockID) (*os.File, int64, uint64, error)
	// Begin returns a filler of the block, creating it with this length in a
	// directory that has room. It waits briefly for background eviction when
	// clean blocks exist, then NoSpace.
	Begin(ctx context.Context, id orca.BlockID, length int64) (Filler, error)
	// Reserve takes bytes of quota in a directory for private files of a
	// writer; durable excludes MEM. It waits like Begin. NoSpace.
	Reserve(ctx context.Context, bytes int64, durable bool) (Room, error)
	// Adopt takes ownership of a private file in room as a complete block: it
	// is renamed into the store, and made durable (data, index, folder) when
	// dirty. The bytes move from the room's reservation to the block, and the
	// room is grown when it holds too few. No writer of the file may exist.
	// Exists when the block is complete already: the file is left alone.
	Adopt(ctx context.Context, room Room, a Adoption) error
	// Clean marks a dirty block as persisted: evictable from now on.
	Clean(id orca.BlockID) error
	// Pin keeps a file's blocks from eviction, or no longer.
	Pin(file orca.Ino, pinned bool)
	// Remove unlinks a block as soon as no pin holds it. NotFound.
	Remove(id orca.BlockID) error
	// RemoveFile removes the blocks of a file that are older than version keep
	// (0: all). A newer version may be sealed and not yet published: it stays.
	RemoveFile(file orca.Ino, keep uint32)
	// DropClean removes the blocks of a file that are not the only copy, also
	// while they are filled.
	DropClean(file orca.Ino)
	// Recheck makes the next Get or Descriptor of a block verify its grains
	// again, as if it had been recovered from disk. NotFound.
	Recheck(id orca.BlockID) error
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
	// Flush writes down what is cached, so that the process may be killed and
	// its next life finds it; it does not wait for a disk. Without it, what was
	// filled in the last moments is forgotten by a kill. The error is of the
	// first directory that failed; the others are flushed all the same.
	Flush() error
	// Close flushes the index and stops background work.
	Close() error
}

// Adoption says what a private file is.
type Adoption struct {
	ID     orca.BlockID
	Path   string // within Room.Dir
	Length int64
	Sums   []uint32 // CRC32C of each grain; owned by the store afterwards
	Dirty  bool     // the only copy: kept until Clean
}

// Room is quota reserved for private files in the scratch folder of one tier
// directory. Files there are 0600 and are removed when the store opens.
type Room interface {
	// Dir is the folder to make private files in.
	Dir() string
	// Tier of the directory.
	Tier() orca.Tier
	// Key is what private files in an encrypted directory have to be encrypted
	// with from their first byte on (cryptfile.Private); nil: none. Adopt
	// refuses others there.
	Key() *cryptfile.Key
	// Resize sets the bytes reserved; growing waits briefly for eviction.
	// NoSpace leaves the reservation as it was.
	Resize(ctx context.Context, bytes int64) error
	// WithSpace calls do, which needs up to n of the bytes reserved, and again
	// while it fails with NoSpace (the file system is smaller than the quota)
	// and evicting clean blocks may help, briefly.
	WithSpace(ctx context.Context, n int64, do func() error) error
	// Release returns what was not adopted. It may be called more than once.
	Release()
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

// Windower is optional for a Filler: it lends memory of the block itself, into
// which a source is read without a copy.
type Windower interface {
	// Window lends at most n bytes from a grain-aligned off; nil when there is
	// no such memory: use WriteGrains. Until it is closed nobody else writes
	// these grains.
	Window(ctx context.Context, off, n int64) Window
}

// Window is absent content of a block that its owner fills in order.
type Window interface {
	// Bytes is what is not stored yet.
	Bytes() []byte
	// Store makes the first n of Bytes, whole grains, part of the block.
	Store(n int) error
	// Close gives the memory back, once; what was not stored stays absent.
	Close()
}

// Check reads one block from its medium and compares every present grain with
// its sum, in steps, past the caches of the kernel where it can. It holds the
// file, not the block: eviction goes on.
type Check interface {
	// Next verifies the next grains, as many as fit buf (at least one grain,
	// aligned to 4 KiB), and returns how many bytes it has read and how many
	// grains did not match. What did not match is quarantined as by Store.Get.
	// io.EOF at the end, also of a block that has left.
	Next(buf []byte) (n int64, bad int, err error)
	// Dirty reports whether the block is the only copy.
	Dirty() bool
	Close()
}

// Filler adds grains to one block. Several may exist for one block.
type Filler interface {
	// Missing returns the first absent range within [off, off+n), grain
	// aligned (the last grain may be short); n 0 when nothing is missing.
	Missing(off, n int64) (moff, mn int64)
	// WriteGrains stores whole grains at a grain-aligned off, with sums
	// computed from p; the block is complete when its last grain is there.
	// Grains already present are left as they are.
	// NoSpace when the directory is full and nothing in it can be evicted.
	WriteGrains(ctx context.Context, p []byte, off int64) error
	// Close ends the filler; what was written stays.
	Close() error
}
