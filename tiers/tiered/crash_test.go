// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// blockPath finds the file of a block below root.
func blockPath(t testing.TB, root string, id orca.BlockID) string {
	t.Helper()
	found := ""
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == id.String() {
			found = path
		}
		return nil
	})
	require.NotEmpty(t, found, "no file of block %v", id)
	return found
}

// rot changes a byte of a block file behind the store's back.
func rot(t testing.TB, path string, off int64) {
	t.Helper()
	require.NoError(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	require.NoError(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b[:], off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.Chmod(path, 0o400))
}

func TestRestartKeepsTheCache(t *testing.T) { clearAndEncrypted(t, testRestartKeepsTheCache) }

func testRestartKeepsTheCache(t *testing.T, key string) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir(), KeyFile: key}
	s := openWith(t, o, nil)
	content := map[uint64][]byte{}
	for i := range uint64(30) {
		content[i] = tiertest.Bytes(i, 1000+int64(i)*40_000)
		tiertest.Fill(t, s, tiertest.ID(i), content[i])
	}
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(100), content[3], true))
	part := tiertest.Bytes(50, 1<<20)
	w, err := s.Begin(context.Background(), tiertest.ID(50), 1<<20)
	require.NoError(t, err)
	require.NoError(t, w.WriteGrains(context.Background(), part[3*orca.GrainSize:5*orca.GrainSize], 3*orca.GrainSize))
	require.NoError(t, w.Close())
	require.NoError(t, s.Remove(tiertest.ID(0)))
	s.Pin(tiertest.ID(2).File, true)
	require.NoError(t, os.WriteFile(filepath.Join(o.Root, "ssd", "scratch", "w-left"), []byte("x"), 0o600))
	used := s.Usage()[0].Used
	require.NoError(t, s.Close())

	s = openWith(t, o, nil)
	defer s.Close()
	for i := uint64(1); i < 30; i++ {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), int64(len(content[i])))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content[i], got))
	}
	require.Positive(t, s.Metrics.VerifiedGrains.Load())
	_, err = s.Stat(tiertest.ID(0))
	require.ErrorIs(t, err, orca.NotFound)
	m, err := s.Stat(tiertest.ID(100))
	require.NoError(t, err)
	require.True(t, m.Dirty)
	m, err = s.Stat(tiertest.ID(2))
	require.NoError(t, err)
	require.True(t, m.Pinned)
	e, err := s.Get(tiertest.ID(50), 3*orca.GrainSize, 1<<20)
	require.NoError(t, err)
	got, err := tiertest.ReadExtent(e)
	require.NoError(t, err)
	require.True(t, bytes.Equal(part[3*orca.GrainSize:5*orca.GrainSize], got))
	require.LessOrEqual(t, s.Usage()[0].Used, used)
	left, err := os.ReadDir(filepath.Join(o.Root, "ssd", "scratch"))
	require.NoError(t, err)
	require.Empty(t, left)
	_, _, full := s.Changes(1)
	require.True(t, full, "a restart is reported in full")
	files, _ := s.Reports()
	require.Len(t, files, 31)
}

func TestRotIsNeverServed(t *testing.T) { clearAndEncrypted(t, testRotIsNeverServed) }

func testRotIsNeverServed(t *testing.T, key string) {
	ctx := context.Background()
	for _, dirty := range []bool{false, true} {
		t.Run("dirty="+strconv.FormatBool(dirty), func(t *testing.T) {
			o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir(), KeyFile: key}
			s := openWith(t, o, nil)
			p := tiertest.Bytes(1, 1<<20)
			require.NoError(t, tiertest.Adopt(s, tiertest.ID(1), p, dirty))
			require.NoError(t, s.Close())
			rot(t, blockPath(t, o.Root, tiertest.ID(1)), 5*orca.GrainSize+7)
			s = openWith(t, o, nil)
			defer s.Close()
			e, err := s.Get(tiertest.ID(1), 0, 5*orca.GrainSize)
			require.NoError(t, err, "the grains in front are good")
			e.Release()
			_, err = s.Get(tiertest.ID(1), 5*orca.GrainSize, 1)
			_, _, _, derr := s.Descriptor(ctx, tiertest.ID(1))
			if !dirty {
				require.ErrorIs(t, err, orca.NotFound, "quarantined: read it from its source")
				require.ErrorIs(t, derr, orca.Corrupt, "who holds an older descriptor must give it up")
				tiertest.Fill(t, s, tiertest.ID(1), p)
				got, err := tiertest.ReadAll(s, tiertest.ID(1), 1<<20)
				require.NoError(t, err)
				require.True(t, bytes.Equal(p, got))
				return
			}
			require.ErrorIs(t, err, orca.Corrupt)
			require.Error(t, derr)
			e, err = s.Get(tiertest.ID(1), 6*orca.GrainSize, 1<<20)
			require.NoError(t, err, "the rest of the only copy is still there")
			got, err := tiertest.ReadExtent(e)
			require.NoError(t, err)
			require.True(t, bytes.Equal(p[6*orca.GrainSize:], got))
			_, err = s.Begin(ctx, tiertest.ID(1), 1<<20)
			require.ErrorIs(t, err, orca.Corrupt, "the only copy is never mended in place")
		})
	}
}

