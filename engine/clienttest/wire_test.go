// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane/blockserver"
	"orca/dataplane/grant"
	"orca/dataplane/shortcircuit"
	"orca/dataplane/transport"
	"orca/engine/client"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
)

// wired is a metaplane and a worker behind their real doors: TCP, Unix sockets,
// grants that are checked.
type wired struct {
	meta, socket string
	worker       *blockserver.Server
	passing      *shortcircuit.Server
}

func wire(t *testing.T) *wired {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	svc, o := newService(t)
	door, err := metaserver.NewServer(svc, transport.ServerConfig{}, log)
	require.NoError(t, err)
	addr, err := door.Listen("127.0.0.1:0")
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "orca") // short: socket paths are limited
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	w := &wired{meta: addr.String(), socket: filepath.Join(dir, "meta.sock")}
	_, err = door.Listen("unix:" + w.socket)
	require.NoError(t, err)

	grants := grant.NewChecker(svc.GrantKey, uint32(os.Geteuid()))
	blocks := o.Workers()[0]
	w.worker, err = blockserver.New(blockserver.Config{}, blocks, grants, log)
	require.NoError(t, err)
	data, err := w.worker.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w.passing, err = shortcircuit.NewServer(shortcircuit.ServerConfig{}, blocks, grants, log)
	require.NoError(t, err)
	sock := filepath.Join(dir, "worker.sock")
	require.NoError(t, w.passing.Listen(sock))
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		require.NoError(t, w.worker.Shutdown(ctx))
		require.NoError(t, w.passing.Close())
		require.NoError(t, door.Shutdown(ctx))
	})
	_, err = metaclient.NewSession(svc, metaclient.SessionConfig{}).Register(t.Context(), &metapb.RegisterRequest{
		H: &metapb.Header{}, Worker: &metapb.Worker{Id: 1, Node: "here", Addr: data.String(), Socket: sock, Live: true, Boot: 1,
			Tiers: []*metapb.TierUsage{{Capacity: 1 << 30, Healthy: true}}},
	})
	require.NoError(t, err)
	return w
}

func (w *wired) open(t *testing.T, addr, node string) *client.FS {
	t.Helper()
	fs, err := client.Open(t.Context(), client.Config{Addresses: []string{addr}, Node: node})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs
}

// Over the wire, local (descriptors) and remote (ranges), all is as in process.
func TestWireLocal(t *testing.T) {
	w := wire(t)
	fs := w.open(t, w.socket, "here")
	All(t, API{FS: fs}, apiCaps)
	require.Positive(t, fs.Stats().LocalReads.Load())
	require.Zero(t, w.worker.Metrics().WriteBytes.Load(), "local writes go through the descriptor")
}

func TestWireRemote(t *testing.T) {
	w := wire(t)
	fs := w.open(t, w.meta, "far")
	All(t, API{FS: fs}, apiCaps)
	require.Zero(t, fs.Stats().LocalReads.Load())
	require.Positive(t, w.worker.Metrics().ReadBytes.Load())
	require.Positive(t, w.worker.Metrics().WriteBytes.Load())
	byInode(t, fs)
}

// A hot read over the passed descriptor is silent and allocates nothing.
func TestWireHotReadIsSilent(t *testing.T) {
	w := wire(t)
	fs := w.open(t, w.meta, "here")
	(&door{Door: API{FS: fs}, t: t, dir: "."}).put("f", noise(1, 1<<20))
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	p := make([]byte, 128<<10)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	before := w.passing.Metrics().Requests.Load() + w.worker.Metrics().Reads.Load()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := f.ReadAt(p, 64<<10); err != nil {
			t.Fatal(err)
		}
	}))
	require.Equal(t, before, w.passing.Metrics().Requests.Load()+w.worker.Metrics().Reads.Load())
}

func TestNobodyAnswers(t *testing.T) {
	start := time.Now()
	_, err := client.Open(t.Context(), client.Config{Addresses: []string{"127.0.0.1:1"}, FirstAnswer: 200 * time.Millisecond})
	require.ErrorIs(t, err, orca.Unavailable)
	require.Less(t, time.Since(start), time.Minute)
	_, err = client.Open(t.Context(), client.Config{Addresses: []string{"nonsense"}})
	require.ErrorIs(t, err, orca.Invalid)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, err = client.Open(ctx, client.Config{Addresses: []string{"127.0.0.1:1"}})
	require.ErrorIs(t, err, orca.Canceled)
}
