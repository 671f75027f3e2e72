// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"
	"strings"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Permission bits of access.
const (
	mayExec  = 1
	mayWrite = 2
	mayRead  = 4
)

// spot is where a path leads.
type spot struct {
	path string // as the caller spelled it, for messages
	dir  *node  // deepest existing directory; when found, the parent of the end
	name string // in dir, of the end; "" for the root
	dentry
	rest []string // with none(): the missing names, the first is name
}

// isRoot reports whether the spot is the root directory.
func (s *spot) isRoot() bool { return s.dentry.dir != nil && s.dentry.dir.parent == nil }

// label is what a message calls a target.
func label(t *metapb.Target) string {
	if t.GetIno() <= uint64(orca.RootIno) {
		if t.GetPath() == "" {
			return "/"
		}
		return t.GetPath()
	}
	return "ino:" + orca.Ino(t.GetIno()).String() + "/" + strings.TrimPrefix(t.GetPath(), "/")
}

// resolve walks a target. Search permission is checked on each directory
// passed through, unless check is false; then the end may also be a file on its
// way to another group, which else is Busy. A missing end is not a refusal; a
// junction on the way, or at the end, is a referral.
func (m *Machine) resolve(c *orca.Caller, t *metapb.Target, check bool) (spot, *refusal) {
	s, r := m.resolveAny(c, t, check)
	if r == nil && check && m.applying && s.dir != nil && m.binned(s.dir) {
		return s, refuse(orca.NotFound, s.path, "")
	}
	if r == nil && !m.first() {
		r = m.notHere(&s, t)
	}
	return s, r
}

// resolveAny is resolve, in a group behind junctions also of what leads to its
// mounts.
func (m *Machine) resolveAny(c *orca.Caller, t *metapb.Target, check bool) (spot, *refusal) {
	s := spot{path: label(t)}
	start := orca.Ino(t.GetIno())
	if start == 0 {
		start = orca.RootIno
	}
	path := t.GetPath()
	if path == "" || path == "/" {
		return m.resolveIno(s, start)
	}
	if path[0] != '/' {
		path = "/" + path
	}
	path, err := orca.CleanPath(path)
	if err != nil {
		return s, refuse(orca.KindOf(err), s.path, "")
	}
	if path == "/" {
		return m.resolveIno(s, start)
	}
	n := m.dirs[start]
	if n == nil || !m.attached(n) {
		if _, _, f := m.byIno(start); f != nil {
			return s, refuse(orca.NotDir, s.path, "")
		}
		return s, refuse(orca.NotFound, s.path, "")
	}
	if n.rec.Mount != 0 && m.first() {
		if r := m.refer(n, s.path, path[1:]); r != nil {
			return s, r
		}
	}
	return m.descend(c, s, n, path[1:], check)
}

// descend walks the names of path (without a leading slash) from n.
func (m *Machine) descend(c *orca.Caller, s spot, n *node, path string, check bool) (spot, *refusal) {
	for {
		name, tail, more := strings.Cut(path, "/")
		if check && !allowedDir(c, n, mayExec) {
			return s, refuse(orca.Permission, s.path, "")
		}
		if check && m.hidesName(n, name) {
			return s, refuse(orca.NotFound, s.path, "")
		}
		s.dir, s.name, s.dentry = n, name, m.lookup(n, name)
		if d := s.dentry.dir; d != nil && d.rec.Mount != 0 && m.first() {
			if r := m.refer(d, s.path, tail); r != nil {
				return s, r
			}
		}
		switch {
		case s.none():
			if !more && m.applying {
				s.rest = m.batch.missing(name)
			} else {
				s.rest = strings.Split(path, "/")
			}
			return s, m.notAsked(n, s.path)
		case !more:
			if check || !m.applying {
				return s, m.notLeaving(n, name, s.path)
			}
			return s, nil
		case s.dentry.dir == nil:
			return s, firstRefusal(m.notLeaving(n, name, s.path), refuse(orca.NotDir, s.path, ""))
		}
		n, path = s.dentry.dir, tail
	}
}

