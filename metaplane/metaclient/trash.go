// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
)

// Trash is metaplane.Namespace's: all that there is, group by group, in one
// reply. What a group has is in the order of deletion.
func (r *Router) Trash(ctx context.Context, q *metapb.TrashRequest) (*metapb.TrashReply, error) {
	groups, err := r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	caller, all := q.H.GetCaller(), &metapb.TrashReply{}
	for _, g := range groups {
		if q.Ino != 0 && orca.Ino(q.Ino).Home() != g {
			continue
		}
		s, err := r.In(g)
		if err != nil {
			return nil, err
		}
		part := &metapb.TrashRequest{Path: q.Path, Ino: q.Ino}
		for more := true; more; {
			part.H = &metapb.Header{Caller: caller}
			p, err := s.Trash(ctx, part)
			if err != nil {
				return nil, err
			}
			all.Entries = append(all.Entries, p.Entries...)
			if more = p.More && len(p.Entries) > 0; more {
				last := p.Entries[len(p.Entries)-1]
				part.After, part.AfterIno = last.Deleted, last.Ino
			}
		}
	}
	return all, nil
}

// RestoreTrash is metaplane.Namespace's, of the group that has the target, or
// without one the entry.
func (r *Router) RestoreTrash(ctx context.Context, q *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error) {
	if q.Dst == nil {
		s, err := r.numbered(ctx, q.Ino)
		if err != nil {
			return nil, err
		}
		return s.RestoreTrash(ctx, q)
	}
	return route(ctx, r, q.H, &q.Dst, func(s *Session) (*metapb.RestoreTrashReply, error) {
		p, err := s.RestoreTrash(ctx, q)
		if home := orca.Ino(q.Ino).Home(); orca.KindOf(err) == orca.NotFound && home != max(s.cfg.Group, 1) {
			// It may be in the trash of another group than the target's.
			t, terr := r.Trash(ctx, &metapb.TrashRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Ino: q.Ino})
			if terr == nil && len(t.Entries) > 0 {
				return nil, &orca.Error{Op: "metaclient.RestoreTrash", Path: q.Dst.Path, Kind: orca.CrossMount, Msg: "what was deleted stays in its mount"}
			}
		}
		return p, err
	})
}

// purgeBatch is how much of the trash is removed by one request.
const purgeBatch = 256

// PurgeTrash is metaplane.Namespace's, group by group.
func (r *Router) PurgeTrash(ctx context.Context, q *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error) {
	all := &metapb.PurgeTrashReply{}
	for rest := q.Inos; len(rest) > 0; {
		home, n := orca.Ino(rest[0]).Home(), 0
		for n < min(len(rest), purgeBatch) && orca.Ino(rest[n]).Home() == home {
			n++
		}
		s, err := r.numbered(ctx, rest[0])
		if err != nil {
			return all, err
		}
		p, err := s.PurgeTrash(ctx, &metapb.PurgeTrashRequest{H: &metapb.Header{Caller: q.H.GetCaller()}, Inos: rest[:n]})
		if err != nil {
			return all, err
		}
		all.Purged = append(all.Purged, p.Purged...)
		rest = rest[n:]
	}
	return all, nil
}
