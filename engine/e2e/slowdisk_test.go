// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

var stallFor = flag.Duration("stall", 2*time.Second, "for how long disks stall")

// rss returns the resident memory of a process in bytes.
func (p *proc) rss() int64 {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// TestSlowDisk has the disk of the leader, then that of a follower stall, and
// then all be slow, while clients work: the leadership leaves a stalled disk,
// a follower's is not felt, memory stays, and there is one order of all
// operations that explains the answers.
func TestSlowDisk(t *testing.T) {
	c := newCluster(t)
	disks := map[string]*faultDisk{}
	for _, n := range firstMembers {
		disks[n] = newFaultDisk(t, filepath.Join(c.data[n], "meta"))
	}
	c.begin()
	for _, d := range disks {
		t.Cleanup(d.resume) // before its process is killed, which would wait
	}
	h, clients := newHistory(t, c)
	fs := c.fs()
	ctx := ctxFor(t, 3*time.Minute)

	old := c.leader(fs)
	before := c.nodes[old].rss()
	// This client knows the stalled member only.
	pinned := dial(t, client.Config{Addresses: []string{c.nodes[old].ep.MetaSocket}, FirstAnswer: time.Minute})
	h.phase(append(clients[:len(clients):len(clients)], pinned), func() {
		began := time.Now()
		disks[old].stall()
		eventually(t, time.Minute, "another member leads while the disk of the leader stalls", func() bool { return c.leader(fs) != old })
		moved := time.Since(began)
		<-time.After(*stallFor - time.Since(began))
		if disks[old].waiting.Load() == 0 {
			t.Error("nothing waits for the stalled disk")
		}
		t.Logf("the leadership left the stalled disk after %v; memory %d MB, %d MB before", moved.Round(time.Millisecond), c.nodes[old].rss()>>20, before>>20)
		disks[old].resume()
	})
	follower := "a"
	if c.leader(fs) == follower {
		follower = "b"
	}
	h.phase(clients, func() {
		began := time.Now()
		disks[follower].stall()
		var longest time.Duration
		for time.Since(began) < *stallFor {
			at := time.Now()
			if _, err := fs.Stat(ctx, client.Path("/"), client.Sync{}); err != nil {
				t.Errorf("while the disk of a follower stalls: %v", err)
			}
			longest = max(longest, time.Since(at))
			<-time.After(5 * time.Millisecond)
		}
		t.Logf("longest read while the disk of a follower stalls: %v", longest.Round(time.Millisecond))
		disks[follower].resume()
	})
	for _, d := range disks {
		d.slow.Store(int64(30 * time.Millisecond))
	}
	h.phase(clients, func() {})
	for n, p := range c.nodes {
		if got := p.rss(); got > before+(200<<20) {
			t.Errorf("member %s grew to %d MB", n, got>>20)
		}
	}
	h.judge()
}

// TestStalledDiskShedsLoad floods an Orca whose disk stalls: what waits is
// capped, more is refused with Busy, which means that it was not done, memory
// stays bounded, and all goes on when the disk answers.
func TestStalledDiskShedsLoad(t *testing.T) {
	data := t.TempDir()
	disk := newFaultDisk(t, filepath.Join(data, "meta"))
	p, ready := launch(t, data, nil, "start", "--role", "meta", "--data", data, "--meta-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0")
	t.Cleanup(disk.resume)
	select {
	case <-ready:
	case <-time.After(2 * time.Minute):
		t.Fatalf("not ready\n%s", tail(p.output(), 3000))
	}
	p.loadEndpoints()
	const conns, each = 25, 400 // over the 8,192 that may wait
	clients := make([]*client.FS, conns)
	for i := range clients {
		clients[i] = p.fs()
	}
	before := p.rss()
	disk.stall()
	ctx, cancel := context.WithCancel(ctxFor(t, 3*time.Minute))
	defer cancel()
	var busy, done atomic.Int64
	var wg sync.WaitGroup
	for i, fs := range clients {
		for j := range each {
			wg.Go(func() {
				path := client.Path(fmt.Sprintf("/d%d-%d", i, j))
				for {
					_, err := fs.Mkdir(ctx, path, 0o755)
					switch {
					case err == nil:
						done.Add(1)
						return
					case ctx.Err() != nil:
						return
					case !errors.Is(err, orca.Busy): // one that was done would exist
						t.Errorf("%v: %v", path, err)
						return
					}
					busy.Add(1)
				}
			})
		}
	}
	eventually(t, time.Minute, "a client is told that the metaplane is busy", func() bool { return busy.Load() > 0 })
	if done.Load() != 0 {
		t.Errorf("%d were acknowledged by a disk that stalls", done.Load())
	}
	peak := p.rss()
	disk.resume()
	eventually(t, 2*time.Minute, "it goes on", func() bool { return done.Load() >= conns*each/4 })
	cancel()
	wg.Wait()
	t.Logf("%d requests outstanding, %d answers Busy; memory %d MB, %d MB before", conns*each, busy.Load(), peak>>20, before>>20)
	if peak > before+(256<<20) {
		t.Errorf("memory grew to %d MB", peak>>20)
	}
}
