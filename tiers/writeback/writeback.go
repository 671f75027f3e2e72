// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package writeback is the write half of dataplane.Blocks. A write handle is a
// private file in the scratch folder of a tier directory: MEM first, or a
// durable tier for ASYNC_THROUGH. Nobody reads, checksums or exports it before
// Seal:
//
//	CreateWrite → WriteFile (descriptor) or WriteAt … → Seal
//	  frozen?  no writer can exist (a read lease succeeds): the file itself
//	           else, or when the handle is kept: a copy of it
//	  upload   THROUGH, CACHE_THROUGH: Create(token) Write… Prepare Commit,
//	           summed in the same pass
//	  adopt    CACHE_THROUGH clean; MUST_CACHE and ASYNC_THROUGH dirty
//
// Private files in memory lie on small pages as write(2) made them; from 2 MiB
// on they are collapsed into huge pages before they are summed and adopted,
// and copies are made on huge pages.
//
// A file longer than WholeMax is adopted as blocks of BlockSize, each copied
// in the kernel. Failing to cache never fails a write that is in its UFS.
//
// A file of several replicas is written through a chain of workers (ADR 0014):
// each passes on what arrives while it writes it down, and answers when those
// behind it have answered. One that fails is left out; Seal sends all of the
// file to others in its place, also what a local writer wrote through its
// descriptor. MUST_CACHE is refused with fewer copies than promised,
// ASYNC_THROUGH then acts as CACHE_THROUGH.
//
// Goroutines: one janitor, which accounts for what local writers write through
// their descriptors and drops abandoned handles; Close ends it. Lock order:
// handle.mu → Service.mu. Private files do not outlive the process: the store
// empties its scratch folders when it opens.
package writeback

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/ufs"
)

// Mounts opens the store below a mount.
type Mounts interface {
	FS(ctx context.Context, mountID uint32) (ufs.FS, error)
}

// Config bounds a Service.
type Config struct {
	// Step is how much quota a handle takes at a time (default 1 MiB).
	Step int64
	// MaxHandles bounds the open handles (default 4096); Busy beyond.
	MaxHandles int
	// Idle is how long an unused handle lives when nobody holds its file open
	// for writing (default 10 min). Metaplane sessions end much earlier: this
	// only collects what Abort was never called for.
	Idle time.Duration
	// Poll is the period of the janitor (default 1 s).
	Poll time.Duration
	// Ops are the file operations (default blockfile.OS).
	Ops blockfile.Ops
	// Hold asks the metaplane, before an upload is committed, whether the
	// session still has its fence and quotas have room for that many bytes, and
	// keeps others from taking either meanwhile; its error (Stale, OverQuota)
	// aborts the upload. nil: nobody is asked.
	Hold func(ctx context.Context, session, fence uint64, length int64) error
	// Peers is the way to the workers that keep further copies. nil: none do.
	Peers Peers
}

