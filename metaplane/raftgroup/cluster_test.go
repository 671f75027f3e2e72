// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane/freeport"
	"orca/metaplane/command"
)

func freeAddrs(t testing.TB, n int) []string {
	t.Helper()
	out, err := freeport.Addrs(n)
	require.NoError(t, err)
	return out
}

// trio is a cluster in this process.
type trio struct {
	t     testing.TB
	cfgs  map[uint64]Config
	hosts map[uint64]*Host // that run
}

func newTrio(t testing.TB, tweak func(*Config)) *trio {
	t.Helper()
	c := &trio{t: t, cfgs: map[uint64]Config{}, hosts: map[uint64]*Host{}}
	members := map[uint64]string{}
	for i, a := range freeAddrs(t, 3) {
		members[uint64(i+1)] = a
	}
	for id, a := range members {
		cfg := Config{Dir: t.TempDir(), Address: a, Members: members}
		if tweak != nil {
			tweak(&cfg)
		}
		c.cfgs[id] = cfg
	}
	t.Cleanup(func() {
		for id := range c.hosts {
			c.close(id)
		}
	})
	for id := range c.cfgs {
		c.open(id)
	}
	return c
}

func (c *trio) open(id uint64) *Host {
	c.t.Helper()
	h := open(c.t, c.cfgs[id])
	c.hosts[id] = h
	return h
}

func (c *trio) close(id uint64) {
	c.t.Helper()
	require.NoError(c.t, c.hosts[id].Close())
	delete(c.hosts, id)
}

// leader waits until all that run agree on one of them.
func (c *trio) leader() *Host {
	c.t.Helper()
	var h *Host
	require.Eventually(c.t, func() bool {
		var id uint64
		for _, x := range c.hosts {
			l, _ := x.group.LeaderReplica()
			if l == 0 || id != 0 && l != id {
				return false
			}
			id = l
		}
		h = c.hosts[id]
		return h != nil
	}, time.Minute, 5*time.Millisecond)
	return h
}

// cutOff cuts all links of one member, both ways, or mends them.
func (c *trio) cutOff(id uint64, cut bool) {
	for other, h := range c.hosts {
		if other == id {
			continue
		}
		for _, x := range [][2]*Host{{h, c.hosts[id]}, {c.hosts[id], h}} {
			if cut {
				x[0].net.Load().cut.Store(x[1].f.Address, true)
			} else {
				x[0].net.Load().cut.Delete(x[1].f.Address)
			}
		}
	}
}

// proposeUntil proposes until it is acknowledged, with one number.
func proposeUntil(t testing.TB, g *Group, path string) {
	t.Helper()
	proposeAs(t, g, path, 99, uint64(time.Now().UnixNano()))
}

// proposeAs is proposeUntil as this request of this client.
func proposeAs(t testing.TB, g *Group, path string, client, seq uint64) {
	t.Helper()
	c := create(path)
	c.Client, c.Seq = client, seq
	proposeAgain(t, g, c)
}

// proposeAgain repeats a numbered command until it is applied: of several members
// another one may lead at any time, and then the outcome is not known.
func proposeAgain(t testing.TB, g *Group, c *command.Command) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := g.Propose(ctx, c)
		cancel()
		if err == nil {
			return
		}
		require.True(t, orca.KindOf(err).Retryable(), "%v", err)
		require.True(t, time.Now().Before(deadline), "%v", err)
		time.Sleep(5 * time.Millisecond)
	}
}

func applied(t testing.TB, h *Host, path string) {
	t.Helper()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return h.group.ReadReady(ctx) == nil && exists(t, h.group, path)
	}, time.Minute, 10*time.Millisecond)
}

func TestThreeMembersSurviveTheLossOfOne(t *testing.T) {
	c := newTrio(t, nil)
	first := c.leader()
	proposeUntil(t, first.group, "/a")
	for _, h := range c.hosts {
		applied(t, h, "/a")
		require.Equal(t, first.Cluster(), h.Cluster())
	}
	id := first.f.replica()
	require.NoError(t, first.crash())
	delete(c.hosts, id)
	second := c.leader()
	proposeUntil(t, second.group, "/b")
	// A follower's proposal is passed on; its reads are linearizable, too.
	for other, h := range c.hosts {
		if h != second {
			proposeUntil(t, h.group, fmt.Sprintf("/from%d", other))
			require.NoError(t, h.group.ReadReady(t.Context()))
			require.True(t, exists(t, h.group, "/b"))
		}
	}
	applied(t, c.open(id), "/b")
}

