// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memufs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"orca"
	"orca/ufs"
)

// pageSize is how many infos a listing takes under one lock.
const pageSize = 1000

// handle is the part that both flavours share.
type handle struct {
	store  *Store
	closed atomic.Bool
}

// posixFS adds what a file system can do.
type posixFS struct{ *handle }

// objectFS adds what an object store can do.
type objectFS struct{ *handle }

var (
	_ ufs.FS          = (*posixFS)(nil)
	_ ufs.Renamer     = (*posixFS)(nil)
	_ ufs.Exchanger   = (*posixFS)(nil)
	_ ufs.Owner       = (*posixFS)(nil)
	_ ufs.Spacer      = (*posixFS)(nil)
	_ ufs.FS          = (*objectFS)(nil)
	_ ufs.Copier      = (*objectFS)(nil)
	_ ufs.Lister      = (*objectFS)(nil)
	_ ufs.BulkRemover = (*objectFS)(nil)

	_ ufs.ConditionalRemover = (*objectFS)(nil)
)

// begin counts a call and refuses it when the context or the handle is done.
func (h *handle) begin(ctx context.Context, op, key string, c *atomic.Int64) error {
	c.Add(1)
	if err := ctx.Err(); err != nil {
		k := orca.Canceled
		if errors.Is(err, context.DeadlineExceeded) {
			k = orca.Timeout
		}
		return orca.PathE("memufs."+op, key, k, err)
	}
	if h.closed.Load() {
		return refuse(op, key, orca.Unavailable)
	}
	for name := range strings.SplitSeq(key, "/") {
		if key != "" && (len(name) > orca.MaxName) {
			return refuse(op, key, orca.NameTooLong)
		}
	}
	return nil
}

// Caps implements ufs.FS.
func (f *posixFS) Caps() ufs.Caps {
	return ufs.Caps{AtomicRename: true, Exchange: true, Directories: true, Owners: true}
}

// Caps implements ufs.FS.
func (f *objectFS) Caps() ufs.Caps { return ufs.Caps{} }

// Close implements ufs.FS; the store and its other handles live on.
func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}

// Stat implements ufs.FS.
func (h *handle) Stat(ctx context.Context, key string) (ufs.Info, error) {
	s := h.store
	if err := h.begin(ctx, "Stat", key, &s.Counters.Stat); err != nil {
		return ufs.Info{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.nodes[key] == nil && !s.isDirLocked(key) {
		return ufs.Info{}, refuse("Stat", key, orca.NotFound)
	}
	return s.infoLocked(key), nil
}

// List implements ufs.FS.
func (h *handle) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	if err := h.begin(ctx, "List", dir, &h.store.Counters.List); err != nil {
		return err
	}
	return h.list(ctx, "List", dir, false, fn)
}

// Walk implements ufs.Lister.
func (f *objectFS) Walk(ctx context.Context, prefix string, fn func(ufs.Info) error) error {
	if err := f.begin(ctx, "Walk", prefix, &f.store.Counters.Walk); err != nil {
		return err
	}
	return f.list(ctx, "Walk", prefix, true, fn)
}

// list calls fn for the children (deep: descendants) of dir, a page at a time.
func (h *handle) list(ctx context.Context, op, dir string, deep bool, fn func(ufs.Info) error) error {
	s := h.store
	s.mu.RLock()
	isDir, isFile := s.isDirLocked(dir), s.nodes[dir] != nil
	s.mu.RUnlock()
	switch {
	case isFile && dir != "":
		return refuse(op, dir, orca.NotDir)
	case !isDir:
		return refuse(op, dir, orca.NotFound)
	}
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	for from, more := prefix, true; more; more = from != "" {
		var page []ufs.Info
		page, from = s.page(prefix, from, deep)
		for _, in := range page {
			if err := ctx.Err(); err != nil {
				return orca.PathE("memufs."+op, dir, orca.Canceled, err)
			}
			if err := fn(in); err != nil {
				return err
			}
		}
	}
	return nil
}

// page returns the next infos with raw keys from `from` on, and where the next
// page starts ("" at the end).
func (s *Store) page(prefix, from string, deep bool) (page []ufs.Info, next string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, _ := slices.BinarySearch(s.order, from)
	for i < len(s.order) && strings.HasPrefix(s.order[i], prefix) {
		if len(page) == pageSize {
			return page, s.order[i]
		}
		raw := s.order[i]
		rest := raw[len(prefix):]
		cut := strings.IndexByte(rest, '/')
		switch {
		case rest == "":
			i++
			continue
		case deep || cut < 0:
			i++
		default: // a child directory: skip what is in it
			raw = prefix + rest[:cut+1]
			i, _ = slices.BinarySearch(s.order, prefix+rest[:cut]+"0")
			if s.nodes[strings.TrimSuffix(raw, "/")] != nil {
				continue // a file of this name was listed before
			}
		}
		key := strings.TrimSuffix(raw, "/")
		if !ufs.IsTemp(key) {
			page = append(page, s.infoLocked(key))
		}
	}
	return page, ""
}

// Open implements ufs.FS.
func (h *handle) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	s := h.store
	if err := h.begin(ctx, "Open", key, &s.Counters.Open); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	nd := s.nodes[key]
	switch {
	case off < 0:
		return nil, refuse("Open", key, orca.Invalid)
	case nd == nil && s.isDirLocked(key):
		return nil, refuse("Open", key, orca.IsDir)
	case nd == nil:
		return nil, refuse("Open", key, orca.NotFound)
	case want != "" && want != nd.fingerprint:
		return nil, refuse("Open", key, orca.Stale)
	}
	data := nd.data[min(off, int64(len(nd.data))):]
	if n >= 0 && n < int64(len(data)) {
		data = data[:n]
	}
	return &reader{ctx: ctx, r: bytes.NewReader(data), count: &s.Counters.ReadBytes}, nil
}

