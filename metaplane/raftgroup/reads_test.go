// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadsShareARound has many readers come while a round is on its way: all
// of them wait for the next one, at the leader and at the others. It is the
// gate on what a read costs: ReadIndex calls per reader.
func TestReadsShareARound(t *testing.T) {
	const readers = 256
	c := newTrio(t, nil)
	lead := c.leader()
	proposeUntil(t, lead.group, "/a")
	for id, h := range c.hosts {
		g, r := h.group, &h.group.reads
		require.NoError(t, g.ReadReady(t.Context()))
		require.Eventually(t, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.busy || r.next != nil {
				return false
			}
			r.busy = true // as if a round were on its way
			return true
		}, time.Minute, time.Millisecond)
		waits, rounds := g.Stats.ReadWaits.Load(), g.Stats.ReadIndexes.Load()
		var wg sync.WaitGroup
		errs := make([]error, readers)
		for i := range readers {
			wg.Go(func() { errs[i] = g.ReadReady(t.Context()) })
		}
		require.Eventually(t, func() bool { return g.Stats.ReadWaits.Load() == waits+readers }, time.Minute, time.Millisecond)
		require.Equal(t, rounds, g.Stats.ReadIndexes.Load(), "nobody asks while a round is on its way")
		r.loop() // that round is over
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		// One; a round that is not answered within readAgain is asked for again.
		made := g.Stats.ReadIndexes.Load() - rounds
		require.GreaterOrEqual(t, made, int64(1))
		require.LessOrEqual(t, made, int64(4), "%d readers of member %d", readers, id)
	}
}

// TestALoneVoterReadsLocally: after the first round none is asked for.
func TestALoneVoterReadsLocally(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir()})
	defer h.Close()
	require.NoError(t, h.group.ReadReady(t.Context()))
	require.True(t, h.group.ReadProven())
	rounds := h.group.Stats.ReadIndexes.Load()
	for range 100 {
		require.NoError(t, h.group.ReadReady(t.Context()))
	}
	require.Equal(t, rounds, h.group.Stats.ReadIndexes.Load())
}
