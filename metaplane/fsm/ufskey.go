// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"slices"
	"strings"
	"unsafe"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
)

// located says where in a UFS something is.
type located struct {
	mount *command.Mount // nil: under no mount
	key   string         // relative to the mount's root
	uri   string         // of the mount and key; "": not known
	moved bool           // by the override of an undrained move
}

// id returns the id of the mount, 0 if there is none.
func (l located) id() uint32 { return l.mount.GetMount().GetId() }

// live reports whether an override is in force.
func (m *Machine) live(o inode.Override) bool {
	return o.By != 0 && m.intents[o.By] != nil
}

// locate computes the UFS key of rest (may be "") below a directory: the path
// from the nearest override or the mount's root on.
func (m *Machine) locate(n *node, rest string) located {
	return m.locateBut(n, rest, false)
}

// locateBut is locate, leaving overrides out of account if natural is set.
func (m *Machine) locateBut(n *node, rest string, natural bool) located {
	var l located
	var buf [16]string
	parts := buf[:0]
	if rest != "" {
		parts = append(parts, rest)
	}
	based := false
	for ; n != nil; n = n.parent {
		if !based && !natural && m.live(n.rec.Override) {
			parts, based, l.moved = append(parts, n.rec.Override.Key), true, true
		}
		if n.rec.Mount != 0 {
			l.mount = m.mounts[n.rec.Mount]
			break
		}
		if !based && n.parent != nil {
			parts = append(parts, n.rec.Name)
		}
	}
	if l.mount == nil {
		return located{}
	}
	if len(parts) > 0 {
		l.uri, l.key = m.joinKey(l.mount.GetMount().GetUri(), parts)
	}
	return l
}

// joinKey joins the URI of a mount's root and the parts of a key, the last
// first: the key is the end of the whole, and takes no memory of its own.
func (m *Machine) joinKey(root string, parts []string) (uri, key string) {
	n := len(parts) - 1
	for _, p := range parts {
		n += len(p)
	}
	if n == 0 {
		return root, ""
	}
	if !strings.HasSuffix(root, "/") {
		n++
	}
	var buf []byte
	if m.applying {
		buf = hold(&m.batch.passing, len(root)+n)
	} else {
		buf = make([]byte, len(root)+n)
	}
	at := copy(buf, root)
	if !strings.HasSuffix(root, "/") {
		at += copy(buf[at:], "/")
	}
	begin := at
	for i := len(parts) - 1; i >= 0; i-- {
		at += copy(buf[at:], parts[i])
		if i > 0 {
			at += copy(buf[at:], "/")
		}
	}
	uri = unsafe.String(unsafe.SliceData(buf), len(buf))
	return uri, uri[begin:]
}

// locateFile computes the UFS key of a file, its own override first: with
// several names that of its home.
func (m *Machine) locateFile(n *node, name string, f *inode.File) located {
	if f != nil && f.Flags.Has(inode.Linked) {
		if at, home, ok := m.place(f.Ino); ok {
			n, name = at, home
		}
	}
	l := m.locate(n, name)
	if f != nil && m.live(f.Override) && l.mount != nil {
		l.key, l.uri, l.moved = f.Override.Key, "", true
	}
	return l
}

// locateSpot computes the UFS key of the end of a spot, existing or not.
func (m *Machine) locateSpot(s *spot) located {
	switch {
	case s.file != nil:
		return m.locateFile(s.dir, s.name, s.file)
	case s.dentry.dir != nil:
		return m.locate(s.dentry.dir, "")
	}
	return m.locate(s.dir, strings.Join(s.rest, "/"))
}

// mountOf returns the mount that a directory lies in, nil if none.
func (m *Machine) mountOf(n *node) *command.Mount {
	for ; n != nil; n = n.parent {
		if n.rec.Mount != 0 {
			return m.mounts[n.rec.Mount]
		}
	}
	return nil
}

// uri joins the URI of a mount and a key.
func uri(mt *command.Mount, key string) string {
	root := mt.GetMount().GetUri()
	if key == "" {
		return root
	}
	if strings.HasSuffix(root, "/") {
		return root + key
	}
	return root + "/" + key
}

