// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"os"
	"path/filepath"
	"runtime/debug"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/dir"
)

const (
	// loadBatch is how many records go from one stage of a load to the next.
	loadBatch = 2048
	// slabBlocks and slabSums are how many are allocated at a time. A slab is
	// garbage when the last block in it is.
	slabBlocks, slabSums = 64, 4096
	// manyBlocks is from how many on the collector is held back while loading.
	manyBlocks = 100_000
)

// loader takes the blocks of one directory out of its index. With millions of
// them that is a matter of cache misses, one per map, so the maps are filled
// by goroutines of their own:
//
//	index ─► read, check, decode ─► found (by id) ─► files (by file)
//
// A block belongs to the second stage, its links fnext and fprev to the third.
type loader struct {
	found map[orca.BlockID]*block
	order []*block            // as they came; gone: removed since
	files map[orca.Ino]*block // heads; nil: not wanted
	slab  []block             // of the second stage
	sums  []uint32            // of the first stage
	next  chan []entry        // from the first to the second
	empty chan []entry        // and back
	links chan []link         // from the second to the third
}

// entry is a record on its way to the second stage; it owns its sums.
type entry struct {
	blockfile.Record
}

// link says that a block has come or, drop, gone.
type link struct {
	b    *block
	drop bool
}

// holdGC keeps the collector from running while an index of n blocks is
// loaded, until the function that it returns is called. Nearly all that is
// allocated meanwhile stays: it would be marked again and again for nothing, at
// a third of the whole cost. A memory limit of the process still counts.
func holdGC(n int64) (end func()) {
	if n < manyBlocks {
		return func() {}
	}
	old := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(old) }
}

// load opens a directory and replays its index; files also fills l.files.
func load(c dir.Config, files bool, open func(fn func(*blockfile.Record)) (*dir.Dir, error)) (*loader, *dir.Dir, error) {
	n := expected(c.Path)
	l := &loader{
		found: make(map[orca.BlockID]*block, n), order: make([]*block, 0, n),
		next: make(chan []entry, 4), empty: make(chan []entry, 8), links: make(chan []link, 4),
	}
	if files {
		l.files = make(map[orca.Ino]*block, n)
	}
	replayed, linked := make(chan struct{}), make(chan struct{})
	go func() { defer close(replayed); l.replayAll() }()
	go func() { defer close(linked); l.linkAll() }()
	batch := l.batch()
	d, err := open(func(r *blockfile.Record) {
		batch = append(batch, entry{*r})
		e := &batch[len(batch)-1]
		e.Sums = append(l.takeSums(len(r.Sums))[:0], r.Sums...)
		if len(batch) == loadBatch {
			l.next <- batch
			batch = l.batch()
		}
	})
	l.next <- batch
	close(l.next)
	<-replayed
	<-linked
	return l, d, err
}

// expected estimates the number of blocks in an index from its length.
func expected(path string) int64 {
	st, err := os.Stat(filepath.Join(path, blockfile.IndexName))
	if err != nil {
		return 0
	}
	return min(st.Size()/blockfile.StateLen(2), 1<<25)
}

func (l *loader) batch() []entry {
	select {
	case b := <-l.empty:
		return b[:0]
	default:
		return make([]entry, 0, loadBatch)
	}
}

// takeSums returns room for the sums of a record.
func (l *loader) takeSums(n int) []uint32 {
	if n == 0 || n > slabSums/16 {
		return make([]uint32, n)
	}
	if len(l.sums) < n {
		l.sums = make([]uint32, slabSums)
	}
	s := l.sums[:n:n]
	l.sums = l.sums[n:]
	return s
}

func (l *loader) takeBlock() *block {
	if len(l.slab) == 0 {
		l.slab = make([]block, slabBlocks)
	}
	b := &l.slab[0]
	l.slab = l.slab[1:]
	return b
}

// replayAll is the second stage.
func (l *loader) replayAll() {
	defer close(l.links)
	for batch := range l.next {
		links := make([]link, 0, len(batch))
		for i := range batch {
			if k := l.replay(&batch[i].Record); k.b != nil {
				links = append(links, k)
			}
			batch[i].Sums = nil
		}
		l.links <- links
		select {
		case l.empty <- batch:
		default:
		}
	}
}

// replay applies one record, whose sums it may keep, and returns the block
// that it made or ended.
func (l *loader) replay(r *blockfile.Record) link {
	b := l.found[r.ID]
	if r.Kind == blockfile.KindRemove {
		if b == nil {
			return link{}
		}
		b.gone = true
		delete(l.found, r.ID)
		return link{b: b, drop: true}
	}
	var made link
	if b == nil {
		if len(r.Sums) == 0 {
			return link{} // flags of a block whose grains were lost with damage
		}
		n := blockfile.Grains(r.Length)
		b = l.takeBlock()
		b.ID, b.length = r.ID, r.Length
		if len(r.Sums) < n {
			b.have = blockfile.NewGrainSet(n)
			b.sums = make([]uint32, n)
		} else {
			b.sums = r.Sums
		}
		l.found[r.ID] = b
		l.order = append(l.order, b)
		made.b = b
	}
	if b.length != r.Length {
		return made
	}
	b.dirty = r.Flags&blockfile.FlagDirty != 0
	b.pinned = r.Flags&blockfile.FlagPinned != 0
	copy(b.sums[r.First:], r.Sums)
	if b.have != nil {
		b.have.AddRange(int(r.First), int(r.First)+len(r.Sums))
	}
	return made
}

// linkAll is the third stage.
func (l *loader) linkAll() {
	for links := range l.links {
		for _, k := range links {
			switch {
			case l.files == nil:
			case k.drop:
				unlink(l.files, k.b)
			default:
				linkTo(l.files, k.b)
			}
		}
	}
}

// drop forgets a block that cannot be recovered, after the load.
func (l *loader) drop(b *block) {
	delete(l.found, b.ID)
	if l.files != nil {
		unlink(l.files, b)
	}
}

// linkTo puts a block at the head of its file's list.
func linkTo(files map[orca.Ino]*block, b *block) {
	if head := files[b.ID.File]; head != nil {
		b.fnext, head.fprev = head, b
	}
	files[b.ID.File] = b
}

// unlink takes a block out of its file's list.
func unlink(files map[orca.Ino]*block, b *block) {
	switch {
	case b.fprev != nil:
		b.fprev.fnext = b.fnext
	case b.fnext != nil:
		files[b.ID.File] = b.fnext
	default:
		delete(files, b.ID.File)
	}
	if b.fnext != nil {
		b.fnext.fprev = b.fprev
	}
	b.fnext, b.fprev = nil, nil
}
