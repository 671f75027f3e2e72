// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"orca/engine/client"
)

// TestFreeWhatWasJustRead frees a file a moment after its first bytes were read,
// before any report of it, with the reader still there: nothing of it stays
// cached, and the reader goes on.
func TestFreeWhatWasJustRead(t *testing.T) {
	root := t.TempDir()
	want := bytes.Repeat([]byte("0123456789abcde\n"), 4<<20/16)
	if err := os.WriteFile(filepath.Join(root, "f"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	p := up(t, t.TempDir(), "--root", root)
	fs, ctx := p.fs(), ctxFor(t, 2*time.Minute)
	f, err := fs.Open(ctx, client.Path("/f"), client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := f.ReadAtContext(ctx, got[:1], 0); err != nil {
		t.Fatal(err)
	}
	if p.metric("orca_tier_used_bytes") == 0 {
		t.Fatal("nothing is cached")
	}
	p.must("fs", "free", "/f")
	eventually(t, time.Minute, "the file is freed", func() bool { return p.metric("orca_tier_used_bytes") == 0 })
	if _, err := f.ReadAtContext(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("after the free: %v", err)
	}
}
