// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package datatest tests implementations of the contracts of package
// dataplane: Run is the suite of Access, Store a Blocks over temporary files
// with faults on demand. Only tests import it. One mutex guards a Store; it
// starts no goroutines. It refuses nothing: grants are the servers' business.
package datatest

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orca"
	"orca/dataplane"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Store keeps blocks in files of a temporary folder.
type Store struct {
	dir string
	// Pins counts the extents that have not been released.
	Pins atomic.Int64
	// Opens counts the calls of Open, and of Held that found something.
	Opens atomic.Int64
	// The knobs below are turned inside Configure.

	// MaxExtent, when not 0, is the longest extent (a multiple of the grain).
	MaxExtent int64
	// NoSums leaves the checksums out of extents.
	NoSums bool
	// InMemory makes extents of memory, which is wiped at their release, instead
	// of the file.
	InMemory bool
	// BeforeOpen, when set, runs first in Open; its error is Open's.
	BeforeOpen func(ctx context.Context, req dataplane.ReadRequest) error

	mu     sync.Mutex
	blocks map[orca.BlockID]*block
	writes map[uint64]*private
	nextID uint64
}

type block struct {
	file    *os.File
	length  int64
	sums    []uint32
	partial bool
	gen     uint64
}

type private struct {
	file   *os.File
	target dataplane.WriteTarget
}

// NewStore makes an empty store that the end of the test removes.
func NewStore(tb testing.TB) *Store {
	tb.Helper()
	s := NewStoreIn(tb.TempDir())
	tb.Cleanup(s.close)
	return s
}

// NewStoreIn makes an empty store in a folder that is the caller's to remove.
func NewStoreIn(dir string) *Store {
	return &Store{dir: dir, blocks: make(map[orca.BlockID]*block), writes: make(map[uint64]*private), nextID: 1 << 40}
}

// Configure runs f, which changes the knobs of the store. (That a request of a
// client comes after what its test did before is not known to the race
// detector: the order passes through a socket.)
func (s *Store) Configure(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *Store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		_ = b.file.Close()
	}
	for _, w := range s.writes {
		_ = w.file.Close()
	}
}

// Put stores a block.
func (s *Store) Put(tb testing.TB, id orca.BlockID, data []byte) {
	tb.Helper()
	if err := s.Add(id, data); err != nil {
		tb.Fatal(err)
	}
}

// Add is Put outside of a test.
func (s *Store) Add(id orca.BlockID, data []byte) error {
	f, err := os.Create(filepath.Join(s.dir, id.String()))
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[id] = &block{file: f, length: int64(len(data)), sums: Sums(data), gen: 1}
	return nil
}

// Sums returns the CRC32C of each grain.
func Sums(data []byte) (sums []uint32) {
	for off := 0; off < len(data); off += orca.GrainSize {
		sums = append(sums, crc32.Checksum(data[off:min(off+orca.GrainSize, len(data))], castagnoli))
	}
	return sums
}

// Flip changes one byte of a block on disk, behind its checksums.
func (s *Store) Flip(tb testing.TB, id orca.BlockID, off int64) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var b [1]byte
	f := s.blocks[id].file
	if _, err := f.ReadAt(b[:], off); err != nil {
		tb.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b[:], off); err != nil {
		tb.Fatal(err)
	}
}

// Cut shortens the file of a block, behind its length.
func (s *Store) Cut(tb testing.TB, id orca.BlockID, length int64) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.blocks[id].file.Truncate(length); err != nil {
		tb.Fatal(err)
	}
}

// SetPartial makes a block one that has no descriptor, or has one again.
func (s *Store) SetPartial(id orca.BlockID, partial bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[id].partial = partial
}

// Remove unlinks a block.
func (s *Store) Remove(id orca.BlockID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.blocks[id]; b != nil {
		_ = os.Remove(b.file.Name())
		_ = b.file.Close()
		delete(s.blocks, id)
	}
}

// block returns a copy of a block's record.
func (s *Store) block(op string, id orca.BlockID) (*block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[id]
	if b == nil {
		return nil, orca.PathE(op, id.String(), orca.NotFound, nil)
	}
	c := *b
	return &c, nil
}

// Open implements dataplane.Blocks.
func (s *Store) Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	s.Opens.Add(1)
	s.mu.Lock()
	before, maxExtent, noSums := s.BeforeOpen, s.MaxExtent, s.NoSums
	s.mu.Unlock()
	if before != nil {
		if err := before(ctx, req); err != nil {
			return dataplane.Extent{}, err
		}
	}
	return s.extent(req, maxExtent, noSums)
}

// Held implements dataplane.Holder, unless BeforeOpen is to run.
func (s *Store) Held(req dataplane.ReadRequest) (dataplane.Extent, bool) {
	s.mu.Lock()
	before, maxExtent, noSums := s.BeforeOpen, s.MaxExtent, s.NoSums
	s.mu.Unlock()
	if before != nil {
		return dataplane.Extent{}, false
	}
	e, err := s.extent(req, maxExtent, noSums)
	if err != nil || e.N == 0 {
		return dataplane.Extent{}, false
	}
	s.Opens.Add(1)
	return e, true
}

