// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

func openFile(t *testing.T, fs *client.FS, path string) *client.File {
	t.Helper()
	f, err := fs.Open(t.Context(), client.Path(path), client.ReadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // closed by the test itself in places
	return f
}

func slice(t *testing.T, f *client.File, off, n int64) client.View {
	t.Helper()
	v, err := f.Slice(t.Context(), off, n)
	require.NoError(t, err)
	return v
}

func TestSliceLendsTheBlock(t *testing.T) {
	fs, o := open(t, "a", "a")
	want := noise(1, 300_001)
	put(t, fs, "/f", want, client.CreateOptions{})
	f := openFile(t, fs, "/f")
	for _, r := range [][2]int64{{0, 300_001}, {0, 1}, {65535, 2}, {299_990, 100}, {300_000, 1}} {
		v := slice(t, f, r[0], r[1])
		require.True(t, v.Mapped())
		end := min(r[0]+r[1], int64(len(want)))
		require.True(t, bytes.Equal(want[r[0]:end], v.Bytes()), "%v", r)
		require.Equal(t, len(v.Bytes()), cap(v.Bytes()), "nothing behind it can be reached")
		v.Release()
		require.Nil(t, v.Bytes())
	}
	require.Equal(t, 1, fs.Held().Mappings, "one mapping for all views")
	require.Equal(t, 1, o.Workers()[0].Calls("Descriptor"))
	require.Zero(t, o.Workers()[0].Calls("Open"))
	require.EqualValues(t, 5, fs.Stats().MappedViews.Load())
	require.Zero(t, fs.Stats().LocalBytes.Load()+fs.Stats().CopiedBytes.Load(), "no byte was copied")

	empty, err := f.Slice(t.Context(), 5, 0)
	require.NoError(t, err)
	require.Empty(t, empty.Bytes())
	empty.Release()
	_, err = f.Slice(t.Context(), 300_001, 1)
	require.ErrorIs(t, err, io.EOF)
	_, err = f.Slice(t.Context(), -1, 1)
	require.ErrorIs(t, err, orca.Invalid)
	require.NoError(t, f.Close())
	_, err = f.Slice(t.Context(), 0, 1)
	require.ErrorIs(t, err, os.ErrClosed)
}

// A hit allocates nothing in our code and asks nobody.
func TestSliceAllocatesNothing(t *testing.T) {
	fs, o := open(t, "a", "a")
	put(t, fs, "/f", noise(1, 1<<20), client.CreateOptions{})
	f := openFile(t, fs, "/f")
	ctx := t.Context()
	slice(t, f, 0, 1).Release()
	asked := o.Workers()[0].Calls("Descriptor")
	off, sum := int64(0), byte(0)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		off = (off + 4096) % (1 << 19)
		v, err := f.Slice(ctx, off, 64<<10)
		if err != nil || !v.Mapped() {
			t.Fatal(err)
		}
		sum += v.Bytes()[0]
		v.Release()
		v.Release()
	}))
	require.Equal(t, asked, o.Workers()[0].Calls("Descriptor"))
	require.Equal(t, client.Held{Mappings: 1, Descriptors: 1}, fs.Held())
}

// A view outlives its block, its File and its FS.
func TestViewOutlivesEviction(t *testing.T) {
	o, err := memorca.New(t.TempDir(), "a")
	require.NoError(t, err)
	fs := openWith(t, o, client.Config{Node: "a"})
	want := noise(2, 1<<20)
	put(t, fs, "/f", want, client.CreateOptions{})
	f := openFile(t, fs, "/f")
	v := slice(t, f, 0, 1<<20)
	require.True(t, v.Mapped())
	require.NoError(t, fs.Free(t.Context(), client.Path("/f"), client.FreeOptions{}))
	o.Workers()[0].SetDown(true)
	require.NoError(t, f.Close())
	require.NoError(t, fs.Close())
	require.True(t, bytes.Equal(want, v.Bytes()))
	require.Equal(t, client.Held{Views: 1, Mappings: 1}, fs.Held(), "the descriptor is closed")
	v.Release()
	require.Zero(t, fs.Held())
}

// A second release must not end the view that has the slot now.
func TestReleaseIsIdempotent(t *testing.T) {
	fs, _ := open(t, "a", "a")
	put(t, fs, "/f", noise(3, 100_000), client.CreateOptions{})
	f := openFile(t, fs, "/f")
	old := slice(t, f, 0, 10)
	same := old
	old.Release()
	now := slice(t, f, 10, 10)
	old.Release()
	same.Release()
	require.Nil(t, same.Bytes())
	require.Len(t, now.Bytes(), 10)
	require.Equal(t, 1, fs.Held().Views)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(now.Release)
	}
	wg.Wait()
	require.Zero(t, fs.Held().Views)
}

