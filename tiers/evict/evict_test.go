// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/tiers/evict"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

func each(t *testing.T, fn func(t *testing.T, make func() evict.Policy)) {
	for _, name := range evict.Names() {
		t.Run(name, func(t *testing.T) {
			fn(t, func() evict.Policy {
				p, err := evict.New(name)
				require.NoError(t, err)
				return p
			})
		})
	}
}

func id(n int) orca.BlockID { return orca.BlockID{File: orca.Ino(n + 1), Version: 1} }

func TestNames(t *testing.T) {
	require.Equal(t, evict.Default, evict.Names()[0])
	p, err := evict.New("")
	require.NoError(t, err)
	require.IsType(t, &evict.Adaptive{}, p)
	_, err = evict.New("belady")
	require.ErrorIs(t, err, orca.Invalid)
	require.ErrorContains(t, err, "tinylfu")
}

// TestModel holds every policy against a set: what is in it is what was put
// in and neither taken out nor chosen, and Next never chooses what is not.
func TestModel(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		rapid.Check(t, func(t *rapid.T) {
			p := make()
			var entries [40]evict.Entry
			in := map[*evict.Entry]bool{}
			bytes := int64(0)
			take := func(e *evict.Entry) {
				if !in[e] || e.Listed() {
					t.Fatalf("block %v was chosen and is not there, or still listed", e.ID)
				}
				delete(in, e)
				bytes -= e.Size
			}
			now := uint64(0)
			for range rapid.IntRange(1, 300).Draw(t, "steps") {
				now++
				i := rapid.IntRange(0, len(entries)-1).Draw(t, "i")
				e := &entries[i]
				switch op := rapid.IntRange(0, 9).Draw(t, "op"); {
				case op < 4 && !e.Listed():
					e.ID, e.Size = id(i), int64(rapid.IntRange(0, 100).Draw(t, "size"))
					p.Add(e, now)
					in[e] = true
					bytes += e.Size
				case op == 4:
					p.Remove(e)
					if in[e] {
						take(e)
					}
				case op == 5:
					keep := int64(rapid.IntRange(-10, 2000).Draw(t, "keep"))
					if v := p.Next(now, keep); v != nil {
						take(v)
					} else if len(in) > 0 {
						t.Fatalf("nothing leaves of %d", len(in))
					}
				default:
					p.Touch(e, now)
				}
				if p.Len() != len(in) || p.Bytes() != bytes {
					t.Fatalf("%d entries of %d bytes, want %d of %d", p.Len(), p.Bytes(), len(in), bytes)
				}
			}
			for len(in) > 0 {
				take(p.Next(now, 0))
			}
			if p.Next(now, 0) != nil {
				t.Fatal("an empty policy chose something")
			}
		})
	})
}

// TestQuota: whatever is read, a cache never holds more than it may, and what
// is read twice in a row is there the second time.
func TestQuota(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		rapid.Check(t, func(t *rapid.T) {
			capacity := int64(rapid.IntRange(10, 1000).Draw(t, "capacity"))
			c := evict.NewCache(make(), evict.Marks{High: 1, Low: 1}, capacity)
			sizes := map[int]int64{}
			for range rapid.IntRange(1, 400).Draw(t, "reads") {
				i := rapid.IntRange(0, 60).Draw(t, "i")
				if sizes[i] == 0 {
					sizes[i] = int64(rapid.IntRange(1, 200).Draw(t, "size"))
				}
				c.Use(id(i), sizes[i])
				if c.Used() > capacity {
					t.Fatalf("%d bytes in %d", c.Used(), capacity)
				}
				if sizes[i] <= capacity/2 && !c.Use(id(i), sizes[i]) {
					t.Fatalf("block %d is gone at once", i)
				}
			}
		})
	})
}

