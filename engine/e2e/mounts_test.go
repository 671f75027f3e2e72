// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestMountConflicts asks for mounts that cannot be.
func TestMountConflicts(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "f"), []byte("read me"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := up(t, t.TempDir(), "--root", root)
	fs := p.fs()
	ctx := ctxFor(t, time.Minute)
	for _, name := range []string{"/taken/f", "/file"} {
		if err := put(ctx, fs, name, "x"); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(why string, args ...string) {
		t.Helper()
		o, e, code := p.cli(args...)
		if code == 0 || strings.TrimSpace(e) == "" || strings.Contains(e, "panic") {
			t.Errorf("%s: orca %s: exit %d\n%s%s", why, strings.Join(args, " "), code, o, e)
		}
	}
	refused("on a file", "fs", "mount", "/file", other)
	refused("below a file", "fs", "mount", "/file/x", other)
	refused("on a directory with entries", "fs", "mount", "/taken", other)
	refused("the root again", "fs", "mount", "/", other)
	refused("a store that is not there", "fs", "mount", "/none", filepath.Join(other, "none"))
	refused("an unknown scheme", "fs", "mount", "/none", "gopher://x/y")
	refused("an unknown option", "fs", "mount", "--option", "no.such=1", "/none", other)
	refused("no path", "fs", "mount", "none", "")
	p.must("fs", "mount", "--readonly", "/ro", other)
	refused("a second time", "fs", "mount", "/ro", t.TempDir())
	refused("the same store elsewhere", "fs", "mount", "/again", other)
	refused("inside of a mounted store", "fs", "mount", "/again", filepath.Join(root, "taken"))
	if out := p.must("fs", "cat", "/ro/f"); out != "read me" {
		t.Errorf("read-only mount: %q", out)
	}
	refused("writing", "fs", "touch", "/ro/new")
	refused("mkdir", "fs", "mkdir", "/ro/d")
	refused("rm", "fs", "rm", "/ro/f")
	refused("mv within", "fs", "mv", "/ro/f", "/ro/g")
	refused("mv out", "fs", "mv", "/ro/f", "/g")
	refused("mv in", "fs", "mv", "/file", "/ro/file")
	refused("chmod", "fs", "chmod", "600", "/ro/f")
	refused("rm of the mount point", "fs", "rm", "-R", "/ro")
	if b, err := os.ReadFile(filepath.Join(other, "f")); err != nil || string(b) != "read me" {
		t.Errorf("the read-only store: %q, %v", b, err)
	}
	refused("unmounting the root", "fs", "unmount", "/")
	refused("unmounting what is none", "fs", "unmount", "/taken")
	p.must("fs", "unmount", "/ro")
	refused("after the unmount", "fs", "cat", "/ro/f")
	busyUnmount(t, p, fs)
}

// busyUnmount takes a store away from a writer and from unpersisted data.
func busyUnmount(t *testing.T, p *proc, fs *client.FS) {
	t.Helper()
	ctx := ctxFor(t, time.Minute)
	store := t.TempDir()
	p.must("fs", "mount", "/busy", store)
	w, err := fs.Create(ctx, client.Path("/busy/open"), client.CreateOptions{WriteType: orca.CacheThrough})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("acknowledged")); err != nil {
		t.Fatal(err)
	}
	if _, e, code := p.cli("fs", "unmount", "/busy"); code == 0 || e == "" {
		t.Errorf("unmounted under an open writer: exit %d, %s", code, e)
	}
	if err := w.Close(); err != nil {
		t.Errorf("closing after a refused unmount: %v", err)
	}
	p.must("fs", "unmount", "/busy")
	if b, err := os.ReadFile(filepath.Join(store, "open")); err != nil || string(b) != "acknowledged" {
		t.Errorf("in the store: %q, %v", b, err)
	}
}

// TestStolenWriters lets two writers race for one file, the second of which
// takes the session of the first over: whoever is told that it is published is
// what the store has, and a stale one never is.
func TestStolenWriters(t *testing.T) {
	root := t.TempDir()
	p := up(t, t.TempDir(), "--root", root)
	one, two := p.fs(), dial(t, client.Config{Addresses: []string{p.ep.Meta}, Node: "far"})
	ctx := ctxFor(t, time.Minute)
	stolen := 0
	for i := range 60 {
		for _, wt := range []orca.WriteType{orca.CacheThrough, orca.Through} {
			name := fmt.Sprintf("/f%d-%v", i, wt)
			if i%2 == 0 { // an overwrite of what the store does not have
				if err := write(ctx, one, name, "before", client.CreateOptions{WriteType: orca.MustCache}); err != nil {
					t.Fatal(err)
				}
			}
			w, err := one.Create(ctx, client.Path(name), client.CreateOptions{WriteType: wt, Overwrite: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte("first")); err != nil {
				t.Fatal(err)
			}
			var first, second error
			var wg sync.WaitGroup
			wg.Go(func() {
				<-time.After(time.Duration(i%6) * 200 * time.Microsecond)
				first = w.Close()
			})
			<-time.After(time.Duration(i%4) * time.Millisecond)
			second = write(ctx, two, name, "second", client.CreateOptions{WriteType: wt, Overwrite: true, Steal: true})
			wg.Wait()
			if second != nil {
				t.Fatalf("%s: the thief: %v (the first: %v)", name, second, first)
			}
			if first != nil {
				stolen++
				if orca.KindOf(first) != orca.Stale {
					t.Errorf("%s: the first writer: %v", name, first)
				}
			}
			b, err := os.ReadFile(filepath.Join(root, name))
			if err != nil || string(b) != "second" {
				t.Errorf("%s: the store has %q, %v (the first: %v)", name, b, err, first)
			}
			if got, err := get(ctx, one, name, client.Sync{}); err != nil || got != "second" {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	t.Logf("%d of 120 sessions were stolen in time", stolen)
}
