// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package backends opens an under file system from the URI and options of a
// mount: a table from scheme to constructor, the checks of the options, and
// the order of the decorators. Adding a store is one line in New.
//
// Nothing is remembered between calls. It refuses unknown schemes and unknown
// options (with the nearest known name), so that a typing mistake fails at
// mount and not as a missing setting later.
package backends

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"orca"
	"orca/ufs"
	"orca/ufs/local"
	"orca/ufs/memufs"
	"orca/ufs/s3"
	"orca/ufs/wrap"
)

// Constructor opens one store; options carry canonical names only.
type Constructor func(ctx context.Context, uri string, options map[string]string, log *slog.Logger) (ufs.FS, error)

// Backend is one row of the table.
type Backend struct {
	Open Constructor
	// Options are the canonical option names it understands, besides those
	// of every store.
	Options []string
	// Secrets are those of them that are to be masked.
	Secrets []string
	// Aliases lead from other spellings to canonical names.
	Aliases map[string]string
}

// Table maps a scheme to its backend.
type Table map[string]Backend

// commonOptions are understood for every store.
var commonOptions = []string{"retry.attempts", "limit.concurrent", "limit.iops", "limit.read_rate", "limit.write_rate"}

// Open opens a store with the table of New.
func Open(ctx context.Context, uri string, options map[string]string, log *slog.Logger) (ufs.FS, error) {
	fs, _, err := New().Open(ctx, uri, options, log)
	return fs, err
}

// New returns the table of every store that is built in.
func New() Table {
	folder := Backend{Open: openLocal}
	bucket := Backend{Open: openS3, Options: s3.Options(), Secrets: s3.Secrets(), Aliases: s3.Aliases()}
	return Table{
		"":     folder,
		"file": folder,
		"s3":   bucket,
		"s3a":  bucket,
		"s3n":  bucket,
		"mem":  {Open: openMem, Options: []string{"mem.objects", "mem.capacity"}},
	}
}

// Schemes returns the schemes in order.
func (t Table) Schemes() []string {
	var out []string
	for s := range t {
		if s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// Scheme returns the scheme of a URI; "" for an absolute path.
func Scheme(uri string) string {
	if strings.HasPrefix(uri, "/") {
		return ""
	}
	s, _, ok := strings.Cut(uri, "://")
	if !ok {
		return ""
	}
	return strings.ToLower(s)
}

// Same reports whether two URIs name the same root, however they are spelt:
// "/a/", "file:///a" and "file://localhost/a"; s3, s3a and s3n.
func Same(a, b string) bool { return spelling(a) == spelling(b) }

// spelling is one spelling of a URI.
func spelling(uri string) string {
	_, rest, _ := strings.Cut(uri, "://")
	switch s := Scheme(uri); s {
	case "":
		return "file://" + cleaned(uri)
	case "file":
		return "file://" + cleaned(strings.TrimPrefix(rest, "localhost"))
	case "s3", "s3a", "s3n":
		bucket, prefix, _ := strings.Cut(rest, "/")
		return "s3://" + bucket + "/" + strings.Trim(prefix, "/")
	default:
		return s + "://" + strings.Trim(rest, "/")
	}
}

func cleaned(path string) string {
	if p, err := orca.CleanPath(path); err == nil {
		return p
	}
	return path
}

// find returns the backend of a URI. Unsupported, Invalid.
func (t Table) find(uri string) (Backend, error) {
	b, ok := t[Scheme(uri)]
	if ok && (Scheme(uri) != "" || strings.HasPrefix(uri, "/")) {
		return b, nil
	}
	e := &orca.Error{Op: "backends.Open", Path: Masked(uri), Kind: orca.Unsupported}
	e.Msg = "unknown scheme; known are an absolute path, " + strings.Join(t.Schemes(), "://, ") + "://"
	if Scheme(uri) == "" {
		e.Kind = orca.Invalid
	}
	return Backend{}, e
}

// Validate checks URI and options without asking the store, and returns the
// options under their canonical names.
func (t Table) Validate(uri string, options map[string]string) (map[string]string, error) {
	b, err := t.find(uri)
	if err != nil {
		return nil, err
	}
	out, err := b.canonical(options)
	if err != nil {
		return nil, err
	}
	if _, _, err := decoration(out); err != nil {
		return nil, err
	}
	return out, nil
}

// Validate checks URI and options with the table of New.
func Validate(uri string, options map[string]string) (map[string]string, error) {
	return New().Validate(uri, options)
}

// Open opens the store of a URI with its decorators, from the inside out:
//
//	store ─ Metrics (each attempt) ─ Limit (waits hold no slot) ─ Retry
//
// and returns its counters.
func (t Table) Open(ctx context.Context, uri string, options map[string]string, log *slog.Logger) (ufs.FS, *wrap.Stats, error) {
	canonical, err := t.Validate(uri, options)
	if err != nil {
		return nil, nil, err
	}
	retry, limit, err := decoration(canonical)
	if err != nil {
		return nil, nil, err
	}
	b, err := t.find(uri)
	if err != nil {
		return nil, nil, err
	}
	fs, err := b.Open(ctx, uri, canonical, log)
	if err != nil {
		return nil, nil, err
	}
	stats := new(wrap.Stats)
	return wrap.Retry(wrap.Limit(wrap.Metrics(fs, stats), limit, stats), retry), stats, nil
}

// openLocal opens a folder.
func openLocal(ctx context.Context, uri string, _ map[string]string, log *slog.Logger) (ufs.FS, error) {
	path := uri
	if !strings.HasPrefix(uri, "/") {
		_, path, _ = strings.Cut(uri, "://")
		path = strings.TrimPrefix(path, "localhost") // taken literally: "%" is a percent sign
	}
	if !strings.HasPrefix(path, "/") {
		return nil, &orca.Error{Op: "backends.Open", Path: uri, Kind: orca.Invalid, Msg: "want file:///absolute/path"}
	}
	clean, err := orca.CleanPath(path)
	if err != nil {
		return nil, err
	}
	return local.Open(ctx, local.Config{Root: clean}, log)
}

// openS3 opens a bucket, or a prefix in one.
func openS3(ctx context.Context, uri string, options map[string]string, log *slog.Logger) (ufs.FS, error) {
	cfg, err := s3.FromOptions(uri, options)
	if err != nil {
		return nil, err
	}
	return s3.Open(ctx, cfg, log)
}

// openMem opens the store of this name in this process.
func openMem(_ context.Context, uri string, options map[string]string, _ *slog.Logger) (ufs.FS, error) {
	var cfg memufs.Config
	var err error
	if cfg.Objects, err = boolOption(options, "mem.objects"); err != nil {
		return nil, err
	}
	if cfg.Capacity, err = bytesOption(options, "mem.capacity"); err != nil {
		return nil, err
	}
	_, name, _ := strings.Cut(uri, "://")
	return memufs.Shared(strings.Trim(name, "/"), cfg).FS(), nil
}
