// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"time"

	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
	"orca/metaplane/metaclient"
	"orca/metaplane/metaserver"
)

// group is one Raft group: what is in its journal, and who leads it.
type group struct {
	w       *world
	number  uint16 // 0 and 1: the first
	journal *journal
	life    *life           // that leads; nil: none
	leader  *life           // that answers requests; GUARDED_BY(world.mu)
	away    time.Time       // until when nobody leads; zero: somebody does
	had     map[uint32]bool // numbers that mounts have had here
	members []*follower     // beside the one that leads
}

func newGroup(w *world, number uint16) *group {
	g := &group{w: w, number: number, had: map[uint32]bool{}}
	g.journal = &journal{w: w, g: g, disk: inodekv.NewDisk()}
	g.journal.open()
	for n := range w.plan.Followers {
		g.members = append(g.members, newFollower(g, uint64(n+2)))
	}
	return g
}

// prefix tells the group apart in labels where there are several.
func (g *group) prefix() string {
	if len(g.w.groups) < 2 {
		return ""
	}
	return fmt.Sprintf("g%d ", max(g.number, 1))
}

func (g *group) machine() *fsm.Machine { return g.journal.machine }

// any draws a group.
func (w *world) any() *group {
	if len(w.groups) == 1 {
		return w.groups[0]
	}
	return w.groups[w.rng.IntN(len(w.groups))]
}

// numbers are those of the groups.
func (w *world) numbers() []uint32 {
	var out []uint32
	for _, g := range w.groups {
		out = append(out, uint32(max(g.number, 1)))
	}
	return out
}

// drop has a coordinator answer no more.
func (g *group) drop(l *life) {
	if l == nil {
		return
	}
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if !l.over {
		l.over, g.leader = true, nil
		close(l.dead)
	}
}

// services are those that are to be closed.
func (g *group) services() (all []*metaserver.Service) {
	if l := g.life; l != nil && l.svc != nil {
		all = append(all, l.svc)
	}
	for _, f := range g.members {
		if f.svc != nil {
			all = append(all, f.svc)
		}
	}
	return all
}

func (g *group) close() {
	g.journal.close()
	for _, f := range g.members {
		f.journal.close()
	}
}

// serving returns the coordinator that answers now; nil if there is none.
func (g *group) serving() *life {
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	if l := g.leader; l != nil && l.svc != nil && !l.over {
		return l
	}
	return nil
}

// begin starts a coordinator over the machine.
func (g *group) begin() {
	w := g.w
	term := uint64(w.stats.Crashes + 1)
	l := &life{w: w, g: g, term: term, machine: g.journal.machine, effects: make(chan fsm.Effect, 1<<12), changed: make(chan struct{}),
		dead: make(chan struct{}), others: map[string]*metaclient.Session{}, asked: map[string]int{}}
	type made struct {
		svc *metaserver.Service
		err error
	}
	ch := make(chan made, 1)
	go func() {
		cfg := metaserver.Config{Group: g.number, SessionTTL: 10 * time.Second, BusyWait: time.Second, UFSWait: 5 * time.Second}
		if w.plan.Groups > 0 && (g == w.groups[0] || !w.plan.Apart) {
			cfg.Groups = w.numbers
			cfg.Others = func(n uint16) (metaplane.Namespace, error) { return &between{l: l, to: w.group(uint32(n))}, nil }
		}
		cfg.Exec.Copies, cfg.Exec.Concurrent = 2, 4
		cfg.Exec.PersistTimeout = time.Minute
		svc, err := metaserver.New(context.Background(), cfg, l, l.openStore, quiet)
		ch <- made{svc, err}
	}()
	g.life = l
	for {
		w.settle()
		select {
		case m := <-ch:
			if m.err != nil {
				w.broken("start", "%v", m.err)
			}
			l.svc = m.svc
			w.mu.Lock()
			g.leader = l
			w.mu.Unlock()
			return
		default:
		}
		for _, x := range w.waiting() { // the key of grants, made once
			if x.life == l && x.kind == gatePropose {
				w.commit(x, nil, Faults{})
			}
		}
	}
}

// crash ends the coordinator where it is and starts another one; cut takes the
// power from the machine, too.
func (g *group) crash(cut bool) {
	w := g.w
	if !g.away.IsZero() {
		return // it has none
	}
	w.stats.Crashes++
	w.tracef("%sCRASH of the coordinator, cut=%v", g.prefix(), cut)
	g.end()
	if cut {
		w.stats.Cuts++
		g.journal.cut()
	}
	if !w.over() {
		g.begin()
	}
}

// leave ends the coordinator; another one begins a while later.
func (g *group) leave() {
	w := g.w
	if g.life == nil {
		return
	}
	w.stats.Crashes++
	d := time.Duration(1+w.rng.IntN(20)) * time.Second
	w.tracef("%sNOBODY LEADS for %v", g.prefix(), d)
	g.end()
	g.away = time.Now().Add(d)
}

// comeBack begins a coordinator where there has been none for long enough.
func (w *world) comeBack() {
	for _, g := range w.groups {
		if !g.away.IsZero() && !w.over() && (w.healing || time.Now().After(g.away)) {
			g.away = time.Time{}
			w.tracef("%sIS LED AGAIN", g.prefix())
			g.begin()
		}
	}
}

// end stops the coordinator. What it had proposed may have reached the journal.
func (g *group) end() {
	w := g.w
	l := g.life
	if l == nil {
		return
	}
	for _, x := range w.waiting() {
		if x.life == l && x.kind == gatePropose && w.rng.IntN(2) == 0 {
			g.journal.late = append(g.journal.late, x.prop.cmd)
		}
	}
	g.life = nil
	for _, c := range g.journal.late {
		if w.rng.IntN(2) == 0 && !w.over() {
			w.tracef("LAST WORD %s", describe(c))
			g.journal.append([]*command.Command{c})
		}
	}
	g.journal.late = nil
	g.drop(l)
	for _, x := range w.waiting() {
		if x.life == l {
			w.release(x, gone)
		}
	}
	w.settle()
	if l.svc != nil {
		_ = l.svc.Close()
	}
	w.settle()
}
