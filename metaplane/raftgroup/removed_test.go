// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
)

// follower returns a member that does not lead.
func (c *trio) follower() uint64 {
	c.t.Helper()
	lead := c.leader().f.replica()
	for id := range c.hosts {
		if id != lead {
			return id
		}
	}
	c.t.Fatal("no follower")
	return 0
}

// repeat has the leader do something until it succeeds.
func (c *trio) repeat(do func(*Host) error) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := do(c.leader())
		if err == nil {
			return
		}
		require.True(c.t, orca.KindOf(err).Retryable() && time.Now().Before(deadline), "%v", err)
	}
}

func (c *trio) remove(id uint64) {
	c.t.Helper()
	c.repeat(func(h *Host) error { return h.group.Remove(c.t.Context(), id) })
}

// TestARemovedMemberLearnsIt: a member that runs when it is removed, and one
// that was away, hear of it; neither can be opened again, whoever is there.
func TestARemovedMemberLearnsIt(t *testing.T) {
	told := make(chan error, 3)
	c := newTrio(t, func(cfg *Config) { cfg.OnRemoved = func(err error) { told <- err } })
	proposeUntil(t, c.leader().group, "/a")
	heard := func(id uint64) {
		t.Helper()
		select {
		case err := <-told:
			require.ErrorIs(t, err, orca.Removed)
			require.ErrorContains(t, err, "quorum add")
		case <-time.After(time.Minute):
			t.Fatal("it does not hear that it was removed")
		}
		c.close(id)
		for range 2 {
			_, err := Open(c.cfgs[id], quiet())
			require.ErrorIs(t, err, orca.Removed)
		}
	}
	// It is cut off while it is removed, so that the journal does not tell it.
	id := c.follower()
	c.cutOff(id, true)
	c.remove(id)
	c.cutOff(id, false)
	heard(id)
	require.Empty(t, told, "nobody else is told")

	away := c.follower()
	addr := freeAddrs(t, 1)[0]
	c.cfgs[4] = c.cfgs[id]
	h := c.leader()
	c.repeat(func(h *Host) error { return h.group.AddLearner(t.Context(), 4, addr) })
	cfg := c.cfgs[4]
	cfg.Dir, cfg.Address, cfg.Members, cfg.Join = t.TempDir(), addr, nil, &Join{Cluster: h.Cluster(), Replica: 4}
	c.cfgs[4] = cfg
	applied(t, c.open(4), "/a")
	c.repeat(func(h *Host) error { return h.group.Promote(t.Context(), 4) })
	c.close(away)
	c.remove(away)
	c.open(away)
	heard(away)
	proposeUntil(t, c.leader().group, "/b")
	require.Empty(t, told)
}
