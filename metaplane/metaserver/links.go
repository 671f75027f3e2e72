// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// Link implements metaplane.Writer.
func (s *Service) Link(ctx context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error) {
	const op = "metaserver.Link"
	for _, t := range []*metapb.Target{r.Src, r.Dst} {
		if err := checkTarget(op, t); err != nil {
			return nil, err
		}
	}
	if err := checkNew(op, r.Dst); err != nil {
		return nil, err
	}
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, Link: &metapb.LinkOp{Src: r.Src, Dst: r.Dst}})
	if err != nil {
		return nil, err
	}
	return &metapb.LinkReply{Attr: res.Attr}, nil
}

// rehome has the content of a file with several names moved to another one,
// before the one that it is under goes; it reports whether that is done. If not,
// what waits for it meets the reason again.
func (s *Service) rehome(ctx context.Context, o *metapb.RehomeOp) bool {
	_, err := s.mutate(ctx, nil, &command.Command{Rehome: o})
	if orca.KindOf(err) == orca.NotFound { // behind us: then the file has gone, with all its names
		_ = s.Syncer.File(ctx, orca.Ino(o.File))
	}
	if err != nil {
		s.log.Debug("the content of a file was not moved to another of its names", "file", orca.Ino(o.File), "err", err)
	}
	return err == nil
}

// linkedBatch is how many names are removed before it is asked for more.
const linkedBatch = 1000

// unlinkBelow removes the names of files with several from a directory that is
// to go with all in it, which whoever may do that may, too.
func (s *Service) unlinkBelow(ctx context.Context, o *metapb.DeleteOp) error {
	m := s.group.Machine()
	for {
		w, err := m.Walk(orca.Caller{}, orca.Ino(o.GetTarget().GetIno()), o.GetTarget().GetPath())
		if err != nil || !w.Found {
			return err // the state machine says what is wrong
		}
		names := m.LinkedNames(orca.Ino(w.Attr.Ino), linkedBatch)
		if len(names) == 0 {
			return nil
		}
		for _, p := range names {
			_, err := s.mutate(ctx, nil, &command.Command{Delete: &metapb.DeleteOp{
				Target: &metapb.Target{Ino: uint64(p.Dir), Path: p.Name}, CacheOnly: o.CacheOnly, Want: 1, Linked: true}})
			if err != nil && orca.KindOf(err) != orca.NotFound {
				return err
			}
		}
	}
}
