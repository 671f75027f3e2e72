// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
	"orca/jobs/jobpb"
)

// leaders returns who leads each group, by number; nil while one has no leader.
func (c *cluster) leaders(fs *client.FS) map[uint16]*client.Group {
	c.t.Helper()
	gs, err := fs.Groups(ctxFor(c.t, time.Minute))
	if err != nil {
		return nil
	}
	out := map[uint16]*client.Group{}
	for i := range gs {
		if gs[i].Leader == nil {
			return nil
		}
		out[gs[i].Number] = &gs[i]
	}
	return out
}

// spread waits until every group is led, each by another member.
func (c *cluster) spread(fs *client.FS, groups int) map[uint16]*client.Group {
	c.t.Helper()
	var at map[uint16]*client.Group
	eventually(c.t, 2*time.Minute, "the leaders are spread over the members", func() bool {
		nodes := map[string]bool{}
		at = c.leaders(fs)
		for _, g := range at {
			nodes[g.Leader.Node] = true
		}
		return len(at) == groups && len(nodes) == groups
	})
	return at
}

// fuse mounts Orca with a process of its own.
func (c *cluster) fuse(p *proc) string {
	c.t.Helper()
	dir := c.t.TempDir()
	m, _ := launch(c.t, c.t.TempDir(), []string{"ORCA_ADDRESS=" + strings.Join(c.addrs(), ",")}, "mount", dir)
	eventually(c.t, time.Minute, "the mount is up", func() bool { return strings.Contains(m.output(), "mounted at") })
	c.t.Cleanup(func() { _ = m.stop() })
	return dir
}

// TestGroups has mounts in groups of their own, on three processes, and kills
// the leader of one: only that group fails over, whoever works in the others
// does not notice, and what clients saw of each is linearizable.
func TestGroups(t *testing.T) {
	seed := rand.Uint64()
	c := startCluster(t)
	w := c.worker("w1")
	_ = w
	fs := c.fs()
	lead := c.nodes[c.leader(fs)]
	if out := lead.must("admin", "group", "add"); !strings.HasPrefix(out, "group 2 ") {
		t.Fatalf("group add: %q", out)
	}
	lead.must("admin", "group", "add", "3")
	stores := map[uint16]string{2: t.TempDir(), 3: t.TempDir()}
	writeFile(t, filepath.Join(stores[2], "have"), "was there")
	for n, dir := range stores {
		c.must(lead, "fs", "mount", "--group", strconv.Itoa(int(n)), "/g"+strconv.Itoa(int(n)), dir)
	}
	before := c.spread(fs, 3)

	// Through every door.
	if out := c.must(lead, "fs", "cat", "/g2/have"); out != "was there" {
		t.Errorf("cat: %q", out)
	}
	dir := c.fuse(lead)
	writeFile(t, filepath.Join(dir, "g2", "made"), "by the mount")
	if b, err := os.ReadFile(filepath.Join(stores[2], "made")); string(b) != "by the mount" {
		t.Errorf("store: %q, %v", b, err)
	}
	ctx := ctxFor(t, 3*time.Minute)
	if err := put(ctx, fs, "/g2/late", "by the client"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the mount hears of it", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "g2", "late"))
		return string(b) == "by the client"
	})
	if _, e, code := lead.cli("fs", "mv", "/g2/late", "/late"); code == 0 {
		t.Errorf("a rename between groups: %s", e)
	}
	promised(t, c, fs, lead, stores[2])
	divided(t, c, lead, dir)

	// The leader of group 2 dies under load in two groups.
	if _, err := fs.Mkdir(ctx, client.Path("/h1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Mkdir(ctx, client.Path("/g2/h2"), 0o755); err != nil {
		t.Fatal(err)
	}
	dead := before[2].Leader.Node
	hs := []*history{
		{t: t, c: c, under: "/h1", seed: seed, begun: time.Now(), rnd: rand.New(rand.NewPCG(seed, 1))},
		{t: t, c: c, under: "/g2/h2", seed: seed, begun: time.Now(), rnd: rand.New(rand.NewPCG(seed, 2))},
	}
	both := func(fault func()) {
		var wg sync.WaitGroup
		for i, h := range hs {
			clients := []*client.FS{c.fs(), c.fs(), c.fs()}
			wg.Go(func() {
				h.phase(clients, func() {
					if i == 1 {
						fault()
					}
				})
			})
		}
		wg.Wait()
	}
	both(func() { c.kill(dead) })
	var after map[uint16]*client.Group
	eventually(t, 2*time.Minute, "group 2 has another leader", func() bool {
		after = c.leaders(fs)
		return after != nil && after[2].Leader.Node != dead
	})
	for _, n := range []uint16{1, 3} {
		if after[n].Leader.Node != before[n].Leader.Node || after[n].Term != before[n].Term {
			t.Errorf("group %d failed over, too: %s at term %d, %s at term %d before", n,
				after[n].Leader.Node, after[n].Term, before[n].Leader.Node, before[n].Term)
		}
	}
	both(func() { c.restart(dead) })
	for _, h := range hs {
		h.judge()
	}
	c.spread(fs, 3) // the one that is back leads again

	// Unmounting frees the name; the store keeps what it has.
	c.must(lead, "fs", "rm", "-R", "/g2/h2")
	eventually(t, time.Minute, "nothing is owed to the store", func() bool {
		_, e, code := lead.cli("fs", "unmount", "/g2")
		return code == 0 || !strings.Contains(e, "busy")
	})
	if _, err := fs.Stat(ctx, client.Path("/g2/made"), client.Sync{}); orca.KindOf(err) != orca.NotFound {
		t.Errorf("after the unmount: %v", err)
	}
	if _, err := os.Stat(filepath.Join(stores[2], "made")); err != nil {
		t.Error(err)
	}
	if out := lead.must("admin", "group", "ls"); strings.Contains(out, "/g2") || !strings.Contains(out, "/g3") {
		t.Errorf("group ls:\n%s", out)
	}
	replaced(t, c, fs)
}

