// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// forLong is a retention that no run lives to see the end of.
const forLong = 1000 * time.Hour

// NewTrashPlan draws a plan in which the mounts keep what is deleted, in one of
// three for so short a time that it may be gone when it is wanted.
func NewTrashPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 9))
	p.Keep = forLong
	if r.IntN(3) == 0 {
		p.Keep = time.Duration(1+r.IntN(20)) * time.Second
	}
	var gone []string
	for _, at := range p.Roots {
		gone = append(gone, at+"/a", at+"/b")
	}
	for _, ops := range p.Clients {
		for i := range ops {
			o := &ops[i]
			n := r.IntN(100)
			if o.Verb == "quota" {
				continue
			}
			root := o.Path[:2]
			switch {
			case n < 20:
				*o = Op{Verb: "delete", Path: o.Path, Recursive: r.IntN(3) > 0, Skip: r.IntN(8) == 0}
			case n < 45:
				*o = Op{Verb: "undelete", Path: gone[r.IntN(len(gone))]}
				o.Dst = o.Path
				if r.IntN(2) == 0 {
					o.Dst = p.path(r, o.Path[:2])
				}
			case n < 50:
				*o = Op{Verb: "purge", Path: gone[r.IntN(len(gone))]}
			}
			if o.Verb == "delete" {
				if r.IntN(2) == 0 {
					o.Path = root + "/" + string("ab"[r.IntN(2)])
				}
				gone = append(gone, o.Path)
			}
		}
	}
	return p
}

// trashed are the operations of the trash.
func trashed() map[string]*operation {
	return map[string]*operation{
		"undelete": {run: (*client).trash, outcomes: stepTrash},
		"purge":    {run: (*client).trash, outcomes: stepTrash},
	}
}

// trash restores or purges the last thing that was deleted at a path, if it is
// still there.
func (c *client) trash(o Op) {
	r, err := c.ns.Trash(c.ctx, &metapb.TrashRequest{Path: o.Path})
	if err != nil {
		return
	}
	for i := len(r.Entries) - 1; i >= 0; i-- {
		if x := r.Entries[i]; x.Path == o.Path {
			c.use(o, x.Ino)
			return
		}
	}
}

func (c *client) use(o Op, ino uint64) {
	if o.Verb == "purge" {
		e := c.begin(o, o.Verb)
		_, err := c.ns.PurgeTrash(c.ctx, &metapb.PurgeTrashRequest{Inos: []uint64{ino}})
		c.end(e, err)
		return
	}
	e := c.begin(o, o.Verb)
	p, err := c.ns.RestoreTrash(c.ctx, &metapb.RestoreTrashRequest{Ino: ino, Dst: at(o.Dst)})
	if err == nil {
		e.node = nodeOf(p.Attr)
	}
	c.end(e, err)
}

// stepTrash is the outcome of what is about the trash.
func stepTrash(_ *world, t model.Tree, e *event) []model.Tree {
	var out []model.Tree
	switch o := e.op; {
	case e.verb == "purge":
		return append(t.Forget(o.Path), t) // somebody else may have been faster
	case e.kind == orca.OK || e.unknown:
		for _, n := range e.mayBe(t) {
			out = append(out, t.Restore(o.Path, o.Dst, n)...)
		}
	}
	switch {
	case e.kind == orca.OK:
		return out
	case e.unknown:
		return append(out, t)
	case e.kind == orca.Exists:
		if _, k := t.Find(e.op.Dst); k != orca.OK {
			return nil
		}
	}
	return []model.Tree{t} // somebody else was faster, or nobody may be there
}

// mayBe are the looks that a restored file or directory may have.
func (e *event) mayBe(t model.Tree) []model.Node {
	if !e.unknown {
		return []model.Node{e.node}
	}
	var all []model.Node
	for p, n := range t {
		if model.Kept(p) {
			all = append(all, n)
		}
	}
	return all
}

// discards returns the trees that a delete may leave when what goes is kept.
func (w *world) discards(t model.Tree, o Op) ([]model.Tree, orca.Kind) {
	gone, kept := t.Clone(), t.Clone()
	k := gone.Remove(o.Path, o.Recursive)
	_ = kept.Discard(o.Path, o.Recursive) // which is k again
	switch n := t[o.Path]; {
	case k != orca.OK:
		return nil, k
	case w.plan.Keep == 0 || o.Skip:
		return []model.Tree{gone}, k
	case n.Dir && len(t.Children(o.Path)) == 0 && !o.Recursive:
		return []model.Tree{gone}, k
	case n.Dir && len(t.Children(o.Path)) == 0 || w.plan.Keep != forLong:
		// Orca may not know yet that it is empty; it may have expired at once.
		return []model.Tree{gone, kept}, k
	}
	return []model.Tree{kept}, k
}

// undelete restores what is left in the trash, for the comparison.
func (w *world) undelete() {
	w.quietly("undelete", func(*client) {
		c := w.newClient(91) // that of the mounts has numbers of its own
		for i, e := range w.groups[0].machine().Trash(orca.Caller{}, "", nil, 1000) {
			c.use(Op{Verb: "undelete", Path: e.Path, Dst: fmt.Sprintf("%s/restored%d", e.Path[:2], i)}, e.Ino)
		}
	})
}

// inTrash reports whether a key of a store is the trash, or in it.
func inTrash(key string) bool { return strings.HasPrefix(key, fsm.BinName) }

// untrashed is a tree without what is kept of it.
func untrashed(t model.Tree) model.Tree {
	out := model.Tree{}
	for p, n := range t {
		if !model.Kept(p) {
			out[p] = n
		}
	}
	return out
}
