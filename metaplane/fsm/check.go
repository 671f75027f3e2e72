// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"maps"

	"orca"
	"orca/metaplane/inode"
)

// Check compares memory and store with all that must hold of them whatever
// happened, and returns the first thing that does not: the tree is connected
// and without a cycle; names and directories, and names and files, are one to
// one; counts and sums are those of what they count; masks are those of the open
// intents. It reads the whole store, under the readers' lock.
func (m *Machine) Check() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.failed(); err != nil {
		return err
	}
	c := &checker{m: m, unpersisted: map[uint32]int64{}, linked: map[orca.Ino]int64{}, below: map[*node]int64{}}
	for _, n := range m.dirs {
		c.dir(n)
	}
	c.equal("directories counted", m.count.dirs, int64(len(m.dirs)))
	c.equal("files counted", m.count.files, c.files)
	for id, mt := range m.mounts {
		c.equal(fmt.Sprintf("unpersisted files of mount %d", id), mt.Unpersisted, c.unpersisted[id])
	}
	c.links()
	c.space(inode.SpaceDirent, c.names+c.subdirs)
	c.space(inode.SpaceInode, c.files)
	c.space(inode.SpaceReplicas, c.replicated)
	c.space(inode.SpaceSession, int64(len(m.sessions)))
	c.space(inode.SpaceIntent, int64(len(m.intents)))
	c.space(inode.SpaceTrash, int64(len(m.trash)))
	c.space(inode.SpaceQuota, int64(len(m.quotas)))
	c.masks()
	c.holds()
	c.quotas()
	c.bins()
	c.transfers()
	c.moves()
	c.staging()
	if c.err == nil {
		c.err = m.failed()
	}
	return c.err
}

// checker is one Check.
type checker struct {
	m              *Machine
	files, subdirs int64
	replicated     int64
	names          int64              // of files
	unpersisted    map[uint32]int64   // by mount
	linked         map[orca.Ino]int64 // names found of files with several
	below          map[*node]int64    // of these names, at and below a directory
	err            error              // the first
}

func (c *checker) wrong(format string, args ...any) {
	if c.err == nil {
		c.err = orca.E("fsm.Check", orca.Corrupt, fmt.Sprintf(format, args...))
	}
}

func (c *checker) equal(what string, have, want int64) {
	if have != want {
		c.wrong("%s: %d, must be %d", what, have, want)
	}
}

// dir checks one directory: its way up, its record, its entries.
func (c *checker) dir(n *node) {
	m, ino := c.m, n.rec.Ino
	top := n
	for steps := 0; top.parent != nil; top = top.parent {
		if steps++; steps > len(m.dirs) {
			c.wrong("directory %v is below itself", ino)
			return
		}
		if m.dirs[top.rec.Ino] != top || top.parent.sub.get(top.rec.Name) != top || top.rec.Parent != top.parent.rec.Ino {
			c.wrong("directory %v is not in the directory that it says it is in", top.rec.Ino)
		}
	}
	if top != m.root && m.trash[top.rec.Ino] == nil {
		c.wrong("directory %v is neither in the tree nor in the trash", ino)
	}
	var entries, subdirs, files, bytes int64
	m.eachDirent(n, "", "", func(name string, v []byte) bool {
		entries++
		if d := m.decoded(v); d.dir != nil {
			subdirs++
			if d.dir.parent != n || n.sub.get(name) != d.dir || d.dir.rec.Name != name {
				c.wrong("name %q of directory %v leads to a directory that is elsewhere", name, ino)
			}
		} else if d.file != nil {
			if !m.alias(n, name, d.file) {
				files++
				bytes += d.file.Length
			}
			c.file(n, name, d.file)
		}
		return true
	})
	c.subdirs += subdirs
	c.equal(fmt.Sprintf("entries of %v", ino), n.rec.Entries, entries)
	c.equal(fmt.Sprintf("subdirectories of %v", ino), n.rec.Subdirs, subdirs)
	c.equal(fmt.Sprintf("subdirectories in memory of %v", ino), int64(n.sub.len()), subdirs)
	c.equal(fmt.Sprintf("bytes in %v", ino), n.rec.Bytes, bytes)
	below := sums{Usage: Usage{Bytes: bytes, Files: files}}
	for d := range n.sub.all() {
		below.add(m.whole(d))
	}
	if n.below != below {
		c.wrong("below directory %v: %+v, must be %+v", ino, n.below, below)
	}
	if n.names != nil && int64(n.names.len()) != entries {
		c.wrong("directory %v remembers %d names of %d", ino, n.names.len(), entries)
	}
	v := m.get(inode.AppendKey8(nil, inode.SpaceDir, uint64(ino)))
	if v == nil && n == m.root {
		return // nothing has happened yet
	}
	if rec, err := inode.DecodeDir(v); err != nil || rec != n.rec {
		c.wrong("directory %v differs between memory and store (%v)", ino, err)
	}
}

