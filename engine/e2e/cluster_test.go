// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// load writes files and makes, renames and removes names, over and over, until
// it is stopped. Every name is its own, so that a mutation that was executed
// twice shows: the second one meets what the first one left.
type load struct {
	t    *testing.T
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	files map[string]string // path → content, acknowledged
	gone  []string          // renamed away or removed, acknowledged
	last  time.Time         // of an acknowledged write
	gap   time.Duration     // longest between two
}

const loaders = 4

func startLoad(t *testing.T, c *cluster) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, stop: cancel, files: map[string]string{}, last: time.Now()}
	for i := range loaders {
		fs := c.fs()
		l.wg.Go(func() { l.run(ctx, fs, i) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// ack notes what was acknowledged.
func (l *load) ack(path, content string, gone ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
	l.files[path] = content
	for _, p := range gone {
		delete(l.files, p)
	}
	l.gone = append(l.gone, gone...)
}

// acks returns how many files are acknowledged.
func (l *load) acks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.files) + len(l.gone)
}

// longest returns the longest gap since the last call.
func (l *load) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.gap
	l.gap = 0
	return g
}

func (l *load) run(ctx context.Context, fs *client.FS, id int) {
	for n := 0; ctx.Err() == nil; n++ {
		dir := fmt.Sprintf("/d%d-%d", id, n)
		if err := l.once(ctx, fs, dir); err != nil && ctx.Err() == nil {
			l.t.Errorf("%s: %v", dir, err)
			return
		}
	}
}

// once makes a directory, an empty file that is renamed, one that is removed,
// and one with content.
func (l *load) once(ctx context.Context, fs *client.FS, dir string) error {
	if _, err := fs.Mkdir(ctx, client.Path(dir), 0o755); err != nil {
		return err
	}
	// What the next step changes is not noted: the load may end in its middle.
	for _, name := range []string{"/old", "/x"} {
		if _, err := fs.CreateEmpty(ctx, client.Path(dir+name), client.CreateOptions{Exclusive: true}); err != nil {
			return err
		}
	}
	if err := fs.Rename(ctx, client.Path(dir+"/old"), client.Path(dir+"/new"), true); err != nil {
		return err
	}
	l.ack(dir+"/new", "", dir+"/old")
	if err := fs.Remove(ctx, client.Path(dir+"/x"), client.RemoveOptions{}); err != nil {
		return err
	}
	l.ack(dir+"/new", "", dir+"/x")
	content := strings.Repeat(dir+"\n", 100)
	// A write of content may be given up by its worker, and a read by its
	// client, when there is no leader for long; then it is up to the caller.
	if err := patiently(ctx, func() error { return put(ctx, fs, dir+"/f", content) }); err != nil {
		return err
	}
	l.ack(dir+"/f", content)
	got := ""
	err := patiently(ctx, func() (err error) {
		got, err = get(ctx, fs, dir+"/f", client.Sync{})
		return err
	})
	if err == nil && got != content {
		err = fmt.Errorf("%d bytes of %d", len(got), len(content))
	}
	return err
}

