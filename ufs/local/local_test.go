// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs"
	"orca/ufs/ufstest"
)

func open(t *testing.T) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := Open(t.Context(), Config{Root: dir}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f, dir
}

// byComponent makes f resolve paths as where openat2 is forbidden.
func byComponent(t *testing.T, f *FS) {
	t.Helper()
	r, err := os.OpenRoot(f.root)
	require.NoError(t, err)
	f.beside = r
}

func TestConformance(t *testing.T) {
	f, dir := open(t)
	ufstest.Run(t, ufstest.Suite{FS: f})
	require.NoError(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		require.False(t, ufs.IsTemp(p), "left behind: %s", p)
		return err
	}))
}

func TestConformanceByComponent(t *testing.T) {
	f, _ := open(t)
	byComponent(t, f)
	ufstest.Run(t, ufstest.Suite{FS: f, Large: 4 << 20, Many: 300})
}

// TestLinks: what leads out of the root is refused on every call, what stays
// inside is followed, and listings show only the latter.
func TestLinks(t *testing.T) {
	for _, mode := range []string{"openat2", "by component"} {
		t.Run(mode, func(t *testing.T) {
			f, dir := open(t)
			if mode != "openat2" {
				byComponent(t, f)
			}
			outside := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600))
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "d"), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "d", "f"), []byte("inside"), 0o600))
			link := func(to, name string) { require.NoError(t, os.Symlink(to, filepath.Join(dir, name))) }
			link(outside, "out")
			link("../"+filepath.Base(outside)+"/secret", "up")
			link("d/f", "in")
			link("d", "ind")
			link("nowhere", "broken")
			link("loop", "loop")

			for _, k := range []string{"out", "out/secret", "up"} {
				_, err := f.Stat(t.Context(), k)
				require.ErrorIs(t, err, orca.Permission, "stat %s", k)
				_, err = f.Open(t.Context(), k, 0, -1, "")
				require.ErrorIs(t, err, orca.Permission, "open %s", k)
			}
			_, err := f.Create(t.Context(), "out/new", "")
			require.ErrorIs(t, err, orca.Permission)
			require.ErrorIs(t, f.Mkdir(t.Context(), "out/new", 0o755), orca.Permission)
			require.ErrorIs(t, f.Remove(t.Context(), "out/secret"), orca.Permission)
			require.ErrorIs(t, f.Rename(t.Context(), "d/f", "out/f"), orca.Permission)
			require.ErrorIs(t, f.Chmod(t.Context(), "up", 0o777), orca.Permission)

			b, err := ufstest.Get(t.Context(), f, "in", 0, -1, "")
			require.NoError(t, err)
			require.Equal(t, "inside", string(b))
			var names []string
			require.NoError(t, f.List(t.Context(), "", func(in ufs.Info) error {
				names = append(names, in.Key)
				return nil
			}))
			require.Equal(t, []string{"d", "in", "ind"}, names)
			left, err := os.ReadDir(outside)
			require.NoError(t, err)
			require.Len(t, left, 1, "nothing was made outside")
		})
	}
}

// TestTornRead changes a file in place between two reads: the last piece is
// refused, also when the reader asks for exactly the bytes it expects.
func TestTornRead(t *testing.T) {
	f, dir := open(t)
	data := strings.Repeat("a", 64<<10)
	in, err := ufstest.Put(t.Context(), f, "f", []byte(data))
	require.NoError(t, err)
	r, err := f.Open(t.Context(), "f", 0, int64(len(data)), in.Fingerprint)
	require.NoError(t, err)
	defer r.Close()
	_, err = io.ReadFull(r, make([]byte, 1000))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Repeat("b", len(data))), 0o644))
	_, err = io.ReadFull(r, make([]byte, len(data)-1000))
	require.ErrorIs(t, err, orca.Stale)

	in, err = f.Stat(t.Context(), "f")
	require.NoError(t, err)
	r2, err := f.Open(t.Context(), "f", 0, -1, in.Fingerprint)
	require.NoError(t, err)
	defer r2.Close()
	require.NoError(t, os.Truncate(filepath.Join(dir, "f"), 10))
	_, err = io.ReadAll(r2)
	require.ErrorIs(t, err, orca.Stale, "a file cut while it is read")
}

func TestSpecialFiles(t *testing.T) {
	f, dir := open(t)
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	_, err := f.Stat(t.Context(), "fifo")
	require.ErrorIs(t, err, orca.Unsupported)
	_, err = f.Open(t.Context(), "fifo", 0, -1, "")
	require.ErrorIs(t, err, orca.Unsupported)
	require.NoError(t, f.List(t.Context(), "", func(in ufs.Info) error {
		t.Errorf("listed %s", in.Key)
		return nil
	}))
}

// TestRemoveWithRemains: temporary files of dead uploads do not keep a
// directory alive.
func TestRemoveWithRemains(t *testing.T) {
	f, _ := open(t)
	require.NoError(t, f.Mkdir(t.Context(), "d", 0o755))
	w, err := f.Create(t.Context(), "d/f", "dead")
	require.NoError(t, err)
	_, err = w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, f.Remove(t.Context(), "d"))
	_, err = w.Commit(t.Context())
	require.ErrorIs(t, err, orca.Stale)
	require.NoError(t, w.Abort(t.Context()))
}

// TestCreateFailsMidway: of the directories that an upload needs, the third
// cannot be made ready. Those above it go again, and it does itself, but nothing
// that was there before or that somebody has put something into.
func TestCreateFailsMidway(t *testing.T) {
	for name, tc := range map[string]struct {
		beside string // appears meanwhile
		left   string
	}{
		"alone":  {left: "old"},
		"shared": {beside: "old/a/x", left: "old old/a old/a/x"},
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := open(t)
			require.NoError(t, os.Mkdir(filepath.Join(dir, "old"), 0o755))
			f.chmodat = func(fd int, name string, mode uint32, flags int) error {
				if name != "c" {
					return unix.Fchmodat(fd, name, mode, flags)
				}
				if tc.beside != "" {
					require.NoError(t, os.WriteFile(filepath.Join(dir, tc.beside), nil, 0o600))
				}
				return unix.ENOSPC
			}
			_, err := f.Create(t.Context(), "old/a/b/c/d/f", "1")
			require.ErrorIs(t, err, orca.NoSpace)
			require.ErrorIs(t, f.Mkdir(t.Context(), "old/c", 0o755), orca.NoSpace)
			var left []string
			require.NoError(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
				if rel, _ := filepath.Rel(dir, p); rel != "." {
					left = append(left, rel)
				}
				return err
			}))
			require.Equal(t, tc.left, strings.Join(left, " "))
			f.chmodat = unix.Fchmodat
			w, err := f.Create(t.Context(), "old/a/b/c/d/f", "1")
			require.NoError(t, err)
			_, err = w.Commit(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestErrno(t *testing.T) {
	for no, k := range map[unix.Errno]orca.Kind{
		unix.ENOSPC: orca.NoSpace, unix.EDQUOT: orca.NoSpace, unix.EACCES: orca.Permission, unix.EROFS: orca.ReadOnly,
		unix.ENAMETOOLONG: orca.NameTooLong, unix.EIO: orca.UFSFailure, unix.ENOTBLK: orca.UFSFailure,
	} {
		require.Equal(t, k, orca.KindOf(fail("Op", "k", &os.PathError{Op: "x", Path: "y", Err: no})), no.Error())
	}
	_, err := Open(t.Context(), Config{Root: "/no/such/folder"}, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, orca.NotFound)
	_, err = Open(t.Context(), Config{Root: "relative"}, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, orca.Invalid)
}
