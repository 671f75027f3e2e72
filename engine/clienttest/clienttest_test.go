// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// The host's own file system passes the table, so that the table is right.
func TestHost(t *testing.T) {
	All(t, OS(t.TempDir()), Caps{Symlinks: true, Modes: true, Times: true})
}

func newFS(t *testing.T, node string, nodes ...string) (*client.FS, *memorca.Orca) {
	t.Helper()
	o, err := memorca.New(t.TempDir(), nodes...)
	require.NoError(t, err)
	fs, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: node})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs, o
}

var apiCaps = Caps{AtomicPublish: true, Symlinks: true, Modes: true, Times: true}

func TestAPILocal(t *testing.T) {
	fs, o := newFS(t, "here", "here")
	All(t, API{FS: fs}, apiCaps)
	require.Zero(t, o.Sessions(), "sessions left behind")
	require.Zero(t, o.Workers()[0].Private(), "private files left behind")
}

func TestAPIRemote(t *testing.T) {
	fs, o := newFS(t, "elsewhere", "here", "there")
	All(t, API{FS: fs}, apiCaps)
	require.Zero(t, o.Sessions())
	for _, w := range o.Workers() {
		require.Zero(t, w.Private())
	}
}
