// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

//go:build !race

package fsm

import (
	"testing"
	"time"

	"orca/metaplane/inodekv"
)

// A member does not serve before it has read all directories, so they share
// what memory they can. The store does nothing in the background; under the race
// detector it allocates at random.
func TestOpenAllocates(t *testing.T) {
	const dirs = 20_000
	open := openWide(t, inodekv.Config{Memory: true, FlushEvery: time.Hour, FlushOps: 1 << 30}, dirs)
	if per := testing.AllocsPerRun(3, open) / dirs; per > 0.3 {
		t.Errorf("%.2f allocations per directory at open, want 0.3 at most", per)
	}
}
