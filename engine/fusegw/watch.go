// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

const (
	// notesMax bounds what waits for the notifier; beyond it everything is
	// invalidated instead.
	notesMax = 1 << 16
	// ownFor is how long a change made here is remembered, so that its echo
	// on the watch stream does not drop what the kernel just learnt.
	ownFor = 5 * time.Second
	// ownMax bounds the changes remembered.
	ownMax = 1 << 14
	// retryNote is the pause before a note that cannot be judged yet, or that
	// may have overtaken the reply it is about, is looked at (again).
	retryNote = 20 * time.Millisecond
)

// note is something for the kernel to forget.
type note struct {
	ino     orca.Ino // attributes; 0: none
	content bool     // and pages
	parent  orca.Ino // the entry name; 0: none
	name    string
	again   bool // was tried before
}

// note queues for the notifier and never waits.
func (g *gateway) note(n note) {
	select {
	case g.notes <- n:
	default:
		g.refill.Store(true)
	}
}

// watchLoop follows the stream of changes for the life of the mount.
func (g *gateway) watchLoop(ctx context.Context) {
	pause, before := 50*time.Millisecond, false
	for ctx.Err() == nil {
		up := false
		err := g.fs.Watch(ctx, func(events []Event, lost bool) {
			if lost || !up && before {
				g.invalidateAll()
			}
			up, before, pause = true, true, 50*time.Millisecond
			for i := range events {
				g.event(&events[i])
			}
			g.m.WatchUp.Store(true)
		})
		if ctx.Err() != nil {
			return
		}
		if g.m.WatchUp.Swap(false) {
			// What the kernel was told to believe is not kept true any more.
			g.invalidateAll()
			g.cfg.Logger.Warn("lost the watch stream: short cache times until it is back", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// invalidateAll makes everything out of date.
func (g *gateway) invalidateAll() {
	g.stale.markAll()
	g.dirs.clear()
	g.refill.Store(true)
	g.note(note{})
}

// event marks what is out of date before the kernel is told.
func (g *gateway) event(e *Event) {
	g.m.Events.Add(1)
	g.stale.mark(e.Ino)
	switch e.Kind {
	case EventEntry:
		g.stale.mark(e.Parent)
		g.dirs.drop(e.Parent)
		g.note(note{ino: e.Ino, parent: e.Parent, name: e.Name})
	case EventContent:
		g.note(note{ino: e.Ino, content: true})
	case EventAttr:
		g.note(note{ino: e.Ino})
	case EventMount:
		g.invalidateAll()
	}
}

// notifyLoop is the only place that notifies the kernel, and holds no lock.
func (g *gateway) notifyLoop(ctx context.Context) {
	sweep := time.NewTicker(graveFor)
	defer sweep.Stop()
	retry := time.NewTicker(retryNote)
	defer retry.Stop()
	var later []note
	for {
		select {
		case <-ctx.Done():
			g.graves.sweep(time.Time{})
			g.backings.sweep(time.Time{})
			return
		case <-sweep.C:
			g.graves.sweep(time.Now())
			g.sweepNodes()
			g.backings.sweep(time.Now().Add(-g.cfg.BackingIdle))
		case n := <-g.notes:
			if g.refill.Swap(false) {
				g.notifyAll()
			}
			if g.deliver(ctx, n) && len(later) < notesMax {
				later = append(later, n)
			}
		case <-retry.C:
			due := later
			later = nil
			for _, n := range due {
				n.again = true
				if g.deliver(ctx, n) {
					later = append(later, n)
				}
			}
		}
	}
}

// deliver tells the kernel. It returns true when the note must be looked at
// again.
func (g *gateway) deliver(ctx context.Context, n note) (again bool) {
	if n.ino != 0 {
		again = g.notifyInode(n.ino, n.content)
		if n.content {
			g.backings.forget(n.ino)
		}
	}
	if n.parent == 0 {
		return again && !n.again
	}
	switch g.own.look(entryKey{n.parent, n.name}) {
	case ownRunning:
		return true
	case ownDone:
		if g.asExpected(ctx, n) {
			return again && !n.again
		}
	}
	ids, _ := g.incarnations(n.parent)
	for _, id := range ids {
		g.m.Notifies.Add(2)
		g.srv.EntryNotify(id, n.name)
		// The entry may be unknown, and the listing cached.
		g.srv.InodeNotify(id, 0, 0)
	}
	return again && !n.again
}

// asExpected reports whether a name still is what an operation of this mount
// made it.
func (g *gateway) asExpected(ctx context.Context, n note) bool {
	want, ok := g.own.outcome(entryKey{n.parent, n.name})
	if !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	e, err := g.fs.Lookup(ctx, orca.Caller{}, n.parent, n.name)
	if orca.KindOf(err) == orca.NotFound {
		return want == 0
	}
	return err == nil && e.Ino == want
}

// notifyInode drops attributes, and pages of files that nobody has open: of
// open ones a READ may hold a page until this daemon answers. (Their pages go
// with the next open of another version.) It returns true when the kernel did
// not know the inode, which it may be about to.
func (g *gateway) notifyInode(ino orca.Ino, content bool) bool {
	ids, open := g.incarnations(ino)
	unknown := false
	for _, id := range ids {
		g.m.Notifies.Add(1)
		off := int64(-1)
		if content && !open {
			off = 0
		}
		if st := g.srv.InodeNotify(id, off, 0); !st.Ok() {
			unknown = true
		}
	}
	return unknown
}

// notifyAll makes the kernel forget attributes and names of everything.
func (g *gateway) notifyAll() {
	g.m.FullInvalidates.Add(1)
	if g.dev.Load() >= 0 {
		if err := g.notifyEpoch(); err != nil {
			g.dev.Store(-1) // an older kernel: short times for names from now on
		}
	}
	g.mu.Lock()
	ids := make([]uint64, 0, len(g.nodes)+1)
	ids = append(ids, fuse.FUSE_ROOT_ID)
	for id := range g.nodes {
		ids = append(ids, id)
	}
	g.mu.Unlock()
	for _, id := range ids {
		g.m.Notifies.Add(1)
		g.srv.InodeNotify(id, -1, 0)
	}
}

// staleness tells whether something changed while a request was answered: the
// answer must not be believed then. Slots are shared by inodes of equal hash.
type staleness struct {
	seq   atomic.Uint64
	all   atomic.Uint64
	slots [4096]atomic.Uint64
}

func (s *staleness) slot(ino orca.Ino) *atomic.Uint64 {
	return &s.slots[uint64(ino)*0x9e3779b97f4a7c15>>52]
}

func (s *staleness) now() uint64       { return s.seq.Load() }
func (s *staleness) mark(ino orca.Ino) { s.slot(ino).Store(s.seq.Add(1)) }
func (s *staleness) markAll()          { s.all.Store(s.seq.Add(1)) }
func (s *staleness) changed(since uint64, a, b orca.Ino) bool {
	return s.slot(a).Load() > since || s.slot(b).Load() > since || s.all.Load() > since
}

// ownOps remembers names changed by this mount.
type ownOps struct {
	mu sync.Mutex
	by map[entryKey]*ownOp
}

type ownOp struct {
	running int
	ino     orca.Ino // the outcome: 0 for a removed name
	ok      bool
	until   time.Time
}

type ownState uint8

const (
	ownUnknown ownState = iota
	ownRunning
	ownDone
)

// begin says that the name is being changed; done must be called with what it
// became.
func (o *ownOps) begin(dir orca.Ino, name string) (done func(orca.Ino, error)) {
	k := entryKey{dir, name}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.by == nil {
		o.by = map[entryKey]*ownOp{}
	}
	if len(o.by) >= ownMax {
		o.purgeLocked()
	}
	op := o.by[k]
	if op == nil {
		op = &ownOp{}
		o.by[k] = op
	}
	op.running++
	return func(ino orca.Ino, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		op.running--
		op.ino, op.ok, op.until = ino, err == nil, time.Now().Add(ownFor)
	}
}

// purgeLocked drops what is over; when that is not enough, all that is not
// running.
func (o *ownOps) purgeLocked() {
	now := time.Now()
	for pass := range 2 {
		for k, op := range o.by {
			if op.running == 0 && (pass == 1 || now.After(op.until)) {
				delete(o.by, k)
			}
		}
		if len(o.by) < ownMax/2 {
			return
		}
	}
}

func (o *ownOps) look(k entryKey) ownState {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.by[k]
	switch {
	case op == nil:
		return ownUnknown
	case op.running > 0:
		return ownRunning
	case time.Now().After(op.until):
		delete(o.by, k)
		return ownUnknown
	}
	return ownDone
}

func (o *ownOps) outcome(k entryKey) (orca.Ino, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.by[k]
	if op == nil || !op.ok {
		return 0, false
	}
	return op.ino, true
}