// mask is one key that an intent keeps for itself.
type mask struct {
	key     string
	id      uint64
	subtree bool // and all below it
}

func compareMasks(a, b mask) int {
	return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.id, b.id))
}

// maskSet are the masks of one mount, sorted.
type maskSet struct{ list []mask }

func (s *maskSet) add(k mask) {
	i, _ := slices.BinarySearchFunc(s.list, k, compareMasks)
	s.list = slices.Insert(s.list, i, k)
}

func (s *maskSet) drop(key string, id uint64) {
	k := mask{key: key, id: id}
	if i, ok := slices.BinarySearchFunc(s.list, k, compareMasks); ok {
		s.list = slices.Delete(s.list, i, i+1)
	}
}

// overlap returns the first intent but except that has a mask on key, a
// subtree mask above it, or, with subtree, a mask below it.
func (s *maskSet) overlap(key string, subtree bool, except uint64) uint64 {
	if s == nil || len(s.list) == 0 {
		return 0
	}
	for end := 0; ; {
		if id := s.at(key[:end], end == len(key), except); id != 0 {
			return id
		}
		if end == len(key) {
			break
		}
		next := strings.IndexByte(key[end+min(end, 1):], '/')
		if next < 0 {
			end = len(key)
		} else {
			end += min(end, 1) + next
		}
	}
	if !subtree {
		return 0
	}
	below := key
	if key != "" {
		below += "/"
	}
	i, _ := slices.BinarySearchFunc(s.list, mask{key: below}, compareMasks)
	for ; i < len(s.list) && strings.HasPrefix(s.list[i].key, below); i++ {
		if s.list[i].id != except {
			return s.list[i].id
		}
	}
	return 0
}

// at returns a mask on exactly this key; unless exact, subtree masks only.
func (s *maskSet) at(key string, exact bool, except uint64) uint64 {
	if s == nil {
		return 0
	}
	i, _ := slices.BinarySearchFunc(s.list, mask{key: key}, compareMasks)
	for ; i < len(s.list) && s.list[i].key == key; i++ {
		if k := s.list[i]; k.id != except && (exact || k.subtree) {
			return k.id
		}
	}
	return 0
}

// overlap returns an intent whose keys overlap a key of a mount; 0 if none.
func (m *Machine) overlap(l located, subtree bool, except uint64) uint64 {
	if l.mount == nil {
		return 0
	}
	return m.masks[l.id()].overlap(l.key, subtree, except)
}

// free refuses with Busy what overlaps an intent; the intent being committed
// does not stand in its own way.
func (m *Machine) free(c *call, l located, subtree bool, label string) *refusal {
	if c.decided != nil {
		return nil
	}
	if id := m.overlap(l, subtree, 0); id != 0 {
		return &refusal{kind: orca.Busy, path: label, busy: id, msg: "an earlier change is still on its way to the UFS"}
	}
	return nil
}

// sessionAt returns an open session that holds the name, or with subtree
// anything below the directory d; 0 if none.
func (m *Machine) sessionAt(n *node, name string, d *node) uint64 {
	if id := m.byName[nameKey{n.rec.Ino, name}]; id != 0 {
		return id
	}
	if d == nil || len(m.byName) == 0 {
		return 0
	}
	var least uint64
	for k, id := range m.byName {
		if under(m.dirs[k.dir], d) && (least == 0 || id < least) {
			least = id
		}
	}
	return least
}

// idle refuses with Busy what has an open session at or below it.
func (m *Machine) idle(n *node, name string, d *node, label string) *refusal {
	if m.sessionAt(n, name, d) != 0 {
		return refuse(orca.Busy, label, "a file is open for writing there")
	}
	return nil
}

// mountBelow reports whether a mount point lies at or below d.
func (m *Machine) mountBelow(d *node) bool {
	for _, mt := range m.mounts {
		if under(m.dirs[orca.Ino(mt.Root)], d) {
			return true
		}
	}
	return false
}
