// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
)

// TestSpare: the memory of blocks that left is kept for those to come, within
// the quota, and nobody who comes later sees a byte of it.
func TestSpare(t *testing.T) {
	at := t.TempDir()
	if err := unix.Mount("orca-test", at, "tmpfs", 0, "size=64m,huge=advise"); err != nil {
		t.Skipf("no right to mount a tmpfs with huge pages: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, unix.MNT_DETACH)) })
	const block, quota = 8 << 20, 32 << 20
	d := open(t, at+"/tier", quota)
	inUse := func() int64 {
		var st unix.Statfs_t
		require.NoError(t, unix.Statfs(at, &st))
		return int64(st.Blocks-st.Bfree) * st.Bsize
	}
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
		return f
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
	require.Zero(t, d.Spare(), "in use and spare fit the quota")
	d.Return(quota - block - block/2)

	leave(10, f10)
	require.EqualValues(t, block, d.Spare())
	require.True(t, d.Refused(), "spare memory goes first when the file system is full")
	require.Zero(t, d.Spare())
	require.EqualValues(t, quota, d.Usable())

	leave(11, file(11))
	require.NoError(t, d.Close())
	require.Zero(t, d.Spare())
	require.NoError(t, reader.Close())
	require.Less(t, inUse(), int64(block))
}
