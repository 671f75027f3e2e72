// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// heldByTwo is an Orca of two workers that hold /f.
func heldByTwo(t *testing.T, want []byte) *memorca.Orca {
	t.Helper()
	o, err := memorca.New(t.TempDir(), "a", "b")
	require.NoError(t, err)
	near, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "a"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	put(t, near, "/f", want, client.CreateOptions{})
	replicate(t, o, "/f")
	return o
}

// A read that the first worker does not answer is answered by the second, long
// before the first is given up; the bytes are right, and extra requests stay
// within their budget.
func TestHedgedReads(t *testing.T) {
	want := noise(11, 1<<20)
	o := heldByTwo(t, want)
	fs, links := wired(t, o, client.Config{Attempt: time.Hour})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	const reads = 200
	p := make([]byte, 3000)
	read := func(i int) {
		off := i * 5000
		_, err := f.ReadAt(p, int64(off))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[off:off+len(p)], p))
	}
	for i := range reads {
		read(i)
	}
	st := fs.Stats()
	require.LessOrEqual(t, st.Hedges.Load(), int64(reads/20))
	first := links[0]
	if links[1].seen.Load() > first.seen.Load() {
		first = links[1]
	}
	won := st.HedgesWon.Load()
	first.set(silent, 0)
	read(0) // with an Attempt of an hour only a second request can answer this
	require.EqualValues(t, won+1, st.HedgesWon.Load())
	require.Zero(t, st.Failovers.Load())
}

// With one holder, or switched off, nothing is sent twice.
func TestNoHedge(t *testing.T) {
	want := noise(12, 1<<20)
	one, err := memorca.New(t.TempDir(), "a", "b")
	require.NoError(t, err)
	near, err := client.Open(t.Context(), client.Config{Meta: one, Dial: one.Dial, Node: "a"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	put(t, near, "/f", want, client.CreateOptions{})
	for _, c := range []struct {
		o     *memorca.Orca
		hedge float64
	}{{one, 0}, {heldByTwo(t, want), -1}} {
		fs, links := wired(t, c.o, client.Config{Hedge: c.hedge, Attempt: 200 * time.Millisecond})
		f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
		require.NoError(t, err)
		p := make([]byte, 3000)
		for i := range 100 {
			_, err := f.ReadAt(p, int64(i*5000))
			require.NoError(t, err)
		}
		links[0].set(silent, 0)
		links[1].set(silent, 1<<40)
		_, err = f.ReadAt(p, 0)
		require.NoError(t, err)
		require.Zero(t, fs.Stats().Hedges.Load())
		require.NoError(t, f.Close())
	}
}