// TestHitAllocatesNothing also holds for hits among the sampled blocks of the
// default, whose trials miss them.
func TestHitAllocatesNothing(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		const n = 3000
		p := make()
		entries := new([n]evict.Entry)
		now := uint64(0)
		for i := range entries {
			now++
			entries[i].ID, entries[i].Size = id(i), 1+int64(i%7)
			p.Add(&entries[i], now)
		}
		for range n / 3 {
			require.NotNil(t, p.Next(now, p.Bytes()))
		}
		r := rand.New(rand.NewPCG(1, 2))
		require.Zero(t, testing.AllocsPerRun(20*n, func() {
			now++
			p.Touch(&entries[r.IntN(n)], now)
		}))
	})
}

// TestTakenOutAndBack: a block that was pinned or filled again is no newcomer
// when it comes back.
func TestTakenOutAndBack(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		p := make()
		var hot, cold [50]evict.Entry
		now := uint64(0)
		add := func(es []evict.Entry, from int) {
			for i := range es {
				now++
				es[i].ID, es[i].Size = id(from+i), 1
				p.Add(&es[i], now)
			}
		}
		add(hot[:], 0)
		for range 3 {
			for i := range hot {
				now++
				p.Touch(&hot[i], now)
			}
		}
		add(cold[:10], 100)
		for range 10 {
			p.Next(now, 50)
		}
		add(cold[10:], 110)
		for i := range hot {
			if hot[i].Listed() {
				now++
				p.Remove(&hot[i])
				p.Touch(&hot[i], now)
				p.Add(&hot[i], now)
			}
		}
		left := 0
		for range 40 {
			if p.Next(now, 50).ID.File > 100 {
				left++
			}
		}
		require.GreaterOrEqual(t, left, 36, "the blocks read once leave before those read five times")
	})
}

// TestScripts plays the stories in testdata. A script names a policy and a
// capacity, and reads blocks NAME or NAME*SIZE (a..j: that many); lines with >
// are what happened.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), len(evict.Names()))
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			got := play(t, string(b))
			if *rewrite {
				require.NoError(t, os.WriteFile(f, []byte(got), 0o644))
			}
			require.Equal(t, string(b), got, "run with -rewrite and review the diff")
		})
	}
}

type player struct {
	policy evict.Policy
	cache  *evict.Cache
	sizes  map[string]int64
}

func play(t *testing.T, script string) string {
	var out strings.Builder
	p := player{sizes: map[string]int64{}}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line)
		if w := strings.Fields(line); len(w) > 0 && !strings.HasPrefix(line, "#") {
			if said := p.do(t, w); said != "" {
				out.WriteString("> " + said + "\n")
			}
		}
	}
	return out.String()
}

func (p *player) do(t *testing.T, w []string) string {
	t.Helper()
	var err error
	switch w[0] {
	case "policy":
		p.policy, err = evict.New(w[1])
		require.NoError(t, err)
	case "capacity":
		n, err := strconv.Atoi(w[1])
		require.NoError(t, err)
		p.cache = evict.NewCache(p.policy, evict.Marks{High: 1, Low: 1}, int64(n))
	case "read":
		before := p.held()
		hits := 0
		for _, a := range w[1:] {
			for _, name := range expand(a) {
				name, size, _ := strings.Cut(name, "*")
				if p.sizes[name] == 0 {
					p.sizes[name] = 1
				}
				if n, err := strconv.Atoi(size); err == nil {
					p.sizes[name] = int64(n)
				}
				if p.cache.Use(named(name), p.sizes[name]) {
					hits++
				}
			}
		}
		return fmt.Sprintf("%d hits; gone: %s", hits, minus(before, p.held()))
	case "held":
		return strings.Join(p.held(), " ")
	default:
		t.Fatalf("no command %q", w[0])
	}
	return ""
}

