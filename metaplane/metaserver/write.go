// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"slices"
	"strings"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs"
)

// checkNew refuses targets whose last name Orca keeps for itself.
func checkNew(op string, t *metapb.Target) error {
	if strings.Contains(t.Path, ufs.TempPrefix) && slices.ContainsFunc(strings.Split(t.Path, "/"), ufs.IsTemp) {
		return &orca.Error{Op: op, Path: t.Path, Kind: orca.Invalid, Msg: "names that begin with " + ufs.TempPrefix + " are reserved"}
	}
	return nil
}

// Mkdir implements metaplane.Writer.
func (s *Service) Mkdir(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	const op = "metaserver.Mkdir"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	if err := checkNew(op, r.Target); err != nil {
		return nil, err
	}
	if r.Group > 1 {
		return s.mkdirIn(ctx, r)
	}
	res, err := s.change(ctx, r.H, mkdirCommand(r))
	if err != nil {
		return nil, err
	}
	return &metapb.MkdirReply{Attr: res.Attr}, nil
}

func mkdirCommand(r *metapb.MkdirRequest) *command.Command {
	return &command.Command{Checks: checkNames, Mkdir: &metapb.MkdirOp{
		Target: r.Target, Mode: r.Mode, Parents: r.Parents, ExistOk: r.ExistOk, Group: r.Group}}
}

// Rename implements metaplane.Writer.
func (s *Service) Rename(ctx context.Context, r *metapb.RenameRequest) (*metapb.Empty, error) {
	const op = "metaserver.Rename"
	for _, t := range []*metapb.Target{r.Src, r.Dst} {
		if err := checkTarget(op, t); err != nil {
			return nil, err
		}
	}
	if err := checkNew(op, r.Dst); err != nil {
		return nil, err
	}
	if r.Exchange && r.NoReplace {
		return nil, &orca.Error{Op: op, Path: r.Dst.Path, Kind: orca.Invalid, Msg: "to exchange and not to replace exclude each other"}
	}
	c, lost := s.renaming(ctx, r)
	if orca.KindOf(lost).Retryable() {
		return nil, lost
	}
	defer s.replacing(ctx, r, c.Rename.Away != nil)()
	switch _, err := s.change(ctx, r.H, c); {
	case orca.KindOf(err) == orca.Referral:
		return nil, err // what its own group says of the target is what counts: it may be in the same
	case err != nil && lost != nil && !orca.KindOf(err).Retryable():
		return nil, lost // it was not done by an earlier attempt, or that would have been said
	case orca.KindOf(err) == orca.Busy && c.Rename.Away != nil && s.vanished(ctx, r):
		return nil, &orca.Error{Op: op, Path: r.Dst.Path, Kind: orca.NotFound}
	case err != nil:
		return nil, err
	}
	return &metapb.Empty{}, nil
}

func renameCommand(r *metapb.RenameRequest) *command.Command {
	return &command.Command{Checks: checkNames | checkContent,
		Rename: &metapb.RenameOp{Src: r.Src, Dst: r.Dst, NoReplace: r.NoReplace, Exchange: r.Exchange}}
}

func deleteCommand(r *metapb.DeleteRequest) *command.Command {
	checks := checkNames
	if !r.CacheOnly && !r.Unchecked {
		checks |= checkContent
	}
	return &command.Command{Checks: checks, Delete: &metapb.DeleteOp{
		Target: r.Target, Recursive: r.Recursive, CacheOnly: r.CacheOnly, Want: r.Want, SkipTrash: r.SkipTrash}}
}

