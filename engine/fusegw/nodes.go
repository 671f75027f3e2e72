// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// aliasGroup is the birth group that no inode has: node ids in it are aliases.
const aliasGroup = 0xffff

// node is one incarnation of an inode that the kernel knows or has open.
type node struct {
	id  uint64
	ino orca.Ino
	// fresh is until when an alias is new; it does not change.
	fresh time.Time

	// Guarded by gateway.mu.
	lookups uint64 // references the kernel holds
	users   int    // handlers at work on it

	opens atomic.Int32 // open handles; changed under mu

	// live is what is being written, set and cleared with open.w; READ looks
	// at it first.
	live atomic.Pointer[writing]
	// kept is a copy of what the handles read, made when its name went; set
	// under mu, closed with the last handle.
	kept atomic.Pointer[os.File]
	// told is the version of the attributes last given to the kernel.
	told atomic.Uint32

	mu     sync.Mutex
	nudged uint32 // the version for which an open was sent back
	// pages is the version whose pages the kernel may still hold, 0: none.
	pages uint32
	open  *openState // nil when no handle is open
}

func isAlias(id uint64) bool { return id>>48 == aliasGroup }

// nodeID is the node id of the first incarnation of an inode: its number, but
// that the kernel calls the root of a mount 1. When a directory further down
// is the root, the two change places.
func (g *gateway) nodeID(ino orca.Ino) uint64 {
	switch ino {
	case g.cfg.Root:
		return fuse.FUSE_ROOT_ID
	case orca.RootIno:
		return uint64(g.cfg.Root)
	}
	return uint64(ino)
}

// inode undoes nodeID, and knows what has another number by now.
func (g *gateway) inode(id uint64) orca.Ino {
	if ino, ok := g.renumbered.ino(id); ok {
		return ino
	}
	switch id {
	case fuse.FUSE_ROOT_ID:
		return g.cfg.Root
	case uint64(g.cfg.Root):
		return orca.RootIno
	}
	return orca.Ino(id)
}

// ino returns the inode of a node id.
func (g *gateway) ino(id uint64) (orca.Ino, fuse.Status) {
	if !isAlias(id) {
		return g.inode(id), fuse.OK
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.nodes[id]; n != nil {
		return n.ino, fuse.OK
	}
	return 0, fuse.Status(syscall.ESTALE)
}

// grant counts a reference that the kernel is about to get and returns the
// node id of the current incarnation.
func (g *gateway) grant(ino orca.Ino, version uint32) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.aliases[ino]
	if !ok {
		id = g.nodeID(ino)
	}
	n := g.nodes[id]
	if n == nil {
		if len(g.nodes) >= g.cfg.KnownNodes && !ok {
			g.untrack++
			return id
		}
		n = &node{id: id, ino: ino}
		g.nodes[id] = n
	}
	n.lookups++
	n.told.Store(version)
	return id
}

// tell records the version of the attributes that the kernel is getting.
func (g *gateway) tell(ino orca.Ino, version uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.aliases[ino]
	if !ok {
		id = g.nodeID(ino)
	}
	if n := g.nodes[id]; n != nil {
		n.told.Store(version)
	}
}

// Forget takes back references.
func (g *gateway) Forget(id, count uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[id]
	if n == nil {
		g.untrack -= min(g.untrack, count)
		return
	}
	if count > n.lookups {
		g.untrack -= min(g.untrack, count-n.lookups)
		count = n.lookups
	}
	n.lookups -= count
	g.reapLocked(n)
}

// hold returns the node for the time of a request; drop must follow.
func (g *gateway) hold(id uint64) (*node, fuse.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[id]
	if n == nil {
		if isAlias(id) {
			return nil, fuse.Status(syscall.ESTALE)
		}
		n = &node{id: id, ino: g.inode(id)}
		g.nodes[id] = n
	}
	n.users++
	return n, fuse.OK
}

func (g *gateway) drop(n *node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n.users--
	g.reapLocked(n)
}

func (g *gateway) reapLocked(n *node) {
	if n.lookups > 0 || n.users > 0 || n.opens.Load() > 0 {
		return
	}
	if time.Now().Before(n.fresh) {
		return // forgotten between two lookups of one open(2); see sweepNodes
	}
	delete(g.nodes, n.id)
	g.renumbered.forgotten(n.id)
	if g.aliases[n.ino] == n.id {
		delete(g.aliases, n.ino)
	}
}

// sweepNodes drops the aliases that were kept for being fresh.
func (g *gateway) sweepNodes() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range g.aliases {
		if n := g.nodes[id]; n != nil {
			g.reapLocked(n)
		}
	}
}

// current reports whether n is what a lookup would answer now.
func (g *gateway) current(n *node) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.aliases[n.ino]
	return id == n.id || !ok && n.id == g.nodeID(n.ino)
}

// freshFor is how long a new incarnation is kept from passthrough, so that the
// writer it was made for finds no reader in its way.
const freshFor = time.Second

// reincarnate makes the next lookup answer a fresh node id, and returns the
// status that makes the kernel look up again.
func (g *gateway) reincarnate(n *node) fuse.Status {
	g.m.Incarnations.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.aliases[n.ino]
	if id == n.id || !ok && n.id == g.nodeID(n.ino) {
		g.nextID++
		a := &node{id: aliasGroup<<48 | g.nextID, ino: n.ino, fresh: time.Now().Add(freshFor)}
		g.aliases[n.ino], g.nodes[a.id] = a.id, a
	}
	return fuse.Status(syscall.ESTALE)
}

// incarnations returns the node ids under which the kernel may know an inode,
// and whether a handle is open on one of them. Nothing when it knows none.
func (g *gateway) incarnations(ino orca.Ino) (ids []uint64, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := g.nodeID(ino)
	n := g.nodes[id]
	if n != nil || g.untrack > 0 || id == fuse.FUSE_ROOT_ID {
		ids = append(ids, id)
		open = n != nil && n.opens.Load() > 0
	}
	if id, ok := g.aliases[ino]; ok {
		ids = append(ids, id)
		if n := g.nodes[id]; n != nil {
			open = open || n.opens.Load() > 0
		}
	}
	return append(ids, g.renumbered.ids(ino)...), open
}

// openNodes returns the incarnations of an inode that have handles, each held
// once for every handle.
func (g *gateway) openNodes(ino orca.Ino) (open []*node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.handles {
		if h.n.ino == ino {
			h.n.users++
			open = append(open, h.n)
		}
	}
	return open
}

// writingOf returns what is being written of an inode on this mount, or nil.
func (g *gateway) writingOf(ino orca.Ino) *writing {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.writes[ino]
	if w == nil || w.file() == nil {
		return nil
	}
	return w
}

// pendingAt returns the unpublished new file of that name, or nil.
func (g *gateway) pendingAt(dir orca.Ino, name string) *writing {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending[entryKey{dir, name}]
}
