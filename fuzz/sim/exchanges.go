// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"strings"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Files and links of different groups that change places.

// NewExchangesPlan draws a plan as NewTransfersPlan does, in which most renames are
// exchanges. In most of them some of what is written are symbolic links; those end
// with a part that is given back, so none is.
func NewExchangesPlan(seed uint64) *Plan {
	p := NewTransfersPlan(seed)
	r := rand.New(rand.NewPCG(seed, 31))
	at := p.Roots[0]
	d := trader{r: r, few: []string{at + "/a", at + "/b/c", at + "/b/a/b"}, tops: []string{at, at + "/b", at + "/c", at + "/b/b"},
		links: r.IntN(4) > 0, tight: r.IntN(2) == 0}
	for _, ops := range p.Clients {
		for i := range ops {
			d.change(&ops[i])
		}
	}
	return p
}

// trader makes operations of a plan such as are about exchanges.
type trader struct {
	r     *rand.Rand
	few   []string // where files are likely to be
	tops  []string // directories, the last two in groups of their own
	links bool     // there are symbolic links
	tight bool     // there are quotas
	made  int64    // links so far
}

func (d *trader) likely() string { return d.few[d.r.IntN(len(d.few))] }

func (d *trader) change(o *Op) {
	r := d.r
	if (o.Verb == "write" || o.Verb == "touch") && r.IntN(2) == 0 {
		o.Path = d.tops[2+r.IntN(2)] + "/" + string("ab"[r.IntN(2)])
	}
	switch n := r.IntN(3); {
	case o.Verb == "rename" && n > 0:
		*o = Op{Verb: "exchange", Path: o.Path, Dst: o.Dst}
		if r.IntN(3) > 0 {
			o.Dst = d.likely()
		}
		if r.IntN(3) > 0 {
			o.Path = d.likely()
		}
	case d.links && o.Verb == "unmount":
		o.Verb, o.Path = "stat", d.likely()
	case d.links && (o.Verb == "write" && n == 0 || o.Verb == "touch"):
		d.made++
		*o = Op{Verb: "symlink", Path: o.Path, Length: 500 + d.made} // no write has such a length
		d.few = append(d.few, o.Path)
	case d.tight && (o.Verb == "list" || o.Verb == "stat" && n == 0):
		*o = Op{Verb: "quota", Path: d.tops[r.IntN(len(d.tops))], Length: []int64{20, 600, 1000, 1900, 2750}[r.IntN(5)]}
	case o.Verb == "write":
		d.few = append(d.few, o.Path)
	}
}

// exchanges are the operations of names that change places.
func exchanges() map[string]*operation {
	return map[string]*operation{
		"exchange": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Rename(c.ctx, &metapb.RenameRequest{Src: at(o.Path), Dst: at(o.Dst), Exchange: true})
				return err
			},
			outcomes: (*world).exchanged,
		},
		"symlink": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Create(c.ctx, &metapb.CreateRequest{Target: at(o.Path), Mode: fileMode, Complete: true, Symlink: strings.Repeat("l", int(o.Length))})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind {
				if t[e.op.Path].Dir {
					return orca.Exists
				}
				return t.Put(e.op.Path, model.Node{Length: e.op.Length, Mode: fileMode, Link: true}, false)
			},
		},
	}
}

