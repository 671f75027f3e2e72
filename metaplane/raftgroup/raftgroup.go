// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package raftgroup runs the metaplane's Raft groups on one host; it is the
// sole user of dragonboat.
//
// The flow: metaserver proposes a Command; the group's batcher packs all that
// wait (at most 256 or 64 KiB, without a timer) into one journal entry and
// keeps at most four in flight; apply hands the entry to fsm and the results
// fan out to their proposers. Reads go to Machine() directly, after ReadReady.
package raftgroup

import (
	"context"
	"log/slog"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
)

var errTODO = orca.E("raftgroup", orca.Unsupported, "not written yet")

// Config describes a host. Zero fields have the stated defaults.
type Config struct {
	// Dir holds the journal, the store and the format file.
	Dir string
	// Address is the Raft address; "" opens no listener (a single node).
	Address string
	// Machine sizes the machine.
	Machine fsm.Config
	// Hosted are the machines that share the group.
	Hosted map[string]fsm.Hosted
	// Journal is "tan" (default) or "pebble".
	Journal string
	// OnFatal is called once, with the reason, when the journal or the store
	// has failed and the process must end. Default: log and exit with 70.
	OnFatal func(reason string)
}

// Host runs groups.
type Host struct{}

// Open opens the host in cfg.Dir, creating it on first use.
func Open(cfg Config, log *slog.Logger) (*Host, error) { return nil, errTODO }

// Group returns the all-in-one group.
func (h *Host) Group() *Group { return nil }

// Cluster returns the random identity of this cluster, made on first use.
func (h *Host) Cluster() string { return "" }

// Close flushes and stops everything.
func (h *Host) Close() error { return nil }

// Group is one Raft group with its machine.
type Group struct{}

// Propose commits and applies one command and returns its result. The result
// of a refused command is returned together with its orca.Error. Else: Busy
// (queue full), Unavailable (no leader, closed: not applied), Timeout and
// Canceled (ctx: outcome unknown; retry with the same client and seq).
func (g *Group) Propose(ctx context.Context, c *command.Command) (*command.Result, error) {
	return nil, errTODO
}

// ReadReady returns when reads on Machine() are linearizable: for a single
// voter at once after the first success since start, else after one round.
func (g *Group) ReadReady(ctx context.Context) error { return errTODO }

// Machine returns the machine to read from.
func (g *Group) Machine() *fsm.Machine { return nil }

// Leader reports whether this host leads the group, and the current term.
func (g *Group) Leader() (leading bool, term uint64) { return false, 0 }

// LeaderChanged returns a channel that is closed at the next change of Leader.
func (g *Group) LeaderChanged() <-chan struct{} { return nil }

// Watch returns the events after cursor (0: none, just the present cursor),
// waiting until there is one or ctx ends (no error then). lost says that
// events between cursor and the first returned were dropped.
func (g *Group) Watch(ctx context.Context, cursor uint64) (events []fsm.Event, next uint64, lost bool) {
	return nil, 0, false
}

// Effects returns the channel of effects of applied commands. It has one
// reader. When it is full effects are dropped: Dropped counts them, and the
// reader finds the work by scanning the machine.
func (g *Group) Effects() <-chan fsm.Effect { return nil }

// Dropped returns how many effects were dropped so far.
func (g *Group) Dropped() int64 { return 0 }