// patiently repeats what has not succeeded for a reason that passes.
func patiently(ctx context.Context, do func() error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := do()
		if err == nil || ctx.Err() != nil || !orca.KindOf(err).Retryable() || time.Now().After(deadline) {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// more waits until more is acknowledged than was.
func (l *load) more(than, by int) {
	l.t.Helper()
	eventually(l.t, 2*time.Minute, "the load goes on", func() bool { return l.t.Failed() || l.acks() >= than+by })
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// check compares the namespace and the store with what was acknowledged.
func (l *load) check(c *cluster, fs *client.FS) {
	l.t.Helper()
	l.end()
	ctx := ctxFor(l.t, 3*time.Minute)
	for path, want := range l.files {
		got := ""
		err := patiently(ctx, func() (err error) {
			got, err = get(ctx, fs, path, client.Sync{})
			return err
		})
		if err != nil || got != want {
			l.t.Errorf("acknowledged %s: %d bytes of %d, %v", path, len(got), len(want), err)
		}
	}
	for _, path := range l.gone {
		err := patiently(ctx, func() error {
			_, err := fs.Stat(ctx, client.Path(path), client.Sync{})
			return err
		})
		if orca.KindOf(err) != orca.NotFound {
			l.t.Errorf("%s is back: %v", path, err)
		}
	}
	store := c.storeFiles()
	for path, want := range l.files {
		if got, ok := store[path]; want != "" && (!ok || got != want) {
			l.t.Errorf("the store has %d bytes of %s, want %d", len(got), path, len(want))
		}
	}
	for _, path := range l.gone {
		if _, ok := store[path]; ok {
			l.t.Errorf("%s is still in the store", path)
		}
	}
}

// TestClusterOutlivesItsLeader kills the leader of three under load, and then
// stops one for longer than the others wait. Nothing that was acknowledged is
// lost, nothing happens twice, and who comes back catches up.
func TestClusterOutlivesItsLeader(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	l := startLoad(t, c)
	l.more(0, 20)
	for range 2 {
		l.longest()
		dead := c.leader(fs)
		c.kill(dead)
		at := l.acks()
		l.more(at, 20)
		t.Logf("killed %s: longest gap between two writes %v", dead, l.longest())
		c.restart(dead)
		at = l.acks()
		l.more(at, 10)
	}
	l.longest()
	old := c.leader(fs)
	c.nodes[old].cmd.Process.Signal(syscall.SIGSTOP)
	at := l.acks()
	l.more(at, 20)
	t.Logf("stopped %s: longest gap between two writes %v", old, l.longest())
	c.nodes[old].cmd.Process.Signal(syscall.SIGCONT)
	at = l.acks()
	l.more(at, 20)
	l.check(c, fs)
	// The one that was killed last, and the one that was stopped, know it all.
	c.lead(fs, old)
	l.check(c, c.fs())
}

// TestMembersWithWorkers runs both roles in each process. The worker in a
// member's process finds the leader as those elsewhere do.
func TestMembersWithWorkers(t *testing.T) {
	c := startCluster(t, "--role", "worker", "--worker-addr", "127.0.0.1:0", "--mem", "16MB", "--ssd", "64MB")
	fs := c.fs()
	ctx := ctxFor(t, 3*time.Minute)
	if err := patiently(ctx, func() error { return put(ctx, fs, "/before", "one") }); err != nil {
		t.Fatal(err)
	}
	// The worker goes with the member; until its lease is over it may be chosen.
	c.kill(c.leader(fs))
	if err := patiently(ctx, func() error { return put(ctx, fs, "/after", "two") }); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"/before": "one", "/after": "two"} {
		got := ""
		err := patiently(ctx, func() (err error) {
			got, err = get(ctx, fs, p, client.Sync{})
			return err
		})
		if err != nil || got != want {
			t.Errorf("%s: %q, %v", p, got, err)
		}
	}
}

// lead has a node lead.
func (c *cluster) lead(fs *client.FS, node string) {
	c.t.Helper()
	eventually(c.t, 3*time.Minute, node+" leads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		q, err := fs.Quorum(ctx)
		if err != nil {
			return false
		}
		for _, m := range q.Members {
			if m.Node == node && !m.Leader {
				_, err = fs.TransferLeader(ctx, m.Replica) // it may be overtaken
			}
		}
		return err == nil && c.leader(fs) == node
	})
}

// TestStoppedLeaderServesNothingStale has requests wait in the sockets of a
// leader that is stopped, while another one is elected and changes what they
// ask for. What the old one does with them when it wakes is its first deed.
func TestStoppedLeaderServesNothingStale(t *testing.T) {
	c := startCluster(t)
	fs := c.fs()
	ctx := ctxFor(t, 4*time.Minute)
	for _, p := range []string{"/moved", "/removed"} {
		if _, err := fs.CreateEmpty(ctx, client.Path(p), client.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// Clients that know the old one only, and have spoken with it.
	type answer struct {
		what string
		err  error
	}
	var old string
	var pinned []*client.FS
	eventually(t, time.Minute, "a leader stays for a while", func() bool {
		old, pinned = c.leader(fs), nil
		for range 3 {
			p := dial(t, client.Config{Addresses: []string{c.meta[old]}, FirstAnswer: time.Minute})
			if _, err := p.Stat(ctx, client.Path("/moved"), client.Sync{}); err != nil {
				t.Fatal(err)
			}
			pinned = append(pinned, p)
		}
		return c.leader(fs) == old
	})
	c.nodes[old].cmd.Process.Signal(syscall.SIGSTOP)
	defer c.nodes[old].cmd.Process.Signal(syscall.SIGCONT)
	answers := make(chan answer, 3)
	ask := func() {
		go func() {
			_, err := pinned[0].Stat(ctx, client.Path("/removed"), client.Sync{})
			answers <- answer{"stat", err}
		}()
		go func() {
			_, err := pinned[1].CreateEmpty(ctx, client.Path("/moved"), client.CreateOptions{Exclusive: true})
			answers <- answer{"create", err}
		}()
		go func() {
			answers <- answer{"rename", pinned[2].Rename(ctx, client.Path("/removed"), client.Path("/elsewhere"), false)}
		}()
	}
	others := dial(t, client.Config{Addresses: c.addrs(), FirstAnswer: time.Minute})
	if err := others.Rename(ctx, client.Path("/moved"), client.Path("/target"), false); err != nil {
		t.Fatal(err)
	}
	if err := others.Remove(ctx, client.Path("/removed"), client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	ask()
	eventually(t, time.Minute, "the requests wait in the sockets of the stopped leader", func() bool {
		return waiting(t, c.meta[old]) >= 3
	})
	c.nodes[old].cmd.Process.Signal(syscall.SIGCONT)
	made := true
	for range 3 {
		a := <-answers
		kind := orca.KindOf(a.err)
		if kind.Retryable() { // nobody led for long; what counts is what is there
			t.Logf("%s: %v", a.what, a.err)
			made = made && a.what != "create"
			continue
		}
		if a.what == "create" && kind != orca.OK || a.what != "create" && kind != orca.NotFound {
			t.Errorf("%s: %v", a.what, a.err)
		}
	}
	for p, there := range map[string]bool{"/moved": true, "/target": true, "/removed": false, "/elsewhere": false} {
		if p == "/moved" && !made {
			continue
		}
		err := patiently(ctx, func() error {
			_, err := others.Stat(ctx, client.Path(p), client.Sync{})
			return err
		})
		if kind := orca.KindOf(err); there && kind != orca.OK || !there && kind != orca.NotFound {
			t.Errorf("%s: %v", p, err)
		}
		if _, ok := c.storeFiles()[p]; ok != there {
			t.Errorf("%s in the store: %v, want %v", p, ok, there)
		}
	}
}

// waiting counts the connections to addr whose receiver has not read what is
// there.
func waiting(t *testing.T, addr string) (n int) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		// sl local rem state tx:rx ...; 01 is an established connection.
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", p)) && f[3] == "01" && !strings.HasSuffix(f[4], ":00000000") {
			n++
		}
	}
	return n
}

// TestClusterReplacesAMember has a member lose its disk: it may not come back
// as if nothing had happened, and a new one takes its place.
func TestClusterReplacesAMember(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	l := startLoad(t, c)
	l.more(0, 20)
	lost := "a"
	if c.leader(fs) == lost {
		lost = "b"
	}
	c.kill(lost)
	c.data[lost] = t.TempDir()
	peers := fmt.Sprintf("a=%s,b=%s,c=%s", c.raft["a"], c.raft["b"], c.raft["c"])
	c.launch(lost, "--root", c.root, "--peers", peers)
	p := c.nodes[lost]
	select {
	case err := <-p.exit:
		p.exit <- err
		if err == nil || !strings.Contains(p.output(), "quorum remove") {
			t.Fatalf("a member without its disk ended with %v and said\n%s", err, tail(p.output(), 3000))
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("a member without its disk is let in")
	}
	delete(c.nodes, lost)

	p = c.nodes[c.leader(fs)]
	if out := c.must(p, "fsadmin", "journal", "quorum", "info"); !strings.Contains(out, c.raft[lost]) {
		t.Errorf("members:\n%s", out)
	}
	c.must(p, "admin", "quorum", "remove", lost)
	c.raft["d"], c.meta["d"], c.data["d"] = fixedAddr(t), fixedAddr(t), t.TempDir()
	c.must(p, "admin", "quorum", "add", c.raft["d"])
	c.await("d", c.launch("d", "--raft-addr", c.raft["d"], "--join", c.meta["a"]+","+c.meta["b"]+","+c.meta["c"]))
	var members []struct{ Node, Role string }
	for line := range strings.Lines(c.must(p, "admin", "quorum", "info", "--json")) {
		var m struct{ Node, Role string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		members = append(members, m)
	}
	if len(members) != 3 {
		t.Fatalf("members: %v", members)
	}
	for _, m := range members {
		if m.Node == lost || m.Role == "learner" {
			t.Errorf("members: %v", members)
		}
	}
	// The new one counts: without one of the others it makes the majority.
	delete(c.meta, lost)
	dead := c.leader(fs)
	if dead == "d" {
		dead = "c"
	}
	c.kill(dead)
	at := l.acks()
	l.more(at, 20)
	eventually(t, time.Minute, "removing one of the last two is refused", func() bool {
		_, stderr, code := c.nodes["d"].cli("admin", "quorum", "remove", "d")
		if code == 0 {
			t.Fatal("one of the last two was removed")
		}
		return strings.Contains(stderr, "do not answer")
	})
	c.restart(dead)
	eventually(t, 3*time.Minute, "d leads", func() bool {
		_, _, code := c.nodes["d"].cli("admin", "quorum", "transfer", "d")
		return code == 0 && c.leader(fs) == "d"
	})
	l.check(c, fs)
}
