// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math/rand/v2"
	"slices"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/metapb"
)

// Files that go between the groups of a mount, by renames.

// NewTransfersPlan draws a plan in which directories of a mount live in groups of
// their own from the beginning, and most of what clients do is to rename files
// between them, over each other, too. In half of the plans such directories are
// made and given back meanwhile; in the others files have attributes that only
// Orca keeps, which go along.
func NewTransfersPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 17))
	p.Group, p.Groups = 0, 2+r.IntN(2)
	p.Roots = [][]string{{"/p"}, {"/p"}, {"/p"}, {"/p", "/q"}, {"/o"}}[r.IntN(5)]
	p.Faults.Strangers = 0
	if r.IntN(6) == 0 {
		p.Faults.Strangers = 1 + r.IntN(20)
	}
	if r.IntN(4) == 0 {
		p.Followers = 1
	}
	at := p.Roots[0]
	p.Parts = []Op{{Verb: "put in group", Path: at + "/c", Group: 2}, {Verb: "put in group", Path: at + "/b/b", Group: uint16(p.Groups)}}
	d := drawer{p: p, r: r, dirs: []string{at, at + "/b", at + "/b/a", at + "/c", at + "/b/b", at + "/c/a"}, parts: r.IntN(2) == 0}
	if len(p.Roots) > 1 {
		d.dirs = append(d.dirs, p.Roots[1])
	}
	writes := int64(0)
	for _, ops := range p.Clients {
		for i := range ops {
			o := d.draw()
			if o.Verb == "write" {
				writes++
				o.Length = writes
			}
			ops[i] = o
		}
	}
	d.opposites()
	p.limit()
	return p
}

// drawer draws operations about files of a few directories.
type drawer struct {
	p     *Plan
	r     *rand.Rand
	dirs  []string
	parts bool // some of them are made and given back
}

func (d *drawer) dir() string { return d.dirs[d.r.IntN(len(d.dirs))] }

// below is a directory that is no mount.
func (d *drawer) below() string { return d.dirs[1+d.r.IntN(5)] }

func (d *drawer) file() string { return d.dir() + "/" + string("abc"[d.r.IntN(3)]) }

func (d *drawer) draw() Op {
	r := d.r
	o := Op{Path: d.file()}
	switch n := r.IntN(100); {
	case n < 38:
		o.Verb, o.Dst, o.NoReplace = "rename", d.file(), r.IntN(4) == 0
	case n < 56:
		o.Verb, o.Overwrite, o.Steal = "write", r.IntN(4) > 0, r.IntN(4) == 0
		o.Type = []orca.WriteType{orca.CacheThrough, orca.CacheThrough, orca.Through, orca.AsyncThrough}[r.IntN(4)]
		if r.IntN(10) == 0 {
			o.Die = 1 + r.IntN(3)
		}
	case n < 59:
		o.Verb, o.Overwrite = "touch", r.IntN(2) == 0
	case n < 71:
		o.Verb, o.Now = "stat", r.IntN(3) == 0
	case n < 81:
		o.Verb, o.Path, o.Now = "list", d.dir(), r.IntN(3) == 0
	case n < 86:
		o.Verb, o.Recursive = "delete", r.IntN(3) == 0
	case n < 88:
		o.Verb, o.Path, o.Recursive = "delete", d.below(), r.IntN(3) > 0
	case n < 90:
		o.Verb, o.Path = "mkdir", d.below()
	case n < 93:
		o.Verb, o.Path, o.Recursive = "sync", d.dir(), r.IntN(2) == 0
	case n < 95:
		o = Op{Verb: "quota", Path: d.dir(), Length: []int64{0, 5, 20, 1000, 2750}[r.IntN(5)], Inodes: r.Int64N(6)}
	case d.parts:
		return d.part()
	case n < 98:
		o.Verb, o.Mode = "chmod", []uint32{0o700, 0o600, 0o777}[r.IntN(3)]
	default:
		o.Verb, o.Copies = "keep", uint32(r.IntN(3))
	}
	return o
}

// part makes a directory in a group of its own, or gives one back.
func (d *drawer) part() Op {
	o := d.p.Parts[d.r.IntN(len(d.p.Parts))]
	if n := d.r.IntN(3); n == 0 && (d.p.Roots[0] != "/o" || d.p.Faults.Lags == 0) {
		return Op{Verb: "unmount", Path: o.Path}
	}
	o.Group = uint16(2 + d.r.IntN(d.p.Groups-1))
	return o
}

