// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package blockservice joins the halves of a worker's block service: reads
// (readthrough) and writes (writeback) over one store, with the check of
// grants in front. It satisfies dataplane.Blocks, which blockserver serves,
// and carries out what the metaplane orders:
//
//	blockserver ─► blockservice ─┬─► readthrough ─► tiered ─► dir
//	agent (reports, orders) ─────┤        └─► peers, UFS
//	                             └─► writeback ───► tiered, UFS
//
// It starts no goroutines and holds no locks of its own; Close ends those of
// its parts, and the store last.
package blockservice

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/readthrough"
	"orca/tiers/tiered"
	"orca/tiers/writeback"
)

// Config configures the parts.
type Config struct {
	Read  readthrough.Config
	Write writeback.Config
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	return errors.Join(c.Read.Validate(), c.Write.Validate())
}

// Deps are what a Service is composed of.
type Deps struct {
	Store    *tiered.Store // closed by Service.Close
	Resolver readthrough.Resolver
	Mounts   readthrough.Mounts
	Peers    readthrough.Peers // nil: none
	// OnStale is told that the UFS content under a version has changed or
	// gone; it must not block. nil: nobody.
	OnStale func(file orca.Ino, version uint32)
	// CheckRead and CheckWrite verify grants; nil when the door in front does
	// (blockserver and blockclient.Local verify with a grant.Checker).
	CheckRead  func(g dataplane.Grant, id orca.BlockID) error
	CheckWrite func(t dataplane.WriteTarget) error
}

// Service is a worker's block service. It is safe for concurrent use.
type Service struct {
	Read  *readthrough.Service
	Write *writeback.Service
	Store *tiered.Store
	deps  Deps
}

var (
	_ dataplane.Blocks   = (*Service)(nil)
	_ dataplane.Informer = (*Service)(nil)
	_ dataplane.Sharer   = (*Service)(nil)
	_ dataplane.Holder   = (*Service)(nil)
	_ dataplane.Maker    = (*Service)(nil)
	_ dataplane.Chains   = (*Service)(nil)
)

// New composes a service.
func New(cfg Config, d Deps, log *slog.Logger) *Service {
	return &Service{
		Store: d.Store,
		Read: readthrough.New(cfg.Read, readthrough.Deps{Store: d.Store, Resolver: d.Resolver, Mounts: d.Mounts,
			Peers: d.Peers, OnStale: d.OnStale}, log),
		Write: writeback.New(cfg.Write, d.Store, d.Mounts, log),
		deps:  d,
	}
}

// Close ends reads, writes and the store.
func (s *Service) Close() error {
	return errors.Join(s.Read.Close(), s.Write.Close(), s.Store.Close())
}

// Open implements dataplane.Blocks.
func (s *Service) Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	if s.deps.CheckRead != nil {
		if err := s.deps.CheckRead(req.Grant, req.ID); err != nil {
			return dataplane.Extent{}, err
		}
	}
	return s.Read.Open(ctx, req)
}

// Held implements dataplane.Holder.
func (s *Service) Held(req dataplane.ReadRequest) (dataplane.Extent, bool) {
	if s.deps.CheckRead != nil {
		if err := s.deps.CheckRead(req.Grant, req.ID); err != nil {
			return dataplane.Extent{}, false
		}
	}
	return s.Read.Held(req)
}

// InMemory implements dataplane.Maker.
func (s *Service) InMemory(id orca.BlockID) bool { return s.Store.InMemory(id) }

// Descriptor implements dataplane.Blocks.
func (s *Service) Descriptor(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	if s.deps.CheckRead != nil {
		if err := s.deps.CheckRead(g, id); err != nil {
			return nil, 0, 0, err
		}
	}
	return s.Store.Descriptor(ctx, id)
}

// Share implements dataplane.Sharer.
func (s *Service) Share(_ context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	if s.deps.CheckRead != nil {
		if err := s.deps.CheckRead(g, id); err != nil {
			return nil, 0, 0, err
		}
	}
	return s.Store.Share(id)
}

// BlockInfo implements dataplane.Informer.
func (s *Service) BlockInfo(_ context.Context, id orca.BlockID) (dataplane.BlockInfo, error) {
	m, err := s.Store.Stat(id)
	if err == nil && m.Cached == 0 {
		err = &orca.Error{Op: "blockservice.BlockInfo", Path: id.String(), Kind: orca.NotFound}
	}
	if err != nil {
		return dataplane.BlockInfo{}, err
	}
	return dataplane.BlockInfo{Length: m.Length, Cached: m.Cached, Complete: m.Complete, Tier: m.Tier}, nil
}

// CreateWrite implements dataplane.Writes.
func (s *Service) CreateWrite(ctx context.Context, t dataplane.WriteTarget) (uint64, error) {
	if s.deps.CheckWrite != nil {
		if err := s.deps.CheckWrite(t); err != nil {
			return 0, err
		}
	}
	return s.Write.CreateWrite(ctx, t)
}

// CreateChain implements dataplane.Chains.
func (s *Service) CreateChain(ctx context.Context, t dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	if s.deps.CheckWrite != nil {
		if err := s.deps.CheckWrite(t); err != nil {
			return 0, nil, err
		}
	}
	return s.Write.CreateChain(ctx, t)
}

