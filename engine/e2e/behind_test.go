// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
	"orca/ufs"
	"orca/ufs/backends"
)

// TestBehindOurBack changes the store while Orca looks on every access.
func TestBehindOurBack(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		root := t.TempDir()
		st, err := backends.Open(ctxFor(t, time.Minute), root, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		behindOurBack(t, st, nil, []string{"--root", root})
	})
	t.Run("MinIO", func(t *testing.T) {
		s := minioStore(t)
		behindOurBack(t, s.open(t), s.env, s.upArgs)
	})
}

func behindOurBack(t *testing.T, st ufs.FS, env, args []string) {
	t.Cleanup(func() { st.Close() })
	p := upEnv(t, t.TempDir(), env, append([]string{"--sync-interval", "0s", "--mem", "128MB", "--ssd", "0"}, args...)...)
	ctx := ctxFor(t, time.Minute)
	put := func(key, content string) {
		t.Helper()
		if err := putObject(ctx, st, key, content); err != nil {
			t.Fatal(err)
		}
	}
	cat := func(name, want string) {
		t.Helper()
		if got := p.must("fs", "cat", name); got != want {
			t.Errorf("%s: %d bytes %.20q, want %d bytes %.20q", name, len(got), got, len(want), want)
		}
	}
	if out := p.must("fs", "ls", "/"); out != "" {
		t.Fatalf("an empty store has:\n%s", out)
	}
	put("d/f", "appeared")
	cat("/d/f", "appeared")
	put("d/f", "changed, and longer")
	cat("/d/f", "changed, and longer")
	put("d/f", "CHANGED, AND LONGER") // the same length
	cat("/d/f", "CHANGED, AND LONGER")
	if out := p.must("fs", "ls", "/d"); !strings.Contains(out, "/d/f") {
		t.Errorf("ls:\n%s", out)
	}
	if err := st.Remove(ctx, "d/f"); err != nil {
		t.Fatal(err)
	}
	if _, e, code := p.cli("fs", "cat", "/d/f"); code == 0 || !strings.Contains(e, "No such file") {
		t.Errorf("cat of what is gone: exit %d, %s", code, e)
	}
	if out := p.must("fs", "ls", "-R", "/"); strings.Contains(out, "/d/f") {
		t.Errorf("ls shows what is gone:\n%s", out)
	}
	underReaders(t, p, st, put)
}

// underReaders changes and removes objects under open readers: each gets its
// version wholly, or Stale.
func underReaders(t *testing.T, p *proc, st ufs.FS, put func(key, content string)) {
	const size = 24 << 20
	ctx := ctxFor(t, time.Minute)
	fs := p.fs()
	far := dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "far"})
	for i, reader := range []*client.FS{fs, far, fs, far} {
		key := fmt.Sprintf("big%d", i)
		put(key, strings.Repeat("a", size))
		f, err := reader.Open(ctx, client.Path("/"+key), client.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 64<<10)
		if _, err := io.ReadFull(f, got); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			put(key, strings.Repeat("b", size))
		} else if err := st.Remove(ctx, key); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(f)
		f.Close()
		got = append(got, rest...)
		switch {
		case err != nil && !errors.Is(err, orca.Stale) && (i < 2 || !errors.Is(err, orca.NotFound)):
			t.Errorf("reader %d of a changed object: %v after %d bytes", i, err, len(got))
		case err == nil && len(got) != size:
			t.Errorf("reader %d of a changed object: %d bytes without an error", i, len(got))
		}
		if n := strings.Count(string(got), "a"); n != len(got) {
			t.Errorf("reader %d of a changed object got a mix: %d of %d bytes are old", i, n, len(got))
		}
		again, err := get(ctx, reader, "/"+key, client.Sync{})
		switch {
		case i < 2 && (err != nil || again != strings.Repeat("b", size)):
			t.Errorf("reader %d: the new version: %d bytes, %v", i, len(again), err)
		case i >= 2 && !errors.Is(err, orca.NotFound):
			t.Errorf("reader %d: what is gone: %d bytes, %v", i, len(again), err)
		}
	}
}
