// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/dataplane/transport"
	"orca/metaplane/metaclient"
	"orca/metaplane/metaserver"
)

// quick is a harness that runs until the end of the test.
func quick(t *testing.T) *Harness {
	t.Helper()
	h := NewHarness(t)
	h.Config.BusyWait = 10 * time.Second
	h.Start(t)
	t.Cleanup(h.Stop)
	return h
}

// serve puts a door of a kind before the service.
func serve(t *testing.T, h *Harness, network string) *metaclient.Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	srv, err := metaserver.NewServer(h.Service, transport.ServerConfig{}, log)
	require.NoError(t, err)
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = "unix:" + filepath.Join(t.TempDir(), "s")
	}
	a, err := srv.Listen(addr)
	require.NoError(t, err)
	if network != "unix" {
		addr = a.String()
	}
	c, err := metaclient.New(metaclient.Config{Addrs: []string{addr}, Session: metaclient.SessionConfig{BusyPatience: 200 * time.Millisecond}}, log)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx)
	})
	return c
}

func TestInProcess(t *testing.T) {
	h := quick(t)
	Run(t, h, "in", metaclient.NewSession(h.Service, metaclient.SessionConfig{BusyPatience: 200 * time.Millisecond}))
}

func TestOverTheWire(t *testing.T) {
	h := quick(t)
	Run(t, h, "wire", serve(t, h, "tcp"))
}
