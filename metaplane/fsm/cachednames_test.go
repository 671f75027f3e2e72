// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

//go:build !race

package fsm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// TestCachedNamesHoldNothingElse: what is remembered of a file does not hold the
// path that it was asked for by, nor the URI that was made for it, in memory.
func TestCachedNamesHoldNothingElse(t *testing.T) {
	const files = 2_000
	w := quietWorld(t)
	long := "/" + strings.Repeat("d", 250) + "/" + strings.Repeat("e", 250) + "/" + strings.Repeat("f", 250)
	w.must(mountOp("/", "s3://bucket/prefix", nil))
	c := touchFile(long + "/first")
	c.Create.Parents = true
	w.must(c)
	path := func(i int) string { return fmt.Sprintf("%s/part-%06d", long, i) }
	before := heapInUse()
	for i := range files {
		w.must(touchFile(path(i)))
	}
	made := heapInUse() - before
	require.NoError(t, w.db.Flush())
	m, err := Open(Config{}, w.db, nil, w.m.log)
	require.NoError(t, err)
	before = heapInUse()
	for i := range files {
		_, err := m.Walk(orca.Caller{}, 0, path(i))
		require.NoError(t, err)
	}
	read := heapInUse() - before
	require.EqualValues(t, files, m.stats.misses.Load())
	t.Logf("%d bytes for each file read, %d for each made", read/files, made/files)
	// A record has 230, its place in the table 80, its name in that 30. What was
	// made is in the store's memory, too, and remembered by number and by call.
	require.Less(t, read/files, int64(500))
	require.Less(t, made/files, int64(700))
}
