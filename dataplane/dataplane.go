// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package dataplane is the contract of moving bytes between hosts and between
// processes of one host. Its rooms, in reading order: frame (the header of
// every message), transport (connections on netpoll; owner of netpoll and
// bytebufferpool), shortcircuit (descriptor passing), blockserver and
// blockclient (the block service and its stub).
//
// The dataplane knows neither files nor caches. It serves whatever satisfies
// Blocks, as net/http serves a Handler; the tiers room satisfies it.
package dataplane

import (
	"context"
	"io"
	"os"
	"time"

	"orca"
)

// Extent is a range of a sealed or partially filled, immutable block file,
// ready for sendfile, or of one that cannot be read as it is (encrypted), in
// memory. Release must be called once; until then the block is not unlinked
// (eviction waits), and File stays open, or Data stays as it is.
type Extent struct {
	File *os.File // nil: Data
	Data []byte   // the N bytes, when there is no File
	Off  int64    // offset in File, or that Data has in the block
	// N is how many bytes are there from Off. Fewer than asked only up to a
	// grain boundary (what is cached ends), or at the end of the block; 0 only
	// at or after the end of the block.
	N int64
	// Sums are the CRC32C of each orca.GrainSize grain that [Off, Off+N)
	// touches, grain-aligned within the block; SumOff is the offset in File of
	// the first such grain. The receiver verifies whole grains; a sender
	// aligns ranges to grains so that this is all of them.
	Sums   []uint32
	SumOff int64
	// Generation of the block that File is, equal to that of Descriptor and
	// Share; 0 when File, or Data, is of this extent alone.
	Generation uint64
	Release    func()
}

