// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// defaultSync looks at the UFS as the path says.
var defaultSync ufssync.Option

// Mount implements metaplane.Mounts. The store is opened and listed before
// anything is recorded, so that wrong options fail here, with the failing
// request in the message. Mounting the same URI at the same path again
// replaces the options.
func (s *Service) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	const op = "metaserver.Mount"
	if r.Mount == nil {
		return nil, orca.E(op, orca.Invalid, "no mount in the request")
	}
	if callerOf(r.H).UID != 0 {
		return nil, &orca.Error{Op: op, Path: r.Mount.Path, Kind: orca.Permission, Msg: "only root may mount"}
	}
	if s.groupNumber() > 1 {
		return s.mountHere(ctx, r)
	}
	s.joints.asked.Add(1)
	defer s.joints.asked.Add(-1)
	m := mount.Copy(r.Mount)
	m.Id, m.Junction, m.Root, m.Serial = 0, metapb.JunctionState_JUNCTION_NONE, 0, 0
	if err := mount.Clean(m); err != nil {
		return nil, err
	}
	if err := s.checkGroup(m); err != nil {
		return nil, err
	}
	s.refreshMounts()
	update := false
	for _, old := range s.mounts.Load().All() {
		update = update || old.Path == m.Path && old.Uri == m.Uri
	}
	if !update {
		if err := s.mounts.Load().CheckNew(m); err != nil {
			return nil, err
		}
	}
	fs, err := s.try(ctx, m)
	if err != nil {
		return nil, err
	}
	caps := fs.Caps()
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, Mount: &metapb.MountOp{Mount: m, Parents: r.Parents, Update: update,
		AtomicRename: caps.AtomicRename, Directories: caps.Directories, Owners: caps.Owners, Exchange: caps.Exchange}})
	if err != nil {
		_ = fs.Close()
		return nil, err
	}
	s.refreshMounts()
	rec := s.mounts.Load().ByID(res.Mount.GetMount().GetId()) // the result has no options
	if rec == nil {
		_ = fs.Close()
		return unmounted(res.Mount.GetMount())
	}
	s.Stores.Adopt(rec.Id, fs)
	if rec.Group > 1 {
		if rec, err = s.join(ctx, rec.Id, !update); err != nil {
			return nil, err
		}
	}
	if update {
		if err := s.joinParts(ctx, rec.Id); err != nil {
			return nil, err
		}
	}
	s.log.Info("mounted", "mount", rec.Id, "path", rec.Path, "uri", rec.Uri, "update", update)
	return &metapb.MountReply{Mount: mount.Mask(rec)}, nil
}

// unmounted answers who repeats a request for a mount that is gone by now: as
// before, but where the mount was in another group. Nothing on record tells whether
// that has had it, or refused it.
func unmounted(m *metapb.Mount) (*metapb.MountReply, error) {
	if m.GetGroup() > 1 {
		return nil, &orca.Error{Op: "metaserver.Mount", Path: m.Path, Kind: orca.Stale, Msg: "it was unmounted meanwhile"}
	}
	return &metapb.MountReply{Mount: mount.Mask(m)}, nil
}

var errEnough = errors.New("one name is enough")

// try opens the store of a mount and looks at its root.
func (s *Service) try(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
	fs, err := s.Stores.Try(ctx, m)
	if err != nil {
		return nil, err
	}
	err = fs.List(ctx, "", func(ufs.Info) error { return errEnough })
	if err != nil && !errors.Is(err, errEnough) {
		_ = fs.Close()
		return nil, err
	}
	return fs, nil
}

// Unmount implements metaplane.Mounts: the namespace forgets what is below,
// the store keeps it. Busy while files wait to be persisted there.
func (s *Service) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	const op = "metaserver.Unmount"
	if callerOf(r.H).UID != 0 {
		return nil, &orca.Error{Op: op, Path: r.Path, Kind: orca.Permission, Msg: "only root may unmount"}
	}
	if s.groupNumber() > 1 {
		return s.unmountHere(ctx, r)
	}
	s.joints.asked.Add(1)
	defer s.joints.asked.Add(-1)
	p, err := orca.CleanPath(r.Path)
	if err != nil {
		return nil, err
	}
	res, err := s.mutate(ctx, r.H, &command.Command{Unmount: &metapb.UnmountOp{Path: p}})
	if err != nil {
		return nil, err
	}
	if m := res.Mount.GetMount(); m.GetGroup() > 1 {
		if err := s.part(ctx, m.Id, asked(r.H), false); err != nil {
			return nil, err
		}
	}
	s.refreshMounts()
	s.Exec.Wake()
	s.log.Info("unmounted", "path", p)
	return &metapb.Empty{}, nil
}

// ListMounts implements metaplane.Mounts. Secrets are for root only.
func (s *Service) ListMounts(ctx context.Context, r *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	if r.Secrets && callerOf(r.H).UID != 0 {
		return nil, orca.E("metaserver.ListMounts", orca.Permission, "secrets are for root")
	}
	s.refreshMounts()
	t := s.mounts.Load()
	list := t.All()
	for i, m := range list {
		if r.Secrets {
			list[i] = mount.Copy(m)
		} else {
			list[i] = mount.Mask(m)
		}
	}
	return &metapb.ListMountsReply{Mounts: list, Epoch: t.Epoch, Groups: s.groups()}, nil
}
