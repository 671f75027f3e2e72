// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/statemachine"
	"github.com/lni/vfs"

	"orca"
)

// Host runs the groups of one process.
type Host struct {
	cfg   Config
	log   *slog.Logger
	f     *format
	nh    *dragonboat.NodeHost
	lock  *os.File
	group *Group                    // the first
	net   atomic.Pointer[transport] // nil of a host that is alone
	fresh bool                      // its folder began in this life, as a first member's
	gone  sync.Once                 // this member was removed
	// broken counts the links to other members that the engine was told are: it
	// does not use one again for up to a second and a half.
	broken atomic.Int64

	armor armor // of its connections

	dying sync.Once
	dead  chan struct{} // closed by fatal
	why   string        // of it; read after dead is closed

	mu     sync.Mutex
	groups map[uint64]*Group // by number; GUARDED_BY(mu)
}

// Open opens the host in cfg.Dir, creating it on first use. Busy: another
// process has it. Corrupt: the journal of a known replica is missing.
func Open(cfg Config, log *slog.Logger) (*Host, error) {
	const op = "raftgroup.Open"
	if err := errors.Join(cfg.Validate(), refuseSettings()); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, orca.PathE(op, cfg.Dir, orca.Unavailable, err)
	}
	lk, err := lock(cfg.Dir)
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, log: log, lock: lk, armor: armor{files: cfg.TLS, log: log}, dead: make(chan struct{})}
	opened := make(chan error, 1)
	go func() { opened <- h.open() }() // a disk that fails there leaves it hanging
	select {
	case err := <-opened:
		if err != nil {
			return nil, errors.Join(err, lk.Close())
		}
		return h, nil
	case <-h.dead:
		return nil, &orca.Error{Op: op, Path: cfg.Dir, Kind: orca.Unavailable, Msg: h.why}
	}
}

// fatal reports the end of this member.
func (h *Host) fatal(reason string) {
	h.dying.Do(func() {
		h.log.Error("this member has failed and ends", "error", reason)
		h.why = reason
		close(h.dead)
		if h.cfg.OnFatal != nil {
			h.cfg.OnFatal(reason)
		}
	})
}

// dieGrace is how long who was told of the end of this member has to end the
// process; then a panic does.
const dieGrace = 5 * time.Second

// die reports the end of this member, and does not return: what has failed is
// not gone on with.
func (h *Host) die(reason string) {
	h.fatal(reason)
	if h.cfg.OnFatal != nil {
		time.Sleep(dieGrace)
	}
	panic("FATAL: metaplane member: " + reason)
}

// open does what Open does, under the lock of the folder.
func (h *Host) open() error {
	var err error
	if h.f, err = loadFormat(h.cfg); err != nil {
		return err
	}
	if h.f.alone() && h.cfg.TLS.On() {
		return orca.E("raftgroup.Open", orca.Invalid, "an Orca of one member has no Raft port: TLS between members is for several")
	}
	if h.cfg.TLS.On() {
		if h.armor.good, err = h.cfg.TLS.load(); err != nil {
			return err
		}
	}
	h.cfg.Journal = h.f.Journal
	routeRaftLog(h.log)
	if !h.f.alone() && !h.f.Started {
		h.fresh = len(h.f.Members) > 0
		if err := h.probe(); err != nil {
			if h.f.Restored != "" {
				return err
			}
			return errors.Join(err, os.Remove(filepath.Join(h.cfg.Dir, formatFile)))
		}
	}
	die := h.die
	dieTo.Store(&die)
	h.group = newGroup(h, firstGroup, &h.f.part)
	h.groups = map[uint64]*Group{firstGroup: h.group}
	if h.cfg.Journal == journalTan {
		if err := cutLogs(filepath.Join(h.cfg.Dir, journalDir)); err != nil {
			return orca.PathE("raftgroup.Open", h.cfg.Dir, orca.Unavailable, err)
		}
	}
	if h.nh, err = dragonboat.NewNodeHost(h.nodeHostConfig()); err != nil {
		return orca.PathE("raftgroup.Open", h.cfg.Dir, orca.Unavailable, err)
	}
	if err := h.group.start(); err != nil {
		h.group.stop()
		h.nh.Close()
		return errors.Join(err, h.group.closeStore(false))
	}
	return nil
}

