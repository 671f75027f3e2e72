// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Directories that move to other groups while clients are at work below them.

// NewMovesPlan draws a plan in which directories of a mount move to other groups,
// and are told to stay in the middle of that. What is in them has names of the same
// file and attributes that only Orca keeps in half of the plans; in the others
// trees are removed, and what has moved is given back.
func NewMovesPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 19))
	p.Group, p.Groups = 0, 2+r.IntN(2)
	p.Roots = [][]string{{"/p"}, {"/p"}, {"/o"}}[r.IntN(3)]
	p.Faults.Strangers = 0
	if r.IntN(6) == 0 {
		p.Faults.Strangers = 1 + r.IntN(20)
	}
	if r.IntN(4) == 0 {
		p.Followers = 1
	}
	if r.IntN(2) == 0 {
		p.Faults.Absences = 1 + r.IntN(4)
	}
	at := p.Roots[0]
	p.mark()
	d := mover{drawer: drawer{p: p, r: r, dirs: []string{at, at + "/b", at + "/b/a", at + "/c", at + "/b/a/a", at + "/c/b"}, parts: r.IntN(2) == 0}}
	if r.IntN(3) == 0 {
		p.Parts = []Op{{Verb: "put in group", Path: at + "/c", Group: uint16(p.Groups)}}
	}
	writes := int64(0)
	for i, ops := range p.Clients {
		if i == 0 {
			ops = append(ops, Op{}, Op{})
			p.Clients[i] = ops
		}
		for j := range ops {
			o := d.draw()
			if i == 0 && j%4 == 1 {
				o = d.move()
			}
			if o.Verb == "write" {
				writes++
				o.Length = writes
			}
			ops[j] = o
		}
	}
	return p
}

// mover draws operations about directories that move.
type mover struct{ drawer }

// move has a directory move; each always goes to the same group.
func (d *mover) move() Op {
	n := d.r.IntN(3)
	return Op{Verb: "regroup", Path: []string{d.dirs[1], d.dirs[2], d.dirs[3]}[n], Group: []uint16{2, 2, uint16(d.p.Groups)}[n]}
}

func (d *mover) draw() Op {
	r := d.r
	switch n := r.IntN(100); {
	case n < 10:
		return d.move()
	case n < 14:
		o := d.move()
		return Op{Verb: "stay", Path: o.Path}
	case n < 18:
		return Op{Verb: "open", Path: d.file()}
	case n < 21:
		return Op{Verb: "quota", Path: d.below(), Length: []int64{0, 20, 1000, 2750}[r.IntN(4)], Inodes: r.Int64N(9)}
	case n < 38 && !d.parts:
		return d.kept()
	}
	o := d.drawer.draw()
	for d.parts && (o.Verb == "chmod" || o.Verb == "keep") || o.Verb == "quota" || o.Verb == "put in group" {
		o = d.drawer.draw()
	}
	switch {
	case d.parts && o.Verb == "unmount":
		o.Path = d.move().Path
	case !d.parts:
		o.Recursive = o.Recursive && o.Verb != "delete"
	}
	return o
}

// kept is about what only Orca keeps.
func (d *mover) kept() Op {
	o := Op{Path: d.file()}
	if d.r.IntN(3) == 0 {
		o.Verb, o.Dst = "link", d.file()
	} else {
		o.attribute(d.r)
	}
	if o.Dst == "" && o.Verb != "keep" && d.r.IntN(4) == 0 {
		o.Path = d.below()
	}
	return o
}

// moves are the operations of moves, and those about what only moves look at.
func moves() map[string]*operation {
	ask := func(a metapb.RegroupAsk) func(c *client, o Op, _ *event) error {
		return func(c *client, o Op, _ *event) error {
			_, err := c.ns.Regroup(c.ctx, &metapb.RegroupRequest{Target: at(o.Path), Group: uint32(o.Group), Ask: a})
			return err
		}
	}
	there := func(t model.Tree, e *event) orca.Kind {
		_, k := t.Find(e.op.Path)
		return k
	}
	return map[string]*operation{
		"regroup": {asks: true, do: ask(metapb.RegroupAsk_REGROUP_BEGIN), model: func(t model.Tree, e *event) orca.Kind {
			if e.kind == orca.Exists { // it is on its way
				return e.kind
			}
			return dirAt(t, e.op.Path)
		}},
		"stay": {asks: true, do: ask(metapb.RegroupAsk_REGROUP_ABORT), model: func(t model.Tree, e *event) orca.Kind {
			if e.kind == orca.Exists || e.kind == orca.NotFound { // it has moved; the store is not asked
				return e.kind
			}
			return there(t, e)
		}},
		"xattr": {model: there, do: func(c *client, o Op, _ *event) error {
			_, err := c.ns.SetXattr(c.ctx, &metapb.XattrRequest{Target: at(o.Path), Name: "user.x", Value: []byte(fmt.Sprint(c.w.now()))})
			return err
		}},
		"pin": {model: there, do: func(c *client, o Op, _ *event) error {
			_, err := c.ns.SetAttr(c.ctx, &metapb.SetAttrRequest{Target: at(o.Path), Mask: uint32(metapb.SetAttrMask_SET_PINNED), Pinned: true})
			return err
		}},
		"open": {run: (*client).reopen},
	}
}

