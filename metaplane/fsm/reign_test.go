// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// TestReign: once a leader has begun to serve, nothing of an earlier one is
// executed, and what was refused so may be sent again.
func TestReign(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	mkdir := func(path string, reign, seq uint64) orca.Kind {
		return orca.Kind(w.doAll(&command.Command{Reign: reign, Client: 7, Seq: seq, Mkdir: &metapb.MkdirOp{Target: at(path), Mode: 0o755}})[0].Kind)
	}
	require.Equal(t, orca.OK, mkdir("/none", 0, 1))
	require.Equal(t, orca.OK, mkdir("/three", 3, 2))
	require.EqualValues(t, 3, w.m.Reign())
	rs := w.doAll(&command.Command{Reign: 5, Noop: &metapb.NoopOp{}})
	require.Zero(t, rs[0].Kind)
	require.Equal(t, orca.NotLeader, mkdir("/late", 3, 3))
	require.Equal(t, orca.NotLeader, mkdir("/three", 4, 2), "not even with a remembered result")
	require.Equal(t, orca.OK, mkdir("/late", 5, 3), "the refusal is not remembered")
	require.Equal(t, orca.OK, mkdir("/nobody", 0, 4))
	w.reopen()
	require.EqualValues(t, 5, w.m.Reign())
	require.Equal(t, orca.NotLeader, mkdir("/again", 4, 5))
}
