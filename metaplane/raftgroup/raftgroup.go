// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package raftgroup runs the metaplane's Raft groups on one host; it is the
// sole user of dragonboat. Every host has the first group; groups.go is about
// the others, which share its journal, its connections and its members' numbers.
//
// The flow: metaserver proposes a Command; the group's batcher packs all that
// wait (at most 256 or 64 KiB, without a timer) into one journal entry and
// keeps at most four in flight. An entry carries the mark of its proposer:
// Update, which hands it to fsm, finds those who wait for it there and tells
// them at once. Reads go to Machine() directly, after ReadReady.
//
// Each command that was queued is told one outcome, by whoever takes it from
// the queue or its entry from the table of flights: Update, or the completer
// when dragonboat gives the entry up.
//
// Goroutines: per group one batcher, one completer and one that cuts the journal,
// besides dragonboat's;
// Update and its kin are called by dragonboat's apply worker, one at a time.
// Locks: Group.mu, opQueue.mu, flightTable.mu, watcher.mu, reader.mu and ballot.mu
// are leaves, never held across a call out of the package.
//
// A host is alone (one voter, no network) or a member of a cluster, for ever.
// Members speak through transport.go, which lets in only the incarnation of a
// replica that was met first: one that lost its folder is no voter any more.
//
// It refuses to start beside dragonboat-*-settings.json in the working
// directory (they would change settings behind its back), with another Raft
// address, host name or cluster than before, and as a known replica whose
// journal is gone.
//
// When the disk fails, OnFatal is called and the goroutine that met it does not
// go on: the process must end, and ends by a panic if it has not in 5 s. A
// member is whole or dead. OnRemoved is called when it has learnt that the
// others have removed it (removed.go).
package raftgroup

import (
	"fmt"
	"time"

	"orca"
	"orca/metaplane/fsm"
)

const (
	// maxOps and maxBytes bound one journal entry, inFlight the entries on
	// their way.
	maxOps   = 256
	maxBytes = 64 << 10
	inFlight = 4
	// eventRing is how many events a slow watcher may lag behind.
	eventRing = 1 << 16
	// effectQueue is how many effects may wait for their reader.
	effectQueue = 1 << 14
	// firstGroup is the number of the group that every host has, loneReplica
	// the replica of a host that is its only member.
	firstGroup  = 1
	loneReplica = 1
	// MaxGroups bounds the groups of a host: each is a log file and an fsync
	// of its own.
	MaxGroups = 16
)

// Config describes a host. Zero fields have the stated defaults.
type Config struct {
	// Dir holds the journal, the store and the format file.
	Dir string
	// Address is the Raft address of a member of a cluster; it is kept from
	// the first start on. "" on the first start: a single node, no listener.
	Address string
	// Members are the first members of a new cluster, Raft addresses by
	// replica; Address is one of them. All begin with the same.
	Members map[uint64]string
	// Join makes this host, on its first start, a member that was added to a
	// running cluster.
	Join *Join
	// TLS encrypts and authenticates what members say to each other; given at
	// each start. Default: neither.
	TLS TLS
	// Machine sizes the machine.
	Machine fsm.Config
	// Hosted are the machines that share the group.
	Hosted map[string]fsm.Hosted
	// Journal is "tan" (default) or "pebble"; fixed at the first start.
	Journal string
	// Queue is how many commands may wait to be proposed; more are refused
	// with Busy. Default 8192.
	Queue int
	// ProposeTimeout bounds one journal entry from proposal to apply.
	// Default 10 s.
	ProposeTimeout time.Duration
	// FlushEvery and FlushOps are those of inodekv.Config.
	FlushEvery time.Duration
	FlushOps   int
	// CacheBytes is that of inodekv.Config, of each group.
	CacheBytes int64
	// SnapshotEntries is after how many journal entries the journal is cut.
	// Default 20,000.
	SnapshotEntries uint64
	// JournalBytes is after how many bytes of entries it is cut, too: a start
	// reads all that is behind the last cut. Default 32 MiB.
	JournalBytes int
	// OnFatal is called once, with the reason, when the journal or the store
	// has failed and the process must end at once, without closing the host.
	// By default it ends by the panic that follows.
	OnFatal func(reason string)
	// OnRemoved is called once when this member was removed from its cluster:
	// it serves nothing any more, and its folder cannot be opened again
	// (Removed).
	OnRemoved func(err error)
}

// Join is how a running cluster knows a member that was added to it.
type Join struct {
	Cluster string // Host.Cluster of the others
	Replica uint64
}

func (c Config) withDefaults() Config {
	if c.Journal == "" {
		c.Journal = journalTan
	}
	if c.Queue <= 0 {
		c.Queue = 8192
	}
	if c.ProposeTimeout <= 0 {
		c.ProposeTimeout = 10 * time.Second
	}
	if c.SnapshotEntries == 0 {
		c.SnapshotEntries = 20_000
	}
	if c.JournalBytes <= 0 {
		c.JournalBytes = 32 << 20
	}
	return c
}

// Validate refuses what cannot work.
func (c Config) Validate() error {
	const op = "raftgroup.Config"
	switch {
	case c.Dir == "":
		return orca.E(op, orca.Invalid, "no folder")
	case c.Journal != "" && c.Journal != journalTan && c.Journal != journalPebble:
		return orca.E(op, orca.Invalid, "unknown journal "+c.Journal+" (want tan or pebble)")
	case len(c.Members) > 0 && c.Join != nil:
		return orca.E(op, orca.Invalid, "either the first members of a cluster or one to join")
	}
	if c.Join != nil && (c.Join.Replica == 0 || c.Address == "") {
		return orca.E(op, orca.Invalid, "joining needs a replica and a Raft address")
	}
	if err := c.TLS.validate(); err != nil {
		return err
	}
	return c.validateMembers(op)
}

func (c Config) validateMembers(op string) error {
	if len(c.Members) == 0 {
		return nil
	}
	if n := len(c.Members); n < 3 || n%2 == 0 {
		return orca.E(op, orca.Invalid, fmt.Sprintf("%d members: want 3 or 5", n))
	}
	seen := map[string]bool{}
	for id, addr := range c.Members {
		if id == 0 || !validAddress(addr) {
			return &orca.Error{Op: op, Path: addr, Kind: orca.Invalid, Msg: "want members as 1=HOST:PORT, 2=HOST:PORT, ..."}
		}
		if seen[addr] {
			return &orca.Error{Op: op, Path: addr, Kind: orca.Invalid, Msg: "two members have the same Raft address"}
		}
		seen[addr] = true
	}
	if !seen[c.Address] {
		return &orca.Error{Op: op, Path: c.Address, Kind: orca.Invalid, Msg: "this member's Raft address is not among the members " + memberList(c.Members)}
	}
	return nil
}
