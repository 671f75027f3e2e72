// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package mount knows what the mount table says: which mount a path belongs
// to, how options are spelled, which of them are secret, and the open stores
// behind the mounts.
//
// Flow: metaserver rebuilds a Table whenever the mount epoch changes, and asks
// Stores for the ufs.FS of a mount; the store is opened on first use through
// an Opener that the composer supplies (ufs/backends), so that this room knows
// no store by name. A failed opening is remembered for a moment, so that a
// dead endpoint is not hammered.
//
// Goroutines: none. Lock order: Stores.mu, then one entry's lock (held while
// opening, never with Stores.mu). It refuses URIs without a scheme or path,
// and mounting one store inside another mount's tree.
package mount

import (
	"cmp"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Table is an immutable view of the mount table. The zero value is empty.
type Table struct {
	Epoch  uint64
	byPath []*metapb.Mount // longest path first
	byID   map[uint32]*metapb.Mount
}

// NewTable indexes mounts; it keeps the messages, which must not change.
func NewTable(mounts []*metapb.Mount, epoch uint64) *Table {
	t := &Table{Epoch: epoch, byPath: slices.Clone(mounts), byID: make(map[uint32]*metapb.Mount, len(mounts))}
	slices.SortFunc(t.byPath, func(a, b *metapb.Mount) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.Path, b.Path))
	})
	for _, m := range mounts {
		t.byID[m.Id] = m
	}
	return t
}

// ByID returns a mount, nil if there is none.
func (t *Table) ByID(id uint32) *metapb.Mount { return t.byID[id] }

// All returns the mounts by path.
func (t *Table) All() []*metapb.Mount {
	out := slices.Clone(t.byPath)
	slices.SortFunc(out, func(a, b *metapb.Mount) int { return cmp.Compare(a.Path, b.Path) })
	return out
}

// Resolve returns the mount that a clean path belongs to (longest prefix) and
// the path relative to it; nil when none covers it.
func (t *Table) Resolve(p string) (m *metapb.Mount, rel string) {
	for _, m := range t.byPath {
		if rel, ok := orca.Under(m.Path, p); ok {
			return m, rel
		}
	}
	return nil, ""
}

// Below returns the mounts strictly below a clean path.
func (t *Table) Below(p string) (out []*metapb.Mount) {
	for _, m := range t.byPath {
		if rel, ok := orca.Under(p, m.Path); ok && rel != "" {
			out = append(out, m)
		}
	}
	return out
}

// CheckNew refuses a mount that may not join the table: its path is a mount
// already, or its store is the same as, above or below a mounted one (two
// names for one object would let the namespace contradict itself).
func (t *Table) CheckNew(n *metapb.Mount) error {
	const op = "mount.CheckNew"
	for _, m := range t.byPath {
		if m.Path == n.Path {
			return &orca.Error{Op: op, Path: n.Path, Kind: orca.Exists, Msg: "the path is a mount point already, of " + m.Uri}
		}
		if overlap(m.Uri, n.Uri) {
			return &orca.Error{Op: op, Path: n.Uri, Kind: orca.Exists, Msg: "overlaps with " + m.Uri + ", which is mounted at " + m.Path}
		}
	}
	return nil
}

func overlap(a, b string) bool {
	a, b = strings.TrimSuffix(a, "/")+"/", strings.TrimSuffix(b, "/")+"/"
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// Clean validates a mount request in place: path, URI, scheme, options.
// Without a scheme an absolute path is a local folder.
func Clean(m *metapb.Mount) error {
	const op = "mount.Clean"
	p, err := orca.CleanPath(m.Path)
	if err != nil {
		return err
	}
	m.Path = p
	if strings.HasPrefix(m.Uri, "/") {
		m.Uri = "file://" + path.Clean(m.Uri)
	}
	scheme, rest, ok := strings.Cut(m.Uri, "://")
	if !ok || scheme == "" || rest == "" {
		return &orca.Error{Op: op, Path: m.Uri, Kind: orca.Invalid, Msg: "not a store URI (want scheme://authority/path, or an absolute folder)"}
	}
	if u, err := url.Parse(m.Uri); err == nil && u.User != nil {
		return &orca.Error{Op: op, Path: u.Redacted(), Kind: orca.Invalid, Msg: "credentials belong into options, not into the URI"}
	}
	m.Scheme = strings.ToLower(scheme)
	m.Uri = m.Scheme + "://" + strings.TrimRight(rest, "/")
	if m.Scheme == "file" && strings.Trim(rest, "/") == "" {
		m.Uri = "file:///"
	}
	if m.SyncIntervalMs < -1 {
		return orca.E(op, orca.Invalid, "sync interval below -1")
	}
	if m.TrashRetentionMs < -1 || m.TrashRetentionMs > maxRetention.Milliseconds() {
		return orca.E(op, orca.Invalid, "trash is kept for up to ten years")
	}
	m.Options, err = CleanOptions(m.Options)
	return err
}

// maxRetention bounds how long what was deleted is kept.
const maxRetention = 10 * 366 * 24 * time.Hour

// URI returns the full URI of a key within a mount.
func URI(m *metapb.Mount, key string) string {
	if key == "" {
		return m.Uri
	}
	return strings.TrimSuffix(m.Uri, "/") + "/" + key
}

// CleanOptions maps aliases to our spelling. An alias that has no meaning here
// is dropped; giving one option two values under two names is Invalid.
func CleanOptions(in map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(in))
	for _, k := range slices.Sorted(maps.Keys(in)) {
		name := strings.ToLower(strings.TrimSpace(k))
		if name == "" || len(k) > 256 || len(in[k]) > 4096 {
			return nil, &orca.Error{Op: "mount.CleanOptions", Path: name, Kind: orca.Invalid, Msg: "empty or too long option"}
		}
		if a, ok := ufs.Alias(name); ok {
			if a == "" {
				continue
			}
			name = a
		}
		if old, ok := out[name]; ok && old != in[k] {
			return nil, &orca.Error{Op: "mount.CleanOptions", Path: name, Kind: orca.Invalid, Msg: "option given twice with different values"}
		}
		out[name] = in[k]
	}
	return out, nil
}

// Masked is what a secret reads as in replies.
const Masked = "******"

// secretWords mark an option as secret when its name contains one.
var secretWords = []string{"secret", "password", "token", "credential", "private"}

// IsSecret reports whether an option's value must not be shown.
func IsSecret(option string) bool {
	option = strings.ToLower(option)
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(option, w) })
}

// Mask returns a copy of the mount that may be shown to anybody.
func Mask(m *metapb.Mount) *metapb.Mount {
	c := Copy(m)
	for k, v := range c.Options {
		if v != "" && IsSecret(k) {
			c.Options[k] = Masked
		}
	}
	return c
}

// Copy returns a copy of the mount with options of its own.
func Copy(m *metapb.Mount) *metapb.Mount {
	return &metapb.Mount{Id: m.Id, Path: m.Path, Uri: m.Uri, Options: maps.Clone(m.Options),
		ReadOnly: m.ReadOnly, Shared: m.Shared, SyncIntervalMs: m.SyncIntervalMs, Scheme: m.Scheme,
		Group: m.Group, Junction: m.Junction, Root: m.Root, Serial: m.Serial, Part: m.Part, TrashRetentionMs: m.TrashRetentionMs}
}
