// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// Moves of directories to other groups (fsm/regroup.go). A request records the
// intent; a loop of whoever leads the first group brings what is below over, and
// records the switch.

// movers brings directories to other groups, one at a time.
type movers struct {
	wake chan struct{}

	mu   sync.Mutex
	at   *mover            // the present one; nil: none
	over map[string]string // why the last move of a path was given up
}

const (
	// regroupAgain is how often what could not be done is tried again.
	regroupAgain = 200 * time.Millisecond
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
	if w, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(r.Target.Ino), r.Target.Path); err == nil && w.Found &&
		w.Attr.Type == uint32(orca.TypeDir) && s.regroupOf(w.Attr.Ino) == nil {
		if err := s.survey(ctx, orca.Ino(w.Attr.Ino)); err != nil {
			return nil, err
		}
	}
	res, err := s.change(ctx, r.H, &command.Command{Checks: checkNames, Regroup: &metapb.RegroupOp{Target: r.Target, Group: r.Group}})
	if err != nil {
		return nil, err
	}
	if res.Existed {
		return &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_DONE, Group: r.Group}, nil
	}
	s.log.Info("a directory moves to another group", "path", r.Target.Path, "group", r.Group, "ino", res.Intent.GetIno())
	s.wakeRegroups()
	return s.regroupStatus(r.Target)
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

// regroupStatus tells how far the move of a directory is.
func (s *Service) regroupStatus(t *metapb.Target) (*metapb.RegroupReply, error) {
	var it *command.Intent
	for range 2 { // the switch may come between the two looks
		w, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(t.Ino), t.Path)
		if orca.KindOf(err) == orca.Referral {
			for _, m := range s.group.Machine().Mounts() {
				if m.Mount.Path == t.Path && m.Mount.Part != nil {
					return &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_DONE, Group: m.Mount.Group}, nil
				}
			}
		}
		if err != nil {
			return nil, err
		}
		if !w.Found {
			return nil, &orca.Error{Op: "metaserver.Regroup", Path: t.Path, Kind: orca.NotFound}
		}
		if it = s.regroupOf(w.Attr.Ino); it != nil {
			break
		}
	}
	s.movers.mu.Lock()
	defer s.movers.mu.Unlock()
	if it == nil {
		return &metapb.RegroupReply{Problem: s.movers.over[t.Path]}, nil
	}
	rep := &metapb.RegroupReply{State: metapb.RegroupState_REGROUP_MOVING, Group: it.Group}
	if u, err := s.group.Machine().Usage(orca.Ino(it.Ino)); err == nil {
		rep.Total = u.Inodes()
	}
	if m := s.movers.at; m != nil && m.it.Id == it.Id {
		rep.Copied = m.copied.Load()
		if p := m.problem.Load(); p != nil {
			rep.Problem = *p
		}
	}
	return rep, nil
}

// regroupAbort gives up the move of a directory.
func (s *Service) regroupAbort(ctx context.Context, t *metapb.Target) (*metapb.RegroupReply, error) {
	const op = "metaserver.Regroup"
	rep, err := s.regroupStatus(t)
	switch {
	case err != nil:
		return nil, err
	case rep.State == metapb.RegroupState_REGROUP_DONE:
		return nil, &orca.Error{Op: op, Path: t.Path, Kind: orca.Exists, Msg: fmt.Sprintf("it lives in group %d already", rep.Group)}
	case rep.State == metapb.RegroupState_REGROUP_NONE:
		return rep, nil
	}
	w, err := s.group.Machine().Walk(orca.Caller{}, orca.Ino(t.Ino), t.Path)
	if err != nil {
		return nil, err
	}
	if it := s.regroupOf(w.Attr.Ino); it != nil {
		if err := s.leaveHere(ctx, it, t.Path, "it was given up on request"); err != nil {
			return nil, err
		}
	}
	return s.regroupStatus(t)
}

// leaveHere ends a move: the directory stays where it is, and its writers go on.
func (s *Service) leaveHere(ctx context.Context, it *command.Intent, path, why string) error {
	s.movers.mu.Lock() // first, for whoever sees that it is over
	if s.movers.over == nil || len(s.movers.over) >= maxOver {
		s.movers.over = map[string]string{}
	}
	s.movers.over[path] = why
	s.movers.mu.Unlock()
	_, err := s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Intent: it.Id}})
	if err != nil && orca.KindOf(err) != orca.NotFound {
		return err
	}
	s.log.Info("a directory stays in its group", "path", path, "why", why)
	s.wakeRegroups()
	return nil
}

func (s *Service) wakeRegroups() {
	select {
	case s.movers.wake <- struct{}{}:
	default:
	}
}

// regroupLoop goes on with moves that are under way, also those of an earlier
// leader.
func (s *Service) regroupLoop() {
	defer s.wg.Done()
	tick := time.NewTicker(regroupAgain)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.movers.wake:
		case <-tick.C:
		}
		if s.Serving() != nil {
			continue
		}
		s.clearAbandoned()
		for _, it := range s.group.Machine().Regroups() {
			if s.ctx.Err() == nil {
				s.regroup(it)
			}
		}
	}
}