// replaced has a new member take the place of one that leads a group: in all
// groups, though only the first is told.
func replaced(t *testing.T, c *cluster, fs *client.FS) {
	t.Helper()
	ctx := ctxFor(t, 3*time.Minute)
	lost := c.spread(fs, 3)[3].Leader.Node
	c.kill(lost)
	p := c.nodes[c.leader(fs)]
	c.must(p, "admin", "quorum", "remove", lost)
	c.raft["d"], c.meta["d"], c.data["d"] = fixedAddr(t), fixedAddr(t), t.TempDir()
	c.must(p, "admin", "quorum", "add", c.raft["d"])
	c.await("d", c.launch("d", "--raft-addr", c.raft["d"], "--join", strings.Join(c.addrs(), ",")))
	delete(c.meta, lost)
	for n := uint16(1); n <= 3; n++ {
		eventually(t, 2*time.Minute, "the new member votes in group "+strconv.Itoa(int(n)), func() bool {
			q, err := fs.QuorumIn(ctx, n)
			voters := map[string]bool{}
			for _, m := range q.GetMembers() {
				voters[m.Node] = m.Voter
			}
			return err == nil && len(q.Members) == 3 && voters["d"] && !voters[lost]
		})
	}
	// It counts, and comes back after a kill.
	c.kill("d")
	c.restart("d")
	if out := c.must(p, "admin", "quorum", "transfer", "--group", "3", "d"); !strings.Contains(out, "leads") {
		t.Errorf("transfer: %q", out)
	}
	if err := put(ctx, fs, "/g3/under-d", "x"); err != nil {
		t.Error(err)
	}
}

// divided has a directory of the root's mount live in group 3: every door finds
// what is in it, it is the same store, and it goes whole.
func divided(t *testing.T, c *cluster, lead *proc, dir string) {
	t.Helper()
	c.must(lead, "fs", "mkdir", "--group", "3", "/own/part")
	if out := c.must(lead, "fs", "ls", "/own"); !strings.Contains(out, "/own/part -> group 3") {
		t.Errorf("ls: %q", out)
	}
	if out := lead.must("admin", "group", "ls", "--json"); !strings.Contains(out, `"directories":["/own/part"]`) {
		t.Errorf("group ls: %s", out)
	}
	c.must(lead, "fs", "mkdir", "/own/part/d")
	writeFile(t, filepath.Join(dir, "own", "part", "d", "made"), "by the mount")
	if out := c.must(lead, "fs", "cat", "/own/part/d/made"); out != "by the mount" {
		t.Errorf("cat: %q", out)
	}
	if err := os.Rename(filepath.Join(dir, "own", "part", "d"), filepath.Join(dir, "own", "d")); err != nil {
		t.Errorf("a rename of a directory between groups: %v", err)
	}
	if out := c.must(lead, "fs", "mv", "/own/d", "/own/part/d"); out != "" {
		t.Errorf("mv: %q", out)
	}
	moved := filepath.Join(dir, "own", "made")
	if err := os.Rename(filepath.Join(dir, "own", "part", "d", "made"), moved); err != nil {
		t.Errorf("a rename between groups: %v", err)
	}
	if b, err := os.ReadFile(moved); string(b) != "by the mount" {
		t.Errorf("after a rename between groups: %q, %v", b, err)
	}
	if out := c.must(lead, "fs", "mv", "/own/made", "/own/part/d/again"); out != "" {
		t.Errorf("mv: %q", out)
	}
	if out := c.must(lead, "fs", "cat", "/own/part/d/again"); out != "by the mount" {
		t.Errorf("cat: %q", out)
	}
	uncached(t, c, lead, dir)
	beside(t, c, lead, dir)
	if err := os.Rename(filepath.Join(dir, "own"), filepath.Join(dir, "owned")); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("a rename above a directory in another group: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "own", "part")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("rmdir: %v", err)
	}
	c.must(lead, "fs", "rm", "-R", "/own")
	if out, _, code := lead.cli("fs", "stat", "/own"); code == 0 {
		t.Errorf("it is there still: %s", out)
	}
}

