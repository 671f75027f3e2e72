// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
)

// Renames of directories between the groups of a mount (fsm/transferdir.go). Who
// leads the source's group brings what is below to the target's with the mover
// that moves directories to groups, and then has the move decided as that of a
// file.

// stagePatience is how long the other group may take for one step of a copy: who
// would change something waits meanwhile.
const stagePatience = 10 * time.Second

// bring brings a directory that goes to another group there, if that is still to
// be done. Whatever keeps it from that gives the move up, for the other group has
// not been asked: its end is Refused.
func (s *Service) bring(ctx context.Context, intent uint64) error {
	it, ask, err := s.group.Machine().LeavingTo(intent)
	if orca.KindOf(err) == orca.NotFound {
		return nil // a file, or it is there
	}
	if err != nil {
		return err
	}
	m := &mover{s: s, it: it, ask: ask, began: time.Now(),
		from: &hereSource{m: s.group.Machine(), intent: intent, dir: orca.Ino(it.Ino)}}
	brought, err := m.bring(ctx)
	var own *stays
	if errors.As(err, &own) {
		err = own.err
	}
	switch k := orca.KindOf(err); {
	case err == nil:
		s.log.Info("a directory has been brought to another group", "ino", it.Ino, "intent", intent, "inodes", m.copied.Load(), "dur", time.Since(m.began))
		return nil
	case ctx.Err() != nil || k == orca.Canceled || k == orca.NotLeader || brought && own == nil || s.decidedElsewhere(intent):
		return err // it is not known what came of it, or who leads next begins again
	case own == nil && (k.Retryable() || k == orca.Stale || k == orca.Internal || k == orca.NotFound && m.placeGone(ctx)):
		err = &orca.Error{Op: "metaserver.Rename", Path: it.Source, Kind: orca.Busy, Msg: "the other group does not take it now", Err: err}
	}
	s.log.Info("a directory stays in its group", "ino", it.Ino, "intent", intent, "why", err)
	return &ufsexec.Refused{Err: err, Early: true}
}

// placeGone reports whether the directory that all is brought to is not in its group
// any more: it may be there again, in another one, and who asked looks.
func (m *mover) placeGone(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, stagePatience)
	defer cancel()
	return m.ns != nil && gone(ctx, m.ns, m.ask.Dst)
}

// decidedElsewhere reports whether an intent has been decided by somebody else.
func (s *Service) decidedElsewhere(intent uint64) bool {
	_, err := s.group.Machine().Intent(intent)
	return err != nil
}

// bring waits until all is at rest, copies it, and puts on record that it is
// there; brought says that it has come as far as that.
func (m *mover) bring(ctx context.Context) (brought bool, err error) {
	group := orca.Ino(m.ask.Dst.Ino).Home()
	if m.ns, err = m.s.groupAt(group); err != nil {
		return false, err
	}
	if err := m.rest(ctx); err != nil {
		return false, err
	}
	m.s.owing.to(group, m.it.Id)
	if err := m.copy(ctx); err != nil {
		var own *stays
		var e *orca.Error
		if errors.As(err, &own) && errors.As(err, &e) { // something in it stays in its group, so that who asked copies
			err = &stays{&orca.Error{Op: "metaserver.Rename", Path: e.Path, Kind: orca.CrossMount, Msg: e.Msg}}
		}
		return false, err
	}
	_, err = m.s.group.Propose(ctx, &command.Command{Now: now(), Brought: &metapb.BroughtOp{Intent: m.it.Id, Root: m.root}})
	if k := orca.KindOf(err); k == orca.CrossMount || k == orca.Busy {
		err = &stays{err}
	}
	return true, err
}
