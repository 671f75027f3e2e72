// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cryptfile_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/cryptfile"
)

func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

func newKey(t testing.TB, seed byte) *cryptfile.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, noise(seed, cryptfile.KeyLen), 0o600))
	k, err := cryptfile.Load(path)
	require.NoError(t, err)
	return k
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content []byte
		mode    os.FileMode
		kind    orca.Kind
	}{
		"short": {noise(1, 31), 0o600, orca.Invalid},
		"long":  {noise(1, 33), 0o600, orca.Invalid},
		"hex":   {[]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), 0o600, orca.Invalid},
		"zeros": {make([]byte, 32), 0o600, orca.Invalid},
		"group": {noise(1, 32), 0o640, orca.Permission},
		"world": {noise(1, 32), 0o604, orca.Permission},
		"wrote": {noise(1, 32), 0o620, orca.Permission},
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, c.content, 0o600))
		require.NoError(t, os.Chmod(path, c.mode))
		_, err := cryptfile.Load(path)
		require.ErrorIs(t, err, c.kind, name)
		require.ErrorContains(t, err, path)
	}
	_, err := cryptfile.Load(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, orca.NotFound)
	_, err = cryptfile.Load(dir)
	require.Error(t, err)
	for _, mode := range []os.FileMode{0o600, 0o400} {
		path := filepath.Join(dir, "good")
		_ = os.Remove(path)
		require.NoError(t, os.WriteFile(path, noise(1, 32), mode))
		_, err = cryptfile.Load(path)
		require.NoError(t, err)
	}
}

func TestMark(t *testing.T) {
	a, b := newKey(t, 1), newKey(t, 2)
	mark := a.Mark()
	require.NoError(t, a.Fits(mark))
	require.ErrorIs(t, b.Fits(mark), orca.Permission)
	require.NotEqual(t, mark, a.Mark())
	require.ErrorIs(t, a.Fits(mark[:10]), orca.Corrupt)
	require.False(t, bytes.Contains(mark, noise(1, 8)))
}

// TestBox seals a block, and undoes it in place; any flipped bit, a grain at
// another's place, and another file's box, are found.
func TestBox(t *testing.T) {
	k := newKey(t, 1)
	id := orca.BlockID{File: 5, Version: 2, Index: 1}
	want := noise(9, 3*orca.GrainSize+77)
	n := int64(len(want))
	box := k.NewBox()
	out, entries := make([]byte, len(want)+cryptfile.TagLen), make([]byte, blockfile.Grains(n)*cryptfile.EntryLen)
	box.Seal(out, want, 0, entries)
	sealed := out[:n]
	require.False(t, bytes.Contains(sealed, want[:16]))
	again := func(change func(p, e []byte)) ([]byte, []int) {
		p, e := make([]byte, len(out)), bytes.Clone(entries)
		copy(p, sealed)
		change(p[:n], e)
		b, err := k.Open(box.Head(id, n), id, n)
		require.NoError(t, err)
		bad := b.Unseal(p[:n], 0, e)
		return p[:n], bad
	}
	p, bad := again(func(_, _ []byte) {})
	require.Empty(t, bad)
	require.True(t, bytes.Equal(want, p))
	p, bad = again(func(p, _ []byte) { p[orca.GrainSize+5] ^= 1 })
	require.Equal(t, []int{1}, bad)
	require.True(t, bytes.Equal(want[2*orca.GrainSize:], p[2*orca.GrainSize:]), "the others hold")
	require.Equal(t, make([]byte, orca.GrainSize), p[orca.GrainSize:2*orca.GrainSize])
	_, bad = again(func(_, e []byte) { e[3*cryptfile.EntryLen] ^= 1; e[15] ^= 8 })
	require.Equal(t, []int{0, 3}, bad)
	_, bad = again(func(p, e []byte) {
		copy(p[:orca.GrainSize], sealed[orca.GrainSize:])
		copy(e[:cryptfile.EntryLen], entries[cryptfile.EntryLen:])
	})
	require.Equal(t, []int{0}, bad, "grain 1 in the place of grain 0")
	p = append(bytes.Clone(sealed), make([]byte, cryptfile.TagLen)...)
	require.Len(t, k.NewBox().Unseal(p[:n], 0, entries), 4, "a file of another salt")

	for _, c := range []struct {
		id orca.BlockID
		n  int64
	}{{orca.BlockID{File: 5, Version: 2, Index: 2}, n}, {orca.BlockID{File: 6, Version: 2, Index: 1}, n}, {id, n + 1}} {
		_, err := k.Open(box.Head(id, n), c.id, c.n)
		require.ErrorIs(t, err, orca.Corrupt)
	}
	_, err := newKey(t, 2).Open(box.Head(id, n), id, n)
	require.ErrorIs(t, err, orca.Corrupt)
	_, err = k.Open(make([]byte, cryptfile.HeadLen), id, n)
	require.ErrorIs(t, err, orca.Corrupt)
}

