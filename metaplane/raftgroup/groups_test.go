// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

func groupConfig(h *Host, n uint16) GroupConfig {
	return GroupConfig{Number: n, Members: h.Group().Voters(), Machine: fsm.Config{Group: n}}
}

// mountAt is a mount of a group behind a junction.
func mountAt(group uint16, path string) *command.Command {
	return &command.Command{Mount: &metapb.MountOp{Mount: &metapb.Mount{
		Path: path, Uri: "s3://b" + path, Id: 7, Serial: 1, Group: uint32(group)}}}
}

func mounted(t testing.TB, g *Group, path string) bool {
	t.Helper()
	w, err := g.Machine().Walk(orca.Caller{}, 0, path)
	return err == nil && w.Found
}

// A host has groups with stores of their own on one journal, and has them again
// after a crash.
func TestGroupsOfOneHost(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	h := open(t, Config{Dir: dir})
	two, err := h.StartGroup(groupConfig(h, 2))
	require.NoError(t, err)
	three, err := h.StartGroup(groupConfig(h, 3))
	require.NoError(t, err)
	_, err = h.StartGroup(groupConfig(h, 3))
	require.ErrorIs(t, err, orca.Exists)
	for _, n := range []uint16{0, 1, MaxGroups + 1} {
		_, err = h.StartGroup(groupConfig(h, n))
		require.ErrorIs(t, err, orca.Invalid)
	}
	propose(t, h.Group(), mkdir("/one"))
	propose(t, two, mountAt(2, "/two"))
	r := propose(t, three, mountAt(3, "/three"))
	require.Equal(t, uint16(3), orca.Ino(r.Mount.Root).Group(), "numbers tell their group")
	require.NoError(t, h.crash())

	h = open(t, Config{Dir: dir})
	defer func() { require.NoError(t, h.Close()) }()
	known := h.Known()
	require.Len(t, known, 2)
	_, err = h.StartGroup(GroupConfig{Number: 2, Members: map[uint64]string{1: "elsewhere"}})
	require.ErrorIs(t, err, orca.Conflict, "what a group began with is for ever")
	for n := range known {
		_, err := h.StartGroup(GroupConfig{Number: n, Members: known[n], Machine: fsm.Config{Group: n}})
		require.NoError(t, err)
	}
	require.NoError(t, h.find(2).ReadReady(t.Context()))
	require.NoError(t, h.find(3).ReadReady(t.Context()))
	require.True(t, exists(t, h.Group(), "/one"))
	require.True(t, mounted(t, h.find(2), "/two"))
	require.True(t, mounted(t, h.find(3), "/three"))
	require.False(t, mounted(t, h.find(2), "/three"))
}

// A group whose journal is gone does not begin anew.
func TestAGroupThatLostItsJournal(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Config{Dir: dir})
	first := h.Group().Voters()
	_, err := h.StartGroup(groupConfig(h, 2))
	require.NoError(t, err)
	require.NoError(t, h.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
	h = &Host{} // the first group refuses already: say that it was lost alone
	f := &format{}
	b, err := os.ReadFile(filepath.Join(dir, formatFile))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, f))
	f.Started = false
	require.NoError(t, f.save(dir))
	h, err = Open(Config{Dir: dir}, quiet())
	require.NoError(t, err)
	defer func() { require.NoError(t, h.Close()) }()
	_, err = h.StartGroup(GroupConfig{Number: 2, Members: first, Machine: fsm.Config{Group: 2}})
	require.ErrorIs(t, err, orca.Corrupt)
}

// startGroup starts a group on all members of a trio.
func (c *trio) startGroup(n uint16) {
	c.t.Helper()
	members := c.cfgs[1].Members
	for _, h := range c.hosts {
		if h.find(uint64(n)) == nil {
			_, err := h.StartGroup(GroupConfig{Number: n, Members: members, Machine: fsm.Config{Group: n}})
			require.NoError(c.t, err)
		}
	}
}

