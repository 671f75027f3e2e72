// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/cryptfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// keyFile writes a key that depends on the seed alone.
func keyFile(t testing.TB, seed uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, tiertest.Bytes(1000+seed, cryptfile.KeyLen), 0o600))
	return path
}

// clearAndEncrypted runs a test of a directory twice.
func clearAndEncrypted(t *testing.T, fn func(t *testing.T, key string)) {
	t.Run("clear", func(t *testing.T) { fn(t, "") })
	t.Run("encrypted", func(t *testing.T) { fn(t, keyFile(t, 1)) })
}

const secret = "plain text that nobody is to find"

// secrets are n bytes full of it.
func secrets(seed byte, n int) []byte {
	p := bytes.Repeat(append([]byte(secret), seed), n/len(secret)+1)
	return p[:n]
}

// leaks returns the files below root that hold plain text.
func leaks(t testing.TB, root string) (found []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // vanished
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(secret[:16])) {
			found = append(found, path)
		}
		return nil
	}))
	return found
}

func readWant(t testing.TB, s *tiered.Store, n uint64, want []byte) {
	t.Helper()
	got, err := tiertest.ReadAll(s, tiertest.ID(n), int64(len(want)))
	require.NoError(t, err, "block %d", n)
	require.True(t, bytes.Equal(want, got), "block %d", n)
}

// TestNoPlainText: what is filled, adopted, moved down and moved up between an
// encrypted directory and one in the clear is in the clear in the latter alone.
func TestNoPlainText(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	c := config(tiertest.Options{MEM: 4 << 20, SSD: 64 << 20, Root: root}, nil)
	c.Dirs[1].KeyFile = keyFile(t, 1)
	c.Policy = "lru"
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	for i := range uint64(12) { // MEM overflows
		tiertest.Fill(t, s, tiertest.ID(i), secrets(byte(i), 1<<20-int(i)))
		require.NoError(t, s.Drain(ctx))
	}
	require.Positive(t, s.Metrics.Demoted.Load())
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(20), secrets(20, 3<<20+5), true), "too long for MEM")
	m, err := s.Stat(tiertest.ID(20))
	require.NoError(t, err)
	require.Equal(t, orca.SSD, m.Tier)
	require.NotEmpty(t, leaks(t, filepath.Join(root, "mem")), "the pattern is one that is found")
	require.Empty(t, leaks(t, filepath.Join(root, "ssd")))
	for range 6 {
		for i := range uint64(2) {
			readWant(t, s, i, secrets(byte(i), 1<<20-int(i)))
		}
	}
	tiertest.Eventually(t, "a block moves up", func() bool { return s.Metrics.Promoted.Load() > 0 })
	for i := range uint64(12) {
		readWant(t, s, i, secrets(byte(i), 1<<20-int(i)))
	}
	readWant(t, s, 20, secrets(20, 3<<20+5))
	require.Empty(t, leaks(t, filepath.Join(root, "ssd")))
}