// TestFlushOutlivesAKill: what was flushed is found by a process that opens
// what a killed one left, here a copy of the directory taken while it is open.
func TestFlushOutlivesAKill(t *testing.T) { clearAndEncrypted(t, testFlushOutlivesAKill) }

func testFlushOutlivesAKill(t *testing.T, key string) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir(), KeyFile: key}
	c := config(o, nil)
	c.FlushEvery = time.Hour
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	want := tiertest.Bytes(1, 300_000)
	tiertest.Fill(t, s, tiertest.ID(1), want)
	require.NoError(t, s.Flush())
	tiertest.Fill(t, s, tiertest.ID(2), want)

	killed := tiertest.Options{SSD: o.SSD, Root: t.TempDir(), KeyFile: key}
	require.NoError(t, os.CopyFS(killed.Root, os.DirFS(o.Root)))
	next := openWith(t, killed, nil)
	defer next.Close()
	got, err := tiertest.ReadAll(next, tiertest.ID(1), int64(len(want)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	_, err = next.Stat(tiertest.ID(2))
	require.ErrorIs(t, err, orca.NotFound, "nothing wrote it down: the flush above is what the first one owes its life to")
}

func TestMissingAndShortFilesAreDropped(t *testing.T) {
	clearAndEncrypted(t, testMissingAndShortFilesAreDropped)
}

func testMissingAndShortFilesAreDropped(t *testing.T, key string) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir(), KeyFile: key}
	s := openWith(t, o, nil)
	for i := range uint64(3) {
		require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), tiertest.Bytes(i, 200_000), i == 2))
	}
	require.NoError(t, s.Close())
	require.NoError(t, os.Remove(blockPath(t, o.Root, tiertest.ID(0))))
	require.NoError(t, os.Truncate(blockPath(t, o.Root, tiertest.ID(1)), 1000))
	require.NoError(t, os.Remove(blockPath(t, o.Root, tiertest.ID(2))))
	orphan := blockfile.Path(filepath.Join(o.Root, "ssd", "blocks"), tiertest.ID(77))
	require.NoError(t, os.MkdirAll(filepath.Dir(orphan), 0o700))
	require.NoError(t, os.WriteFile(orphan, []byte("orphan"), 0o400))
	s = openWith(t, o, nil)
	defer s.Close()
	for i := range uint64(3) {
		_, err := s.Get(tiertest.ID(i), 0, 1)
		require.ErrorIs(t, err, orca.NotFound)
	}
	tiertest.Eventually(t, "orphans go", func() bool { return s.Metrics.OrphansRemoved.Load() >= 1 })
	require.NoFileExists(t, orphan)
}

// TestTornIndex cuts the index at every byte of its last record: what was
// recorded before must be there, and the cut block whole or absent.
func TestTornIndex(t *testing.T) { clearAndEncrypted(t, testTornIndex) }