// nodeHostConfig is dragonboat's configuration, trimmed: few workers make
// large batches, and tan's sixteen buffers are held small.
func (h *Host) nodeHostConfig() config.NodeHostConfig {
	db := config.GetTinyMemLogDBConfig()
	db.Shards = h.f.Shards
	db.KVWriteBufferSize = 8 << 20
	c := config.NodeHostConfig{
		DeploymentID:        h.f.Deployment,
		NodeHostDir:         filepath.Join(h.cfg.Dir, journalDir),
		RTTMillisecond:      5,
		RaftAddress:         h.f.Address,
		MaxSendQueueSize:    64 << 20,
		MaxReceiveQueueSize: 64 << 20,
		RaftEventListener:   (*listener)(h),
		SystemEventListener: (*listener)(h),
		Expert: config.ExpertConfig{
			Engine: config.EngineConfig{
				ExecShards: h.f.Shards, CommitShards: 2, ApplyShards: 2, SnapshotShards: 2, CloseShards: 1,
			},
		},
	}
	if h.f.alone() {
		c.Expert.TransportFactory = noTransport{}
	} else {
		c.Expert.TransportFactory = network{h}
		c.RTTMillisecond = clusterTick
	}
	if h.cfg.Journal == journalTan {
		db.KVWriteBufferSize = 1 << 20
		c.Expert.LogDBFactory = lockedTanFactory{}
		// The other journal takes no disk but the default one.
		c.Expert.FS = &watchedDisk{FS: vfs.Default, die: h.die, log: h.log}
	}
	c.Expert.LogDB = db
	return c
}

// start starts the group's replica.
func (g *Group) start() error {
	const op = "raftgroup.Open"
	h := g.host
	known := h.nh.HasNodeInfo(g.shard, h.f.replica())
	if g.part.Started && !known {
		msg := "the journal of this member is gone: restore it, or remove the folder and start anew"
		if !h.f.alone() {
			id := strconv.FormatUint(h.f.Replica, 10)
			msg = "the journal of this member is gone, and with it what it acknowledged: restore it, or replace the member (orca admin quorum remove " +
				id + ", then add a new one with an empty folder)"
		}
		return &orca.Error{Op: op, Path: h.cfg.Dir, Kind: orca.Corrupt, Msg: msg}
	}
	if err := g.storeThere(); err != nil {
		return err
	}
	if err := sweepStores(g.dir, g.part.Store); err != nil {
		return err
	}
	if err := g.openStore(); err != nil {
		return err
	}
	if err := g.boot(); err != nil {
		return orca.PathE(op, h.cfg.Dir, orca.Unavailable, err)
	}
	if h.f.alone() { // the others of a cluster may come later
		if err := g.awaitLeader(); err != nil {
			return err
		}
	}
	g.run()
	if !g.part.Started {
		return h.f.update(h.cfg.Dir, func() { g.part.Started = true })
	}
	return nil
}

// boot has the engine run the replica, from what it has.
func (g *Group) boot() error {
	members := g.part.Members
	if g.host.f.alone() {
		members = map[uint64]dragonboat.Target{loneReplica: g.host.f.Address}
	}
	create := func(uint64, uint64) statemachine.IOnDiskStateMachine { return (*replica)(g) }
	return g.host.nh.StartOnDiskReplica(members, len(members) == 0, create, g.replicaConfig())
}

// storeThere refuses to begin with an empty store when there was one: the
// journal is cut behind what a store holds, so that it cannot be filled again.
func (g *Group) storeThere() error {
	dir := storeDir(g.dir, g.part.Store)
	if _, err := os.Stat(dir); !g.part.Started || err == nil {
		return nil
	}
	msg := "the store of this Orca is gone: restore it together with the journal, or remove the folder and start anew"
	if !g.Alone() {
		id := strconv.FormatUint(g.host.f.Replica, 10)
		msg = "the store of this member is gone: restore it together with the journal, or replace the member (orca admin quorum remove " +
			id + ", then add a new one with an empty folder)"
	}
	return &orca.Error{Op: "raftgroup.Open", Path: dir, Kind: orca.Corrupt, Msg: msg}
}

// votes reports whether this replica is a voter as far as it has applied.
func (g *Group) votes() bool {
	_, ok := g.voters()[g.host.f.replica()]
	return ok
}

// voters are the voters as far as this host has applied, by replica.
func (g *Group) voters() map[uint64]string {
	for _, s := range g.host.nh.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}).ShardInfoList {
		if s.ShardID == g.shard {
			return s.Replicas
		}
	}
	return nil
}

// promoted notes that this replica learns no more.
func (g *Group) promoted() error {
	return g.host.f.update(g.host.cfg.Dir, func() { g.part.Learner = false })
}

// promotionLoop waits for a learner's promotion.
func (g *Group) promotionLoop() {
	for !g.votes() {
		select {
		case <-g.membership:
		case <-g.quit:
			return
		}
	}
	if err := g.promoted(); err != nil {
		g.host.fatal(err.Error())
	}
}

// A cluster's tick, in ms, and its times in ticks: a leader that is silent is
// replaced after one to two election times.
const (
	clusterTick      = 10
	clusterElection  = 25
	clusterHeartbeat = 4
)

