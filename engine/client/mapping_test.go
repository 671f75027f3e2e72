// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// memDescriptor is a descriptor of a block in memory.
func memDescriptor(t *testing.T, n int) (*descriptor, []byte, string) {
	t.Helper()
	var fs unix.Statfs_t
	if unix.Statfs("/dev/shm", &fs) != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs at /dev/shm")
	}
	dir, err := os.MkdirTemp("/dev/shm", "orca-client-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return fileDescriptor(t, filepath.Join(dir, "block"), n)
}

func fileDescriptor(t *testing.T, path string, n int) (*descriptor, []byte, string) {
	t.Helper()
	want := make([]byte, n)
	rand.New(rand.NewSource(5)).Read(want)
	require.NoError(t, os.WriteFile(path, want, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	d := &descriptor{file: f, length: int64(n), maps: newMaps(8)}
	d.refs.Store(1)
	t.Cleanup(func() { require.Zero(t, d.maps.count()) })
	return d, want, path
}

func TestHotBlocksAreMapped(t *testing.T) {
	const n = 3<<20 + 5
	d, want, path := memDescriptor(t, n)
	got := make([]byte, n)
	for pass := range 3 {
		for off := 0; off < n; off += 1 << 20 {
			_, err := d.readAt(got[off:min(off+1<<20, n)], int64(off))
			require.NoError(t, err)
		}
		require.True(t, bytes.Equal(want, got))
		require.Equal(t, pass > 0, d.mapped.Load() != nil, "pass %d", pass)
		clear(got)
	}
	require.NoError(t, os.Remove(path), "evicted")
	var wg sync.WaitGroup
	for range 4 { // the last reader unmaps
		require.True(t, d.acquire())
		wg.Go(func() {
			defer d.release()
			p := make([]byte, 4096)
			for i := range 1000 {
				off := (i * 40961) % (n - len(p))
				if m, err := d.readAt(p, int64(off)); m != len(p) || err != nil || !bytes.Equal(p, want[off:off+m]) {
					t.Error(off, m, err)
					return
				}
			}
		})
	}
	d.release()
	wg.Wait()
	require.Nil(t, d.mapped.Load())
	require.False(t, d.acquire())
}

func TestSmallReadsMap(t *testing.T) {
	d, _, _ := memDescriptor(t, 64<<20)
	defer d.release()
	p := make([]byte, 512)
	for range mapReads + 2 {
		_, err := d.readAt(p, 4096)
		require.NoError(t, err)
	}
	require.NotNil(t, d.mapped.Load())
}

func TestOnlyLongBlocksInMemoryAreMapped(t *testing.T) {
	small, _, _ := memDescriptor(t, 1<<20)
	disk, _, _ := fileDescriptor(t, filepath.Join(t.TempDir(), "block"), 3<<20)
	var fs unix.Statfs_t
	require.NoError(t, unix.Fstatfs(int(disk.file.Fd()), &fs))
	for _, d := range []*descriptor{small, disk} {
		defer d.release()
		if d == disk && fs.Type == unix.TMPFS_MAGIC {
			continue
		}
		p := make([]byte, 1<<20)
		for range 8 {
			_, err := d.readAt(p, 0)
			require.NoError(t, err)
		}
		require.Nil(t, d.mapped.Load())
	}
}

// TestLostPagesAreAnError: a page that is gone must not end the process.
func TestLostPagesAreAnError(t *testing.T) {
	d, want, path := memDescriptor(t, 4<<20)
	defer d.release()
	p := make([]byte, 1<<20)
	for i := range 5 {
		_, err := d.readAt(p, int64(i%4)<<20)
		require.NoError(t, err)
	}
	require.NotNil(t, d.mapped.Load())
	require.NoError(t, os.Truncate(path, 1<<20))
	_, err := d.readAt(p, 2<<20)
	require.Error(t, err)
	_, err = d.readAt(p, 0)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want[:1<<20], p))
}
