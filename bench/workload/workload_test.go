// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workload

import (
	"bytes"
	"hash/crc32"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFillAnywhere reads the same file in pieces of all alignments.
func TestFillAnywhere(t *testing.T) {
	const n = 1000
	whole := make([]byte, n)
	Fill(whole, 7, 0)
	require.EqualValues(t, 0x26ae263b, crc32.ChecksumIEEE(whole), "the bytes of a seed are for ever")
	for _, step := range []int{1, 3, 7, 8, 9, 64, 999} {
		var got []byte
		for off := 0; off < n; off += step {
			p := make([]byte, min(step, n-off))
			Fill(p, 7, int64(off))
			got = append(got, p...)
		}
		require.True(t, bytes.Equal(whole, got), "step %d", step)
	}
	other := make([]byte, n)
	Fill(other, 8, 0)
	require.NotEqual(t, whole, other)
}

func TestContent(t *testing.T) {
	got, err := io.ReadAll(Content(3, 12345))
	require.NoError(t, err)
	want := make([]byte, 12345)
	Fill(want, 3, 0)
	require.True(t, bytes.Equal(want, got))
}

func TestNamesAndOrder(t *testing.T) {
	names := Names("f", 3)
	require.Equal(t, []string{"f-000000", "f-000001", "f-000002"}, names)
	o := Order(1, 100)
	require.Equal(t, o, Order(1, 100))
	require.NotEqual(t, o, Order(2, 100))
	slices.Sort(o)
	for i, v := range o {
		require.Equal(t, i, v)
	}
}

func TestOffsetsAreDistinctAndInside(t *testing.T) {
	const size, unit = 1<<20 + 100, 4096
	offs := Offsets(5, size, unit, 1000)
	require.Len(t, offs, size/unit, "no more than there are")
	seen := map[int64]bool{}
	for _, o := range offs {
		require.Zero(t, o%unit)
		require.LessOrEqual(t, o+unit, int64(size))
		require.False(t, seen[o])
		seen[o] = true
	}
	require.Len(t, Offsets(5, size, unit, 10), 10)
	require.Equal(t, offs[:10], Offsets(5, size, unit, 10))
}
