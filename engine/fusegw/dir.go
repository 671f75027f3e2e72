// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"orca"
)

// listPage is how many entries one call of FS lists.
const listPage = 1000

// firstEntry is the offset of the first name, after "." and "..".
const firstEntry = 2

// dirHandle walks a directory a page at a time. An offset is the position of
// an entry in the listing; pages are anchored by the name before them, so that
// going back finds the same place whatever has come or gone meanwhile.
type dirHandle struct {
	ino orca.Ino

	mu      sync.Mutex
	anchors []string // anchors[p] is the name before page p
	starts  []uint64 // starts[p] is the offset of its first entry
	page    int      // the page loaded, -1: none
	entries []Entry
	more    bool
	since   uint64 // events seen when the listing began
	ttl     time.Duration
	whole   bool // read from the start without a change in between
}

// OpenDir opens a directory. The kernel keeps its listing as long as nothing
// changed and the directory may be believed.
func (g *gateway) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.count(OpOpendir)
	ino, st := g.ino(in.NodeId)
	if st.Ok() {
		st = g.lives(&in.InHeader, ino)
	}
	if !st.Ok() {
		return st
	}
	d := &dirHandle{ino: ino, page: -1}
	out.Fh = g.nextFh.Add(1)
	g.mu.Lock()
	g.dirFhs[out.Fh] = d
	g.mu.Unlock()
	out.OpenFlags = fuse.FOPEN_CACHE_DIR
	if g.dirs.valid(ino) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReleaseDir closes a directory.
func (g *gateway) ReleaseDir(in *fuse.ReleaseIn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.dirFhs, in.Fh)
}

// FsyncDir has nothing to do: a name is durable when its call returns.
func (g *gateway) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// ReadDir lists names.
func (g *gateway) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.readDir(in, out, func(e *Entry, off uint64) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: typeBits[e.Type], Off: off})
	})
}

// ReadDirPlus lists names with their attributes.
func (g *gateway) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return g.readDir(in, out, func(e *Entry, off uint64) bool {
		o := out.AddDirLookupEntry(fuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: typeBits[e.Type], Off: off})
		if o != nil && off > firstEntry {
			g.entry(e, o)
		}
		return o != nil
	})
}

func (g *gateway) readDir(in *fuse.ReadIn, out *fuse.DirEntryList, add func(*Entry, uint64) bool) fuse.Status {
	g.count(OpReaddir)
	g.mu.Lock()
	d := g.dirFhs[in.Fh]
	g.mu.Unlock()
	if d == nil {
		return fuse.EBADF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	off := in.Offset
	for ; off < firstEntry; off++ {
		name := ".."
		if off == 0 {
			d.rewind(g)
			name = "."
		}
		if !add(&Entry{Attr: orca.Attr{Ino: d.ino, Type: orca.TypeDir}, Name: name}, off+1) {
			return fuse.OK
		}
	}
	for {
		st := g.loadPage(d, &in.InHeader, off)
		if !st.Ok() {
			return st
		}
		i := off - d.starts[d.page]
		for ; i < uint64(len(d.entries)); i++ {
			e := &d.entries[i]
			if g.stale.changed(d.since, d.ino, e.Ino) {
				e.TTL = 0
			}
			if !add(e, off+1) {
				return fuse.OK
			}
			off++
		}
		if !d.more {
			if d.whole {
				g.dirs.fill(d.ino, d.since, g.ttl(d.ttl), &g.stale)
			}
			return fuse.OK
		}
	}
}

// rewind starts over: POSIX wants a fresh listing.
func (d *dirHandle) rewind(g *gateway) {
	d.anchors, d.starts = []string{""}, []uint64{firstEntry}
	d.page, d.entries, d.more, d.whole = -1, nil, false, true
	d.since, d.ttl = g.stale.now(), g.cfg.MaxTTL
}

// loadPage makes the page that holds offset off the current one.
func (g *gateway) loadPage(d *dirHandle, h *fuse.InHeader, off uint64) fuse.Status {
	if len(d.starts) == 0 {
		d.rewind(g)
		d.whole = false
	}
	for {
		p := len(d.starts) - 1
		for p > 0 && d.starts[p] > off {
			p--
		}
		if p == d.page && (!d.more || off < d.starts[p]+uint64(len(d.entries))) {
			return fuse.OK
		}
		if p == d.page {
			// What follows was anchored when this page had other entries.
			d.starts, d.anchors = d.starts[:p+1], d.anchors[:p+1]
			d.starts = append(d.starts, d.starts[p]+uint64(len(d.entries)))
			d.anchors = append(d.anchors, d.entries[len(d.entries)-1].Name)
			continue
		}
		if st := g.list(d, h, p); !st.Ok() {
			return st
		}
	}
}

func (g *gateway) list(d *dirHandle, h *fuse.InHeader, p int) fuse.Status {
	ctx, cancel := g.call()
	defer cancel()
	r, err := g.fs.List(ctx, g.caller(h), d.ino, d.anchors[p], listPage)
	if err != nil {
		return g.fail(err)
	}
	d.page, d.entries, d.more = p, r.Entries, r.More && len(r.Entries) > 0
	d.ttl = min(d.ttl, r.TTL)
	d.addPending(g, p)
	return fuse.OK
}

// addPending merges the new files that this mount is writing into a page.
func (d *dirHandle) addPending(g *gateway, p int) {
	var extra []Entry
	g.mu.Lock()
	for k, w := range g.pending {
		if k.dir == d.ino && k.name > d.anchors[p] {
			extra = append(extra, Entry{Attr: orca.Attr{Ino: w.ino, Type: orca.TypeFile}, Name: k.name})
		}
	}
	g.mu.Unlock()
	if len(extra) == 0 {
		return
	}
	last := ""
	if d.more {
		last = d.entries[len(d.entries)-1].Name
	}
	for _, e := range extra {
		if d.more && e.Name > last {
			continue
		}
		i, found := slices.BinarySearchFunc(d.entries, e.Name, func(a Entry, name string) int { return strings.Compare(a.Name, name) })
		if !found {
			d.entries = slices.Insert(d.entries, i, e)
		}
	}
}

// dirCache remembers which listings in the kernel are still good.
type dirCache struct {
	mu    sync.Mutex
	until map[orca.Ino]time.Time
}

// dirCacheMax bounds the directories remembered.
const dirCacheMax = 1 << 16

func (c *dirCache) valid(ino orca.Ino) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.until[ino]
	return ok && time.Now().Before(t)
}

// fill records a whole listing, unless something changed since it began.
func (c *dirCache) fill(ino orca.Ino, since uint64, ttl time.Duration, s *staleness) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ttl <= 0 || s.changed(since, ino, ino) {
		delete(c.until, ino)
		return
	}
	if c.until == nil || len(c.until) >= dirCacheMax {
		c.until = make(map[orca.Ino]time.Time)
	}
	c.until[ino] = time.Now().Add(ttl)
}

func (c *dirCache) drop(ino orca.Ino) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.until, ino)
}

func (c *dirCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.until)
}
