// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestLostAfterRestart loses the only tier of the only worker between two
// lives: what was nowhere else says so at once, everything else is served.
func TestLostAfterRestart(t *testing.T) {
	data, root := t.TempDir(), t.TempDir()
	args := []string{"--root", root, "--mem", "64MB", "--ssd", "0"}
	p := up(t, data, args...)
	fs := p.fs()
	ctx := ctxFor(t, 2*time.Minute)
	if err := write(ctx, fs, "/cached", "nowhere else", client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	if err := write(ctx, fs, "/through", "in the store", client.CreateOptions{WriteType: orca.CacheThrough}); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.CreateEmpty(ctx, client.Path("/empty"), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	p.kill()
	mem := filepath.Join(data, "run", "mem")
	if err := syscall.Unmount(mem, syscall.MNT_DETACH); err != nil { // a private folder then
		old, _ := filepath.Glob("/dev/shm/orca-*")
		t.Skipf("no tmpfs of its own (%v); shared memory has %v", err, old)
	}
	for range 2 { // and again after another restart
		p = up(t, data, args...)
		fs = p.fs()
		if out := p.must("fs", "stat", "/cached"); !strings.Contains(out, "LOST") {
			t.Errorf("stat of a lost file:\n%s", out)
		}
		_, err := get(ctx, fs, "/cached", client.Sync{})
		if !errors.Is(err, orca.LostData) {
			t.Errorf("reading a lost file: %v", err)
		}
		if _, e, code := p.cli("fs", "cat", "/cached"); code == 0 || e == "" {
			t.Errorf("cat of a lost file: exit %d, %q", code, e)
		}
		for name, want := range map[string]string{"/through": "in the store", "/empty": ""} {
			if got, err := get(ctx, fs, name, client.Sync{}); err != nil || got != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		p.kill()
		syscall.Unmount(mem, syscall.MNT_DETACH)
	}
	p = up(t, data, args...)
	fs = p.fs()
	if err := put(ctx, fs, "/cached", "new"); err != nil {
		t.Fatalf("overwriting a lost file: %v", err)
	}
	if got, err := get(ctx, fs, "/cached", client.Sync{}); err != nil || got != "new" {
		t.Errorf("after overwriting it: %q, %v", got, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "cached")); err != nil || string(b) != "new" {
		t.Errorf("in the store: %q, %v", b, err)
	}
}
