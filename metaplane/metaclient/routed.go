// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/metapb"
)

// Calls about a path or an inode: they go to the group that has it.

// Stat is metaplane.Namespace's, of the group that has the target.
func (r *Router) Stat(ctx context.Context, q *metapb.StatRequest) (*metapb.StatReply, error) {
	asked := q.Target
	p, err := route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.StatReply, error) { return s.Stat(ctx, q) })
	if err == nil && q.Target != asked && q.Target.Path == "" && !strings.Contains(asked.Path, "/") {
		p.Parent = asked.Ino // a junction is in its directory
	}
	return p, err
}

// List is metaplane.Namespace's, of the group that has the target. What a
// junction leads to is asked of its group.
func (r *Router) List(ctx context.Context, q *metapb.ListRequest) (*metapb.ListReply, error) {
	p, err := route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.ListReply, error) { return s.List(ctx, q) })
	if err != nil {
		return nil, err
	}
	here := orca.Ino(p.GetDir().GetIno()).Home()
	for _, e := range p.Entries {
		if e.Attr == nil || orca.Ino(e.Attr.Ino).Home() == here || !e.Attr.MountPoint {
			continue
		}
		st, err := r.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Target: &metapb.Target{Ino: e.Attr.Ino}, Sync: &metapb.SyncOption{Mode: 1}})
		if err == nil {
			e.Attr = st.Attr
		}
	}
	return p, nil
}

// Open is metaplane.Namespace's, of the group that has the target.
func (r *Router) Open(ctx context.Context, q *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.OpenReply, error) { return s.Open(ctx, q) })
}

// Locations is metaplane.Namespace's, of the group that has the target.
func (r *Router) Locations(ctx context.Context, q *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.LocationsReply, error) { return s.Locations(ctx, q) })
}

// Mkdir is metaplane.Namespace's, of the group that has the target.
func (r *Router) Mkdir(ctx context.Context, q *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.MkdirReply, error) { return s.Mkdir(ctx, q) })
}

// Delete is metaplane.Namespace's, of the group that has the target.
func (r *Router) Delete(ctx context.Context, q *metapb.DeleteRequest) (*metapb.Empty, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.Empty, error) { return s.Delete(ctx, q) })
}

// Create is metaplane.Namespace's, of the group that has the target.
func (r *Router) Create(ctx context.Context, q *metapb.CreateRequest) (*metapb.CreateReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.CreateReply, error) { return s.Create(ctx, q) })
}

// SetXattr is metaplane.Namespace's, of the group that has the target.
func (r *Router) SetXattr(ctx context.Context, q *metapb.XattrRequest) (*metapb.Empty, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.Empty, error) { return s.SetXattr(ctx, q) })
}

// GetXattr is metaplane.Namespace's, of the group that has the target.
func (r *Router) GetXattr(ctx context.Context, q *metapb.XattrRequest) (*metapb.XattrReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.XattrReply, error) { return s.GetXattr(ctx, q) })
}

// ListXattr is metaplane.Namespace's, of the group that has the target.
func (r *Router) ListXattr(ctx context.Context, q *metapb.XattrRequest) (*metapb.XattrReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.XattrReply, error) { return s.ListXattr(ctx, q) })
}

// RemoveXattr is metaplane.Namespace's, of the group that has the target.
func (r *Router) RemoveXattr(ctx context.Context, q *metapb.XattrRequest) (*metapb.Empty, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.Empty, error) { return s.RemoveXattr(ctx, q) })
}

// Usage is metaplane.Namespace's, of the group that has the target: what lies
// behind junctions below it is not in the sums, which are then not whole.
func (r *Router) Usage(ctx context.Context, q *metapb.UsageRequest) (*metapb.UsageReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.UsageReply, error) { return s.Usage(ctx, q) })
}

// SetQuota is metaplane.Namespace's, of the group that has the target.
func (r *Router) SetQuota(ctx context.Context, q *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error) {
	return route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.SetQuotaReply, error) { return s.SetQuota(ctx, q) })
}

