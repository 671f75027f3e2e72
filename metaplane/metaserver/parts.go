// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/metapb"
)

// Directories of a mount that live in groups of their own (fsm/parts.go): the
// first group makes and removes them, by the steps of junctions.

// mkdirIn makes a directory whose content lives in another group. A repeated
// request finds the directory made and goes on with the rest.
func (s *Service) mkdirIn(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	if s.groupNumber() == 1 && !slices.Contains(s.groups(), r.Group) {
		return nil, &orca.Error{Op: "metaserver.Mkdir", Path: r.Target.Path, Kind: orca.Invalid,
			Msg: fmt.Sprintf("there is no group %d: orca admin group add", r.Group)}
	}
	s.joints.asked.Add(1)
	defer s.joints.asked.Add(-1)
	res, err := s.change(ctx, r.H, mkdirCommand(r))
	if err != nil {
		return nil, err
	}
	if res.Existed { // here, where the directory lives: who repeats a request is answered by the first group
		return nil, &orca.Error{Op: "metaserver.Mkdir", Path: r.Target.Path, Kind: orca.Exists,
			Msg: fmt.Sprintf("it is there already, and lives in group %d", s.groupNumber())}
	}
	s.refreshMounts()
	a := res.Attr
	if m := s.row(a.MountId); m.GetPart() == nil {
		return &metapb.MkdirReply{Attr: a}, nil // it was repeated, and is gone or given back
	}
	m, err := s.join(ctx, a.MountId, true)
	if err != nil && s.row(a.MountId) == nil && orca.KindOf(err) == orca.Stale {
		return &metapb.MkdirReply{Attr: a}, nil // as much as for who asks again after that
	}
	if err != nil {
		return nil, err
	}
	a = proto.Clone(a).(*metapb.Attr) // who waits for the same intent has the same result
	a.Ino, a.MountPoint = m.Root, true
	return &metapb.MkdirReply{Attr: a}, nil
}

// joinParts gives the directories of a mount that live in other groups its
// options.
func (s *Service) joinParts(ctx context.Context, id uint32) error {
	for _, m := range s.mounts.Load().All() {
		if m.Part.GetMount() == id && m.Junction == metapb.JunctionState_JUNCTION_JOINING {
			if _, err := s.join(ctx, m.Id, false); err != nil && s.row(m.Id) != nil { // else it is another one by now, with these options, or none
				return err
			}
		}
	}
	return nil
}

// removePart ends the removal of a directory that lives in another group: that
// group says whether it is empty and forgets it, then what is there by then is
// removed like any other.
func (s *Service) removePart(ctx context.Context, r *metapb.DeleteRequest, m *metapb.Mount) error {
	s.joints.asked.Add(1)
	defer s.joints.asked.Add(-1)
	for step := uint64(0); m.GetPart() != nil; step++ {
		if err := s.part(ctx, m.Id, asked(r.H), true); err != nil {
			return err
		}
		s.refreshMounts()
		res, err := s.change(ctx, laterStep(r.H, step), deleteCommand(&metapb.DeleteRequest{Target: r.Target, Want: r.Want}))
		if err != nil {
			return err
		}
		m = res.GetMount().GetMount() // somebody has made another one there, or moved it to a group
	}
	return nil
}

// asked is the header of a request, which may be without one.
func asked(h *metapb.Header) *metapb.Header {
	if h == nil {
		return &metapb.Header{}
	}
	return h
}

// laterStep is the header of what a request comes to after its own command, so
// that an earlier attempt's is told from somebody else's. Clients have odd
// numbers (metaclient.Session), so the even ones are free for this: another one for
// each step, for what is remembered of a client is by the number of the request.
func laterStep(h *metapb.Header, step uint64) *metapb.Header {
	n := &metapb.Header{Caller: h.GetCaller()}
	if h.GetClient() != 0 {
		n.Client, n.Seq = h.Client&^1^step<<1, h.Seq
	}
	return n
}

// removeBelow empties and removes the directories in groups of their own below
// a tree that is to be removed; of one that is the tree itself only the
// content. Each directory in them goes whole, but all of it is no single step:
// what stops it leaves what has not been reached.
func (s *Service) removeBelow(ctx context.Context, r *metapb.DeleteRequest) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	parts, itself := s.group.Machine().PartsBelow(callerOf(r.H), orca.Ino(r.Target.Ino), r.Target.Path)
	if len(parts) > 0 && r.CacheOnly {
		return &orca.Error{Op: "metaserver.Delete", Path: parts[0].Path, Kind: orca.Unsupported,
			Msg: fmt.Sprintf("it lives in group %d: unmount it, which leaves what the store has", parts[0].Group)}
	}
	for _, m := range parts {
		if err := s.emptyPart(ctx, r, m); err != nil {
			return err
		}
		if itself {
			return nil
		}
		_, err := s.Delete(ctx, &metapb.DeleteRequest{H: &metapb.Header{Caller: r.H.GetCaller()}, Target: &metapb.Target{Path: m.Path}})
		if err != nil && orca.KindOf(err) != orca.NotFound {
			return err
		}
	}
	return nil
}

func (s *Service) emptyPart(ctx context.Context, r *metapb.DeleteRequest, m *metapb.Mount) error {
	if m.Root == 0 {
		return &orca.Error{Op: "metaserver.Delete", Path: m.Path, Kind: orca.Busy, Msg: "it is just being made"}
	}
	ns, err := s.other(ctx, m)
	if err != nil {
		return err
	}
	for {
		l, err := ns.List(ctx, &metapb.ListRequest{H: &metapb.Header{Caller: r.H.GetCaller()}, Target: &metapb.Target{Ino: m.Root}})
		if orca.KindOf(err) == orca.NotFound {
			return nil // it is being given back: what is there by then is looked at
		}
		if err != nil {
			return err
		}
		if len(l.Entries) == 0 {
			return nil
		}
		for _, e := range l.Entries {
			_, err := ns.Delete(ctx, &metapb.DeleteRequest{H: &metapb.Header{Caller: r.H.GetCaller()},
				Target: &metapb.Target{Ino: m.Root, Path: e.Name}, Recursive: true, Unchecked: r.Unchecked})
			if err != nil && orca.KindOf(err) != orca.NotFound {
				return err
			}
		}
	}
}
