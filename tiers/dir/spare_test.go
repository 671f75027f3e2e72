// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
)

// hugeTmpfs mounts one of 64 MiB, and says how much of it is in use.
func hugeTmpfs(t *testing.T) (at string, inUse func() int64) {
	at = t.TempDir()
	if err := unix.Mount("orca-test", at, "tmpfs", 0, "size=64m,huge=advise"); err != nil {
		t.Skipf("no right to mount a tmpfs with huge pages: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, unix.MNT_DETACH)) })
	return at, func() int64 {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(at, &st))
		return int64(st.Blocks-st.Bfree) * st.Bsize
	}
}

// TestSpareByPieces: what nobody else has open is let go no faster than its
// memory is needed; what somebody reads is never cut.
func TestSpareByPieces(t *testing.T) {
	at, inUse := hugeTmpfs(t)
	const step, block = 4 << 20, 16 << 20
	d := open(t, at+"/tier", 64<<20)
	id := func(n uint64) orca.BlockID { return orca.BlockID{File: orca.Ino(n), Version: 1} }
	fill := func(n uint64, size int64) *os.File {
		require.True(t, d.Take(size))
		f, err := d.Create(id(n), block)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		for off := int64(0); off < size; off += step {
			m := d.Map(f, off, step)
			require.NotNil(t, m)
			copy(m[step-6:], "secret")
			d.Unmap(m)
		}
		return f.File
	}
	leave := func(n uint64, f *os.File, size int64) {
		require.NoError(t, f.Close())
		require.NoError(t, d.Unlink(id(n)))
		d.Return(size)
	}
	whole, part, held := fill(1, block), fill(2, step), fill(3, block)
	defer func() { require.NoError(t, d.Close()) }()
	mapped, err := unix.Mmap(int(held.Fd()), 0, block, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	leave(1, whole, block)
	leave(2, part, step)
	leave(3, held, block)
	was := inUse()
	require.EqualValues(t, 2*block+step, d.Spare())

	next := fill(4, step)
	require.EqualValues(t, 2*block, d.Spare(), "no more is let go than is needed")
	require.EqualValues(t, was, inUse())
	const most = 64<<20 - step - (block + step - 1) // a byte too much for what is spare but the last 20 MiB
	require.True(t, d.Take(most))
	require.EqualValues(t, block, d.Spare(), "the rest of the first, and all that the second holds")
	d.Return(most)
	require.NoError(t, next.Close())

	require.True(t, d.Take(64<<20-step-step))
	require.Zero(t, d.Spare(), "who has a reader is let go as a whole")
	require.Equal(t, "secret", string(mapped[block-6:]), "what is mapped keeps its bytes")
	require.NoError(t, unix.Munmap(mapped))
}

// TestSpare: the memory of blocks that left is kept for those to come, within
// the quota, and nobody who comes later sees a byte of it.
func TestSpare(t *testing.T) {
	at, inUse := hugeTmpfs(t)
	const block, quota = 8 << 20, 32 << 20
	d := open(t, at+"/tier", quota)
	file := func(n uint64) *os.File {
		require.True(t, d.Take(block))
		f, err := d.Create(orca.BlockID{File: orca.Ino(n), Version: 1}, block)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		for off := int64(0); off < block; off += 4 << 20 {
			m := d.Map(f, off, 4<<20)
			require.NotNil(t, m)
			for i := 0; i < len(m); i += 4096 {
				require.Zero(t, m[i])
			}
			copy(m, "secret")
			d.Unmap(m)
		}
		return f.File
	}
	leave := func(n uint64, f *os.File) {
		require.NoError(t, f.Close())
		require.NoError(t, d.Unlink(orca.BlockID{File: orca.Ino(n), Version: 1}))
		d.Return(block)
	}
	fs := make([]*os.File, 3)
	for i := range fs {
		fs[i] = file(uint64(i))
	}
	reader, err := os.Open(fs[0].Name())
	require.NoError(t, err)
	defer reader.Close()
	for i := range fs {
		leave(uint64(i), fs[i])
	}
	require.EqualValues(t, 3*block, d.Spare())
	require.Zero(t, d.Used())
	require.GreaterOrEqual(t, inUse(), int64(3*block))

	f10 := file(10) // takes what one has left
	require.EqualValues(t, 2*block, d.Spare())
	b := make([]byte, 6)
	_, err = reader.ReadAt(b, 0)
	require.NoError(t, err)
	require.Equal(t, "secret", string(b), "a reader of a block that left keeps it")

	require.True(t, d.Take(quota-block-block/2)) // nothing of it is written yet
	require.EqualValues(t, block/2, d.Spare(), "in use and spare fit the quota")
	d.Return(quota - block - block/2)

	leave(10, f10)
	require.EqualValues(t, block+block/2, d.Spare())
	require.True(t, d.Refused(), "spare memory goes first when the file system is full")
	require.Zero(t, d.Spare())
	require.EqualValues(t, quota, d.Usable())

	leave(11, file(11))
	require.NoError(t, d.Close())
	require.Zero(t, d.Spare())
	require.NoError(t, reader.Close())
	require.Less(t, inUse(), int64(block))
}
