// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// Moves of directories to other groups (fsm/regroup.go). A request records the
// intent; a loop of whoever leads the first group brings what is below over
// (mover.go), and records the switch. What moves away from another group than the
// first is asked of that (depart.go).

// movers brings directories to other groups, one at a time.
type movers struct {
	wake  chan struct{} // there may be something to move
	clear chan struct{} // there may be a group to be told of an end

	mu   sync.Mutex
	at   *mover            // the present one; nil: none
	over map[string]string // why the last move of a path was given up
}

const (
	// regroupAgain is how often what could not be done is tried again, and
	// regroupIdle how often somebody looks who was not told of anything.
	regroupAgain = 200 * time.Millisecond
	regroupIdle  = time.Second
	// restWait is how long writers that were there before may take to end; all
	// others wait with the move.
	restWait = 5 * time.Second
	// maxOver caps the reasons that are remembered.
	maxOver = 256
)

// Regroup implements metaplane.Mounts. What forbids a move is looked for in the
// whole tree before writers are made to wait.
func (s *Service) Regroup(ctx context.Context, r *metapb.RegroupRequest) (*metapb.RegroupReply, error) {
	const op = "metaserver.Regroup"
	if err := checkTarget(op, r.Target); err != nil {
		return nil, err
	}
	switch {
	case callerOf(r.H).UID != 0:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Permission, Msg: "only root moves directories to other groups"}
	case r.Target.Ino > uint64(orca.RootIno):
		return nil, orca.E(op, orca.Invalid, "a directory is moved to another group by its path")
	case s.groupNumber() > 1 || s.cfg.Others == nil:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Unsupported, Msg: "the first group moves its directories"}
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	switch r.Ask {
	case metapb.RegroupAsk_REGROUP_STATUS:
		return s.regroupStatus(r.Target)
	case metapb.RegroupAsk_REGROUP_ABORT:
		return s.regroupAbort(ctx, r.Target)
	}
	if r.Group > 1 && !slices.Contains(s.groups(), r.Group) {
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Invalid,
			Msg: fmt.Sprintf("there is no group %d: orca admin group add", r.Group)}
	}
	if err := s.mayMove(ctx, r); err != nil {
		return nil, err
	}
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, Regroup: &metapb.RegroupOp{Target: r.Target, Group: r.Group}})
	if err != nil {
		return nil, err
	}
	if res.Existed {
		return &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_DONE, Group: max(r.Group, 1)}, nil
	}
	s.movers.forget(r.Target.Path)
	s.log.Info("a directory moves to another group", "path", r.Target.Path, "group", r.Group, "ino", res.Intent.GetIno())
	s.wakeRegroups()
	return s.regroupStatus(r.Target)
}

// mayMove looks, before writers are made to wait, whether the group of a move
// answers, and for what forbids it in the whole tree.
func (s *Service) mayMove(ctx context.Context, r *metapb.RegroupRequest) error {
	at, err := s.moveAt(r.Target)
	if err != nil || at.it != nil || at.part != nil && at.part.Mount.Group == max(r.Group, 1) || !at.dir || at.part == nil && r.Group <= 1 {
		return nil // nothing to do, or the state machine says what is wrong
	}
	if r.Group > 1 {
		if err := s.answers(ctx, uint16(r.Group)); err != nil {
			return &orca.Error{Op: "metaserver.Regroup", Path: r.Target.Path, Kind: orca.Unavailable, Msg: fmt.Sprintf("group %d does not answer", r.Group), Err: err}
		}
	}
	m := &mover{s: s, from: &hereSource{m: s.group.Machine(), dir: orca.Ino(at.ino)}}
	if at.part != nil {
		if m.from, err = s.partSource(at.part.Mount, 0, 0); err != nil {
			return err
		}
	}
	return m.walk(ctx)
}

// answers returns nil if somebody leads a group, soon.
func (s *Service) answers(ctx context.Context, group uint16) error {
	ns, err := s.groupAt(group)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, electionWait)
	defer cancel()
	_, err = ns.Quorum(ctx, &metapb.QuorumRequest{H: &metapb.Header{}})
	return err
}

// regroupOf returns the move of a directory that is under way, nil if it is not.
func (s *Service) regroupOf(ino uint64) *command.Intent {
	for _, it := range s.group.Machine().Regroups() {
		if it.Ino == ino {
			return it
		}
	}
	return nil
}

// movable is what may move, or just does.
type movable struct {
	ino  uint64         // of the directory in the first group
	part *command.Mount // nil: its content is in the first group
	it   *command.Intent
	dir  bool
}