// Delete implements metaplane.Writer.
func (s *Service) Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	const op = "metaserver.Delete"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	if r.Recursive {
		if err := s.removeBelow(ctx, r); err != nil {
			return nil, err
		}
	}
	defer s.removing(ctx, r)()
	res, err := s.change(ctx, r.H, deleteCommand(r))
	if m := res.GetMount().GetMount(); err == nil && m.GetPart() != nil {
		return &metapb.Empty{}, s.removePart(ctx, r, m)
	}
	if orca.KindOf(err) == orca.Permission && res != nil && res.NeedWalk && r.Recursive {
		err = s.deleteWalk(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	return &metapb.Empty{}, nil
}

// deleteWalk is a recursive delete by a caller who owns neither the directory
// nor the right to detach it: everything below is made known and deleted name
// by name, each checked; the top is last. The request's number is remembered
// with the refusal to detach, so a repeated request walks again: what is gone
// by then was deleted by the first.
func (s *Service) deleteWalk(ctx context.Context, r *metapb.DeleteRequest) error {
	c := callerOf(r.H)
	w, err := s.group.Machine().Walk(c, orca.Ino(r.Target.Ino), r.Target.Path)
	if err != nil || !w.Found {
		return err
	}
	if err := s.empty(ctx, r, &w.View, 0); err != nil {
		return err
	}
	_, err = s.mutate(ctx, &metapb.Header{Caller: r.H.GetCaller()}, &command.Command{Delete: &metapb.DeleteOp{
		Target: r.Target, CacheOnly: r.CacheOnly, Want: r.Want, SkipTrash: r.SkipTrash}})
	if orca.KindOf(err) == orca.NotFound {
		return nil
	}
	return err
}

func (s *Service) empty(ctx context.Context, r *metapb.DeleteRequest, dir *fsm.View, depth int) error {
	const op = "metaserver.Delete"
	c, ino := callerOf(r.H), orca.Ino(dir.Attr.Ino)
	if depth > orca.MaxPath/2 {
		return orca.E(op, orca.NameTooLong, "tree too deep")
	}
	if err := s.group.Machine().Access(c, ino, 7); err != nil {
		return err
	}
	if !r.Unchecked && !r.CacheOnly {
		if _, err := s.Syncer.Dir(ctx, dir, ufssync.Option{}); err != nil {
			return err
		}
	}
	for after, more := "", true; more; {
		kids, next, err := s.group.Machine().Children(c, ino, after, defaultPage)
		if err != nil {
			return err
		}
		more = next && len(kids) > 0
		for i := range kids {
			k := &kids[i]
			after = k.Name
			if k.Attr.MountPoint {
				return &orca.Error{Op: op, Path: k.Name, Kind: orca.Busy, Msg: "a mount point lies below"}
			}
			if k.Attr.Type == uint32(orca.TypeDir) {
				if err := s.empty(ctx, r, &k.View, depth+1); err != nil {
					return err
				}
			}
			_, err := s.mutate(ctx, &metapb.Header{Caller: r.H.GetCaller()}, &command.Command{Delete: &metapb.DeleteOp{
				Target: &metapb.Target{Ino: uint64(ino), Path: k.Name}, CacheOnly: r.CacheOnly, SkipTrash: r.SkipTrash}})
			if err != nil && orca.KindOf(err) != orca.NotFound {
				return err
			}
		}
	}
	return nil
}

// SetAttr implements metaplane.Writer.
func (s *Service) SetAttr(ctx context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	const op = "metaserver.SetAttr"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	set := setAttrOp(r)
	set.Target = r.Target
	set.OnlyFile = set.Mask&setReplicas != 0 && !r.Recursive
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, SetAttr: set})
	if err != nil {
		return nil, err
	}
	if r.Recursive && res.Attr.GetType() == uint32(orca.TypeDir) {
		v, err := s.group.Machine().Lookup(orca.Ino(res.Attr.Ino))
		if err != nil {
			return nil, err
		}
		if err := s.setAttrBelow(ctx, r, v, 0); err != nil {
			return nil, err
		}
	}
	return &metapb.SetAttrReply{Attr: res.Attr}, nil
}

// setAttrOp translates a request; a time of 0 means now.
func setAttrOp(r *metapb.SetAttrRequest) *metapb.SetAttrOp {
	const times = uint32(metapb.SetAttrMask_SET_ATIME | metapb.SetAttrMask_SET_MTIME)
	o := &metapb.SetAttrOp{Mask: r.Mask, Mode: r.Mode, Uid: r.Uid, Gid: r.Gid, Atime: r.Atime, Mtime: r.Mtime,
		Pinned: r.Pinned, SyncIntervalMs: r.SyncIntervalMs, ReplicaMin: r.ReplicaMin, ReplicaLimit: r.ReplicaLimit}
	if r.Mask&times != 0 && r.Atime == 0 && r.Mtime == 0 {
		o.TimesNow = true
		o.Atime = now()
		o.Mtime = o.Atime
	}
	return o
}

const setReplicas = uint32(metapb.SetAttrMask_SET_REPLICAS)