func (c Config) withDefaults() Config {
	if c.Step == 0 {
		c.Step = 1 << 20
	}
	if c.MaxHandles == 0 {
		c.MaxHandles = 4096
	}
	if c.Idle == 0 {
		c.Idle = 10 * time.Minute
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.Ops == nil {
		c.Ops = blockfile.OS{}
	}
	return c
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.Step < orca.GrainSize || c.MaxHandles < 1 || c.Idle < 0 || c.Poll < 0 {
		return orca.E("writeback.Config", orca.Invalid, "a limit is out of range")
	}
	return nil
}

// Metrics are counters that only grow, but for the gauge.
type Metrics struct {
	Created       atomic.Int64
	Sealed        atomic.Int64
	SealFailures  atomic.Int64
	Aborted       atomic.Int64
	Expired       atomic.Int64
	BytesWritten  atomic.Int64 // by WriteAt
	BytesSealed   atomic.Int64
	BytesUploaded atomic.Int64
	Renamed       atomic.Int64 // blocks adopted by rename
	Copied        atomic.Int64 // blocks adopted by copy
	HugeBytes     atomic.Int64 // moved to huge pages before their adoption
	Uncached      atomic.Int64 // sealed files that no tier could keep
	AsyncAsSync   atomic.Int64 // ASYNC_THROUGH without a durable tier
	Spilled       atomic.Int64 // private files moved to another tier
	// BytesForwarded went to the next worker of a chain. LinksLost are workers
	// that were left out of one, CorruptPieces what arrived damaged.
	BytesForwarded atomic.Int64
	LinksLost      atomic.Int64
	CorruptPieces  atomic.Int64
	Copies         atomic.Int64 // sealed on other workers
	Kept           atomic.Int64 // blocks copied from other workers, by order
	Open           atomic.Int64 // gauge: handles
}

// Service serves writes. It is safe for concurrent use.
type Service struct {
	Metrics Metrics

	cfg    Config
	store  tiers.Store
	mounts Mounts
	log    *slog.Logger
	done   chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	handles map[uint64]*handle // GUARDED_BY(mu)
	past    map[uint64]*sealed // the last handles that were sealed for good; GUARDED_BY(mu)
	ring    [pastCap]uint64    // their ids, in order; GUARDED_BY(mu)
	at      int                // in ring; GUARDED_BY(mu)
	closed  bool               // GUARDED_BY(mu)
}

var _ dataplane.Writes = (*Service)(nil)

// pastCap is how many finished Seals are remembered for a repeated request.
const pastCap = 1024

// handle is one private file. Writes share mu, everything else holds it.
type handle struct {
	id     uint64
	target dataplane.WriteTarget

	mu       sync.RWMutex
	file     *private // open for writing; nil once adopted; GUARDED_BY(mu)
	path     string   // GUARDED_BY(mu)
	room     tiers.Room
	link     *link   // the next worker of the chain; nil: none; GUARDED_BY(mu)
	exported bool    // a descriptor was handed out; GUARDED_BY(mu)
	closed   bool    // GUARDED_BY(mu)
	sealed   *sealed // the last Seal that kept the handle; GUARDED_BY(mu)

	grow     sync.Mutex
	reserved int64        // of room; GUARDED_BY(grow)
	used     atomic.Int64 // unix ns of the last call
}

// sealed remembers the last Seal, for a repeated request.
type sealed struct {
	session, fence uint64
	version        uint32
	linked         bool // for the worker before this one
	res            dataplane.SealResult
}

// New makes a service; Close ends it.
func New(cfg Config, store tiers.Store, mounts Mounts, log *slog.Logger) *Service {
	s := &Service{cfg: cfg.withDefaults(), store: store, mounts: mounts, log: log,
		done: make(chan struct{}), handles: map[uint64]*handle{}, past: map[uint64]*sealed{}}
	s.wg.Go(s.janitor)
	return s
}

// Close drops every handle.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.done)
	s.wg.Wait()
	for _, h := range s.all() {
		h.mu.Lock()
		s.dropLocked(h)
		h.mu.Unlock()
	}
	s.wg.Wait() // for the workers behind to hear of it
	return nil
}

func (s *Service) all() []*handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	hs := make([]*handle, 0, len(s.handles))
	for _, h := range s.handles {
		hs = append(hs, h)
	}
	return hs
}

// CreateWrite implements dataplane.Writes.
func (s *Service) CreateWrite(ctx context.Context, t dataplane.WriteTarget) (uint64, error) {
	const op = "writeback.CreateWrite"
	if err := checkTarget(op, &t); err != nil {
		return 0, err
	}
	durable := t.Type == orca.AsyncThrough
	room, err := s.store.Reserve(ctx, s.cfg.Step, durable)
	if durable && orca.KindOf(err) == orca.NoSpace {
		room, err = s.store.Reserve(ctx, s.cfg.Step, false) // Seal will act as CACHE_THROUGH
	}
	if err != nil {
		return 0, err
	}
	h := &handle{target: t, room: room, reserved: s.cfg.Step}
	if h.file, h.path, err = s.private(ctx, room); err != nil {
		room.Release()
		return 0, err
	}
	h.touch()
	h.id = newID()
	s.mu.Lock()
	full := len(s.handles) >= s.cfg.MaxHandles
	if !full && !s.closed {
		s.handles[h.id] = h
		s.Metrics.Open.Add(1)
		s.mu.Unlock()
		s.Metrics.Created.Add(1)
		return h.id, nil
	}
	s.mu.Unlock()
	_ = h.file.close()
	_ = s.cfg.Ops.Remove(h.path)
	room.Release()
	return 0, orca.E(op, orca.Busy, "too many open writes on this worker")
}

func checkTarget(op string, t *dataplane.WriteTarget) error {
	if t.WholeMax <= 0 {
		t.WholeMax = orca.MaxWholeBlock
	}
	if t.BlockSize <= 0 {
		t.BlockSize = orca.DefaultBlockSize
	}
	switch {
	case t.BlockSize%orca.GrainSize != 0:
		return orca.E(op, orca.Invalid, "block size is not a multiple of 64 KiB")
	case t.Type < orca.MustCache || t.Type > orca.Through:
		return orca.E(op, orca.Invalid, "write type is not resolved")
	case t.Type != orca.MustCache && t.MountID == 0:
		return orca.E(op, orca.Invalid, "no UFS to write through to: "+t.Type.String())
	}
	return nil
}