// reopen opens a file, and later once more by its number, as who has it open does:
// under that it is the same one, or none.
func (c *client) reopen(o Op) {
	a, err := c.ns.Open(c.ctx, &metapb.OpenRequest{Target: at(o.Path)})
	if err != nil {
		return
	}
	for i := range 4 {
		if c.w.wait(c.ctx, &gate{kind: gateStart, label: fmt.Sprintf("c%d: has %s open, %d", c.id, o.Path, i)}) != pass {
			return
		}
		began := c.w.now()
		b, err := c.ns.Open(c.ctx, &metapb.OpenRequest{Target: &metapb.Target{Ino: a.Attr.Ino}})
		if err == nil && b.Attr.Ino == a.Attr.Ino && b.Attr.Version == a.Attr.Version && b.Attr.Length != a.Attr.Length {
			c.w.broken("open", "%s was %v, and is %v", o.Path, a.Attr, b.Attr)
		}
		if err == nil && b.Attr.Fingerprint == a.Attr.Fingerprint && b.Attr.Length != a.Attr.Length {
			c.w.broken("open", "%s was %v, and in its new group is %v", o.Path, a.Attr, b.Attr)
		}
		if at := c.w.movedAt(b.GetAttr().GetMountId()); err == nil && at != 0 && at < began {
			c.w.broken("open", "%s was read where it had been, %v", o.Path, b.Attr)
		}
	}
}

// leaving is what a directory holds at the moment at which it is switched to
// another group: all that a namespace knows of it.
type leaving struct {
	intent *command.Intent
	has    map[string]string
	last   bool // of its entry
}

// switching returns what is about to be switched by commands of the first group.
func (j *journal) switching(cmds []*command.Command) (out []leaving) {
	if j.g != j.w.groups[0] {
		return nil
	}
	for i, c := range cmds {
		if o := c.Regroup; o.GetIntent() != 0 && o.Root != 0 {
			for _, it := range j.machine.Regroups() {
				if it.Id == o.Intent {
					l := leaving{intent: it, last: i == len(cmds)-1}
					from, root := l.root(j)
					l.has = from.holdings(root, false)
					out = append(out, l)
				}
			}
		}
	}
	return out
}

// arrived checks that the group of a move has what the directory held.
func (j *journal) arrived(all []leaving) {
	for _, l := range all {
		if l.intent.Group <= 1 {
			j.cameHome(l)
			continue
		}
		row := j.g.row(l.intent.Part)
		if row == nil {
			continue // not yet
		}
		to := j.w.group(row.Group)
		have := to.holdings(orca.Ino(row.Root), false)
		if there := to.row(row.Id); there == nil || there.Junction == metapb.JunctionState_JUNCTION_STAGED {
			j.w.broken("switch", "%s was switched to what is not sealed: %v", row.Path, there)
		}
		if l.intent.From != 0 {
			j.w.stats.Onward++
		}
		j.same(row.Path, l.has, have)
	}
}

// holdings returns all that a group has at and below a directory, by the path from
// there, without what depends on the group; renamed: and without what a rename
// changes.
func (g *group) holdings(top orca.Ino, renamed bool) map[string]string {
	m, out := g.machine(), map[string]string{}
	names := map[orca.Ino][]string{} // of files with several
	var walk func(path string, dir orca.Ino)
	walk = func(path string, dir orca.Ino) {
		kids, _, err := m.LeavingPage(0, dir, "", 10_000, 1<<30)
		if err != nil {
			out[path] += fmt.Sprint(" ", err)
		}
		for _, l := range kids {
			p := path + "/" + l.Name
			out[p] = holding(l, false)
			if l.Links > 0 {
				names[l.Ino] = append(names[l.Ino], p)
			}
			if l.Dir {
				walk(p, l.Ino)
			}
		}
	}
	if self, err := m.LeavingDir(top); err == nil {
		out[""] = holding(self, renamed)
	}
	walk("", top)
	for _, all := range names {
		slices.Sort(all)
		for _, p := range all {
			out[p] += " also " + strings.Join(all, ",")
		}
	}
	return out
}

// holding writes down what is at a name, without what depends on its group.
func holding(l fsm.Leaving, renamed bool) string {
	s := fmt.Sprintf("%v %d %d %d %d", l.Xattrs, l.ReplicaMin, l.ReplicaLimit, l.QuotaBytes, l.QuotaInodes)
	if d, err := inode.DecodeDir(l.StagedEntry.Dir); l.Dir && err == nil {
		d.Ino, d.Parent, d.Name, d.Change, d.Mount, d.Override = 0, 0, "", 0, 0, inode.Override{}
		if renamed {
			d.Ctime = 0
		}
		return fmt.Sprintf("%+v ", d) + s
	}
	d, err := inode.DecodeDentry(l.File)
	if err != nil || d.File == nil {
		return fmt.Sprint("?", err)
	}
	f := *d.File
	f.Ino, f.Change, f.Override, f.Workers = 0, 0, inode.Override{}, nil
	f.Flags &^= inode.Replicated
	return fmt.Sprintf("%+v home=%v ", f, l.Links == 0 || l.Home) + s
}

// moving reports whether a mount that no row of the first group leads to is in a
// group for a move: one on its way, one that was given up and is to be removed, or
// one that has moved on without its group knowing yet.
func (w *world) moving(id, group uint32) bool {
	m := w.groups[0].machine()
	if d := w.moved(id); d != nil && d.Group == group {
		return true
	}
	return m.Abandoned()[id] == group || slices.ContainsFunc(m.Regroups(), func(it *command.Intent) bool { return it.Part == id && it.Group == group })
}
