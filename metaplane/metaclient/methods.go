// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// The mutations: numbered, and repeated with the same number.

// Mkdir is metaplane.Namespace's, exactly once.
func (s *Session) Mkdir(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.MkdirReply, error) { return s.ns.Mkdir(ctx, r) })
}

// Rename is metaplane.Namespace's, exactly once.
func (s *Session) Rename(ctx context.Context, r *metapb.RenameRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.Rename(ctx, r) })
}

// Link is metaplane.Namespace's, exactly once.
func (s *Session) Link(ctx context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.LinkReply, error) { return s.ns.Link(ctx, r) })
}

// Delete is metaplane.Namespace's, exactly once.
func (s *Session) Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.Delete(ctx, r) })
}

// SetAttr is metaplane.Namespace's, exactly once.
func (s *Session) SetAttr(ctx context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.SetAttrReply, error) { return s.ns.SetAttr(ctx, r) })
}

// SetQuota is metaplane.Namespace's, exactly once.
func (s *Session) SetQuota(ctx context.Context, r *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.SetQuotaReply, error) { return s.ns.SetQuota(ctx, r) })
}

// RestoreTrash is metaplane.Namespace's, exactly once.
func (s *Session) RestoreTrash(ctx context.Context, r *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.RestoreTrashReply, error) { return s.ns.RestoreTrash(ctx, r) })
}

// PurgeTrash is metaplane.Namespace's, exactly once.
func (s *Session) PurgeTrash(ctx context.Context, r *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.PurgeTrashReply, error) { return s.ns.PurgeTrash(ctx, r) })
}

// Free is metaplane.Namespace's, exactly once.
func (s *Session) Free(ctx context.Context, r *metapb.FreeRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.Free(ctx, r) })
}

// Create is metaplane.Namespace's, exactly once.
//
// An answer that comes late, or was remembered for a request that is repeated,
// may be about a write session that has expired since: its writer would upload
// for one whose remains have been swept already. Then another one is opened.
func (s *Session) Create(ctx context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	for again := 0; ; again++ {
		began := time.Now()
		rep, err := mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.CreateReply, error) { return s.ns.Create(ctx, r) })
		if err != nil || rep.Session == nil || time.Since(began) < time.Duration(rep.Session.TtlMs)*time.Millisecond {
			return rep, err
		}
		old, err := s.Renew(ctx, &metapb.RenewRequest{H: r.H, Sessions: []uint64{rep.Session.Id}})
		if err != nil {
			return nil, err
		}
		if len(old.Expired) == 0 {
			return rep, nil
		}
		if again == maxReopened {
			return nil, &orca.Error{Op: "metaclient.Create", Path: r.Target.GetPath(), Kind: orca.Timeout, Msg: "the answers take longer than a write session lives"}
		}
	}
}

// maxReopened is how often a write session is opened anew that had expired when
// its client heard of it.
const maxReopened = 3

// Complete is metaplane.Namespace's, exactly once.
func (s *Session) Complete(ctx context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.CompleteReply, error) { return s.ns.Complete(ctx, r) })
}

// Abandon is metaplane.Namespace's, exactly once.
func (s *Session) Abandon(ctx context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.Abandon(ctx, r) })
}

// SetXattr is metaplane.Namespace's, exactly once.
func (s *Session) SetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.SetXattr(ctx, r) })
}

// RemoveXattr is metaplane.Namespace's, exactly once.
func (s *Session) RemoveXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.RemoveXattr(ctx, r) })
}

// Mount is metaplane.Namespace's, exactly once, and tried once: a store that
// cannot be reached fails the mount at once, with the failing request.
func (s *Session) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	return numbered(ctx, s, 0, &r.H, func(ctx context.Context) (*metapb.MountReply, error) { return s.ns.Mount(ctx, r) })
}

// Unmount is metaplane.Namespace's, exactly once.
func (s *Session) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.Unmount(ctx, r) })
}

// PersistPrepare is metaplane.Namespace's, exactly once.
func (s *Session) PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.PersistPrepareReply, error) { return s.ns.PersistPrepare(ctx, r) })
}

// PersistCommit is metaplane.Namespace's, exactly once.
func (s *Session) PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.PersistCommit(ctx, r) })
}

// Hosted is metaplane.Namespace's, exactly once unless it only reads.
func (s *Session) Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error) {
	if r.Read {
		return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.HostedReply, error) { return s.ns.Hosted(ctx, r) })
	}
	return mutate(ctx, s, &r.H, func(ctx context.Context) (*metapb.HostedReply, error) { return s.ns.Hosted(ctx, r) })
}

// The reads, and calls that may be done twice.

// Stat is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.StatReply, error) { return s.ns.Stat(ctx, r) })
}

// List is metaplane.Namespace's, repeated while the server is away.
func (s *Session) List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ListReply, error) { return s.ns.List(ctx, r) })
}

// Open is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.OpenReply, error) { return s.ns.Open(ctx, r) })
}

// Locations is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Locations(ctx context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.LocationsReply, error) { return s.ns.Locations(ctx, r) })
}

// Sync is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Sync(ctx context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.SyncReply, error) { return s.ns.Sync(ctx, r) })
}

