// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiertest

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// MemDir returns a folder as a MEM tier has it: a tmpfs of its own with huge
// pages, or without the right to mount one, a folder in shared memory.
func MemDir(tb testing.TB) string {
	tb.Helper()
	root, err := os.MkdirTemp("/dev/shm", "orca-test-")
	require.NoError(tb, err)
	if unix.Mount("orca-test", root, "tmpfs", 0, "size=8g,huge=advise") == nil {
		tb.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH); _ = os.RemoveAll(root) })
		return root
	}
	tb.Logf("no tmpfs with huge pages: figures of memory are lower")
	tb.Cleanup(func() { _ = os.RemoveAll(root) })
	return root
}
