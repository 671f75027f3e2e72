// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/dir"
)

// golden is the file as docs/format/workertiers.md shows it: it has to be read
// by every later version.
const golden = `{
  "/gone": {
    "removed": true,
    "tier": 1,
    "capacity_bytes": 5
  },
  "/more": {
    "tier": 2,
    "capacity_bytes": 7,
    "reserve_bytes": 3,
    "reserve_part": 0.1
  },
  "/small": {
    "tier": 1,
    "capacity_bytes": 2
  }
}
`

func TestTierDirs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiers.json")
	nop := func() error { return nil }
	d, err := openTierDirs(path)
	require.NoError(t, err)
	configured := []dir.Config{{Path: "/gone", Tier: orca.SSD, Capacity: 5}, {Path: "/kept", Tier: orca.HDD, Capacity: 6}, {Path: "/small", Tier: orca.SSD, Capacity: 9}}
	require.Equal(t, configured, d.apply(configured))
	require.NoError(t, d.change("/small", tierChange{Tier: orca.SSD, Capacity: 2}, nop, nop))
	require.NoError(t, d.change("/gone", tierChange{Removed: true, Tier: orca.SSD, Capacity: 5}, nop, nop))
	require.NoError(t, d.change("/more", tierChange{Tier: orca.HDD, Capacity: 7, Reserve: 3, ReservePart: 0.1}, nop, nop))
	failed := errors.New("not carried out")
	require.ErrorIs(t, d.change("/kept", tierChange{Removed: true}, func() error { return failed }, nop), failed)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, golden, string(b))

	d, err = openTierDirs(path)
	require.NoError(t, err)
	want := []dir.Config{{Path: "/kept", Tier: orca.HDD, Capacity: 6}, {Path: "/small", Tier: orca.SSD, Capacity: 2},
		{Path: "/more", Tier: orca.HDD, Capacity: 7, Reserve: 3, ReservePart: 0.1}}
	require.Equal(t, want, d.apply(configured))

	// What cannot be kept is taken back.
	d.path = filepath.Join(path, "no", "folder")
	undone := false
	require.Error(t, d.change("/kept", tierChange{Removed: true}, nop, func() error { undone = true; return nil }))
	require.True(t, undone)
	require.Equal(t, want, d.apply(configured))

	require.NoError(t, os.WriteFile(path, []byte("null"), 0o600))
	_, err = openTierDirs(path)
	require.ErrorIs(t, err, orca.Corrupt)
}

func TestSameHost(t *testing.T) {
	for _, c := range []struct {
		from string
		to   net.IP
		want bool
	}{
		{"127.0.0.1:9", net.IPv4(127, 0, 0, 1), true}, {"[::1]:9", net.IPv6loopback, true},
		{"10.0.0.1:9", net.IPv4(10, 0, 0, 1), true}, {"10.0.0.2:9", net.IPv4(10, 0, 0, 1), false}, {"x", net.IPv4(10, 0, 0, 1), false},
	} {
		r := (&http.Request{RemoteAddr: c.from}).WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: c.to}))
		require.Equal(t, c.want, sameHost(r), "%s to %v", c.from, c.to)
	}
}
