// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
	"orca/metaplane/fsm"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
	"orca/ufs"
	"orca/ufs/backends"
)

// newMetaplane runs the real namespace, journal and all, over a local folder;
// blocks stay those of memorca, so files are written MUST_CACHE.
func newMetaplane(t *testing.T) (*metaclient.Session, *memorca.Orca) {
	t.Helper()
	svc, o := newService(t)
	s := metaclient.NewSession(svc, metaclient.SessionConfig{})
	register(t, s, o)
	return s, o
}

// newService is the service with its root mounted, and workers yet to be
// registered.
func newService(t *testing.T) (*metaserver.Service, *memorca.Orca) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	o, err := memorca.New(filepath.Join(dir, "blocks"), "here")
	require.NoError(t, err)
	host, err := raftgroup.Open(raftgroup.Config{
		Dir: filepath.Join(dir, "meta"), Machine: fsm.Config{Group: 1}, OnFatal: func(s string) { panic(s) },
	}, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	open := func(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
		return backends.Open(ctx, m.Uri, m.Options, log)
	}
	svc, err := metaserver.New(t.Context(), metaserver.Config{WriteType: orca.MustCache, WholeMax: memorca.WholeMax, BlockSize: memorca.BlockSize}, host.Group(), open, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, svc.Close()) })
	root := filepath.Join(dir, "root")
	require.NoError(t, os.Mkdir(root, 0o755))
	_, err = metaclient.NewSession(svc, metaclient.SessionConfig{}).Mount(t.Context(), &metapb.MountRequest{H: &metapb.Header{}, Mount: &metapb.Mount{Path: "/", Uri: root, SyncIntervalMs: -1}})
	require.NoError(t, err)
	return svc, o
}

func register(t *testing.T, s *metaclient.Session, o *memorca.Orca) {
	t.Helper()
	ws, err := o.ListWorkers(t.Context(), nil)
	require.NoError(t, err)
	for _, w := range ws.Workers {
		_, err := s.Register(t.Context(), &metapb.RegisterRequest{H: &metapb.Header{}, Worker: w})
		require.NoError(t, err)
	}
}

func TestRealMetaplane(t *testing.T) {
	s, o := newMetaplane(t)
	fs, err := client.Open(t.Context(), client.Config{Meta: s, Dial: o.Dial, Node: "here"})
	require.NoError(t, err)
	defer fs.Close()
	All(t, API{FS: fs}, apiCaps)
	x, err := fs.IOFS(t.Context(), "/")
	require.NoError(t, err)
	put := API{FS: fs}
	for _, p := range []string{"d", "d/e"} {
		require.NoError(t, put.Mkdir(p, 0o755))
		(&door{Door: put, t: t, dir: p}).put("f", []byte(p))
	}
	require.NoError(t, fstest.TestFS(x, "d/f", "d/e/f"))
}

// What the mount does by inode works on the real namespace as on the others.
func TestRealMetaplaneByInode(t *testing.T) {
	s, o := newMetaplane(t)
	fs, err := client.Open(t.Context(), client.Config{Meta: s, Dial: o.Dial, Node: "here"})
	require.NoError(t, err)
	defer fs.Close()
	byInode(t, fs)
}

func TestMemoryByInode(t *testing.T) {
	fs, _ := newFS(t, "here", "here")
	byInode(t, fs)
}

// What asks for a group is answered alike where there is one.
func TestRealMetaplaneOneGroup(t *testing.T) {
	s, o := newMetaplane(t)
	fs, err := client.Open(t.Context(), client.Config{Meta: s, Dial: o.Dial, Node: "here"})
	require.NoError(t, err)
	defer fs.Close()
	oneGroup(t, fs)
}

func TestMemoryOneGroup(t *testing.T) {
	fs, _ := newFS(t, "here", "here")
	oneGroup(t, fs)
}

func oneGroup(t *testing.T, fs *client.FS) {
	ctx := t.Context()
	_, err := fs.MkdirIn(ctx, client.Path("/a/b"), 0o755, 2)
	require.ErrorIs(t, err, orca.Invalid)
	require.ErrorContains(t, err, "there is no group 2")
	_, err = fs.Stat(ctx, client.Path("/a"), client.Sync{})
	require.ErrorIs(t, err, orca.NotFound, "nor were its parents made")
	for range 2 {
		_, err = fs.MkdirIn(ctx, client.Path("/a/b"), 0o755, 1)
		require.NoError(t, err, "the first group is where it lives anyway")
	}
}

