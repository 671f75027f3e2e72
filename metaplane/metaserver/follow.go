// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"time"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
)

// A member that does not lead answers a read whose caller leaves the choice of
// the member (Header.any_member) from its machine, after a round that it shares
// with all reads that wait: it has applied by then whatever was acknowledged when
// the read came. What takes more than the machine is referred to the leader: a
// look at a store, or what was seen of one lately; and that a file is lost, which
// has to be put on record. Grants, locations and the watch stream stay with the
// leader. ADR 0020.

// follows reports whether a read with this header is answered here without
// leading.
func (s *Service) follows(h *metapb.Header) bool {
	return h.GetAnyMember() && !s.raw.Alone() && s.lead.term.Load() == 0
}

// refer is the answer to a read that takes the leader.
func (s *Service) refer() error {
	s.Stats.Referred.Add(1)
	if err := s.Serving(); err != nil {
		return err
	}
	return orca.E("metaserver", orca.NotLeader, "this member has just begun to lead: ask again")
}

// readyFor is ready for a read with this header.
func (s *Service) readyFor(ctx context.Context, h *metapb.Header) error {
	if !s.follows(h) {
		return s.ready(ctx)
	}
	if err := s.caughtUp(ctx); err != nil {
		return err
	}
	s.Stats.Reads.Add(1)
	s.Stats.Followed.Add(1)
	return nil
}

// followWait is how long a read waits here for a leader: the caller may find it
// sooner.
const followWait = time.Second

// caughtUp waits until this member has applied what was committed when it was
// called.
func (s *Service) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, followWait)
	defer cancel()
	return s.raw.ReadReady(ctx)
}

// resolveHere is resolve where this member does not lead.
func (s *Service) resolveHere(ctx context.Context, op string, h *metapb.Header, t *metapb.Target, o ufssync.Option) (*fsm.Walked, error) {
	if err := s.caughtUp(ctx); err != nil {
		return nil, err
	}
	w, ok, err := s.Syncer.Here(callerOf(h), orca.Ino(t.Ino), t.Path, o)
	if !ok {
		return nil, s.refer()
	}
	s.Stats.Reads.Add(1)
	s.Stats.Followed.Add(1)
	if err == nil && !w.Found {
		err = &orca.Error{Op: op, Path: t.Path, Kind: orca.NotFound}
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}
