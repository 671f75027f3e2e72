// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"orca"
)

// Raw is one group on the engine and journal of a Host, with a machine that
// does nothing and without the batcher: every payload is a journal entry of
// its own. It is what benchmarks hold Propose against.
type Raw struct {
	nh      *dragonboat.NodeHost
	session *client.Session
	group   *Group // for who leads
}

// OpenRaw opens a new group in cfg.Dir, which must be empty; of cfg only Dir,
// Journal and SnapshotEntries count.
func OpenRaw(cfg Config, log *slog.Logger) (*Raw, error) {
	rs, err := OpenRawCluster([]Config{cfg}, log)
	if err != nil {
		return nil, err
	}
	return rs[0], nil
}

// OpenRawCluster opens the members of a new group, all of them in this process.
// Of each configuration Address and Members count, too.
func OpenRawCluster(cfgs []Config, log *slog.Logger) ([]*Raw, error) {
	var rs []*Raw
	for _, cfg := range cfgs {
		r, err := startRaw(cfg, log)
		if err != nil {
			return nil, errors.Join(err, closeRaws(rs))
		}
		rs = append(rs, r)
	}
	for _, r := range rs {
		if err := r.elected(); err != nil {
			return nil, errors.Join(err, closeRaws(rs))
		}
	}
	return rs, nil
}

func closeRaws(rs []*Raw) error {
	var errs []error
	for _, r := range rs {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

func startRaw(cfg Config, log *slog.Logger) (*Raw, error) {
	const op = "raftgroup.OpenRaw"
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, orca.PathE(op, cfg.Dir, orca.Unavailable, err)
	}
	f, err := newFormat(cfg, "raw")
	if err != nil {
		return nil, err
	}
	routeRaftLog(log)
	h := &Host{cfg: cfg, log: log, f: f, dead: make(chan struct{})}
	h.group = newGroup(h, firstGroup, &f.part)
	h.groups = map[uint64]*Group{firstGroup: h.group}
	nh, err := dragonboat.NewNodeHost(h.nodeHostConfig())
	if err != nil {
		return nil, orca.PathE(op, cfg.Dir, orca.Busy, err)
	}
	members := f.Members
	if f.alone() {
		members = map[uint64]dragonboat.Target{loneReplica: f.Address}
	}
	create := func(uint64, uint64) sm.IOnDiskStateMachine { return noMachine{} }
	if err := nh.StartOnDiskReplica(members, false, create, h.group.replicaConfig()); err != nil {
		nh.Close()
		return nil, orca.PathE(op, cfg.Dir, orca.Unavailable, err)
	}
	return &Raw{nh: nh, session: nh.GetNoOPSession(firstGroup), group: h.group}, nil
}

// Leads reports whether this member leads the group.
func (r *Raw) Leads() bool {
	leads, _ := r.group.Leader()
	return leads
}

// elected waits until the group has a leader and takes proposals.
func (r *Raw) elected() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := r.nh.SyncPropose(ctx, r.session, []byte{0})
		if err == nil {
			return nil
		}
		if !dragonboat.IsTempError(err) && !errors.Is(err, dragonboat.ErrShardNotReady) {
			return orca.PathE("raftgroup.OpenRaw", "", orca.Unavailable, err)
		}
		select {
		case <-ctx.Done():
			return orca.PathE("raftgroup.OpenRaw", "", orca.Timeout, err)
		case <-tick.C:
		}
	}
}

// Propose commits and applies one payload as one journal entry. ctx needs a
// deadline.
func (r *Raw) Propose(ctx context.Context, payload []byte) error {
	_, err := r.nh.SyncPropose(ctx, r.session, payload)
	if err != nil {
		return orca.PathE("raftgroup.Raw.Propose", "", orca.Unavailable, err)
	}
	return nil
}

// Close stops the group.
func (r *Raw) Close() error {
	r.nh.Close()
	return nil
}

// noMachine is a state machine that keeps nothing.
type noMachine struct{}

// Open starts from nothing.
func (noMachine) Open(<-chan struct{}) (uint64, error) { return 0, nil }

// Update acknowledges.
func (noMachine) Update(entries []sm.Entry) ([]sm.Entry, error) {
	for i := range entries {
		entries[i].Result = sm.Result{Value: 1}
	}
	return entries, nil
}

// Lookup finds nothing.
func (noMachine) Lookup(any) (any, error) { return nil, nil }

// Sync has nothing to make durable.
func (noMachine) Sync() error { return nil }

// PrepareSnapshot does nothing.
func (noMachine) PrepareSnapshot() (any, error) { return nil, nil }

// SaveSnapshot writes nothing.
func (noMachine) SaveSnapshot(any, io.Writer, <-chan struct{}) error { return nil }

// RecoverFromSnapshot reads nothing.
func (noMachine) RecoverFromSnapshot(io.Reader, <-chan struct{}) error { return nil }

// Close does nothing.
func (noMachine) Close() error { return nil }
