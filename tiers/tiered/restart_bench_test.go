// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/tiertest"
)

// BenchmarkRestart opens a store whose index has 500,000 blocks of one grain.
func BenchmarkRestart(b *testing.B) {
	const n = 500_000
	root := b.TempDir()
	require.NoError(b, os.MkdirAll(filepath.Join(root, "ssd"), 0o700))
	x, _, err := blockfile.Open(blockfile.OS{}, filepath.Join(root, "ssd"), func(*blockfile.Record) {})
	require.NoError(b, err)
	for i := range uint64(n) {
		x.Append(blockfile.Record{Kind: blockfile.KindState, Flags: blockfile.FlagComplete, ID: orca.BlockID{File: orca.Ino(i), Version: 1}, Length: 4096, Sums: []uint32{1}})
		if x.Buffered() > 1<<20 {
			require.NoError(b, x.Flush())
		}
	}
	require.NoError(b, x.Close())
	for b.Loop() {
		s := openWith(b, tiertest.Options{SSD: 1 << 40, Root: root}, nil)
		b.StopTimer()
		require.EqualValues(b, n, s.Usage()[0].Blocks)
		require.NoError(b, s.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/block")
}
