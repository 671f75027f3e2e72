// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func config(o tiertest.Options, ops blockfile.Ops) tiered.Config {
	c := tiered.Config{Ops: ops, RoomWait: 500 * time.Millisecond, FlushEvery: 5 * time.Millisecond, MaxOpen: 8}
	if o.MEM > 0 {
		c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(o.Root, "mem"), Tier: orca.MEM, Capacity: o.MEM})
	}
	if o.SSD > 0 {
		c.Dirs = append(c.Dirs, dir.Config{Path: filepath.Join(o.Root, "ssd"), Tier: orca.SSD, Capacity: o.SSD})
	}
	return c
}

func open(t testing.TB, o tiertest.Options) tiers.Store { return openWith(t, o, nil) }

func openWith(t testing.TB, o tiertest.Options, ops blockfile.Ops) *tiered.Store {
	t.Helper()
	s, err := tiered.Open(config(o, ops), discard())
	require.NoError(t, err)
	return s
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestStore(t *testing.T) { tiertest.Run(t, open) }
