// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
)

// state is what a log says of one block, kept the plain way.
type state struct {
	length int64
	flags  blockfile.Flags
	sums   map[int]uint32
}

// replayed applies a log to a map.
func replayed(log []blockfile.Record) map[orca.BlockID]*state {
	m := map[orca.BlockID]*state{}
	for _, r := range log {
		b := m[r.ID]
		switch {
		case r.Kind == blockfile.KindRemove:
			delete(m, r.ID)
			continue
		case b == nil && len(r.Sums) == 0:
			continue
		case b == nil:
			b = &state{length: r.Length, sums: map[int]uint32{}}
			m[r.ID] = b
		case b.length != r.Length:
			continue
		}
		b.flags = r.Flags
		for i, sum := range r.Sums {
			b.sums[int(r.First)+i] = sum
		}
	}
	return m
}

// randomLog makes a log of blocks of few files that come, grow, change their
// flags, go and come again, in any order.
func randomLog(r *rand.Rand, n int, files uint64) (log []blockfile.Record) {
	for range n {
		id := orca.BlockID{File: orca.Ino(r.Uint64N(files) | r.Uint64N(2)<<48), Version: 1 + r.Uint32N(2), Index: r.Uint32N(3)}
		grains := int(id.File%5) + 1
		rec := blockfile.Record{Kind: blockfile.KindState, ID: id, Length: int64(grains)*orca.GrainSize - int64(id.File%7)}
		switch r.IntN(10) {
		case 0:
			rec.Kind = blockfile.KindRemove
		case 1, 2:
			rec.Flags = blockfile.Flags(r.Uint32N(8))
		default:
			first := r.IntN(grains)
			end := first + 1 + r.IntN(grains-first)
			if r.IntN(2) == 0 {
				first, end = 0, grains
			}
			rec.First, rec.Flags = uint32(first), blockfile.Flags(r.Uint32N(2)*r.Uint32N(8))
			for g := first; g < end; g++ { // a sum never changes
				rec.Sums = append(rec.Sums, uint32(id.File)<<8^id.Version<<4^id.Index<<2^uint32(g))
			}
		}
		log = append(log, rec)
	}
	return log
}

// TestLoadSaysWhatTheLogSays compares what a load makes of logs of all shapes
// with what applying them record by record to a map does.
func TestLoadSaysWhatTheLogSays(t *testing.T) {
	for seed := range uint64(36) {
		r := rand.New(rand.NewPCG(seed, 1))
		log := randomLog(r, []int{0, 1, 30, 300, 1000, 30, 300, 1000, 3 * radixMin, 30, 300, 1000}[seed%12], []uint64{3, 100, 1 << 20}[seed%3])
		if seed%4 == 0 { // as after a compaction
			slices.SortStableFunc(log[:len(log)/2], func(a, b blockfile.Record) int { return compareIDs(a.ID, b.ID) })
		}
		want := replayed(log)
		l := &loader{}
		for i := range log {
			l.add(&log[i])
		}
		l.sort()
		l.fold()
		require.True(t, slices.IsSortedFunc(l.entries, compareEntries))
		p := &place{}
		d := newDormant(l)
		for i := range d.entries {
			w := want[d.entries[i].id()]
			if w == nil || w.flags&(blockfile.FlagDirty|blockfile.FlagPinned) != 0 || d.find(d.entries[i].id()) != i {
				t.Fatalf("seed %d: dormant: %v", seed, w)
			}
			b := d.take(i, p)
			same(t, w, b)
			if len(w.sums) != len(b.sums) {
				t.Fatalf("seed %d: dormant and not complete", seed)
			}
			delete(want, b.ID)
		}
		require.Zero(t, d.n)
		require.Zero(t, d.bytes)
		require.Zero(t, d.grains)
		for _, b := range l.live {
			w := want[b.ID]
			if w == nil || w.flags&blockfile.FlagDirty != 0 != b.dirty || w.flags&blockfile.FlagPinned != 0 != b.pinned ||
				!b.dirty && !b.pinned && len(w.sums) == len(b.sums) {
				t.Fatalf("seed %d: awake: %v", seed, w)
			}
			same(t, w, b)
			delete(want, b.ID)
		}
		require.Empty(t, want, "seed %d", seed)
	}
}

func same(t *testing.T, w *state, b *block) {
	t.Helper()
	ok := w.length == b.length && (b.have == nil || b.have.Count() == len(w.sums))
	for g, sum := range w.sums {
		ok = ok && (b.have == nil || b.have.Has(g)) && b.sums[g] == sum
	}
	if !ok {
		t.Fatalf("%v: log %v, block %v", b.ID, w, b.sums)
	}
}
