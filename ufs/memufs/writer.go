// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memufs

import (
	"context"

	"orca"
	"orca/ufs"
)

// writer is one upload: its bytes until Commit.
type writer struct {
	h          *handle
	key, token string
	hint       ufs.WriteHint
	buf        []byte
}

var (
	_ ufs.Writer   = (*writer)(nil)
	_ ufs.Preparer = (*writer)(nil)
	_ ufs.Hinted   = (*writer)(nil)
)

// Create implements ufs.FS.
func (h *handle) Create(ctx context.Context, key, token string) (ufs.Writer, error) {
	s := h.store
	if err := h.begin(ctx, "Create", key, &s.Counters.Create); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case key == "" || !s.cfg.Objects && s.isDirLocked(key):
		return nil, refuse("Create", key, orca.IsDir)
	case s.fileAboveLocked(key):
		return nil, refuse("Create", key, orca.NotDir)
	}
	w := &writer{h: h, key: key, token: token}
	s.uploads[w] = true
	return w, nil
}

// Hint implements ufs.Hinted.
func (w *writer) Hint(h ufs.WriteHint) { w.hint = h }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.h.closed.Load() {
		return 0, refuse("Write", w.key, orca.Unavailable)
	}
	w.buf = append(w.buf, p...)
	return len(p), nil
}

// Prepare implements ufs.Preparer; the bytes are here already.
func (w *writer) Prepare(ctx context.Context) error {
	if ctx.Err() != nil {
		return orca.PathE("memufs.Prepare", w.key, orca.Canceled, ctx.Err())
	}
	return w.check("Prepare")
}

func (w *writer) check(op string) error {
	s := w.h.store
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.uploads[w] {
		return &orca.Error{Op: "memufs." + op, Path: w.key, Kind: orca.Stale, Msg: "the upload was swept"}
	}
	return nil
}

// Commit implements ufs.Writer.
func (w *writer) Commit(ctx context.Context) (ufs.Info, error) {
	s := w.h.store
	if err := w.h.begin(ctx, "Commit", w.key, &s.Counters.Commit); err != nil {
		return ufs.Info{}, err
	}
	if err := w.check("Commit"); err != nil {
		return ufs.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.nodes[w.key]
	grow := int64(len(w.buf))
	if old != nil {
		grow -= int64(len(old.data))
	}
	switch {
	case !s.cfg.Objects && s.isDirLocked(w.key):
		return ufs.Info{}, refuse("Commit", w.key, orca.IsDir)
	case s.fileAboveLocked(w.key):
		return ufs.Info{}, refuse("Commit", w.key, orca.NotDir)
	case w.hint.Expect == ufs.Absent && old != nil,
		w.hint.Expect != "" && w.hint.Expect != ufs.Absent && (old == nil || old.fingerprint != w.hint.Expect):
		return ufs.Info{}, refuse("Commit", w.key, orca.Conflict)
	case s.cfg.Capacity > 0 && s.used+grow > s.cfg.Capacity:
		return ufs.Info{}, refuse("Commit", w.key, orca.NoSpace)
	}
	n := &node{data: w.buf, mode: 0o644}
	switch {
	case w.hint.Owned:
		n.mode, n.uid, n.gid = w.hint.Mode, w.hint.UID, w.hint.GID
	case old != nil:
		n.mode, n.uid, n.gid = old.mode, old.uid, old.gid
	}
	s.parentsLocked(w.key)
	s.setLocked(w.key, n)
	s.Counters.WriteBytes.Add(int64(len(w.buf)))
	delete(s.uploads, w)
	return s.infoLocked(w.key), nil
}

// Abort implements ufs.Writer.
func (w *writer) Abort(context.Context) error {
	s := w.h.store
	s.Counters.Abort.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, w)
	w.buf = nil
	return nil
}

// Sweep implements ufs.FS.
func (h *handle) Sweep(ctx context.Context, key, token string) error {
	s := h.store
	if err := h.begin(ctx, "Sweep", key, &s.Counters.Sweep); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.uploads {
		if w.key == key && (w.token == token || token == "") {
			delete(s.uploads, w)
		}
	}
	return nil
}
