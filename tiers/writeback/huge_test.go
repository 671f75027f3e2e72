// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers/tiertest"
)

// onHugeTmpfs mounts one at the MEM directory of a rig to be.
func onHugeTmpfs(t *testing.T, o rigOptions) *rig {
	t.Helper()
	root := t.TempDir()
	mem := filepath.Join(root, "mem")
	require.NoError(t, os.Mkdir(mem, 0o700))
	if err := unix.Mount("orca-test", mem, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=256m,huge=advise"); err != nil {
		t.Skipf("no tmpfs with huge pages here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mem, unix.MNT_DETACH)) })
	return newRigAt(t, root, o)
}

// hugeBytes returns how much of a file lies on huge pages.
func hugeBytes(t *testing.T, f *os.File, n int64) int64 {
	t.Helper()
	m, err := unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(m)
	require.NoError(t, unix.Madvise(m, unix.MADV_POPULATE_READ))
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(f.Fd()), &st))
	ino := " " + strconv.FormatUint(st.Ino, 10) + " "
	smaps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	at, sum := false, int64(0)
	for line := range strings.Lines(string(smaps)) {
		if strings.Contains(line, " r--s ") || strings.Contains(line, " rw-s ") {
			at = strings.Contains(line, ino)
		} else if rest, ok := strings.CutPrefix(line, "ShmemPmdMapped:"); ok && at {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			require.NoError(t, err)
			sum += kb << 10
		}
	}
	return sum
}

func TestSealsIntoHugePages(t *testing.T) {
	const n = 9<<20 + 5000
	p := tiertest.Bytes(11, n)
	id := orca.BlockID{File: 7, Version: 3}
	tests := []struct {
		name  string
		local bool // written by descriptor
		held  bool // and held at Seal: copied
	}{
		{name: "by the worker"}, {name: "by descriptor", local: true}, {name: "held", local: true, held: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := onHugeTmpfs(t, rigOptions{mem: 128 << 20})
			tg := target(orca.MustCache)
			tg.WholeMax = 64 << 20
			var h uint64
			if !tt.local {
				h = r.write(tg, p)
			} else {
				var err error
				h, err = r.wb.CreateWrite(t.Context(), tg)
				require.NoError(t, err)
				f, err := r.wb.WriteFile(t.Context(), h)
				require.NoError(t, err)
				_, err = f.Write(p)
				require.NoError(t, err)
				if tt.held {
					defer f.Close()
				} else {
					require.NoError(t, f.Close())
				}
			}
			res, err := r.wb.Seal(t.Context(), h, tg, false)
			require.NoError(t, err)
			require.EqualValues(t, n, res.Length)
			require.True(t, bytes.Equal(p, r.cached(id, n)))
			f := openBlock(t, r, id)
			defer f.Close()
			if got := hugeBytes(t, f, n); got < 8<<20 {
				if r.wb.Metrics.HugeBytes.Load() == 0 && !tt.held {
					t.Skip("this kernel does not collapse shared memory")
				}
				t.Fatalf("%d of %d bytes on huge pages", got, n)
			}
		})
	}
}

// TestSealKeepsHoles: a hole must not become memory.
func TestSealKeepsHoles(t *testing.T) {
	for _, held := range []bool{false, true} {
		r := onHugeTmpfs(t, rigOptions{mem: 128 << 20})
		tg := target(orca.MustCache)
		tg.WholeMax = 1 << 30
		h, err := r.wb.CreateWrite(t.Context(), tg)
		require.NoError(t, err)
		f, err := r.wb.WriteFile(t.Context(), h)
		require.NoError(t, err)
		p := tiertest.Bytes(12, 3<<20)
		_, err = f.WriteAt(p, 20<<20+4096)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(50<<20))
		if !held {
			require.NoError(t, f.Close())
			_, err = r.wb.Seal(t.Context(), h, tg, false)
			require.NoError(t, err)
			b := openBlock(t, r, orca.BlockID{File: 7, Version: 3})
			var st unix.Stat_t
			require.NoError(t, unix.Fstat(int(b.Fd()), &st))
			require.NoError(t, b.Close())
			require.LessOrEqual(t, st.Blocks*512, int64(4<<20))
			continue
		}
		res, err := r.wb.Seal(t.Context(), h, tg, false)
		require.NoError(t, err)
		require.EqualValues(t, 50<<20, res.Length)
		require.NoError(t, f.Close())
	}
}

func openBlock(t *testing.T, r *rig, id orca.BlockID) *os.File {
	t.Helper()
	f, _, _, err := r.store.Descriptor(t.Context(), id)
	require.NoError(t, err)
	return f
}
