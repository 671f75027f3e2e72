// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package tiered is a worker's block store over several tier directories: it
// places blocks, pins what readers hold, evicts by watermark, and recovers
// after a restart. It satisfies tiers.Store.
//
//	fill   Begin → alloc picks a directory → WriteGrains → index
//	hit    Get → pin → Extent → Release
//	write  Reserve → private file → Adopt (rename; fsync when dirty)
//	evict  leave the map and the index → wait for pins → unlink → quota returns
//
// Nothing is evicted in the caller's goroutine. Who needs room asks for it,
// and waits at most Config.RoomWait while the background makes it. A clean
// block that leaves a tier moves to a slower one when nobody is waiting and
// there is room for it, and one that is used much more than what would leave a
// faster tier takes its place there: by one mover, at most at Config.MoveRate.
// The index of the directory that it moves to has it before the other one's
// loses it: after a crash it is in one of them, or in both, and then the faster
// one keeps it. Who waits for room never waits for a copy.
//
// Blocks recovered from an index are not trusted: each grain is checked
// against its CRC32C before it is first served. A clean block with a bad grain
// is dropped as a whole and its file unlinked, never mended; of a dirty block,
// the only copy, only the bad grain is refused (Corrupt).
//
// Goroutines: run (reap, evict, compact), moveLoop (copies), flush (index buffers), one sweep per
// directory at start; Close ends them. Lock order: block.fill → block.open →
// Store.mu → index; no I/O happens under Store.mu.
package tiered

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane/timing"
	"orca/tiers"
	"orca/tiers/alloc"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/evict"
)

// Config is the whole configuration of a store.
type Config struct {
	// Dirs are the directories, in any order. One that does not open is
	// reported unhealthy and left out; at least one must open.
	Dirs []dir.Config
	// Marks are the watermarks of background eviction (default
	// evict.DefaultMarks).
	Marks evict.Marks
	// RoomWait bounds how long a caller waits for eviction (default 2 s).
	RoomWait time.Duration
	// MaxOpen bounds the block files that stay open while nobody reads them
	// (default 4096).
	MaxOpen int
	// MaxDecrypted bounds the extents of encrypted directories that are in
	// memory, of 1 MiB each, until their readers have them (default 256). Who
	// wants one more waits for at most RoomWait, then Busy.
	MaxDecrypted int
	// MoveRate bounds in bytes per second how fast blocks are copied between
	// tiers (default 256 MiB/s); negative: none is, and what leaves is dropped.
	MoveRate int64
	// Alloc names the allocator of new blocks (package alloc).
	Alloc string
	// FlushEvery is the period of writing buffered index records (default
	// 100 ms). Records of dirty blocks are written and synced at once.
	FlushEvery time.Duration
	// Policy names the eviction policy of every directory (package evict).
	Policy string
	// Ops are the file operations (default blockfile.OS).
	Ops blockfile.Ops
}

func (c Config) withDefaults() Config {
	if c.MoveRate == 0 {
		c.MoveRate = 256 << 20
	}
	if c.Marks == (evict.Marks{}) {
		c.Marks = evict.DefaultMarks
	}
	if c.RoomWait == 0 {
		c.RoomWait = 2 * time.Second
	}
	if c.MaxOpen == 0 {
		c.MaxOpen = 4096
	}
	if c.MaxDecrypted == 0 {
		c.MaxDecrypted = 256
	}
	if c.FlushEvery == 0 {
		c.FlushEvery = 100 * time.Millisecond
	}
	if c.Ops == nil {
		c.Ops = blockfile.OS{}
	}
	return c
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	const op = "tiered.Config"
	c = c.withDefaults()
	switch {
	case len(c.Dirs) == 0:
		return orca.E(op, orca.Invalid, "no tier directory")
	case !c.Marks.Valid():
		return orca.E(op, orca.Invalid, "watermarks must be 0 < low <= high <= 1")
	case c.MaxOpen < 1 || c.MaxDecrypted < 1 || c.RoomWait < 0 || c.FlushEvery < 0:
		return orca.E(op, orca.Invalid, "negative limit")
	}
	if _, err := evict.New(c.Policy); err != nil {
		return err
	}
	if _, err := alloc.New(c.Alloc); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, d := range c.Dirs {
		if err := d.Validate(); err != nil {
			return err
		}
		if seen[d.Path] {
			return &orca.Error{Op: op, Path: d.Path, Kind: orca.Invalid, Msg: "tier directory is named twice"}
		}
		seen[d.Path] = true
	}
	return nil
}

