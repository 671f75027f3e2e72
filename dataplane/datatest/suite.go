// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package datatest

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"math/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
)

// Key is the grant key that tests use.
var Key = bytes.Repeat([]byte{0x5a}, 32)

// Fixture is an implementation under test.
type Fixture struct {
	Access dataplane.Access
	// Put makes a block exist on the worker.
	Put func(id orca.BlockID, data []byte)
	// Grant makes the right to a version of a file.
	Grant func(file orca.Ino, version uint32, write bool) dataplane.Grant
	// Descriptors says that descriptors can be passed.
	Descriptors bool
}

// Run is the suite of dataplane.Access: setup is called once per part.
func Run(t *testing.T, setup func(t *testing.T) Fixture) {
	for name, part := range map[string]func(*testing.T, Fixture){
		"ranges": testRanges, "errors": testErrors, "write": testWrite, "keep": testKeep, "descriptor": testDescriptor,
	} {
		t.Run(name, func(t *testing.T) { part(t, setup(t)) })
	}
}

// Data returns n reproducible bytes.
func Data(seed int64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// testRanges reads blocks of lengths around the grain at offsets around the
// grain and compares with the block.
func testRanges(t *testing.T, f Fixture) {
	const g = orca.GrainSize
	for i, length := range []int{1, 100, g - 1, g, g + 1, 5*g + 77, 50*g + 1} {
		id := orca.BlockID{File: orca.Ino(100 + i), Version: 1, Index: uint32(i)}
		data := Data(int64(i), length)
		f.Put(id, data)
		for _, off := range []int{0, 1, 4096, g - 1, g, g + 1, 3*g + 5, length - 1, length, length + 1, length + 2*g} {
			for _, n := range []int{1, 4096, g, g + 1, 3 * g, 16 * g, 33*g + 9, length} {
				if off < 0 || n == 0 {
					continue
				}
				checkRange(t, f, id, data, off, n)
			}
		}
	}
}

func checkRange(t *testing.T, f Fixture, id orca.BlockID, data []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	req := dataplane.ReadRequest{ID: id, Off: int64(off), Grant: f.Grant(id.File, id.Version, false)}
	got, err := f.Access.ReadAt(t.Context(), req, p)
	want := data[min(off, len(data)):min(off+n, len(data))]
	if len(want) < n {
		require.ErrorIs(t, err, io.EOF, "[%d,+%d) of %d", off, n, len(data))
	} else {
		require.NoError(t, err, "[%d,+%d) of %d", off, n, len(data))
	}
	require.Equal(t, len(want), got, "[%d,+%d) of %d", off, n, len(data))
	require.True(t, bytes.Equal(want, p[:got]), "[%d,+%d) of %d: wrong bytes", off, n, len(data))
}

func testErrors(t *testing.T, f Fixture) {
	p := make([]byte, 3<<20)
	id := orca.BlockID{File: 9, Version: 9}
	for _, n := range []int{1, len(p)} {
		got, err := f.Access.ReadAt(t.Context(), dataplane.ReadRequest{ID: id, Grant: f.Grant(9, 9, false)}, p[:n])
		require.ErrorIs(t, err, orca.NotFound)
		require.Zero(t, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Put(id, p)
	_, err := f.Access.ReadAt(ctx, dataplane.ReadRequest{ID: id, Grant: f.Grant(9, 9, false)}, p)
	if err != nil { // who needs no wait may answer
		require.ErrorIs(t, err, orca.Canceled)
	}
	require.Error(t, f.Access.WriteAt(t.Context(), 12345, p, 0))
	require.Error(t, f.Access.Abort(t.Context(), 12345))
}

func target(f Fixture, file orca.Ino, version uint32) dataplane.WriteTarget {
	return dataplane.WriteTarget{
		Session: 7, Fence: 8, File: file, Version: version, Type: orca.CacheThrough, MountID: 1, UFSKey: "dir/key",
		Mode: 0o640, UID: 1, GID: 2, BlockSize: 64 << 20, WholeMax: 1 << 30, Replicas: 1, Grant: f.Grant(file, version, true),
	}
}

func testWrite(t *testing.T, f Fixture) {
	ctx, a := t.Context(), f.Access
	tgt := target(f, 50, 3)
	id, err := a.CreateWrite(ctx, tgt)
	require.NoError(t, err)
	data := Data(1, 11<<20+13)
	require.NoError(t, a.WriteAt(ctx, id, data[5<<20:], 5<<20))
	require.NoError(t, a.WriteAt(ctx, id, data[:100], 0))
	require.NoError(t, a.WriteAt(ctx, id, data[100:5<<20], 100))
	require.NoError(t, a.Sync(ctx, id))
	require.NoError(t, a.Truncate(ctx, id, 10<<20))
	data = data[:10<<20]
	res, err := a.Seal(ctx, id, tgt, false)
	require.NoError(t, err)
	require.EqualValues(t, len(data), res.Length)
	require.Equal(t, crc32.Checksum(data, castagnoli), res.CRC32C)
	p := make([]byte, len(data))
	n, err := a.ReadAt(ctx, dataplane.ReadRequest{ID: orca.BlockID{File: 50, Version: 3}, Grant: f.Grant(50, 3, false)}, p)
	require.NoError(t, err)
	require.True(t, n == len(data) && bytes.Equal(p, data))
	require.Error(t, a.WriteAt(ctx, id, data[:1], 0), "a sealed handle is gone")

	id, err = a.CreateWrite(ctx, target(f, 51, 1))
	require.NoError(t, err)
	require.NoError(t, a.Abort(ctx, id))
	require.Error(t, a.Sync(ctx, id))
}

// testKeep seals one handle twice, under two versions.
func testKeep(t *testing.T, f Fixture) {
	ctx, a := t.Context(), f.Access
	id, err := a.CreateWrite(ctx, target(f, 60, 1))
	require.NoError(t, err)
	require.NoError(t, a.WriteAt(ctx, id, []byte("one"), 0))
	_, err = a.Seal(ctx, id, target(f, 60, 1), true)
	require.NoError(t, err)
	require.NoError(t, a.WriteAt(ctx, id, []byte("two!"), 0))
	res, err := a.Seal(ctx, id, target(f, 60, 2), false)
	require.NoError(t, err)
	require.EqualValues(t, 4, res.Length)
	for version, want := range map[uint32]string{1: "one", 2: "two!"} {
		p := make([]byte, len(want))
		_, err = a.ReadAt(ctx, dataplane.ReadRequest{ID: orca.BlockID{File: 60, Version: version}, Grant: f.Grant(60, version, false)}, p)
		require.NoError(t, err)
		require.Equal(t, want, string(p))
	}
}

func testDescriptor(t *testing.T, f Fixture) {
	id := orca.BlockID{File: 70, Version: 1}
	data := Data(2, 100_000)
	f.Put(id, data)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	file, length, _, err := f.Access.Descriptor(ctx, id, f.Grant(70, 1, false))
	if !f.Descriptors {
		require.ErrorIs(t, err, orca.Unsupported)
		return
	}
	require.NoError(t, err)
	defer file.Close()
	require.EqualValues(t, len(data), length)
	p := make([]byte, len(data))
	_, err = file.ReadAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, data))

	w, err := f.Access.CreateWrite(ctx, target(f, 71, 1))
	require.NoError(t, err)
	wf, err := f.Access.WriteFile(ctx, w)
	require.NoError(t, err)
	defer wf.Close()
	_, err = wf.WriteAt([]byte("by descriptor"), 0)
	require.NoError(t, err)
	res, err := f.Access.Seal(ctx, w, target(f, 71, 1), false)
	require.NoError(t, err)
	require.EqualValues(t, 13, res.Length)
}