// ReadAt reads bytes of the extent into p: as of File, from offset off of it.
func (e *Extent) ReadAt(p []byte, off int64) (int, error) {
	if e.File != nil {
		return e.File.ReadAt(p, off)
	}
	at := off - e.Off
	if at < 0 || at > int64(len(e.Data)) {
		return 0, io.EOF
	}
	n := copy(p, e.Data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// ReadRequest asks for bytes [Off, Off+N) of one block.
type ReadRequest struct {
	ID    orca.BlockID
	Off   int64 // within the block
	N     int64
	Type  orca.ReadType
	Grant Grant
	// Sequential hints that the reader goes on after this range: the worker
	// reads ahead on a miss.
	Sequential bool
	// OnlyCached asks for what is held here and nothing more: NotFound on a
	// miss. Workers that fill from each other set it, so that two of them
	// never wait for one another.
	OnlyCached bool
	// Direct asks a worker that has to fetch to do so from the store below or
	// from who holds the data, not through another worker that would fetch.
	Direct bool
	// Own has the worker that is asked fetch what it lacks as with Direct, for it
	// is the one that is to have a copy. It is not refused for load, as what other
	// workers ask for may be. It does not travel.
	Own bool
	// Verify asks the worker to check the sums of the range before it serves
	// it: set by a receiver that has just seen a bad grain.
	Verify bool
	// Whole asks Open to answer when all of the range is there, as far as one
	// flight brings it, rather than with its first bytes.
	Whole bool
	// Patience bounds how long a remote worker may take before a Reader gives
	// up with Timeout, so that another worker can be asked; 0 leaves it to the
	// Reader's own limits. It does not travel.
	Patience time.Duration
	// Ahead says that the reader goes on behind the range: a Reader may have up
	// to so many bytes more under way when it returns, but none from Until on,
	// which is where the block ends or the reader does. They do not travel.
	Ahead, Until int64
}

// Grant is the right to read (or write) one version of one file, made by the
// metaplane at open and checked by every worker. Token is the MAC over the
// other fields under the cluster's grant key.
type Grant struct {
	File    orca.Ino
	Version uint32
	UID     uint32
	Write   bool
	Expiry  time.Time
	Token   []byte
}

// Blocks is what a block server serves. It is safe for concurrent use.
type Blocks interface {
	// Open returns an extent that starts at req.Off, filling it from the UFS
	// when it is not cached (one flight per page, first bytes as soon as they
	// are there: N may be shorter than asked, never 0 before the end of the
	// block). NotFound, Stale (the UFS object changed under this version),
	// LostData, Corrupt (after quarantine and when no other source exists),
	// Permission (bad grant), Timeout.
	Open(ctx context.Context, req ReadRequest) (Extent, error)
	// Descriptor returns a read-only descriptor of a complete, sealed,
	// verified block for a reader on the same host. The caller closes it.
	// Unsupported when the block is partial (fall back to Open), NotFound.
	Descriptor(ctx context.Context, id orca.BlockID, g Grant) (f *os.File, length int64, generation uint64, err error)
	Writes
}

// WriteTarget says what a write session is for; it comes from the metaplane's
// Create reply unchanged.
type WriteTarget struct {
	Session  uint64 // metaplane write session; also the upload token
	Fence    uint64
	File     orca.Ino
	Version  uint32
	Type     orca.WriteType
	MountID  uint32 // 0: nothing to persist to
	UFSKey   string // key within the mount's UFS
	Mode     uint32
	UID, GID uint32
	// BlockSize of the file once sealed if longer than WholeMax; a file of at
	// most WholeMax bytes becomes one block.
	BlockSize int64
	WholeMax  int64
	Replicas  uint32
	Grant     Grant
	// Expect is the upload's ufs.WriteHint.Expect, from the metaplane's session:
	// Seal is a Conflict when the UFS object is another one.
	Expect string

	// Chain are the workers on which further copies may be made, best first:
	// Replicas counts those of this worker and of them together.
	Chain []Link
	// Linked says that another worker writes through this one: the copy is
	// adopted and nothing is uploaded. Seal refuses (Corrupt) what is not
	// WantLength bytes of the checksum WantCRC, and (NoSpace) to keep a copy of
	// ASYNC_THROUGH that is not durable.
	Linked     bool
	WantCRC    uint32
	WantLength int64
	// Takeover says that the worker that was to seal this failed: what it has
	// uploaded so far is not touched.
	Takeover bool
}

// Link is a worker of a chain: one that keeps a copy of what is written through
// the worker before it. Handle is that of its private file, once it has one.
type Link struct {
	Worker uint64
	Addr   string
	Handle uint64
}

// SealResult describes a sealed file.
type SealResult struct {
	Length      int64
	BlockSize   int64  // what the metaplane must record
	Fingerprint string // of the committed UFS object; "" if none was written
	UFSMtime    time.Time
	// Copies and Durable say where the data is: on how many workers, and
	// whether each of these copies is fsynced on a durable tier.
	Copies  int
	Durable bool
	CRC32C  uint32 // of the whole content
	// Holders are the other workers that have one of Copies.
	Holders []uint64
}

// Reader reads ranges of blocks into the caller's memory.
type Reader interface {
	// ReadAt fills p from req.Off of block req.ID (req.N is not used). n is
	// less than len(p) only with an error, which is io.EOF at the end of the
	// block. Corrupt when what arrived does not match its checksums; the errors
	// of Blocks.Open; of a remote worker also Unavailable.
	ReadAt(ctx context.Context, req ReadRequest, p []byte) (n int, err error)
}

// Access is one worker as its clients see it, in this process
// (blockclient.Local) or in another (blockclient.Client). Descriptor and
// WriteFile answer Unsupported where descriptors cannot be passed.
type Access interface {
	Reader
	Descriptor(ctx context.Context, id orca.BlockID, g Grant) (f *os.File, length int64, generation uint64, err error)
	Writes
}

// BlockInfo says what a worker has of one block.
type BlockInfo struct {
	Length   int64 // of the block when complete
	Cached   int64 // bytes present
	Complete bool
	Tier     orca.Tier
}

// Informer is optional for Blocks: it describes a block without reading it.
type Informer interface {
	// BlockInfo returns NotFound when nothing of the block is here.
	BlockInfo(ctx context.Context, id orca.BlockID) (BlockInfo, error)
}

// Holder is optional for Blocks: it serves what is here without waiting for
// anything.
type Holder interface {
	// Held is Open of a range of which at least the beginning is here, and for
	// which no file has to be opened and nothing verified; else false.
	Held(req ReadRequest) (Extent, bool)
}

// Maker is optional for Blocks: it knows which extents are made for one reader.
type Maker interface {
	// InMemory reports whether extents of a block that is here are not of its
	// file but in memory until Release. A server has few of them at a time for
	// each of its connections, so that slow readers do not hold all there is.
	InMemory(id orca.BlockID) bool
}

// Sharer is optional for Blocks: it lets readers on the same host read a block
// in place while it is filled.
type Sharer interface {
	// Share is Descriptor of a block that may be partial: of the file only what
	// an extent of the same generation covers may be read.
	Share(ctx context.Context, id orca.BlockID, g Grant) (f *os.File, length int64, generation uint64, err error)
}

// Writes is the write half of Blocks. A write handle is a private file on the
// worker: nobody reads, checksums, exports or replicates it before Seal.
type Writes interface {
	// CreateWrite makes the private file; id names the handle on this worker.
	// NoSpace when no tier can take it.
	CreateWrite(ctx context.Context, t WriteTarget) (id uint64, err error)
	// WriteFile returns the private file opened for writing, for a client on
	// the same host (passed by descriptor). The caller closes it.
	WriteFile(ctx context.Context, id uint64) (*os.File, error)
	// WriteAt writes p at off, for a client on another host.
	WriteAt(ctx context.Context, id uint64, p []byte, off int64) error
	// Truncate sets the length.
	Truncate(ctx context.Context, id uint64, length int64) error
	// Sync makes what was written durable without publishing it.
	Sync(ctx context.Context, id uint64) error
	// Seal checksums the private file, uploads it where the write type says
	// so (prepare, then commit), adopts it as blocks (or copies it, when a
	// writer may still exist), and returns what Complete needs. keep leaves
	// the handle usable for further writes and another Seal under a new
	// target. Corrupt, NoSpace, ReadOnly, Conflict and the UFS's own kinds.
	Seal(ctx context.Context, id uint64, t WriteTarget, keep bool) (SealResult, error)
	// Abort drops the private file.
	Abort(ctx context.Context, id uint64) error
}

// Chains is optional for Writes: private files that further workers keep a copy
// of while they are written, each fed by the one before it.
//
//	client ─► first ─► second ─► third
//	client ◄─ first ◄─ second ◄─ third     when all that are left have it
//
// A worker of the chain that fails is left out from then on, with those behind
// it; Seal looks for others in its place.
type Chains interface {
	// CreateChain is CreateWrite on this worker and on t.Replicas-1 of t.Chain.
	// links are those that were made, nearest first: fewer, when no more take
	// part, is no error.
	CreateChain(ctx context.Context, t WriteTarget) (id uint64, links []Link, err error)
	// WriteChain is WriteAt of p, of which sums are the CRC32C of each
	// orca.GrainSize bytes from its start; nil is not checked. Corrupt when
	// they differ. copies is how many workers, from this one on, have
	// everything that was ever written; an empty p only asks.
	WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (copies int, err error)
	// Resume makes calls about a handle possible that another worker made for
	// this chain, with the grant of its target.
	Resume(id uint64, g Grant)
}