// clearAbandoned empties groups of what moves that were given up brought there.
func (s *Service) clearAbandoned() {
	for id, group := range s.group.Machine().Abandoned() {
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
		s.log.Info("a directory has moved to another group", "path", path, "group", it.Group, "inodes", m.copied.Load(), "dur", time.Since(m.began))
	case s.ctx.Err() != nil || k == orca.Canceled || k == orca.NotFound && s.regroupOf(it.Ino) == nil:
	case m.final(k):
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

// mover brings what is below one directory to another group.
type mover struct {
	s       *Service
	it      *command.Intent // nil: it looks only whether all may move
	began   time.Time
	copied  atomic.Int64
	problem atomic.Pointer[string] // of the last attempt
	resting bool                   // nothing below changes any more
	own     bool                   // the last error is about what is to move, not about the way there

	ns     metaplane.Namespace
	todo   []moving
	pages  []*metapb.StagedPage
	dirs   []dirAt // directories among the entries of pages
	linked map[orca.Ino]*linkedAt
	wait   []fileAt // files with several names among the entries of pages
	n      int      // entries of pages
}

// moving is a directory whose names after after are still to be brought to to.
type moving struct {
	dir   orca.Ino
	to    uint64
	after string
}

// dirAt is a directory that is the entry at, counted over all pages; fileAt a file.
type (
	dirAt struct {
		dir orca.Ino
		at  int
	}
	fileAt struct {
		file *linkedAt
		at   int
	}
)

// linkedAt is a file with several names, and how many of them were met.
type linkedAt struct {
	to          uint64 // 0: not there yet
	path        string
	names, seen uint32
}

const (
	stageNames = 1000
	stageBytes = 512 << 10
)

// final reports whether an error of this kind will not go away by itself.
func (m *mover) final(k orca.Kind) bool {
	return m.own || !k.Retryable() && k != orca.Stale
}

// run makes the whole move, from wherever an earlier attempt has come to.
func (m *mover) run(ctx context.Context) (path string, err error) {
	m.own = false
	sm := m.s.group.Machine()
	mt, err := sm.RegroupMount(m.it.Id)
	if err != nil {
		return "", err
	}
	if m.ns, err = m.s.cfg.Others(uint16(m.it.Group)); err != nil {
		return mt.Path, err
	}
	if err := m.rest(ctx); err != nil {
		return mt.Path, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rep, err := m.s.give(ctx, m.ns, mt)
	if orca.KindOf(err) == orca.Exists && len(sm.Abandoned()) > 0 {
		return mt.Path, orca.E("metaserver.Regroup", orca.Busy, "what an earlier move brought there is still to be removed")
	}
	if err != nil {
		return mt.Path, err
	}
	if rep.Mount.Junction == metapb.JunctionState_JUNCTION_STAGED {
		if err := m.copy(ctx, orca.Ino(m.it.Ino)); err != nil {
			return mt.Path, err
		}
	}
	_, err = m.s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Intent: m.it.Id, Root: rep.Mount.Root}})
	return mt.Path, err
}

