// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package tiertest is the suite of tiers.Store: what every store must do
// (Run), and the tools for sweeping faults and crashes over one that keeps its
// blocks in directories (Faults, CopyTree). Stores are tested by opening them
// through a function that the tester gives. The package starts only the
// goroutines of its tests.
package tiertest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// Options say what a test needs of a store.
type Options struct {
	MEM, SSD int64 // capacity of one directory of each; 0: none
	// Root holds the directories; opening it again finds what was there.
	Root string
	// KeyFile is what the directories are encrypted with; "": they are not.
	KeyFile string
}

// OpenFunc opens a store; the caller closes it.
type OpenFunc func(t testing.TB, o Options) tiers.Store

// Run runs the suite.
func Run(t *testing.T, open OpenFunc) {
	tests := []struct {
		name string
		fn   func(*testing.T, OpenFunc)
	}{
		{"FillAndRead", testFillAndRead},
		{"PartialRuns", testPartialRuns},
		{"Adopt", testAdopt},
		{"EvictOrder", testEvictOrder},
		{"DirtyAndPinnedStay", testDirtyAndPinnedStay},
		{"PinnedExtentSurvives", testPinnedExtent},
		{"RemoveFile", testRemoveFile},
		{"DropClean", testDropClean},
		{"Changes", testChanges},
		{"Refusals", testRefusals},
		{"Reserve", testReserve},
		{"Concurrent", testConcurrent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.fn(t, open) })
	}
}

// Bytes returns n bytes that depend on the seed alone.
func Bytes(seed uint64, n int64) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(p)
	return p
}

// ID returns the id of a one-block file.
func ID(file uint64) orca.BlockID { return orca.BlockID{File: orca.Ino(file), Version: 1} }

// Fill stores a whole block.
func Fill(t testing.TB, s tiers.Store, id orca.BlockID, p []byte) {
	t.Helper()
	require.NoError(t, TryFill(s, id, p))
}

// TryFill stores a whole block or says why not.
func TryFill(s tiers.Store, id orca.BlockID, p []byte) error {
	w, err := s.Begin(context.Background(), id, int64(len(p)))
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	return w.WriteGrains(context.Background(), p, 0)
}

// Adopt writes p to a private file and has it adopted.
func Adopt(s tiers.Store, id orca.BlockID, p []byte, dirty bool) error {
	ctx := context.Background()
	r, err := s.Reserve(ctx, int64(len(p)), false)
	if err != nil {
		return err
	}
	defer r.Release()
	// A name of its own: two may adopt the same block at once.
	f, err := os.CreateTemp(r.Dir(), "private-*")
	if err != nil {
		return err
	}
	path := f.Name()
	defer os.Remove(path)
	if err := errors.Join(writePrivate(r, f, id, p), f.Close()); err != nil {
		return err
	}
	return s.Adopt(ctx, r, tiers.Adoption{ID: id, Path: path, Length: int64(len(p)), Sums: blockfile.AppendSums(nil, p), Dirty: dirty})
}

// writePrivate fills a private file as its room wants it.
func writePrivate(r tiers.Room, f *os.File, id orca.BlockID, p []byte) error {
	if r.Key() == nil {
		_, err := f.Write(p)
		return err
	}
	v := r.Key().NewPrivate(blockfile.OS{}, f)
	if _, err := v.WriteAt(p, 0); err != nil {
		return err
	}
	return v.Finish(id)
}

// ReadAll reads a whole block through extents and checks every sum.
func ReadAll(s tiers.Store, id orca.BlockID, length int64) ([]byte, error) {
	var out []byte
	for off := int64(0); off < length; {
		e, err := s.Get(id, off, length-off)
		if err != nil {
			return out, err
		}
		p, err := ReadExtent(e)
		if err != nil {
			return out, err
		}
		out = append(out, p...)
		off += int64(len(p))
	}
	return out, nil
}

