// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package daemon turns a configuration into running roles: it is the one place
// that knows how the rooms fit together.
//
//	meta     raftgroup ─► metaserver.Service ─► metaserver.Server   (18998, meta.sock)
//	worker   tiered ─► blockservice ─► blockserver, shortcircuit    (28999, worker.sock)
//	         agent: registers, reports, obeys orders; jobworker
//	mount    client ─► fusegw
//	         scrub: reads every block again
//	http     telemetry: metrics, health, profiles; /scrub and /tier of a worker (18999)
//
// Up runs all roles in one process, wired by calls instead of connections;
// Start runs the roles that it is told to. Both return when their context
// ends, after a clean stop in the reverse order of the start: mount first (it
// publishes what is open), then doors, then workers, then the journal.
//
// A member of a cluster (cluster.go) opens its doors first and is ready when it
// takes part; a worker speaks with each member by a voice (voice.go).
//
// Goroutines: one per role's loop, one per voice; errors of a role end the process through
// the run's context. It refuses a data folder that another process holds, and
// ports that are taken, naming the holder.
package daemon

import (
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"orca"
	"orca/jobs/jobmaster"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
	"orca/tiers/alloc"
	"orca/tiers/dir"
	"orca/tiers/evict"
	"orca/tiers/scrub"
	"orca/tiers/tiered"
)

// Ports that Orca listens on when nothing else is said: Alluxio's less 1000,
// so that both can run on one host.
const (
	DefaultMetaPort   = 18998
	DefaultWorkerPort = 28999
)

// Config of one process. Zero fields have the stated defaults.
type Config struct {
	// Data is the folder of all state; it is created.
	Data string
	// Node is what counts as local. Default: the host name.
	Node string
	// Rack is what the node stands in, "" for none.
	Rack string
	// Root is the UFS mounted at "/": a folder or a URI. Default on the first
	// start: DATA/files; afterwards what the namespace has.
	Root        string
	RootOptions map[string]string
	// RootReadOnly makes every write under the root mount fail.
	RootReadOnly bool
	// MountDir gets a FUSE mount; "": none.
	MountDir   string
	AllowOther bool
	// SyncInterval of the root mount; negative: load once.
	SyncInterval time.Duration
	// TrashRetention of the root mount when it is made; 0: nothing is kept.
	TrashRetention time.Duration
	// MetaAddr and WorkerAddr are host:port; port 0 chooses one. Defaults:
	// loopback, 18998 and 28999.
	MetaAddr, WorkerAddr string
	// WebAddr and WorkerWebAddr are the HTTP doors of a process with and
	// without the meta role; "" opens none.
	WebAddr, WorkerWebAddr string
	// RaftAddr is where a member of a cluster speaks with the others; kept
	// from the first start on. Default: that of Node among Peers.
	RaftAddr string
	// Peers are the first members of a new cluster; all are given the same.
	Peers []Peer
	// RaftTLS are the files by which members know each other; none: they speak
	// in the clear. Given at each start.
	RaftTLS raftgroup.TLS
	// MetaCache is the memory, in bytes, for what was read of the store of the
	// metaplane, per group; 0: the default, 64 MiB.
	MetaCache int64
	// Join are addresses of a running cluster that this member was added to.
	Join []string
	// Meta are the metaplane members that a process without that role asks.
	Meta []string
	// Mem and SSD are the quotas of the tiers in bytes; 0 means the default: a
	// quarter of the memory, at most 4 GiB; a tenth of the free disk, at most
	// 64 GiB. Negative leaves the tier out.
	Mem, SSD int64
	// Dirs are further tier directories.
	Dirs []dir.Config
	// Tiers says how the worker's store treats its directories; Dirs of it are
	// set from the above.
	Tiers tiered.Config
	// MemDir and SSDDir override the folders. Default below Data.
	MemDir, SSDDir string
	// ScrubPeriod is within what time every cached block is read again and
	// compared with its checksums (default 24 h; negative: only when asked),
	// ScrubRate at how many bytes per second at most (default 32 MiB/s).
	ScrubPeriod time.Duration
	ScrubRate   int64
	// WholeMax is the cluster fact block.whole_max in bytes. Default: the
	// smaller of 4 GiB and half of the largest tier.
	WholeMax int64
	// WriteType of a create that names none. Default CACHE_THROUGH.
	WriteType orca.WriteType
	// Replicas of a create that names none. Default 1.
	Replicas uint32
	// RepairAfter is for how long copies of a file may be too few or too many
	// before that is put right (default 30 s), RepairRate how many bytes per
	// second a worker takes for that at most (default 128 MiB/s).
	RepairAfter time.Duration
	RepairRate  int64
	// SessionTTL is the term of a write session. Default 15 s.
	SessionTTL time.Duration
}

// defaultMetaCache is Config.MetaCache by default.
const defaultMetaCache = 64 << 20

