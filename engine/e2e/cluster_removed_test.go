// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// exitRemoved is the documented exit code of a member that was removed.
const exitRemoved = 3

// ended waits until a process ends by itself, and returns its exit code.
func (p *proc) ended() int {
	p.t.Helper()
	select {
	case err := <-p.exit:
		p.exit <- err
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			return ee.ExitCode()
		}
		return 0
	case <-time.After(time.Minute):
		p.t.Fatalf("it does not end\n%s", tail(p.output(), 3000))
		return -1
	}
}

// TestRemovedMemberEnds removes a member that runs: it says so, ends with a code
// of its own, and does not start again.
func TestRemovedMemberEnds(t *testing.T) {
	c := startCluster(t)
	fs := c.fs()
	gone := "a"
	if c.leader(fs) == gone {
		gone = "b"
	}
	p := c.nodes[gone]
	c.must(c.nodes[c.leader(fs)], "admin", "quorum", "remove", gone)
	if code := p.ended(); code != exitRemoved {
		t.Errorf("exit code %d, want %d\n%s", code, exitRemoved, tail(p.output(), 3000))
	}
	if out := p.output(); !strings.Contains(out, "was removed from its cluster") || strings.Contains(out, "goroutine ") {
		t.Errorf("it says\n%s", tail(out, 3000))
	}
	c.launch(gone)
	if code := c.nodes[gone].ended(); code != exitRemoved {
		t.Errorf("second start: exit code %d, want %d", code, exitRemoved)
	}
	if out := c.nodes[gone].output(); !strings.Contains(out, "orca admin quorum add") {
		t.Errorf("second start says\n%s", tail(out, 3000))
	}
}
