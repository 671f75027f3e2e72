// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"orca"
)

// Plan is all that a run does, but for what the scheduler draws.
type Plan struct {
	Seed    uint64
	Clients [][]Op
	Faults  Faults
	Group   uint16 // of one group, 0: the first, that has the root; else one behind junctions
	Groups  int    // how many there are; 0: one
	// Followers are members of each group beside the one that leads, which
	// answer reads, too.
	Followers int
	// Apart: groups take no files of each other.
	Apart bool
	// Parts are directories that live in groups of their own from the beginning.
	Parts []Op
	Marks []Op          // what is done to files before the beginning, and no model knows
	Keep  time.Duration // how long the mounts keep what is deleted
	Roots []string      // that clients work below: "/p" like a file system, "/o" like an object store
}

// Faults are how often things go wrong, in a thousand: per message, proposal
// and call of a store; the rest per step. Absences are of a group's coordinator,
// for a while.
type Faults struct {
	Messages, Proposals, Stores, Crashes, Lags, Strangers, Absences int
}

// Op is one thing that a client does.
type Op struct {
	Verb      string // see operations
	Path, Dst string
	Length    int64 // of what is written; each write has its own
	Inodes    int64 // quota; Length is its limit of bytes
	Mode      uint32
	Group     uint16 // put in group, mount: which
	Copies    uint32 // write: on how many workers; keep: the least
	Type      orca.WriteType
	Parents   bool // mkdir
	Recursive bool // delete, sync
	Overwrite bool // touch, write
	NoReplace bool // rename
	Steal     bool // write
	Now       bool // stat, list: at sync interval 0
	Skip      bool // delete: not into the trash
	Die       int  // write: the client ends before the upload (1), in it (2), before complete (3)
}

// String writes the operation as a line.
func (o Op) String() string {
	s := o.Verb + " " + o.Path
	if o.Dst != "" {
		s += " " + o.Dst
	}
	if o.Verb == "write" {
		s += fmt.Sprintf(" %d bytes, %v", o.Length, o.Type)
	}
	for _, f := range []struct {
		name string
		on   bool
	}{{"parents", o.Parents}, {"recursive", o.Recursive}, {"overwrite", o.Overwrite}, {"no replace", o.NoReplace}, {"steal", o.Steal}, {"for good", o.Skip}, {"interval 0", o.Now}} {
		if f.on {
			s += ", " + f.name
		}
	}
	if o.Verb == "quota" {
		s += fmt.Sprintf(" %d bytes, %d inodes", o.Length, o.Inodes)
	}
	if o.Group != 0 {
		s += fmt.Sprintf(", group %d", o.Group)
	}
	if o.Mode != 0 {
		s += fmt.Sprintf(", mode %o", o.Mode)
	}
	if o.Copies != 0 {
		s += fmt.Sprintf(", %d copies", o.Copies)
	}
	if o.Die > 0 {
		s += fmt.Sprintf(", dies at %d", o.Die)
	}
	return s
}

// String writes the plan as lines.
func (p *Plan) String() string {
	var b strings.Builder
	if p.Keep != 0 {
		fmt.Fprintf(&b, "what is deleted is kept for %v\n", p.Keep)
	}
	if p.Groups != 0 || p.Followers != 0 {
		fmt.Fprintf(&b, "%d groups, followers of each: %d\n", max(p.Groups, 1), p.Followers)
	}
	if p.Apart {
		b.WriteString("groups take no files of each other\n")
	}
	for _, o := range slices.Concat(p.Parts, p.Marks) {
		fmt.Fprintf(&b, "from the beginning: %s\n", o)
	}
	fmt.Fprintf(&b, "plan: group %d, below %v, faults in a thousand %+v\n", max(p.Group, 1), p.Roots, p.Faults)
	for i, ops := range p.Clients {
		for _, o := range ops {
			fmt.Fprintf(&b, "  c%d %s\n", i, o)
		}
	}
	return b.String()
}

// size returns how many operations the plan has.
func (p *Plan) size() int {
	n := 0
	for _, ops := range p.Clients {
		n += len(ops)
	}
	return n
}

// NewPlan draws a plan. Each kind of fault is in about half of all plans, so
// that every pair of kinds meets, and misses, each other.
func NewPlan(seed uint64) *Plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := &Plan{Seed: seed, Roots: [][]string{{"/p"}, {"/o"}, {"/o"}, {"/p", "/o"}}[r.IntN(4)]}
	if seed%4 == 3 {
		p.Group = 2
	}
	some := func(v *int, most int) {
		if r.IntN(2) == 0 {
			*v = 1 + r.IntN(most)
		}
	}
	some(&p.Faults.Messages, 80)
	some(&p.Faults.Proposals, 80)
	some(&p.Faults.Stores, 100)
	some(&p.Faults.Crashes, 12)
	some(&p.Faults.Lags, 20)
	if r.IntN(5) == 0 {
		p.Faults.Strangers = 1 + r.IntN(20)
	}
	writes := int64(0)
	copies := rand.New(rand.NewPCG(seed, 2)) // of its own: what is found with a seed stays
	for range 2 + r.IntN(3) {
		var ops []Op
		for range 4 + r.IntN(9) {
			o := p.draw(r)
			if o.Verb == "write" {
				writes++
				o.Length = writes
			}
			switch n := copies.IntN(6); {
			case o.Verb == "write" && n < 2:
				o.Copies = uint32(2 + n)
			case o.Verb == "chmod" && n < 3:
				o.Verb, o.Mode, o.Copies = "keep", 0, uint32(n)
			}
			ops = append(ops, o)
		}
		p.Clients = append(p.Clients, ops)
	}
	p.limit()
	return p
}

