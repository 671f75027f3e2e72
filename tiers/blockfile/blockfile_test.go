// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockfile_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
)

var update = flag.Bool("update", false, "rewrite the goldens")

func id(n uint64) orca.BlockID { return orca.BlockID{File: orca.Ino(n), Version: 2, Index: 3} }

// sample is the history that the golden index holds.
func sample() []blockfile.Record {
	return []blockfile.Record{
		{Kind: blockfile.KindState, Flags: blockfile.FlagComplete | blockfile.FlagDirty, ID: id(0x0001_0000_0000_002a), Length: 100, Sums: []uint32{0xdeadbeef}},
		{Kind: blockfile.KindState, ID: id(7), Length: 5*orca.GrainSize + 1, First: 2, Sums: []uint32{1, 0x80000000, 3}},
		{Kind: blockfile.KindState, Flags: blockfile.FlagPinned, ID: id(7), Length: 5*orca.GrainSize + 1},
		{Kind: blockfile.KindRemove, ID: id(7), Length: 5*orca.GrainSize + 1},
	}
}

func read(t *testing.T, dir string) (rs []blockfile.Record, l blockfile.Loaded) {
	t.Helper()
	x, l, err := blockfile.Open(blockfile.OS{}, dir, func(r *blockfile.Record) {
		c := *r
		c.Sums = append([]uint32(nil), r.Sums...)
		rs = append(rs, c)
	})
	require.NoError(t, err)
	require.NoError(t, x.Close())
	return rs, l
}

func write(t *testing.T, dir string, rs ...blockfile.Record) {
	t.Helper()
	x, _, err := blockfile.Open(blockfile.OS{}, dir, func(*blockfile.Record) {})
	require.NoError(t, err)
	for _, r := range rs {
		x.Append(r)
	}
	require.NoError(t, x.Sync())
	require.NoError(t, x.Close())
}

// TestGolden pins the bytes of version 1: old indexes must stay readable.
func TestGolden(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, sample()...)
	got, err := os.ReadFile(filepath.Join(dir, blockfile.IndexName))
	require.NoError(t, err)
	golden := filepath.Join("testdata", "index-v1.hex")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(hex.Dump(got)), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), hex.Dump(got))
	rs, l := read(t, dir)
	require.Equal(t, blockfile.Loaded{Records: 4}, l)
	require.Equal(t, sample(), rs)
}

func TestDamageIsSkipped(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, sample()...)
	path := filepath.Join(dir, blockfile.IndexName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	want := sample()
	ends := []int{32, 84, 144, 192, 240}
	require.Len(t, whole, ends[4])
	for i := 32; i < len(whole); i++ {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		rs, l := read(t, dir)
		hit := 0
		for i >= ends[hit+1] {
			hit++
		}
		rest := append(append([]blockfile.Record(nil), want[:hit]...), want[hit+1:]...)
		require.Equal(t, rest, rs, "byte %d", i)
		if hit < 3 {
			require.Equal(t, 1, l.Damaged)
			require.Zero(t, l.Torn)
		} else {
			require.EqualValues(t, 48, l.Torn)
		}
	}
	for i := range 32 {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		_, _, err := blockfile.Open(blockfile.OS{}, dir, func(*blockfile.Record) {})
		require.ErrorIs(t, err, orca.Corrupt, "a damaged header is refused, not written over")
	}
}

func TestLargeIndexAndManySums(t *testing.T) {
	dir := t.TempDir()
	sums := make([]uint32, 200_000) // more than fit one record
	for i := range sums {
		sums[i] = uint32(i) * 2654435761
	}
	var in []blockfile.Record
	for i := range uint64(40) {
		in = append(in, blockfile.Record{Kind: blockfile.KindState, ID: id(i), Length: int64(len(sums)) * orca.GrainSize, Sums: sums[:5000*i]})
	}
	write(t, dir, in...)
	got := map[orca.BlockID][]uint32{}
	rs, l := read(t, dir)
	require.Zero(t, l.Damaged+int(l.Torn))
	for _, r := range rs {
		require.Len(t, got[r.ID], int(r.First))
		got[r.ID] = append(got[r.ID], r.Sums...)
	}
	for _, r := range in {
		require.True(t, equal(got[r.ID], r.Sums))
	}
}

