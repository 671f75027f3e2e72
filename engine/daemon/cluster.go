// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"orca"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
	"orca/ufs/backends"
)

// Peer is one of the first members of a cluster: the name of its node, and its
// Raft address.
type Peer struct{ Node, Addr string }

// resolveCluster finds this member among the peers. Their numbers are their
// ranks by name, so that the order in which they are given does not matter.
func (c *Config) resolveCluster() error {
	const op = "daemon.Config"
	if len(c.Peers) > 0 && len(c.Join) > 0 {
		return orca.E(op, orca.Invalid, "either --peers, the first members of a new cluster, or --join, the members of a running one")
	}
	if len(c.Join) > 0 && c.RaftAddr == "" {
		return orca.E(op, orca.Invalid, "--join needs --raft-addr, the address that was given to orca admin quorum add")
	}
	if len(c.Peers) == 0 {
		return nil
	}
	slices.SortFunc(c.Peers, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	for i := range c.Peers {
		if i > 0 && c.Peers[i].Node == c.Peers[i-1].Node {
			return &orca.Error{Op: op, Path: c.Peers[i].Node, Kind: orca.Invalid, Msg: "two of --peers have this name"}
		}
		if c.RaftAddr == "" && c.Peers[i].Node == c.Node {
			c.RaftAddr = c.Peers[i].Addr
		}
	}
	if c.RaftAddr == "" {
		return &orca.Error{Op: op, Path: c.Node, Kind: orca.Invalid, Msg: "this node is not among --peers: say which one it is with --node or --raft-addr"}
	}
	return nil
}

// raftConfig is the part of the host's configuration that says with whom it
// decides. A folder that is a member already needs none of it.
func (c *Config) raftConfig(ctx context.Context, dir string, m *metaRole) (rc raftgroup.Config, err error) {
	rc = raftgroup.Config{Dir: dir, Address: c.RaftAddr, TLS: c.RaftTLS, CacheBytes: c.MetaCache}
	if len(c.Peers) > 0 {
		rc.Members = c.firstMembers()
		if c.Root == "" && !raftgroup.Used(dir) {
			return rc, orca.E("daemon.startMeta", orca.Invalid, "a new cluster needs --root, a store that all its members and workers reach")
		}
	}
	if len(c.Join) > 0 && !raftgroup.Used(dir) {
		m.log.Info("asking to join", "members", strings.Join(c.Join, ","), "raft", c.RaftAddr)
		rc.Join, err = askToJoin(ctx, c, m)
	}
	return rc, err
}

// firstMembers are the peers by number; nil: there are none.
func (c *Config) firstMembers() map[uint64]string {
	if len(c.Peers) == 0 {
		return nil
	}
	m := map[uint64]string{}
	for i, p := range c.Peers {
		m[uint64(i+1)] = p.Addr
	}
	return m
}

// askToJoin asks the members of a running cluster which one this is to be.
func askToJoin(ctx context.Context, c *Config, m *metaRole) (*raftgroup.Join, error) {
	cl, err := metaclient.New(metaclient.Config{Addrs: c.Join}, m.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = cl.Close() }()
	rep, err := cl.Quorum(ctx, &metapb.QuorumRequest{Change: metapb.QuorumRequest_JOIN, RaftAddr: c.RaftAddr})
	if err != nil {
		return nil, err
	}
	return &raftgroup.Join{Cluster: rep.Cluster, Replica: rep.Replica}, nil
}

// onLead makes the root of a new namespace before this member serves it.
func (m *metaRole) onLead(cfg *Config) func(context.Context) error {
	return func(ctx context.Context) error {
		switch have := m.root(); {
		case have == "" && cfg.Root == "":
			return orca.E("daemon.onLead", orca.Unavailable, "the namespace has no root: start this member with --root")
		case have == "":
			_, err := m.mountRoot(ctx, cfg, cfg.Root)
			return err
		case cfg.Root != "" && cfg.Root != have && !backends.Same(cfg.Root, have):
			m.log.Warn("--root is another one than the namespace has, and is ignored", "root", cfg.Root, "uri", have)
		}
		return nil
	}
}

// takePart waits until a member of a cluster, whose doors are open, takes part:
// it has caught up, votes, and knows who leads.
func (m *metaRole) takePart(ctx context.Context, cfg *Config) (root string, err error) {
	m.service.Announce(reachable(m.addr, cfg.RaftAddr), cfg.Node)
	m.log.Info("waiting for a majority of the members")
	if err := m.service.AwaitMember(ctx); err != nil {
		return "", stopped(ctx, err)
	}
	if m.host.Group().Learns() {
		if err := m.vote(ctx); err != nil {
			return "", stopped(ctx, err)
		}
	}
	return m.root(), nil
}

// stopped is why ctx ended if it did, else err.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// vote asks the leader for this member's vote until it has it.
func (m *metaRole) vote(ctx context.Context) error {
	cl, err := metaclient.New(metaclient.Config{Addrs: []string{"unix:" + m.socket}}, m.log)
	if err != nil {
		return err
	}
	defer func() { _ = cl.Close() }()
	for {
		_, err := cl.Quorum(ctx, &metapb.QuorumRequest{Change: metapb.QuorumRequest_PROMOTE, Replica: m.host.Group().Replica()})
		if err == nil {
			m.log.Info("this member votes")
			return nil
		}
		if !orca.KindOf(err).Retryable() {
			return err
		}
		m.log.Info("this member has no vote yet", "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// reachable is the address that others use for a listener: one on all
// interfaces is reached where Raft is.
func reachable(addr, raft string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		if h, _, err := net.SplitHostPort(raft); err == nil {
			return net.JoinHostPort(h, port)
		}
		if h, err := os.Hostname(); err == nil {
			return net.JoinHostPort(h, port)
		}
	}
	return addr
}