// NewLinksPlan draws a plan with names of the same file, and names that change
// places; most of it is about a few names. A tree with such names in it is not
// removed in one step, so nobody removes trees.
func NewLinksPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 7))
	root := func() string { return p.Roots[r.IntN(len(p.Roots))] }
	var few []string
	for _, at := range p.Roots {
		few = append(few, at+"/a", at+"/b/c", at+"/b/a/b")
	}
	pick := func(chance int, other string) string {
		if r.IntN(100) < chance {
			return few[r.IntN(len(few))]
		}
		return other
	}
	for _, ops := range p.Clients {
		for i := range ops {
			o := &ops[i]
			n := r.IntN(100)
			if o.Verb == "quota" {
				continue
			}
			switch {
			case o.Verb == "write" && n >= 10, o.Verb == "sync":
			case n < 35:
				*o = Op{Verb: "link", Path: pick(80, p.path(r, root()))}
				o.Dst = p.path(r, o.Path[:2])
				few = append(few, o.Dst)
				continue
			case n < 45:
				*o = Op{Verb: "exchange", Path: pick(70, p.path(r, root()))}
				o.Dst = p.path(r, o.Path[:2])
			case n < 65:
				*o = Op{Verb: "delete", Path: o.Path}
			}
			o.Recursive = o.Recursive && o.Verb != "delete"
			if o.Verb != "sync" && o.Verb != "list" && o.Verb != "mkdir" {
				o.Path = pick(60, o.Path)
			}
			if o.Dst != "" {
				o.Path, o.Dst = pick(60, o.Path), pick(40, o.Dst)
				o.Dst = o.Path[:2] + o.Dst[2:]
			}
		}
	}
	return p
}

// path draws a path below root.
func (p *Plan) path(r *rand.Rand, root string) string {
	s := root
	for range 1 + r.IntN(10)/4 {
		s += "/" + string("abc"[r.IntN(3)])
	}
	return s
}

func (p *Plan) draw(r *rand.Rand) Op {
	root := p.Roots[r.IntN(len(p.Roots))]
	o := Op{Path: p.path(r, root)}
	flip := func(n int) bool { return r.IntN(n) == 0 }
	switch n := r.IntN(100); {
	case n < 12:
		o.Verb, o.Parents = "mkdir", flip(3)
	case n < 16:
		o.Verb, o.Overwrite = "touch", flip(2)
	case n < 40:
		o.Verb, o.Overwrite, o.Steal = "write", !flip(4), flip(4)
		o.Type = []orca.WriteType{orca.CacheThrough, orca.CacheThrough, orca.Through, orca.AsyncThrough, orca.MustCache}[r.IntN(5)]
		if flip(10) {
			o.Die = 1 + r.IntN(3)
		}
	case n < 62:
		o.Verb, o.Dst = "rename", p.path(r, root)
	case n < 75:
		o.Verb, o.Recursive = "delete", flip(2)
	case n < 79:
		o.Verb, o.Mode = "chmod", []uint32{0o700, 0o600, 0o777}[r.IntN(3)]
	case n < 89:
		o.Verb, o.Now = "stat", flip(2)
	case n < 95:
		o.Verb, o.Now = "list", flip(2)
	default:
		o.Verb, o.Recursive = "sync", flip(2)
	}
	return o
}

// limit has the clients of some plans set quotas: of those whose seeds end in 3
// or 9, for the others play as they did when quotas were not there.
func (p *Plan) limit() {
	if p.Seed%10 != 3 && p.Seed%10 != 9 {
		return
	}
	r := rand.New(rand.NewPCG(p.Seed, 2))
	for i, ops := range p.Clients {
		for range 1 + r.IntN(3) {
			o := Op{Verb: "quota", Path: p.Roots[r.IntN(len(p.Roots))]}
			if r.IntN(2) == 0 {
				o.Path = p.path(r, o.Path)
			}
			o.Length = []int64{0, 5, 20, 1000, 2750}[r.IntN(5)] // what is there already has over 900 a file
			o.Inodes = r.Int64N(9)
			ops = slices.Insert(ops, r.IntN(len(ops)/2+1), o)
		}
		p.Clients[i] = ops
	}
}

// without returns the plan less some operations of one client.
func (p *Plan) without(client, from, n int) *Plan {
	q := *p
	q.Clients = slices.Clone(p.Clients)
	q.Clients[client] = slices.Concat(p.Clients[client][:from], p.Clients[client][from+n:])
	return &q
}

// each returns the kinds of faults one by one.
func (f *Faults) each() []*int {
	return []*int{&f.Messages, &f.Proposals, &f.Stores, &f.Crashes, &f.Lags, &f.Strangers, &f.Absences}
}

// calmer returns the plan without one kind of fault; false if it has none of
// that kind.
func (p *Plan) calmer(kind int) (*Plan, bool) {
	q := *p
	v := q.Faults.each()[kind]
	had := *v > 0
	*v = 0
	return &q, had
}
