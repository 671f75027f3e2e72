// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/tiertest"
	"orca/tiers/writeback"
)

// encrypted is a rig whose one directory is encrypted.
func encrypted(t *testing.T) *rig {
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, tiertest.Bytes(99, 32), 0o600))
	return newRig(t, rigOptions{ssd: 64 << 20, key: key})
}

const secret = "what a writer wrote, in the clear"

func secrets(n int) []byte { return bytes.Repeat([]byte(secret), n/len(secret)+1)[:n] }

// noLeak looks for it in every file of the directory.
func (r *rig) noLeak() {
	r.t.Helper()
	files := 0
	require.NoError(r.t, filepath.WalkDir(filepath.Join(r.root, "ssd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		require.NoError(r.t, err)
		require.False(r.t, bytes.Contains(b, []byte(secret[:12])), path)
		return nil
	}))
	require.GreaterOrEqual(r.t, files, 3, "lock, index, mark")
}

// TestEncryptedWriters: what is written in an encrypted directory is nowhere in
// it in the clear, before Seal or after, whatever becomes of it, and reads as
// it was written.
func TestEncryptedWriters(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		size int
		keep bool
		typ  orca.WriteType
	}{
		"renamed":  {3<<20 + 17, false, orca.MustCache},
		"durable":  {700_001, false, orca.AsyncThrough},
		"uploaded": {2 << 20, false, orca.CacheThrough},
		"kept":     {900_000, true, orca.MustCache},
		"blocks":   {9<<20 + 5, false, orca.MustCache},
		"through":  {100_000, false, orca.Through},
		"small":    {5, false, orca.MustCache},
	} {
		t.Run(name, func(t *testing.T) {
			r := encrypted(t)
			tg := target(c.typ)
			want := secrets(c.size)
			id := r.write(tg, want)
			_, err := r.wb.WriteFile(ctx, id)
			require.ErrorIs(t, err, orca.Unsupported, "a descriptor would let plain text in")
			require.NoError(t, r.wb.Sync(ctx, id))
			r.noLeak()
			res, err := r.wb.Seal(ctx, id, tg, c.keep)
			require.NoError(t, err)
			require.EqualValues(t, c.size, res.Length)
			r.noLeak()
			if c.typ == orca.CacheThrough || c.typ == orca.Through {
				f, err := r.fs.Open(ctx, tg.UFSKey, 0, -1, "")
				require.NoError(t, err)
				got, err := io.ReadAll(f)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want, got))
				require.NoError(t, f.Close())
			}
			if c.typ == orca.Through {
				return
			}
			for i := 0; int64(i)*res.BlockSize < res.Length; i++ {
				off := int64(i) * res.BlockSize
				n := min(res.BlockSize, res.Length-off)
				require.True(t, bytes.Equal(want[off:off+n], r.cached(orca.BlockID{File: 7, Version: 3, Index: uint32(i)}, n)))
			}
			if !c.keep {
				return
			}
			require.NoError(t, r.wb.WriteAt(ctx, id, []byte("more"), 10))
			require.NoError(t, r.wb.Truncate(ctx, id, 500_000))
			copy(want[10:], "more")
			tg.Version++
			_, err = r.wb.Seal(ctx, id, tg, false)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[:500_000], r.cached(orca.BlockID{File: 7, Version: 4}, 500_000)))
			r.noLeak()
		})
	}
}

// TestEncryptedSpill: a private file that grows out of memory moves into the
// encrypted directory, and is encrypted there.
func TestEncryptedSpill(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, tiertest.Bytes(99, 32), 0o600))
	r := newRig(t, rigOptions{mem: 2 << 20, ssd: 64 << 20, key: key, cfg: writeback.Config{}})
	ctx := context.Background()
	tg := target(orca.MustCache)
	want := secrets(6 << 20)
	id := r.write(tg, want)
	require.Positive(t, r.wb.Metrics.Spilled.Load())
	r.noLeak()
	_, err := r.wb.Seal(ctx, id, tg, false)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, r.cached(orca.BlockID{File: 7, Version: 3}, int64(len(want)))))
	r.noLeak()
}