// ReadExtent reads an extent, checks the sums of the whole grains in it, and
// releases it.
func ReadExtent(e dataplane.Extent) ([]byte, error) {
	defer e.Release()
	if e.N == 0 {
		return nil, nil
	}
	p := make([]byte, e.N)
	if _, err := e.ReadAt(p, e.Off); err != nil && err != io.EOF {
		return nil, err
	}
	if e.SumOff == e.Off {
		whole := len(p) / orca.GrainSize
		for i, sum := range blockfile.AppendSums(nil, p[:whole*orca.GrainSize]) {
			if e.Sums[i] != sum {
				return nil, orca.E("tiertest.ReadExtent", orca.Corrupt, "sum of a served grain does not hold")
			}
		}
	}
	return p, nil
}

// CopyTree copies a folder as it is now, for reopening a crash's remains. What
// vanishes meanwhile is left out.
func CopyTree(t testing.TB, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // vanished
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // vanished
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	}))
}

// Eventually polls until ok or the test fails.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func opened(t *testing.T, open OpenFunc, o Options) tiers.Store {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	s := open(t, o)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func testFillAndRead(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{MEM: 16 << 20})
	for i, n := range []int64{1, 100, orca.GrainSize - 1, orca.GrainSize, orca.GrainSize + 1, 1 << 20, 3<<20 + 777} {
		id, p := ID(uint64(i+10)), Bytes(uint64(i), n)
		_, err := s.Get(id, 0, 1)
		require.ErrorIs(t, err, orca.NotFound)
		Fill(t, s, id, p)
		got, err := ReadAll(s, id, n)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))
		m, err := s.Stat(id)
		require.NoError(t, err)
		require.Equal(t, tiers.Meta{ID: id, Tier: orca.MEM, Length: n, Cached: n, Complete: true}, m)
		testDescriptor(t, s, id, p)
		e, err := s.Get(id, n-1, 100)
		require.NoError(t, err)
		require.Equal(t, int64(1), e.N)
		require.Equal(t, (n-1)/orca.GrainSize*orca.GrainSize, e.SumOff)
		require.Len(t, e.Sums, 1)
		e.Release()
	}
}

// testDescriptor reads a complete block by its descriptor; there is none of an
// encrypted one.
func testDescriptor(t *testing.T, s tiers.Store, id orca.BlockID, p []byte) {
	f, length, _, err := s.Descriptor(context.Background(), id)
	if encrypted(t, s) {
		require.ErrorIs(t, err, orca.Unsupported)
		return
	}
	require.NoError(t, err)
	require.EqualValues(t, len(p), length)
	_, err = f.WriteAt([]byte("x"), 0)
	require.Error(t, err, "an exported descriptor is read only")
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	f.Close()
}

// encrypted reports whether a store's directories are.
func encrypted(t testing.TB, s tiers.Store) bool {
	t.Helper()
	r, err := s.Reserve(context.Background(), orca.GrainSize, false)
	require.NoError(t, err)
	defer r.Release()
	return r.Key() != nil
}

func testPartialRuns(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{MEM: 16 << 20})
	ctx := context.Background()
	const g = int64(orca.GrainSize)
	p := Bytes(1, 10*g+5)
	w, err := s.Begin(ctx, ID(1), int64(len(p)))
	require.NoError(t, err)
	put := func(first, end int64) {
		t.Helper()
		require.NoError(t, w.WriteGrains(ctx, p[first*g:min(end*g, int64(len(p)))], first*g))
	}
	put(2, 4)
	put(10, 11) // the short one
	off, n := w.Missing(0, int64(len(p)))
	require.Equal(t, []int64{0, 2 * g}, []int64{off, n})
	off, n = w.Missing(3*g, 100*g)
	require.Equal(t, []int64{4 * g, 6 * g}, []int64{off, n})
	e, err := s.Get(ID(1), 2*g+7, 100*g)
	require.NoError(t, err)
	require.Equal(t, 2*g-7, e.N)
	require.Equal(t, 2*g, e.SumOff)
	require.Len(t, e.Sums, 2)
	e.Release()
	_, err = s.Get(ID(1), 4*g, 1)
	require.ErrorIs(t, err, orca.NotFound)
	_, _, _, err = s.Descriptor(ctx, ID(1))
	require.ErrorIs(t, err, orca.Unsupported)
	require.ErrorIs(t, w.WriteGrains(ctx, p[:100], 0), orca.Invalid)
	require.ErrorIs(t, w.WriteGrains(ctx, p[:g], 5), orca.Invalid)
	// Present grains are left as they are, whatever comes.
	require.NoError(t, w.WriteGrains(ctx, make([]byte, 2*g), 2*g))
	put(0, 11)
	require.NoError(t, w.Close())
	got, err := ReadAll(s, ID(1), int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	used := int64(0)
	for _, u := range s.Usage() {
		used += u.Used
	}
	require.Equal(t, int64(len(p)), used)
}