// beside renames between two directories that live in the same group, each by itself.
func beside(t *testing.T, c *cluster, lead *proc, dir string) {
	t.Helper()
	c.must(lead, "fs", "mkdir", "--group", "3", "/own/other")
	from, to := filepath.Join(dir, "own", "part", "b"), filepath.Join(dir, "own", "other", "b")
	if err := os.MkdirAll(filepath.Join(from, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(from, "c", "f"), "by the mount")
	open, err := os.Open(filepath.Join(from, "c", "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for range 2 {
		if err := os.Rename(from, to); err != nil {
			t.Errorf("a rename of a directory: %v", err)
		}
		if b, err := os.ReadFile(filepath.Join(to, "c", "f")); string(b) != "by the mount" {
			t.Errorf("below a renamed directory: %q, %v", b, err)
		}
		if err := os.WriteFile(filepath.Join(to, "made"), nil, 0o644); err != nil {
			t.Errorf("in a renamed directory: %v", err)
		}
		from, to = to, from
	}
	got := make([]byte, 100)
	if n, err := open.ReadAt(got, 0); string(got[:n]) != "by the mount" {
		t.Errorf("who has it open reads %q, %v", got[:n], err)
	}
	a, b := filepath.Join(from, "c", "f"), filepath.Join(to+"-file")
	for range 2 {
		if err := os.Rename(a, b); err != nil {
			t.Errorf("a rename of a file: %v", err)
		}
		if got, err := os.ReadFile(b); string(got) != "by the mount" {
			t.Errorf("a renamed file: %q, %v", got, err)
		}
		a, b = b, a
	}
	if b, err := os.ReadFile(a); string(b) != "by the mount" {
		t.Errorf("a file that came back: %q, %v", b, err)
	}
}

// uncached reads a file that no worker has as soon as it was renamed into another
// group, where it has another number than the kernel knows.
func uncached(t *testing.T, c *cluster, lead *proc, dir string) {
	t.Helper()
	ways := []string{filepath.Join(dir, "own", "part", "d", "again"), filepath.Join(dir, "own", "once")}
	for i := range 5 {
		c.must(lead, "fs", "free", "/own/part/d")
		for from := range ways {
			if err := os.Rename(ways[from], ways[1-from]); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(ways[1-from]); string(b) != "by the mount" {
				t.Errorf("round %d: %s is %q, %v", i, ways[1-from], b, err)
			}
		}
	}
}

// promised has a group bring a file into its store behind the back, and a job
// load what is there.
func promised(t *testing.T, c *cluster, fs *client.FS, p *proc, store string) {
	t.Helper()
	ctx := ctxFor(t, 2*time.Minute)
	w, err := fs.Create(ctx, client.Path("/g2/async"), client.CreateOptions{WriteType: orca.AsyncThrough})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the promise is kept", func() bool {
		b, _ := os.ReadFile(filepath.Join(store, "async"))
		return string(b) == "later"
	})
	c.must(p, "fs", "free", "/")
	eventually(t, time.Minute, "the worker has freed it", func() bool { return c.must(p, "fs", "location", "/g2/have") == "" })
	c.must(p, "fs", "load", "/g2")
	if out := c.must(p, "fs", "location", "/g2/have"); !strings.Contains(out, "w1") {
		t.Errorf("location: %q", out)
	}
	js, err := fs.Jobs(ctx, client.JobFilter{Kind: client.JobLoad})
	if err != nil || len(js) != 1 || !client.JobEnded(js[0]) {
		t.Errorf("jobs: %v, %v", js, err)
	}
	// One job passes over what lives elsewhere and says so; the command has a job for each.
	id, err := fs.Load(ctx, "/")
	if err != nil {
		t.Fatal(err)
	}
	switch j, err := fs.WaitJob(ctx, id, nil); {
	case err != nil:
		t.Fatal(err)
	case j.FilesFailed != 2 || !slices.ContainsFunc(j.Failures, func(f *jobpb.Failure) bool { return strings.Contains(f.Error, "group 2") }):
		t.Errorf("a load of the first group: %v", j)
	}
	c.must(p, "fs", "free", "/")
	eventually(t, time.Minute, "the worker has freed it", func() bool { return c.must(p, "fs", "location", "/g2/have") == "" })
	c.must(p, "fs", "load", "--bandwidth", "300MB", "/")
	if out := c.must(p, "fs", "location", "/g2/have"); !strings.Contains(out, "w1") {
		t.Errorf("location after a load of /: %q", out)
	}
	if n := strings.Count(c.must(p, "fs", "load", "--progress", "/"), "COMPLETED"); n != 3 {
		t.Errorf("load --progress /: %d of 3 jobs have completed", n)
	}
	if n := strings.Count(c.must(p, "fs", "load", "--progress", "/g2"), "COMPLETED"); n != 1 {
		t.Errorf("load --progress /g2: %d jobs, not that of the part alone", n)
	}
	if ids := strings.Fields(c.must(p, "fs", "load", "--submit", "/")); len(ids) != 3 {
		t.Errorf("load --submit /: %q", ids)
	}
	c.must(p, "fs", "persist", "/")
}

func writeFile(t *testing.T, p, content string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