// resolveIno finds a spot by inode number alone.
func (m *Machine) resolveIno(s spot, ino orca.Ino) (spot, *refusal) {
	if n := m.dirs[ino]; n != nil && m.attached(n) {
		if n.rec.Mount != 0 && m.first() {
			if r := m.refer(n, s.path, ""); r != nil {
				return s, r
			}
		}
		s.dentry.dir, s.dir, s.name = n, n.parent, n.rec.Name
		if n.parent == nil {
			s.dir = n
		}
		return s, m.notAsked(n, s.path)
	}
	if n, name, f := m.byIno(ino); f != nil && m.attached(n) {
		s.dir, s.name, s.file = n, name, f
		if !m.applying {
			return s, m.notLeaving(n, name, s.path)
		}
		return s, nil
	}
	return s, refuse(orca.NotFound, s.path, "")
}

// attached reports whether a directory is in the tree, not in the trash.
func (m *Machine) attached(n *node) bool {
	for n.parent != nil {
		n = n.parent
	}
	return n == m.root
}

// under reports whether n is top or lies below it.
func under(n, top *node) bool {
	for ; n != nil; n = n.parent {
		if n == top {
			return true
		}
	}
	return false
}

// path returns the path of a directory.
func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.rec.Name)
	}
	slices.Reverse(parts)
	return "/" + strings.Join(parts, "/")
}

// pathLen returns len(n.path()).
func (n *node) pathLen() int {
	if n.parent == nil {
		return 1
	}
	l := 0
	for ; n.parent != nil; n = n.parent {
		l += 1 + len(n.rec.Name)
	}
	return l
}

// checkNew refuses names and paths over their limits for new names below n.
func checkNew(n *node, rest []string, label string) *refusal {
	l := n.pathLen()
	for _, name := range rest {
		if err := orca.CheckName(name); err != nil {
			return refuse(orca.KindOf(err), label, "")
		}
		l += 1 + len(name)
	}
	if l > orca.MaxPath {
		return refuse(orca.NameTooLong, label, "path too long")
	}
	return nil
}

// inGroup reports whether the caller is of a group.
func inGroup(c *orca.Caller, gid uint32) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
}

// allowed checks permission bits as POSIX does: the class that the caller
// falls in decides alone; root passes, but executes only what somebody may.
func allowed(c *orca.Caller, mode, uid, gid, bits uint32, dir bool) bool {
	switch {
	case c.UID == 0:
		return bits&mayExec == 0 || dir || mode&0o111 != 0
	case c.UID == uid:
		mode >>= 6
	case inGroup(c, gid):
		mode >>= 3
	}
	return mode&bits == bits
}

func allowedDir(c *orca.Caller, n *node, bits uint32) bool {
	return allowed(c, n.rec.Mode, n.rec.UID, n.rec.GID, bits, true)
}

func allowedFile(c *orca.Caller, f *inode.File, bits uint32) bool {
	return allowed(c, f.Mode, f.UID, f.GID, bits, false)
}

// modeSticky and modeSetgid are the permission bits of that name.
const (
	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeSticky = 0o1000
)

// mayChange checks that the caller may add names to a directory.
func mayChange(c *orca.Caller, n *node, label string) *refusal {
	if !allowedDir(c, n, mayWrite|mayExec) {
		return refuse(orca.Permission, label, "")
	}
	return nil
}

// mayCut checks that the caller may take the end of a spot out of its parent.
func mayCut(c *orca.Caller, s *spot) *refusal {
	if r := mayChange(c, s.dir, s.path); r != nil {
		return r
	}
	if s.dir.rec.Mode&modeSticky == 0 || c.UID == 0 || c.UID == s.dir.rec.UID || c.UID == s.owner() {
		return nil
	}
	return refuse(orca.Permission, s.path, "the directory is sticky and the entry another's")
}

func (s *spot) owner() uint32 {
	if s.file != nil {
		return s.file.UID
	}
	return s.dentry.dir.rec.UID
}

// writable refuses what lies in a read-only mount.
func writable(mt *command.Mount, label string) *refusal {
	if mt != nil && mt.GetMount().GetReadOnly() {
		return refuse(orca.ReadOnly, label, "")
	}
	return nil
}