// Renew is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Renew(ctx context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.RenewReply, error) { return s.ns.Renew(ctx, r) })
}

// GetXattr is metaplane.Namespace's, repeated while the server is away.
func (s *Session) GetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.XattrReply, error) { return s.ns.GetXattr(ctx, r) })
}

// ListXattr is metaplane.Namespace's, repeated while the server is away.
func (s *Session) ListXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.XattrReply, error) { return s.ns.ListXattr(ctx, r) })
}

// Usage is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Usage(ctx context.Context, r *metapb.UsageRequest) (*metapb.UsageReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.UsageReply, error) { return s.ns.Usage(ctx, r) })
}

// Quotas is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Quotas(ctx context.Context, r *metapb.QuotasRequest) (*metapb.QuotasReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.QuotasReply, error) { return s.ns.Quotas(ctx, r) })
}

// Trash is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Trash(ctx context.Context, r *metapb.TrashRequest) (*metapb.TrashReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.TrashReply, error) { return s.ns.Trash(ctx, r) })
}

// ListMounts is metaplane.Namespace's, repeated while the server is away.
func (s *Session) ListMounts(ctx context.Context, r *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ListMountsReply, error) { return s.ns.ListMounts(ctx, r) })
}

// ListWorkers is metaplane.Namespace's, repeated while the server is away.
func (s *Session) ListWorkers(ctx context.Context, r *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ListWorkersReply, error) { return s.ns.ListWorkers(ctx, r) })
}

// Resolve is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Resolve(ctx context.Context, r *metapb.ResolveRequest) (*metapb.ResolveReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ResolveReply, error) { return s.ns.Resolve(ctx, r) })
}

// Hold is metaplane.Namespace's, tried once: who holds says it again.
func (s *Session) Hold(ctx context.Context, r *metapb.HoldRequest) (*metapb.Empty, error) {
	r.H = s.header(r.H, ticket{})
	return s.ns.Hold(ctx, r)
}

// StaleUFS is metaplane.Namespace's, repeated while the server is away.
func (s *Session) StaleUFS(ctx context.Context, r *metapb.StaleUFSRequest) (*metapb.Empty, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.Empty, error) { return s.ns.StaleUFS(ctx, r) })
}

// Report is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Report(ctx context.Context, r *metapb.ReportRequest) (*metapb.ReportReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ReportReply, error) { return s.ns.Report(ctx, r) })
}

// Conf is metaplane.Namespace's, repeated while the server is away.
func (s *Session) Conf(ctx context.Context, r *metapb.ConfRequest) (*metapb.ConfReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.ConfReply, error) { return s.ns.Conf(ctx, r) })
}

// Quorum is metaplane.Namespace's, repeated while the server is away: what
// was changed already is not changed again.
func (s *Session) Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.QuorumReply, error) { return s.ns.Quorum(ctx, r) })
}

// Regroup is metaplane.Namespace's, repeated while the server is away: what was
// begun already is not begun again.
func (s *Session) Regroup(ctx context.Context, r *metapb.RegroupRequest) (*metapb.RegroupReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.RegroupReply, error) { return s.ns.Regroup(ctx, r) })
}

// Stage is metaplane.Namespace's, repeated while the server is away: what is
// there already stays as it is.
func (s *Session) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.StageReply, error) { return s.ns.Stage(ctx, r) })
}

// Depart is metaplane.Namespace's, repeated while the server is away: each step
// is taken once.
func (s *Session) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.DepartReply, error) { return s.ns.Depart(ctx, r) })
}

// Upkeep is metaplane.Namespace's, repeated while the server is away: a backup
// goes on where its caller is.
func (s *Session) Upkeep(ctx context.Context, r *metapb.UpkeepRequest) (*metapb.UpkeepReply, error) {
	return read(ctx, s, &r.H, func(ctx context.Context) (*metapb.UpkeepReply, error) { return s.ns.Upkeep(ctx, r) })
}

// Calls whose caller has a loop of its own: one attempt each.

// Watch is metaplane.Namespace's, repeated for as long as an election takes:
// cursors mean the same on every member.
func (s *Session) Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error) {
	r.H = s.header(r.H, ticket{})
	p, err := s.ns.Watch(ctx, r)
	if orca.KindOf(err) != orca.NotLeader && orca.KindOf(err) != orca.Unavailable {
		return p, err
	}
	return repeat(ctx, s, watchPatience, func(ctx context.Context) (*metapb.WatchReply, error) { return s.ns.Watch(ctx, r) })
}

// watchPatience is how long what a watcher has cached may be believed without
// a word from the metaplane.
const watchPatience = time.Second

// Transfer is metaplane.Namespace's, tried once.
func (s *Session) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	r.H = s.header(r.H, ticket{})
	return s.ns.Transfer(ctx, r)
}

// Register is metaplane.Namespace's, tried once.
func (s *Session) Register(ctx context.Context, r *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	r.H = s.header(r.H, ticket{})
	return s.ns.Register(ctx, r)
}

// Heartbeat is metaplane.Namespace's, tried once.
func (s *Session) Heartbeat(ctx context.Context, r *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error) {
	r.H = s.header(r.H, ticket{})
	return s.ns.Heartbeat(ctx, r)
}