// newID returns a handle that cannot be guessed.
func newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, binary.BigEndian.Uint64(b[:]))
}

func (h *handle) touch() { h.used.Store(time.Now().UnixNano()) }

func (s *Service) find(op string, id uint64) (*handle, error) {
	s.mu.Lock()
	h := s.handles[id]
	s.mu.Unlock()
	if h == nil {
		return nil, &orca.Error{Op: op, Path: fmt.Sprintf("%016x", id), Kind: orca.NotFound, Msg: "no such write handle on this worker"}
	}
	h.touch()
	return h, nil
}

// openLocked makes sure that the handle has its file open for writing.
func (s *Service) openLocked(op string, h *handle) error {
	if h.closed || h.path == "" {
		return &orca.Error{Op: op, Path: fmt.Sprintf("%016x", h.id), Kind: orca.NotFound, Msg: "write handle is closed"}
	}
	if h.file != nil {
		return nil
	}
	f, err := s.cfg.Ops.OpenFile(h.path, os.O_RDWR, 0)
	if err == nil {
		h.file = &private{f: f, ops: s.cfg.Ops} // an encrypted one stays open to the end
	}
	return blockfile.Fail(op, h.path, err)
}

// WriteFile implements dataplane.Writes. The descriptor has its own offset.
// Unsupported where the file is encrypted: what a writer put into it itself would
// be on the disk in the clear.
func (s *Service) WriteFile(_ context.Context, id uint64) (*os.File, error) {
	const op = "writeback.WriteFile"
	h, err := s.find(op, id)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.openLocked(op, h); err != nil {
		return nil, err
	}
	if h.file.enc != nil {
		return nil, &orca.Error{Op: op, Path: fmt.Sprintf("%016x", id), Kind: orca.Unsupported, Msg: "the directory is encrypted: write through the worker"}
	}
	f, err := s.cfg.Ops.OpenFile(h.path, os.O_RDWR, 0)
	if err != nil {
		return nil, blockfile.Fail(op, h.path, err)
	}
	h.exported = true
	return f, nil
}

// WriteAt implements dataplane.Writes.
func (s *Service) WriteAt(ctx context.Context, id uint64, p []byte, off int64) error {
	_, err := s.WriteChain(ctx, id, p, off, nil)
	return err
}

// writeAt writes to the private file of this worker.
func (s *Service) writeAt(ctx context.Context, h *handle, p []byte, off int64) error {
	const op = "writeback.WriteAt"
	if off < 0 || off+int64(len(p)) < off || off+int64(len(p)) > blockfile.MaxLength {
		return orca.E(op, orca.TooLarge, "offset out of range")
	}
	if err := s.makeRoom(ctx, h, off, int64(len(p))); err != nil {
		return err
	}
	var err error
	h.mu.RLock()
	for h.file == nil { // after a failed Seal
		h.mu.RUnlock()
		h.mu.Lock()
		err := s.openLocked(op, h)
		h.mu.Unlock()
		if err != nil {
			return err
		}
		h.mu.RLock()
	}
	defer h.mu.RUnlock()
	err = h.room.WithSpace(ctx, int64(len(p)), func() error {
		_, err := h.file.WriteAt(p, off)
		return blockfile.Fail(op, h.path, err)
	})
	if err != nil {
		return err
	}
	s.Metrics.BytesWritten.Add(int64(len(p)))
	return nil
}

// makeRoom grows the reservation for a write of n bytes at off. When its
// directory is full, a file that no one else holds moves to another tier.
func (s *Service) makeRoom(ctx context.Context, h *handle, off, n int64) error {
	h.grow.Lock()
	defer h.grow.Unlock()
	if off+n <= h.reserved {
		return nil
	}
	h.mu.RLock()
	alloc, length := h.file.stored()
	h.mu.RUnlock()
	need := min(alloc+n, max(length, off+n))
	if need <= h.reserved {
		return nil
	}
	need = (need + s.cfg.Step - 1) / s.cfg.Step * s.cfg.Step
	err := h.room.Resize(ctx, need)
	if orca.KindOf(err) == orca.NoSpace {
		if serr := s.spill(ctx, h, need); serr != nil {
			return err
		}
		err = nil
	}
	if err == nil {
		h.reserved = need
	}
	return err
}