// moveAt returns what is at a path. NotFound; Referral: it is in another group,
// and no part of its own.
func (s *Service) moveAt(t *metapb.Target) (at movable, err error) {
	for range 3 { // the switch may come between the looks
		if at, err = s.lookAt(t); err != nil && orca.KindOf(err) != orca.Referral {
			return at, err
		}
		if at.it = s.regroupOf(at.ino); at.it != nil {
			break
		}
	}
	return at, err
}

// lookAt is moveAt, but for whether it moves, and of one moment each for the walk
// and the table of mounts.
func (s *Service) lookAt(t *metapb.Target) (movable, error) {
	m := s.group.Machine()
	w, err := m.Walk(orca.Caller{}, orca.Ino(t.Ino), t.Path)
	switch k := orca.KindOf(err); {
	case k == orca.Referral || k == orca.Busy:
		for _, row := range m.Mounts() {
			if row.Mount.Path == t.Path && row.Mount.Part != nil {
				return movable{ino: row.Root, part: row, dir: true}, nil
			}
		}
		return movable{}, err
	case err != nil:
		return movable{}, err
	case !w.Found:
		return movable{}, &orca.Error{Op: "metaserver.Regroup", Path: t.Path, Kind: orca.NotFound}
	}
	return movable{ino: w.Attr.Ino, dir: w.Attr.Type == uint32(orca.TypeDir)}, nil
}

// regroupStatus tells how far the move of a directory is.
func (s *Service) regroupStatus(t *metapb.Target) (*metapb.RegroupReply, error) {
	at, err := s.moveAt(t)
	if err != nil {
		return nil, err
	}
	s.movers.mu.Lock()
	defer s.movers.mu.Unlock()
	switch {
	case at.it == nil && at.part != nil:
		return &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_DONE, Group: at.part.Mount.Group, Problem: s.movers.over[t.Path]}, nil
	case at.it == nil:
		return &metapb.RegroupReply{Group: 1, Problem: s.movers.over[t.Path]}, nil
	}
	rep := &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_MOVING, Group: at.it.Group}
	if u, err := s.group.Machine().Usage(orca.Ino(at.ino)); err == nil && at.part == nil {
		rep.Total = u.Inodes()
	}
	if m := s.movers.at; m != nil && m.it.Id == at.it.Id {
		rep.Copied = m.copied.Load()
		rep.Total = max(rep.Total, m.total.Load())
		if p := m.problem.Load(); p != nil {
			rep.Problem = *p
		}
	}
	return rep, nil
}

// regroupAbort gives up the move of a directory.
func (s *Service) regroupAbort(ctx context.Context, t *metapb.Target) (*metapb.RegroupReply, error) {
	at, err := s.moveAt(t)
	switch {
	case err != nil:
		return nil, err
	case at.it != nil:
		if err := s.leaveHere(ctx, at.it, t.Path, "it was given up on request"); err != nil {
			return nil, err
		}
	case at.part != nil:
		return nil, &orca.Error{Op: "metaserver.Regroup", Path: t.Path, Kind: orca.Exists, Msg: fmt.Sprintf("it lives in group %d already", at.part.Mount.Group)}
	}
	return s.regroupStatus(t)
}

// leaveHere ends a move: the directory stays where it is, and its writers go on.
func (s *Service) leaveHere(ctx context.Context, it *command.Intent, path, why string) error {
	s.movers.gaveUp(path, why) // first, for whoever sees that it is over
	_, err := s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Intent: it.Id}})
	if err != nil && orca.KindOf(err) != orca.NotFound {
		return err
	}
	s.log.Info("a directory stays in its group", "path", path, "why", why)
	s.wakeRegroups()
	return nil
}

// gaveUp notes why the move of a path was given up.
func (m *movers) gaveUp(path, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over == nil || len(m.over) >= maxOver {
		m.over = map[string]string{}
	}
	m.over[path] = why
}

func (m *movers) forget(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.over, path)
}

