// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// mover brings what is below one directory to another group. It reads pages of
// names where they are while others are on their way, at most stageAhead: a
// directory's names are sent once the group has said which number it has there,
// and in no order.
type mover struct {
	s       *Service
	it      *command.Intent // nil: it looks only whether all may move
	from    source
	ask     *metapb.TransferOp // of a rename: what its group will be asked; else nil
	began   time.Time
	copied  atomic.Int64
	total   atomic.Int64           // 0: not known
	problem atomic.Pointer[string] // of the last attempt
	resting bool                   // nothing below changes any more
	waiting time.Time              // since when it is waited for that

	ns     metaplane.Namespace // nil: see it
	todo   []moving
	linked map[orca.Ino]*linkedAt
	pack   pack // to be sent next
	flying int  // packs on their way
	landed chan landing
	root   uint64 // of a tree without a mount of its own, once it is sealed
}

// source is where a directory moves from. What cannot move is a *stays.
type source interface {
	// rest returns, as a *stays, what began before the move and has not ended.
	rest(ctx context.Context) error
	// self returns the directory itself, and the sums of what is below it.
	self(ctx context.Context) (fsm.Leaving, fsm.Usage, error)
	// page returns names of d; next are directories that will be asked for soon,
	// the first at the end.
	page(ctx context.Context, d moving, names, bytes int, next []moving) (kids []fsm.Leaving, more bool, err error)
	// close has it read by nobody until it is known where it lives.
	close(ctx context.Context) error
}

// stays is why what is to move cannot, and will not by itself.
type stays struct{ err error }

func (e *stays) Error() string { return e.err.Error() }
func (e *stays) Unwrap() error { return e.err }

// final reports whether an error will not go away by itself.
func final(err error) bool {
	var own *stays
	k := orca.KindOf(err)
	return errors.As(err, &own) || !k.Retryable() && k != orca.Stale
}

// pack is what is sent at once.
type pack struct {
	pages []*metapb.StagedPage
	dirs  []dirAt  // directories among the entries of pages
	wait  []fileAt // files with several names among them
	n     int      // entries
	size  int
}

// landing is what has become of a pack.
type landing struct {
	pack
	inos []uint64
	err  error
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
	stageAhead = 3
)

// run makes the whole move, from wherever an earlier attempt has come to.
func (m *mover) run(ctx context.Context) (path string, err error) {
	sm := m.s.group.Machine()
	mt, err := sm.RegroupMount(m.it.Id)
	if err != nil {
		return "", err
	}
	if m.from, err = m.s.sourceOf(m.it); err != nil {
		return mt.Path, err
	}
	if m.it.Group <= 1 {
		return mt.Path, m.runHome(ctx)
	}
	if m.ns, err = m.s.cfg.Others(uint16(m.it.Group)); err != nil {
		return mt.Path, err
	}
	if err := m.rest(ctx); err != nil {
		return mt.Path, err
	}
	rep, err := m.mount(ctx, mt)
	if orca.KindOf(err) == orca.Exists && len(sm.Abandoned()) > 0 {
		return mt.Path, orca.E("metaserver.Regroup", orca.Busy, "what an earlier move brought there is still to be removed")
	}
	if err != nil {
		return mt.Path, err
	}
	if rep.Mount.Junction == metapb.JunctionState_JUNCTION_STAGED {
		if err := m.copy(ctx); err != nil {
			return mt.Path, err
		}
	}
	return mt.Path, m.end(ctx, rep.Mount.Root)
}

// mount has the group take the mount that the directory will be there. What cannot
// be done now is tried again by whoever runs the move: other moves go on meanwhile.
func (m *mover) mount(ctx context.Context, mt *metapb.Mount) (*metapb.MountReply, error) {
	ctx, cancel := context.WithTimeout(ctx, electionWait)
	defer cancel()
	rep, err := m.ns.Mount(ctx, &metapb.MountRequest{H: &metapb.Header{}, Mount: mount.Copy(mt), Parents: true})
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &orca.Error{Op: "metaserver.Regroup", Path: mt.Path, Kind: orca.Unavailable, Msg: fmt.Sprintf("group %d does not answer", m.it.Group), Err: err}
	}
	return rep, err
}

