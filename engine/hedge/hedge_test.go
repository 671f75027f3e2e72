// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package hedge

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The delay settles where 5 of 100 samples are above it, and follows when the
// server becomes slower or faster.
func TestDelay(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	h := New(20)
	for _, scale := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, 5 * time.Millisecond} {
		above, samples := 0, 0
		for i := range 20_000 {
			d := time.Duration(r.ExpFloat64() * float64(scale))
			if i >= 5000 {
				samples++
				if d > h.After() {
					above++
				}
			}
			h.Took(d)
		}
		share := float64(above) / float64(samples)
		require.InDelta(t, 0.05, share, 0.015, "scale %v, delay %v", scale, h.After())
	}
	for range 5000 {
		h.Took(0)
	}
	require.Equal(t, Least, h.After())
	for range 5000 {
		h.Took(time.Hour)
	}
	require.Equal(t, Most, h.After())
}

func TestBudget(t *testing.T) {
	h := New(20)
	require.True(t, h.On())
	require.False(t, h.Spend(), "nothing earned yet")
	sent := 0
	for range 1000 {
		h.Earn()
		if h.Spend() {
			sent++
		}
	}
	require.Equal(t, 50, sent)
	for range 100_000 {
		h.Earn()
	}
	sent = 0
	for h.Spend() {
		sent++
	}
	require.Equal(t, burst, sent, "what was not used is not saved for ever")
	off := New(0)
	off.Earn()
	require.False(t, off.On())
	require.False(t, off.Spend())
}

func TestBudgetOfMany(t *testing.T) {
	h := New(20)
	var wg sync.WaitGroup
	var sent atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				h.Earn()
				if h.Spend() {
					sent.Add(1)
				}
				h.Took(time.Millisecond)
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, sent.Load(), int64(8000/20))
}
