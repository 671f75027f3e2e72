// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"
	"syscall"
	"testing"

	"orca"
)

// A directory further down as the root of a mount: the kernel's root has
// number 1 all the same, and so has the inode that is not shown.
func TestMountsASubtree(t *testing.T) {
	fs := newMemFS(t)
	ctx := context.Background()
	top, err := fs.Mkdir(ctx, orca.Caller{}, 1, "top", 0o751)
	if err != nil {
		t.Fatal(err)
	}
	fs.put(t, 1, "outside", []byte("x"))
	fs.put(t, top.Ino, "in", []byte("inside"))
	m, dir := mounted(t, fs, func(c *Config) { c.Root = top.Ino })
	ready(t, m)
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o751 || st.Sys().(*syscall.Stat_t).Ino != uint64(top.Ino) {
		t.Fatalf("root of the mount: %v %v", st, err)
	}
	names := func() (s string) {
		es, _ := os.ReadDir(dir)
		for _, e := range es {
			s += e.Name() + " "
		}
		return s
	}
	if got := names(); got != "in " || read(t, dir+"/in") != "inside" {
		t.Fatalf("names %q", got)
	}
	if _, err := os.Stat(dir + "/outside"); !os.IsNotExist(err) {
		t.Fatal("the outside is seen:", err)
	}
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/a/b/new", "data")
	if err := os.Rename(dir+"/a/b/new", dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	if e, err := fs.Lookup(ctx, orca.Caller{}, top.Ino, "moved"); err != nil || e.Length != 4 {
		t.Fatal(e, err)
	}
	// What others change in the shown root and in the real one.
	fs.put(t, top.Ino, "later", nil)
	eventually(t, "a new name in the root", func() bool { return names() == "a in later moved " })
	mode := uint32(0o700)
	for _, ino := range []orca.Ino{orca.RootIno, top.Ino} {
		if _, err := fs.SetAttr(ctx, orca.Caller{}, ino, Change{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		mode = 0o755
	}
	eventually(t, "the root's new mode", func() bool { st, err := os.Stat(dir); return err == nil && st.Mode().Perm() == 0o755 })
	fs.put(t, 1, "outside", []byte("changed"))
	if err := os.Remove(dir + "/moved"); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "a in later " {
		t.Fatalf("names %q", got)
	}
}
