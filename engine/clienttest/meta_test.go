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
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	o, err := memorca.New(filepath.Join(dir, "blocks"), "here")
	require.NoError(t, err)
	host, err := raftgroup.Open(raftgroup.Config{
		Dir: filepath.Join(dir, "meta"), Machine: fsm.Config{Group: 1}, OnFatal: func(s string) { panic(s) },
	}, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	open := func(ctx context.Context, m *metapb.Mount) (ufs.FS, error) { return backends.Open(ctx, m.Uri, m.Options, log) }
	svc, err := metaserver.New(t.Context(), metaserver.Config{WriteType: orca.MustCache, WholeMax: memorca.WholeMax, BlockSize: memorca.BlockSize}, host.Group(), open, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, svc.Close()) })
	s := metaclient.NewSession(svc, metaclient.SessionConfig{})
	root := filepath.Join(dir, "root")
	require.NoError(t, os.Mkdir(root, 0o755))
	_, err = s.Mount(t.Context(), &metapb.MountRequest{H: &metapb.Header{}, Mount: &metapb.Mount{Path: "/", Uri: root, SyncIntervalMs: -1}})
	require.NoError(t, err)
	ws, err := o.ListWorkers(t.Context(), nil)
	require.NoError(t, err)
	for _, w := range ws.Workers {
		_, err := s.Register(t.Context(), &metapb.RegisterRequest{H: &metapb.Header{}, Worker: w})
		require.NoError(t, err)
	}
	return s, o
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
