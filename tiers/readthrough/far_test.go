// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/tiertest"
	"orca/ufs"
)

// farFS answers every GET late, and counts how many are under way at a time,
// from the question to the close of the body.
type farFS struct {
	ufs.FS
	late time.Duration

	mu         sync.Mutex
	open, most int
	asked      int64 // bytes of all GETs
}

func (s *farFS) Open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	s.mu.Lock()
	s.open++
	s.most = max(s.most, s.open)
	s.asked += n
	s.mu.Unlock()
	time.Sleep(s.late) // that is what far means
	rc, err := s.FS.Open(ctx, key, off, n, want)
	if err != nil {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
		return nil, err
	}
	return &farBody{ReadCloser: rc, s: s}, nil
}

type farBody struct {
	io.ReadCloser
	s    *farFS
	once sync.Once
}

func (b *farBody) Close() error {
	b.once.Do(func() {
		b.s.mu.Lock()
		b.s.open--
		b.s.mu.Unlock()
	})
	return b.ReadCloser.Close()
}

// TestFarStoreIsReadByParts: ahead of a reader in order several GETs are open
// at a time, they are disjoint, and a near store gets one.
func TestFarStoreIsReadByParts(t *testing.T) {
	p := tiertest.Bytes(5, 40<<20+4321)
	for _, late := range []time.Duration{0, 30 * time.Millisecond} {
		r := newRig(t, rigOptions{capacity: 128 << 20})
		r.file(1, 1, p, 64<<20)
		far := &farFS{FS: r.fs, late: late}
		r.fs = far
		got, err := r.read(tiertest.ID(1), 0, int64(len(p)), 1<<20, true)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))
		far.mu.Lock()
		most := far.most
		far.mu.Unlock()
		require.EqualValues(t, len(p), r.rt.Metrics.UFSBytes.Load(), "no byte is fetched twice")
		if late == 0 {
			require.Equal(t, 1, most)
			require.EqualValues(t, 1, r.opens())
			continue
		}
		require.Greater(t, most, 2)
		require.LessOrEqual(t, r.opens(), int64(7), "parts of 8 MiB")
		require.LessOrEqual(t, far.asked, int64(len(p))+64<<20, "only the GET from before it was known to be far asked for more")
	}
}

// TestRandomReadsAmplifyLittle: reads of 4 KiB all over a cold file ask the
// store for at most 16 times what they return.
func TestRandomReadsAmplifyLittle(t *testing.T) {
	const size, reads, n = 64 << 20, 200, 4 << 10
	r := newRig(t, rigOptions{capacity: 128 << 20})
	p := tiertest.Bytes(6, size)
	r.file(1, 1, p, size)
	counted := &farFS{FS: r.fs}
	r.fs = counted
	rnd := rand.New(rand.NewPCG(7, 8))
	for range reads {
		off := rnd.Int64N(size/n) * n
		got, err := r.read(tiertest.ID(1), off, n, n, false)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p[off:off+n], got))
	}
	counted.mu.Lock()
	defer counted.mu.Unlock()
	require.LessOrEqual(t, counted.asked, int64(16*reads*n))
	require.LessOrEqual(t, r.rt.Metrics.UFSBytes.Load(), int64(16*reads*n))
}

// TestCrowdOnOneFile: 100 readers of one cold file, each in an order of its
// own, cause one read of the store per page.
func TestCrowdOnOneFile(t *testing.T) {
	const readers, pages = 100, 8
	for _, seq := range []bool{true, false} {
		r := newRig(t, rigOptions{})
		p := tiertest.Bytes(9, pages*orca.PageSize)
		r.file(1, 1, p, pages*orca.PageSize)
		counted := &farFS{FS: r.fs}
		r.fs = counted
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				order := []int{0, 1, 2, 3, 4, 5, 6, 7}
				if !seq {
					order = rand.New(rand.NewPCG(1, uint64(i))).Perm(pages)
				}
				for _, k := range order {
					off := int64(k) * orca.PageSize
					got, err := r.read(tiertest.ID(1), off, orca.PageSize, orca.PageSize, seq)
					if err != nil || !bytes.Equal(p[off:off+orca.PageSize], got) {
						t.Errorf("reader %d page %d: %v", i, k, err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, len(p), r.rt.Metrics.UFSBytes.Load(), "each page is read from the store exactly once")
		require.LessOrEqual(t, r.opens(), int64(pages))
	}
}
