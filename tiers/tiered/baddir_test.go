// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// twoDirs opens a store over an SSD directory, which tests break, and an HDD.
func twoDirs(t *testing.T, ssd string) *tiered.Store {
	t.Helper()
	s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{
		{Path: ssd, Tier: orca.SSD, Capacity: 16 << 20},
		{Path: filepath.Join(t.TempDir(), "hdd"), Tier: orca.HDD, Capacity: 8 << 20},
	}}, discard())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// ownMount mounts a tmpfs that the test may break.
func ownMount(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts a tmpfs")
	}
	p := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(p, 0o700))
	require.NoError(t, unix.Mount("orca-test", p, "tmpfs", 0, "size=64m"))
	t.Cleanup(func() { _ = unix.Unmount(p, unix.MNT_DETACH) }) // gone already in some
	return p
}

// failingDisk mounts an ext4 of its own; fail makes the kernel treat it as it
// treats a disk that it cannot write its metadata to: read-only from now on.
func failingDisk(t *testing.T) (path string, fail func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounts a disk")
	}
	p := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(p, 0o700))
	require.NoError(t, os.WriteFile(p+".img", nil, 0o600))
	require.NoError(t, os.Truncate(p+".img", 64<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", p+".img").CombinedOutput(); err != nil {
		t.Skipf("no ext4 here: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop,errors=remount-ro", p+".img", p).CombinedOutput(); err != nil {
		t.Skipf("no loop device here: %v %s", err, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", p).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return p, func() {
		out, err := exec.Command("mount", "-o", "remount,abort", p).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
}

func healthy(s *tiered.Store) (out []bool) {
	for _, u := range s.Usage() {
		out = append(out, u.Healthy)
	}
	return out
}

// wentOn checks that the store serves from elsewhere what the bad directory
// held, and says so.
func wentOn(t *testing.T, s *tiered.Store, want []byte) {
	t.Helper()
	tiertest.Eventually(t, "the directory is taken out", func() bool { return !healthy(s)[0] })
	require.Equal(t, []bool{false, true}, healthy(s))
	require.EqualValues(t, 1, s.Metrics.DirFailures.Load())
	_, err := s.Get(tiertest.ID(1), 0, 1)
	require.ErrorIs(t, err, orca.NotFound, "a clean block is read from its source")
	tiertest.Fill(t, s, tiertest.ID(1), want)
	got, err := tiertest.ReadAll(s, tiertest.ID(1), int64(len(want)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
	m, err := s.Stat(tiertest.ID(1))
	require.NoError(t, err)
	require.Equal(t, orca.HDD, m.Tier)
}

// TestVanishedDirectory: it was removed, or what was mounted there is gone. An
// idle store finds out, and nothing is made where the directory was: on a disk
// that is not the tier's.
func TestVanishedDirectory(t *testing.T) {
	want := tiertest.Bytes(1, 300_000)
	t.Run("removed", func(t *testing.T) {
		ssd := filepath.Join(t.TempDir(), "ssd")
		s := twoDirs(t, ssd)
		tiertest.Fill(t, s, tiertest.ID(1), want)
		require.NoError(t, os.RemoveAll(ssd))
		wentOn(t, s, want)
		require.NoDirExists(t, ssd)
	})
	t.Run("replaced", func(t *testing.T) {
		ssd := filepath.Join(t.TempDir(), "ssd")
		s := twoDirs(t, ssd)
		tiertest.Fill(t, s, tiertest.ID(1), want)
		require.NoError(t, os.Rename(ssd, ssd+".old"))
		require.NoError(t, os.CopyFS(ssd, os.DirFS(ssd+".old")))
		require.NoError(t, os.RemoveAll(filepath.Join(ssd, "blocks")))
		wentOn(t, s, want)
		require.NoDirExists(t, filepath.Join(ssd, "blocks"))
	})
	t.Run("unmounted", func(t *testing.T) {
		ssd := ownMount(t)
		s := twoDirs(t, ssd)
		tiertest.Fill(t, s, tiertest.ID(1), want)
		require.NoError(t, unix.Unmount(ssd, unix.MNT_DETACH))
		wentOn(t, s, want)
		left, err := os.ReadDir(ssd)
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// TestFillFindsVanishedDirectory: before the next look at the directories.
func TestFillFindsVanishedDirectory(t *testing.T) {
	ssd := filepath.Join(t.TempDir(), "ssd")
	s := twoDirs(t, ssd)
	require.NoError(t, os.RemoveAll(ssd))
	err := tiertest.TryFill(s, tiertest.ID(1), tiertest.Bytes(1, 1000))
	for err != nil && healthy(s)[0] { // which of the two finds it first
		err = tiertest.TryFill(s, tiertest.ID(1), tiertest.Bytes(1, 1000))
	}
	require.NoError(t, tiertest.TryFill(s, tiertest.ID(2), tiertest.Bytes(2, 1000)))
	require.False(t, healthy(s)[0])
	require.NoDirExists(t, ssd)
}

// TestReadOnlyRemount: the only copy stays readable, everything else goes on
// in the other directory, and no write is acknowledged that is not there.
func TestReadOnlyRemount(t *testing.T) {
	ssd, fail := failingDisk(t)
	s := twoDirs(t, ssd)
	want, only := tiertest.Bytes(1, 300_000), tiertest.Bytes(2, 200_000)
	tiertest.Fill(t, s, tiertest.ID(1), want)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(2), only, true))
	room, err := s.Reserve(t.Context(), 100_000, true)
	require.NoError(t, err)
	defer room.Release()
	private := filepath.Join(room.Dir(), "w-1")
	require.NoError(t, os.WriteFile(private, tiertest.Bytes(3, 100_000), 0o600))
	fail()

	err = s.Adopt(t.Context(), room, tiers.Adoption{ID: tiertest.ID(3), Path: private, Length: 100_000, Sums: make([]uint32, 2), Dirty: true})
	require.Error(t, err, "a write that is not there is not acknowledged")
	wentOn(t, s, want)
	got, err := tiertest.ReadAll(s, tiertest.ID(2), int64(len(only)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(only, got))
	_, err = s.Stat(tiertest.ID(3))
	require.ErrorIs(t, err, orca.NotFound)
	require.NoError(t, tiertest.Adopt(s, tiertest.ID(4), only, true), "the other directory takes it")
}

// sickOps fails reads as a broken disk does.
type sickOps struct {
	blockfile.OS
	sick atomic.Bool
}

func (o *sickOps) ReadAt(f *os.File, p []byte, off int64) (int, error) {
	if o.sick.Load() && strings.Contains(f.Name(), "/ssd/") {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: unix.EIO}
	}
	return o.OS.ReadAt(f, p, off)
}

// TestUnreadableDirectory: the first read that fails takes it out.
func TestUnreadableDirectory(t *testing.T) {
	ops := &sickOps{}
	root := t.TempDir()
	cfg := tiered.Config{Ops: ops, Dirs: []dir.Config{
		{Path: filepath.Join(root, "ssd"), Tier: orca.SSD, Capacity: 16 << 20},
		{Path: filepath.Join(root, "hdd"), Tier: orca.HDD, Capacity: 8 << 20},
	}}
	s, err := tiered.Open(cfg, discard())
	require.NoError(t, err)
	want := tiertest.Bytes(1, 300_000)
	tiertest.Fill(t, s, tiertest.ID(1), want)
	require.NoError(t, s.Close())
	s, err = tiered.Open(cfg, discard()) // what was recovered is read before it is served
	require.NoError(t, err)
	defer s.Close()
	ops.sick.Store(true)
	_, err = s.Get(tiertest.ID(1), 0, 1)
	require.ErrorIs(t, err, orca.NotFound)
	wentOn(t, s, want)
}
