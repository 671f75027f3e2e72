// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"maps"
	"slices"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/metapb"
)

// operation is what a verb of a plan, or of the history, means. Its entry here is
// all that one more takes, but for a plan that draws it.
type operation struct {
	// do asks for it, and notes in e what the answer shows.
	do func(c *client, o Op, e *event) error
	// run is for what is not one request: it notes its events itself. Exactly one
	// of do and run is set, but for verbs that only the history has.
	run func(c *client, o Op)
	// asks: it changes nothing, so without an answer it says nothing.
	asks bool
	// model does it to a tree that nobody else changes, and says what it comes
	// to: OK, and the answer is impossible, is bad.
	model func(t model.Tree, e *event) orca.Kind
	// outcomes, where that is not enough, returns the trees that it may leave
	// with this answer; it is asked instead.
	outcomes func(w *world, t model.Tree, e *event) []model.Tree
}

// bad is what a model says of an answer that cannot be.
const bad = orca.Kind(255)

// operations are what the verbs mean.
func operations() map[string]*operation {
	all := map[string]*operation{}
	for _, some := range []map[string]*operation{changes(), attributes(), looks(), writes(), trashed(), grouped(), moves(), returns(), exchanges()} {
		maps.Copy(all, some)
	}
	return all
}

// changes are those of names.
func changes() map[string]*operation {
	return map[string]*operation{
		"mkdir": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Mkdir(c.ctx, &metapb.MkdirRequest{Target: at(o.Path), Mode: dirMode, Parents: o.Parents})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind { return t.Mkdir(e.op.Path, dirMode, e.op.Parents) },
		},
		"touch": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Create(c.ctx, &metapb.CreateRequest{Target: at(o.Path), Mode: fileMode, Complete: true, Overwrite: o.Overwrite})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind {
				return t.Put(e.op.Path, model.Node{Mode: fileMode}, e.op.Overwrite)
			},
		},
		"rename": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Rename(c.ctx, &metapb.RenameRequest{Src: at(o.Path), Dst: at(o.Dst), NoReplace: o.NoReplace})
				return err
			},
			outcomes: (*world).renamed,
		},
		"link": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Link(c.ctx, &metapb.LinkRequest{Src: at(o.Path), Dst: at(o.Dst)})
				return err
			},
			outcomes: (*world).linked,
		},
		"delete": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.Delete(c.ctx, &metapb.DeleteRequest{Target: at(o.Path), Recursive: o.Recursive, SkipTrash: o.Skip})
				return err
			},
			outcomes: (*world).deleted,
		},
	}
}

// attributes are those of what is at a name.
func attributes() map[string]*operation {
	return map[string]*operation{
		"chmod": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.SetAttr(c.ctx, &metapb.SetAttrRequest{Target: at(o.Path), Mask: uint32(metapb.SetAttrMask_SET_MODE), Mode: o.Mode})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind { return t.Chmod(e.op.Path, e.op.Mode) },
		},
		"keep": {
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.SetAttr(c.ctx, &metapb.SetAttrRequest{Target: at(o.Path), Mask: uint32(metapb.SetAttrMask_SET_REPLICAS), ReplicaMin: o.Copies})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind { return t.Keep(e.op.Path, e.op.Copies) },
		},
		"quota": { // the model has none: what they refuse is taken as it is
			do: func(c *client, o Op, _ *event) error {
				_, err := c.ns.SetQuota(c.ctx, &metapb.SetQuotaRequest{Target: at(o.Path), Bytes: o.Length, Inodes: o.Inodes})
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind { return dirAt(t, e.op.Path) },
		},
	}
}