// runHome is run of a part that comes to this group, where it has no mount of its
// own.
func (m *mover) runHome(ctx context.Context) error {
	m.ns = m.s
	if err := m.rest(ctx); err != nil {
		return err
	}
	if !m.s.group.Machine().AllHere(m.it.Id) {
		if err := m.copy(ctx); err != nil {
			return err
		}
	}
	of, err := m.s.group.Machine().Mount(m.it.MountId)
	if err != nil {
		return err
	}
	if !of.Directories {
		if err := m.s.Syncer.Inherit(ctx, of.Mount.Id); err != nil {
			return err
		}
	}
	return m.end(ctx, m.it.Ino)
}

// end has nobody read the directory where it was, and records where it is.
func (m *mover) end(ctx context.Context, root uint64) error {
	if err := m.from.close(ctx); err != nil {
		return err
	}
	_, err := m.s.group.Propose(ctx, &command.Command{Now: now(), Regroup: &metapb.RegroupOp{Intent: m.it.Id, Root: root}})
	return err
}

// stage has the group take what is brought there.
func (m *mover) stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	r.H = &metapb.Header{}
	if m.ask != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stagePatience)
		defer cancel()
	}
	if m.it.Group <= 1 {
		r.Tx = m.it.Id
	} else {
		r.Mount = m.it.Part
	}
	return m.ns.Stage(ctx, r)
}

