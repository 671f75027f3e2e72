// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// Several groups: the first has the root and two stores; a third store is
// mounted in another group, and clients put directories into groups.

// NewGroupsPlan draws a plan with two or three groups, in which clients make
// directories that live in another one, give them back, and mount and unmount.
// Attributes that only Orca has are left out: they end with the part.
func NewGroupsPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 11))
	p.Group, p.Groups = 0, 2+r.IntN(2)
	p.Faults.Strangers = 0
	p.Roots = [][]string{{"/p"}, {"/o"}, {"/p", "/q"}, {"/o", "/q"}}[r.IntN(4)]
	if r.IntN(3) == 0 {
		p.Followers = 1
	}
	writes := int64(0)
	parts := []string{p.Roots[0] + "/b/b", p.Roots[0] + "/c"}
	for _, ops := range p.Clients {
		for i := range ops {
			o := p.drawGrouped(r, &parts)
			if o.Verb == "write" {
				writes++
				o.Length = writes
			}
			ops[i] = o
		}
	}
	p.limit()
	return p
}

// drawGrouped draws an operation; parts are the paths that were drawn for
// directories in groups of their own.
func (p *Plan) drawGrouped(r *rand.Rand, parts *[]string) Op {
	near := func() string { // a part, or what is around one
		s := (*parts)[r.IntN(len(*parts))]
		switch r.IntN(6) {
		case 0:
			if d, _ := orca.SplitPath(s); len(d) > 2 {
				return d
			}
		case 1, 2:
			return s + "/" + string("abc"[r.IntN(3)])
		}
		return s
	}
	o := p.draw(r)
	for o.Verb == "chmod" {
		o = p.draw(r)
	}
	o.Copies, o.Parents = 0, false
	if o.Type == orca.MustCache {
		o.Type = orca.CacheThrough
	}
	if o.Path[2:4] == "/a" && r.IntN(3) > 0 { // a file that was always there
		o.Path = o.Path[:3] + string("bc"[r.IntN(2)]) + o.Path[4:]
	}
	if r.IntN(2) == 0 {
		o.Path = near()
		if o.Dst != "" {
			o.Dst = o.Path[:2] + o.Dst[2:]
		}
	}
	switch n := r.IntN(100); {
	case n < 15:
		o = Op{Verb: "put in group", Path: (*parts)[r.IntN(len(*parts))], Group: uint16(2 + r.IntN(p.Groups-1))}
		if r.IntN(3) == 0 {
			o.Path = p.path(r, p.Roots[0])
			*parts = append(*parts, o.Path)
		}
	case n < 26:
		o = Op{Verb: "delete", Path: near(), Recursive: r.IntN(2) == 0}
	case n < 32:
		o = Op{Verb: "unmount", Path: (*parts)[r.IntN(len(*parts))]}
		if p.Roots[0] == "/o" && p.Faults.Lags > 0 {
			// A part that is given back with what is in it has what the store
			// shows, and that is late.
			o = Op{Verb: "delete", Path: o.Path, Recursive: true}
		}
	case n < 36 && len(p.Roots) > 1:
		o = Op{Verb: "unmount", Path: p.Roots[1]}
	case n < 42 && len(p.Roots) > 1:
		o = Op{Verb: "mount", Path: p.Roots[1], Group: uint16(1 + r.IntN(p.Groups))}
	case n < 44:
		o = Op{Verb: "mount", Path: p.Roots[0]} // its options anew
	case n < 48:
		o = Op{Verb: "rename", Path: near(), Dst: near()}
		if r.IntN(4) == 0 {
			o.Dst = p.path(r, p.Roots[len(p.Roots)-1])
		}
	}
	return o
}

// Prefixes of paths that no namespace has: of what says that a directory lives
// in a group of its own, and of what is below a mount that is not there now.
const (
	part   = "\x01"
	hidden = "\x02"
)

// said is an operation that nobody asks for: what the journal of the first group
// says has happened, at the moment at which it has.
func said(step func(t model.Tree, e *event) bool) *operation {
	return &operation{outcomes: func(_ *world, t model.Tree, e *event) []model.Tree {
		if after := t.Clone(); step(after, e) {
			return []model.Tree{after}
		}
		return nil
	}}
}