// looks are those that change nothing in the namespace.
func looks() map[string]*operation {
	return map[string]*operation{
		"stat": {
			asks: true,
			do: func(c *client, o Op, e *event) error {
				r, err := c.ns.Stat(c.ctx, &metapb.StatRequest{Target: at(o.Path), Sync: o.sync()})
				if err == nil {
					e.node = nodeOf(r.Attr)
				}
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind {
				n, k := t.Find(e.op.Path)
				if n.Peer = ""; k == orca.OK && e.kind == orca.OK && n != e.node {
					return bad
				}
				return k
			},
		},
		"list": {
			asks: true,
			do: func(c *client, o Op, e *event) error {
				r, err := c.ns.List(c.ctx, &metapb.ListRequest{Target: at(o.Path), Sync: o.sync()})
				if err == nil {
					for _, x := range r.Entries {
						e.names = append(e.names, x.Name)
					}
				}
				return err
			},
			model: func(t model.Tree, e *event) orca.Kind {
				k := dirAt(t, e.op.Path)
				if k == orca.OK && e.kind == orca.OK && !slices.Equal(t.Children(e.op.Path), e.names) {
					return bad
				}
				return k
			},
		},
		"sync": {run: func(c *client, o Op) {
			_, _ = c.ns.Sync(c.ctx, &metapb.SyncRequest{Target: at(o.Path), Recursive: o.Recursive})
		}},
		// What the namespace shows in the end.
		"tree": {outcomes: func(w *world, t model.Tree, e *event) []model.Tree {
			if w.plan.Keep != 0 && w.plan.Keep != forLong {
				t = untrashed(t) // it has expired
			}
			if !maps.Equal(t, w.withRoots(t, e.tree)) {
				return nil
			}
			return []model.Tree{t}
		}},
	}
}

// writes are a write and its halves.
func writes() map[string]*operation {
	return map[string]*operation{
		"write": {run: (*client).write},
		"create": {
			asks:  true,
			model: func(t model.Tree, e *event) orca.Kind { return t.Create(e.op.Path, e.op.Overwrite) },
		},
		"complete": {outcomes: completed},
	}
}

// dirAt says whether a directory is at a path.
func dirAt(t model.Tree, p string) orca.Kind {
	n, k := t.Find(p)
	if k == orca.OK && !n.Dir {
		k = orca.NotDir
	}
	return k
}

// completed is the outcome of the second half of a write.
func completed(w *world, t model.Tree, e *event) []model.Tree {
	o, after := e.op, t.Clone()
	k := after.Put(o.Path, model.Node{Length: o.Length, Mode: fileMode, Min: o.Copies}, true)
	if e.unknown && k == orca.OK && o.Copies > 0 {
		// What a dead session has uploaded is taken in as any change of the
		// store is: by its content.
		found := t.Clone()
		_ = found.Put(o.Path, model.Node{Length: o.Length, Mode: fileMode}, true) // as above
		return []model.Tree{t, after, found}
	}
	return e.agrees(t, after, k)
}

// deleted is the outcome of a delete.
func (w *world) deleted(t model.Tree, e *event) []model.Tree {
	all, k := w.discards(t, e.op)
	parts := partIn(t, e.op.Path) // they are given back first
	switch {
	case k == orca.OK && e.kind == orca.OK && !e.unknown && parts:
		return nil
	case k == orca.OK && parts, e.op.Recursive && e.kind == orca.NotEmpty && w.plan.Groups > 0: // somebody was faster in one of them
		return []model.Tree{t}
	}
	if k == orca.OK && (e.kind == orca.OK || e.unknown) {
		if e.unknown {
			all = append(all, t)
		}
		return all
	}
	return e.agrees(t, t, k)
}

// outcomes returns the trees that an operation with this answer may leave.
func (w *world) outcomes(t model.Tree, e *event) []model.Tree {
	o := w.verbs[e.verb]
	if o.outcomes != nil {
		return o.outcomes(w, t, e)
	}
	after := t.Clone()
	return e.agrees(t, after, o.model(after, e))
}

// agrees returns what an answer says was left of t, where the model comes to k
// and leaves after.
func (e *event) agrees(t, after model.Tree, k orca.Kind) []model.Tree {
	switch {
	case k == bad:
		return nil
	case e.kind == orca.OverQuota:
		return []model.Tree{t}
	case e.unknown && k == orca.OK:
		return []model.Tree{t, after}
	case e.unknown:
		return []model.Tree{t}
	case k != e.kind:
		return nil
	case k != orca.OK:
		return []model.Tree{t}
	}
	return []model.Tree{after}
}