func equal(a, b []uint32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// fullDisk fails writes with ENOSPC while full.
type fullDisk struct {
	blockfile.OS
	full bool
}

func (f *fullDisk) WriteAt(w *os.File, p []byte, off int64) (int, error) {
	if f.full {
		n, _ := f.OS.WriteAt(w, p[:len(p)/3], off)
		return n, &os.PathError{Op: "write", Path: w.Name(), Err: syscall.ENOSPC}
	}
	return f.OS.WriteAt(w, p, off)
}

func TestFullDiskKeepsTheBuffer(t *testing.T) {
	dir := t.TempDir()
	ops := &fullDisk{}
	x, _, err := blockfile.Open(ops, dir, func(*blockfile.Record) {})
	require.NoError(t, err)
	ops.full = true
	for _, r := range sample() {
		x.Append(r)
		require.ErrorIs(t, x.Flush(), orca.NoSpace)
	}
	ops.full = false
	require.NoError(t, x.Sync())
	require.NoError(t, x.Close())
	rs, l := read(t, dir)
	require.Zero(t, l.Damaged)
	require.Equal(t, sample(), rs)
}

func TestCompactKeepsWhatIsAppendedMeanwhile(t *testing.T) {
	dir := t.TempDir()
	x, _, err := blockfile.Open(blockfile.OS{}, dir, func(*blockfile.Record) {})
	require.NoError(t, err)
	for _, r := range sample() {
		x.Append(r)
	}
	require.NoError(t, x.Compact(func(emit func(blockfile.Record)) {
		emit(sample()[0])
		x.Append(sample()[1])
		require.NoError(t, x.Flush())
		x.Append(sample()[2])
	}))
	x.Append(sample()[3])
	require.NoError(t, x.Sync())
	require.NoError(t, x.Close())
	rs, _ := read(t, dir)
	require.Equal(t, sample(), rs)
	require.NoFileExists(t, filepath.Join(dir, "index.new"))
}

func TestGrainSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		n := r.IntN(300) + 1
		s, m := blockfile.NewGrainSet(n), make([]bool, n)
		for range 5 {
			a := r.IntN(n)
			b := a + r.IntN(n-a+1)
			s.AddRange(a, b)
			for i := a; i < b; i++ {
				m[i] = true
			}
			d := r.IntN(n)
			s.Drop(d)
			m[d] = false
		}
		count := 0
		for i := range m {
			require.Equal(t, m[i], s.Has(i))
			if m[i] {
				count++
			}
			set, clear := i, i
			for set < n && !m[set] {
				set++
			}
			for clear < n && m[clear] {
				clear++
			}
			require.Equal(t, set, s.NextSet(i, n))
			require.Equal(t, clear, s.NextClear(i, n))
		}
		require.Equal(t, count, s.Count())
	}
}

func TestPath(t *testing.T) {
	seen := map[string]bool{}
	for i := range uint64(5000) {
		p := blockfile.Path("/t", id(i))
		rel := strings.Split(strings.TrimPrefix(p, "/t/"), "/")
		require.Len(t, rel, 3)
		got, err := orca.ParseBlockID(rel[2])
		require.NoError(t, err)
		require.Equal(t, id(i), got)
		seen[rel[0]] = true
	}
	require.Greater(t, len(seen), 200, "folders are used evenly")
	other := id(1)
	other.Index++
	require.Equal(t, blockfile.Folder("/t", id(1)), blockfile.Folder("/t", other))
}

// FuzzRecord feeds arbitrary bytes to the decoder: what it accepts encodes to
// the same bytes.
func FuzzRecord(f *testing.F) {
	for _, r := range sample() {
		f.Add(r.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r blockfile.Record
		n := r.Decode(b)
		if n == 0 {
			return
		}
		if again := r.AppendTo(nil); !bytes.Equal(again, b[:n]) {
			t.Fatalf("%x decodes and encodes to %x", b[:n], again)
		}
	})
}
