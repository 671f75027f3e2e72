// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/grant"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/metaplane/workers"
)

// resolve finds what a target names, in line with its UFS as the option says.
func (s *Service) resolve(ctx context.Context, op string, h *metapb.Header, t *metapb.Target, o ufssync.Option) (*fsm.Walked, error) {
	if err := checkTarget(op, t); err != nil {
		return nil, err
	}
	if s.follows(h) {
		return s.resolveHere(ctx, op, h, t, o)
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	w, err := s.Syncer.Path(ctx, callerOf(h), orca.Ino(t.Ino), t.Path, o)
	if err != nil {
		return nil, s.handedOver(h, t, err)
	}
	if !w.Found {
		return nil, &orca.Error{Op: op, Path: t.Path, Kind: orca.NotFound}
	}
	return w, s.hidden(op, t, &w.View)
}

// handedOver is the error of a read of what may be in another group by now: what was
// not found because its mount left this group meanwhile is where paths begin, and
// what was not because its directory moved is there.
func (s *Service) handedOver(h *metapb.Header, t *metapb.Target, err error) error {
	if (s.groupNumber() > 1 || len(s.groups()) > 1) && orca.KindOf(err) == orca.NotFound {
		if _, werr := s.group.Machine().Walk(callerOf(h), orca.Ino(t.Ino), t.Path); orca.KindOf(werr) == orca.Referral || orca.KindOf(werr) == orca.Busy {
			return werr // Busy: a junction just between two states
		}
	}
	return err
}

// Stat implements metaplane.Reader.
func (s *Service) Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	o := ufssync.OptionOf(r.Sync)
	w, err := s.resolve(ctx, "metaserver.Stat", r.H, r.Target, o)
	if err != nil {
		return nil, err
	}
	a := s.attr(&w.View)
	switch err := s.checkLost(ctx, "metaserver.Stat", r.Target.Path, &w.View); orca.KindOf(err) {
	case orca.LostData:
		a.Persist = uint32(orca.Lost)
	case orca.NotLeader:
		return nil, err
	}
	return &metapb.StatReply{Attr: a, Parent: uint64(w.Parent), TtlMs: s.ttl(&w.View, o)}, nil
}

// attr completes the attributes of a view with soft state.
func (s *Service) attr(v *fsm.View) *metapb.Attr {
	if v.Attr.Type == uint32(orca.TypeFile) {
		v.Attr.CachedBytes = s.Workers.Cached(orca.Ino(v.Attr.Ino), v.Attr.Version)
	}
	return v.Attr
}

// ttl is how long a client may cache what it got: never longer than the sync
// interval, in ms.
func (s *Service) ttl(v *fsm.View, o ufssync.Option) int64 {
	ttl := s.cfg.CacheTTL
	if i := o.IntervalOf(v); i >= 0 {
		ttl = min(ttl, i)
	}
	return ttl.Milliseconds()
}

const (
	defaultPage = 1000
	maxPage     = 4096
)

// listing is a directory that may be listed, in line with its UFS.
type listing struct {
	dir    *fsm.Walked
	caller orca.Caller
	limit  int
	option ufssync.Option
}

func (s *Service) listing(ctx context.Context, r *metapb.ListRequest) (*listing, error) {
	const op = "metaserver.List"
	l := &listing{caller: callerOf(r.H), option: ufssync.OptionOf(r.Sync), limit: min(int(r.Limit), maxPage)}
	l.option.Force = r.Force
	w, err := s.resolve(ctx, op, r.H, r.Target, l.option)
	if err != nil {
		return nil, err
	}
	if l.dir = w; w.Attr.Type != uint32(orca.TypeDir) {
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.NotDir}
	}
	if err := s.departed(ctx, r.H, orca.Ino(w.Attr.Ino)); err != nil {
		return nil, err
	}
	if r.After == "" || !w.Loaded {
		if err := s.group.Machine().Access(l.caller, orca.Ino(w.Attr.Ino), 4); err != nil {
			return nil, s.handedOver(r.H, r.Target, err)
		}
		if s.follows(r.H) {
			if !s.Syncer.DirHere(&w.View, l.option) {
				return nil, s.refer()
			}
		} else if err := s.listed(ctx, &w.View, l.option); err != nil {
			return nil, s.handedOver(r.H, r.Target, err)
		}
	}
	if l.limit <= 0 {
		l.limit = defaultPage
	}
	return l, nil
}