// reader reads from a snapshot of the object.
type reader struct {
	ctx   context.Context //nolint:containedctx // a reader's life is one call of its opener
	r     *bytes.Reader
	count *atomic.Int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, orca.PathE("memufs.Read", "", orca.Canceled, err)
	}
	n, err := r.r.Read(p)
	r.count.Add(int64(n))
	return n, err
}

func (r *reader) Close() error { return nil }

// Mkdir implements ufs.FS.
func (h *handle) Mkdir(ctx context.Context, key string, mode uint32) error {
	s := h.store
	if err := h.begin(ctx, "Mkdir", key, &s.Counters.Mkdir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	parent := key[:max(strings.LastIndexByte(key, '/'), 0)]
	switch {
	case s.nodes[key] != nil || s.isDirLocked(key):
		return refuse("Mkdir", key, orca.Exists)
	case s.fileAboveLocked(key):
		return refuse("Mkdir", key, orca.NotDir)
	case !s.cfg.Objects && !s.isDirLocked(parent):
		return refuse("Mkdir", key, orca.NotFound)
	}
	s.setLocked(key+"/", &node{mode: mode & 0o7777})
	return nil
}

// Remove implements ufs.FS.
func (h *handle) Remove(ctx context.Context, key string) error {
	s := h.store
	if err := h.begin(ctx, "Remove", key, &s.Counters.Remove); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case key == "":
		return refuse("Remove", key, orca.Invalid)
	case s.dropLocked(key):
		return nil
	case s.anyUnderLocked(key + "/"):
		return refuse("Remove", key, orca.NotEmpty)
	case s.dropLocked(key + "/"):
		return nil
	}
	return refuse("Remove", key, orca.NotFound)
}

// RemoveIf implements ufs.ConditionalRemover.
func (f *objectFS) RemoveIf(ctx context.Context, key, want string) error {
	s := f.store
	if err := f.begin(ctx, "RemoveIf", key, &s.Counters.Remove); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.nodes[key]; {
	case n == nil:
		return refuse("RemoveIf", key, orca.NotFound)
	case n.fingerprint != want:
		return refuse("RemoveIf", key, orca.Stale)
	}
	s.dropLocked(key)
	return nil
}

// RemoveMany implements ufs.BulkRemover.
func (f *objectFS) RemoveMany(ctx context.Context, objects []ufs.Info) error {
	s := f.store
	if err := f.begin(ctx, "RemoveMany", "", &s.Counters.Remove); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range objects {
		if in.Dir {
			s.dropLocked(in.Key + "/")
		} else {
			s.dropLocked(in.Key)
		}
	}
	return nil
}

// Rename implements ufs.Renamer.
func (f *posixFS) Rename(ctx context.Context, src, dst string) error {
	s := f.store
	if err := f.begin(ctx, "Rename", src, &s.Counters.Rename); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	file, dir := s.nodes[src], s.nodes[src+"/"]
	dstFile, dstDir := s.nodes[dst], s.nodes[dst+"/"]
	parent := dst[:max(strings.LastIndexByte(dst, '/'), 0)]
	switch {
	case src == "" || dst == "":
		return refuse("Rename", src, orca.Invalid)
	case file == nil && dir == nil:
		return refuse("Rename", src, orca.NotFound)
	case src == dst:
		return nil
	case s.fileAboveLocked(dst):
		return refuse("Rename", dst, orca.NotDir)
	case !s.isDirLocked(parent):
		return refuse("Rename", dst, orca.NotFound)
	case file != nil && dstDir != nil:
		return refuse("Rename", dst, orca.IsDir)
	case dir != nil && dstFile != nil:
		return refuse("Rename", dst, orca.NotDir)
	case dir != nil && strings.HasPrefix(dst, src+"/"):
		return refuse("Rename", dst, orca.Invalid)
	case dstDir != nil && s.anyUnderLocked(dst+"/"):
		return refuse("Rename", dst, orca.NotEmpty)
	case file != nil:
		s.moveLocked(src, dst)
		return nil
	}
	for _, raw := range s.underLocked(src + "/") {
		s.moveLocked(raw, dst+raw[len(src):])
	}
	return nil
}