// rest waits until what began before the move has ended.
func (m *mover) rest(ctx context.Context) error {
	for !m.resting {
		err := m.s.group.Machine().Restless(m.it.Id)
		switch {
		case err == nil:
			m.resting = true
			return nil
		case time.Since(m.began) > restWait || orca.KindOf(err) != orca.Busy:
			m.own = orca.KindOf(err) == orca.Busy
			return err
		}
		select {
		case <-ctx.Done():
			return orca.PathE("metaserver.Regroup", "", orca.Canceled, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// survey looks whether all below a directory may move to another group.
func (s *Service) survey(ctx context.Context, dir orca.Ino) error {
	m := &mover{s: s}
	return m.walk(ctx, dir)
}

// copy brings all below a directory to the mount that is staged for it.
func (m *mover) copy(ctx context.Context, dir orca.Ino) error {
	self, err := m.s.group.Machine().LeavingDir(dir)
	if err != nil {
		return err
	}
	if _, err := m.ns.Stage(ctx, &metapb.StageRequest{H: &metapb.Header{}, Mount: m.it.Part, Self: self.StagedEntry}); err != nil {
		return err
	}
	m.copied.Store(0)
	if err := m.walk(ctx, dir); err != nil {
		return err
	}
	u, err := m.s.group.Machine().Usage(dir)
	if err != nil {
		return err
	}
	_, err = m.ns.Stage(ctx, &metapb.StageRequest{H: &metapb.Header{}, Mount: m.it.Part,
		Seal: &metapb.StagedSums{Bytes: u.Bytes, Files: u.Files, Dirs: u.Dirs}})
	return err
}

// walk goes through all below a directory, page by page.
func (m *mover) walk(ctx context.Context, dir orca.Ino) error {
	m.todo, m.pages, m.dirs, m.wait, m.n = []moving{{dir: dir}}, nil, nil, nil, 0
	m.linked = map[orca.Ino]*linkedAt{}
	size := 0
	for len(m.todo) > 0 || m.n > 0 {
		if ctx.Err() != nil {
			return orca.PathE("metaserver.Regroup", "", orca.Canceled, ctx.Err())
		}
		if len(m.todo) == 0 || m.n >= stageNames || size >= stageBytes {
			if err := m.flush(ctx); err != nil {
				return err
			}
			size = 0
			continue
		}
		d := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		more, err := m.page(ctx, d, stageBytes-size)
		if err != nil {
			return err
		}
		size += more
	}
	for _, f := range m.linked {
		if f.seen != f.names {
			m.own = true
			return &orca.Error{Op: "metaserver.Regroup", Path: f.path, Kind: orca.Unsupported,
				Msg: "the file has other names outside of the directory: remove those, or these, first"}
		}
	}
	return nil
}

// page takes the next names of a directory.
func (m *mover) page(ctx context.Context, d moving, room int) (size int, err error) {
	sm := m.s.group.Machine()
	var intent uint64
	if m.it != nil {
		intent = m.it.Id
	}
	kids, more, err := sm.LeavingPage(intent, d.dir, d.after, stageNames-m.n, room)
	if err != nil {
		m.own = orca.KindOf(err) == orca.Busy || orca.KindOf(err) == orca.Unsupported
		if m.it == nil && orca.KindOf(err) == orca.NotFound {
			return 0, nil // removed meanwhile
		}
		return 0, err
	}
	if len(kids) == 0 {
		return 0, nil
	}
	if more {
		m.todo = append(m.todo, moving{d.dir, d.to, kids[len(kids)-1].Name})
	}
	page := &metapb.StagedPage{Dir: d.to}
	m.pages = append(m.pages, page)
	for i := range kids {
		k := &kids[i]
		e := k.StagedEntry
		size += e.SizeVT()
		switch {
		case k.Dir:
			m.dirs = append(m.dirs, dirAt{k.Ino, m.n})
		case k.Links > 0:
			f := m.linked[k.Ino]
			if f == nil {
				f = &linkedAt{names: k.Links, path: k.Name}
				m.linked[k.Ino] = f
			}
			if f.seen++; f.seen == 1 {
				m.wait = append(m.wait, fileAt{f, m.n})
				break
			}
			if f.to == 0 { // it is on these pages
				if err := m.flush(ctx); err != nil {
					return 0, err
				}
				page = &metapb.StagedPage{Dir: d.to}
				m.pages = append(m.pages, page)
			}
			e = &metapb.StagedEntry{Name: k.Name, Link: f.to, Home: k.Home}
		}
		page.Entries = append(page.Entries, e)
		m.n++
	}
	return size, nil
}

// flush has the group take the pages, and learns the numbers that it gave.
func (m *mover) flush(ctx context.Context) error {
	inos := make([]uint64, 0)
	if m.ns == nil {
		inos = make([]uint64, m.n)
		for i := range inos {
			inos[i] = 1
		}
	} else if m.n > 0 {
		rep, err := m.ns.Stage(ctx, &metapb.StageRequest{H: &metapb.Header{}, Mount: m.it.Part, Pages: m.pages})
		if err != nil {
			return err
		}
		inos = rep.Inos
	}
	if len(inos) != m.n {
		return orca.E("metaserver.Regroup", orca.Internal, fmt.Sprintf("the group answers with %d numbers for %d names", len(inos), m.n))
	}
	for _, d := range m.dirs {
		m.todo = append(m.todo, moving{dir: d.dir, to: inos[d.at]})
	}
	for _, f := range m.wait {
		f.file.to = inos[f.at]
	}
	m.copied.Add(int64(m.n))
	m.pages, m.dirs, m.wait, m.n = nil, m.dirs[:0], m.wait[:0], 0
	return nil
}

// forwarded sends who asks for a file by the number that it had before its
// directory moved to where it is; what is there may be another one by now, as who
// asks can tell.
func (s *Service) forwarded(t *metapb.Target, err error) error {
	if t.GetPath() != "" || orca.KindOf(err) != orca.NotFound || s.groupNumber() > 1 {
		return err
	}
	if to := s.group.Machine().Forward(orca.Ino(t.GetIno()), ""); to != "" {
		return &orca.Error{Op: "metaserver.Open", Path: to, Kind: orca.Referral, Msg: "its directory has moved to another group"}
	}
	return err
}

// Stage implements metaplane.Mounts: what a directory holds that moves to this
// group.
func (s *Service) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	if callerOf(r.H).UID != 0 {
		return nil, orca.E("metaserver.Stage", orca.Permission, "only the first group moves directories here")
	}
	res, err := s.group.Propose(ctx, &command.Command{Now: now(), Stage: &metapb.StageOp{
		Mount: r.Mount, Self: r.Self, Pages: r.Pages, Seal: r.Seal}})
	if err != nil {
		return nil, err
	}
	if r.Seal != nil {
		s.refreshMounts()
	}
	return &metapb.StageReply{Inos: res.Ids}, nil
}
