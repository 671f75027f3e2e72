// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

// TestHandOverIsFollowedAtOnce: clients that create files all the time are
// referred to the next leader when theirs hands over, and wait there until it
// serves. What they would do else is pause and try again, which is counted here.
func TestHandOverIsFollowedAtOnce(t *testing.T) {
	const times, clients = 20, 8
	c := newTrio(t)
	c.roles()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := c.client(metaclient.Leader)
	_, err := first.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/", Uri: "mem://trio", SyncIntervalMs: -1}, Parents: true})
	require.NoError(t, err)
	var done atomic.Bool
	var acks atomic.Int64
	var wg sync.WaitGroup
	sessions := make([]*metaclient.Session, clients)
	for i := range clients {
		cl := c.client(metaclient.Leader)
		sessions[i], err = cl.In(0)
		require.NoError(t, err)
		wg.Go(func() {
			for n := 0; !done.Load(); n++ {
				_, err := cl.Create(ctx, &metapb.CreateRequest{Target: at(fmt.Sprintf("/f%d-%d", i, n)), Complete: true, Mode: 0o644, WriteType: uint32(orca.MustCache)})
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				acks.Add(1)
			}
		})
	}
	more := func() {
		seen := acks.Load()
		require.Eventually(t, func() bool { return acks.Load() > seen+10*clients || t.Failed() }, time.Minute, time.Millisecond)
	}
	pauses := func() (n int64) {
		for _, s := range sessions {
			n += s.Retries.Load()
		}
		return n
	}
	term := func() uint64 {
		lead, _ := c.roles()
		_, term := lead.host.Group().LeaderReplica()
		return term
	}
	more()
	// As in TestHandOverUnderLoad, a round counts when nothing else made the
	// leader change.
	rounds, paused := 0, int64(0)
	for end := time.Now().Add(2 * time.Minute); rounds < times && time.Now().Before(end) && !t.Failed(); {
		before, had := term(), pauses()
		lead, _ := c.roles()
		if err := lead.host.Group().Transfer(ctx, 0); err != nil {
			require.ErrorIs(t, err, orca.NotLeader, "only when another one was faster")
		}
		more()
		if term() == before+1 {
			rounds, paused = rounds+1, paused+pauses()-had
		}
	}
	done.Store(true)
	wg.Wait()
	t.Logf("%d hand-overs, %d clients: %d pauses", rounds, clients, paused)
	require.Positive(t, rounds, "the leader never changed by a hand-over alone")
	require.LessOrEqual(t, paused, int64(rounds*clients/8), "clients pause when the leader hands over")
}