func testTornIndex(t *testing.T, key string) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir(), KeyFile: key}
	s := openWith(t, o, nil)
	a, b := tiertest.Bytes(1, 100_000), tiertest.Bytes(2, 200_000)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(1), a, true))
	index := filepath.Join(o.Root, "ssd", "index")
	before, err := os.Stat(index)
	require.NoError(t, err)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(2), b, false))
	require.NoError(t, s.Close())
	after, err := os.Stat(index)
	require.NoError(t, err)
	require.Greater(t, after.Size(), before.Size())
	for cut := before.Size(); cut <= after.Size(); cut++ {
		root := t.TempDir()
		tiertest.CopyTree(t, o.Root, root)
		require.NoError(t, os.Truncate(filepath.Join(root, "ssd", "index"), cut))
		s := openWith(t, tiertest.Options{SSD: 64 << 20, Root: root, KeyFile: key}, nil)
		got, err := tiertest.ReadAll(s, tiertest.ID(1), int64(len(a)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(a, got))
		got, err = tiertest.ReadAll(s, tiertest.ID(2), int64(len(b)))
		require.True(t, err == nil && bytes.Equal(b, got) || orca.KindOf(err) == orca.NotFound, "cut at %d: %v", cut, err)
		require.Equal(t, cut == after.Size(), err == nil)
		tiertest.Fill(t, s, tiertest.ID(2), b)
		require.NoError(t, s.Close())
		s = openWith(t, tiertest.Options{SSD: 64 << 20, Root: root, KeyFile: key}, nil)
		got, err = tiertest.ReadAll(s, tiertest.ID(2), int64(len(b)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(b, got))
		require.NoError(t, s.Close())
	}
}

// mixture does a bit of everything, and returns which dirty blocks were
// acknowledged.
func mixture(s *tiered.Store) (acked map[uint64][]byte) {
	acked = map[uint64][]byte{}
	for i := uint64(1); i <= 3; i++ {
		p := tiertest.Bytes(i, 150_000)
		if tiertest.Adopt(s, tiertest.ID(i), p, true) == nil {
			acked[i] = p
		}
		_ = tiertest.TryFill(s, tiertest.ID(10+i), tiertest.Bytes(10+i, 150_000))
	}
	_ = s.Remove(tiertest.ID(11))
	if s.Clean(tiertest.ID(1)) == nil {
		delete(acked, 1) // from now on it is only a cache
	}
	return acked
}

// verify checks that acknowledged blocks are there and that whatever can be
// read is right.
func verify(t *testing.T, root, key string, acked map[uint64][]byte, what string) {
	t.Helper()
	s := openWith(t, tiertest.Options{SSD: 8 << 20, Root: root, KeyFile: key}, nil)
	defer s.Close()
	for i, p := range acked {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), int64(len(p)))
		require.NoError(t, err, "%s: acknowledged block %d", what, i)
		require.True(t, bytes.Equal(p, got), what)
	}
	s.Each(func(m tiers.Meta) bool {
		got, err := tiertest.ReadAll(s, m.ID, m.Length)
		require.True(t, err != nil && orca.KindOf(err) == orca.NotFound || err == nil && bytes.Equal(got, tiertest.Bytes(uint64(m.ID.File), m.Length)),
			"%s: block %v: %v", what, m.ID, err)
		return true
	})
}

// TestCrashAtEveryStep reopens a copy of the directory taken before each
// mutating call of a workload.
func TestCrashAtEveryStep(t *testing.T) { clearAndEncrypted(t, testCrashAtEveryStep) }

func testCrashAtEveryStep(t *testing.T, key string) {
	root := t.TempDir()
	ops := &tiertest.Faults{}
	s := openWith(t, tiertest.Options{SSD: 8 << 20, Root: root, KeyFile: key}, ops)
	type snap struct {
		root, what string
		acked      map[uint64][]byte
	}
	var snaps []snap
	acked := map[uint64][]byte{}
	ops.Before(func(n int, op, path string) {
		if n > 60 {
			return
		}
		to := t.TempDir()
		tiertest.CopyTree(t, root, to)
		have := map[uint64][]byte{}
		for k, v := range acked {
			have[k] = v
		}
		snaps = append(snaps, snap{to, strconv.Itoa(n) + " " + op + " " + filepath.Base(path), have})
	})
	for i := uint64(1); i <= 3; i++ {
		p := tiertest.Bytes(i, 150_000)
		require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), p, true))
		acked[i] = p
	}
	ops.Before(nil)
	require.NoError(t, s.Close())
	require.Greater(t, len(snaps), 15)
	for _, sn := range snaps {
		verify(t, sn.root, key, sn.acked, sn.what)
	}
}

// TestFaultSweep fails the nth mutating call, once or from then on, with EIO
// or ENOSPC: nothing acknowledged is lost, nothing wrong is served, and the
// store closes.
func TestFaultSweep(t *testing.T) { clearAndEncrypted(t, testFaultSweep) }