func testAdopt(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{MEM: 4 << 20, SSD: 16 << 20})
	p := Bytes(3, 1<<20+1)
	require.NoError(t, Adopt(s, ID(1), p, true))
	m, err := s.Stat(ID(1))
	require.NoError(t, err)
	require.True(t, m.Dirty && m.Complete)
	require.ErrorIs(t, Adopt(s, ID(1), p, false), orca.Exists)
	got, err := ReadAll(s, ID(1), int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	e, err := s.Get(ID(1), 0, 1)
	require.NoError(t, err)
	require.Equal(t, encrypted(t, s), e.File == nil, "an encrypted block is served from memory")
	if e.File != nil {
		st, err := e.File.Stat()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o400), st.Mode().Perm())
	}
	e.Release()
	require.NoError(t, s.Clean(ID(1)))
	m, _ = s.Stat(ID(1))
	require.False(t, m.Dirty)
	// A block larger than half of MEM goes to the SSD.
	require.NoError(t, Adopt(s, ID(2), Bytes(4, 3<<20), false))
	m, _ = s.Stat(ID(2))
	require.Equal(t, orca.SSD, m.Tier)
	// An adoption replaces what was partly cached.
	w, err := s.Begin(context.Background(), ID(3), 1<<20)
	require.NoError(t, err)
	q := Bytes(5, 1<<20)
	require.NoError(t, w.WriteGrains(context.Background(), q[:orca.GrainSize], 0))
	require.NoError(t, Adopt(s, ID(3), q, false))
	require.NoError(t, w.Close())
	got, err = ReadAll(s, ID(3), 1<<20)
	require.NoError(t, err)
	require.True(t, bytes.Equal(q, got))
}

func testEvictOrder(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 10 << 20})
	for i := range uint64(9) {
		Fill(t, s, ID(i), Bytes(i, 1<<20))
	}
	for range 5 {
		for _, i := range []uint64{0, 1} { // used again and again
			_, err := ReadAll(s, ID(i), 1<<20)
			require.NoError(t, err)
		}
	}
	for i := uint64(20); i < 26; i++ {
		Fill(t, s, ID(i), Bytes(i, 1<<20))
		for _, u := range s.Usage() {
			require.LessOrEqual(t, u.Used, u.Capacity)
		}
	}
	for _, i := range []uint64{0, 1} {
		_, err := s.Stat(ID(i))
		require.NoError(t, err, "block %d was used often", i)
	}
	n := 0
	s.Each(func(tiers.Meta) bool { n++; return true })
	require.LessOrEqual(t, n, 10, "others left instead")
	require.GreaterOrEqual(t, n, 8, "no more than had to")
}

func testDirtyAndPinnedStay(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 8 << 20})
	s.Pin(ID(2).File, true)
	require.NoError(t, Adopt(s, ID(1), Bytes(1, 1<<20), true))
	Fill(t, s, ID(2), Bytes(2, 1<<20))
	for i := uint64(10); i < 40; i++ {
		Fill(t, s, ID(i), Bytes(i, 1<<20))
	}
	for _, i := range []uint64{1, 2} {
		got, err := ReadAll(s, ID(i), 1<<20)
		require.NoError(t, err)
		require.True(t, bytes.Equal(Bytes(i, 1<<20), got))
	}
	// With nothing but dirty blocks there is no room, and it is said so.
	var err error
	n := 0
	for i := uint64(50); i < 70 && err == nil; i++ {
		if err = Adopt(s, ID(i), Bytes(i, 1<<20), true); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, orca.NoSpace)
	require.Equal(t, 6, n, "every clean block gives way to a write")
	require.NoError(t, s.Clean(ID(1)))
	s.Pin(ID(2).File, false)
	require.NoError(t, Adopt(s, ID(90), Bytes(90, 1<<20), true))
	require.NoError(t, Adopt(s, ID(91), Bytes(91, 1<<20), true))
}

