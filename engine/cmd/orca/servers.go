// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
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
		Root: o.Root, RootOptions: o.RootOptions, RootReadOnly: o.RootReadOnly, SyncInterval: o.SyncInterval,
		MetaAddr: o.MetaAddr, WebAddr: o.WebAddr, WorkerAddr: o.WorkerAddr, WorkerWebAddr: o.WorkerWebAddr,
		Mem: o.MemBytes, SSD: o.SSDBytes, MemDir: o.MemDir, SSDDir: o.SSDDir,
		WholeMax: o.WholeMax, WriteType: o.WriteType, ScrubPeriod: o.ScrubPeriod, ScrubRate: o.ScrubRate,
		Dirs:  o.Dirs,
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
	cfg.Meta, cfg.RaftAddr, cfg.Join = o.Meta, o.RaftAddr, o.Join
	cfg.RaftTLS = raftgroup.TLS{CA: o.RaftTLSCA, Cert: o.RaftTLSCert, Key: o.RaftTLSKey}
	for _, p := range o.Peers { // the command line has checked the spelling
		node, addr, _ := strings.Cut(p, "=")
		cfg.Peers = append(cfg.Peers, daemon.Peer{Node: node, Addr: addr})
	}
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
	fs, err := client.Open(ctx, client.Config{Addresses: o.Addresses, Node: o.Node, Rack: o.Rack, ReadPolicy: o.ReadPolicy, WritePolicy: o.WritePolicy, Logger: log})
	if err != nil {
		return err
	}
	defer fs.Close()
	return daemon.Mount(ctx, daemon.MountConfig{Dir: o.Dir, Path: o.Path, ReadOnly: o.ReadOnly, AllowOther: o.AllowOther}, fs, s.Out, log)
}
