// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"container/list"
	"context"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// backing is a descriptor registered with the kernel. The kernel holds the
// file until the id is unregistered and its last handle closed, so the
// descriptor itself need not stay open.
type backing struct {
	id      int32
	ino     orca.Ino
	version uint32
	shared  bool // in byIno; else of one open private file
	refs    int
	idle    *list.Element // in backings.lru while refs is 0
	since   time.Time     // of being idle
}

// backings is the mount's table of backing ids. Ids of block files are kept
// for a while after the last close, so that opening a hot file registers
// nothing; those of private files are not.
type backings struct {
	g *gateway

	mu    sync.Mutex
	byIno map[orca.Ino]*backing // the newest version of each
	lru   *list.List            // idle ones, least recently used first
}

func (t *backings) init(g *gateway) {
	t.g, t.byIno, t.lru = g, map[orca.Ino]*backing{}, list.New()
}

// acquire returns the id kept for a version, or nil.
func (t *backings) acquire(ino orca.Ino, version uint32) *backing {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.byIno[ino]
	if b == nil || b.version != version {
		return nil
	}
	t.holdLocked(b)
	return b
}

func (t *backings) holdLocked(b *backing) {
	b.refs++
	if b.idle != nil {
		t.lru.Remove(b.idle)
		b.idle = nil
	}
}

// register makes an id for f. shared ids are found again by acquire.
func (t *backings) register(f *os.File, ino orca.Ino, version uint32, shared bool) (*backing, bool) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, false
	}
	b := &backing{ino: ino, version: version, shared: shared, refs: 1}
	ok := false
	if err := rc.Control(func(fd uintptr) {
		id, errno := t.g.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
		b.id, ok = id, errno == 0
	}); err != nil || !ok {
		return nil, false
	}
	t.g.m.Registers.Add(1)
	if shared {
		t.mu.Lock()
		old := t.byIno[ino]
		t.byIno[ino] = b
		free := old != nil && old.refs == 0
		if free {
			t.lru.Remove(old.idle)
		} else if old != nil {
			old.shared = false // unregistered by its last release
		}
		t.mu.Unlock()
		if free {
			t.unregister(old)
		}
	}
	return b, true
}

// release gives back one use.
func (t *backings) release(b *backing) {
	var gone *backing
	t.mu.Lock()
	b.refs--
	switch {
	case b.refs > 0:
	case !b.shared:
		gone = b
	default:
		b.since = time.Now()
		b.idle = t.lru.PushBack(b)
		if t.lru.Len() > t.g.cfg.Backings {
			gone = t.popLocked()
		}
	}
	t.mu.Unlock()
	if gone != nil {
		t.unregister(gone)
	}
}

func (t *backings) popLocked() *backing {
	b := t.lru.Remove(t.lru.Front()).(*backing)
	b.idle = nil
	delete(t.byIno, b.ino)
	return b
}

// forget drops the idle id of an inode whose content changed.
func (t *backings) forget(ino orca.Ino) {
	t.mu.Lock()
	b := t.byIno[ino]
	if b == nil || b.refs > 0 {
		t.mu.Unlock()
		return
	}
	t.lru.Remove(b.idle)
	delete(t.byIno, ino)
	t.mu.Unlock()
	t.unregister(b)
}

// sweep drops ids idle since before t0; the zero time: all.
func (t *backings) sweep(t0 time.Time) {
	for {
		t.mu.Lock()
		e := t.lru.Front()
		if e == nil || !t0.IsZero() && e.Value.(*backing).since.After(t0) {
			t.mu.Unlock()
			return
		}
		b := t.popLocked()
		t.mu.Unlock()
		t.unregister(b)
	}
}

func (t *backings) unregister(b *backing) { _ = t.g.srv.UnregisterBackingFd(b.id) }

// backingFor returns an id for an open File, or why there is none.
func (g *gateway) backingFor(ctx context.Context, f File) (*backing, Fallback) {
	if !g.m.PassEnabled.Load() {
		return nil, FallbackDisabled
	}
	a := f.Attr()
	if b := g.backings.acquire(a.Ino, a.Version); b != nil {
		return b, 0
	}
	local := f.Backing(ctx)
	if local == nil {
		return nil, FallbackPartial
	}
	// The kernel does not enforce the size of the FUSE inode on such reads.
	if st, err := local.Stat(); err != nil || st.Size() != a.Length {
		return nil, FallbackSize
	}
	b, ok := g.backings.register(local, a.Ino, a.Version, true)
	if !ok {
		return nil, FallbackRegister
	}
	return b, 0
}
