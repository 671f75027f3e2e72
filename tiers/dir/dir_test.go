// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

func open(t *testing.T, root string, capacity int64) *dir.Dir {
	t.Helper()
	d, err := dir.Open(dir.Config{Path: root, Tier: orca.SSD, Capacity: capacity}, blockfile.OS{}, slog.New(slog.DiscardHandler), func(*blockfile.Record) {})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestQuotaIsNeverExceeded(t *testing.T) {
	d := open(t, t.TempDir(), 1<<20)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				if d.Take(300_000) {
					if d.Used() > d.Capacity {
						t.Error("over quota")
					}
					d.Return(300_000)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, d.Used())
	require.False(t, d.Take(1<<20+1))
}

func TestFilesAreReadOnlyAndNamesReused(t *testing.T) {
	root := t.TempDir()
	d := open(t, root, 1<<20)
	id := orca.BlockID{File: 1, Version: 1}
	f, err := d.Create(id, 1000)
	require.NoError(t, err)
	require.NoError(t, d.Write(f, []byte("old"), 0))
	st, err := f.Stat()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o400), st.Mode().Perm())
	require.Equal(t, int64(1000), st.Size())
	g, err := d.Create(id, 500)
	require.NoError(t, err, "what is left under the name is replaced, never written to")
	defer g.Close()
	b := make([]byte, 3)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "readers of the old file are undisturbed")
	f.Close()
	_, err = d.OpenBlock(id, 1000, false)
	require.ErrorIs(t, err, orca.Corrupt)
	w, err := d.OpenBlock(id, 500, true)
	require.NoError(t, err)
	w.Close()
	require.True(t, d.Has(id, 500))
	require.NoError(t, d.Unlink(id))
	require.NoError(t, d.Unlink(id))
	_, err = d.OpenBlock(id, 500, false)
	require.ErrorIs(t, err, orca.NotFound)
}

func TestScratchIsEmptiedAndLocked(t *testing.T) {
	root := t.TempDir()
	d := open(t, root, 1<<20)
	require.NoError(t, os.WriteFile(filepath.Join(d.Scratch(), "w-1"), []byte("x"), 0o600))
	_, err := dir.Open(d.Config, blockfile.OS{}, slog.New(slog.DiscardHandler), func(*blockfile.Record) {})
	require.ErrorIs(t, err, orca.Busy)
	require.FileExists(t, filepath.Join(d.Scratch(), "w-1"))
	require.NoError(t, d.Close())
	d = open(t, root, 1<<20)
	require.NoFileExists(t, filepath.Join(d.Scratch(), "w-1"))
}

func TestHealth(t *testing.T) {
	d := open(t, t.TempDir(), 1<<20)
	require.False(t, d.Check(syscall.ENOSPC))
	require.True(t, d.Healthy())
	require.True(t, d.Check(&os.PathError{Err: syscall.EIO}))
	require.False(t, d.Check(syscall.EIO), "said once")
	require.False(t, d.Healthy())
}

func TestConfig(t *testing.T) {
	for _, c := range []dir.Config{{Path: "rel", Capacity: 1 << 20}, {Path: "/x", Capacity: 1}, {Path: "/x", Capacity: 1 << 20, Tier: 9}} {
		require.ErrorIs(t, c.Validate(), orca.Invalid)
	}
}