// exchanged is the outcome of an exchange. Names of two groups change places if both
// are files or links of one mount, which the store can exchange or has at most one
// of; which of two refusals somebody gets is not said.
func (w *world) exchanged(t model.Tree, e *event) []model.Tree {
	o, after, same := e.op, t.Clone(), []model.Tree{t}
	k := after.Exchange(o.Path, o.Dst)
	if w.plan.Groups == 0 {
		return e.agrees(t, after, k)
	}
	from, to := w.domains(t, o)
	stays := o.Path != o.Dst && (from != to && !w.trades(t, o) || partIn(t, o.Path) || partIn(t, o.Dst))
	_, there := t.Find(o.Dst)
	switch late := w.late(t[o.Path].Length) || w.late(t[o.Dst].Length); {
	case e.kind == orca.CrossMount && from != to && (k != orca.OK || late): // not OK: who is asked again when an answer was lost says so
		return same
	case e.kind == orca.CrossMount && (stays || w.shifted(e)):
		return same
	case e.kind == orca.OverQuota, nowhere(t, o, e.kind), there == e.kind && k != orca.OK: // which of them is asked for first is not said
		return same
	case k == orca.OK && stays && e.unknown:
		return same
	case k == orca.OK && stays, e.kind == orca.CrossMount:
		return nil
	}
	return e.agrees(t, after, k)
}

// domains are the mounts or parts that the names of a rename belong to.
func (w *world) domains(t model.Tree, o Op) (from, to string) {
	src, _ := orca.SplitPath(o.Path)
	dst, _ := orca.SplitPath(o.Dst)
	return w.domain(t, src), w.domain(t, dst)
}

// trades reports whether names of two mounts or parts may change places.
func (w *world) trades(t model.Tree, o Op) bool {
	a, b := t[o.Path], t[o.Dst]
	switch {
	case w.plan.Apart || o.Path[:2] != o.Dst[:2]:
		return false
	case a.Dir || b.Dir || a.Peer != "" || b.Peer != "":
		return false
	}
	return a.Link || b.Link || w.storeAt(o.Path).files
}

// trade is what is about to come back from a group for what it gets.
type trade struct {
	tx  uint64
	was string
}

// trading returns what an entry is about to give for files of other groups. What an
// entry does before is not seen, so only its first command is looked at.
func (j *journal) trading(cmds []*command.Command) *trade {
	o := cmds[0].Transfer
	if d := cmds[0].Decide; d != nil && d.Kind == 0 {
		it, err := j.machine.Intent(d.Intent)
		if err != nil {
			return nil
		}
		o = it.Command.GetTransfer()
	}
	if !o.GetExchange() {
		return nil
	}
	v, err := j.machine.Walk(orca.Caller{}, orca.Ino(o.Dst.GetIno()), o.Dst.GetPath())
	if err != nil || !v.Found {
		return nil
	}
	return &trade{o.Tx, j.g.carried(v.Attr)}
}

// traded checks that what came back from another group is what was there. Where a
// store had to copy, it is another object.
func (j *journal) traded(x *trade, cmds []*command.Command, all []*command.Result) {
	for i, r := range all {
		if d := r.Transfer; d.GetBack() != nil && d.Kind == 0 && r.Parent != 0 {
			j.w.stats.Exchanges++
			is, ok := j.back(d.Back, j.w.mounted(r.Attr.GetMountId()))
			if i == 0 && (x == nil || ok && x.was != is) {
				j.w.broken("exchange", "%s: there was %v, and what goes back is %s", number(d.Tx), x, is)
			}
			j.w.backs[d.Tx] = is
		}
		d := cmds[i].Decide
		if d.GetBack() == nil || r.Kind != 0 || r.Attr == nil || i < len(all)-1 {
			continue // what follows in the same entry may have changed it
		}
		v, err := j.machine.Lookup(orca.Ino(r.Attr.Ino))
		if err != nil {
			j.w.broken("exchange", "what came back is not there: %v", err)
			continue
		}
		was := j.w.backs[d.Intent]
		if is := j.g.carried(v.Attr); is != was {
			j.w.broken("exchange", "%s was %s, and what came back is %s", number(d.Intent), was, is)
		}
	}
}

// back writes down what goes back, as carried does.
func (j *journal) back(o *metapb.TransferOp, at place) (string, bool) {
	d, err := inode.DecodeDentry(o.File)
	if err != nil || d.File == nil {
		j.w.broken("exchange", "%v", err)
		return "", false
	}
	return handedOver(d.File, o, at), true
}
