// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"orca/engine/cli"
	"orca/engine/client"
	"orca/engine/daemon"
	"orca/engine/telemetry"
	"orca/metaplane/raftgroup"
	"orca/tiers/evict"
	"orca/tiers/tiered"
)

func logger(o cli.LogOptions, s cli.Streams) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	return telemetry.NewLogger(s.Err, levels[o.Level], s.ErrTTY && !o.JSON)
}

func nodeConfig(o cli.NodeOptions) daemon.Config {
	return daemon.Config{
		Data: o.Data, Node: o.Node, Rack: o.Rack,
		Root: o.Root, RootOptions: o.RootOptions, RootReadOnly: o.RootReadOnly, SyncInterval: o.SyncInterval, TrashRetention: o.TrashRetention,
		MetaAddr: o.MetaAddr, WebAddr: o.WebAddr, WorkerAddr: o.WorkerAddr, WorkerWebAddr: o.WorkerWebAddr,
		MetaCache: o.MetaCache,
		Mem:       o.MemBytes, SSD: o.SSDBytes, MemDir: o.MemDir, SSDDir: o.SSDDir,
		WholeMax: o.WholeMax, WriteType: o.WriteType, ScrubPeriod: o.ScrubPeriod, ScrubRate: o.ScrubRate,
		Dirs:     o.Dirs,
		Replicas: o.Replicas, RepairAfter: o.RepairAfter, RepairRate: o.RepairRate,
		Tiers: tiered.Config{Policy: o.EvictPolicy, Alloc: o.AllocPolicy, MoveRate: o.MoveRate, Marks: evict.Marks{High: o.HighWatermark, Low: o.LowWatermark}},
	}
}

func up(ctx context.Context, o cli.UpOptions, s cli.Streams) error {
	cfg := nodeConfig(o.NodeOptions)
	cfg.MountDir, cfg.AllowOther = o.Mount, o.AllowOther
	return daemon.Up(ctx, cfg, s.Out, logger(o.Log, s))
}

func start(ctx context.Context, o cli.StartOptions, s cli.Streams) error {
	cfg := nodeConfig(o.NodeOptions)
	cfg.Meta, cfg.RaftAddr, cfg.Join, cfg.Peers = o.Meta, o.RaftAddr, o.Join, peers(o.Peers)
	cfg.RaftTLS = raftgroup.TLS{CA: o.RaftTLSCA, Cert: o.RaftTLSCert, Key: o.RaftTLSKey}
	log := logger(o.Log, s)
	switch meta, worker := slices.Contains(o.Roles, "meta"), slices.Contains(o.Roles, "worker"); {
	case meta && worker:
		return daemon.Up(ctx, cfg, s.Out, log)
	case meta:
		return daemon.StartMeta(ctx, cfg, s.Out, log)
	default:
		return daemon.StartWorker(ctx, cfg, s.Out, log)
	}
}

func mount(ctx context.Context, o cli.MountOptions, s cli.Streams) error {
	log := logger(o.Log, s)
	fs, err := client.Open(ctx, client.Config{Addresses: o.Addresses, Node: o.Node, Rack: o.Rack, ReadPolicy: o.ReadPolicy, WritePolicy: o.WritePolicy,
		ReadFrom: o.ReadFrom, ShortCircuit: o.ShortCircuit, Logger: log})
	if err != nil {
		return err
	}
	defer fs.Close()
	return daemon.Mount(ctx, daemon.MountConfig{Dir: o.Dir, Path: o.Path, ReadOnly: o.ReadOnly, AllowOther: o.AllowOther}, fs, s.Out, log)
}

// peers takes NODE=HOST:PORT apart, whose spelling the command line has checked.
func peers(list []string) (out []daemon.Peer) {
	for _, p := range list {
		node, addr, _ := strings.Cut(p, "=")
		out = append(out, daemon.Peer{Node: node, Addr: addr})
	}
	return out
}

func restore(ctx context.Context, o cli.RestoreOptions, s cli.Streams) (*cli.Restored, error) {
	cfg := daemon.Config{Data: o.Data, Node: o.Node, RaftAddr: o.RaftAddr, Peers: peers(o.Peers)}
	r, err := daemon.Restore(ctx, cfg, o.File, daemon.RestoreOptions{Replace: o.Replace, Progress: o.Progress}, logger(cli.LogOptions{Level: "warn"}, s))
	if err != nil {
		return nil, err
	}
	return &cli.Restored{Header: r.Backup.Header, Trailer: r.Backup.Trailer, Cluster: r.Cluster, Aside: r.Aside}, nil
}

func inspect(data string, group uint16) (cli.Inspection, error) {
	x, err := daemon.Inspect(data, group, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return inspection{x}, nil
}

// inspection is a folder that is read, as the command line wants it.
type inspection struct{ *raftgroup.Inspection }

// About implements cli.Inspection.
func (x inspection) About() cli.MemberState {
	return cli.MemberState{Cluster: x.Cluster, Group: x.Group, Address: x.Address, Replica: x.Replica, Restored: x.Restored, Term: x.Term, Vote: x.Vote, Applied: x.Applied}
}

// Records implements cli.Inspection.
func (x inspection) Records(fn func(key, value []byte) error) error {
	c, err := x.Inspection.Records()
	if err != nil {
		return err
	}
	for {
		k, v, err := c.Next()
		if err == nil && k != nil {
			err = fn(k, v)
		}
		if err != nil || k == nil {
			return errors.Join(err, c.Close())
		}
	}
}