// Metrics are counters that only grow; engine/telemetry exports them.
type Metrics struct {
	Hits     [3][Kinds]atomic.Int64 // by tier and what was given out
	HitBytes [3]atomic.Int64        // of extents
	Misses   atomic.Int64
	// Evictions are the blocks evicted, by tier and reason, Evicted all.
	Evictions    [3][Reasons]atomic.Int64
	Evicted      atomic.Int64
	EvictedBytes atomic.Int64
	// Demoted are the blocks moved to a slower tier instead, Promoted those
	// moved to a faster one. MoveWaits are the times that a copy stood back
	// for somebody who reads or fills.
	Demoted         atomic.Int64
	DemotedBytes    atomic.Int64
	Promoted        atomic.Int64
	PromotedBytes   atomic.Int64
	MoveWaits       atomic.Int64
	Drained         atomic.Int64     // blocks moved out of a directory that is removed
	MoveTime        timing.Histogram // of a block, there and on record
	Removed         atomic.Int64     // blocks, by order
	CorruptGrains   atomic.Int64
	Quarantined     atomic.Int64 // blocks
	VerifiedGrains  atomic.Int64
	ScrubbedBytes   atomic.Int64 // read by Check
	FilledBytes     atomic.Int64 // stored by fillers and adoptions
	NoSpace         atomic.Int64 // requests refused
	RoomWaits       atomic.Int64 // requests that had to wait for eviction
	RoomWaitTime    timing.Histogram
	DirFailures     atomic.Int64
	IndexDamage     atomic.Int64 // places found at start
	OrphansRemoved  atomic.Int64
	IndexCompacted  atomic.Int64
	Adopted         atomic.Int64
	DescriptorsOpen atomic.Int64 // gauge: cached block descriptors
}

// Kind is how a block was read.
type Kind uint8

// The kinds: an extent of an open file, for who reads through the worker, and
// a descriptor, with which its owner reads on without asking.
const (
	Extents Kind = iota
	Descriptors
	Decrypted // an extent in memory, of an encrypted directory
	Kinds
)

// String returns the name of the kind for metrics.
func (k Kind) String() string {
	switch k {
	case Descriptors:
		return "descriptor"
	case Decrypted:
		return "decrypted"
	}
	return "extent"
}

// Queues are what waits at this moment.
type Queues struct {
	Reap  int // blocks that have left, and whose files are to be unlinked
	Held  int // of the blocks that have left, those that readers still hold
	Moves int // blocks that wait for a verdict on their promotion, or move
	Room  int // requests that wait for room
}

// Queues returns how much waits.
func (s *Store) Queues() Queues {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := Queues{Reap: len(s.reap), Moves: len(s.hot), Room: int(s.roomWaiters.Load())}
	for _, b := range s.leaving {
		if b.pins > 0 {
			q.Held++
		}
	}
	for _, p := range s.places {
		if p.moving != nil {
			q.Moves++
		}
	}
	return q
}

// Reason is why a block was evicted.
type Reason uint8

// The reasons: the directory was over its high watermark, somebody waited for
// room, or the directory is being removed and no other one had room.
const (
	Watermark Reason = iota
	Need
	DirRemoved
	Wanted // a write needed room, and there was nothing else
	Reasons
)

// String returns the name of the reason for metrics.
func (r Reason) String() string {
	switch r {
	case Need:
		return "need"
	case DirRemoved:
		return "removed"
	case Wanted:
		return "wanted"
	}
	return "watermark"
}

