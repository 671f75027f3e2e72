// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"strings"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Quick returns the inode that a path leads to as Walk does, if memory alone
// can say so at once: it waits for no apply and reads no disk. false says
// nothing: Walk has to be asked. The attributes of a file are put into a, which
// must be empty but may have runs to be overwritten; nil: into new memory.
func (m *Machine) Quick(c *orca.Caller, from orca.Ino, path string, a *metapb.Attr) (View, bool) {
	if a == nil {
		a = &metapb.Attr{}
	}
	if !m.mu.TryRLock() {
		return View{}, false
	}
	defer m.mu.RUnlock()
	if m.failed() != nil {
		return View{}, false
	}
	n, name, last, ok := m.glance(c, from, path)
	switch {
	case !ok && path == "":
		return m.quickIno(from, a)
	case !ok:
		return View{}, false
	case name == "":
		return m.dirView(n), m.notAsked(n, "") == nil
	case !last:
		return View{}, false
	}
	f, ok := m.cached(nameKey{n.rec.Ino, name})
	if !ok || m.notLeaving(n, name, "") != nil {
		return View{}, false
	}
	m.stats.hits.Add(1)
	return m.fileViewTo(a, n, name, f), true
}

// quickIno is Quick for a file by its number.
func (m *Machine) quickIno(ino orca.Ino, a *metapb.Attr) (View, bool) {
	k, ok := m.places.get(ino)
	if !ok {
		return View{}, false
	}
	n := m.dirs[k.dir]
	if n == nil || !m.attached(n) || !m.inside(n) {
		return View{}, false
	}
	f, ok := m.cached(k)
	if !ok || f.Ino != ino || m.notLeaving(n, k.name, "") != nil {
		return View{}, false
	}
	return m.fileViewTo(a, n, k.name, f), true
}

// Settled reports whether the UFS has nothing to say about a path before it is
// changed, because memory shows that it is under sync interval -1 and that
// either what it names, or all names of the directory where it ends, are
// known. false says nothing: Walk has to be asked.
func (m *Machine) Settled(c *orca.Caller, from orca.Ino, path string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.settled(c, from, path)
}

// SettledNow is Settled, but waits for no apply: false then, too. file and
// dir say that the path is known to name one.
func (m *Machine) SettledNow(c *orca.Caller, from orca.Ino, path string) (file, dir, ok bool) {
	if !m.mu.TryRLock() {
		return false, false, false
	}
	defer m.mu.RUnlock()
	if !m.settled(c, from, path) {
		return false, false, false
	}
	n, name, last, _ := m.glance(c, from, path)
	if name == "" || !last {
		return false, name == "", true
	}
	_, file = m.files.get(nameKey{n.rec.Ino, name})
	return file, false, true
}

func (m *Machine) settled(c *orca.Caller, from orca.Ino, path string) bool {
	n, name, last, ok := m.glance(c, from, path)
	if !ok || m.failed() != nil || m.syncInterval(n) >= 0 {
		return false
	}
	if name == "" || n.rec.Flags.Has(inode.Loaded) {
		return true
	}
	_, ok = m.files.get(nameKey{n.rec.Ino, name})
	return ok && last
}

// glance walks the directories of a path, which are all in memory, with the
// checks of resolve: n is the deepest, name the first name below it that is no
// directory ("": the whole path is), and last says that nothing follows it.
// Not ok: refused, or not spelled plainly.
func (m *Machine) glance(c *orca.Caller, from orca.Ino, path string) (n *node, name string, last, ok bool) {
	if from == 0 {
		from = orca.RootIno
	}
	if n = m.dirs[from]; n == nil || !m.attached(n) || n.rec.Mount != 0 && m.leadsAway(n) || m.binned(n) {
		return nil, "", false, false
	}
	if path != "" && path[0] != '/' {
		if orca.CheckName(path) != nil {
			return nil, "", false, false
		}
	} else if path != "" {
		p, err := orca.CleanPath(path)
		if err != nil {
			return nil, "", false, false
		}
		path = p[1:]
	}
	for path != "" {
		head, tail, more := strings.Cut(path, "/")
		if !allowedDir(c, n, mayExec) {
			return nil, "", false, false
		}
		sub := n.sub.get(head)
		if sub == nil {
			return n, head, !more, m.inside(n)
		}
		if sub.rec.Mount != 0 && m.leadsAway(sub) || m.hidesName(n, head) {
			return nil, "", false, false
		}
		n, path = sub, tail
	}
	return n, "", true, m.inside(n)
}