// rest waits until what began before the move has ended.
func (m *mover) rest(ctx context.Context) error {
	for !m.resting {
		err := m.from.rest(ctx)
		var busy *stays
		switch {
		case err == nil:
			m.resting = true
			return nil
		case !errors.As(err, &busy):
			return err
		case m.waiting.IsZero():
			m.waiting = time.Now()
		case time.Since(m.waiting) > restWait:
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

// copy brings all below a directory to the mount that is staged for it.
func (m *mover) copy(ctx context.Context) error {
	self, sums, err := m.from.self(ctx)
	if err != nil {
		return err
	}
	m.total.Store(sums.Inodes())
	rep, err := m.stage(ctx, &metapb.StageRequest{Self: self.StagedEntry, Ask: m.ask})
	if err != nil {
		return err
	}
	if m.root = rep.GetRoot(); rep.GetSealed() {
		return nil
	}
	m.copied.Store(0)
	if err := m.walk(ctx); err != nil {
		return err
	}
	_, err = m.stage(ctx, &metapb.StageRequest{
		Seal: &metapb.StagedSums{Bytes: sums.Bytes, Files: sums.Files, Dirs: sums.Dirs}})
	return err
}

// walk goes through all below the directory, page by page.
func (m *mover) walk(ctx context.Context) error {
	m.todo, m.pack, m.linked = []moving{{}}, pack{}, map[orca.Ino]*linkedAt{}
	m.landed = make(chan landing, stageAhead)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		for ; m.flying > 0; m.flying-- {
			<-m.landed
		}
	}()
	for len(m.todo) > 0 || m.flying > 0 || m.pack.n > 0 {
		var err error
		switch {
		case ctx.Err() != nil:
			err = orca.PathE("metaserver.Regroup", "", orca.Canceled, ctx.Err())
		case m.pack.n >= stageNames || m.pack.size >= stageBytes:
			err = m.send(ctx)
		case len(m.todo) > 0:
			err = m.page(ctx)
		case m.flying > 0: // what it brings is sent with what is here
			err = m.land()
		default:
			err = m.send(ctx)
		}
		if err != nil {
			return err
		}
	}
	for _, f := range m.linked {
		if f.seen != f.names {
			return &stays{&orca.Error{Op: "metaserver.Regroup", Path: f.path, Kind: orca.Unsupported,
				Msg: "the file has other names outside of the directory: remove those, or these, first"}}
		}
	}
	return nil
}

// page packs the next names of a directory.
func (m *mover) page(ctx context.Context) error {
	d := m.todo[len(m.todo)-1]
	m.todo = m.todo[:len(m.todo)-1]
	kids, more, err := m.from.page(ctx, d, stageNames-m.pack.n, stageBytes-m.pack.size, m.todo)
	if err != nil {
		if m.it == nil && orca.KindOf(err) == orca.NotFound {
			return nil // removed meanwhile
		}
		return err
	}
	if len(kids) == 0 {
		return nil
	}
	if more {
		m.todo = append(m.todo, moving{d.dir, d.to, kids[len(kids)-1].Name})
	}
	page := m.pack.page(d.to)
	for i := range kids {
		k := &kids[i]
		e := k.StagedEntry
		switch {
		case k.Dir:
			m.pack.dirs = append(m.pack.dirs, dirAt{k.Ino, m.pack.n})
		case k.Links > 0:
			f := m.linked[k.Ino]
			if f == nil {
				f = &linkedAt{names: k.Links, path: k.Name}
				m.linked[k.Ino] = f
			}
			if f.seen++; f.seen == 1 {
				m.pack.wait = append(m.pack.wait, fileAt{f, m.pack.n})
				break
			}
			if f.to == 0 { // it is on its way, or just packed
				if err := m.settle(ctx); err != nil {
					return err
				}
				page = m.pack.page(d.to)
			}
			e = &metapb.StagedEntry{Name: k.Name, Link: f.to, Home: k.Home}
		}
		page.Entries = append(page.Entries, e)
		m.pack.size += e.SizeVT()
		m.pack.n++
	}
	return nil
}

// page adds an empty page of names of a directory.
func (p *pack) page(dir uint64) *metapb.StagedPage {
	page := &metapb.StagedPage{Dir: dir}
	p.pages = append(p.pages, page)
	return page
}

// settle sends what is packed, and waits until nothing is on its way.
func (m *mover) settle(ctx context.Context) error {
	if err := m.send(ctx); err != nil {
		return err
	}
	for m.flying > 0 {
		if err := m.land(); err != nil {
			return err
		}
	}
	return nil
}

// send has the group take what is packed.
func (m *mover) send(ctx context.Context) error {
	p := m.pack
	m.pack = pack{}
	if p.n == 0 {
		return nil
	}
	if m.ns == nil {
		inos := make([]uint64, p.n)
		for i := range inos {
			inos[i] = 1
		}
		return m.learn(landing{pack: p, inos: inos})
	}
	for m.flying >= stageAhead {
		if err := m.land(); err != nil {
			return err
		}
	}
	m.flying++
	go func() {
		rep, err := m.stage(ctx, &metapb.StageRequest{Pages: p.pages})
		m.landed <- landing{p, rep.GetInos(), err}
	}()
	return nil
}

// land waits for one of the packs on their way; ctx ends what sends them.
func (m *mover) land() error {
	l := <-m.landed
	m.flying--
	return m.learn(l)
}

// learn takes note of the numbers that what was sent has there.
func (m *mover) learn(l landing) error {
	if l.err != nil {
		return l.err
	}
	if len(l.inos) != l.n {
		return orca.E("metaserver.Regroup", orca.Internal, fmt.Sprintf("the group answers with %d numbers for %d names", len(l.inos), l.n))
	}
	for _, d := range l.dirs {
		m.todo = append(m.todo, moving{dir: d.dir, to: l.inos[d.at]})
	}
	for _, f := range l.wait {
		f.file.to = l.inos[f.at]
	}
	m.copied.Add(int64(l.n))
	return nil
}

// sourceOf returns where a move begins.
func (s *Service) sourceOf(it *command.Intent) (source, error) {
	if it.From == 0 {
		return &hereSource{m: s.group.Machine(), intent: it.Id, dir: orca.Ino(it.Ino)}, nil
	}
	row, err := s.group.Machine().Mount(it.From)
	if err != nil {
		return nil, err
	}
	return s.partSource(row.Mount, it.Part, it.Group)
}

// hereSource is a directory of the first group.
type hereSource struct {
	m      *fsm.Machine
	intent uint64 // of the move; 0: it is only looked at
	dir    orca.Ino
}

func (h *hereSource) rest(context.Context) error {
	err := h.m.Restless(h.intent)
	if orca.KindOf(err) == orca.Busy {
		return &stays{err}
	}
	return err
}

func (h *hereSource) self(context.Context) (l fsm.Leaving, u fsm.Usage, err error) {
	if l, err = h.m.LeavingDir(h.dir); err != nil {
		return l, u, err
	}
	v, err := h.m.Usage(h.dir)
	return l, v.Usage, err
}

func (h *hereSource) page(_ context.Context, d moving, names, bytes int, _ []moving) ([]fsm.Leaving, bool, error) {
	if d.dir == 0 {
		d.dir = h.dir
	}
	kids, more, err := h.m.LeavingPage(h.intent, d.dir, d.after, names, bytes)
	return kids, more, staying(err)
}

// staying makes a *stays of what says that a name cannot move.
func staying(err error) error {
	if k := orca.KindOf(err); k == orca.Busy || k == orca.Unsupported {
		return &stays{err}
	}
	return err
}

// close: where it lives is decided where it is.
func (h *hereSource) close(context.Context) error { return nil }