// grouped are the operations of groups.
func grouped() map[string]*operation {
	return map[string]*operation{
		"put in group": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Mkdir(c.ctx, &metapb.MkdirRequest{Target: at(o.Path), Mode: dirMode, Group: uint32(o.Group)})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind { return t.Mkdir(e.op.Path, dirMode, false) },
		},
		"mount": {run: func(c *client, o Op) {
			for _, s := range c.w.stores {
				if s.name == o.Path {
					m := c.w.mountOf(s)
					m.Group = uint32(o.Group)
					_, _ = c.ns.Mount(c.ctx, &metapb.MountRequest{Mount: m})
				}
			}
		}},
		"unmount": {run: func(c *client, o Op) {
			_, _ = c.ns.Unmount(c.ctx, &metapb.UnmountRequest{Path: o.Path})
		}},
		"is a part": said(func(t model.Tree, e *event) bool {
			t[part+e.op.Path] = inGroup(e.op.Group)
			return t[e.op.Path].Dir && len(t.Children(e.op.Path)) == 0
		}),
		"is moved": said(func(t model.Tree, e *event) bool {
			t[part+e.op.Path] = inGroup(e.op.Group)
			return t[e.op.Path].Dir
		}),
		"is given back": said(func(t model.Tree, e *event) bool {
			_, was := t[part+e.op.Path]
			delete(t, part+e.op.Path)
			return was && (!e.op.Recursive || len(t.Children(e.op.Path)) == 0)
		}),
		"is mounted":   said(func(t model.Tree, e *event) bool { return carry(t, hidden+e.op.Path, e.op.Path) }),
		"is unmounted": said(func(t model.Tree, e *event) bool { return carry(t, e.op.Path, hidden+e.op.Path) }),
	}
}

// inGroup is what says in a tree that a directory lives in a group.
func inGroup(n uint16) model.Node { return model.Node{Mode: uint32(n)} }

// carry moves a tree.
func carry(t model.Tree, from, to string) bool {
	_, ok := t[from]
	for p, n := range t.Clone() {
		if rest, is := strings.CutPrefix(p, from); is && (rest == "" || rest[0] == '/') {
			delete(t, p)
			t[to+rest] = n
		}
	}
	return ok
}

// domain is the mount or part that a name in a directory belongs to.
func (w *world) domain(t model.Tree, dir string) string {
	for d := dir; d != "/"; d, _ = orca.SplitPath(d) {
		if _, is := t[part+d]; is || len(d) == 2 {
			return d
		}
	}
	return "/"
}

// partIn reports whether a directory in a group of its own is at or below a path.
func partIn(t model.Tree, p string) bool {
	for q := range t {
		if at, is := strings.CutPrefix(q, part); is {
			if _, below := orca.Under(p, at); below {
				return true
			}
		}
	}
	return false
}

// renamed is the outcome of a rename. What would be another group's, or is above
// what is, stays, but for files (handed); which of two refusals somebody gets is
// not said.
func (w *world) renamed(t model.Tree, e *event) []model.Tree {
	o, after := e.op, t.Clone()
	k := after.Rename(o.Path, o.Dst)
	src, _ := orca.SplitPath(o.Path)
	dst, _ := orca.SplitPath(o.Dst)
	_, over := t[part+o.Dst]
	apart := w.domain(t, src) != w.domain(t, dst)
	switch _, exists := t[o.Dst]; {
	case apart && !w.plan.Apart && w.plan.Groups > 0:
		return w.handed(t, e)
	case !w.plan.Apart && w.plan.Groups > 0 && nowhere(t, o, e.kind):
		return []model.Tree{t} // who asked took one of them to be in another group, as it had been
	case o.NoReplace && exists && (k == orca.OK || e.kind == orca.Exists):
		k = orca.Exists
	}
	if o.Path != o.Dst && (apart || partIn(t, o.Path) || over) {
		_, exists := t[o.Path]
		switch {
		case k == orca.OK || e.kind == orca.CrossMount:
			k = orca.CrossMount
		case k == orca.NotDir && e.kind == orca.NotFound && !exists:
			k = orca.NotFound // the group of the source is asked first
		}
	}
	return e.agrees(t, after, k)
}

// linked is the outcome of a link; names of two mounts or parts are of two files.
func (w *world) linked(t model.Tree, e *event) []model.Tree {
	o, after := e.op, t.Clone()
	k := after.Link(o.Path, o.Dst)
	src, _ := orca.SplitPath(o.Path)
	dst, _ := orca.SplitPath(o.Dst)
	if w.plan.Groups > 0 {
		_, over := t[part+o.Dst]
		apart := w.domain(t, src) != w.domain(t, dst) || over || partIn(t, o.Path)
		switch {
		case e.kind == orca.CrossMount && (apart || w.shifted(e)), nowhere(t, o, e.kind), apart && k == e.kind && k != orca.OK:
			return []model.Tree{t}
		case apart && k == orca.OK && !e.unknown:
			return nil
		}
	}
	return e.agrees(t, after, k)
}