// List implements metaplane.Reader.
func (s *Service) List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	l, err := s.listing(ctx, r)
	if err != nil {
		return nil, err
	}
	w := l.dir
	kids, more, err := s.group.Machine().Children(l.caller, orca.Ino(w.Attr.Ino), r.After, l.limit)
	if err != nil {
		return nil, s.handedOver(r.H, r.Target, err)
	}
	rep := &metapb.ListReply{Entries: make([]*metapb.Entry, 0, len(kids)), More: more, Dir: s.attr(&w.View), TtlMs: s.ttl(&w.View, l.option)}
	size := 0
	for i := range kids {
		e := &metapb.Entry{Name: kids[i].Name, Attr: s.attr(&kids[i].View)}
		if size += e.SizeVT() + 8; size > s.cfg.ListBytes && i > 0 {
			rep.More = true
			break
		}
		rep.Entries = append(rep.Entries, e)
	}
	return rep, nil
}

// listTries bounds how often a listing begins anew because the directory was
// being moved or removed meanwhile.
const listTries = 8

// listed lists a directory from its UFS when that is due. A first listing that
// a mutation of the directory itself kept from being applied is made again: the
// namespace does not know yet what is in it.
func (s *Service) listed(ctx context.Context, v *fsm.View, o ufssync.Option) error {
	m, ino := s.group.Machine(), orca.Ino(v.Attr.Ino)
	for range listTries {
		if _, err := s.Syncer.Dir(ctx, v, o); err != nil || v.Loaded {
			return err
		}
		next, err := m.Lookup(ino)
		if err != nil || next.Loaded || next.Pending == 0 && v.Pending == 0 {
			return err
		}
		if in, err := m.Intent(next.Pending); err == nil && !in.Deferred {
			s.Exec.Settle(ctx, in)
			if next, err = m.Lookup(ino); err != nil {
				return err
			}
		}
		*v = *next
	}
	return &orca.Error{Op: "metaserver.List", Path: v.Key, Kind: orca.Busy, Msg: "the directory is being changed in its UFS"}
}

// appendList appends the encoded reply of List to dst: the records go straight
// into it, without an object per entry.
func (s *Service) appendList(ctx context.Context, r *metapb.ListRequest, dst []byte) ([]byte, error) {
	l, err := s.listing(ctx, r)
	if err != nil {
		return nil, err
	}
	rest := metapb.ListReply{Dir: s.attr(&l.dir.View), TtlMs: s.ttl(&l.dir.View, l.option)}
	start, n := len(dst), 0
	var bad error
	err = s.group.Machine().EachChild(l.caller, orca.Ino(l.dir.Attr.Ino), r.After, func(name []byte, a *metapb.Attr) bool {
		if n == l.limit {
			rest.More = true
			return false
		}
		if a.Type == uint32(orca.TypeFile) {
			a.CachedBytes = s.Workers.Cached(orca.Ino(a.Ino), a.Version)
		} else {
			a.CachedBytes = 0
		}
		before := len(dst)
		if dst, bad = metapb.AppendEntry(dst, name, a); bad != nil {
			return false
		}
		if len(dst)-start > s.cfg.ListBytes && n > 0 {
			dst, rest.More = dst[:before], true
			return false
		}
		n++
		return true
	})
	if err != nil || bad != nil {
		return nil, s.handedOver(r.H, r.Target, cmp.Or(err, bad))
	}
	tail := rest.SizeVT()
	dst = slices.Grow(dst, tail)
	dst = dst[:len(dst)+tail]
	_, err = rest.MarshalToSizedBufferVT(dst[len(dst)-tail:])
	return dst, err
}

// Open implements metaplane.Reader. LostData when the only copies are gone.
func (s *Service) Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return s.openHeld(ctx, r)
}

func (s *Service) open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	const op = "metaserver.Open"
	o := ufssync.OptionOf(r.Sync)
	w, err := s.resolve(ctx, op, r.H, r.Target, o)
	if err != nil {
		return nil, s.forwarded(r.Target, err)
	}
	a := s.attr(&w.View)
	switch orca.FileType(a.Type) {
	case orca.TypeDir:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.IsDir}
	case orca.TypeSymlink:
		return nil, &orca.Error{Op: op, Path: r.Target.Path, Kind: orca.Invalid, Msg: "a symbolic link cannot be opened"}
	}
	bits := uint32(4)
	if r.Write {
		bits = 6
	}
	c := callerOf(r.H)
	if err := s.group.Machine().Access(c, orca.Ino(a.Ino), bits); err != nil {
		return nil, err
	}
	if err := s.checkLost(ctx, op, r.Target.Path, &w.View); err != nil {
		return nil, err
	}
	locs := s.Workers.Locations(orca.Ino(a.Ino), a.Version)
	return &metapb.OpenReply{
		Attr:      a,
		Grant:     s.grant(orca.Ino(a.Ino), a.Version, c.UID, false, s.cfg.ReadGrantTTL),
		Locations: locs,
		Workers:   bestFirst(s.Workers.Live(), locs),
		TtlMs:     s.ttl(&w.View, o),
	}, nil
}