// TestNothingTwice: the same bytes never look the same, in two files, at two
// places, or written twice.
func TestNothingTwice(t *testing.T) {
	k := newKey(t, 1)
	p := bytes.Repeat([]byte("a"), orca.GrainSize)
	seen := map[string]bool{}
	for range 3 {
		box := k.NewBox()
		for g := range 3 {
			for range 2 {
				out, e := make([]byte, len(p)+cryptfile.TagLen), make([]byte, cryptfile.EntryLen)
				box.Seal(out, p, g, e)
				seen[string(out[:64])] = true
			}
		}
	}
	require.Len(t, seen, 18)
}

// TestPrivate compares a private file with a plain one under random writes,
// reads and truncations, and then as the file of a block.
func TestPrivate(t *testing.T) {
	k := newKey(t, 1)
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		f, err := os.Create(filepath.Join(t.TempDir(), "w"))
		require.NoError(t, err)
		v := k.NewPrivate(blockfile.OS{}, f)
		var want []byte
		write := func(off, n int) {
			p := bytes.Repeat([]byte("plain text to be found"), n/22+1)[:n]
			for i := 0; i < n; i += 22 {
				p[i] = byte(r.Uint32())
			}
			got, err := v.WriteAt(p, int64(off))
			require.NoError(t, err)
			require.Equal(t, n, got)
			if grow := off + n - len(want); grow > 0 {
				want = append(want, make([]byte, grow)...)
			}
			copy(want[off:], p)
		}
		check := func() {
			_, length := v.Stored()
			require.EqualValues(t, len(want), length, "seed %d", seed)
			off := r.IntN(len(want) + 1)
			p := make([]byte, r.IntN(len(want)-off+1)+5)
			n, err := v.ReadAt(p, int64(off))
			require.Equal(t, min(len(p), len(want)-off), n)
			require.True(t, bytes.Equal(want[off:off+n], p[:n]), "seed %d", seed)
			if n < len(p) {
				require.ErrorIs(t, err, io.EOF)
			}
		}
		finish := func() {
			id := orca.BlockID{File: orca.Ino(seed)}
			require.NoError(t, v.Finish(id))
			st, err := f.Stat()
			require.NoError(t, err)
			n := int64(len(want))
			require.Equal(t, cryptfile.FileLen(n), st.Size())
			raw, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			require.False(t, bytes.Contains(raw, []byte("text to be found")), "seed %d", seed)
			box, err := k.Open(raw[cryptfile.TrailerOff(n):][:cryptfile.HeadLen], id, n)
			require.NoError(t, err)
			p := append(bytes.Clone(raw[:n]), make([]byte, cryptfile.TagLen)...)
			require.Empty(t, box.Unseal(p[:n], 0, raw[cryptfile.EntryOff(n, 0):]), "seed %d", seed)
			require.True(t, bytes.Equal(want, p[:n]), "seed %d", seed)
			check()
		}
		for range 30 {
			switch r.IntN(6) {
			case 0:
				write(r.IntN(20)*orca.GrainSize, (1+r.IntN(20))*orca.GrainSize)
			case 1, 2:
				write(r.IntN(1<<20), 1+r.IntN(200_000))
			case 3:
				write(len(want), 1+r.IntN(5000))
			case 4:
				n := r.IntN(len(want)+100_000) + 1
				require.NoError(t, v.Truncate(int64(n)))
				if n < len(want) {
					want = want[:n:n]
				} else {
					want = append(want, make([]byte, n-len(want))...)
				}
			case 5:
				require.NoError(t, v.Datasync())
			}
			check()
			if r.IntN(10) == 0 && len(want) > 0 {
				finish()
			}
		}
		finish()
		require.NoError(t, f.Close())
	}
}

// Benchmark of what a grain costs each way.
func BenchmarkSeal(b *testing.B)   { benchmark(b, false) }
func BenchmarkUnseal(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, undo bool) {
	const n = 16 * orca.GrainSize
	box := newKey(b, 1).NewBox()
	src, out, e := noise(1, n), make([]byte, n+cryptfile.TagLen), make([]byte, 16*cryptfile.EntryLen)
	box.Seal(out, src, 0, e)
	keep := bytes.Clone(out)
	b.SetBytes(n)
	for b.Loop() {
		if undo {
			copy(out, keep)
			if box.Unseal(out[:n], 0, e) != nil {
				b.Fatal("bad")
			}
			continue
		}
		box.Seal(out, src, 0, e)
	}
}
