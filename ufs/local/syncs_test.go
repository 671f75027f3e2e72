// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// many has so many wait for a sync of a directory while one is under way, and returns
// what all were told, that one first.
func many(t *testing.T, n int, do func(call int64) error) (told []error, calls int64) {
	t.Helper()
	d, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer d.Close()
	other, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer other.Close()
	var made atomic.Int64
	began, held := make(chan struct{}), make(chan struct{})
	s := &syncs{do: func(fd int) error {
		if fd == int(other.Fd()) {
			return nil
		}
		call := made.Add(1)
		if call == 1 {
			close(began)
			<-held
		}
		return do(call)
	}}
	errs := make(chan error, n)
	first := make(chan error, 1)
	go func() { first <- s.dir(int(d.Fd())) }()
	<-began
	require.NoError(t, s.dir(int(other.Fd())), "another directory does not wait")
	for range n {
		fd, err := unix.Dup(int(d.Fd()))
		require.NoError(t, err)
		defer unix.Close(fd)
		go func() { errs <- s.dir(fd) }()
	}
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(d.Fd()), &st))
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.dirs[dirID{st.Dev, st.Ino}].waits() == n
	}, time.Minute, time.Millisecond)
	require.EqualValues(t, 1, made.Load(), "what is under way may not have what was changed since")
	close(held)
	told = append(told, <-first)
	for range n {
		told = append(told, <-errs)
	}
	require.Empty(t, s.dirs)
	return told, made.Load()
}

func TestSyncsOfADirectoryAreShared(t *testing.T) {
	told, calls := many(t, 16, func(int64) error { return nil })
	require.EqualValues(t, 2, calls, "the one that was under way, and one for all who came meanwhile")
	for _, err := range told {
		require.NoError(t, err)
	}
}

func TestAFailedSyncIsEverybodys(t *testing.T) {
	failed := errors.New("disk")
	for _, at := range []int64{1, 2} {
		told, _ := many(t, 4, func(call int64) error {
			if call == at {
				return failed
			}
			return nil
		})
		for i, err := range told {
			if at == 2 && i == 0 {
				require.NoError(t, err)
				continue
			}
			require.ErrorIs(t, err, failed, "%d of failure %d", i, at)
		}
	}
}
