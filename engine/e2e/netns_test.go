// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// netns is a network namespace: a descriptor of it; 0 is that of this process.
type netns int

// do calls f, which may start processes and open sockets, in the namespace.
func (n netns) do(f func() error) error {
	if n == 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(n), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("setns: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// ip runs an ip command in the namespace.
func (n netns) ip(args string) error {
	return n.do(func() error {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	})
}

// newNetns makes a namespace without a name: it lives as long as a process or
// a descriptor of this one does, so that nothing is left of a test however it
// ends.
func newNetns(t *testing.T) (netns, error) {
	t.Helper()
	fd := make(chan int, 1)
	fail := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fail <- err
			return
		}
		n, err := unix.Open(filepath.Join("/proc/self/task", strconv.Itoa(unix.Gettid()), "ns/net"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			fail <- err
			return
		}
		fd <- n
	}()
	select {
	case n := <-fd:
		t.Cleanup(func() { unix.Close(n) })
		return netns(n), nil
	case err := <-fail:
		return 0, err
	}
}
