// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

//go:build !race

package fsm

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
)

// idle is a store that does nothing in the background; under the race detector it
// allocates at random.
func idle() inodekv.Config {
	return inodekv.Config{Memory: true, FlushEvery: time.Hour, FlushOps: 1 << 30}
}

// A member does not serve before it has read all directories, so they share
// what memory they can.
func TestOpenAllocates(t *testing.T) {
	const dirs = 20_000
	open := openWide(t, idle(), dirs)
	if per := testing.AllocsPerRun(3, open) / dirs; per > 0.15 {
		t.Errorf("%.2f allocations per directory at open, want 0.15 at most", per)
	}
}

// TestOpenCostsNothingForFiles: what a start costs is by directories.
func TestOpenCostsNothingForFiles(t *testing.T) {
	const dirs, files = 2_000, 100_000
	db, err := inodekv.Open(idle(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(false); err != nil {
			t.Error(err)
		}
	})
	wide(t, db, dirs)
	open := func() {
		if _, err := Open(Config{Group: 1}, db, nil, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	before := testing.AllocsPerRun(3, open)
	tx := db.NewTx()
	for i := range files {
		name, dir := fmt.Sprintf("part-%09d.bin", i), orca.NewIno(1, firstCounter+1+uint64(i%dirs))
		f := &inode.File{Ino: orca.NewIno(1, 1<<20+uint64(i)), Type: orca.TypeFile, Mode: 0o644, Version: 1, LastVersion: 1, Mtime: 1 << 60}
		tx.Set(inode.AppendDirent(nil, dir, name), inode.AppendFile(nil, f))
		tx.Set(inode.AppendKey8(nil, inode.SpaceInode, uint64(f.Ino)), inode.AppendPlace(nil, dir, name))
	}
	if err := tx.Commit(1<<20, files); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(); err != nil {
		t.Fatal(err)
	}
	if after := testing.AllocsPerRun(3, open); after > before+100 {
		t.Errorf("%.0f allocations to open with %d files, %.0f without", after, files, before)
	}
}

// TestDirectoriesAreSmall holds the directories to their bytes of Go's memory: a
// node, a name of nine bytes, its place in the table of all, and the one in its
// parent's; and the table of those that have some.
func TestDirectoriesAreSmall(t *testing.T) {
	const dirs = 100_000
	for branch, most := range map[int]float64{500: 300, 3: 325} {
		db, err := inodekv.Open(idle(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(false); err != nil {
				t.Error(err)
			}
		})
		broad(t, db, dirs, branch)
		before := heapInUse()
		m, err := Open(Config{Group: 1}, db, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		per := float64(heapInUse()-before) / dirs
		runtime.KeepAlive(m)
		t.Logf("%.0f bytes per directory, %d in each", per, branch)
		if per > most {
			t.Errorf("%.0f bytes per directory with %d in each, want %.0f at most", per, branch, most)
		}
	}
}