// Rename is metaplane.Namespace's, of the group that has the source: it finds
// that of the target.
func (r *Router) Rename(ctx context.Context, q *metapb.RenameRequest) (*metapb.Empty, error) {
	return route(ctx, r, q.H, &q.Src, func(s *Session) (*metapb.Empty, error) { return s.Rename(ctx, q) })
}

// Link is metaplane.Namespace's. Names of two groups are of two mounts.
func (r *Router) Link(ctx context.Context, q *metapb.LinkRequest) (*metapb.LinkReply, error) {
	return route(ctx, r, q.H, &q.Src, func(s *Session) (*metapb.LinkReply, error) {
		if orca.Ino(q.Dst.GetIno()) > orca.RootIno && orca.Ino(q.Dst.Ino).Home() != max(s.cfg.Group, 1) {
			return nil, orca.PathE("metaclient.Link", q.Dst.Path, orca.CrossMount, nil)
		}
		return s.Link(ctx, q)
	})
}

// Calls that take a tree: the groups of the mounts in it are asked, too.

// SetAttr is metaplane.Namespace's, of all groups that have a part of the tree.
func (r *Router) SetAttr(ctx context.Context, q *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	tree := q.Target
	p, err := route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.SetAttrReply, error) { return s.SetAttr(ctx, q) })
	if err != nil || !q.Recursive || orca.FileType(p.GetAttr().GetType()) != orca.TypeDir || orca.Ino(p.Attr.Ino).Home() != 1 {
		return p, err
	}
	return p, r.below(ctx, q.H, tree, func(t *metapb.Target) error {
		c := proto.Clone(q).(*metapb.SetAttrRequest)
		c.H, c.Target = &metapb.Header{Caller: q.H.GetCaller()}, t
		_, err := r.SetAttr(ctx, c)
		return err
	})
}

// Free is metaplane.Namespace's, of all groups that have a part of the tree.
func (r *Router) Free(ctx context.Context, q *metapb.FreeRequest) (*metapb.Empty, error) {
	tree := q.Target
	p, err := route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.Empty, error) { return s.Free(ctx, q) })
	if err != nil || !q.Recursive {
		return p, err
	}
	return p, r.below(ctx, q.H, tree, func(t *metapb.Target) error {
		_, err := r.Free(ctx, &metapb.FreeRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Target: t, Recursive: true, Force: q.Force})
		return err
	})
}

// Sync is metaplane.Namespace's, of all groups that have a part of the tree.
func (r *Router) Sync(ctx context.Context, q *metapb.SyncRequest) (*metapb.SyncReply, error) {
	tree := q.Target
	p, err := route(ctx, r, q.H, &q.Target, func(s *Session) (*metapb.SyncReply, error) { return s.Sync(ctx, q) })
	if err != nil || !q.Recursive {
		return p, err
	}
	return p, r.below(ctx, q.H, tree, func(t *metapb.Target) error {
		more, err := r.Sync(ctx, &metapb.SyncRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Target: t, Recursive: true})
		p.Created, p.Changed, p.Removed = p.Created+more.GetCreated(), p.Changed+more.GetChanged(), p.Removed+more.GetRemoved()
		return err
	})
}

// Calls about what a group has handed out a number for.

// Complete is metaplane.Namespace's, of the session's group.
func (r *Router) Complete(ctx context.Context, q *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	s, err := r.numbered(ctx, q.Session)
	if err != nil {
		return nil, err
	}
	return s.Complete(ctx, q)
}

// Abandon is metaplane.Namespace's, of the session's group.
func (r *Router) Abandon(ctx context.Context, q *metapb.AbandonRequest) (*metapb.Empty, error) {
	s, err := r.numbered(ctx, q.Session)
	if err != nil {
		return nil, err
	}
	return s.Abandon(ctx, q)
}

// Renew is metaplane.Namespace's, of the groups of the sessions.
func (r *Router) Renew(ctx context.Context, q *metapb.RenewRequest) (*metapb.RenewReply, error) {
	by := map[uint16][]uint64{}
	for _, id := range q.Sessions {
		by[orca.Ino(id).Home()] = append(by[orca.Ino(id).Home()], id)
	}
	if len(by) <= 1 {
		s := r.home
		for g := range by {
			var err error
			if s, err = r.owner(ctx, g); err != nil {
				return nil, err
			}
		}
		return s.Renew(ctx, q)
	}
	out := &metapb.RenewReply{}
	for g, ids := range by {
		s, err := r.owner(ctx, g)
		if err != nil {
			return nil, err
		}
		p, err := s.Renew(ctx, &metapb.RenewRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Sessions: ids, Fence: q.Fence})
		if err != nil {
			return nil, err
		}
		out.Expired = append(out.Expired, p.Expired...)
	}
	return out, nil
}