// opposites has some clients rename at about the same time the other way round
// what others rename.
func (d *drawer) opposites() {
	for i, ops := range d.p.Clients {
		other := d.p.Clients[(i+1)%len(d.p.Clients)]
		for j, o := range ops {
			if o.Verb == "rename" && j < len(other) && other[j].Verb == "rename" && d.r.IntN(3) == 0 {
				other[j].Path, other[j].Dst = o.Dst, o.Path
			}
		}
	}
}

// handed is the outcome of a rename from one group to another: a file that its
// store has goes there. Which of the things that forbid it somebody is told is
// not said; what does not go is copied by who asked.
func (w *world) handed(t model.Tree, e *event) []model.Tree {
	o, after := e.op, t.Clone()
	k := after.Rename(o.Path, o.Dst)
	src, sk := t.Find(o.Path)
	dst, over := t[o.Dst]
	dir, _ := orca.SplitPath(o.Dst)
	dk := dirAt(t, dir)
	_, part := t[part+o.Dst]
	may := k == orca.OK && !src.Dir && src.Peer == "" && w.storeAt(o.Path).files && o.Path[:2] == o.Dst[:2] && !part && (!over || !o.NoReplace)
	same := []model.Tree{t}
	switch e.kind {
	case orca.OK:
		if e.unknown || may {
			return []model.Tree{after}
		}
		return nil
	case orca.OverQuota:
		return same
	case orca.CrossMount:
		if !may || w.late(src.Length) || w.shifted(e) {
			return same
		}
	case orca.NotFound, orca.NotDir:
		if sk == e.kind || dk == e.kind {
			return same
		}
	case orca.IsDir:
		if dst.Dir {
			return same
		}
	case orca.Exists:
		if over && o.NoReplace {
			return same
		}
	default:
		if e.unknown && may {
			return []model.Tree{t, after}
		}
		if e.unknown {
			return same
		}
	}
	if k == e.kind {
		return same
	}
	return nil
}

// shifted reports whether what is above a name of a rename came to another group
// while that went on: it was sent to where the name had been.
func (w *world) shifted(e *event) bool {
	return slices.ContainsFunc(w.history, func(x event) bool {
		_, above := orca.Under(x.op.Path, e.op.Path)
		_, over := orca.Under(x.op.Path, e.op.Dst)
		return x.client == 98 && (above || over) && x.ret > e.call && x.call < e.ret
	})
}

// late reports whether content of this length may be in no store yet: it was
// written to be persisted later.
func (w *world) late(length int64) bool {
	for _, ops := range w.plan.Clients {
		if slices.ContainsFunc(ops, func(o Op) bool { return o.Verb == "write" && o.Length == length && o.Type == orca.AsyncThrough }) {
			return true
		}
	}
	return false
}

// storeAt returns the store that a path is in.
func (w *world) storeAt(path string) *store {
	for _, s := range w.stores {
		if _, ok := orca.Under(s.name, path); ok {
			return s
		}
	}
	return nil
}

// onItsWay reports whether the object of a file is elsewhere because it is going
// to another group: that has begun to take it, or has it.
func (w *world) onItsWay(x *spot) bool {
	for _, it := range x.g.machine().Intents() {
		if it.Op != metapb.IntentOp_INTENT_TRANSFER || it.Ino != x.Attr.Ino {
			continue
		}
		to := w.group(uint32(orca.Ino(it.Command.GetRename().GetAway().GetIno()).Home())).machine()
		for _, other := range to.Intents() {
			if other.Op == metapb.IntentOp_INTENT_RECEIVE && other.Command.GetTransfer().GetTx() == it.Id {
				return x.at.store.hasAnywhere(x.Attr.Fingerprint)
			}
		}
		return to.Counts().Transfers > 0 // it may be removed there by now
	}
	return false
}

func (s *store) hasAnywhere(fingerprint string) bool {
	return slices.ContainsFunc(s.mem.Keys(), func(key string) bool {
		i, err := s.raw.Stat(context.Background(), key)
		return err == nil && i.Fingerprint == fingerprint
	})
}