func testFaultSweep(t *testing.T, key string) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		for _, always := range []bool{false, true} {
			t.Run(errno.Error()+"/"+strconv.FormatBool(always), func(t *testing.T) {
				for n := 1; n <= 36; n++ {
					root := t.TempDir()
					ops := &tiertest.Faults{}
					s := openWith(t, tiertest.Options{SSD: 8 << 20, Root: root, KeyFile: key}, ops)
					ops.FailAt(n, always, errno)
					acked := mixture(s)
					for i, p := range acked {
						if got, err := tiertest.ReadAll(s, tiertest.ID(i), int64(len(p))); err == nil {
							require.True(t, bytes.Equal(p, got))
						}
					}
					ops.FailAt(0, false, nil)
					_ = s.Close()
					verify(t, root, key, acked, errno.Error()+" at "+strconv.Itoa(n))
				}
			})
		}
	}
}

func TestBadDirectoryIsTakenOut(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "ssd"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "ssd", "index"), bytes.Repeat([]byte("garbage!"), 100), 0o600))
	s := openWith(t, tiertest.Options{MEM: 8 << 20, SSD: 8 << 20, Root: root}, nil)
	defer s.Close()
	us := s.Usage()
	require.Len(t, us, 2)
	require.True(t, us[0].Healthy)
	require.False(t, us[1].Healthy)
	tiertest.Fill(t, s, tiertest.ID(1), tiertest.Bytes(1, 1000))
	b, err := os.ReadFile(filepath.Join(root, "ssd", "index"))
	require.NoError(t, err)
	require.Len(t, b, 800, "a foreign index is not touched")

	ops := &tiertest.Faults{}
	s2 := openWith(t, tiertest.Options{SSD: 8 << 20, MEM: 8 << 20, Root: t.TempDir()}, ops)
	defer s2.Close()
	ops.FailAt(1, true, syscall.EIO)
	require.Error(t, tiertest.TryFill(s2, tiertest.ID(1), tiertest.Bytes(1, 1000)))
	ops.FailAt(0, false, nil)
	require.NoError(t, tiertest.TryFill(s2, tiertest.ID(1), tiertest.Bytes(1, 1000)), "the other directory goes on")
	m, err := s2.Stat(tiertest.ID(1))
	require.NoError(t, err)
	require.Equal(t, orca.SSD, m.Tier)
}

func TestOneWorkerPerDirectory(t *testing.T) {
	o := tiertest.Options{SSD: 8 << 20, Root: t.TempDir()}
	s := openWith(t, o, nil)
	defer s.Close()
	_, err := tiered.Open(config(o, nil), discard())
	require.ErrorIs(t, err, orca.Busy)
}

func TestDemotion(t *testing.T) {
	c := config(tiertest.Options{MEM: 8 << 20, SSD: 64 << 20, Root: t.TempDir()}, nil)
	c.Policy = "lru"
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	for i := range uint64(24) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1<<20))
		require.NoError(t, s.Drain(context.Background()))
	}
	require.Positive(t, s.Metrics.Demoted.Load())
	for i := range uint64(24) {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), 1<<20)
		require.NoError(t, err, "block %d", i)
		require.True(t, bytes.Equal(tiertest.Bytes(i, 1<<20), got))
	}
	m, err := s.Stat(tiertest.ID(0))
	require.NoError(t, err)
	require.Equal(t, orca.SSD, m.Tier)
	m, err = s.Stat(tiertest.ID(23))
	require.NoError(t, err)
	require.Equal(t, orca.MEM, m.Tier)
}

func TestCompaction(t *testing.T) {
	o := tiertest.Options{SSD: 64 << 20, Root: t.TempDir()}
	s := openWith(t, o, nil)
	keep := tiertest.Bytes(1, 300_000)
	tiertest.Fill(t, s, tiertest.ID(1), keep)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(2), keep, true))
	for i := range 24_000 { // 48 bytes of index each
		s.Pin(tiertest.ID(1).File, i%2 == 0)
	}
	tiertest.Eventually(t, "compaction", func() bool { return s.Metrics.IndexCompacted.Load() > 0 })
	require.NoError(t, s.Close())
	st, err := os.Stat(filepath.Join(o.Root, "ssd", "index"))
	require.NoError(t, err)
	require.Less(t, st.Size(), int64(1<<20))
	s = openWith(t, o, nil)
	defer s.Close()
	for i := uint64(1); i <= 2; i++ {
		got, err := tiertest.ReadAll(s, tiertest.ID(i), int64(len(keep)))
		require.NoError(t, err)
		require.True(t, bytes.Equal(keep, got))
	}
}