func (s *Service) wakeRegroups() {
	for _, c := range []chan struct{}{s.movers.wake, s.movers.clear} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// regroupLoop goes on with moves that are under way, also those of an earlier
// leader.
func (s *Service) regroupLoop() {
	defer s.wg.Done()
	s.whileLeading(s.movers.wake, func() (left bool) {
		for _, it := range s.group.Machine().Regroups() {
			if s.ctx.Err() == nil {
				s.regroup(it)
			}
		}
		return len(s.group.Machine().Regroups()) > 0
	})
}

// clearLoop tells groups what has become of moves to and from them. It is another
// loop than that of the moves, so that a group that does not answer keeps no other
// one waiting.
func (s *Service) clearLoop() {
	defer s.wg.Done()
	s.whileLeading(s.movers.clear, func() (left bool) {
		m := s.group.Machine()
		s.tellDeparted()
		s.clearAbandoned()
		return len(m.Abandoned())+len(m.Departed()) > 0
	})
}

// whileLeading calls do when there is something new, while this member leads: soon
// again for as long as something is left.
func (s *Service) whileLeading(wake <-chan struct{}, do func() (left bool)) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		changed := s.group.LeaderChanged()
		select {
		case <-s.ctx.Done():
			return
		case <-wake:
		case <-changed:
		case <-again.C:
		}
		pause := regroupIdle
		if s.Serving() == nil && do() {
			pause = regroupAgain
		}
		again.Reset(pause)
	}
}

// clearAbandoned empties groups of what moves that were given up brought there.
func (s *Service) clearAbandoned() {
	all := s.group.Machine().Abandoned()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		group := all[id]
		ctx, cancel := context.WithTimeout(s.ctx, joinPatience)
		ns, err := s.cfg.Others(uint16(group))
		if err == nil {
			_, err = ns.Unmount(ctx, &metapb.UnmountRequest{H: &metapb.Header{}, Id: id})
		}
		if err == nil {
			_, err = s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Cleared: id}})
		}
		cancel()
		if err != nil && s.ctx.Err() == nil {
			s.log.Warn("what was brought to a group in vain is not removed yet", "group", group, "mount", id, "err", err)
		}
	}
}

// regroup brings one directory to its group, or as far as it comes now.
func (s *Service) regroup(it *command.Intent) {
	s.movers.mu.Lock()
	m := s.movers.at
	if m == nil || m.it.Id != it.Id {
		m = &mover{s: s, it: it, began: time.Now()}
		s.movers.at = m
	}
	s.movers.mu.Unlock()
	path, err := m.run(s.ctx)
	switch k := orca.KindOf(err); {
	case err == nil:
		s.refreshMounts()
		s.wakeJoints()
		s.wakeRegroups() // who had it is to be told
		s.log.Info("a directory has moved to another group", "path", path, "group", it.Group, "inodes", m.copied.Load(), "dur", time.Since(m.began))
	case s.ctx.Err() != nil || k == orca.Canceled || k == orca.NotFound && s.regroupOf(it.Ino) == nil:
	case final(err):
		if gerr := s.leaveHere(s.ctx, it, path, err.Error()); gerr != nil {
			s.log.Warn("a move to another group is not given up yet", "path", path, "err", gerr)
		}
	default:
		text := err.Error()
		if old := m.problem.Swap(&text); old == nil || *old != text {
			s.log.Warn("a directory has not moved to another group yet; it is tried again", "path", path, "group", it.Group, "err", err)
		}
		return
	}
	s.movers.mu.Lock()
	s.movers.at = nil
	s.movers.mu.Unlock()
}

// forwarded sends who asks for a file by the number that it had before its
// directory moved to where it is; what is there may be another one by now, as who
// asks can tell.
func (s *Service) forwarded(t *metapb.Target, err error) error {
	if orca.KindOf(err) != orca.NotFound {
		return err
	}
	if to := s.group.Machine().Forward(orca.Ino(t.GetIno()), t.GetPath()); to != "" {
		return &orca.Error{Op: "metaserver.Open", Path: to, Kind: orca.Referral, Msg: "its directory has moved to another group"}
	}
	return err
}

// Stage implements metaplane.Mounts: what a directory holds that moves to this
// group.
func (s *Service) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	if callerOf(r.H).UID != 0 {
		return nil, orca.E("metaserver.Stage", orca.Permission, "only groups move directories to each other")
	}
	res, err := s.group.Propose(ctx, &command.Command{Now: now(), Stage: &metapb.StageOp{
		Mount: r.Mount, Self: r.Self, Pages: r.Pages, Seal: r.Seal, Tx: r.Tx, Forget: r.Forget, Ask: r.Ask}})
	if err != nil {
		return nil, err
	}
	if r.Seal != nil && r.Mount != 0 {
		s.refreshMounts()
	}
	return &metapb.StageReply{Inos: res.Ids, Root: res.Id, Sealed: res.Existed}, nil
}
