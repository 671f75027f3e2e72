// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/shortcircuit"
	"orca/engine/client"
)

// Each setting takes its way to a worker of this node, and what cannot be seen
// is not tried.
func TestShortCircuitModes(t *testing.T) {
	store := datatest.NewStore(t)
	id, data := orca.BlockID{File: 1, Version: 1}, datatest.Data(1, 1<<20)
	store.Put(t, id, data)
	grants := grant.NewChecker(func() []byte { return datatest.Key }, 0)
	g := grant.Make(datatest.Key, dataplane.Grant{File: 1, Version: 1, Expiry: time.Now().Add(time.Hour)})
	srv, err := blockserver.New(blockserver.Config{}, store, grants, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) })
	addr, err := srv.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dir := t.TempDir()
	w := &client.Worker{Node: "here", Addr: addr.String(), Socket: filepath.Join(dir, "fds"), Domain: filepath.Join(dir, "data")}
	_, err = srv.Listen("unix", w.Domain)
	require.NoError(t, err)
	fds, err := shortcircuit.NewServer(shortcircuit.ServerConfig{}, store, grants, nil)
	require.NoError(t, err)
	require.NoError(t, fds.Listen(w.Socket))
	t.Cleanup(func() { require.NoError(t, fds.Close()) })

	hidden := &client.Worker{Node: "here", Addr: w.Addr, Socket: filepath.Join(dir, "no"), Domain: filepath.Join(dir, "neither")}
	for _, c := range []struct {
		name   string
		w      *client.Worker
		node   string
		mode   client.ShortCircuit
		passes bool // descriptors
		domain bool
	}{
		{"fd", w, "here", client.PassDescriptors, true, true},
		{"stream", w, "here", client.StreamDomain, false, true},
		{"off", w, "here", client.NoShortCircuit, false, false},
		{"elsewhere", w, "there", client.PassDescriptors, false, false},
		{"hidden", hidden, "here", client.PassDescriptors, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			brought := 0
			a, err := client.DialWorker(c.w, client.Dialing{Node: c.node, ShortCircuit: c.mode, OnDomain: func(n int) { brought += n }}, nil)
			require.NoError(t, err)
			defer a.(*blockclient.Client).Close()
			f, _, _, err := a.Descriptor(t.Context(), id, g)
			if c.passes {
				require.NoError(t, err)
				require.NoError(t, f.Close())
			} else {
				require.ErrorIs(t, err, orca.Unsupported)
			}
			p := make([]byte, 4096)
			_, err = a.ReadAt(t.Context(), dataplane.ReadRequest{ID: id, Off: 100, Grant: g}, p)
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, data[100:100+4096]))
			want := 0
			if c.domain {
				want = len(p)
			}
			require.Equal(t, want, brought)
		})
	}
	for _, name := range []string{"fd", "stream", "off"} {
		m, err := client.ParseShortCircuit(name)
		require.NoError(t, err)
		require.Equal(t, name, m.String())
	}
	_, err = client.ParseShortCircuit("FD")
	require.ErrorIs(t, err, orca.Invalid)
}
