// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
)

// TestBoundedAnswersWhatWasPut: over any history the cache has of a key what was
// put last, or nothing; and it has what there is room for.
func TestBoundedAnswersWhatWasPut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, want := newBounded[nameKey, int](rapid.SampledFrom([]int{0, 1 << 10, 1 << 14}).Draw(t, "entries")), map[nameKey]int{}
		keys := rapid.IntRange(0, rapid.SampledFrom([]int{5, 5000}).Draw(t, "keys"))
		for i := range rapid.IntRange(0, 3000).Draw(t, "steps") {
			k := nameKey{orca.Ino(i % 3), fmt.Sprint(keys.Draw(t, "key"))}
			switch i % 4 {
			case 0:
				b.drop(k)
				delete(want, k)
			default:
				b.put(k, i)
				want[k] = i
			}
			got, ok := b.get(k)
			if last, is := want[k]; ok != is || got != last {
				t.Fatalf("%v is %d, %v, want %d, %v", k, got, ok, last, is)
			}
		}
		for k, last := range want {
			if got, ok := b.get(k); ok && got != last {
				t.Fatalf("%v is %d, want %d or nothing", k, got, last)
			}
		}
	})
}

// TestBoundedIsFull: a cache that far more went through has nearly as many as its
// cap, in hardly more memory than these take; and one with few keys takes little.
func TestBoundedIsFull(t *testing.T) {
	const entries = 1 << 16
	b := newBounded[nameKey, *int](entries)
	for i := range 16 {
		b.put(nameKey{dir: orca.Ino(i)}, nil)
	}
	size := func() (n int) {
		for i := range b.shards {
			n += len(b.shards[i].slots)
		}
		return n
	}
	require.LessOrEqual(t, size(), 1024)
	for i := range 8 * entries {
		b.put(nameKey{dir: orca.Ino(i)}, nil)
	}
	require.Equal(t, entries, size())
	require.EqualValues(t, 32, unsafe.Sizeof(boundedSlot[nameKey, *int]{}))
	have := 0
	for i := range 8 * entries {
		if _, ok := b.get(nameKey{dir: orca.Ino(i)}); ok {
			have++
		}
	}
	require.Greater(t, have, entries*9/10)
}

// TestBoundedLetsGo: what was dropped, or had to leave, is not held in memory.
func TestBoundedLetsGo(t *testing.T) {
	const values = 2000
	b := newBounded[int, *[64]byte](0)
	var gone sync.WaitGroup
	gone.Add(values)
	for i := range values {
		v := &[64]byte{}
		runtime.AddCleanup(v, func(int) { gone.Done() }, i)
		b.put(i, v)
	}
	for i := range values {
		b.drop(i)
	}
	runtime.GC()
	gone.Wait()
	runtime.KeepAlive(b)
}

// TestBoundedIsShared reads and writes it from several sides at once.
func TestBoundedIsShared(t *testing.T) {
	b := newBounded[int, int](1 << 10)
	var wg sync.WaitGroup
	for lane := range 4 {
		wg.Go(func() {
			for i := range 20_000 {
				k := i % 3000
				switch lane {
				case 0:
					b.put(k, k)
				case 1:
					b.drop(k)
				default:
					if v, ok := b.get(k); ok && v != k {
						t.Errorf("%d is %d", k, v)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkBoundedGet(b *testing.B) {
	c := newBounded[nameKey, *int](1 << 18)
	keys := make([]nameKey, 1<<17)
	for i := range keys {
		keys[i] = nameKey{orca.Ino(i / 20), fmt.Sprintf("part-%09d.bin", i)}
		c.put(keys[i], nil)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.get(keys[i*7919&(len(keys)-1)])
	}
}
