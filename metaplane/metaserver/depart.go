// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"fmt"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// Moves of parts away from the group that they are in (fsm/depart.go). That group
// does what the first one tells it, and hands out pages.

// partSource is a part in another group.
type partSource struct {
	ns    metaplane.Namespace
	mount uint32 // there
	move  uint32 // 0: it is only looked at
	group uint32 // where to
	held  *metapb.DepartReply
	ahead map[moving]*metapb.DepartPage // pages that were asked for with others
}

func (s *Service) partSource(m *metapb.Mount, move, group uint32) (*partSource, error) {
	ns, err := s.groupAt(uint16(m.Group))
	return &partSource{ns: ns, mount: m.Id, move: move, group: group, ahead: map[moving]*metapb.DepartPage{}}, err
}

// step has the group take a step of the move.
func (p *partSource) step(ctx context.Context, step metapb.DepartStep) (*metapb.DepartReply, error) {
	rep, err := p.ns.Depart(ctx, &metapb.DepartRequest{H: &metapb.Header{}, Op: &metapb.DepartOp{Mount: p.mount, Part: p.move, Group: p.group, Step: step}})
	if orca.KindOf(err) == orca.Stale { // it knows better
		return nil, &stays{err}
	}
	if err != nil {
		return nil, err
	}
	return rep, refusedDepart(rep)
}

func refusedDepart(rep *metapb.DepartReply) error {
	if r := rep.GetRefused(); r != nil {
		return &stays{&orca.Error{Op: "metaserver.Depart", Path: r.Path, Kind: orca.Kind(r.Kind), Msg: r.Msg}}
	}
	return nil
}

func (p *partSource) rest(ctx context.Context) (err error) {
	p.held, err = p.step(ctx, metapb.DepartStep_DEPART_HOLD)
	return err
}

func (p *partSource) self(ctx context.Context) (l fsm.Leaving, u fsm.Usage, err error) {
	if p.held == nil {
		if err := p.rest(ctx); err != nil {
			return l, u, err
		}
	}
	s := p.held.GetSums()
	return fsm.Leaving{StagedEntry: p.held.GetSelf(), Dir: true}, fsm.Usage{Bytes: s.GetBytes(), Files: s.GetFiles(), Dirs: s.GetDirs()}, nil
}

func (p *partSource) close(ctx context.Context) error {
	_, err := p.step(ctx, metapb.DepartStep_DEPART_CLOSE)
	return err
}

// dirsAhead is of how many directories pages are asked for at once, if they fit.
const dirsAhead = 256

func (p *partSource) page(ctx context.Context, d moving, _, _ int, next []moving) ([]fsm.Leaving, bool, error) {
	d.to = 0
	if p.ahead[d] == nil {
		if err := p.fetch(ctx, d, next); err != nil {
			return nil, false, err
		}
	}
	page := p.ahead[d]
	delete(p.ahead, d)
	kids := make([]fsm.Leaving, 0, len(page.GetEntries()))
	for _, e := range page.GetEntries() {
		if e.Entry == nil {
			return nil, false, orca.E("metaserver.Depart", orca.Internal, "a name without a record")
		}
		kids = append(kids, fsm.Leaving{StagedEntry: e.Entry, Ino: orca.Ino(e.Ino), Dir: e.Dir, Links: e.Links, Home: e.Home})
	}
	return kids, page.GetMore(), nil
}

// fetch asks for a page of d, and for those of the directories after it that fit.
func (p *partSource) fetch(ctx context.Context, d moving, next []moving) error {
	ask := []moving{d}
	for i := len(next) - 1; i >= 0 && len(ask) < dirsAhead; i-- {
		n := next[i]
		if n.to = 0; p.ahead[n] == nil {
			ask = append(ask, n)
		}
	}
	r := &metapb.DepartRequest{H: &metapb.Header{}, Op: &metapb.DepartOp{Mount: p.mount, Part: p.move}, Names: stageNames, Bytes: stageBytes}
	for _, a := range ask {
		r.From = append(r.From, &metapb.DepartFrom{Dir: uint64(a.dir), After: a.after})
	}
	rep, err := p.ns.Depart(ctx, r)
	if err != nil {
		return err
	}
	if err := refusedDepart(rep); err != nil {
		return err
	}
	if len(rep.Pages) == 0 || len(rep.Pages) > len(ask) {
		return orca.E("metaserver.Depart", orca.Internal, fmt.Sprintf("%d pages of %d directories", len(rep.Pages), len(ask)))
	}
	for i, page := range rep.Pages {
		p.ahead[ask[i]] = page
	}
	return nil
}