func testPinnedExtent(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 4 << 20})
	p := Bytes(1, 1<<20)
	Fill(t, s, ID(1), p)
	e, err := s.Get(ID(1), 0, 1<<20)
	require.NoError(t, err)
	if e.File == nil { // what is in memory does not need the block
		require.NoError(t, s.Remove(ID(1)))
		got, err := ReadExtent(e)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))
		return
	}
	path := e.File.Name()
	require.NoError(t, s.Remove(ID(1)))
	_, err = s.Get(ID(1), 0, 1)
	require.ErrorIs(t, err, orca.NotFound)
	require.FileExists(t, path, "the file waits for its pins")
	Fill(t, s, ID(1), p) // the name is free again at once
	got, err := ReadExtent(e)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	got, err = ReadAll(s, ID(1), 1<<20)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.NoError(t, s.Remove(ID(1)))
	Eventually(t, "quota returns", func() bool { return s.Usage()[0].Used == 0 })
	require.NoFileExists(t, path)
}

func testRemoveFile(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 32 << 20})
	for v := uint32(1); v <= 3; v++ {
		for i := range uint32(3) {
			Fill(t, s, orca.BlockID{File: 7, Version: v, Index: i}, Bytes(uint64(v), 100))
		}
	}
	Fill(t, s, ID(8), Bytes(8, 100))
	s.RemoveFile(7, 1)
	_, err := s.Stat(orca.BlockID{File: 7, Version: 3})
	require.NoError(t, err, "newer than what is kept")
	s.RemoveFile(7, 3)
	n := 0
	s.Each(func(m tiers.Meta) bool {
		require.True(t, m.ID.File == 8 || m.ID.Version == 3)
		n++
		return true
	})
	require.Equal(t, 4, n)
	s.RemoveFile(7, 0)
	_, err = s.Stat(orca.BlockID{File: 7, Version: 3})
	require.ErrorIs(t, err, orca.NotFound)
	require.ErrorIs(t, s.Remove(orca.BlockID{File: 7, Version: 3}), orca.NotFound)
}

// A block is reported from its first grain on, and can be dropped while it is
// filled; the only copy stays.
func testDropClean(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 32 << 20})
	ctx := context.Background()
	p := Bytes(7, 2<<20)
	_, c, _ := s.Changes(0)
	filling := orca.BlockID{File: 7, Version: 1}
	w, err := s.Begin(ctx, filling, int64(len(p)))
	require.NoError(t, err)
	files, c, _ := s.Changes(c)
	require.Empty(t, files)
	require.NoError(t, w.WriteGrains(ctx, p[:orca.GrainSize], 0))
	files, c, _ = s.Changes(c)
	require.Equal(t, []tiers.FileReport{{File: 7, Version: 1, Tier: orca.SSD, Cached: orca.GrainSize}}, files)
	dirty := orca.BlockID{File: 7, Version: 2}
	require.NoError(t, Adopt(s, dirty, p, true))
	s.DropClean(7)
	_, err = s.Get(filling, 0, 1)
	require.ErrorIs(t, err, orca.NotFound)
	require.ErrorIs(t, w.WriteGrains(ctx, p[orca.GrainSize:], orca.GrainSize), orca.NotFound)
	require.NoError(t, w.Close())
	got, err := ReadAll(s, dirty, int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	files, _, _ = s.Changes(c)
	require.Len(t, files, 2)
	for _, f := range files {
		require.Equal(t, f.Version == 2, f.Cached > 0)
	}
}