// replicaConfig is dragonboat's configuration of a replica.
func (g *Group) replicaConfig() config.Config {
	h := g.host
	c := config.Config{
		ReplicaID: h.f.replica(), ShardID: g.shard, ElectionRTT: 20, HeartbeatRTT: 2, CheckQuorum: true,
		OrderedConfigChange: true, MaxInMemLogSize: 256 << 20, SnapshotEntries: h.cfg.SnapshotEntries,
		CompactionOverhead: h.cfg.SnapshotEntries / 4, WaitReady: true,
	}
	if !h.f.alone() {
		// Who joined has in its journal, or in what it starts from, that it was let
		// in to learn and what became of that: the engine makes it a voter there,
		// and panics when a voter reads that it learns.
		c.IsNonVoting = len(g.part.Members) == 0
		c.ElectionRTT, c.HeartbeatRTT, c.PreVote = clusterElection, clusterHeartbeat, true
	}
	return c
}

// electTimeout is how long a host that is alone may take to lead: it reads what
// its journal has behind the last cut first.
const electTimeout = 5 * time.Minute

// awaitLeader waits for the first leader, as proposals before it are dropped.
func (g *Group) awaitLeader() error {
	deadline := time.After(electTimeout)
	for {
		g.mu.Lock()
		leader, changed := g.leader, g.changed
		g.mu.Unlock()
		if leader != 0 {
			return nil
		}
		select {
		case <-changed:
		case <-deadline:
			return orca.E("raftgroup.Open", orca.Unavailable, "no leader was elected")
		}
	}
}

// Group returns the first group.
func (h *Host) Group() *Group { return h.group }

// Cluster returns the random identity of this cluster, made on first use.
func (h *Host) Cluster() string { return h.f.Cluster }

// Address returns this host's Raft address; "" when it is alone.
func (h *Host) Address() string {
	if h.f.alone() {
		return ""
	}
	return h.f.Address
}

// Close stops proposing, flushes and stops everything.
func (h *Host) Close() error {
	all := h.all()
	for _, g := range all {
		g.stop()
	}
	h.nh.Close()
	var errs []error
	for _, g := range all {
		errs = append(errs, g.closeStore(true))
	}
	return errors.Join(append(errs, h.lock.Close())...)
}

// listener is the host as dragonboat tells it what happens.
type listener Host

// LeaderUpdated is called by dragonboat.
func (l *listener) LeaderUpdated(info raftio.LeaderInfo) {
	g := (*Host)(l).find(info.ShardID)
	if g == nil {
		return
	}
	g.mu.Lock()
	g.leader, g.term = info.LeaderID, info.Term
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	if info.LeaderID != g.host.f.replica() {
		g.deposed()
	}
}

// MembershipChanged is called by dragonboat: local reads need a new proof.
func (l *listener) MembershipChanged(info raftio.NodeInfo) {
	g := (*Host)(l).find(info.ShardID)
	if g == nil {
		return
	}
	g.reads.reset()
	for _, c := range []chan struct{}{g.membership, g.changes} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// The other system events are of no interest.

// NodeHostShuttingDown does nothing.
func (*listener) NodeHostShuttingDown() {}

// NodeUnloaded does nothing.
func (*listener) NodeUnloaded(raftio.NodeInfo) {}

// NodeDeleted is called when this member has applied its own removal.
func (l *listener) NodeDeleted(info raftio.NodeInfo) {
	if info.ShardID == firstGroup { // it is removed from the others for it
		go (*Host)(l).removed("the journal")
	}
}

// NodeReady does nothing.
func (*listener) NodeReady(raftio.NodeInfo) {}

// ConnectionEstablished does nothing.
func (*listener) ConnectionEstablished(raftio.ConnectionInfo) {}

// ConnectionFailed counts the links that have broken.
func (l *listener) ConnectionFailed(raftio.ConnectionInfo) { l.broken.Add(1) }

// SendSnapshotStarted does nothing.
func (*listener) SendSnapshotStarted(raftio.SnapshotInfo) {}

// SendSnapshotCompleted does nothing.
func (*listener) SendSnapshotCompleted(raftio.SnapshotInfo) {}

// SendSnapshotAborted does nothing.
func (*listener) SendSnapshotAborted(raftio.SnapshotInfo) {}

// SnapshotReceived does nothing.
func (*listener) SnapshotReceived(raftio.SnapshotInfo) {}

// SnapshotRecovered does nothing.
func (*listener) SnapshotRecovered(raftio.SnapshotInfo) {}

// SnapshotCreated does nothing.
func (*listener) SnapshotCreated(raftio.SnapshotInfo) {}

// SnapshotCompacted does nothing.
func (*listener) SnapshotCompacted(raftio.SnapshotInfo) {}

// LogCompacted does nothing.
func (*listener) LogCompacted(raftio.EntryInfo) {}

// LogDBCompacted does nothing.
func (*listener) LogDBCompacted(raftio.EntryInfo) {}
