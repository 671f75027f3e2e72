// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"orca"
	"orca/metaplane/fsm"
)

// GroupConfig describes a further group of a host.
type GroupConfig struct {
	// Number is that of the group, 2 to MaxGroups.
	Number uint16
	// Members are the members that the group began with, Raft addresses by
	// replica: the same on every host, and for ever. A host that is none of
	// them joins.
	Members map[uint64]string
	// Machine and Hosted are as those of Config.
	Machine fsm.Config
	Hosted  map[string]fsm.Hosted
}

// MemberList spells members as they are kept: 1=HOST:PORT,2=HOST:PORT.
func MemberList(members map[uint64]string) string { return memberList(members) }

// ParseMembers is the inverse of MemberList. Invalid.
func ParseMembers(s string) (map[uint64]string, error) {
	out := map[uint64]string{}
	for part := range strings.SplitSeq(s, ",") {
		id, addr, ok := strings.Cut(part, "=")
		n, err := strconv.ParseUint(id, 10, 64)
		if !ok || err != nil || n == 0 || addr == "" || out[n] != "" {
			return nil, orca.PathE("raftgroup.ParseMembers", s, orca.Invalid, err)
		}
		out[n] = addr
	}
	return out, nil
}

// groupDir is where the stores of a further group are.
func groupDir(dir string, number uint64) string {
	return filepath.Join(dir, "group-"+strconv.FormatUint(number, 10))
}

// find returns a running or starting group, nil if there is none.
func (h *Host) find(number uint64) *Group {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.groups[number]
}

// all returns the groups by number.
func (h *Host) all() []*Group {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.groups), func(a, b *Group) int { return cmp.Compare(a.shard, b.shard) })
}

// Known returns the numbers and the first members of the further groups that
// this host has had before.
func (h *Host) Known() map[uint16]map[uint64]string {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	out := map[uint16]map[uint64]string{}
	for n, p := range h.f.Groups {
		out[uint16(n)] = maps.Clone(p.Members)
	}
	return out
}

// StartGroup starts this host's replica of a further group, making its store
// on first use. Corrupt: its journal is gone. Conflict: it began with other
// members here. What fails leaves the host as it was.
func (h *Host) StartGroup(c GroupConfig) (*Group, error) {
	const op = "raftgroup.StartGroup"
	if c.Number <= firstGroup || c.Number > MaxGroups || len(c.Members) == 0 {
		return nil, orca.E(op, orca.Invalid, fmt.Sprintf("group %d with %d members", c.Number, len(c.Members)))
	}
	n := uint64(c.Number)
	if h.find(n) != nil {
		return nil, orca.E(op, orca.Exists, fmt.Sprintf("group %d runs", n))
	}
	p, err := h.partOf(n, c.Members)
	if err != nil {
		return nil, err
	}
	g := newGroup(h, n, p)
	g.dir, g.machineConfig, g.hosted = groupDir(h.cfg.Dir, n), c.Machine, c.Hosted
	g.log = h.log.With("group", n)
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return nil, orca.PathE(op, g.dir, orca.Unavailable, err)
	}
	h.mu.Lock()
	h.groups[n] = g
	h.mu.Unlock()
	if err := g.start(); err != nil {
		h.mu.Lock()
		delete(h.groups, n)
		h.mu.Unlock()
		g.stop()
		if h.nh.HasNodeInfo(n, h.f.replica()) {
			_ = h.nh.StopReplica(n, h.f.replica()) // it may not have come so far
		}
		return nil, errors.Join(err, g.closeStore(false))
	}
	return g, nil
}

// partOf returns what the folder says of a group, writing it down on first use:
// a group that has once begun must never begin again with other members.
func (h *Host) partOf(n uint64, members map[uint64]string) (*part, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	_, first := members[h.f.replica()]
	if !first {
		members = nil
	}
	if p := h.f.Groups[n]; p != nil {
		if memberList(p.Members) != memberList(members) {
			return nil, &orca.Error{Op: "raftgroup.StartGroup", Path: h.cfg.Dir, Kind: orca.Conflict, Msg: fmt.Sprintf(
				"group %d began with the members %s here, but %s elsewhere: this folder is another cluster's", n, memberList(p.Members), memberList(members))}
		}
		return p, nil
	}
	p := &part{Store: 1, Members: members, Learner: !first}
	if h.f.Groups == nil {
		h.f.Groups = map[uint64]*part{}
	}
	h.f.Groups[n], h.f.Format = p, max(h.f.Format, formatGroups)
	return p, h.f.saveLocked(h.cfg.Dir)
}

// Spread hands the leadership to the voter that answers and leads the least,
// by load (groups led, by replica), if that is two less than this one.
// Unavailable: there is none.
func (g *Group) Spread(ctx context.Context, load map[uint64]int) error {
	m, err := g.Members(ctx)
	if err != nil {
		return err
	}
	away := g.away(ctx, m)
	best := g.Replica()
	for i := range m.List {
		x := &m.List[i]
		if n, ok := load[x.Replica]; ok && x.Voter && !away[x.Replica] && n < load[best] {
			best = x.Replica
		}
	}
	if load[g.Replica()]-load[best] < 2 {
		return orca.E("raftgroup.Spread", orca.Unavailable, "no other voter leads less")
	}
	return g.Transfer(ctx, best)
}

// Voters are the members that vote, Raft addresses by replica, as far as this
// host has applied.
func (g *Group) Voters() map[uint64]string {
	if g.Alone() {
		return map[uint64]string{loneReplica: localAddress}
	}
	return maps.Clone(g.voters())
}
