// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
)

// wide fills a store with n directories, 500 in each of those at the top.
func wide(t testing.TB, db *inodekv.DB, n int) {
	t.Helper()
	broad(t, db, n, 500)
}

// broad fills a store with n directories, branch in each of those at the top.
func broad(t testing.TB, db *inodekv.DB, n, branch int) {
	t.Helper()
	tops := (n + branch) / (branch + 1)
	tx := db.NewTx()
	put := func(d inode.Dir) {
		tx.Set(inode.AppendKey8(nil, inode.SpaceDir, uint64(d.Ino)), inode.AppendDir(nil, &d))
		if d.Ino != orca.RootIno {
			tx.Set(inode.AppendDirent(nil, d.Parent, d.Name), inode.AppendSubdir(nil, d.Ino))
		}
	}
	root := inode.Dir{Ino: orca.RootIno, Mode: 0o755, Entries: int64(tops), Subdirs: int64(tops)}
	put(root)
	index := uint64(0)
	next := uint64(firstCounter)
	ino := func() orca.Ino { next++; return orca.NewIno(1, next) }
	for b, left := 0, n; b < tops; b++ {
		left--
		subs := min(branch, left)
		top := inode.Dir{Ino: ino(), Parent: orca.RootIno, Name: fmt.Sprintf("g%05d", b), Mode: 0o755, Mtime: 1 << 60, Entries: int64(subs), Subdirs: int64(subs), Flags: inode.Loaded}
		put(top)
		for i := range subs {
			put(inode.Dir{Ino: ino(), Parent: top.Ino, Name: fmt.Sprintf("d%08d", b*branch+i), Mode: 0o755, Mtime: 1 << 60, Change: index, Flags: inode.Loaded})
		}
		left -= subs
		index++
		if err := tx.Commit(index, subs); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
}

// openWide opens a machine over n directories, again and again.
func openWide(t testing.TB, cfg inodekv.Config, n int) func() {
	t.Helper()
	db, err := inodekv.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(false); err != nil {
			t.Error(err)
		}
	})
	wide(t, db, n)
	return func() {
		m, err := Open(Config{Group: 1}, db, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if len(m.dirs) != n+1 || m.root.below.Dirs != int64(n) {
			t.Fatalf("%d directories, %d below the root, want %d and the root", len(m.dirs), m.root.below.Dirs, n)
		}
	}
}

// BenchmarkOpen is what a machine over half a million directories costs to open.
func BenchmarkOpen(b *testing.B) {
	open := openWide(b, inodekv.Config{Dir: b.TempDir()}, 500_000)
	b.ReportAllocs()
	for b.Loop() {
		open()
	}
}

// reopened opens a machine over directories whose counters and names matter
// little: each is in the one of the number given.
func reopened(t *testing.T, parents map[orca.Ino]orca.Ino) (*Machine, error) {
	t.Helper()
	db, err := inodekv.Open(inodekv.Config{Memory: true}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(false); err != nil {
			t.Error(err)
		}
	})
	tx := db.NewTx()
	for ino, parent := range parents {
		rec := inode.Dir{Ino: ino, Parent: parent, Name: ino.String(), Bytes: int64(ino), Flags: inode.Loaded}
		for _, p := range parents {
			if p == ino {
				rec.Entries++
				rec.Subdirs++
			}
		}
		tx.Set(inode.AppendKey8(nil, inode.SpaceDir, uint64(ino)), inode.AppendDir(nil, &rec))
	}
	if err := tx.Commit(1, 1); err != nil {
		t.Fatal(err)
	}
	return Open(Config{Group: 1}, db, nil, slog.New(slog.DiscardHandler))
}

// Directories may be older than those they were moved into, in any order.
func TestOpenFindsParentsThatComeLater(t *testing.T) {
	m, err := reopened(t, map[orca.Ino]orca.Ino{
		20: 30, 21: 30, 22: 21, 30: 40, 31: 22, 40: orca.RootIno, 50: trashIno, 25: 60, 60: 50, orca.RootIno: 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	for ino, above := range map[orca.Ino][]orca.Ino{
		20: {30, 40}, 21: {30, 40}, 22: {21, 30, 40}, 31: {22, 21, 30, 40},
	} {
		want := "/" + ino.String()
		for _, a := range above {
			want = "/" + a.String() + want
		}
		if n := m.dirs[ino]; n == nil || !m.attached(n) || n.path() != want {
			t.Errorf("directory %v is not at %s", ino, want)
		}
	}
	if n := m.dirs[25]; n.parent != m.dirs[60] || n.parent.parent != m.dirs[50] || m.trash[50].node != m.dirs[50] {
		t.Error("what was detached is not below what was detached")
	}
	want := sums{Usage: Usage{Bytes: 1 + 20 + 21 + 22 + 30 + 31 + 40, Dirs: 6}, unsure: 0}
	if m.root.below != want {
		t.Errorf("below the root: %+v, want %+v", m.root.below, want)
	}
	want = sums{Usage: Usage{Bytes: 50 + 60 + 25, Dirs: 2}}
	if got := m.dirs[50].below; got != want {
		t.Errorf("below what was detached: %+v, want %+v", got, want)
	}
}

// Directories that lead nowhere are no tree, be there none above or a circle.
func TestOpenRefusesLostDirectories(t *testing.T) {
	for name, parents := range map[string]map[orca.Ino]orca.Ino{
		"none above": {orca.RootIno: 0, 20: 21},
		"a circle":   {orca.RootIno: 0, 20: 21, 21: 20},
		"itself":     {orca.RootIno: 0, 20: 20},
	} {
		if _, err := reopened(t, parents); orca.KindOf(err) != orca.Corrupt {
			t.Errorf("%s: %v, want Corrupt", name, err)
		}
	}
}

// heapInUse is what is in use of Go's memory, in bytes.
func heapInUse() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