// file checks one file: place, cache, persistence.
func (c *checker) file(n *node, name string, f *inode.File) {
	m := c.m
	c.names++
	if f.Flags.Has(inode.Linked) {
		c.linked[f.Ino]++
		for at := n; at != nil; at = at.parent {
			c.below[at]++
		}
		if m.get(inode.AppendName(nil, f.Ino, n.rec.Ino, name)) == nil {
			c.wrong("name %q of %v is none that file %v knows", name, n.rec.Ino, f.Ino)
		}
		if m.alias(n, name, f) {
			return
		}
	}
	c.files++
	k := inode.AppendKey8(nil, inode.SpaceInode, uint64(f.Ino))
	dir, at, err := inode.DecodePlace(m.get(k))
	if err != nil || dir != n.rec.Ino || at != name {
		c.wrong("file %v is at %v/%q, but its place says %v/%q (%v)", f.Ino, n.rec.Ino, name, dir, at, err)
	}
	in, placed, g := m.byIno(f.Ino)
	if g == nil || in != n || placed != name || string(inode.AppendFile(nil, g)) != string(inode.AppendFile(nil, f)) {
		c.wrong("file %v differs between cache and store", f.Ino)
	}
	if f.Flags.Has(inode.Replicated) {
		c.replicated++
		if m.copies(f).Any() {
			c.wrong("file %v says that it has bounds of its copies, and has none", f.Ino)
		}
	}
	if mt := m.mountOrTrash(n); mt != nil && f.Persist == orca.ToBePersisted {
		c.unpersisted[mt.Mount.Id]++
	}
}

// links checks that every name of a file with several was found, and that it
// has several.
func (c *checker) links() {
	var names int64
	for ino, n := range c.linked {
		names += n
		f := c.m.linked(ino)
		if f == nil {
			return
		}
		c.equal(fmt.Sprintf("names of file %v", ino), int64(f.Links), n)
		if n < 2 {
			c.wrong("file %v has one name, and its record elsewhere", ino)
		}
	}
	for _, n := range c.m.dirs {
		c.equal(fmt.Sprintf("names of files with several below %v", n.rec.Ino), n.linked, c.below[n])
	}
	c.space(inode.SpaceName, names)
	c.space(inode.SpaceLinked, int64(len(c.linked)))
}

func (c *checker) space(space byte, want int64) {
	var have int64
	m := c.m
	m.eachKey([]byte{space}, []byte{space + 1}, func(_, _ []byte) bool { have++; return true })
	c.equal(fmt.Sprintf("keys of space %c", space), have, want)
}

// masks checks that every key of an intent is masked, and nothing else.
func (c *checker) masks() {
	have, want := 0, 0
	for _, s := range c.m.masks {
		have += len(s.list)
	}
	for id, it := range c.m.intents {
		for _, k := range keysOf(it) {
			want++
			found := false
			for _, h := range c.m.masks[it.MountId].list {
				found = found || h == k
			}
			if !found {
				c.wrong("key %q of intent %d is not masked", k.key, id)
			}
		}
		if it.Client != 0 && !it.Deferred && c.m.byCall[callKey{it.Client, it.Seq}] != id {
			c.wrong("undecided intent %d is not found by its request", id)
		}
	}
	c.equal("masks", int64(have), int64(want))
}

