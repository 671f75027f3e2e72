// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// Usage implements metaplane.Quotas. It asks no store for more than the way to
// the target: the sums are of what the namespace knows.
func (s *Service) Usage(ctx context.Context, r *metapb.UsageRequest) (*metapb.UsageReply, error) {
	const op = "metaserver.Usage"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	ino := orca.Ino(r.Target.Ino)
	if ino == 0 || r.Target.Path != "" {
		w, err := s.resolve(ctx, op, r.H, r.Target, defaultSync)
		if err != nil {
			return nil, err
		}
		ino = orca.Ino(w.Attr.Ino)
	} else if err := s.readyFor(ctx, r.H); err != nil {
		return nil, err
	}
	u, err := s.group.Machine().Usage(ino)
	if err != nil {
		return nil, err
	}
	rep := &metapb.UsageReply{Usage: usageOf(u.Usage), Dir: uint64(u.Dir), Whole: u.Whole}
	for i := range u.Quotas {
		rep.Quotas = append(rep.Quotas, quotaOf(&u.Quotas[i]))
	}
	return rep, nil
}

func usageOf(u fsm.Usage) *metapb.Usage {
	return &metapb.Usage{Bytes: u.Bytes, Files: u.Files, Dirs: u.Dirs}
}

func quotaOf(q *fsm.QuotaView) *metapb.Quota {
	return &metapb.Quota{
		Dir: uint64(q.Dir), Path: q.Path, Bytes: q.Limit.Bytes, Inodes: q.Limit.Inodes, Usage: usageOf(q.Usage),
		HeldBytes: q.HeldBytes, HeldInodes: q.HeldInodes,
	}
}

// SetQuota implements metaplane.Quotas.
func (s *Service) SetQuota(ctx context.Context, r *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error) {
	const op = "metaserver.SetQuota"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	switch {
	case callerOf(r.H).UID != 0:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Permission, Msg: "only root sets quotas"}
	case r.Bytes < -1 || r.Inodes < -1:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Invalid, Msg: "a limit is negative"}
	}
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames,
		SetQuota: &metapb.SetQuotaOp{Target: r.Target, Bytes: r.Bytes, Inodes: r.Inodes}})
	if err != nil {
		return nil, err
	}
	rep := &metapb.SetQuotaReply{Quota: &metapb.Quota{Dir: res.Id}}
	u, err := s.group.Machine().Usage(orca.Ino(res.Id))
	if err == nil && len(u.Quotas) > 0 && u.Quotas[0].Dir == u.Dir {
		rep.Quota = quotaOf(&u.Quotas[0])
	}
	return rep, nil // it is set, whatever has become of the directory since
}

// Quotas implements metaplane.Quotas: those of the directories that the caller
// can reach.
func (s *Service) Quotas(ctx context.Context, r *metapb.QuotasRequest) (*metapb.QuotasReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	rep := &metapb.QuotasReply{}
	for _, q := range s.group.Machine().Quotas(callerOf(r.H)) {
		rep.Quotas = append(rep.Quotas, quotaOf(&q))
	}
	return rep, nil
}
