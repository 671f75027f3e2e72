// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/tiertest"
)

// BenchmarkGet is a hit: pin, extent, release; no system call, no allocation.
func BenchmarkGet(b *testing.B) {
	s := openWith(b, tiertest.Options{MEM: 64 << 20, Root: tiertest.MemDir(b)}, nil)
	defer s.Close()
	tiertest.Fill(b, s, tiertest.ID(1), tiertest.Bytes(1, 1<<20))
	b.ReportAllocs()
	for b.Loop() {
		e, err := s.Get(tiertest.ID(1), 0, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		e.Release()
	}
}

// BenchmarkWarmRead is a hit and one pread of 1 MiB from a block larger than
// the processor's caches; BenchmarkMemcpy is the bound.
func BenchmarkWarmRead(b *testing.B) {
	s := openWith(b, tiertest.Options{MEM: 512 << 20, Root: tiertest.MemDir(b)}, nil)
	defer s.Close()
	tiertest.Fill(b, s, tiertest.ID(1), tiertest.Bytes(1, 128<<20))
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		e, err := s.Get(tiertest.ID(1), i%128<<20, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.File.ReadAt(buf, e.Off); err != nil {
			b.Fatal(err)
		}
		e.Release()
	}
}

// BenchmarkMemcpy copies 1 MiB of a large source into one buffer.
func BenchmarkMemcpy(b *testing.B) {
	src := tiertest.Bytes(1, 128<<20)
	buf := make([]byte, 1<<20)
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		copy(buf, src[i%128<<20:])
	}
}

// BenchmarkFill writes grains as a filler gets them.
func BenchmarkFill(b *testing.B) {
	s := openWith(b, tiertest.Options{MEM: 4 << 30, Root: tiertest.MemDir(b)}, nil)
	defer s.Close()
	p := tiertest.Bytes(1, 256<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	ctx := context.Background()
	const size = 256 << 20
	w, err := s.Begin(ctx, tiertest.ID(1), size)
	require.NoError(b, err)
	off, file := int64(0), uint64(1)
	for b.Loop() {
		if off == size {
			require.NoError(b, w.Close())
			require.NoError(b, s.Remove(tiertest.ID(file)))
			file, off = file+1, 0
			w, err = s.Begin(ctx, tiertest.ID(file), size)
			require.NoError(b, err)
		}
		if err := w.WriteGrains(ctx, p, off); err != nil {
			b.Fatal(err)
		}
		off += int64(len(p))
	}
	require.NoError(b, w.Close())
}

// BenchmarkSmallFiles makes blocks of one grain.
func BenchmarkSmallFiles(b *testing.B) {
	s := openWith(b, tiertest.Options{MEM: 4 << 30, Root: tiertest.MemDir(b)}, nil)
	defer s.Close()
	p := tiertest.Bytes(1, 4096)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		tiertest.Fill(b, s, orca.BlockID{File: orca.Ino(i), Version: 1}, p)
	}
}