func (s *Service) setAttrBelow(ctx context.Context, r *metapb.SetAttrRequest, dir *fsm.View, depth int) error {
	if depth > orca.MaxPath/2 {
		return orca.E("metaserver.SetAttr", orca.NameTooLong, "tree too deep")
	}
	if _, err := s.Syncer.Dir(ctx, dir, ufssync.Option{}); err != nil {
		return err
	}
	c, ino := callerOf(r.H), orca.Ino(dir.Attr.Ino)
	for after, more := "", true; more; {
		kids, next, err := s.group.Machine().Children(c, ino, after, defaultPage)
		if err != nil {
			return err
		}
		more = next && len(kids) > 0
		for i := range kids {
			k := &kids[i]
			after = k.Name
			if s.elsewhere(k.Attr) {
				continue // its group is asked by who asks
			}
			set := setAttrOp(r)
			set.Target = &metapb.Target{Ino: uint64(ino), Path: k.Name}
			if k.Attr.Type != uint32(orca.TypeFile) {
				set.Mask &^= setReplicas
			}
			if set.Mask == 0 {
				if k.Attr.Type == uint32(orca.TypeDir) {
					if err := s.setAttrBelow(ctx, r, &k.View, depth+1); err != nil {
						return err
					}
				}
				continue
			}
			_, err := s.mutate(ctx, &metapb.Header{Caller: r.H.GetCaller()}, &command.Command{SetAttr: set})
			if err != nil && orca.KindOf(err) != orca.NotFound {
				return err
			}
			if k.Attr.Type == uint32(orca.TypeDir) {
				if err := s.setAttrBelow(ctx, r, &k.View, depth+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Free implements metaplane.Writer: cached blocks of persisted files are
// dropped. A pinned file is Busy unless forced. It returns when all workers have
// done that, or after freeWait: then what is read meanwhile may be dropped, too.
func (s *Service) Free(ctx context.Context, r *metapb.FreeRequest) (*metapb.Empty, error) {
	const op = "metaserver.Free"
	w, err := s.resolve(ctx, op, r.H, r.Target, ufssync.Option{})
	if err != nil {
		return nil, err
	}
	if w.Attr.Type != uint32(orca.TypeDir) {
		err = s.freeFile(op, r, &w.View)
	} else {
		err = s.freeBelow(op, r, &w.View, 0)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, freeWait)
	defer cancel()
	if err := s.Workers.Freed(ctx); err != nil {
		s.log.Warn("a worker is slow to drop what was freed", "path", r.Target.Path, "err", err)
	}
	return &metapb.Empty{}, nil
}

// freeWait is for how long a free waits for workers, which report twice a
// second.
const freeWait = 2 * time.Second

func (s *Service) freeFile(op string, r *metapb.FreeRequest, v *fsm.View) error {
	if v.Attr.Type != uint32(orca.TypeFile) || v.Attr.Persist != uint32(orca.Persisted) {
		return nil // the cache has the only copy
	}
	if v.Attr.Pinned && !r.Force {
		return &orca.Error{Op: op, Path: v.Name, Kind: orca.Busy, Msg: "the file is pinned"}
	}
	s.Workers.Free(orca.Ino(v.Attr.Ino), max(v.Attr.Version, 1))
	return nil
}

func (s *Service) freeBelow(op string, r *metapb.FreeRequest, dir *fsm.View, depth int) error {
	if depth > orca.MaxPath/2 {
		return orca.E(op, orca.NameTooLong, "tree too deep")
	}
	for after, more := "", true; more; {
		kids, next, err := s.group.Machine().Children(callerOf(r.H), orca.Ino(dir.Attr.Ino), after, defaultPage)
		if err != nil {
			return err
		}
		more = next && len(kids) > 0
		for i := range kids {
			after = kids[i].Name
			if kids[i].Attr.Type == uint32(orca.TypeDir) {
				if r.Recursive && !s.elsewhere(kids[i].Attr) {
					err = s.freeBelow(op, r, &kids[i].View, depth+1)
				}
			} else {
				err = s.freeFile(op, r, &kids[i].View)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Sync implements metaplane.Writer: a look at the UFS now.
func (s *Service) Sync(ctx context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error) {
	w, err := s.resolve(ctx, "metaserver.Sync", r.H, r.Target, ufssync.Option{Set: true})
	if err != nil {
		return nil, err
	}
	res, err := s.Syncer.Tree(ctx, orca.Ino(w.Attr.Ino), r.Recursive)
	if err != nil {
		return nil, err
	}
	return &metapb.SyncReply{Created: res.Created, Changed: res.Changed, Removed: res.Removed}, nil
}
