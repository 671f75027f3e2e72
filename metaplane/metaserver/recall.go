// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
)

// Hold implements metaplane.Holder.
func (s *Service) Hold(_ context.Context, r *metapb.HoldRequest) (*metapb.Empty, error) {
	const op = "metaserver.Hold"
	if err := s.Serving(); err != nil {
		return nil, err
	}
	if r.Holder == 0 {
		return nil, orca.E(op, orca.Invalid, "no holder")
	}
	if len(r.Taken)+len(r.Back) > maxHeld {
		return nil, orca.E(op, orca.TooLarge, "too many files in one request")
	}
	s.holds.set(r)
	return &metapb.Empty{}, nil
}

// holdsEpoch tells these holds from those of another process, and of another reign
// of this one: what was held before is not known then.
func (s *Service) holdsEpoch() uint64 {
	return uint64(s.started.UnixNano()) + s.lead.reign.Load()
}

// openHeld is Open for who holds what he opens: he holds it before it is looked up,
// so that a removal that the look does not see waits for him.
func (s *Service) openHeld(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	ino := orca.Ino(r.Target.GetIno())
	if r.Holder == 0 || ino == 0 || r.Target.GetPath() != "" {
		return s.open(ctx, r)
	}
	if err := s.holds.take(ctx, r.Holder, r.Hold, ino); err != nil {
		return nil, err
	}
	p, err := s.open(ctx, r)
	if err != nil {
		s.holds.giveBack(r.Holder, r.Hold, ino)
	}
	return p, err
}

// removing waits until those who have open what a delete would remove have copies
// of it. end must be called when it is decided.
func (s *Service) removing(ctx context.Context, r *metapb.DeleteRequest) (end func()) {
	if !s.holds.any() {
		return func() {}
	}
	v, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(r.Target.Ino), r.Target.Path)
	if err != nil || !v.Found || s.kept(r, v.Attr) {
		return func() {}
	}
	if v.Attr.Type != uint32(orca.TypeDir) {
		return s.recall(ctx, v.Attr)
	}
	if !r.Recursive {
		return func() {}
	}
	var inos []orca.Ino
	for _, ino := range s.holds.held() {
		if s.below(ino, orca.Ino(v.Attr.Ino)) {
			inos = append(inos, ino)
		}
	}
	return s.wait(ctx, inos)
}

// OpenFiles is how many files somebody has open, as far as this member was told.
func (s *Service) OpenFiles() int64 {
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	return int64(len(s.holds.files))
}

// wait is holds.recall.
func (s *Service) wait(ctx context.Context, inos []orca.Ino) (end func()) {
	end, waited, cut := s.holds.recall(ctx, inos)
	if waited {
		s.Stats.Recalls.Add(1)
	}
	if cut {
		s.Stats.CutShort.Add(1)
		s.log.Warn("what is removed was not copied in time by who has it open", "files", len(inos), "first", inos[0])
	}
	return end
}

// kept reports whether what is deleted stays readable in the trash.
func (s *Service) kept(r *metapb.DeleteRequest, a *metapb.Attr) bool {
	m := s.row(a.MountId)
	return m.GetTrashRetentionMs() > 0 && !r.SkipTrash && !r.CacheOnly
}

// replacing is removing for the target of a rename, and for a source that gets
// another number.
func (s *Service) replacing(ctx context.Context, r *metapb.RenameRequest, away bool) (end func()) {
	if !s.holds.any() || r.Exchange {
		return func() {}
	}
	t := r.Dst
	switch {
	case away:
		t = r.Src
	case r.NoReplace:
		return func() {}
	}
	v, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(t.Ino), t.Path)
	if err != nil || !v.Found {
		return func() {}
	}
	return s.recall(ctx, v.Attr)
}

// arriving recalls the file that one of another group is to replace. Once that is
// decided, what is there has come.
func (s *Service) arriving(ctx context.Context, o *metapb.TransferOp) (end func()) {
	if !s.holds.any() || o.Tx == 0 || o.Abort != 0 || o.Dir || o.Exchange || o.NoReplace || s.group.Machine().IsDecided(o.Tx) {
		return func() {}
	}
	v, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(o.Dst.Ino), o.Dst.Path)
	if err != nil || !v.Found {
		return func() {}
	}
	return s.recall(ctx, v.Attr)
}

// recall recalls a file that has no other name.
func (s *Service) recall(ctx context.Context, a *metapb.Attr) (end func()) {
	if a.Type != uint32(orca.TypeFile) || a.Nlink > 1 {
		return func() {}
	}
	return s.wait(ctx, []orca.Ino{orca.Ino(a.Ino)})
}

// below reports whether a file is somewhere below a directory.
func (s *Service) below(ino, dir orca.Ino) bool {
	for range orca.MaxPath {
		v, err := s.group.Machine().Lookup(ino)
		if err != nil || v.Parent == ino || v.Parent == 0 {
			return false
		}
		if ino = v.Parent; ino == dir {
			return true
		}
	}
	return false
}

// takesRecall reports whether the removal of what a target names, or its replacement,
// has to be waited for: whoever has it open is asked first.
func (s *Service) takesRecall(t *metapb.Target) bool {
	if !s.holds.any() {
		return false
	}
	v, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(t.Ino), t.Path)
	return err == nil && v.Found && v.Attr.Type == uint32(orca.TypeFile)
}