// Resolve is metaplane.Namespace's, of the file's group.
func (r *Router) Resolve(ctx context.Context, q *metapb.ResolveRequest) (*metapb.ResolveReply, error) {
	s, err := r.numbered(ctx, q.File)
	if err != nil {
		return nil, err
	}
	return s.Resolve(ctx, q)
}

// StaleUFS is metaplane.Namespace's, of the file's group.
func (r *Router) StaleUFS(ctx context.Context, q *metapb.StaleUFSRequest) (*metapb.Empty, error) {
	s, err := r.numbered(ctx, q.File)
	if err != nil {
		return nil, err
	}
	return s.StaleUFS(ctx, q)
}

// PersistPrepare is metaplane.Namespace's, of the file's group.
func (r *Router) PersistPrepare(ctx context.Context, q *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	s, err := r.numbered(ctx, q.File)
	if err != nil {
		return nil, err
	}
	return s.PersistPrepare(ctx, q)
}

// PersistCommit is metaplane.Namespace's, of the intent's group.
func (r *Router) PersistCommit(ctx context.Context, q *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	s, err := r.numbered(ctx, q.Intent)
	if err != nil {
		return nil, err
	}
	return s.PersistCommit(ctx, q)
}

// Calls about a group: the header says which.

func (r *Router) asked(h *metapb.Header) (*Session, error) {
	return r.In(uint16(min(h.GetGroup(), maxGroups+1)))
}

// Hosted is metaplane.Namespace's, of the group in the header.
func (r *Router) Hosted(ctx context.Context, q *metapb.HostedRequest) (*metapb.HostedReply, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Hosted(ctx, q)
}

// Watch is metaplane.Namespace's, of the group in the header: cursors are each
// group's own.
func (r *Router) Watch(ctx context.Context, q *metapb.WatchRequest) (*metapb.WatchReply, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Watch(ctx, q)
}

// Hold is metaplane.Namespace's, of the group in the header.
func (r *Router) Hold(ctx context.Context, q *metapb.HoldRequest) (*metapb.Empty, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Hold(ctx, q)
}

// Quorum is metaplane.Namespace's, of the group in the header.
func (r *Router) Quorum(ctx context.Context, q *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Quorum(ctx, q)
}

// Upkeep is metaplane.Namespace's, of the group in the header.
func (r *Router) Upkeep(ctx context.Context, q *metapb.UpkeepRequest) (*metapb.UpkeepReply, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Upkeep(ctx, q)
}

// Transfer is metaplane.Namespace's, of the group in the header.
func (r *Router) Transfer(ctx context.Context, q *metapb.TransferRequest) (*metapb.TransferReply, error) {
	s, err := r.asked(q.H)
	if err != nil {
		return nil, err
	}
	return s.Transfer(ctx, q)
}

// Report is metaplane.Namespace's, the sum of all groups.
func (r *Router) Report(ctx context.Context, q *metapb.ReportRequest) (*metapb.ReportReply, error) {
	caller := q.H.GetCaller()
	p, err := r.home.Report(ctx, q)
	if err != nil {
		return nil, err
	}
	groups, err := r.Groups(ctx)
	if err != nil || len(groups) == 1 {
		return p, err
	}
	p.Counters = maps.Clone(p.Counters)
	for _, g := range groups[1:] {
		s, err := r.In(g)
		if err != nil {
			return nil, err
		}
		o, err := s.Report(ctx, &metapb.ReportRequest{H: &metapb.Header{Caller: caller}})
		if err != nil {
			return nil, err
		}
		p.Inodes, p.Directories, p.Sessions = p.Inodes+o.Inodes, p.Directories+o.Directories, p.Sessions+o.Sessions
		p.Intents = append(p.Intents, o.Intents...)
		for k, v := range o.Counters {
			if !strings.HasPrefix(k, "worker_") && k != "mounts" {
				p.Counters[k] += v
			}
		}
	}
	return p, nil
}

