// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
	"orca/engine/placement"
)

// who returns the workers of o for which op was called, and how often.
func who(o *memorca.Orca, op string) map[int]int {
	m := map[int]int{}
	for i, w := range o.Workers() {
		if n := w.Calls(op); n > 0 {
			m[i] = n
		}
	}
	return m
}

func policyClient(t *testing.T, o *memorca.Orca, node, rack, read, write string) *client.FS {
	t.Helper()
	cfg := client.Config{Meta: o, Dial: o.Dial, Node: node, Rack: rack}
	var err error
	cfg.ReadPolicy, err = placement.Parse(read)
	require.NoError(t, err)
	cfg.WritePolicy, err = placement.Parse(write)
	require.NoError(t, err)
	fs, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs
}

// New files go where the write policy says.
func TestWritePolicies(t *testing.T) {
	for _, c := range []struct {
		node, rack, policy string
		want               map[int]int
	}{
		{"b", "r", "local-first", map[int]int{1: 8}},
		{"x", "s", "local-first", map[int]int{2: 8}}, // nobody here: the rack
		{"a", "", "specific:c", map[int]int{2: 8}},
		{"a", "r", "round-robin", map[int]int{0: 2, 1: 2, 2: 2, 3: 2}},
	} {
		o, err := memorca.New(t.TempDir(), "a@r", "b@r", "c@s", "d")
		require.NoError(t, err)
		fs := policyClient(t, o, c.node, c.rack, "", c.policy)
		for i := range 8 {
			put(t, fs, fmt.Sprint("/", i), noise(1, 1000), client.CreateOptions{})
		}
		require.Equal(t, c.want, who(o, "CreateWrite"), "%+v", c)
	}
	o, err := memorca.New(t.TempDir(), "a", "b")
	require.NoError(t, err)
	fs := policyClient(t, o, "a", "", "", "specific:nowhere")
	_, err = fs.Create(t.Context(), client.Path("/f"), client.CreateOptions{})
	require.ErrorIs(t, err, orca.Unavailable)
	// A worker that is away is passed over.
	fs = policyClient(t, o, "a", "", "", "local-first")
	o.Workers()[0].SetDown(true)
	put(t, fs, "/f", noise(1, 1000), client.CreateOptions{})
	require.Equal(t, 1, o.Workers()[1].Calls("CreateWrite"))
}

// What nobody holds is fetched by the worker that the read policy says; what
// somebody holds comes from there, the nearest first.
func TestReadPolicies(t *testing.T) {
	for _, c := range []struct {
		node, rack, policy string
		workers            int // that fetch
		only               int // the one that does; -1: any
	}{
		{"b", "r", "local-first", 1, 1},
		{"x", "s", "local-first", 1, 2},
		{"a", "r", "specific:d", 1, 3},
		{"a", "r", "round-robin", 4, -1},
	} {
		o, err := memorca.New(t.TempDir(), "a@r", "b@r", "c@s", "d")
		require.NoError(t, err)
		for i := range 4 {
			put(t, policyClient(t, o, "a", "", "", ""), fmt.Sprint("/", i), noise(1, 200_000), client.CreateOptions{WriteType: orca.Through})
		}
		for _, w := range o.Workers() {
			w.RefuseDescriptors(true)
		}
		before := who(o, "Open")
		fs := policyClient(t, o, c.node, c.rack, c.policy, "")
		for i := range 4 {
			require.Len(t, get(t, fs, fmt.Sprint("/", i)), 200_000)
		}
		fetched := who(o, "Open")
		for i, n := range before {
			if fetched[i] -= n; fetched[i] == 0 {
				delete(fetched, i)
			}
		}
		require.Len(t, fetched, c.workers, "%+v", c)
		if c.only >= 0 {
			require.Contains(t, fetched, c.only, "%+v", c)
		}
	}
	// Held by c alone: neither of the two policies fetches it again.
	o, err := memorca.New(t.TempDir(), "a@r", "b@r", "c@s", "d")
	require.NoError(t, err)
	put(t, policyClient(t, o, "c", "", "", ""), "/f", noise(1, 1000), client.CreateOptions{})
	for _, policy := range []string{"round-robin", "specific:a", "deterministic-hash"} {
		get(t, policyClient(t, o, "b", "r", policy, ""), "/f")
	}
	opened := who(o, "Open")
	require.Len(t, opened, 1)
	require.Contains(t, opened, 2)
}
