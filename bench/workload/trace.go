// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workload

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"sort"
)

// Ref is one read of a whole object.
type Ref struct {
	Object uint64
	Size   int64
}

// Trace is a sequence of reads against a cache of so many bytes. Hits count
// from Warm on.
type Trace struct {
	Refs  []Ref
	Warm  int
	Cache int64
}

const (
	smallestObject = 64 << 10
	largestObject  = 4 << 20
)

// sizeOf draws the length of an object, by its name alone: between 64 KiB and
// 4 MiB, every octave as likely.
func sizeOf(seed, object uint64) int64 {
	u := float64(mix(seed, object)>>11) / (1 << 53)
	return int64(smallestObject * math.Exp2(u*math.Log2(largestObject/smallestObject)))
}

// sized turns names into reads.
func sized(seed uint64, names []uint64) (refs []Ref, distinct int64) {
	seen := map[uint64]bool{}
	refs = make([]Ref, len(names))
	for i, o := range names {
		refs[i] = Ref{o, sizeOf(seed, o)}
		if !seen[o] {
			seen[o] = true
			distinct += refs[i].Size
		}
	}
	return refs, distinct
}

// zipf draws from n objects with probability 1/rank^s; which object has which
// rank depends on the seed. rand.Zipf wants s > 1, so this searches the sums.
type zipf struct {
	sums  []float64
	names []int
	r     *rand.Rand
}

func newZipf(seed uint64, n int, s float64) *zipf {
	z := &zipf{sums: make([]float64, n), names: Order(seed, n), r: rand.New(rand.NewPCG(seed, 1))}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) next() uint64 {
	u := z.r.Float64() * z.sums[len(z.sums)-1]
	return uint64(z.names[sort.SearchFloat64s(z.sums, u)])
}

// Zipf is a skewed popularity that stays: s = 0.99 as in YCSB (Cooper et al.,
// SoCC 2010), a tenth of the bytes cached.
func Zipf(seed uint64, objects, reads int) Trace {
	z := newZipf(seed, objects, 0.99)
	names := make([]uint64, reads)
	for i := range names {
		names[i] = z.next()
	}
	refs, _ := sized(seed, names)
	return Trace{Refs: refs, Warm: reads / 5, Cache: cacheOf(seed, objects) / 10}
}

// Scan is Zipf with, again and again, a scan over as many objects as fit the
// cache twice, none of which is read again: the shape that 2Q (Johnson and
// Shasha, VLDB 1994) and ARC (Megiddo and Modha, FAST 2003) were made for.
func Scan(seed uint64, objects, reads int) Trace {
	z := newZipf(seed, objects, 0.99)
	var names []uint64
	fresh := uint64(objects)
	span := 2 * objects / 10
	for len(names) < reads {
		for range span {
			names = append(names, z.next())
		}
		for range span {
			names = append(names, fresh)
			fresh++
		}
	}
	names = names[:reads]
	refs, _ := sized(seed, names)
	return Trace{Refs: refs, Warm: reads / 5, Cache: cacheOf(seed, objects) / 10}
}

// Loop reads twice as much as fits in the same order round after round: the
// looping shape of LIRS (Jiang and Zhang, SIGMETRICS 2002). The first round
// does not count.
func Loop(seed uint64, objects, rounds int) Trace {
	names := make([]uint64, 0, objects*rounds)
	for range rounds {
		for o := range objects {
			names = append(names, uint64(o))
		}
	}
	refs, total := sized(seed, names)
	return Trace{Refs: refs, Warm: objects, Cache: total / 2}
}

// Shuffled reads every object once per epoch, each epoch in a new random
// order, with half of the bytes cached: training, as in CoorDL (Mohan et al.,
// VLDB 2021) and Quiver (Kumar and Sivathanu, FAST 2020). The first epoch does
// not count.
func Shuffled(seed uint64, objects, epochs int) Trace {
	names := make([]uint64, 0, objects*epochs)
	for e := range epochs {
		for _, o := range Order(seed+uint64(e)<<32, objects) {
			names = append(names, uint64(o))
		}
	}
	refs, total := sized(seed, names)
	return Trace{Refs: refs, Warm: objects, Cache: total / 2}
}

// HitRate reads a trace through a cache and returns the part of the bytes that
// was there.
func (t Trace) HitRate(use func(Ref) bool) float64 {
	var hit, all int64
	for i, r := range t.Refs {
		was := use(r)
		if i < t.Warm {
			continue
		}
		all += r.Size
		if was {
			hit += r.Size
		}
	}
	return float64(hit) / float64(all)
}

// Belady returns the hit rate of the best order of leaving, which knows the
// future: what is read again last leaves first, or is not kept at all (L. A.
// Belady, IBM Systems Journal 5(2), 1966). With objects of one length no
// policy finds more; with different lengths the best is hard to compute, and
// this rule is near it.
func (t Trace) Belady() float64 {
	const never = math.MaxInt
	next := make([]int, len(t.Refs))
	last := map[uint64]int{}
	for i := len(t.Refs) - 1; i >= 0; i-- {
		next[i] = never
		if n, ok := last[t.Refs[i].Object]; ok {
			next[i] = n
		}
		last[t.Refs[i].Object] = i
	}
	held := map[uint64]*future{}
	var order futures
	used, i := int64(0), -1
	return t.HitRate(func(r Ref) bool {
		i++
		f := held[r.Object]
		if f != nil {
			f.next = next[i]
			heap.Fix(&order, f.at)
			return true
		}
		if next[i] == never || r.Size > t.Cache {
			return false
		}
		f = &future{Ref: r, next: next[i]}
		held[r.Object] = f
		heap.Push(&order, f)
		for used += r.Size; used > t.Cache; {
			o := heap.Pop(&order).(*future)
			delete(held, o.Object)
			used -= o.Size
		}
		return false
	})
}

// future is a cached object and the read that comes next.
type future struct {
	Ref
	next, at int
}

// futures is a heap with what is read last on top.
type futures []*future

func (f futures) Len() int           { return len(f) }
func (f futures) Less(i, j int) bool { return f[i].next > f[j].next }
func (f futures) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].at, f[j].at = i, j
}

// Push implements heap.Interface.
func (f *futures) Push(x any) {
	o := x.(*future)
	o.at = len(*f)
	*f = append(*f, o)
}

// Pop implements heap.Interface.
func (f *futures) Pop() any {
	o := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return o
}

// Moving is Zipf whose popularity is drawn anew from time to time.
func Moving(seed uint64, objects, times, reads int) Trace {
	var names []uint64
	for i := range times {
		z := newZipf(seed+uint64(i)<<32, objects, 0.99)
		for range reads {
			names = append(names, z.next())
		}
	}
	refs, _ := sized(seed, names)
	return Trace{Refs: refs, Warm: reads, Cache: cacheOf(seed, objects) / 10}
}

// cacheOf is the sum of the lengths of the objects.
func cacheOf(seed uint64, objects int) (total int64) {
	for o := range objects {
		total += sizeOf(seed, uint64(o))
	}
	return total
}
