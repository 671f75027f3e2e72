// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"cmp"
	"context"
	"slices"

	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// HostedHandler serves the requests for one hosted machine (jobs).
type HostedHandler interface {
	// ServeHosted answers one request; propose commits a command of the
	// machine and returns its reply, exactly once by the request's header.
	ServeHosted(ctx context.Context, r *metapb.HostedRequest, propose Propose) ([]byte, error)
}

// Propose commits a command of a hosted machine.
type Propose func(ctx context.Context, cmd []byte) ([]byte, error)

// Hosted implements metaplane.Admin. A machine without a handler takes the
// body as its command.
func (s *Service) Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	propose := func(ctx context.Context, cmd []byte) ([]byte, error) {
		return s.ProposeHosted(ctx, r.H, r.Machine, cmd)
	}
	serve := propose
	if h := s.cfg.Hosted[r.Machine]; h != nil {
		serve = func(ctx context.Context, _ []byte) ([]byte, error) { return h.ServeHosted(ctx, r, propose) }
	}
	b, err := serve(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return &metapb.HostedReply{Body: b}, nil
}

// ProposeHosted commits a command of a hosted machine; h may be nil for one of
// the machine's own master.
func (s *Service) ProposeHosted(ctx context.Context, h *metapb.Header, machine string, cmd []byte) ([]byte, error) {
	res, err := s.mutate(ctx, h, &command.Command{Hosted: &metapb.HostedOp{Machine: machine, Body: cmd}})
	if err != nil {
		return nil, err
	}
	return res.Value, nil
}

// Report implements metaplane.Admin.
func (s *Service) Report(ctx context.Context, _ *metapb.ReportRequest) (*metapb.ReportReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	m := s.group.Machine()
	n := m.Counts()
	rep := &metapb.ReportReply{
		Cluster: s.cfg.Cluster, Version: s.cfg.Version, Started: s.started.UnixNano(),
		Inodes: n.Files + n.Dirs, Directories: n.Dirs, Sessions: n.Sessions, Applied: m.Applied(),
		Workers: s.Workers.List(), Counters: s.Counters(),
	}
	for _, mt := range s.mounts.Load().All() {
		rep.Mounts = append(rep.Mounts, mount.Mask(mt))
	}
	for _, in := range m.Intents() {
		st := s.Exec.Status(in.Id)
		rep.Intents = append(rep.Intents, &metapb.Intent{
			Id: in.Id, Op: in.Op.String(), Source: in.Source, Target: in.Target, Created: in.Created,
			Attempts: st.Attempts, Error: st.Err, MountId: in.MountId,
		})
		if len(rep.Intents) >= maxReported {
			break
		}
	}
	return rep, nil
}

// maxReported caps the intents of one report.
const maxReported = 1000

// Counters returns the service's counters by name, for reports and telemetry.
func (s *Service) Counters() map[string]int64 {
	n := s.group.Machine().Counts()
	unpersisted := int64(0)
	for _, mt := range s.group.Machine().Mounts() {
		unpersisted += mt.Unpersisted
	}
	return map[string]int64{
		"to_be_persisted": unpersisted, "reads": s.Stats.Reads.Load(), "mutations": s.Stats.Mutations.Load(),
		"busy_waits": s.Stats.BusyWaits.Load(), "errors": s.Stats.Errors.Load(), "files_lost": s.Stats.Lost.Load(),
		"files": n.Files, "directories": n.Dirs, "sessions": n.Sessions, "intents": n.Intents, "clients": n.Clients,
		"mounts": n.Mounts, "trash": n.Trash, "kept": n.Kept, "quotas": n.Quotas, "quota_refusals": n.OverQuota, "commands": n.Commands, "remembered": n.Remembered,
		"sync_stats": s.Syncer.Stats.Stats.Load(), "sync_lists": s.Syncer.Stats.Lists.Load(),
		"sync_created": s.Syncer.Stats.Created.Load(), "sync_changed": s.Syncer.Stats.Changed.Load(),
		"sync_removed": s.Syncer.Stats.Removed.Load(), "sync_failures": s.Syncer.Stats.Failures.Load(),
		"intents_committed": s.Exec.Stats.Committed.Load(), "intents_aborted": s.Exec.Stats.Aborted.Load(),
		"intents_drained": s.Exec.Stats.Drained.Load(), "intent_retries": s.Exec.Stats.Retries.Load(),
		"ufs_files_moved": s.Exec.Stats.FilesMoved.Load(), "ufs_bytes_moved": s.Exec.Stats.BytesMoved.Load(),
		"ufs_files_removed": s.Exec.Stats.FilesRemoved.Load(), "sessions_swept": s.Exec.Stats.Sessions.Load(),
		"worker_registrations": s.Workers.Stats.Registrations.Load(), "worker_heartbeats": s.Workers.Stats.Heartbeats.Load(),
		"worker_orders": s.Workers.Stats.OrdersSent.Load(), "worker_orders_dropped": s.Workers.Stats.OrdersDropped.Load(),
		"located_files": s.Workers.Stats.Files.Load(),
		"open_files":    s.OpenFiles(), "recalls": s.Stats.Recalls.Load(), "recalls_cut_short": s.Stats.CutShort.Load(),
	}
}

// Conf implements metaplane.Admin; secrets are masked.
func (s *Service) Conf(_ context.Context, _ *metapb.ConfRequest) (*metapb.ConfReply, error) {
	rep := &metapb.ConfReply{}
	if s.cfg.Conf == nil {
		return rep, nil
	}
	for _, v := range s.cfg.Conf() {
		c := &metapb.ConfReply_Value{Key: v.Key, Value: v.Value, Source: v.Source}
		if mount.IsSecret(v.Key) && v.Value != "" {
			c.Value = mount.Masked
		}
		rep.Values = append(rep.Values, c)
	}
	slices.SortFunc(rep.Values, func(a, b *metapb.ConfReply_Value) int { return cmp.Compare(a.Key, b.Key) })
	return rep, nil
}