// resolve fills in what depends on the host.
func (c *Config) resolve() error {
	const op = "daemon.Config"
	if c.Data == "" {
		return orca.E(op, orca.Invalid, "no data folder: give --data DIR")
	}
	abs, err := filepath.Abs(c.Data)
	if err != nil {
		return orca.PathE(op, c.Data, orca.Invalid, err)
	}
	c.Data = abs
	if c.Node == "" {
		if c.Node, err = os.Hostname(); err != nil {
			return orca.PathE(op, "", orca.Internal, err)
		}
	}
	if err := c.resolveCluster(); err != nil {
		return err
	}
	c.MetaCache = cmp.Or(c.MetaCache, defaultMetaCache)
	c.MetaAddr = cmp.Or(c.MetaAddr, loopbackPort(DefaultMetaPort))
	c.WorkerAddr = cmp.Or(c.WorkerAddr, loopbackPort(DefaultWorkerPort))
	c.MemDir = cmp.Or(c.MemDir, filepath.Join(c.Data, "run", "mem"))
	c.SSDDir = cmp.Or(c.SSDDir, filepath.Join(c.Data, "worker", "ssd"))
	if c.Mem == 0 {
		c.Mem = min(memoryLimit()/4, 4<<30)
	}
	if c.SSD == 0 {
		if err := os.MkdirAll(c.Data, 0o755); err != nil {
			return orca.PathE(op, c.Data, orca.Permission, err)
		}
		free, err := diskFree(c.Data)
		if err != nil {
			return err
		}
		c.SSD = min(free/10, 64<<30)
	}
	c.ScrubPeriod = cmp.Or(c.ScrubPeriod, scrub.DefaultPeriod)
	c.ScrubRate = cmp.Or(c.ScrubRate, scrub.DefaultRate)
	if c.WholeMax == 0 {
		largest := max(c.Mem, c.SSD)
		for _, d := range c.Dirs {
			largest = max(largest, d.Capacity)
		}
		c.WholeMax = max(orca.DefaultBlockSize, min(orca.MaxWholeBlock, largest/2))
	}
	return nil
}

func scrubPeriod(d time.Duration) string {
	if d < 0 {
		return "off"
	}
	return d.String()
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func loopbackPort(p int) string { return "127.0.0.1:" + strconv.Itoa(p) }

// values is the effective configuration for `orca admin getConf`.
func (c *Config) values() []*metapb.ConfReply_Value {
	v := func(key, value, source string) *metapb.ConfReply_Value {
		return &metapb.ConfReply_Value{Key: key, Value: value, Source: source}
	}
	return []*metapb.ConfReply_Value{
		v("data", c.Data, "flag"),
		v("node", c.Node, "node"),
		v("rack", c.Rack, "node"),
		v("meta.addr", c.MetaAddr, "node"),
		v("meta.raft_addr", c.RaftAddr, "node"),
		v("meta.raft_tls", onOff(c.RaftTLS.On()), "node"),
		v("meta.cache", strconv.FormatInt(c.MetaCache, 10), "node"),
		v("web.addr", c.WebAddr, "node"),
		v("worker.addr", c.WorkerAddr, "node"),
		v("worker.tiers.mem.capacity", strconv.FormatInt(c.Mem, 10), "node"),
		v("worker.tiers.ssd.capacity", strconv.FormatInt(c.SSD, 10), "node"),
		v("worker.tiers.evict_policy", cmp.Or(c.Tiers.Policy, evict.Default), "node"),
		v("worker.tiers.high_watermark", strconv.FormatFloat(cmp.Or(c.Tiers.Marks.High, evict.DefaultMarks.High), 'g', -1, 64), "node"),
		v("worker.tiers.low_watermark", strconv.FormatFloat(cmp.Or(c.Tiers.Marks.Low, evict.DefaultMarks.Low), 'g', -1, 64), "node"),
		v("worker.tiers.alloc_policy", cmp.Or(c.Tiers.Alloc, alloc.Default), "node"),
		v("worker.scrub.period", scrubPeriod(c.ScrubPeriod), "node"),
		v("worker.scrub.rate", strconv.FormatInt(c.ScrubRate, 10), "node"),
		v("block.whole_max", strconv.FormatInt(c.WholeMax, 10), "cluster"),
		v("block.size", strconv.FormatInt(orca.DefaultBlockSize, 10), "cluster"),
		v("write.type", cmp.Or(c.WriteType, orca.CacheThrough).String(), "cluster"),
		v("replication.default", strconv.FormatUint(uint64(max(c.Replicas, 1)), 10), "cluster"),
		v("replication.repair_after", cmp.Or(c.RepairAfter, jobmaster.DefaultRepairAfter).String(), "cluster"),
		v("replication.repair_rate", strconv.FormatInt(cmp.Or(c.RepairRate, jobmaster.DefaultRepairRate), 10), "cluster"),
		v("session.ttl", cmp.Or(c.SessionTTL, 15*time.Second).String(), "cluster"),
	}
}