// led waits until all that run agree on who leads a group.
func (c *trio) led(n uint16) *Host {
	c.t.Helper()
	var h *Host
	require.Eventually(c.t, func() bool {
		var id uint64
		for _, x := range c.hosts {
			l, _ := x.find(uint64(n)).LeaderReplica()
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

// Groups have leaders of their own: one that is lost takes only its own along.
func TestGroupsFailOverAlone(t *testing.T) {
	c := newTrio(t, nil)
	c.startGroup(2)
	one := c.leader()
	two := c.led(2)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if two == one {
		load := map[uint64]int{1: 0, 2: 0, 3: 0}
		load[one.f.Replica] = 2
		require.NoError(t, two.find(2).Spread(ctx, load))
		two = c.led(2)
	}
	require.NotSame(t, one, two)
	err := two.find(2).Spread(ctx, map[uint64]int{1: 1, 2: 1, 3: 1})
	require.True(t, errors.Is(err, orca.Unavailable), "an even spread stays: %v", err)
	m := mountAt(2, "/m")
	m.Client, m.Seq = 99, 1
	proposeAgain(t, two.find(2), m)
	_, term := one.Group().Leader()
	id := two.f.Replica
	c.close(id)
	next := c.led(2)
	require.NotEqual(t, id, next.f.Replica)
	require.Eventually(t, func() bool { return mounted(t, next.find(2), "/m") }, time.Minute, 5*time.Millisecond)
	leads, now := one.Group().Leader()
	require.True(t, leads)
	require.Equal(t, term, now, "the first group did not notice")
	proposeUntil(t, one.Group(), "/goes-on")
	c.open(id)
	c.startGroup(2)
	require.Eventually(t, func() bool { return mounted(t, c.hosts[id].find(2), "/m") }, time.Minute, 5*time.Millisecond)
}

// A member that joins the first group later joins the others as well, by
// learning first.
func TestAMemberJoinsAGroup(t *testing.T) {
	c := newTrio(t, nil)
	c.startGroup(2)
	lead := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addr := freeAddrs(t, 1)[0]
	require.NoError(t, lead.Group().AddLearner(ctx, 4, addr))
	c.cfgs[4] = Config{Dir: t.TempDir(), Address: addr, Join: &Join{Cluster: lead.Cluster(), Replica: 4}}
	h := c.open(4)
	require.Eventually(t, func() bool { return lead.Group().Promote(ctx, 4) == nil }, time.Minute, 20*time.Millisecond)
	members := c.cfgs[1].Members
	g, err := h.StartGroup(GroupConfig{Number: 2, Members: members, Machine: fsm.Config{Group: 2}})
	require.NoError(t, err)
	require.True(t, g.Learns())
	two := c.ledBy(2, 1, 2, 3)
	m := mountAt(2, "/m")
	m.Client, m.Seq = 99, 1
	proposeAgain(t, two.find(2), m)
	require.NoError(t, two.find(2).AddLearner(ctx, 4, addr))
	require.Eventually(t, func() bool { return mounted(t, g, "/m") }, time.Minute, 5*time.Millisecond)
	require.NoError(t, two.find(2).Promote(ctx, 4))
	require.Eventually(t, func() bool { return !g.Learns() }, time.Minute, 5*time.Millisecond)
	c.close(4)
	c.open(4)
	g, err = c.hosts[4].StartGroup(GroupConfig{Number: 2, Members: members, Machine: fsm.Config{Group: 2}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !g.Learns() }, time.Minute, time.Millisecond, "it comes back with its vote")
	require.Eventually(t, func() bool { return mounted(t, g, "/m") }, time.Minute, 5*time.Millisecond)
}

// A member that joined votes after a start, whether it has noted its promotion
// or ended just before.
func TestWhoJoinedVotesAfterAStart(t *testing.T) {
	c := newTrio(t, nil)
	lead := c.leader()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addr := freeAddrs(t, 1)[0]
	require.NoError(t, lead.Group().AddLearner(ctx, 4, addr))
	c.cfgs[4] = Config{Dir: t.TempDir(), Address: addr, Join: &Join{Cluster: lead.Cluster(), Replica: 4}}
	h := c.open(4)
	require.NoError(t, lead.Group().Promote(ctx, 4))
	require.Eventually(t, func() bool { return !h.Group().learns() }, time.Minute, time.Millisecond)
	for i, noted := range []bool{true, false} {
		require.NoError(t, h.f.update(h.cfg.Dir, func() { h.f.Learner = !noted }))
		require.NoError(t, h.crash())
		delete(c.hosts, 4)
		h = c.open(4)
		require.Eventually(t, func() bool { return !h.Group().Learns() }, time.Minute, time.Millisecond)
		require.Eventually(t, func() bool { // who leads may be another one by now
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			return c.leader().Group().Transfer(ctx, 4) == nil
		}, time.Minute, time.Millisecond)
		proposeUntil(t, h.Group(), fmt.Sprintf("/by4-%d", i))
	}
}

// ledBy waits until the members that are named agree on who leads a group.
func (c *trio) ledBy(n uint16, ids ...uint64) *Host {
	c.t.Helper()
	only := &trio{t: c.t, hosts: map[uint64]*Host{}}
	for _, id := range ids {
		only.hosts[id] = c.hosts[id]
	}
	return only.led(n)
}