// noted writes down what an entry of the first group has done to the mount
// table, and what the numbers in that of any group were.
func (j *journal) noted(before []*command.Mount) {
	w, g := j.w, j.g
	old, now := byID(before), byID(j.machine.Mounts())
	for _, r := range before {
		if now[r.Mount.Id] != nil {
			continue
		}
		if g != w.groups[0] {
			w.left[r.Mount.Id] = w.now()
			continue
		}
		verb, o := "is unmounted", Op{Path: r.Mount.Path}
		switch {
		case w.moved(r.Mount.Id) != nil:
			if w.leftPart(r.Mount); successor(r.Mount, now, old) != nil {
				continue // it moves on
			}
			verb = "comes home"
		case r.Mount.Part != nil:
			verb, o.Recursive = "is given back", r.Mount.Part.Removing
		}
		w.happened(verb, o, r.Mount.Id)
	}
	for _, r := range j.machine.Mounts() {
		m := r.Mount
		if old[m.Id] != nil {
			continue
		}
		if g.had[m.Id] {
			w.broken("number", "group %d has a mount %d again: %v", g.number, m.Id, m)
		}
		g.had[m.Id] = true
		if g != w.groups[0] {
			continue
		}
		w.mounts[m.Id] = m
		verb := "is mounted"
		switch {
		case m.Part != nil && m.Root != 0 && successor(m, old, now) != nil:
			verb = "moves on"
		case m.Part != nil && m.Root != 0:
			verb = "is moved"
		case m.Part != nil:
			verb = "is a part"
		}
		w.happened(verb, Op{Path: m.Path, Group: uint16(m.Group)}, m.Id)
	}
}

func byID(rows []*command.Mount) map[uint32]*metapb.Mount {
	out := map[uint32]*metapb.Mount{}
	for _, r := range rows {
		out[r.Mount.Id] = r.Mount
	}
	return out
}

// happened notes in the history what has happened to a mount at this very moment;
// but that it is unmounted may have been seen since its group had it no more.
func (w *world) happened(verb string, o Op, id uint32) {
	if w.plan.Groups == 0 || w.setup {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock += 2
	e := event{client: 98, op: o, verb: verb, call: w.clock - 1, ret: w.clock}
	if at, ok := w.left[id]; ok && verb == "is unmounted" {
		e.call = at
	}
	w.history = append(w.history, e)
}

// joined checks what the groups have of each other: what is referred to is
// there, and what is there somebody has asked for.
func (w *world) joined() {
	if w.plan.Groups == 0 {
		return
	}
	first := w.groups[0]
	for _, r := range first.machine().Mounts() {
		m := r.Mount
		if m.Group <= 1 || m.Junction != metapb.JunctionState_JUNCTION_ACTIVE {
			continue
		}
		if there := w.group(m.Group).row(m.Id); there == nil || there.Root != m.Root || there.Path != m.Path || there.Serial > m.Serial {
			w.broken("junction", "%s leads to what its group does not have: %v, there %v", m.Path, m, there)
		}
	}
	w.held()
	for _, g := range w.groups[1:] {
		for _, r := range g.machine().Mounts() {
			if m := first.row(r.Mount.Id); (m == nil || m.Group != uint32(g.number)) && !w.moving(r.Mount.Id, uint32(g.number)) {
				w.broken("junction", "group %d has what nobody leads to: %v", g.number, r.Mount)
			}
		}
	}
}

// underWay returns what is in between, a row of the table or a move; nil: nothing is.
func (w *world) underWay() fmt.Stringer {
	if w.plan.Groups == 0 {
		return nil
	}
	m := w.groups[0].machine()
	for _, it := range m.Regroups() {
		return it
	}
	for id, group := range m.Abandoned() {
		return &metapb.Mount{Id: id, Group: group, Path: "to be removed"}
	}
	for _, d := range m.Departed() {
		return &metapb.DepartOp{Mount: d.Mount, Part: d.Move, Group: d.Group, Root: d.Root}
	}
	for _, r := range w.groups[0].machine().Mounts() {
		if m := r.Mount; m.Group > 1 && m.Junction != metapb.JunctionState_JUNCTION_ACTIVE {
			return m
		}
	}
	return nil
}

// remains checks that the groups behind junctions have nothing but what these
// lead to: directories on the way to mounts, and no others.
func (w *world) remains() {
	for _, g := range w.groups[1:] {
		want := map[string]bool{}
		for _, r := range g.machine().Mounts() {
			for d := r.Mount.Path; d != "/"; d, _ = orca.SplitPath(d) {
				want[d] = true
			}
		}
		g.skeleton("/", orca.RootIno, want)
	}
}

func (g *group) skeleton(dir string, ino orca.Ino, want map[string]bool) {
	kids, _, err := g.machine().Children(orca.Caller{}, ino, "", 10_000)
	if err != nil {
		g.w.broken("remains", "%s: %v", dir, err)
	}
	for i := range kids {
		p := orca.JoinPath(dir, kids[i].Name)
		if !want[p] {
			g.w.broken("remains", "group %d has %s, which leads nowhere", g.number, p)
		}
		if !kids[i].Attr.MountPoint && kids[i].Attr.Type == uint32(orca.TypeDir) {
			g.skeleton(p, orca.Ino(kids[i].Attr.Ino), want)
		}
	}
}

// group returns the group of a number.
func (w *world) group(n uint32) *group {
	for _, g := range w.groups {
		if uint32(max(g.number, 1)) == max(n, 1) {
			return g
		}
	}
	panic(fmt.Sprintf("BUG: no group %d", n))
}

// row returns a group's row of a mount; nil if it has none.
func (g *group) row(id uint32) *metapb.Mount {
	for _, r := range g.machine().Mounts() {
		if r.Mount.Id == id {
			return r.Mount
		}
	}
	return nil
}