func TestSliceCopiesWhereItMust(t *testing.T) {
	o, err := memorca.New(t.TempDir(), "a")
	require.NoError(t, err)
	local := openWith(t, o, client.Config{Node: "a"})
	remote := openWith(t, o, client.Config{Node: "b"})
	want := noise(4, memorca.WholeMax+memorca.BlockSize/2)
	put(t, local, "/f", want, client.CreateOptions{})
	check := func(fs *client.FS, off, n int64, mapped bool) {
		t.Helper()
		v := slice(t, openFile(t, fs, "/f"), off, n)
		defer v.Release()
		require.Equal(t, mapped, v.Mapped())
		require.True(t, bytes.Equal(want[off:off+n], v.Bytes()))
	}
	check(remote, 5, 100_000, false)
	check(local, 5, 100_000, true)
	check(local, memorca.BlockSize-10, 20, false) // across blocks
	check(local, 0, int64(len(want)), false)
	require.EqualValues(t, 2, local.Stats().CopiedViews.Load())
	f, err := local.Open(t.Context(), client.Path("/f"), client.ReadOptions{Type: orca.ReadNoCache})
	require.NoError(t, err)
	defer f.Close()
	v := slice(t, f, 5, 10)
	require.False(t, v.Mapped(), "asked for the worker")
	v.Release()

	partial := openWith(t, o, client.Config{Node: "a"})
	o.Workers()[0].RefuseDescriptors(true)
	check(partial, 5, 100_000, false)
	bad := openFile(t, partial, "/f")
	o.Workers()[0].Fail(func(op string) error { return orca.E(op, orca.Corrupt, "") })
	_, err = bad.Slice(t.Context(), 0, 10)
	require.ErrorIs(t, err, orca.Corrupt)
}

// The mappings are bounded: the least recently used one that no view holds
// gives way, and when views hold them all, views are copied.
func TestMappingsAreBounded(t *testing.T) {
	o, err := memorca.New(t.TempDir(), "a")
	require.NoError(t, err)
	fs := openWith(t, o, client.Config{Node: "a", Mappings: 2})
	var files []*client.File
	for i, name := range []string{"/0", "/1", "/2"} {
		put(t, fs, name, noise(byte(i), 10_000), client.CreateOptions{})
		files = append(files, openFile(t, fs, name))
	}
	held := slice(t, files[0], 0, 10)
	slice(t, files[1], 0, 10).Release()
	v := slice(t, files[2], 0, 10) // in place of /1
	require.True(t, v.Mapped())
	require.Equal(t, 2, fs.Held().Mappings)
	copied := slice(t, files[1], 0, 10)
	require.False(t, copied.Mapped())
	require.True(t, bytes.Equal(noise(1, 10_000)[:10], copied.Bytes()))
	copied.Release()
	v.Release()
	again := slice(t, files[1], 0, 10)
	require.True(t, again.Mapped(), "in place of /2")
	require.True(t, bytes.Equal(noise(0, 10_000)[:10], held.Bytes()))
	again.Release()
	held.Release()
	require.Equal(t, 2, fs.Held().Mappings)
}

// A block on a disk that has lost pages fails in Slice, not at the access.
func TestSliceFindsLostPages(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	if st.Type == unix.TMPFS_MAGIC {
		t.Skip("temporary folder is in memory")
	}
	o, err := memorca.New(dir, "a")
	require.NoError(t, err)
	fs := openWith(t, o, client.Config{Node: "a"})
	put(t, fs, "/f", noise(1, 1<<20), client.CreateOptions{})
	f := openFile(t, fs, "/f")
	v := slice(t, f, 0, 1<<20)
	require.True(t, v.Mapped())
	v.Release()
	blocks, err := filepath.Glob(filepath.Join(dir, "*", "*-*-*"))
	require.NoError(t, err)
	lost := 0
	for _, b := range blocks {
		if st, err := os.Stat(b); err == nil && st.Size() == 1<<20 {
			require.NoError(t, os.Truncate(b, 4096))
			lost++
		}
	}
	require.NotZero(t, lost)
	v, err = f.Slice(t.Context(), 1<<19, 4096)
	require.Error(t, err, "the worker has no other copy")
	require.False(t, v.Mapped())
	require.Zero(t, fs.Held().Views)
}