func testChanges(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 32 << 20})
	_, c, full := s.Changes(0)
	require.True(t, full)
	Fill(t, s, ID(1), Bytes(1, 70000))
	files, c2, full := s.Changes(c)
	require.False(t, full)
	require.Equal(t, []tiers.FileReport{{File: 1, Version: 1, Cached: 70000, Complete: []uint32{0}, Tier: orca.SSD}}, files)
	files, _, _ = s.Changes(c2)
	require.Empty(t, files)
	require.NoError(t, s.Remove(ID(1)))
	files, _, _ = s.Changes(c2)
	require.Len(t, files, 1)
	require.Zero(t, files[0].Cached)
	_, _, full = s.Changes(c2 + 1000)
	require.True(t, full)
}

func testRefusals(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{SSD: 4 << 20})
	ctx := context.Background()
	_, err := s.Begin(ctx, ID(1), 0)
	require.ErrorIs(t, err, orca.Invalid)
	_, err = s.Begin(ctx, ID(1), 2<<20+1)
	require.ErrorIs(t, err, orca.NoSpace, "a block goes only where the quota is twice its size")
	Fill(t, s, ID(1), Bytes(1, 1000))
	_, err = s.Begin(ctx, ID(1), 1001)
	require.ErrorIs(t, err, orca.Invalid)
	_, err = s.Get(ID(1), 1000, 1)
	require.ErrorIs(t, err, orca.Invalid)
	_, err = s.Get(ID(1), -1, 1)
	require.ErrorIs(t, err, orca.Invalid)
	require.ErrorIs(t, s.Clean(ID(9)), orca.NotFound)
	require.ErrorIs(t, s.Recheck(ID(9)), orca.NotFound)
	_, err = s.Stat(ID(9))
	require.ErrorIs(t, err, orca.NotFound)
	_, _, _, err = s.Descriptor(ctx, ID(9))
	require.ErrorIs(t, err, orca.NotFound)
}

func testReserve(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{MEM: 8 << 20, SSD: 8 << 20})
	ctx := context.Background()
	r, err := s.Reserve(ctx, 1<<20, false)
	require.NoError(t, err)
	require.Equal(t, orca.MEM, r.Tier())
	d, err := s.Reserve(ctx, 1<<20, true)
	require.NoError(t, err)
	require.Equal(t, orca.SSD, d.Tier())
	require.NoError(t, r.Resize(ctx, 7<<20))
	require.ErrorIs(t, r.Resize(ctx, 9<<20), orca.NoSpace)
	require.NoError(t, r.Resize(ctx, 2<<20))
	r.Release()
	r.Release()
	d.Release()
	for _, u := range s.Usage() {
		require.Zero(t, u.Used)
	}
	require.ErrorIs(t, r.Resize(ctx, 1), orca.Invalid)
}

func testConcurrent(t *testing.T, open OpenFunc) {
	s := opened(t, open, Options{MEM: 6 << 20, SSD: 10 << 20})
	const files, size = 40, 600_000
	content := make([][]byte, files)
	for i := range content {
		content[i] = Bytes(uint64(i), size)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 60 {
				i := r.IntN(files)
				id := ID(uint64(i))
				switch r.IntN(10) {
				case 0:
					_ = s.Remove(id)
				case 1:
					_ = Adopt(s, id, content[i], false)
				case 2:
					_ = s.Recheck(id)
				default:
					if err := TryFill(s, id, content[i]); err != nil && orca.KindOf(err) != orca.NotFound && orca.KindOf(err) != orca.NoSpace {
						t.Errorf("fill: %v", err)
					}
				}
				got, err := ReadAll(s, id, size)
				if err == nil && !bytes.Equal(got, content[i]) || err != nil && orca.KindOf(err) != orca.NotFound {
					t.Errorf("block %d: %v", i, err)
				}
				for _, u := range s.Usage() {
					if u.Used > u.Capacity {
						t.Errorf("quota exceeded: %+v", u)
					}
				}
			}
		})
	}
	wg.Wait()
}