// spill moves the private file into a directory with more room; h.grow is
// held.
func (s *Service) spill(ctx context.Context, h *handle, need int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.exported || h.file == nil {
		return orca.E("writeback.spill", orca.NoSpace, "the file is held by its writer")
	}
	room, err := s.store.Reserve(ctx, need, h.target.Type == orca.AsyncThrough && h.room.Tier() != orca.MEM)
	if err != nil {
		return err
	}
	f, path, err := s.private(ctx, room)
	if err == nil {
		if _, err = copyRange(f, h.file, 0, -1); err != nil {
			_ = f.close()
			_ = s.cfg.Ops.Remove(path)
		}
	}
	if err != nil {
		room.Release()
		return err
	}
	_ = h.file.close()
	_ = s.cfg.Ops.Remove(h.path)
	h.room.Release()
	h.file, h.path, h.room = f, path, room
	s.Metrics.Spilled.Add(1)
	return nil
}

// Truncate implements dataplane.Writes.
func (s *Service) Truncate(ctx context.Context, id uint64, length int64) error {
	const op = "writeback.Truncate"
	h, err := s.find(op, id)
	if err != nil {
		return err
	}
	if length < 0 || length > blockfile.MaxLength {
		return orca.E(op, orca.TooLarge, "length out of range")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.openLocked(op, h); err != nil {
		return err
	}
	s.do(ctx, h.link, func(ctx context.Context) (int, error) {
		return int(h.link.copies.Load()), h.link.w.Truncate(ctx, h.link.Handle, length)
	})
	return blockfile.Fail(op, h.path, h.file.truncate(length))
}

// Sync implements dataplane.Writes: the private file survives the loss of
// power of its host only in a durable tier, and never the worker's restart.
func (s *Service) Sync(ctx context.Context, id uint64) error {
	const op = "writeback.Sync"
	h, err := s.find(op, id)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := s.openLocked(op, h); err != nil {
		return err
	}
	s.do(ctx, h.link, func(ctx context.Context) (int, error) {
		return int(h.link.copies.Load()), h.link.w.Sync(ctx, h.link.Handle)
	})
	return blockfile.Fail(op, h.path, h.file.sync())
}

// Abort implements dataplane.Writes. An unknown handle is no error.
func (s *Service) Abort(_ context.Context, id uint64) error {
	h, err := s.find("writeback.Abort", id)
	if err != nil {
		return nil //nolint:nilerr // aborting twice is fine
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.dropLocked(h)
	s.Metrics.Aborted.Add(1)
	return nil
}

// AbortSession drops the handles of a metaplane session that has ended.
func (s *Service) AbortSession(ctx context.Context, session uint64) {
	for _, h := range s.all() {
		if h.target.Session == session {
			_ = s.Abort(ctx, h.id)
		}
	}
}

// dropLocked forgets a handle and removes what is left of its file.
func (s *Service) dropLocked(h *handle) {
	if h.closed {
		return
	}
	h.closed = true
	s.mu.Lock()
	delete(s.handles, h.id)
	s.mu.Unlock()
	s.Metrics.Open.Add(-1)
	s.drop(h.link)
	s.discardLocked(h)
}

// discardLocked removes the private file and returns its room.
func (s *Service) discardLocked(h *handle) {
	if h.file != nil {
		_ = h.file.close()
		h.file = nil
	}
	if h.path != "" {
		if err := s.cfg.Ops.Remove(h.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("private file not removed", "path", h.path, "err", err)
		}
		h.path = ""
	}
	h.room.Release()
}

// janitor accounts for what is written through descriptors, and drops
// abandoned handles.
func (s *Service) janitor() {
	tick := time.NewTicker(s.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		for _, h := range s.all() {
			s.tend(h)
		}
	}
}

func (s *Service) tend(h *handle) {
	if !h.mu.TryRLock() {
		return // being sealed
	}
	exported := h.exported
	alloc, _ := h.file.stored()
	h.mu.RUnlock()
	if exported {
		h.grow.Lock()
		if alloc > h.reserved {
			// A writer holds the file: it cannot be refused here, but others
			// make room for it. Seal has the last word.
			ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Poll)
			if h.room.Resize(ctx, alloc) == nil {
				h.reserved = alloc
			}
			cancel()
		}
		h.grow.Unlock()
	}
	if time.Since(time.Unix(0, h.used.Load())) < s.cfg.Idle {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || time.Since(time.Unix(0, h.used.Load())) < s.cfg.Idle {
		return
	}
	if h.path != "" && h.exported {
		if h.file != nil {
			_ = h.file.close()
			h.file = nil
		}
		if !noWriter(h.path) {
			h.touch() // its writer is alive
			return
		}
	}
	s.log.Warn("abandoned write dropped", "ino", h.target.File.String(), "session", h.target.Session)
	s.Metrics.Expired.Add(1)
	s.dropLocked(h)
}