// expand turns x1..x5 into the five names.
func expand(a string) []string {
	from, to, ok := strings.Cut(a, "..")
	if !ok {
		return []string{a}
	}
	letters := strings.TrimRight(from, "0123456789")
	lo, _ := strconv.Atoi(from[len(letters):])
	hi, _ := strconv.Atoi(strings.TrimPrefix(to, letters))
	var out []string
	for i := lo; i <= hi; i++ {
		out = append(out, letters+strconv.Itoa(i))
	}
	return out
}

// named makes the id of a block of its name.
func named(name string) orca.BlockID {
	letters := strings.TrimRight(name, "0123456789")
	n, _ := strconv.Atoi(name[len(letters):])
	return orca.BlockID{File: orca.Ino(letters[0]), Version: 1, Index: uint32(n)}
}

func (p *player) held() []string {
	var out []string
	for name := range p.sizes {
		if p.cache.Has(named(name)) {
			out = append(out, name)
		}
	}
	return sorted(out)
}

func minus(a, b []string) string {
	in := map[string]bool{}
	for _, n := range b {
		in[n] = true
	}
	var out []string
	for _, n := range a {
		if !in[n] {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, " ")
}

func sorted(names []string) []string {
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	return names
}

func order(name string) uint64 {
	b := named(name)
	return uint64(b.File)<<32 | uint64(b.Index)
}

// TestLessRoom takes room from a directory step by step: under no policy does
// what is used all the time leave before what is read once in a round.
func TestLessRoom(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		const n, often = 40, 3
		p := make()
		entries := [n]evict.Entry{}
		now := uint64(0)
		for i := range entries {
			entries[i] = evict.Entry{ID: id(i), Size: 1 << 20}
			now++
			p.Add(&entries[i], now)
		}
		for range 4 {
			for i := range entries {
				for _, e := range append([]*evict.Entry{&entries[i]}, &entries[n/2], &entries[n-1], &entries[1]) {
					now++
					p.Touch(e, now)
				}
			}
		}
		for left := int64(n - 1); left >= often; left-- {
			first := p.First(now, left<<20)
			require.True(t, first.Listed())
			e := p.Next(now, left<<20)
			require.Same(t, first, e, "First says what Next does")
			for _, hot := range []*evict.Entry{&entries[n/2], &entries[n-1], &entries[1]} {
				require.NotSame(t, hot, e, "%d left", left)
				now++
				p.Touch(hot, now)
			}
		}
	})
}

// TestMoved: what comes from below because it is hot is no newcomer, which the
// policies that pin would let go first.
func TestMoved(t *testing.T) {
	each(t, func(t *testing.T, make func() evict.Policy) {
		const n = 20
		below, p := make(), make()
		entries := [n]evict.Entry{}
		now := uint64(0)
		for i := range entries {
			entries[i] = evict.Entry{ID: id(i), Size: 1 << 20}
			now++
			p.Add(&entries[i], now)
		}
		hot := evict.Entry{ID: id(n), Size: 1 << 20}
		below.Add(&hot, now)
		for range 10 {
			now++
			below.Touch(&hot, now)
		}
		below.Remove(&hot)
		p.Next(now, (n-1)<<20) // as a directory that is full
		up := evict.Entry{ID: hot.ID, Size: hot.Size}
		up.Moved(&hot)
		now++
		p.Add(&up, now)
		for left := int64(n - 1); left >= n/2; left-- {
			require.NotSame(t, &up, p.Next(now, left<<20))
		}
	})
}

func TestHeat(t *testing.T) {
	h := evict.Warm(5000)
	require.InDelta(t, 1, h.Uses(5000), 1e-9)
	require.InDelta(t, 0.5, h.Uses(15000), 1e-9)
	h = h.Used(15000)
	require.InDelta(t, 1.5, h.Uses(15000), 1e-9)
	require.InDelta(t, 3, h.Times(2).Uses(15000), 1e-9)
	require.Greater(t, h, evict.Warm(15000))
	require.Zero(t, testing.AllocsPerRun(10, func() { h = h.Used(20000) }))
}
