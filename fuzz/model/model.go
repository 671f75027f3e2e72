// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package model is the simplest namespace that can be: a map from paths to
// what is there. It says which result an operation must have when nothing
// else happens at the same time; the machine's model test compares with it step
// by step, and the simulator judges concurrent histories by it.
//
// No goroutines, no locks. It knows no permissions and no owners.
package model

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"orca"
)

// Node is what a path leads to.
type Node struct {
	Dir    bool
	Length int64 // of a file; simulators give each content a length of its own
	Mode   uint32
	// Bytes and Inodes limit what is below a directory; 0: no limit.
	Bytes, Inodes int64
	Min           uint32 // copies of a file that are kept at least
	Names         int    // of a file: how many it has; 0 stands for one
	Peer          string // with several names: the first of them, else ""
	Link          bool   // a symbolic link, of that length
	Alias         bool   // with several names: not where the file counts; set by those who can tell
}

// Tree is a namespace by absolute, clean paths. It holds the root.
type Tree map[string]Node

// New returns an empty namespace.
func New() Tree { return Tree{"/": {Dir: true}} }

// Clone copies the tree.
func (t Tree) Clone() Tree { return maps.Clone(t) }

// Children returns the sorted names in a directory.
func (t Tree) Children(dir string) []string {
	var names []string
	for p := range t {
		if d, name := orca.SplitPath(p); d == dir && name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Find returns what is at a path, or why it cannot be walked.
func (t Tree) Find(p string) (Node, orca.Kind) {
	if n, ok := t[p]; ok {
		return n, orca.OK
	}
	if k := t.parentOf(p); k == orca.NotDir {
		return Node{}, k
	}
	return Node{}, orca.NotFound
}

// parentOf says why a name cannot be below its parent.
func (t Tree) parentOf(p string) orca.Kind {
	for d := p; d != "/"; {
		d, _ = orca.SplitPath(d)
		if n, ok := t[d]; ok && !n.Dir {
			return orca.NotDir
		}
	}
	d, _ := orca.SplitPath(p)
	if _, ok := t[d]; !ok {
		return orca.NotFound
	}
	return orca.OK
}

// Create says whether a file may be made, or with overwrite replaced, at p.
func (t Tree) Create(p string, overwrite bool) orca.Kind {
	if p == "/" {
		return orca.IsDir
	}
	if k := t.parentOf(p); k != orca.OK {
		return k
	}
	n, ok := t[p]
	switch {
	case ok && n.Dir:
		return orca.IsDir
	case ok && (!overwrite || n.Link):
		return orca.Exists
	}
	return orca.OK
}

// Put makes the file at p, or replaces it; an old one keeps its mode and names,
// and no fewer copies are kept than before.
func (t Tree) Put(p string, n Node, overwrite bool) orca.Kind {
	k := t.Create(p, overwrite)
	if k == orca.OK {
		old, ok := t[p]
		if ok {
			n.Mode, n.Min = old.Mode, max(n.Min, old.Min)
			k = t.room(t.home(p), "", n.Length-old.Length, 0)
		} else {
			k = t.room(p, "", n.Length, 1)
		}
		if k == orca.OK {
			t.set(p, n)
		}
	}
	return k
}

// Below returns the sum of the lengths of the files below p, and how many files
// and directories there are, p left out.
func (t Tree) Below(p string) (bytes, inodes int64) {
	for q, n := range t {
		if rel, ok := orca.Under(p, q); ok && rel != "" && !n.Alias {
			bytes, inodes = bytes+n.Length, inodes+1
		}
	}
	return bytes, inodes
}

// takes is what p counts for, with all below it.
func (t Tree) takes(p string) (bytes, inodes int64) {
	bytes, inodes = t.Below(p)
	if n := t[p]; !n.Alias {
		bytes, inodes = bytes+n.Length, inodes+1
	}
	return bytes, inodes
}

// room says whether the directories above p may have that much more below
// them; those that are above from, too, have it already.
func (t Tree) room(p, from string, bytes, inodes int64) orca.Kind {
	for d := p; d != "/"; {
		d, _ = orca.SplitPath(d)
		if _, had := orca.Under(d, from); from != "" && had {
			continue
		}
		n := t[d]
		b, i := t.Below(d)
		if bytes > 0 && n.Bytes > 0 && b+bytes > n.Bytes || inodes > 0 && n.Inodes > 0 && i+inodes > n.Inodes {
			return orca.OverQuota
		}
	}
	return orca.OK
}

// Limit sets the quota of a directory.
func (t Tree) Limit(p string, bytes, inodes int64) orca.Kind {
	n, k := t.Find(p)
	switch {
	case k != orca.OK:
		return k
	case !n.Dir:
		return orca.NotDir
	}
	n.Bytes, n.Inodes = bytes, inodes
	t[p] = n
	return orca.OK
}

// set changes what is at p, and at all other names of the same file.
func (t Tree) set(p string, n Node) {
	old := t[p]
	n.Names, n.Peer, n.Alias = old.Names, old.Peer, old.Alias
	t[p] = n
	if old.Peer == "" {
		return
	}
	for q, other := range t {
		if other.Peer == old.Peer {
			n.Alias = other.Alias
			t[q] = n
		}
	}
}

// home is the name at which the file at p counts.
func (t Tree) home(p string) string {
	if n := t[p]; n.Alias {
		for q, other := range t {
			if other.Peer == n.Peer && !other.Alias {
				return q
			}
		}
	}
	return p
}

// Homes says which names are homes of files with several, of those whose home
// has gone, and reports whether it agrees on the others.
func (t Tree) Homes(home func(p string) bool) bool {
	known := map[string]bool{}
	for _, n := range t {
		known[n.Peer] = known[n.Peer] || !n.Alias
	}
	for p, n := range t {
		if n.Peer == "" {
			continue
		}
		if is := home(p); !known[n.Peer] {
			n.Alias = !is
			t[p] = n
		} else if is == n.Alias {
			return false
		}
	}
	return true
}

// count brings the numbers of names, and which is the first, in line with what
// there is.
func (t Tree) count() {
	by := map[string][]string{}
	for p, n := range t {
		if n.Peer != "" {
			by[n.Peer] = append(by[n.Peer], p)
		}
	}
	for _, names := range by {
		first := slices.Min(names)
		for _, p := range names {
			n := t[p]
			n.Names, n.Peer = len(names), first
			if len(names) == 1 {
				n.Names, n.Peer, n.Alias = 0, "", false
			}
			t[p] = n
		}
	}
}

// Link gives the file src one more name.
func (t Tree) Link(src, dst string) orca.Kind {
	for _, p := range []string{src, dst} {
		if k := t.parentOf(p); p != "/" && k == orca.NotDir {
			return k
		}
	}
	s, ok := t[src]
	switch {
	case !ok:
		return orca.NotFound
	case s.Dir:
		return orca.Permission
	}
	if _, ok := t[dst]; ok {
		return orca.Exists
	}
	if k := t.parentOf(dst); k != orca.OK {
		return k
	}
	if s.Peer == "" {
		s.Peer = src
	}
	t[src], t[dst] = s, s
	t.count()
	return orca.OK
}

// Exchange has two names change places.
func (t Tree) Exchange(a, b string) orca.Kind {
	for _, p := range []string{a, b} {
		if k := t.parentOf(p); p != "/" && k == orca.NotDir {
			return k
		}
	}
	for _, p := range []string{a, b} {
		if _, ok := t[p]; !ok {
			return orca.NotFound
		}
	}
	_, in := orca.Under(a, b)
	_, over := orca.Under(b, a)
	switch {
	case a == b:
		return orca.OK
	case in || over:
		return orca.Invalid
	case t[a].Peer != "" && t[a].Peer == t[b].Peer:
		return orca.OK
	}
	bytes1, inodes1 := t.takes(a)
	bytes2, inodes2 := t.takes(b)
	for _, k := range []orca.Kind{t.room(b, a, bytes1-bytes2, inodes1-inodes2), t.room(a, b, bytes2-bytes1, inodes2-inodes1)} {
		if k != orca.OK {
			return k
		}
	}
	moved := Tree{}
	for _, way := range [][2]string{{a, b}, {b, a}} {
		for q, n := range t {
			if rel, ok := orca.Under(way[0], q); ok {
				moved[below(way[1], rel)] = n
			}
		}
	}
	for q := range t {
		_, ok1 := orca.Under(a, q)
		_, ok2 := orca.Under(b, q)
		if ok1 || ok2 {
			delete(t, q)
		}
	}
	maps.Copy(t, moved)
	t.count()
	return orca.OK
}

func below(dir, rel string) string {
	if rel == "" {
		return dir
	}
	return orca.JoinPath(dir, rel)
}

// Mkdir makes a directory, with parents those above it, too.
func (t Tree) Mkdir(p string, mode uint32, parents bool) orca.Kind {
	if n, ok := t[p]; ok {
		if parents && n.Dir {
			return orca.OK
		}
		return orca.Exists
	}
	missing := []string{p}
	k := t.parentOf(p)
	for d := p; k == orca.NotFound && parents; k = t.parentOf(d) {
		d, _ = orca.SplitPath(d)
		missing = append(missing, d)
	}
	if k == orca.OK {
		k = t.room(p, "", 0, int64(len(missing)))
	}
	if k == orca.OK {
		for i, d := range missing {
			if i == 1 {
				mode |= 0o300
			}
			t[d] = Node{Dir: true, Mode: mode}
		}
	}
	return k
}

// Chmod changes the mode of what is at p.
func (t Tree) Chmod(p string, mode uint32) orca.Kind {
	n, k := t.Find(p)
	if k == orca.OK {
		n.Mode = mode
		t.set(p, n)
	}
	return k
}

// Keep sets how many copies of the file at p are kept.
func (t Tree) Keep(p string, least uint32) orca.Kind {
	n, k := t.Find(p)
	switch {
	case k != orca.OK:
		return k
	case n.Dir:
		return orca.IsDir
	case n.Link:
		return orca.Invalid
	}
	n.Min = least
	t.set(p, n)
	return orca.OK
}

// Remove deletes a file or an empty directory, or with recursive a tree.
func (t Tree) Remove(p string, recursive bool) orca.Kind {
	if p == "/" {
		return orca.Invalid
	}
	if k := t.parentOf(p); k != orca.OK {
		return k
	}
	if _, ok := t[p]; !ok {
		return orca.NotFound
	}
	if len(t.Children(p)) > 0 && !recursive {
		return orca.NotEmpty
	}
	for q := range t {
		if _, ok := orca.Under(p, q); ok {
			delete(t, q)
		}
	}
	t.count()
	return orca.OK
}

// Rename moves a file or directory, replacing a file or an empty directory.
func (t Tree) Rename(src, dst string) orca.Kind {
	k := t.mayRename(src, dst)
	if k != orca.OK || src == dst || t[src].Peer != "" && t[src].Peer == t[dst].Peer {
		return k
	}
	delete(t, dst)
	moved := Tree{}
	for q, n := range t {
		if rel, ok := orca.Under(src, q); ok {
			delete(t, q)
			moved[below(dst, rel)] = n
		}
	}
	maps.Copy(t, moved)
	t.count()
	return orca.OK
}

func (t Tree) mayRename(src, dst string) orca.Kind {
	for _, p := range []string{src, dst} {
		if k := t.parentOf(p); p != "/" && k == orca.NotDir {
			return k
		}
	}
	s, ok := t[src]
	if !ok {
		return orca.NotFound
	}
	if src == dst {
		return orca.OK
	}
	if dst != "/" {
		if k := t.parentOf(dst); k != orca.OK {
			return k
		}
	}
	if src == "/" || dst == "/" {
		return orca.Invalid
	}
	d, exists := t[dst]
	if exists && !s.Dir && d.Dir {
		return orca.IsDir
	}
	if exists && s.Dir && !d.Dir {
		return orca.NotDir
	}
	if _, below := orca.Under(src, dst); below && s.Dir {
		return orca.Invalid
	}
	if exists && len(t.Children(dst)) > 0 {
		return orca.NotEmpty
	}
	if s.Peer != "" && s.Peer == d.Peer {
		return orca.OK
	}
	bytes, inodes := t.takes(src)
	if exists && d.Peer == "" { // else it may go on in the same directory
		bytes, inodes = bytes-d.Length, inodes-1
	}
	return t.room(dst, src, bytes, inodes)
}

// What was deleted and is kept is in the tree under paths that no namespace has:
// a mark, the path that it had, a mark, and a number that tells it from others.
const kept = "\x00"

// Kept reports whether a path of the tree is of something deleted.
func Kept(p string) bool { return p[:1] == kept }

// Discard deletes what is at p, but keeps it.
func (t Tree) Discard(p string, recursive bool) orca.Kind {
	gone := t.Clone()
	k := gone.Remove(p, recursive)
	if k != orca.OK {
		return k
	}
	top := ""
	for n := 0; ; n++ {
		if top = kept + p + kept + strconv.Itoa(n); !t.has(top) {
			break
		}
	}
	for q, n := range t {
		if rel, ok := orca.Under(p, q); ok {
			delete(t, q)
			t[below(top, rel)] = n
		}
	}
	return orca.OK
}

func (t Tree) has(p string) bool {
	_, ok := t[p]
	return ok
}

// Forget returns the trees that may be left when something that was deleted at p
// is kept no longer.
func (t Tree) Forget(p string) []Tree {
	var out []Tree
	for top := range t {
		if !strings.HasPrefix(top, kept+p+kept) || strings.Contains(top[len(kept+p+kept):], "/") {
			continue
		}
		after := t.Clone()
		for q := range t {
			if _, ok := orca.Under(top, q); ok {
				delete(after, q)
			}
		}
		out = append(out, after)
	}
	return out
}

// Restore returns the trees that may be left when something that was deleted at
// p, and looks like n, comes back at dst.
func (t Tree) Restore(p, dst string, n Node) []Tree {
	var out []Tree
	if t.has(dst) || t.parentOf(dst) != orca.OK {
		return nil
	}
	for top, is := range t {
		if !strings.HasPrefix(top, kept+p+kept) || strings.Contains(top[len(kept+p+kept):], "/") || is != n {
			continue
		}
		after := t.Clone()
		for q, n := range t {
			if rel, ok := orca.Under(top, q); ok {
				delete(after, q)
				after[below(dst, rel)] = n
			}
		}
		out = append(out, after)
	}
	return out
}
