// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"slices"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// Trash implements metaplane.Trash.
func (s *Service) Trash(ctx context.Context, r *metapb.TrashRequest) (*metapb.TrashReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	c, rep := callerOf(r.H), &metapb.TrashReply{}
	if r.Ino != 0 {
		v, err := s.group.Machine().Trashed(c, orca.Ino(r.Ino))
		if err == nil {
			rep.Entries = append(rep.Entries, trashedOf(&v))
		}
		return rep, nil
	}
	if r.Path != "" {
		p, err := orca.CleanPath(r.Path)
		if err != nil {
			return nil, err
		}
		r.Path = p
	}
	var after *command.Trashed
	if r.After != 0 {
		after = &command.Trashed{Deleted: r.After, Ino: r.AfterIno}
	}
	vs := s.group.Machine().Trash(c, r.Path, after, defaultPage)
	size := 0
	for i := range vs {
		e := trashedOf(&vs[i])
		if size += e.SizeVT() + 8; size > s.cfg.ListBytes && i > 0 {
			rep.More = true
			return rep, nil
		}
		rep.Entries = append(rep.Entries, e)
	}
	rep.More = len(vs) == defaultPage
	return rep, nil
}

func trashedOf(v *fsm.TrashView) *metapb.Trashed {
	return &metapb.Trashed{
		Ino: v.Ino, Path: v.Path, Deleted: v.Deleted, Expires: v.Expires, Uid: v.Uid, Gid: v.Gid,
		Bytes: v.Bytes, Inodes: v.Inodes, Dir: v.Dir,
	}
}

// RestoreTrash implements metaplane.Trash.
func (s *Service) RestoreTrash(ctx context.Context, r *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error) {
	const op = "metaserver.RestoreTrash"
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	v, err := s.group.Machine().Trashed(callerOf(r.H), orca.Ino(r.Ino))
	dst := r.Dst
	switch {
	case err != nil && dst == nil:
		dst = &metapb.Target{Path: "/"} // the state machine says that it is gone, or was restored by this very request
	case dst == nil:
		dst = &metapb.Target{Path: v.Path}
	}
	if err := checkTarget(op, dst); err != nil {
		return nil, err
	}
	if err := checkNew(op, dst); err != nil {
		return nil, err
	}
	if orca.Ino(r.Ino).Home() != s.groupNumber() {
		// Another group has it, to which the way to the target may lead.
		if _, err := s.group.Machine().Walk(callerOf(r.H), orca.Ino(dst.Ino), dst.Path); err != nil {
			return nil, err
		}
	}
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, RestoreTrash: &metapb.RestoreTrashOp{Ino: r.Ino, Dst: dst}})
	if err != nil {
		return nil, err
	}
	return &metapb.RestoreTrashReply{Attr: res.Attr}, nil
}

// PurgeTrash implements metaplane.Trash. What is still on its way into the trash
// of its store is waited for, up to the time that a mutation waits for another.
func (s *Service) PurgeTrash(ctx context.Context, r *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error) {
	rep := &metapb.PurgeTrashReply{}
	c, until := callerOf(r.H), time.Now().Add(s.cfg.BusyWait)
	h := r.H
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		res, err := s.mutate(ctx, h, &command.Command{PurgeTrash: &metapb.PurgeTrashOp{Inos: r.Inos}})
		if err != nil {
			return nil, err
		}
		rep.Purged = append(rep.Purged, res.Ids...)
		s.Exec.Wake()
		left := slices.DeleteFunc(slices.Clone(r.Inos), func(ino uint64) bool {
			_, err := s.group.Machine().Trashed(c, orca.Ino(ino))
			return err != nil
		})
		switch {
		case len(left) == 0:
			return rep, nil
		case time.Now().Add(pause).After(until):
			return nil, &orca.Error{Op: "metaserver.PurgeTrash", Kind: orca.Busy, Msg: "some of it is still on its way into the trash, or in a mount that is read-only"}
		}
		select {
		case <-ctx.Done():
			return nil, orca.PathE("metaserver.PurgeTrash", "", orca.EndKind(ctx.Err()), ctx.Err())
		case <-time.After(pause):
		}
		h = &metapb.Header{Caller: r.H.GetCaller()} // the request's number stands for the first round
	}
}

// hidden refuses a directory that is in the trash, or a way through one, to who
// has its number still.
func (s *Service) hidden(op string, t *metapb.Target, v *fsm.View) error {
	dir := orca.Ino(v.Attr.Ino)
	if v.Attr.Type != uint32(orca.TypeDir) {
		dir = v.Parent
		if t.Path == "" {
			return nil
		}
	}
	if t.Ino == 0 || !s.group.Machine().InTrash(dir) {
		return nil
	}
	return &orca.Error{Op: op, Path: t.Path, Kind: orca.NotFound}
}
