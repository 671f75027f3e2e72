// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"

	"orca/jobs/jobpb"
)

// Replica is a file with bounds of its copies, and where they are.
type Replica struct {
	File
	Min int
	Max int // -1: no bound
	// Unpersisted content is in no store: its copies are all there is of it,
	// and none of them is dropped.
	Unpersisted bool
	Holders     []Holder // live ones
	Avoid       []uint64 // workers that have just failed to take a copy
}

// Holder is a worker that has some of a file. Of an unpersisted one only copies
// that last count: others may be evicted at any moment.
type Holder struct {
	Worker   uint64
	All      bool     // every block
	Complete []uint32 // else these
}

// has reports whether the holder has a block.
func (h *Holder) has(block uint32) bool { return h.All || slices.Contains(h.Complete, block) }

// Worker is one that may be given a copy.
type Worker struct {
	ID       uint64
	Node     string
	Free     int64 // bytes that it takes without evicting anything
	Capacity int64
}

// Copy is some blocks that a worker is to have.
type Copy struct {
	Worker uint64
	Item   *jobpb.Item
}

// Verdict is what is to be done about the copies of one file.
type Verdict struct {
	Missing int // copies of blocks
	Surplus int // workers with some of it, beyond the most
	Copies  []Copy
	Drops   []Copy
	// Keep are the workers whose copies are not to be evicted.
	Keep []uint64
}

// Judge compares the copies of a file with what they are to be. Which workers
// keep theirs does not change as long as they have them. A new copy goes to a
// worker that has a part of the file already (a damaged copy is made whole where
// it is), else to one on a node without a copy, else to the one with the most
// room. Nothing can be made of a block that is nowhere and in no store.
func Judge(r Replica, workers []Worker) (v Verdict) {
	holders := slices.Clone(r.Holders)
	slices.SortFunc(holders, func(a, b Holder) int {
		return cmp.Or(first(a.All, b.All), cmp.Compare(a.Worker, b.Worker))
	})
	whole := 0
	for whole < len(holders) && holders[whole].All {
		whole++
	}
	for i := range holders {
		if i < r.Min || i >= whole && whole < r.Min {
			v.Keep = append(v.Keep, holders[i].Worker)
		}
	}
	v.copies(&r, holders, workers)
	if r.Max < 0 || r.Unpersisted || whole < r.Max {
		return v
	}
	for _, h := range holders[r.Max:] {
		v.Surplus++
		v.Drops = append(v.Drops, Copy{h.Worker, &jobpb.Item{
			File: uint64(r.Ino), Version: r.Version, Path: r.Path, Bytes: r.Length, Others: uint32(r.Max)}})
	}
	return v
}

// first orders true before false.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// copies finds what is missing, and who is to have it.
func (v *Verdict) copies(r *Replica, holders []Holder, workers []Worker) {
	blocks, size := uint32(1), r.Length
	if r.BlockSize > 0 && r.Length > r.BlockSize {
		size = r.BlockSize
		blocks = uint32((r.Length + size - 1) / size)
	}
	if r.Length == 0 || r.Min == 0 {
		return
	}
	var order []Worker
	for b := range blocks {
		have := 0
		for i := range holders {
			if holders[i].has(b) {
				have++
			}
		}
		missing := r.Min - have
		if missing <= 0 {
			continue
		}
		v.Missing += missing
		if have == 0 && r.Unpersisted {
			continue
		}
		if order == nil {
			order = candidates(r, holders, workers, size)
		}
		for _, w := range order {
			i := slices.IndexFunc(holders, func(h Holder) bool { return h.Worker == w.ID })
			if missing == 0 || i >= 0 && holders[i].has(b) {
				continue
			}
			missing--
			v.add(r, w.ID, b, min(size, r.Length-int64(b)*size), blocks)
		}
	}
}

// add gives a block to a worker, in one item with the block before it.
func (v *Verdict) add(r *Replica, worker uint64, block uint32, n int64, blocks uint32) {
	for i := len(v.Copies) - 1; i >= 0; i-- {
		if it := v.Copies[i].Item; v.Copies[i].Worker == worker && it.FirstBlock+it.Blocks == block {
			it.Blocks++
			it.Bytes += n
			if it.Blocks == blocks {
				it.Blocks = 0 // all
			}
			return
		}
	}
	it := &jobpb.Item{File: uint64(r.Ino), Version: r.Version, Path: r.Path, FirstBlock: block, Blocks: 1, Bytes: n, Unpersisted: r.Unpersisted}
	if blocks == 1 {
		it.Blocks = 0
	}
	v.Copies = append(v.Copies, Copy{worker, it})
}

// candidates orders the workers that can keep a block of the file, best first.
func candidates(r *Replica, holders []Holder, workers []Worker, size int64) []Worker {
	nodes := map[string]bool{}
	part := map[uint64]bool{}
	for _, h := range holders {
		if !h.All {
			part[h.Worker] = true
			continue
		}
		for _, w := range workers {
			if w.ID == h.Worker {
				nodes[w.Node] = true
			}
		}
	}
	out := slices.DeleteFunc(slices.Clone(workers), func(w Worker) bool { return w.Capacity < 2*size })
	slices.SortFunc(out, func(a, b Worker) int {
		return cmp.Or(
			first(!slices.Contains(r.Avoid, a.ID), !slices.Contains(r.Avoid, b.ID)),
			first(part[a.ID], part[b.ID]),
			first(!nodes[a.Node], !nodes[b.Node]),
			cmp.Compare(b.Free, a.Free), cmp.Compare(a.ID, b.ID))
	})
	// Of several new copies each goes to a node of its own, as far as there
	// are so many.
	var rest []Worker
	spread := out[:0:0]
	for _, w := range out {
		if nodes[w.Node] && !part[w.ID] {
			rest = append(rest, w)
			continue
		}
		nodes[w.Node] = true
		spread = append(spread, w)
	}
	return append(spread, rest...)
}

// ByWorker groups copies into tasks of their workers, within the limits.
func ByWorker(copies []Copy, l Limits) []*jobpb.Task {
	l = l.filled()
	open := map[uint64]*jobpb.Task{}
	bytes := map[uint64]int64{}
	var out []*jobpb.Task
	for _, c := range copies {
		t := open[c.Worker]
		if t == nil || len(t.Items) >= l.Files || bytes[c.Worker]+c.Item.Bytes > l.Bytes {
			t = &jobpb.Task{Worker: c.Worker}
			open[c.Worker], bytes[c.Worker] = t, 0
			out = append(out, t)
		}
		t.Items = append(t.Items, c.Item)
		bytes[c.Worker] += c.Item.Bytes
	}
	return out
}