// Quotas is metaplane.Namespace's, those of all groups.
func (r *Router) Quotas(ctx context.Context, q *metapb.QuotasRequest) (*metapb.QuotasReply, error) {
	caller := q.H.GetCaller()
	p, err := r.home.Quotas(ctx, q)
	if err != nil {
		return nil, err
	}
	groups, err := r.Groups(ctx)
	if err != nil || len(groups) == 1 {
		return p, err
	}
	for _, g := range groups[1:] {
		s, err := r.In(g)
		if err != nil {
			return nil, err
		}
		o, err := s.Quotas(ctx, &metapb.QuotasRequest{H: &metapb.Header{Caller: caller}})
		if err != nil {
			return nil, err
		}
		p.Quotas = append(p.Quotas, o.Quotas...)
	}
	slices.SortFunc(p.Quotas, func(a, b *metapb.Quota) int { return cmp.Compare(a.Path, b.Path) })
	return p, nil
}

// Calls that the first group serves for all.

// Mount is metaplane.Namespace's. A path behind a junction is refused by its
// group.
func (r *Router) Mount(ctx context.Context, q *metapb.MountRequest) (*metapb.MountReply, error) {
	p, err := r.home.Mount(ctx, q)
	if orca.KindOf(err) == orca.Referral {
		return nil, &orca.Error{Op: "metaclient.Mount", Path: q.GetMount().GetPath(), Kind: orca.Unsupported, Msg: "a mount in a group of its own holds no other mounts"}
	}
	return p, err
}

// Unmount is metaplane.Namespace's.
func (r *Router) Unmount(ctx context.Context, q *metapb.UnmountRequest) (*metapb.Empty, error) {
	p, err := r.home.Unmount(ctx, q)
	if orca.KindOf(err) == orca.Referral {
		return nil, &orca.Error{Op: "metaclient.Unmount", Path: q.Path, Kind: orca.Invalid, Msg: "not a mount point"}
	}
	return p, err
}

// Regroup is metaplane.Namespace's, of the first group, which has the junctions.
func (r *Router) Regroup(ctx context.Context, q *metapb.RegroupRequest) (*metapb.RegroupReply, error) {
	p, err := r.home.Regroup(ctx, q)
	if orca.KindOf(err) == orca.Referral {
		return nil, &orca.Error{Op: "metaclient.Regroup", Path: q.Target.GetPath(), Kind: orca.Unsupported,
			Msg: "it lives in another group than the first, and what does is not divided further: only all of it moves"}
	}
	return p, err
}

// Stage is metaplane.Namespace's; only groups call each other so, by number.
func (r *Router) Stage(ctx context.Context, q *metapb.StageRequest) (*metapb.StageReply, error) {
	return r.home.Stage(ctx, q)
}

// Depart is metaplane.Namespace's; only groups call each other so, by number.
func (r *Router) Depart(ctx context.Context, q *metapb.DepartRequest) (*metapb.DepartReply, error) {
	return r.home.Depart(ctx, q)
}

// ListMounts is metaplane.Namespace's: the first group has the whole table.
func (r *Router) ListMounts(ctx context.Context, q *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	return r.home.ListMounts(ctx, q)
}

// Register is metaplane.Namespace's, tried once.
func (r *Router) Register(ctx context.Context, q *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	return r.home.Register(ctx, q)
}

// Heartbeat is metaplane.Namespace's, tried once.
func (r *Router) Heartbeat(ctx context.Context, q *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error) {
	return r.home.Heartbeat(ctx, q)
}

// ListWorkers is metaplane.Namespace's.
func (r *Router) ListWorkers(ctx context.Context, q *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error) {
	return r.home.ListWorkers(ctx, q)
}

// Conf is metaplane.Namespace's.
func (r *Router) Conf(ctx context.Context, q *metapb.ConfRequest) (*metapb.ConfReply, error) {
	return r.home.Conf(ctx, q)
}