func TestCutOffLeaderServesNothing(t *testing.T) {
	c := newTrio(t, nil)
	old := c.leader()
	proposeUntil(t, old.group, "/before")
	c.cutOff(old.f.replica(), true)
	var next *Host
	require.Eventually(t, func() bool {
		for _, h := range c.hosts {
			if leads, _ := h.group.Leader(); leads && h != old {
				next = h
			}
		}
		return next != nil
	}, time.Minute, 5*time.Millisecond)
	proposeUntil(t, next.group, "/after")

	// It may not even think that it leads; it must not answer either way.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	require.Error(t, old.group.ReadReady(ctx), "a read of a leader that is cut off")
	stale := create("/lost")
	_, err := old.group.Propose(ctx, stale)
	require.True(t, orca.KindOf(err).Retryable(), "%v", err)
	require.Eventually(t, func() bool { leads, _ := old.group.Leader(); return !leads }, time.Minute, 5*time.Millisecond,
		"a leader without a majority steps down")

	c.cutOff(old.f.replica(), false)
	applied(t, old, "/after")
}

// TestLaggingMemberCatchesUp has a member away for more entries than the
// journal keeps, so that it needs the whole state; and then for a few.
func TestLaggingMemberCatchesUp(t *testing.T) {
	c := newTrio(t, func(cfg *Config) { cfg.SnapshotEntries = 40 })
	h := c.leader()
	var away uint64
	for id := range c.hosts {
		if id != h.f.replica() {
			away = id
		}
	}
	proposeUntil(t, h.group, "/first")
	applied(t, c.hosts[away], "/first")
	c.close(away)
	for i := range 300 { // one entry each
		proposeUntil(t, h.group, fmt.Sprintf("/f%d", i))
	}
	back := c.open(away)
	store := back.f.Store
	applied(t, back, "/f299")
	back.f.mu.Lock()
	require.Greater(t, back.f.Store, store, "it came by a snapshot")
	store = back.f.Store
	back.f.mu.Unlock()
	require.Equal(t, h.group.Machine().Counts().Files, back.group.Machine().Counts().Files)

	c.close(away)
	for i := range 5 {
		proposeUntil(t, h.group, fmt.Sprintf("/g%d", i))
	}
	back = c.open(away)
	applied(t, back, "/g4")
	require.Equal(t, store, back.f.Store, "it came by the journal")
}

func TestReplaceAMember(t *testing.T) {
	c := newTrio(t, func(cfg *Config) { cfg.SnapshotEntries = 40 })
	h := c.leader()
	for i := range 100 {
		proposeUntil(t, h.group, fmt.Sprintf("/f%d", i))
	}
	var gone uint64
	for id := range c.hosts {
		if id != h.f.replica() {
			gone = id
		}
	}
	c.close(gone)
	c.repeat(func(h *Host) error { return h.group.Remove(t.Context(), gone) })
	addr := freeAddrs(t, 1)[0]
	require.ErrorIs(t, h.group.AddLearner(t.Context(), gone, addr), orca.Exists, "a number is used once")
	for range 2 { // twice is once
		c.repeat(func(h *Host) error { return h.group.AddLearner(t.Context(), 4, addr) })
	}
	c.cfgs[4] = Config{Dir: t.TempDir(), Address: addr, Join: &Join{Cluster: h.Cluster(), Replica: 4}, SnapshotEntries: 40}
	fresh := c.open(4)
	applied(t, fresh, "/f99")
	c.repeat(func(h *Host) error { return h.group.Promote(t.Context(), 4) })
	m, err := fresh.group.Members(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, m.Voters())
	require.Equal(t, []uint64{gone}, m.Removed)
	c.repeat(func(h *Host) error { return h.group.Transfer(t.Context(), 4) })
	require.Eventually(t, func() bool { leads, _ := fresh.group.Leader(); return leads }, time.Minute, 5*time.Millisecond)
	proposeUntil(t, fresh.group, "/by4")
	c.close(4)
	applied(t, c.open(4), "/by4")
}