// checkLost answers LostData when every worker that held an unpersisted file
// has reported without it, and puts that on record.
func (s *Service) checkLost(ctx context.Context, op, path string, v *fsm.View) error {
	lost := &orca.Error{Op: op, Path: path, Kind: orca.LostData, Msg: "every worker that held the unpersisted data has lost it"}
	switch orca.PersistState(v.Attr.Persist) {
	case orca.Persisted:
		return nil
	case orca.Lost:
		return lost
	}
	ino, reign := orca.Ino(v.Attr.Ino), s.lead.reign.Load()
	if v.Attr.Length == 0 || len(v.Holders) == 0 || s.Workers.Availability(ino, v.Attr.Version, v.Holders) != workers.Gone {
		return nil
	}
	if reign == 0 && !s.raw.Alone() {
		return s.refer() // the leader has it put on record
	}
	s.Stats.Lost.Add(1)
	s.log.Error("unpersisted file is lost", "ino", v.Attr.Ino)
	_, err := s.group.Propose(ctx, &command.Command{Now: now(), Reign: reign, MarkLost: &metapb.MarkLostOp{Files: []uint64{v.Attr.Ino}}})
	if err != nil {
		return err
	}
	return lost
}

// grant makes the right to one version of one file.
func (s *Service) grant(ino orca.Ino, version, uid uint32, write bool, ttl time.Duration) *metapb.Grant {
	g := grant.Make(s.GrantKey(), dataplane.Grant{File: ino, Version: version, UID: uid, Write: write, Expiry: time.Now().Add(ttl)})
	return &metapb.Grant{File: uint64(g.File), Version: g.Version, Uid: g.UID, Write: g.Write, Expiry: g.Expiry.UnixNano(), Token: g.Token}
}

// bestFirst puts the workers that hold something before the others.
func bestFirst(live []*metapb.Worker, locs []*metapb.Location) []*metapb.Worker {
	if len(locs) == 0 {
		return live
	}
	rank := func(w *metapb.Worker) int {
		if i := slices.IndexFunc(locs, func(l *metapb.Location) bool { return l.Worker == w.Id }); i >= 0 {
			return i
		}
		return len(locs)
	}
	slices.SortStableFunc(live, func(a, b *metapb.Worker) int { return rank(a) - rank(b) })
	return live
}

// Locations implements metaplane.Reader.
func (s *Service) Locations(ctx context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	w, err := s.resolve(ctx, "metaserver.Locations", r.H, r.Target, ufssync.Option{})
	if err != nil {
		return nil, err
	}
	a := s.attr(&w.View)
	return &metapb.LocationsReply{Attr: a, Locations: s.Workers.Locations(orca.Ino(a.Ino), a.Version), Workers: s.Workers.Live()}, nil
}

// maxWatch caps one long poll.
const maxWatch = 30 * time.Second

// Watch implements metaplane.Reader.
func (s *Service) Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error) {
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	wait := min(max(time.Duration(r.WaitMs)*time.Millisecond, 0), maxWatch)
	wctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	if !s.raw.Alone() {
		go s.untilDeposed(wctx, cancel)
	}
	var leaving func() []uint64
	epoch := s.holdsEpoch()
	if r.Holder != 0 {
		var wake <-chan struct{}
		wake, leaving = s.holds.listen(r.Holder)
		if r.Holds != epoch {
			cancel()
		} else {
			go cancelOn(wctx, wake, cancel)
		}
	}
	events, next, lost := s.group.Watch(wctx, r.Cursor)
	var gone []uint64
	if leaving != nil {
		gone = leaving()
	}
	if err := s.Serving(); err != nil {
		return nil, err // it would hear late, or nothing, from here on
	}
	rep := &metapb.WatchReply{Cursor: next, Lost: lost, Events: make([]*metapb.Event, 0, len(events)), Leaving: gone, Holds: epoch}
	for i := range events {
		e := &events[i]
		rep.Events = append(rep.Events, &metapb.Event{Ino: uint64(e.Ino), Parent: uint64(e.Parent), Name: strings.Clone(e.Name), Kind: e.Kind})
	}
	return rep, nil
}

// cancelOn calls cancel when something comes, unless ctx ends first.
func cancelOn(ctx context.Context, wake <-chan struct{}, cancel func()) {
	select {
	case <-wake:
		cancel()
	case <-ctx.Done():
	}
}