// TestKeys: without its key, or with another one, a directory is left out as it
// is, and nothing that is in it is lost.
func TestKeys(t *testing.T) {
	o := tiertest.Options{MEM: 8 << 20, SSD: 32 << 20, Root: t.TempDir()}
	key := keyFile(t, 1)
	with := func(key string) *tiered.Store {
		c := config(o, nil)
		c.Dirs[1].KeyFile = key
		s, err := tiered.Open(c, discard())
		require.NoError(t, err)
		return s
	}
	s := with(key)
	want := secrets(1, 5<<20)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(1), want, true))
	require.NoError(t, s.Close())
	left := filepath.Join(o.Root, "ssd", "scratch", "w-left")
	require.NoError(t, os.WriteFile(left, []byte("x"), 0o600))
	loose := keyFile(t, 1)
	require.NoError(t, os.Chmod(loose, 0o640))
	for name, wrong := range map[string]string{"another": keyFile(t, 2), "none": "", "absent": filepath.Join(o.Root, "no"), "loose": loose} {
		s := with(wrong)
		us := s.Usage()
		require.Len(t, us, 2, name)
		require.False(t, us[1].Healthy, name)
		_, err := s.Stat(tiertest.ID(1))
		require.ErrorIs(t, err, orca.NotFound, name)
		tiertest.Fill(t, s, tiertest.ID(2), secrets(2, 1000))
		require.NoError(t, s.Close())
		require.FileExists(t, left, "nothing in it is touched")
		c := config(o, nil)
		c.Dirs = c.Dirs[1:]
		c.Dirs[0].KeyFile = wrong
		_, err = tiered.Open(c, discard())
		kind := map[string]orca.Kind{"another": orca.Permission, "none": orca.Permission, "absent": orca.NotFound, "loose": orca.Permission}[name]
		require.ErrorIs(t, err, kind, name)
	}
	s = with(key)
	readWant(t, s, 1, want)
	m, err := s.Stat(tiertest.ID(1))
	require.NoError(t, err)
	require.True(t, m.Dirty)
	require.NoError(t, s.Close())

	c := config(tiertest.Options{MEM: 8 << 20, Root: o.Root}, nil)
	c.Dirs[0].KeyFile = key
	_, err = tiered.Open(c, discard())
	require.ErrorIs(t, err, orca.Invalid, "what was begun in the clear is not half encrypted")
}

// TestFlippedBits: a bit that flips anywhere in the file of an encrypted block
// is found, by readers, and by the check of the scrubber.
func TestFlippedBits(t *testing.T) {
	const n = 200_000
	want := secrets(1, n)
	for name, off := range map[string]int64{
		"content": 70_000, "last": n - 1, "magic": cryptfile.TrailerOff(n), "salt": cryptfile.TrailerOff(n) + 10,
		"binding": cryptfile.TrailerOff(n) + 50, "nonce": cryptfile.EntryOff(n, 1), "tag": cryptfile.EntryOff(n, 3) + 15,
	} {
		t.Run(name, func(t *testing.T) {
			for _, scrubbed := range []bool{false, true} {
				o := tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}
				s := openWith(t, o, nil)
				tiertest.Fill(t, s, tiertest.ID(1), want)
				require.NoError(t, s.Close())
				rot(t, blockPath(t, o.Root, tiertest.ID(1)), off)
				s = openWith(t, o, nil)
				if scrubbed {
					c, err := s.Check(tiertest.ID(1))
					if err == nil {
						buf := make([]byte, 4*orca.GrainSize)
						bad := 0
						for err == nil {
							var b int
							_, b, err = c.Next(buf)
							bad += b
						}
						require.ErrorIs(t, err, io.EOF)
						require.Positive(t, bad)
						c.Close()
					}
				} else {
					_, err := tiertest.ReadAll(s, tiertest.ID(1), n)
					require.ErrorIs(t, err, orca.NotFound, "quarantined")
				}
				_, err := s.Stat(tiertest.ID(1))
				require.ErrorIs(t, err, orca.NotFound)
				require.NoError(t, s.Close())
			}
		})
	}
}

// TestFlippedWhileServed: each read decrypts, and finds what has rotted since
// the last one.
func TestFlippedWhileServed(t *testing.T) {
	o := tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}
	s := openWith(t, o, nil)
	defer s.Close()
	want := secrets(1, 300_000)
	tiertest.Fill(t, s, tiertest.ID(1), want)
	readWant(t, s, 1, want)
	rot(t, blockPath(t, o.Root, tiertest.ID(1)), 2*orca.GrainSize+1)
	_, err := tiertest.ReadAll(s, tiertest.ID(1), int64(len(want)))
	require.ErrorIs(t, err, orca.NotFound)
	require.EqualValues(t, 1, s.Metrics.CorruptGrains.Load())
	require.EqualValues(t, 1, s.Metrics.Quarantined.Load())
}

