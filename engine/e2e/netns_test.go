// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
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

// network joins members, each in a namespace of its own, by a bridge in the
// namespace of this process, where clients are.
type network struct {
	t  *testing.T
	ns map[string]netns
	ip map[string]string
}

// clientIP is where clients are.
const clientIP = "10.99.0.254"

// newNetwork makes it. The process must be alone in its namespace.
func newNetwork(t *testing.T, nodes []string) (*network, error) {
	t.Helper()
	n := &network{t: t, ns: map[string]netns{}, ip: map[string]string{}}
	here := netns(0)
	for _, args := range []string{"link set lo up", "link add br0 type bridge", "addr add " + clientIP + "/24 dev br0", "link set br0 up"} {
		if err := here.ip(args); err != nil {
			return nil, err
		}
	}
	for i, node := range nodes {
		ns, err := newNetns(t)
		if err != nil {
			return nil, err
		}
		n.ns[node], n.ip[node] = ns, fmt.Sprintf("10.99.0.%d", i+1)
		out := "veth" + node
		for _, args := range []string{
			fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d", out, os.Getpid(), ns),
			"link set " + out + " master br0", "link set " + out + " up",
		} {
			if err := here.ip(args); err != nil {
				return nil, err
			}
		}
		for _, args := range []string{"link set lo up", "addr add " + n.ip[node] + "/24 dev eth0", "link set eth0 up"} {
			if err := ns.ip(args); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// cut loses everything that goes from one member to another, silently: it is
// sent to nobody's hardware address.
func (n *network) cut(from, to string) {
	n.t.Helper()
	n.must(from, "neigh replace "+n.ip[to]+" lladdr 02:00:00:00:00:99 nud permanent dev eth0")
}

// mend ends a cut.
func (n *network) mend(from, to string) {
	n.t.Helper()
	n.must(from, "neigh del "+n.ip[to]+" dev eth0")
}

func (n *network) must(node, args string) {
	n.t.Helper()
	if err := n.ns[node].ip(args); err != nil {
		n.t.Fatal(err)
	}
}

// isolated is set in the process that isolate starts.
const isolated = "ORCA_E2E_ISOLATED"

// isolate runs the calling test again in a process with a network of its own,
// which ends with it; true in that process. When namespaces are not permitted
// it returns false and why.
func isolate(t *testing.T) (inside bool, whyNot error) {
	t.Helper()
	if os.Getenv(isolated) != "" {
		return true, nil
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return false, err
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.count=1", "-test.v"}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), isolated+"="+orcaBin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 { // root of a user namespace may do it, too
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runtime.LockOSThread() // Pdeathsig is about the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("a process in a network namespace: %w", err)
	}
	err := cmd.Wait()
	t.Logf("in a network of its own:\n%s", out.String())
	switch {
	case err != nil:
		t.Error(err)
	case strings.Contains(out.String(), "--- SKIP"):
		t.Skip("the process in a network of its own has skipped it")
	}
	return false, nil
}
