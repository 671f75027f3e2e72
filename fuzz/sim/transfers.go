// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Files and directories that go between the groups of a mount, by renames.

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
	if r.IntN(3) == 0 {
		p.Faults.Absences = 1 + r.IntN(4)
	}
	at := p.Roots[0]
	p.Parts = []Op{{Verb: "put in group", Path: at + "/c", Group: 2}, {Verb: "put in group", Path: at + "/b/b", Group: uint16(p.Groups)}}
	p.mark()
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

// NewTreesPlan draws a plan as NewTransfersPlan does, in which many renames are of
// directories with all that is in them.
func NewTreesPlan(seed uint64) *Plan {
	p := NewTransfersPlan(seed)
	r := rand.New(rand.NewPCG(seed, 23))
	at := p.Roots[0]
	trees := []string{at + "/b/a", at + "/b/a", at + "/c/a", at + "/b/b/a", at + "/b/c"}
	for _, ops := range p.Clients {
		for i := range ops {
			o := &ops[i]
			switch n := r.IntN(3); {
			case o.Verb == "rename" && n > 0:
				o.Path, o.Dst = trees[r.IntN(len(trees))], trees[r.IntN(len(trees))]
			case o.Verb == "mkdir" && n > 0:
				o.Path = trees[r.IntN(len(trees))]
			case n == 0 && (o.Verb == "write" || o.Verb == "stat"):
				o.Path = trees[r.IntN(len(trees))] + "/" + string("ab"[r.IntN(2)])
			}
		}
	}
	return p
}

// mark gives files that were there before what only Orca has of them.
func (p *Plan) mark() {
	at := p.Roots[0]
	p.Marks = []Op{{Verb: "xattr", Path: at + "/a"}, {Verb: "xattr", Path: at + "/b/c"}, {Verb: "pin", Path: at + "/a"}, {Verb: "pin", Path: at + "/b/a/b"}}
}

// drawer draws operations about files of a few directories.
type drawer struct {
	p     *Plan
	r     *rand.Rand
	dirs  []string
	parts bool     // some of them are made and given back
	few   []string // where files are likely to be
}

func (d *drawer) dir() string { return d.dirs[d.r.IntN(len(d.dirs))] }

// below is a directory that is no mount.
func (d *drawer) below() string { return d.dirs[1+d.r.IntN(5)] }

func (d *drawer) file() string { return d.dir() + "/" + string("abc"[d.r.IntN(3)]) }

// likely is a path at which a file may well be.
func (d *drawer) likely() string {
	if len(d.few) == 0 {
		at := d.p.Roots[0]
		d.few = []string{at + "/a", at + "/b/c", at + "/b/a/b"}
	}
	if d.r.IntN(4) == 0 {
		return d.file()
	}
	return d.few[d.r.IntN(len(d.few))]
}

func (d *drawer) draw() Op {
	r := d.r
	o := Op{Path: d.file()}
	switch n := r.IntN(100); {
	case n < 38:
		o.Verb, o.Path, o.Dst, o.NoReplace = "rename", d.likely(), d.file(), r.IntN(4) == 0
		d.few = append(d.few, o.Dst)
	case n < 56:
		o.Verb, o.Overwrite, o.Steal = "write", r.IntN(4) > 0, r.IntN(4) == 0
		o.Type = []orca.WriteType{orca.CacheThrough, orca.CacheThrough, orca.Through, orca.AsyncThrough}[r.IntN(4)]
		if r.IntN(10) == 0 {
			o.Die = 1 + r.IntN(3)
		}
		d.few = append(d.few, o.Path)
	case n < 59:
		o.Verb, o.Overwrite = "touch", r.IntN(2) == 0
	case n < 71:
		o.Verb, o.Path, o.Now = "stat", d.likely(), r.IntN(3) == 0
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
	case slices.ContainsFunc(d.p.Parts, func(p Op) bool { return p.Path == o.Path }):
		o.Verb = "stat" // what Orca alone knows of a part ends with it
	default:
		o.attribute(r)
	}
	return o
}

// attribute makes an operation one about what is kept of a file beside its content.
func (o *Op) attribute(r *rand.Rand) {
	switch n := r.IntN(5); n {
	case 0, 1:
		o.Verb, o.Mode = "chmod", []uint32{0o700, 0o600, 0o777}[r.IntN(3)]
	case 2:
		o.Verb, o.Copies = "keep", uint32(r.IntN(3))
	default:
		o.Verb = []string{"xattr", "pin"}[n-3]
	}
}