// holds checks that names and files are held by sessions that exist.
func (c *checker) holds() {
	for k, id := range c.m.byName {
		if s := c.m.sessions[id]; s == nil || s.State == stateStolen || orca.Ino(s.Dir) != k.dir || s.Name != k.name {
			c.wrong("name %q of %v is held by session %d, which does not", k.name, k.dir, id)
		}
	}
	for ino, id := range c.m.byFile {
		if s := c.m.sessions[id]; s == nil || orca.Ino(s.File) != ino {
			c.wrong("file %v is held by session %d, which does not", ino, id)
		}
	}
}

// quotas checks that quotas are on record, and hold free what is under way.
func (c *checker) quotas() {
	m := c.m
	want := map[*node]room{}
	add := func(n, above *node, r room) {
		for ; n != nil && n != above; n = n.parent {
			if n.quota != nil {
				h := want[n]
				want[n] = room{h.bytes + r.bytes, h.inodes + r.inodes}
			}
		}
	}
	for _, s := range m.sessions {
		r := room{bytes: s.HoldBytes}
		if s.Fresh {
			r.inodes = 1
		}
		if s.State == stateOpen {
			add(m.dirs[orca.Ino(s.Dir)], nil, r)
		}
	}
	for _, it := range m.intents {
		if it.HoldDir != 0 {
			add(m.dirs[orca.Ino(it.HoldDir)], m.dirs[orca.Ino(it.HoldBelow)], room{it.HoldBytes, it.HoldInodes})
		}
		if it.BackDir != 0 {
			add(m.dirs[orca.Ino(it.BackDir)], m.dirs[orca.Ino(it.BackBelow)], room{it.BackBytes, it.BackInodes})
		}
	}
	for dir, r := range m.charged {
		m.eachCharged(dir, func(n *node) {
			if n.quota != nil {
				h := want[n]
				want[n] = room{h.bytes + r.bytes, h.inodes + r.inodes}
			}
		})
	}
	for ino, n := range m.quotas {
		if n.quota == nil || m.dirs[ino] != n {
			c.wrong("directory %v is said to have a quota", ino)
			continue
		}
		if n.quota.held != want[n] {
			c.wrong("the quota of %v holds %+v, must hold %+v", ino, n.quota.held, want[n])
		}
		limit, err := inode.DecodeQuota(m.get(inode.AppendKey8(nil, inode.SpaceQuota, uint64(ino))))
		if err != nil || limit != n.quota.limit {
			c.wrong("the quota of %v differs between memory and store (%v)", ino, err)
		}
	}
}

// bins checks that bins hold what is on record, and nothing else.
func (c *checker) bins() {
	m := c.m
	c.space(inode.SpaceBin, int64(len(m.deleted)))
	charged := map[orca.Ino]room{}
	var entries int64
	for id, b := range m.bins {
		mt := m.mounts[id]
		if mt == nil || b.dir.parent != m.dirs[orca.Ino(mt.Root)] || b.dir.rec.Name != BinName {
			c.wrong("the trash of mount %d is elsewhere", id)
		}
		c.equal(fmt.Sprintf("entries in the trash of mount %d", id), b.dir.rec.Entries, int64(len(b.entries)))
		for i, e := range b.entries {
			entries++
			if i > 0 && compareTrashed(b.entries[i-1], e) >= 0 || m.deleted[orca.Ino(e.Ino)] != e {
				c.wrong("%x is in the trash, but not in order", e.Ino)
			}
			if d := m.lookup(b.dir, e.Name); uint64(d.ino()) != e.Ino {
				c.wrong("%x is not where the trash has it", e.Ino)
			}
			if e.Charged != 0 {
				r := charged[orca.Ino(e.Charged)]
				charged[orca.Ino(e.Charged)] = room{r.bytes + e.Bytes, r.inodes + e.Inodes}
			}
		}
	}
	c.equal("entries in the trash", int64(len(m.deleted)), entries)
	if m.unheld || !maps.Equal(charged, m.charged) {
		c.wrong("charged for trash is %v, must be %v", m.charged, charged)
	}
}
