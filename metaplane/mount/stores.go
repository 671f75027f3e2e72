// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"sync"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Opener opens the store of a mount, without masking its options. The composer
// supplies it.
type Opener func(ctx context.Context, m *metapb.Mount) (ufs.FS, error)

// retryAfter is how long a failed opening is answered from memory.
const retryAfter = time.Second

// Stores keeps the open store of each mount. It is safe for concurrent use.
type Stores struct {
	open  Opener
	table func() *Table

	mu     sync.Mutex
	byID   map[storeKey]*store
	closed bool
}

// storeKey is a mount, and where its store is opened: "" is its root.
type storeKey struct {
	id  uint32
	uri string
}

type store struct {
	mu     sync.Mutex // held while opening
	fs     ufs.FS
	err    error
	failed time.Time
}

// NewStores makes an empty set; table returns the present mount table.
func NewStores(open Opener, table func() *Table) *Stores {
	return &Stores{open: open, table: table, byID: map[storeKey]*store{}}
}

// FS returns the open store of a mount, opening it on first use. NotFound when
// there is no such mount; else the kinds of the store.
func (s *Stores) FS(ctx context.Context, id uint32) (ufs.FS, error) {
	return s.At(ctx, id, "")
}

// At is FS of a directory of the store above or below the mount's root; "": FS.
func (s *Stores) At(ctx context.Context, id uint32, uri string) (ufs.FS, error) {
	const op = "mount.FS"
	m := s.table().ByID(id)
	if m == nil {
		return nil, orca.E(op, orca.NotFound, "no such mount")
	}
	if uri == m.Uri {
		uri = ""
	}
	if uri != "" {
		m = Copy(m)
		m.Uri = uri
	}
	key := storeKey{id, uri}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, orca.E(op, orca.Unavailable, "shutting down")
	}
	e := s.byID[key]
	if e == nil {
		e = &store{}
		s.byID[key] = e
	}
	s.mu.Unlock()

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fs != nil {
		return e.fs, nil
	}
	if e.err != nil && time.Since(e.failed) < retryAfter {
		return nil, e.err
	}
	fs, err := s.open(ctx, m)
	if err != nil {
		if orca.KindOf(err) != orca.Canceled {
			e.err, e.failed = err, time.Now()
		}
		return nil, err
	}
	e.fs, e.err = fs, nil
	return fs, nil
}

// Adopt installs a store that was opened to try a new mount.
func (s *Stores) Adopt(id uint32, fs ufs.FS) {
	s.mu.Lock()
	e := s.byID[storeKey{id: id}]
	if e == nil {
		e = &store{}
		s.byID[storeKey{id: id}] = e
	}
	s.mu.Unlock()
	e.mu.Lock()
	old := e.fs
	e.fs, e.err = fs, nil
	e.mu.Unlock()
	if old != nil && old != fs {
		_ = old.Close()
	}
}

// Try opens the store of a mount that is not in the table yet.
func (s *Stores) Try(ctx context.Context, m *metapb.Mount) (ufs.FS, error) { return s.open(ctx, m) }

// Drop closes the store of a mount that is gone.
func (s *Stores) Drop(id uint32) {
	var gone []*store
	s.mu.Lock()
	for k, e := range s.byID {
		if k.id == id {
			gone = append(gone, e)
			delete(s.byID, k)
		}
	}
	s.mu.Unlock()
	for _, e := range gone {
		e.mu.Lock()
		if e.fs != nil {
			_ = e.fs.Close()
			e.fs = nil
		}
		e.mu.Unlock()
	}
}

// Close closes every store; FS fails from now on.
func (s *Stores) Close() error {
	s.mu.Lock()
	s.closed = true
	all := s.byID
	s.byID = map[storeKey]*store{}
	s.mu.Unlock()
	var first error
	for _, e := range all {
		e.mu.Lock()
		if e.fs != nil {
			if err := e.fs.Close(); err != nil && first == nil {
				first = err
			}
			e.fs = nil
		}
		e.mu.Unlock()
	}
	return first
}