func TestAMemberThatLostItsFolderIsRefused(t *testing.T) {
	c := newTrio(t, nil)
	h := c.leader()
	proposeUntil(t, h.group, "/a")
	for _, x := range c.hosts {
		applied(t, x, "/a")
	}
	id := h.f.replica()
	c.close(id)
	cfg := c.cfgs[id]
	cfg.Dir = t.TempDir()
	_, err := Open(cfg, quiet())
	require.ErrorIs(t, err, orca.Conflict)
	require.ErrorContains(t, err, "quorum remove")
	_, err = Open(cfg, quiet())
	require.ErrorIs(t, err, orca.Conflict, "as often as it is tried")
	applied(t, c.open(id), "/a")
}

func TestClusterIdentityIsKept(t *testing.T) {
	c := newTrio(t, nil)
	c.leader()
	c.close(2)
	for name, tc := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"another address": {func(x *Config) {
			x.Address = "127.0.0.1:1"
			x.Members = map[uint64]string{1: c.cfgs[1].Address, 2: "127.0.0.1:1", 3: c.cfgs[3].Address}
		}, "Raft address is"},
		"another cluster": {func(x *Config) {
			x.Members = map[uint64]string{1: c.cfgs[1].Address, 2: x.Address, 3: "127.0.0.1:1"}
		}, "another cluster"},
		"joins another cluster": {func(x *Config) {
			x.Members, x.Join = nil, &Join{Cluster: randomHex(), Replica: 2}
		}, "belongs to cluster"},
		"not among the members": {func(x *Config) { x.Address = "127.0.0.1:1" }, "not among the members"},
		"two members":           {func(x *Config) { x.Members = map[uint64]string{1: "127.0.0.1:1", 2: x.Address} }, "want 3 or 5"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.cfgs[2]
			tc.change(&cfg)
			_, err := Open(cfg, quiet())
			require.ErrorIs(t, err, orca.Invalid)
			require.ErrorContains(t, err, tc.says)
		})
	}
	// Nothing needs to be said again.
	c.cfgs[2] = Config{Dir: c.cfgs[2].Dir}
	c.open(2)
	c.leader()

	alone := t.TempDir()
	h := open(t, Config{Dir: alone})
	require.NoError(t, h.Close())
	cfg := c.cfgs[1]
	cfg.Dir = alone
	_, err := Open(cfg, quiet())
	require.ErrorIs(t, err, orca.Invalid)
	require.ErrorContains(t, err, "new folder")
}

// TestSpare: what the rest could not decide without stays, and the leadership
// goes to one that answers.
func TestSpare(t *testing.T) {
	c := newTrio(t, nil)
	first := c.leader()
	proposeUntil(t, first.group, "/a")
	var dead uint64
	for id := range c.hosts {
		if id != first.f.replica() && (dead == 0 || id < dead) {
			dead = id
		}
	}
	c.close(dead)
	h := c.leader() // with one of two away it may be another one
	for id := range c.hosts {
		err := h.group.Spare(t.Context(), id)
		require.ErrorIs(t, err, orca.Invalid)
		require.ErrorContains(t, err, "do not answer")
		require.ErrorIs(t, h.group.Remove(t.Context(), id), orca.Invalid)
	}
	require.NoError(t, h.group.Spare(t.Context(), dead))
	require.NoError(t, h.group.Transfer(t.Context(), 0))
	proposeUntil(t, c.leader().group, "/b")
	require.NoError(t, c.leader().group.Remove(t.Context(), dead))
	proposeUntil(t, c.leader().group, "/c")
}

// TestTransferEndsWithTheLeadership: who stops leading while it hands that on
// says so, and does not wait for what will not come.
func TestTransferEndsWithTheLeadership(t *testing.T) {
	c := newTrio(t, nil)
	h := c.leader()
	proposeUntil(t, h.group, "/a")
	id := h.f.replica()
	dead, other := id%3+1, (id+1)%3+1
	require.ErrorIs(t, c.hosts[other].group.Transfer(t.Context(), dead), orca.NotLeader)
	require.NoError(t, c.hosts[other].group.Transfer(t.Context(), id), "it is done already")
	require.NoError(t, h.group.Transfer(t.Context(), id), "it is done already, as the leader knows")

	// Cut off from all others it cannot even ask who they are; and who has
	// asked already waits for a successor that does not answer.
	c.close(dead)
	toDead := make(chan error, 1)
	go func() { toDead <- h.group.Transfer(t.Context(), dead) }()
	c.cutOff(id, true)
	require.ErrorIs(t, h.group.Transfer(t.Context(), other), orca.NotLeader)
	require.ErrorIs(t, <-toDead, orca.NotLeader)
	c.cutOff(id, false)
	proposeUntil(t, c.leader().group, "/b")
}
