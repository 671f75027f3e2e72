// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback_test

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// source is another worker: what it delivers, or why it does not.
type source struct {
	data []byte
	err  error
}

// keep asks a rig to keep block 0 of file 7; it returns which sources were
// asked, and how many bytes came.
func (r *rig) keep(length int64, durable bool, sources ...source) (asked []int, came int64, err error) {
	id := orca.BlockID{File: 7, Version: 3}
	err = r.wb.Keep(r.t.Context(), id, length, durable, len(sources), func(_ context.Context, n int) (io.ReadCloser, error) {
		asked = append(asked, n)
		return io.NopCloser(bytes.NewReader(sources[n].data)), sources[n].err
	}, func(n int64) error {
		came += n
		return nil
	})
	return asked, came, err
}

// kept fails unless the block is one of the only copies, with these bytes and
// their sums.
func (r *rig) kept(want []byte, tier orca.Tier) {
	r.t.Helper()
	id := orca.BlockID{File: 7, Version: 3}
	m, err := r.store.Stat(id)
	require.NoError(r.t, err)
	require.True(r.t, m.Complete && m.Dirty, "%+v", m)
	require.Equal(r.t, tier, m.Tier)
	e, err := r.store.Get(id, 0, int64(len(want)))
	require.NoError(r.t, err)
	defer e.Release()
	require.EqualValues(r.t, len(want), e.N)
	got := make([]byte, e.N)
	_, err = e.File.ReadAt(got, e.Off)
	require.NoError(r.t, err)
	require.True(r.t, bytes.Equal(want, got))
	for i, sum := range e.Sums {
		p := want[i*orca.GrainSize : min((i+1)*orca.GrainSize, len(want))]
		require.Equal(r.t, crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)), sum, "of grain %d", i)
	}
}

func keepData(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i * 31 >> 3)
	}
	return p
}

// A block comes from the first source that has all of it; one that is silent or
// ends early costs the next one, and leaves nothing.
func TestKeepTriesSources(t *testing.T) {
	data := keepData(300_000)
	gone := orca.E("source", orca.Unavailable, "gone")
	r := newRig(t, rigOptions{mem: 8 << 20, ssd: 8 << 20})
	asked, _, err := r.keep(int64(len(data)), false)
	require.ErrorIs(t, err, orca.Unavailable, "nobody has it")
	require.Empty(t, asked)
	asked, _, err = r.keep(int64(len(data)), false, source{err: gone}, source{data: data[:len(data)-1]})
	require.ErrorIs(t, err, orca.Unavailable)
	require.Equal(t, []int{0, 1}, asked)
	_, err = r.store.Stat(orca.BlockID{File: 7, Version: 3})
	require.ErrorIs(t, err, orca.NotFound, "half a copy is none")
	require.Zero(t, r.wb.Metrics.Kept.Load())

	asked, came, err := r.keep(int64(len(data)), false, source{err: gone}, source{data: data[:70_000]}, source{data: data}, source{data: data})
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2}, asked)
	require.GreaterOrEqual(t, came, int64(len(data)))
	r.kept(data, orca.MEM)
	require.EqualValues(t, 1, r.wb.Metrics.Kept.Load())
}

// A copy that is here is not made again, unless it may be evicted, or is in
// memory and has to survive the process.
func TestKeepWhatIsHere(t *testing.T) {
	data := keepData(200_000)
	id := orca.BlockID{File: 7, Version: 3}
	r := newRig(t, rigOptions{mem: 8 << 20, ssd: 8 << 20})
	w, err := r.store.Begin(t.Context(), id, int64(len(data)))
	require.NoError(t, err)
	require.NoError(t, w.WriteGrains(t.Context(), data, 0))
	require.NoError(t, w.Close())
	m, err := r.store.Stat(id)
	require.NoError(t, err)
	require.True(t, m.Complete && !m.Dirty, "a clean copy: %+v", m)

	asked, _, err := r.keep(int64(len(data)), false, source{data: data})
	require.NoError(t, err)
	require.Equal(t, []int{0}, asked, "a clean copy might be evicted")
	r.kept(data, orca.MEM)
	asked, _, err = r.keep(int64(len(data)), false, source{data: data})
	require.NoError(t, err)
	require.Empty(t, asked)
	asked, _, err = r.keep(int64(len(data)), true, source{data: data})
	require.NoError(t, err)
	require.Equal(t, []int{0}, asked, "memory does not survive the process")
	r.kept(data, orca.SSD)
	asked, _, err = r.keep(int64(len(data)), true, source{data: data})
	require.NoError(t, err)
	require.Empty(t, asked)
}

// A block without room is refused before anybody is asked for it, and an error
// of who counts the bytes ends the copy without a trace.
func TestKeepGivesUp(t *testing.T) {
	data := keepData(200_000)
	r := newRig(t, rigOptions{mem: 1 << 20})
	asked, _, err := r.keep(4<<20, false, source{data: data})
	require.ErrorIs(t, err, orca.NoSpace)
	require.Empty(t, asked)

	enough := errors.New("enough")
	id := orca.BlockID{File: 7, Version: 3}
	err = r.wb.Keep(t.Context(), id, int64(len(data)), false, 1,
		func(context.Context, int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		func(int64) error { return enough })
	require.ErrorIs(t, err, enough)
	_, err = r.store.Stat(id)
	require.ErrorIs(t, err, orca.NotFound)
}
