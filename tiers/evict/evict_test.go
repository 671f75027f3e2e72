// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/evict"
)

// TestContract holds for every policy: it yields exactly what is in it.
func TestContract(t *testing.T) {
	for name, p := range map[string]evict.Policy{"lru": evict.NewLRU()} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			entries := make([]*evict.Entry, 50)
			for i := range entries {
				entries[i] = &evict.Entry{ID: orca.BlockID{File: orca.Ino(i)}, Size: 1}
			}
			for now := uint64(1); now < 5000; now++ {
				e := entries[r.IntN(len(entries))]
				switch r.IntN(4) {
				case 0:
					if !e.Listed() {
						p.Add(e, now)
					}
				case 1:
					p.Remove(e)
				default:
					p.Touch(e, now)
				}
				var in, got []orca.Ino
				for _, e := range entries {
					if e.Listed() {
						in = append(in, e.ID.File)
					}
				}
				p.Victims(now, func(e *evict.Entry) bool { got = append(got, e.ID.File); return true })
				slices.Sort(got)
				require.Equal(t, in, got)
				require.Equal(t, len(in), p.Len())
			}
			p.Victims(9999, func(e *evict.Entry) bool { p.Remove(e); return true })
			require.Zero(t, p.Len())
		})
	}
}

func TestLRUOrder(t *testing.T) {
	l := evict.NewLRU()
	es := make([]*evict.Entry, 5)
	for i := range es {
		es[i] = &evict.Entry{ID: orca.BlockID{File: orca.Ino(i)}}
		l.Add(es[i], uint64(i))
	}
	l.Touch(es[1], 10)
	l.Touch(es[0], 11)
	l.Remove(es[3])
	var got []orca.Ino
	l.Victims(12, func(e *evict.Entry) bool { got = append(got, e.ID.File); return len(got) < 3 })
	require.Equal(t, []orca.Ino{2, 4, 1}, got)
}
