// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/shortcircuit"
	"orca/dataplane/transport"
)

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) != "" {
		serveAlone()
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

// worker is a store with its servers.
type worker struct {
	*datatest.Store
	server *blockserver.Server
	addr   string // tcp
	unix   string
	fds    string
}

func newWorker(tb testing.TB) *worker {
	tb.Helper()
	w := &worker{Store: datatest.NewStore(tb)}
	grants := grant.NewChecker(func() []byte { return datatest.Key }, 0)
	var err error
	w.server, err = blockserver.New(blockserver.Config{}, w.Store, grants, nil)
	require.NoError(tb, err)
	a, err := w.server.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	dir := tb.TempDir()
	w.addr, w.unix, w.fds = a.String(), filepath.Join(dir, "data"), filepath.Join(dir, "fds")
	_, err = w.server.Listen("unix", w.unix)
	require.NoError(tb, err)
	fds, err := shortcircuit.NewServer(shortcircuit.ServerConfig{}, w.Store, grants, nil)
	require.NoError(tb, err)
	require.NoError(tb, fds.Listen(w.fds))
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = w.server.Shutdown(ctx)
		_ = fds.Close()
	})
	return w
}

// newWorkerAt serves a store again on an address of the past.
func newWorkerAt(tb testing.TB, store *datatest.Store, addr string) (stop func()) {
	tb.Helper()
	s, err := blockserver.New(blockserver.Config{}, store, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
	require.NoError(tb, err)
	_, err = s.Listen("tcp", addr)
	require.NoError(tb, err)
	return func() { _ = s.Shutdown(context.Background()) }
}

func (w *worker) client(tb testing.TB, cfg blockclient.Config) *blockclient.Client {
	tb.Helper()
	if cfg.Transport.Addr == "" {
		cfg.Transport.Addr = w.addr
	}
	c, err := blockclient.New(cfg, nil)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

func makeGrant(file orca.Ino, version uint32, write bool) dataplane.Grant {
	return grant.Make(datatest.Key, dataplane.Grant{File: file, Version: version, Write: write, Expiry: time.Now().Add(time.Hour)})
}

func TestConformance(t *testing.T) {
	type variant struct {
		access func(t *testing.T, w *worker) dataplane.Access
		fds    bool
	}
	remote := func(change func(w *worker, c *blockclient.Config)) variant {
		return variant{access: func(t *testing.T, w *worker) dataplane.Access {
			var cfg blockclient.Config
			change(w, &cfg)
			return w.client(t, cfg)
		}}
	}
	variants := map[string]variant{
		"local":    {access: func(_ *testing.T, w *worker) dataplane.Access { return blockclient.Local{Blocks: w.Store} }, fds: true},
		"remote":   remote(func(*worker, *blockclient.Config) {}),
		"noverify": remote(func(_ *worker, c *blockclient.Config) { c.NoVerify = true }),
		"pieces": remote(func(w *worker, c *blockclient.Config) {
			w.Configure(func() { w.MaxExtent = 2 * orca.GrainSize })
			c.Range, c.Depth = 3*orca.GrainSize, 4
		}),
		"nosums": remote(func(w *worker, _ *blockclient.Config) { w.Configure(func() { w.NoSums = true }) }),
		"unix":   remote(func(w *worker, c *blockclient.Config) { c.Transport.Network, c.Transport.Addr = "unix", w.unix }),
	}
	variants["memory"] = remote(func(w *worker, _ *blockclient.Config) { w.Configure(func() { w.InMemory = true }) })
	variants["domain"] = remote(func(w *worker, c *blockclient.Config) { c.Domain = w.unix })
	fds := remote(func(w *worker, c *blockclient.Config) { c.Descriptors = w.fds })
	fds.fds = true
	variants["descriptors"] = fds
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			datatest.Run(t, func(t *testing.T) datatest.Fixture {
				w := newWorker(t)
				return datatest.Fixture{
					Access:      v.access(t, w),
					Put:         func(id orca.BlockID, data []byte) { w.Put(t, id, data) },
					Grant:       makeGrant,
					Descriptors: v.fds,
				}
			})
		})
	}
}

func TestPlainConfig(t *testing.T) {
	_, err := blockclient.New(blockclient.Config{}, nil)
	require.ErrorIs(t, err, orca.Invalid, "no address")
	_, err = blockclient.New(blockclient.Config{Range: 1000, Transport: transport.ClientConfig{Addr: "x:1"}}, nil)
	require.ErrorIs(t, err, orca.Invalid, "range of no whole grains")
}