// TestSwappedFiles: the file of one block is not taken for that of another.
func TestSwappedFiles(t *testing.T) {
	o := tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}
	s := openWith(t, o, nil)
	for i := range uint64(2) { // the same content: the same sums
		tiertest.Fill(t, s, tiertest.ID(i), secrets(1, 100_000))
	}
	require.NoError(t, s.Close())
	a, b := blockPath(t, o.Root, tiertest.ID(0)), blockPath(t, o.Root, tiertest.ID(1))
	require.NoError(t, os.Rename(a, b))
	s = openWith(t, o, nil)
	defer s.Close()
	_, err := s.Get(tiertest.ID(1), 0, 1)
	require.ErrorIs(t, err, orca.NotFound)
}

// TestKeyRotation moves what is there, the only copies with it, into a new
// directory with a new key, and lets the old one go.
func TestKeyRotation(t *testing.T) {
	ctx := context.Background()
	o := tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}
	s := openWith(t, o, nil)
	content := map[uint64][]byte{}
	for i := range uint64(6) {
		content[i] = secrets(byte(i), 300_000+int(i))
		if i%2 == 0 {
			tiertest.Fill(t, s, tiertest.ID(i), content[i])
		} else {
			require.NoError(t, tiertest.Adopt(s, tiertest.ID(i), content[i], true))
		}
	}
	next := dir.Config{Path: filepath.Join(o.Root, "new"), Tier: orca.SSD, Capacity: 32 << 20, KeyFile: keyFile(t, 2)}
	require.NoError(t, s.AddDir(next))
	require.NoError(t, s.RemoveDir(ctx, filepath.Join(o.Root, "ssd")))
	for i, want := range content {
		readWant(t, s, i, want)
	}
	require.NoError(t, s.Close())
	require.Empty(t, leaks(t, o.Root))
	c := config(o, nil)
	c.Dirs = []dir.Config{next}
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	for i, want := range content {
		readWant(t, s, i, want)
	}
}

// TestPlainPrivateFile: a file that was written in the clear is not taken into
// an encrypted directory.
func TestPlainPrivateFile(t *testing.T) {
	s := openWith(t, tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}, nil)
	defer s.Close()
	ctx := context.Background()
	r, err := s.Reserve(ctx, 100_000, false)
	require.NoError(t, err)
	defer r.Release()
	path := filepath.Join(r.Dir(), "w-plain")
	defer os.Remove(path)
	p := secrets(1, 100_000)
	require.NoError(t, os.WriteFile(path, p, 0o600))
	require.ErrorIs(t, s.Adopt(ctx, r, tiers.Adoption{ID: tiertest.ID(1), Path: path, Length: int64(len(p)), Sums: blockfile.AppendSums(nil, p), Dirty: true}), orca.Corrupt)
	_, err = s.Stat(tiertest.ID(1))
	require.ErrorIs(t, err, orca.NotFound)
	require.True(t, s.Usage()[0].Healthy)
}

// TestDecryptedIsBounded: extents that are not released keep others from coming,
// not from being asked for.
func TestDecryptedIsBounded(t *testing.T) {
	c := config(tiertest.Options{SSD: 32 << 20, Root: t.TempDir(), KeyFile: keyFile(t, 1)}, nil)
	c.MaxDecrypted, c.RoomWait = 2, 20*time.Millisecond
	s, err := tiered.Open(c, discard())
	require.NoError(t, err)
	defer s.Close()
	want := secrets(1, 5<<20)
	tiertest.Fill(t, s, tiertest.ID(1), want)
	var held []dataplane.Extent
	for i := range int64(2) {
		e, err := s.Get(tiertest.ID(1), i<<20, 1<<20)
		require.NoError(t, err)
		held = append(held, e)
	}
	_, err = s.Get(tiertest.ID(1), 0, 1)
	require.ErrorIs(t, err, orca.Busy)
	for _, e := range held {
		e.Release()
	}
	readWant(t, s, 1, want)
}