// part makes a directory in a group of its own, or gives one back.
func (d *drawer) part() Op {
	o := Op{Verb: "put in group", Path: d.dirs[3]}
	if len(d.p.Parts) > 0 {
		o = d.p.Parts[d.r.IntN(len(d.p.Parts))]
	}
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
// store has goes there, copied where that cannot rename, and a directory where it
// can. Which of the things that forbid it somebody is told is
// not said; what does not go is copied by who asked.
func (w *world) handed(t model.Tree, e *event) []model.Tree {
	o, after := e.op, t.Clone()
	k := after.Rename(o.Path, o.Dst)
	src := t[o.Path]
	dst, over := t[o.Dst]
	_, part := t[part+o.Dst]
	may := k == orca.OK && (!src.Dir || w.storeAt(o.Path).files && !partIn(t, o.Path)) && src.Peer == "" && o.Path[:2] == o.Dst[:2] && !part && (!over || !o.NoReplace)
	same := []model.Tree{t}
	switch e.kind {
	case orca.OK:
		if may {
			return []model.Tree{after}
		}
		return nil
	case orca.OverQuota:
		return same
	case orca.CrossMount:
		if !may || w.stays(t, o.Path) || w.shifted(e) {
			return same
		}
	case orca.NotFound, orca.NotDir:
		if nowhere(t, o, e.kind) {
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

// stays reports whether what is at a path may have to stay in its group: a file, or
// one in it, that its store may not have yet, or with names elsewhere.
func (w *world) stays(t model.Tree, path string) bool {
	for p, n := range t {
		if _, below := orca.Under(path, p); below && !n.Dir && (n.Peer != "" || w.late(n.Length)) {
			return true
		}
	}
	return false
}

// nowhere reports whether the source of a rename, or the directory of its target,
// is not there in the way that a refusal says.
func nowhere(t model.Tree, o Op, k orca.Kind) bool {
	_, src := t.Find(o.Path)
	dir, _ := orca.SplitPath(o.Dst)
	return (k == orca.NotFound || k == orca.NotDir) && (src == k || dirAt(t, dir) == k)
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
		_, below := orca.Under("/"+it.Source, "/"+x.Key)
		below = below && it.MountId == x.Attr.MountId
		if it.Op != metapb.IntentOp_INTENT_TRANSFER || it.Ino != x.Attr.Ino && !below {
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

// taken checks that files which a group has just taken over have there all that
// they have in the group that they come from. What follows in the same entry may
// have changed them.
func (j *journal) taken(all []*command.Result) {
	for i, r := range all {
		x := r.Transfer
		if x == nil || x.Kind != 0 || r.Parent == 0 { // refused, or decided before
			continue
		}
		o, err := j.w.group(uint32(orca.Ino(x.Tx).Home())).machine().Transfer(x.Tx)
		if err != nil {
			j.w.broken("transfer", "group %d has taken %s, of which its group says %v", j.g.number, number(x.Tx), err)
			continue
		}
		if o.Dir {
			j.w.stats.Trees++
		}
		if i < len(all)-1 {
			continue
		}
		if o.Dir {
			j.takenDir(x, o)
			continue
		}
		d, err := inode.DecodeDentry(o.File)
		if err != nil || d.File == nil {
			j.w.broken("transfer", "%s: %v", o.Dst, err)
			continue
		}
		v, err := j.machine.Lookup(orca.Ino(x.Ino))
		if err != nil {
			j.w.broken("transfer", "group %d has taken %s, and it is not there: %v", j.g.number, number(x.Tx), err)
			continue
		}
		was := handedOver(d.File, o, j.w.mounted(v.Attr.MountId))
		if is := j.g.carried(v.Attr); was != is {
			j.w.broken("transfer", "%s was %s, and is %s", o.Dst, was, is)
		}
	}
}

// takenDir is taken of a directory: all that is in it, too.
func (j *journal) takenDir(x *metapb.TransferRecord, o *metapb.TransferOp) {
	from := j.w.group(uint32(orca.Ino(x.Tx).Home()))
	it, err := from.machine().Intent(x.Tx)
	if err != nil {
		j.w.broken("transfer", "group %d has taken %s, of which its group says %v", j.g.number, number(x.Tx), err)
		return
	}
	was, have := from.holdings(orca.Ino(it.Ino), true), j.g.holdings(orca.Ino(x.Ino), true)
	for p, is := range was {
		if have[p] != is {
			j.w.broken("transfer", "%s: %q was %s, and is %s", o.Dst, p, is, have[p])
		}
		delete(have, p)
	}
	for p, is := range have {
		j.w.broken("transfer", "%s: with it has come %q, %s", o.Dst, p, is)
	}
}

// handedOver writes down what goes along with a file from one group to another, as
// the one that gives it has it. Where a store has to copy, it is another object.
func handedOver(f *inode.File, o *metapb.TransferOp, at place) string {
	has := map[string]string{}
	for _, a := range o.Xattrs {
		has[a.Name] = string(a.Value)
	}
	return carried(&metapb.Attr{Type: uint32(f.Type), Mode: f.Mode, Uid: f.UID, Gid: f.GID, Length: f.Length, Mtime: f.Mtime, Target: f.Target,
		Fingerprint: f.Fingerprint, Pinned: f.Flags.Has(inode.Pinned), ReplicaMin: o.ReplicaMin, ReplicaLimit: o.ReplicaLimit}, has, at)
}

// carried is handedOver of a file as a group has it.
func (g *group) carried(a *metapb.Attr) string {
	return carried(a, g.xattrs(orca.Ino(a.Ino)), g.w.mounted(a.MountId))
}

func carried(a *metapb.Attr, xattrs map[string]string, at place) string {
	if at.store == nil || !at.store.files {
		a.Fingerprint = ""
	}
	return fmt.Sprintf("%d %o %d %d %d %d %s %q pinned=%v %d %d %v", a.Type, a.Mode, a.Uid, a.Gid, a.Length, a.Mtime, a.Fingerprint, a.Target,
		a.Pinned, a.ReplicaMin, a.ReplicaLimit, xattrs)
}

func (g *group) xattrs(ino orca.Ino) map[string]string {
	out := map[string]string{}
	names, _ := g.machine().Xattrs(orca.Caller{}, ino)
	for _, n := range names {
		v, _ := g.machine().Xattr(orca.Caller{}, ino, n)
		out[n] = string(v)
	}
	return out
}
