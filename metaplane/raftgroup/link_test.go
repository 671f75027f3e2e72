// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLinksAreMadeAnew: a member that was started anew since another one has spoken
// to it last hears the first thing that this one says.
func TestLinksAreMadeAnew(t *testing.T) {
	c := newTrio(t, nil)
	proposeUntil(t, c.leader().group, "/a")
	lead := func(id uint64) {
		require.Eventually(t, func() bool {
			_ = c.leader().group.Transfer(t.Context(), id)
			return c.leader().f.replica() == id
		}, time.Minute, time.Millisecond)
	}
	// Who leads speaks to everybody, who follows to its leader alone: from here on
	// the third has nothing to say to the second.
	lead(3)
	proposeUntil(t, c.hosts[3].group, "/b")
	lead(1)
	require.NoError(t, c.hosts[2].crash())
	delete(c.hosts, 2)
	proposeUntil(t, c.hosts[1].group, "/c")
	applied(t, c.open(2), "/c")

	broken, revived := c.hosts[3].broken.Load(), c.hosts[3].net.Load().revivals.Load()
	lead(3)
	proposeUntil(t, c.hosts[3].group, "/d")
	applied(t, c.hosts[2], "/d")
	require.Equal(t, broken, c.hosts[3].broken.Load(), "what it said was lost")
	require.Greater(t, c.hosts[3].net.Load().revivals.Load(), revived)
}
