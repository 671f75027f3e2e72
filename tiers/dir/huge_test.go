// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
)

// TestHuge needs the right to mount; without it there is nothing to see.
func TestHuge(t *testing.T) {
	require.False(t, open(t, t.TempDir(), 1<<20).Huge())
	at := t.TempDir()
	if err := unix.Mount("orca-test", at, "tmpfs", 0, "size=64m,huge=advise"); err != nil {
		t.Skipf("no right to mount a tmpfs with huge pages: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(at, unix.MNT_DETACH)) })
	d := open(t, at+"/tier", 32<<20)
	t.Cleanup(func() { _ = d.Close() })
	require.True(t, d.Huge())
	id := orca.BlockID{File: 1, Version: 1}
	f, err := d.Create(id, 8<<20)
	require.NoError(t, err)
	defer f.Close()
	d.Prepare(f, 0, 4<<20)
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	require.EqualValues(t, 4<<20, st.Blocks*512)
	require.NoError(t, d.Write(f, []byte("x"), 0))
	b := make([]byte, 2)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	require.Equal(t, "x\x00", string(b))
	d.Prepare(f, 64<<20, 4<<20) // behind the end: refused by the kernel, harmless
	_, err = os.Stat(f.Name())
	require.NoError(t, err)
}