func (s *Store) extent(req dataplane.ReadRequest, maxExtent int64, noSums bool) (dataplane.Extent, error) {
	b, err := s.block("datatest.Open", req.ID)
	if err != nil || req.Off >= b.length {
		return dataplane.Extent{}, err
	}
	n := min(req.N, b.length-req.Off)
	if maxExtent > 0 {
		n = min(n, maxExtent-req.Off%maxExtent)
	}
	e := dataplane.Extent{File: b.file, Off: req.Off, N: n}
	if !noSums {
		first := req.Off / orca.GrainSize
		e.SumOff = first * orca.GrainSize
		e.Sums = b.sums[first : (req.Off+n+orca.GrainSize-1)/orca.GrainSize]
	}
	s.Pins.Add(1)
	e.Release = func() { s.Pins.Add(-1) }
	s.mu.Lock()
	inMemory := s.InMemory
	s.mu.Unlock()
	if inMemory {
		e.File, e.Data = nil, make([]byte, n)
		if _, err := b.file.ReadAt(e.Data, req.Off); err != nil {
			return dataplane.Extent{}, err
		}
		e.Release = func() { s.Pins.Add(-1); clear(e.Data) }
	}
	return e, nil
}

// Descriptor implements dataplane.Blocks.
func (s *Store) Descriptor(_ context.Context, id orca.BlockID, _ dataplane.Grant) (*os.File, int64, uint64, error) {
	b, err := s.block("datatest.Descriptor", id)
	if err != nil {
		return nil, 0, 0, err
	}
	if b.partial {
		return nil, 0, 0, orca.PathE("datatest.Descriptor", id.String(), orca.Unsupported, nil)
	}
	// For writing, on purpose: who passes it on must take care.
	f, err := os.OpenFile(b.file.Name(), os.O_RDWR, 0)
	return f, b.length, b.gen, err
}

// BlockInfo implements dataplane.Informer.
func (s *Store) BlockInfo(_ context.Context, id orca.BlockID) (dataplane.BlockInfo, error) {
	b, err := s.block("datatest.BlockInfo", id)
	if err != nil {
		return dataplane.BlockInfo{}, err
	}
	return dataplane.BlockInfo{Length: b.length, Cached: b.length, Complete: !b.partial, Tier: orca.SSD}, nil
}

// CreateWrite implements dataplane.Writes.
func (s *Store) CreateWrite(_ context.Context, t dataplane.WriteTarget) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextID++
	f, err := os.Create(filepath.Join(s.dir, fmt.Sprint("private-", s.nextID)))
	if err != nil {
		return 0, err
	}
	s.writes[s.nextID] = &private{f, t}
	return s.nextID, nil
}

func (s *Store) private(id uint64) (*private, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writes[id]
	if w == nil {
		return nil, orca.E("datatest", orca.NotFound, "no such write handle")
	}
	return w, nil
}

// WriteFile implements dataplane.Writes.
func (s *Store) WriteFile(_ context.Context, id uint64) (*os.File, error) {
	w, err := s.private(id)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(w.file.Name(), os.O_RDWR, 0)
}

// WriteAt implements dataplane.Writes.
func (s *Store) WriteAt(_ context.Context, id uint64, p []byte, off int64) error {
	w, err := s.private(id)
	if err != nil {
		return err
	}
	_, err = w.file.WriteAt(p, off)
	return err
}

// Truncate implements dataplane.Writes.
func (s *Store) Truncate(_ context.Context, id uint64, length int64) error {
	w, err := s.private(id)
	if err != nil {
		return err
	}
	return w.file.Truncate(length)
}

// Sync implements dataplane.Writes.
func (s *Store) Sync(_ context.Context, id uint64) error {
	w, err := s.private(id)
	if err != nil {
		return err
	}
	return w.file.Sync()
}

// Seal implements dataplane.Writes: one block of the whole.
func (s *Store) Seal(_ context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	w, err := s.private(id)
	if err != nil {
		return dataplane.SealResult{}, err
	}
	data, err := os.ReadFile(w.file.Name())
	if err != nil {
		return dataplane.SealResult{}, err
	}
	f, err := os.Create(filepath.Join(s.dir, fmt.Sprint("sealed-", t.File, "-", t.Version)))
	if err != nil {
		return dataplane.SealResult{}, err
	}
	if _, err := f.Write(data); err != nil {
		return dataplane.SealResult{}, err
	}
	s.mu.Lock()
	s.blocks[orca.BlockID{File: t.File, Version: t.Version}] = &block{file: f, length: int64(len(data)), sums: Sums(data), gen: 1}
	s.mu.Unlock()
	if !keep {
		if err := s.Abort(context.Background(), id); err != nil {
			return dataplane.SealResult{}, err
		}
	}
	return dataplane.SealResult{
		Length: int64(len(data)), BlockSize: t.WholeMax, Fingerprint: "f1", UFSMtime: time.Unix(5, 7),
		Copies: 1, Durable: true, CRC32C: crc32.Checksum(data, castagnoli),
	}, nil
}

// Abort implements dataplane.Writes.
func (s *Store) Abort(_ context.Context, id uint64) error {
	w, err := s.private(id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.writes, id)
	return w.file.Close()
}