// state of one directory.
type place struct {
	*dir.Dir
	policy   evict.Policy   // GUARDED_BY(Store.mu)
	wanted   *evict.LRU     // those that leave only for a write; GUARDED_BY(Store.mu)
	dormant  dormant        // GUARDED_BY(Store.mu)
	blocks   int64          // GUARDED_BY(Store.mu)
	grains   int64          // in live blocks, for the compaction estimate; GUARDED_BY(Store.mu)
	leaving  int64          // bytes of blocks that wait for reaping or pins; GUARDED_BY(Store.mu)
	last     uint64         // number of the last placement here; GUARDED_BY(Store.mu)
	placed   int64          // bytes of blocks placed here; GUARDED_BY(Store.mu)
	listed   int64          // bytes of blocks that may leave; GUARDED_BY(Store.mu)
	pins     int64          // of its blocks: who reads, fills or copies here; GUARDED_BY(Store.mu)
	moving   *block         // on its way to another directory, or nil; GUARDED_BY(Store.mu)
	rooms    int            // reservations of writers; GUARDED_BY(Store.mu)
	closing  bool           // being removed: nothing comes any more; GUARDED_BY(Store.mu)
	todo     []orca.BlockID // blocks of a closing one yet to be looked at; GUARDED_BY(Store.mu)
	stuck    error          // why one of them cannot go; GUARDED_BY(Store.mu)
	swept    chan struct{}  // closed when the sweep has ended
	want     int64          // room that somebody waits for; GUARDED_BY(Store.mu)
	waiting  int            // requests that wait for it; GUARDED_BY(Store.mu)
	force    bool           // a write is among those; GUARDED_BY(Store.mu)
	shelter  bool           // so is a block of a directory that is removed; GUARDED_BY(Store.mu)
	lastFail error          // of the index, logged once; GUARDED_BY(Store.mu)
	// adopting is held for reading from the index record of an adopted block to
	// its place in the table: a compaction that began in between would find it
	// in neither. Before Store.mu.
	adopting sync.RWMutex
	// compacting is held while the index is rewritten: it is not closed then.
	compacting sync.Mutex
}

// Store is the composed store.
type Store struct {
	Metrics Metrics

	cfg    Config
	log    *slog.Logger
	alloc  alloc.Allocator
	places []*place      // replaced, never changed, once Open has returned; GUARDED_BY(mu)
	failed []tiers.Usage // directories that did not open; GUARDED_BY(mu)
	change sync.Mutex    // one directory comes or goes at a time; before mu
	// fastest is the fastest tier that blocks may move up to.
	fastest     orca.Tier // GUARDED_BY(mu)
	roomWaiters atomic.Int64

	clear chan struct{} // one element for each extent in memory
	done  chan struct{}
	kick  chan struct{}
	moves chan struct{} // wakes the mover
	wg    sync.WaitGroup

	mu         sync.Mutex
	blocks     map[orca.BlockID]*block // GUARDED_BY(mu)
	leaving    map[fileName]*block     // wait for unlink; GUARDED_BY(mu)
	arriving   map[orca.BlockID]int    // adoptions and moves under way; GUARDED_BY(mu)
	files      map[orca.Ino]*block     // head of each file's list; GUARDED_BY(mu)
	pinned     map[orca.Ino]bool       // GUARDED_BY(mu)
	wanted     map[orca.Ino]bool       // GUARDED_BY(mu)
	reap       []*block                // to unlink; GUARDED_BY(mu)
	open       []*block                // clock of cached descriptors; GUARDED_BY(mu)
	hand       int                     // GUARDED_BY(mu)
	hot        []*block                // may deserve a faster tier; GUARDED_BY(mu)
	now        uint64                  // sequence for the policies; GUARDED_BY(mu)
	placements uint64                  // GUARDED_BY(mu)
	gen        uint64                  // last generation; GUARDED_BY(mu)
	freed      chan struct{}           // closed and replaced when quota returns; GUARDED_BY(mu)
	feed       feed                    // GUARDED_BY(mu)
	spoilt     map[orca.BlockID]bool   // quarantined and not here again; GUARDED_BY(mu)
	closed     bool                    // GUARDED_BY(mu)
}

var _ tiers.Store = (*Store)(nil)

