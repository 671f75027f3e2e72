// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTrash deletes through a mount and by command, with a retention, and brings
// back what was deleted: after a kill, too. A file that is open stays readable.
func TestTrash(t *testing.T) {
	root, data, mnt := t.TempDir(), t.TempDir(), t.TempDir()
	t.Cleanup(func() { syscall.Unmount(mnt, syscall.MNT_DETACH) })
	for name, content := range map[string]string{"d/a": "of a", "d/sub/b": "of b", "open": strings.Repeat("never cached ", 100_000)} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := up(t, data, "--root", root, "--mount", mnt, "--trash-retention", "1h")
	reads := func(name, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(mnt, name)); err != nil || string(b) != want {
			t.Errorf("%s reads %q (%v), want %q", name, b, err, want)
		}
	}
	gone := func(dir, name string) {
		t.Helper()
		if _, err := os.Lstat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v, want it gone", name, err)
		}
	}

	// rm on the mount, undelete by path; the kernel sees both at once.
	if err := os.Remove(filepath.Join(mnt, "d/a")); err != nil {
		t.Fatal(err)
	}
	gone(mnt, "d/a")
	gone(root, "d/a")
	if es, err := os.ReadDir(mnt); err != nil || len(es) != 2 {
		t.Errorf("the root shows %v (%v)", es, err)
	}
	gone(mnt, ".~orca.trash")
	if ls := p.must("fs", "trash", "ls"); !strings.HasSuffix(ls, "\t/d/a\n") {
		t.Errorf("trash ls says %q", ls)
	}
	p.must("fs", "trash", "restore", "/d/a")
	reads("d/a", "of a")

	// What is deleted elsewhere stays readable for who has it open.
	f, err := os.Open(filepath.Join(mnt, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.must("fs", "rm", "/open")
	gone(mnt, "open")
	if b, err := io.ReadAll(f); err != nil || len(b) != 1_300_000 {
		t.Errorf("the open file reads %d bytes (%v)", len(b), err)
	}

	// A tree, by name; over a kill; to another place whose parents are missing.
	if err := os.RemoveAll(filepath.Join(mnt, "d/sub")); err != nil {
		t.Fatal(err)
	}
	p.must("fs", "rm", "-R", "/d")
	gone(root, "d")
	p.kill()
	syscall.Unmount(mnt, syscall.MNT_DETACH)
	p = up(t, data, "--root", root, "--mount", mnt)
	p.must("fs", "trash", "restore", "/d", "--to", "/x/y/d")
	reads("x/y/d/a", "of a")
	p.must("fs", "trash", "restore", "/d/sub/b")
	reads("d/sub/b", "of b")
	if _, errs, code := p.cli("fs", "trash", "restore", "/d/sub/b"); code == 0 || !strings.Contains(errs, "restored") {
		t.Errorf("a second restore: %d %q", code, errs)
	}

	// For good, and by time: the store has it no more either.
	p.must("fs", "rm", "--skip-trash", "/d/sub/b")
	p.must("fs", "rm", "-R", "/x")
	p.must("fs", "trash", "empty", "/open")
	if ls := p.must("fs", "trash", "ls"); strings.Count(ls, "\n") != 1 {
		t.Errorf("trash ls says %q", ls)
	}
	p.must("fs", "mount", "/", root, "--trash-retention", "1ms")
	eventually(t, 20*time.Second, "the store has none of it", func() bool {
		es, err := os.ReadDir(filepath.Join(root, ".~orca.trash"))
		return err == nil && len(es) == 0
	})
	if ls := p.must("fs", "trash", "ls"); ls != "" {
		t.Errorf("trash ls says %q", ls)
	}
}