func byInode(t *testing.T, fs *client.FS) {
	ctx := t.Context()
	d, err := fs.Mkdir(ctx, client.At(orca.RootIno, "d"), 0o755)
	require.NoError(t, err)
	w, err := fs.Create(ctx, client.At(d.Ino, "f"), client.CreateOptions{Mode: 0o640})
	require.NoError(t, err)
	ino := w.Info().Ino
	require.NotZero(t, ino)
	_, err = w.Write([]byte("one"))
	require.NoError(t, err)
	_, err = w.Publish(ctx)
	require.NoError(t, err)
	i, err := fs.Stat(ctx, client.At(d.Ino, "f"), client.Sync{})
	require.NoError(t, err)
	require.Equal(t, ino, i.Ino)
	require.EqualValues(t, 3, i.Length)
	require.EqualValues(t, 0o640, i.Mode)
	require.Equal(t, d.Ino, i.Parent)
	_, err = w.Write([]byte(" two"))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	read := func() string {
		f, err := fs.Open(ctx, client.ByIno(ino), client.ReadOptions{})
		require.NoError(t, err)
		defer f.Close()
		b := make([]byte, f.Size())
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		return string(b)
	}
	require.Equal(t, "one two", read())
	w, err = fs.Create(ctx, client.ByIno(ino), client.CreateOptions{Existing: true})
	require.NoError(t, err)
	_, err = w.WriteAt([]byte("!"), 7)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Equal(t, "one two!", read())
	w, err = fs.Create(ctx, client.ByIno(ino), client.CreateOptions{Overwrite: true})
	require.NoError(t, err)
	_, err = fs.Create(ctx, client.ByIno(ino), client.CreateOptions{Overwrite: true})
	require.ErrorIs(t, err, orca.Busy)
	thief, err := fs.Create(ctx, client.ByIno(ino), client.CreateOptions{Overwrite: true, Steal: true})
	require.NoError(t, err)
	_, err = thief.Write([]byte("stolen"))
	require.NoError(t, err)
	require.NoError(t, thief.Close())
	_, err = w.Write([]byte("late"))
	require.NoError(t, err)
	require.ErrorIs(t, w.Close(), orca.Stale)
	require.Equal(t, "stolen", read())
	i, err = fs.Stat(ctx, client.ByIno(ino), client.Sync{})
	require.NoError(t, err)
	require.EqualValues(t, 0o640, i.Mode, "the inode stays itself")

	require.NoError(t, fs.SetXattr(ctx, client.ByIno(ino), "user.a", []byte("v"), true, false))
	require.ErrorIs(t, fs.SetXattr(ctx, client.ByIno(ino), "user.a", nil, true, false), orca.Exists)
	require.ErrorIs(t, fs.SetXattr(ctx, client.ByIno(ino), "user.b", nil, false, true), orca.NoData)
	v, err := fs.GetXattr(ctx, client.ByIno(ino), "user.a")
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
	names, err := fs.ListXattr(ctx, client.ByIno(ino))
	require.NoError(t, err)
	require.Equal(t, []string{"user.a"}, names)
	require.NoError(t, fs.RemoveXattr(ctx, client.ByIno(ino), "user.a"))
	_, err = fs.GetXattr(ctx, client.ByIno(ino), "user.a")
	require.ErrorIs(t, err, orca.NoData)

	require.ErrorIs(t, fs.Rename(ctx, client.At(d.Ino, "f"), client.At(d.Ino, "f"), true), orca.Exists)
	require.NoError(t, fs.Rename(ctx, client.At(d.Ino, "f"), client.At(orca.RootIno, "g"), true))
	require.Equal(t, "stolen", read())
	require.ErrorIs(t, fs.Rmdir(ctx, client.At(orca.RootIno, "g")), orca.NotDir)
	require.ErrorIs(t, fs.Unlink(ctx, client.At(orca.RootIno, "d")), orca.IsDir)
	require.NoError(t, fs.Unlink(ctx, client.At(orca.RootIno, "g")))
	_, err = fs.Stat(ctx, client.ByIno(ino), client.Sync{})
	require.ErrorIs(t, err, orca.NotFound)
}