// Exchange implements ufs.Exchanger.
func (f *posixFS) Exchange(ctx context.Context, a, b, token string) error {
	s := f.store
	if err := f.begin(ctx, "Exchange", a, &s.Counters.Rename); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := func(key string) bool { return s.nodes[key] != nil || s.nodes[key+"/"] != nil }
	switch {
	case a == "" || b == "" || strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/"):
		return refuse("Exchange", a, orca.Invalid)
	case s.exchanged[exchangeOf{a, token}]:
		return nil
	case !there(a):
		return refuse("Exchange", a, orca.NotFound)
	case !there(b):
		return refuse("Exchange", b, orca.NotFound)
	}
	aside := ufs.TempPrefix + token
	s.moveAllLocked(a, aside)
	s.moveAllLocked(b, a)
	s.moveAllLocked(aside, b)
	s.exchanged[exchangeOf{a, token}] = true
	return nil
}

// Sweep implements ufs.FS.
func (f *posixFS) Sweep(ctx context.Context, key, token string) error {
	if err := f.handle.Sweep(ctx, key, token); err != nil {
		return err
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	delete(f.store.exchanged, exchangeOf{key, token})
	return nil
}

// moveAllLocked moves a file, or a directory with all below it.
func (s *Store) moveAllLocked(src, dst string) {
	if s.nodes[src] != nil {
		s.moveLocked(src, dst)
		return
	}
	for _, raw := range s.underLocked(src + "/") {
		s.moveLocked(raw, dst+raw[len(src):])
	}
}

// moveLocked renames one raw key; the fingerprint goes with it.
func (s *Store) moveLocked(src, dst string) {
	n := s.nodes[src]
	fp := n.fingerprint
	s.dropLocked(src)
	s.setLocked(dst, n)
	n.fingerprint = fp
}

// Copy implements ufs.Copier.
func (f *objectFS) Copy(ctx context.Context, src, dst, want string) (ufs.Info, error) {
	s := f.store
	if err := f.begin(ctx, "Copy", src, &s.Counters.Copy); err != nil {
		return ufs.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[src]
	switch {
	case n == nil:
		return ufs.Info{}, refuse("Copy", src, orca.NotFound)
	case want != "" && want != n.fingerprint:
		return ufs.Info{}, refuse("Copy", src, orca.Stale)
	case s.cfg.Capacity > 0 && s.used+int64(len(n.data)) > s.cfg.Capacity:
		return ufs.Info{}, refuse("Copy", dst, orca.NoSpace)
	}
	s.setLocked(dst, &node{data: n.data, mode: n.mode})
	return s.infoLocked(dst), nil
}

// setAttr changes one existing node.
func (f *posixFS) setAttr(ctx context.Context, op, key string, change func(*node)) error {
	s := f.store
	if err := f.begin(ctx, op, key, &s.Counters.SetAttr); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[key]
	if n == nil {
		n = s.nodes[key+"/"]
	}
	if n == nil {
		return refuse(op, key, orca.NotFound)
	}
	change(n)
	return nil
}

// Chmod implements ufs.Owner.
func (f *posixFS) Chmod(ctx context.Context, key string, mode uint32) error {
	return f.setAttr(ctx, "Chmod", key, func(n *node) { n.mode = mode & 0o7777 })
}

// Chown implements ufs.Owner.
func (f *posixFS) Chown(ctx context.Context, key string, uid, gid uint32) error {
	return f.setAttr(ctx, "Chown", key, func(n *node) { n.uid, n.gid = uid, gid })
}

// Utimens implements ufs.Owner.
func (f *posixFS) Utimens(ctx context.Context, key string, _, mtime time.Time) error {
	return f.setAttr(ctx, "Utimens", key, func(n *node) { n.mtime = mtime })
}

// Space implements ufs.Spacer.
func (f *posixFS) Space(ctx context.Context) (total, free int64, err error) {
	s := f.store
	if err := f.begin(ctx, "Space", "", new(atomic.Int64)); err != nil {
		return 0, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	total = s.cfg.Capacity
	if total == 0 {
		total = 1 << 40
	}
	return total, total - s.used, nil
}
