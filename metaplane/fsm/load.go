// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"maps"
	"slices"
	"unsafe"

	"orca"
	"orca/metaplane/inode"
)

// What a member has to do before it serves grows with its directories, and with
// nothing else: so each costs as little as it can. One goroutine reads and
// decodes their records into memory that many share, another makes the tree of
// them, in one pass, for most directories are younger than where they are
// (ADR 0019).

const (
	// dirsTogether is how many directories are read into one piece of memory, as
	// many as 8 KiB have, which is held as long as one of them is there, and
	// stepDirs how many such pieces are handed over at once.
	dirsTogether = 8 << 10 / int(unsafe.Sizeof(node{}))
	stepDirs     = 64
	// maxSized bounds the maps that are made as large as a counter says.
	maxSized = 1 << 24
)

// tree is the tree of all directories while it is made.
type tree struct {
	m     *Machine
	order []*node              // parents first
	old   map[orca.Ino]*node   // whose records had no sum
	wait  map[orca.Ino][]*node // for a parent that has no place yet itself, by that
	last  *node                // parent of the last: likely that of the next
}

// loadDirs reads all directories. Their sums are those of their own entries.
func (m *Machine) loadDirs(t *tree) error {
	// Their number is known, so that nothing grows on the way.
	n := min(max(m.count.dirs, 1), maxSized)
	m.root, m.dirs = nil, make(map[orca.Ino]*node, n)
	*t = tree{m: m, order: make([]*node, 0, n), old: map[orca.Ino]*node{}, wait: map[orca.Ino][]*node{}}
	steps, failed := make(chan [][]node, 8), make(chan error, 1)
	go func() {
		defer close(steps)
		failed <- m.readDirs(steps)
	}()
	for step := range steps {
		for _, nodes := range step {
			for i := range nodes {
				t.add(&nodes[i])
			}
		}
	}
	if err := <-failed; err != nil {
		return err
	}
	if m.root == nil {
		t.add(&node{rec: inode.Dir{Ino: orca.RootIno, Mode: 0o755}})
		m.count.dirs = 1
	}
	if len(t.wait) > 0 {
		lost := t.wait[slices.Min(slices.Collect(maps.Keys(t.wait)))][0]
		return orca.E("fsm.Open", orca.Corrupt, "directory "+lost.rec.Ino.String()+" has no parent")
	}
	return nil
}

// readDirs reads the records of all directories, in order of their numbers.
func (m *Machine) readDirs(steps chan<- [][]node) error {
	var bad error
	var text batch // just its memory of strings
	var step [][]node
	var nodes []node
	keep := text.keptBytes
	err := m.scan(inode.SpaceDir, func(_, v []byte) bool {
		if len(nodes) == cap(nodes) {
			if nodes != nil {
				step = append(step, nodes)
			}
			if len(step) == stepDirs {
				steps <- step
				step = make([][]node, 0, stepDirs)
			}
			nodes = make([]node, 0, dirsTogether)
		}
		nodes = nodes[:len(nodes)+1]
		n := &nodes[len(nodes)-1]
		bad = inode.DecodeDirTo(v, &n.rec, keep)
		n.below.Usage = Usage{Bytes: n.rec.Bytes, Files: n.rec.Entries - n.rec.Subdirs}
		return bad == nil
	})
	if bad != nil || err != nil {
		return firstErr(bad, err)
	}
	steps <- append(step, nodes)
	return nil
}

// add enters a directory, at once if its parent is in its place, else with it.
func (t *tree) add(n *node) {
	m, ino := t.m, n.rec.Ino
	m.dirs[ino] = n
	if n.rec.Bytes < 0 {
		n.rec.Bytes, n.below.Bytes = 0, 0
		t.old[ino] = n
	}
	switch {
	case ino == orca.RootIno:
		m.root = n
	case n.rec.Parent == trashIno:
		m.trash[ino] = &trashed{node: n}
	default:
		p := t.last
		if p == nil || p.rec.Ino != n.rec.Parent {
			if p = m.dirs[n.rec.Parent]; p == nil || !m.placed(p) {
				t.wait[n.rec.Parent] = append(t.wait[n.rec.Parent], n)
				return
			}
		}
		t.link(n, p)
	}
	t.order = append(t.order, n)
	if len(t.wait) > 0 {
		t.follow(n)
	}
}

// placed reports whether the way up from a directory is made.
func (m *Machine) placed(n *node) bool {
	return n.parent != nil || n == m.root || n.rec.Parent == trashIno
}

func (t *tree) link(n, p *node) {
	t.last, n.parent = p, p
	t.m.adopt(p, n)
}

// follow enters what waits for a directory, and for that.
func (t *tree) follow(n *node) {
	todo := []*node{n}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		subs := t.wait[p.rec.Ino]
		delete(t.wait, p.rec.Ino)
		for _, d := range subs {
			t.link(d, p)
		}
		t.order = append(t.order, subs...)
		todo = append(todo, subs...)
	}
}

// adopt enters a directory in the one that it is in.
func (m *Machine) adopt(n, child *node) {
	if n.sub == nil {
		n.sub = newChildren(m.files.seed, int(min(max(n.rec.Subdirs, 1), maxSized)))
	}
	n.sub.add(child)
}