// Open opens the directories, replays their indexes and starts the background
// work. The blocks of a directory that cannot be opened are not there.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, log: log, clear: make(chan struct{}, cfg.MaxDecrypted),
		done: make(chan struct{}), kick: make(chan struct{}, 1), moves: make(chan struct{}, 1),
		blocks: map[orca.BlockID]*block{}, leaving: map[fileName]*block{},
		arriving: map[orca.BlockID]int{}, files: map[orca.Ino]*block{}, pinned: map[orca.Ino]bool{}, wanted: map[orca.Ino]bool{},
		freed: make(chan struct{}), spoilt: map[orca.BlockID]bool{}, gen: rand.Uint64() >> 1,
	}
	var last error
	s.alloc, _ = alloc.New(cfg.Alloc) // Validate has looked at the name
	for _, dc := range cfg.Dirs {
		if err := s.openPlace(dc); err != nil {
			last = err
			s.Metrics.DirFailures.Add(1)
			s.failed = append(s.failed, tiers.Usage{Tier: dc.Tier, Dir: dc.Path})
			log.Error("tier directory left out", "tier", dc.Tier.String(), "dir", dc.Path, "err", err)
		}
	}
	if len(s.places) == 0 {
		return nil, last
	}
	s.mu.Lock()
	s.feed.reset()
	s.hot = make([]*block, 0, hotMax)
	s.rankTiersLocked()
	s.mu.Unlock()
	s.wg.Add(3)
	go s.run()
	go s.moveLoop()
	go s.flushLoop()
	for _, p := range s.places {
		p.Regain()
		s.wg.Add(1)
		go s.sweepOnce(p)
	}
	s.wake()
	return s, nil
}

// dirs returns the directories of this moment.
func (s *Store) dirs() []*place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places
}

// rankTiersLocked finds the fastest tier.
func (s *Store) rankTiersLocked() {
	s.fastest = orca.HDD
	for _, p := range s.places {
		if s.cfg.MoveRate > 0 {
			s.fastest = min(s.fastest, p.Tier)
		}
	}
}

// Usage implements tiers.Store.
func (s *Store) Usage() []tiers.Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	var us []tiers.Usage
	for _, p := range s.places {
		us = append(us, tiers.Usage{Tier: p.Tier, Dir: p.Path, Capacity: p.Quota(), Used: p.Used(), Blocks: p.blocks, Healthy: p.Healthy()})
	}
	return append(us, s.failed...)
}

// Stat implements tiers.Store.
func (s *Store) Stat(id orca.BlockID) (tiers.Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blockLocked(id)
	if b == nil {
		return tiers.Meta{}, notFound("tiered.Stat", id)
	}
	return b.metaLocked(), nil
}

// Each implements tiers.Store. fn is called without locks, for blocks that
// were there when Each was called.
func (s *Store) Each(fn func(tiers.Meta) bool) {
	s.mu.Lock()
	metas := make([]tiers.Meta, 0, len(s.blocks))
	for _, b := range s.blocks {
		metas = append(metas, b.metaLocked())
	}
	for _, p := range s.places {
		p.dormant.each(func(e *entry) {
			metas = append(metas, tiers.Meta{ID: e.id(), Tier: p.Tier, Length: e.length(), Cached: e.length(), Complete: true})
		})
	}
	s.mu.Unlock()
	for _, m := range metas {
		if !fn(m) {
			return
		}
	}
}

// Largest returns the capacity of the largest healthy directory: half of it
// bounds the length of a block.
func (s *Store) Largest() int64 {
	n := int64(0)
	for _, p := range s.dirs() {
		if p.Healthy() {
			n = max(n, p.Quota())
		}
	}
	return n
}

// Close implements tiers.Store. Extents that are still held stay readable;
// their files are not unlinked any more by this process.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.done)
	s.wg.Wait()
	s.reapAll()
	s.mu.Lock()
	var idle []*dir.File
	for _, b := range s.open {
		if b.pins == 0 && b.file != nil {
			idle = append(idle, b.file)
			b.file = nil
		}
	}
	s.open = nil
	s.mu.Unlock()
	for _, f := range idle {
		f.Close()
	}
	var first error
	for _, p := range s.dirs() {
		if err := p.Close(); err != nil && first == nil && p.Healthy() {
			first = err
		}
	}
	return first
}

// Drain waits until nothing is left to reap or evict, for tests and orderly
// shutdown.
func (s *Store) Drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		busy := len(s.reap) > 0
		for _, b := range s.leaving {
			busy = busy || b.pins == 0 // being unlinked: its quota is not back yet
		}
		for _, p := range s.places {
			busy = busy || p.want > 0 || p.moving != nil || s.excessLocked(p) > 0 && p.choosable()
		}
		ch := s.freed
		s.mu.Unlock()
		if !busy {
			return nil
		}
		s.wake()
		select {
		case <-ch:
		case <-ctx.Done():
			return orca.PathE("tiered.Drain", "", orca.Timeout, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func notFound(op string, id orca.BlockID) error {
	return &orca.Error{Op: op, Path: id.String(), Kind: orca.NotFound}
}

// wake makes the background look for work.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