// WriteChain implements dataplane.Chains.
func (s *Service) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	return s.Write.WriteChain(ctx, id, p, off, sums)
}

// Resume implements dataplane.Chains.
func (s *Service) Resume(uint64, dataplane.Grant) {}

// WriteFile implements dataplane.Writes.
func (s *Service) WriteFile(ctx context.Context, id uint64) (*os.File, error) {
	return s.Write.WriteFile(ctx, id)
}

// WriteAt implements dataplane.Writes.
func (s *Service) WriteAt(ctx context.Context, id uint64, p []byte, off int64) error {
	return s.Write.WriteAt(ctx, id, p, off)
}

// Truncate implements dataplane.Writes.
func (s *Service) Truncate(ctx context.Context, id uint64, length int64) error {
	return s.Write.Truncate(ctx, id, length)
}

// Sync implements dataplane.Writes.
func (s *Service) Sync(ctx context.Context, id uint64) error { return s.Write.Sync(ctx, id) }

// Seal implements dataplane.Writes.
func (s *Service) Seal(ctx context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	if s.deps.CheckWrite != nil {
		if err := s.deps.CheckWrite(t); err != nil {
			return dataplane.SealResult{}, err
		}
	}
	return s.Write.Seal(ctx, id, t, keep)
}

// Abort implements dataplane.Writes.
func (s *Service) Abort(ctx context.Context, id uint64) error { return s.Write.Abort(ctx, id) }

// Changes returns the files that changed since cursor; full says that the
// cursor is too old and Reports must be sent.
func (s *Service) Changes(cursor uint64) (files []tiers.FileReport, next uint64, full bool) {
	return s.Store.Changes(cursor)
}

// Reports returns every file version held, and the cursor of that moment.
func (s *Service) Reports() (files []tiers.FileReport, next uint64) { return s.Store.Reports() }

// Usage returns the state of each tier directory.
func (s *Service) Usage() []tiers.Usage { return s.Store.Usage() }

// FreeFile drops every version of a file, dirty ones too: the order for a file
// that is deleted.
func (s *Service) FreeFile(file orca.Ino) {
	s.Read.Forget(file)
	s.Store.RemoveFile(file, 0)
}

// FreeClean drops what is cached of a file whose content is in its UFS, and
// leaves alone what is dirty: a version that came since.
func (s *Service) FreeClean(file orca.Ino) {
	s.Read.Forget(file)
	s.Store.DropClean(file)
}

// FreeOld drops the versions older than keep.
func (s *Service) FreeOld(file orca.Ino, keep uint32) {
	s.Read.Forget(file)
	if keep > 0 {
		s.Store.RemoveFile(file, keep)
	}
}

// CleanFile marks a version as persisted: evictable from now on. It returns at
// once when there is nothing dirty of it.
func (s *Service) CleanFile(file orca.Ino, version uint32) {
	s.Read.Forget(file)
	s.Store.CleanFile(file, version)
}

// Pin keeps a file's blocks from eviction, or no longer.
func (s *Service) Pin(file orca.Ino, pinned bool) { s.Store.Pin(file, pinned) }

// Want keeps a file's blocks from leaving for anything but a write, or no longer.
func (s *Service) Want(file orca.Ino, wanted bool) { s.Store.Want(file, wanted) }

// Keep makes this worker have a block of length bytes that is in no store, read
// from another one at one of the addresses and verified; it is kept until it is
// persisted, and durable if asked for.
func (s *Service) Keep(ctx context.Context, id orca.BlockID, length int64, durable bool, from []string, moved func(int64) error) error {
	if s.deps.Peers == nil {
		return orca.E("blockservice.Keep", orca.Unsupported, "this worker reads from no others")
	}
	return s.Write.Keep(ctx, id, length, durable, len(from), func(ctx context.Context, n int) (io.ReadCloser, error) {
		return s.deps.Peers.Open(ctx, readthrough.Peer{Addr: from[n]}, dataplane.ReadRequest{
			ID: id, N: length, Type: orca.ReadNoCache, Sequential: true, OnlyCached: true, Verify: true,
		})
	}, moved)
}

// Drop removes the blocks of a version that are not the only copies.
func (s *Service) Drop(file orca.Ino, version uint32) { s.Store.DropFile(file, version) }

// Load fetches what is absent of [off, off+n) of a block into the store, for
// load jobs. It returns how many bytes it passed over, cached or not. NoSpace
// when the tiers cannot keep it.
func (s *Service) Load(ctx context.Context, id orca.BlockID, off, n int64, g dataplane.Grant) (int64, error) {
	total := int64(0)
	for total < n {
		passed := s.Read.Metrics.Passed.Load()
		e, err := s.Open(ctx, dataplane.ReadRequest{ID: id, Off: off + total, N: n - total, Sequential: true, Direct: true, Grant: g})
		if err != nil {
			return total, err
		}
		got := e.N
		e.Release()
		if got == 0 {
			return total, nil
		}
		if s.Read.Metrics.Passed.Load() != passed {
			if _, err := s.Store.Stat(id); err != nil {
				return total, &orca.Error{Op: "blockservice.Load", Path: id.String(), Kind: orca.NoSpace, Msg: "no tier has room for the block"}
			}
		}
		total += got
	}
	return total, nil
}
