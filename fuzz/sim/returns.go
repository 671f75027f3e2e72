// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// Directories that move on from the group that they are in to another one, or come
// home to the first.

// NewReturnsPlan draws a plan as NewMovesPlan does, in which directories move to any
// group: out of the first, on to another one, and home.
func NewReturnsPlan(seed uint64) *Plan {
	p := NewMovesPlan(seed)
	r := rand.New(rand.NewPCG(seed, 29))
	if r.IntN(3) > 0 {
		p.Groups = 3
	}
	at, was := p.Roots[0], map[string]int{}
	tops := []string{at + "/b", at + "/b", at + "/b/a", at + "/c"}
	if len(p.Parts) == 0 && r.IntN(2) == 0 {
		p.Parts = []Op{{Verb: "put in group", Path: at + "/c", Group: uint16(p.Groups)}}
	}
	for i, ops := range p.Clients {
		for j := range ops {
			o := &ops[j]
			switch {
			case i > 0:
			case j%2 == 1:
				*o = Op{Verb: "regroup", Path: tops[r.IntN(len(tops))]}
			case j > 0 && r.IntN(3) > 0:
				*o = Op{Verb: "see it move", Path: at}
			}
			if o.Verb == "regroup" { // to another group than the last time
				was[o.Path] = (was[o.Path] + 1 + r.IntN(p.Groups-1)) % p.Groups
				o.Group = uint16(1 + was[o.Path])
			}
		}
	}
	return p
}

// returns are the operations of directories that move on and come home.
func returns() map[string]*operation {
	was := func(t model.Tree, e *event) bool {
		_, ok := t[part+e.op.Path]
		return ok && t[e.op.Path].Dir
	}
	return map[string]*operation{
		"see it move": {run: (*client).watchMoves},
		"moves on": said(func(t model.Tree, e *event) bool {
			ok := was(t, e)
			t[part+e.op.Path] = inGroup(e.op.Group)
			return ok
		}),
		"comes home": said(func(t model.Tree, e *event) bool {
			ok := was(t, e)
			delete(t, part+e.op.Path)
			return ok
		}),
	}
}

// watchMoves waits a while until no directory is on its way to a group.
func (c *client) watchMoves(o Op) {
	for i := range 20 {
		label := fmt.Sprintf("c%d: sees %s move, %d", c.id, o.Path, i)
		if c.w.wait(c.ctx, &gate{kind: gateStart, label: label}) != pass || len(c.w.groups[0].machine().Regroups()) == 0 {
			return
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// moved returns where the first group says that a part has moved to from the group
// that it had this number in, which does not know it yet; nil: it has not.
func (w *world) moved(mount uint32) *fsm.Departed {
	all := w.groups[0].machine().Departed()
	if i := slices.IndexFunc(all, func(d fsm.Departed) bool { return d.Mount == mount && d.Root != 0 }); i >= 0 {
		return &all[i]
	}
	return nil
}

// successor returns the row that has taken the place of another one; nil: none has.
func successor(of *metapb.Mount, now, before map[uint32]*metapb.Mount) *metapb.Mount {
	for id, m := range now {
		if m.Path == of.Path && before[id] == nil {
			return m
		}
	}
	return nil
}

// unread reports whether a group shows a part that moves away to nobody.
func (g *group) unread(mount, move uint32) bool {
	return g.row(mount) == nil || slices.ContainsFunc(g.machine().Regroups(), func(it *command.Intent) bool { return it.Part == move && it.Closed })
}

// leftPart notes when a part has moved away from the mount that it was.
func (w *world) leftPart(m *metapb.Mount) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock++
	w.gone[m.Id], w.was[m.Root] = w.clock, m.Path
}

// movedAt is when a part has moved away from a mount; 0: it has not.
func (w *world) movedAt(mount uint32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone[mount]
}

// held checks that groups hold what is to move, or what they have not been told
// the end of, and nothing else, and that what has moved is read in one place.
func (w *world) held() {
	first := w.groups[0].machine()
	known := map[uint32]bool{}
	for _, it := range first.Regroups() {
		known[it.Part] = true
	}
	for _, d := range first.Departed() {
		known[d.Move] = true
		if g := w.group(d.Group); d.Root != 0 && !g.unread(d.Mount, d.Move) {
			w.broken("switch", "group %d shows what is elsewhere: mount %d", d.Group, d.Mount)
		}
	}
	for _, g := range w.groups[1:] {
		for _, it := range g.machine().Regroups() {
			if !known[it.Part] {
				w.broken("hold", "group %d holds what does not move: %v", g.number, it)
			}
		}
	}
}

// root returns the directory that a move takes away, in the group that has it.
func (l *leaving) root(j *journal) (*group, orca.Ino) {
	if row := j.g.row(l.intent.From); l.intent.From != 0 && row != nil {
		return j.w.group(row.Group), orca.Ino(row.Root)
	}
	return j.g, orca.Ino(l.intent.Ino)
}

// cameHome checks what a switch to the first group has put in the place of a part.
func (j *journal) cameHome(l leaving) {
	all := j.machine.Departed()
	i := slices.IndexFunc(all, func(d fsm.Departed) bool { return d.Move == l.intent.Part && d.Root != 0 })
	if i < 0 {
		return // not yet
	}
	j.w.stats.Homes++
	if l.last { // nothing has come after it
		path, _ := j.machine.Path(orca.Ino(all[i].Root))
		j.same(path, l.has, j.g.holdings(orca.Ino(all[i].Root), false))
	}
}

// same checks that a directory in its new group has what it held.
func (j *journal) same(path string, held, have map[string]string) {
	for p, is := range held {
		if have[p] != is {
			j.w.broken("switch", "%s: %q held %s, and in its group it is %s", path, p, is, have[p])
		}
		delete(have, p)
	}
	for p, is := range have {
		j.w.broken("switch", "%s: in its group has come %q, %s", path, p, is)
	}
}