// Depart implements metaplane.Mounts.
func (s *Service) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	const op = "metaserver.Depart"
	switch {
	case callerOf(r.H).UID != 0:
		return nil, orca.E(op, orca.Permission, "only the first group moves parts away from others")
	case r.Op == nil || r.Op.Step == metapb.DepartStep_DEPART_LOOK && len(r.From) == 0:
		return nil, orca.E(op, orca.Invalid, "nothing is asked for")
	}
	if r.Op.Step == metapb.DepartStep_DEPART_LOOK {
		if err := s.ready(ctx); err != nil {
			return nil, err
		}
		return s.departing(r)
	}
	if _, err := s.group.Propose(ctx, &command.Command{Now: now(), Depart: r.Op}); err != nil {
		return nil, err
	}
	rep := &metapb.DepartReply{}
	switch r.Op.Step {
	case metapb.DepartStep_DEPART_HOLD:
		h, err := s.group.Machine().Held(r.Op.Mount, r.Op.Part)
		if orca.KindOf(err) == orca.Busy {
			rep.Refused = departRefusal(err)
			return rep, nil
		}
		if err != nil {
			return nil, err
		}
		rep.Self, rep.Sums = h.Self.StagedEntry, &metapb.StagedSums{Bytes: h.Bytes, Files: h.Files, Dirs: h.Dirs}
	case metapb.DepartStep_DEPART_LEAVE, metapb.DepartStep_DEPART_LIFT:
		s.refreshMounts()
		s.Exec.Wake()
	}
	return rep, nil
}

// departing are pages of what is in a part, of as many directories as fit.
func (s *Service) departing(r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	rep := &metapb.DepartReply{}
	names, bytes := min(max(int(r.Names), 1), stageNames), min(max(int(r.Bytes), 1), stageBytes)
	for _, f := range r.From {
		kids, more, err := s.group.Machine().DepartingPage(r.Op.Mount, r.Op.Part, orca.Ino(f.Dir), f.After, names, bytes)
		switch k := orca.KindOf(err); {
		case k == orca.NotFound && r.Op.Part == 0: // removed meanwhile
		case err != nil && len(rep.Pages) > 0:
			return rep, nil // who asks for it first is told
		case k == orca.Busy || k == orca.Unsupported:
			rep.Refused = departRefusal(err)
			return rep, nil
		case err != nil:
			return nil, err
		}
		page := &metapb.DepartPage{More: more}
		for i := range kids {
			k := &kids[i]
			page.Entries = append(page.Entries, &metapb.Departing{Entry: k.StagedEntry, Ino: uint64(k.Ino), Dir: k.Dir, Links: k.Links, Home: k.Home})
			bytes -= k.StagedEntry.SizeVT()
		}
		rep.Pages = append(rep.Pages, page)
		if names -= len(kids); names <= 0 || bytes <= 0 {
			break
		}
	}
	return rep, nil
}

func departRefusal(err error) *metapb.DepartRefusal {
	r := &metapb.DepartRefusal{Kind: uint32(orca.KindOf(err)), Msg: messageOf(err)}
	var e *orca.Error
	if errors.As(err, &e) {
		r.Path = e.Path
	}
	return r
}

// tellDeparted tells groups what has become of the moves away from them.
func (s *Service) tellDeparted() {
	for _, d := range s.group.Machine().Departed() {
		ctx, cancel := context.WithTimeout(s.ctx, joinPatience)
		op := &metapb.DepartOp{Mount: d.Mount, Part: d.Move, Step: metapb.DepartStep_DEPART_LIFT, Root: d.Root}
		if d.Root != 0 {
			op.Step = metapb.DepartStep_DEPART_LEAVE
		}
		ns, err := s.groupAt(uint16(d.Group))
		if err == nil {
			_, err = ns.Depart(ctx, &metapb.DepartRequest{H: &metapb.Header{}, Op: op})
		}
		if orca.KindOf(err) == orca.Stale && d.Root == 0 {
			err = nil // what was to stay there is not there any more
		}
		if err == nil {
			_, err = s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Settled: d.Move}})
		}
		cancel()
		if err != nil && s.ctx.Err() == nil {
			s.log.Warn("a group does not know yet what has become of a move away from it", "group", d.Group, "mount", d.Mount, "err", err)
		}
	}
}
