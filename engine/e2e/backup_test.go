// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// plant makes a tree with one of everything that a backup has to carry, and
// returns a write session that stays open.
func plant(t *testing.T, fs *client.FS, other string) *client.Writer {
	t.Helper()
	ctx := ctxFor(t, time.Minute)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for d := range 5 {
		for f := range 8 {
			ok(put(ctx, fs, fmt.Sprintf("/d/sub%d/f%d", d, f), fmt.Sprintf("content %d %d", d, f)))
		}
	}
	_, err := fs.Symlink(ctx, client.Path("/d/link"), "sub1/f1")
	ok(err)
	ok(fs.SetXattr(ctx, client.Path("/d/sub1/f1"), "user.color", []byte("blue"), false, false))
	ok(fs.SetXattr(ctx, client.Path("/d/sub2"), "user.dir", []byte("yes"), false, false))
	ok(fs.Pin(ctx, client.Path("/d/sub3"), true))
	ok(fs.Chmod(ctx, client.Path("/d/sub4/f4"), 0o600))
	ok(fs.Chown(ctx, client.Path("/d/sub4/f5"), 1234, 4321))
	_, err = fs.Mount(ctx, &client.Mount{Path: "/other", Uri: other}, true)
	ok(err)
	ok(put(ctx, fs, "/other/x", "in the other store"))
	job, err := fs.Load(ctx, "/d")
	ok(err)
	_, err = fs.WaitJob(ctx, job, nil)
	ok(err)
	w, err := fs.Create(ctx, client.Path("/d/being-written"), client.CreateOptions{})
	ok(err)
	_, err = w.WriteAt([]byte("half"), 0)
	ok(err)
	return w
}

// listing is all below a directory in words, but for what is soft: how much is
// cached, and where.
func listing(t *testing.T, fs *client.FS, dir string) []string {
	t.Helper()
	ctx := ctxFor(t, time.Minute)
	var out []string
	for i, err := range fs.Entries(ctx, client.Path(cmp.Or(dir, "/")), client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		p := dir + "/" + i.Name
		a := i.Attr
		a.CachedBytes = 0
		if i.Type == orca.TypeDir {
			a.Atime = time.Time{} // of its store, when it is listed
		}
		xs, err := fs.ListXattr(ctx, client.Path(p))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(xs)
		out = append(out, fmt.Sprintf("%s %+v xattrs=%v", p, a, xs))
		if i.Type == orca.TypeDir {
			out = append(out, listing(t, fs, p)...)
		}
	}
	return out
}

func same(t *testing.T, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		var a, b string
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			t.Fatalf("line %d of the listing\nwas %s\nis  %s", i, a, b)
		}
	}
}

// backedUp is `orca admin backup --json`.
type backedUp struct {
	File    string                      `json:"file"`
	Cluster string                      `json:"cluster"`
	Node    string                      `json:"node"`
	Total   int64                       `json:"total_records"`
	Records map[string]map[string]int64 `json:"records"`
	Digest  string                      `json:"digest"`
	New     string                      `json:"restored_cluster"`
	Aside   string                      `json:"aside"`
}

func parse(t *testing.T, out string) (b backedUp) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &b); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return b
}

// alone runs a command that needs no server.
func alone(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	return (&proc{t: t}).cli(args...)
}

// TestBackupUnderLoadAndRestore: all that was acknowledged before a backup began
// is in it, whatever went on meanwhile; restored, it is the namespace that it
// was, nothing that was given away after it is given away again, and what has
// changed in the stores since is found.
func TestBackupUnderLoadAndRestore(t *testing.T) {
	root, other, dir := t.TempDir(), t.TempDir(), t.TempDir()
	p := up(t, t.TempDir(), "--root", root, "--mem", "64MB", "--ssd", "256MB")
	fs := p.fs()
	plant(t, fs, other)
	before := listing(t, fs, "/d")

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	begun := make(chan struct{})
	for l := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := put(ctx, fs, fmt.Sprintf("/load/%d/f%d", l, i), "x"); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				if l == 0 && i == 3 {
					close(begun)
				}
			}
		})
	}
	<-begun
	b := parse(t, p.must("admin", "backup", "--json", "--output", dir))
	stop()
	wg.Wait()
	if b.Records["1"]["d"] < 50 || b.Records["1"]["x"] != 2 || b.Records["1"]["m"] != 2 || b.Records["1"]["s"] < 1 || b.Records["1"]["h"] == 0 {
		t.Fatalf("records %v", b.Records)
	}
	if v := parse(t, p.must("admin", "backup", "verify", "--json", b.File)); v.Digest != b.Digest || v.Total != b.Total {
		t.Fatalf("verified %+v, made %+v", v, b)
	}
	if _, errs, code := p.cli("admin", "backup", "--output", b.File); code == 0 || !strings.Contains(errs, "already") {
		t.Fatalf("overwrote a backup: %d %s", code, errs)
	}

	// The time that is lost: a file is overwritten, one made, one removed.
	after := ctxFor(t, time.Minute)
	lost := map[string]string{"/d/sub0/f0": "written after the backup", "/d/sub0/new": "made after the backup"}
	for name, c := range lost {
		if err := put(after, fs, name, c); err != nil {
			t.Fatal(err)
		}
	}
	made, err := fs.Stat(after, client.Path("/d/sub0/new"), client.Sync{})
	if err != nil {
		t.Fatal(err)
	}
	over, err := fs.Stat(after, client.Path("/d/sub0/f0"), client.Sync{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fs.Remove(after, client.Path("/d/sub0/f7"), client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	p.kill()

	data := t.TempDir()
	r := parse(t, must(t, "admin", "restore", b.File, "--data", data, "--json"))
	if r.Cluster != b.Cluster || r.New == b.Cluster || r.New == "" {
		t.Fatalf("restored %+v", r)
	}
	q := up(t, data, "--root", root, "--mem", "64MB", "--ssd", "256MB")
	fs = q.fs()
	got := listing(t, fs, "/d")
	of := func(list []string, but ...string) (out []string) {
		for _, l := range list {
			path, _, _ := strings.Cut(l, " ")
			if !slices.Contains(but, path) {
				out = append(out, l)
			}
		}
		return out
	}
	// What was changed after it, the directory that it was in, and what an open
	// session had are other things.
	changed := []string{"/d/sub0", "/d/sub0/f0", "/d/sub0/new", "/d/sub0/f7", "/d/being-written"}
	same(t, of(before, changed...), of(got, changed...))
	for name, c := range lost {
		if have, err := get(after, fs, name, client.Sync{}); err != nil || have != c {
			t.Errorf("%s: %q, %v", name, have, err)
		}
	}
	if _, err := fs.Stat(after, client.Path("/d/sub0/f7"), client.Sync{}); orca.KindOf(err) != orca.NotFound {
		t.Errorf("a file that was removed from the store: %v", err)
	}
	if have, err := get(after, fs, "/other/x", client.Sync{}); err != nil || have != "in the other store" {
		t.Errorf("the other mount: %q, %v", have, err)
	}
	if v, err := fs.GetXattr(after, client.Path("/d/sub1/f1"), "user.color"); err != nil || string(v) != "blue" {
		t.Errorf("xattr %q, %v", v, err)
	}
	if js, err := fs.Jobs(after, client.JobFilter{}); err != nil || len(js) == 0 {
		t.Errorf("jobs %v, %v", js, err)
	}
	notTwice(t, fs, made, over)
	// The writer is gone, and its name free again.
	eventually(t, time.Minute, "the open session has ended", func() bool {
		rep, err := fs.Report(after)
		return err == nil && rep.Sessions == 0
	})
	if err := put(after, fs, "/d/being-written", "anew"); err != nil {
		t.Error(err)
	}
	// And it goes on from there, across a kill.
	if err := put(after, fs, "/d/after", "restored"); err != nil {
		t.Fatal(err)
	}
	q.kill()
	fs = up(t, data, "--root", root, "--mem", "64MB", "--ssd", "256MB").fs()
	for name, c := range map[string]string{"/d/after": "restored", "/d/sub1/f1": "content 1 1", "/d/being-written": "anew"} {
		if have, err := get(after, fs, name, client.Sync{}); err != nil || have != c {
			t.Errorf("%s after a kill: %q, %v", name, have, err)
		}
	}
}

// notTwice: blocks that workers still have must not be taken for other ones. made
// and over are what was made, and overwritten, after the backup.
func notTwice(t *testing.T, fs *client.FS, made, over client.Info) {
	t.Helper()
	ctx := ctxFor(t, time.Minute)
	if i, err := fs.Stat(ctx, client.Path("/d/sub0/new"), client.Sync{}); err != nil || i.Ino <= made.Ino {
		t.Errorf("inode %v was given away before, as late as %v (%v)", i.Ino, made.Ino, err)
	}
	if i, err := fs.Stat(ctx, client.Path("/d/sub0/f0"), client.Sync{}); err != nil || i.Ino != over.Ino || i.Version <= over.Version {
		t.Errorf("version %d of %v was given away before, as late as %d (%v)", i.Version, i.Ino, over.Version, err)
	}
}

func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := alone(t, args...)
	if code != 0 {
		t.Fatalf("orca %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// TestBadBackupsAreRefused: what is damaged or cut off is neither verified nor
// restored, and nothing is left where it was to be restored.
func TestBadBackupsAreRefused(t *testing.T) {
	p := up(t, t.TempDir(), "--root", t.TempDir(), "--mem", "64MB", "--ssd", "256MB")
	ctx := ctxFor(t, time.Minute)
	for i := range 50 {
		if _, err := p.fs().CreateEmpty(ctx, client.Path(fmt.Sprintf("/f%d", i)), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "good")
	p.must("admin", "backup", "--output", file)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("a backup holds secrets: %v %v", st.Mode(), err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x40
		return b
	}
	for name, tc := range map[string]struct {
		bytes []byte
		says  string
	}{
		"cut in half":        {good[:len(good)/2], "cut off"},
		"no trailer's end":   {good[:len(good)-1], "cut off"},
		"header only":        {good[:8], "cut off"},
		"empty":              {nil, "cut off"},
		"something behind":   {append(bytes.Clone(good), 0), "behind the trailer"},
		"a bit of the data":  {flip(len(good) / 2), "checksum"},
		"a bit of the end":   {flip(len(good) - 10), "checksum"},
		"a later format":     {flip(7), "format"},
		"not a backup":       {[]byte("#!/bin/sh\necho something else\n"), "no backup"},
		"a length too large": {flip(len("orcabak") + 2), "longer than any"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "bad")
			if err := os.WriteFile(bad, tc.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, errs, code := alone(t, "admin", "backup", "verify", bad); code == 0 || !strings.Contains(errs, tc.says) {
				t.Errorf("verify: exit %d, %s", code, errs)
			}
			data := t.TempDir()
			if _, errs, code := alone(t, "admin", "restore", bad, "--data", data); code == 0 || !strings.Contains(errs, tc.says) {
				t.Errorf("restore: exit %d, %s", code, errs)
			}
			if left, _ := filepath.Glob(filepath.Join(data, "meta*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	data := t.TempDir()
	must(t, "admin", "restore", file, "--data", data)
	if _, errs, code := alone(t, "admin", "restore", file, "--data", data); code == 0 || !strings.Contains(errs, "--replace") {
		t.Errorf("restored over a state: exit %d, %s", code, errs)
	}
	if r := parse(t, must(t, "admin", "restore", file, "--data", data, "--replace", "--json")); r.Aside == "" {
		t.Errorf("not put aside: %+v", r)
	} else if _, err := os.Stat(filepath.Join(r.Aside, "FORMAT")); err != nil {
		t.Error(err)
	}
	if _, errs, code := p.cli("admin", "restore", file, "--data", p.data, "--replace"); code == 0 || !strings.Contains(errs, "uses this data folder") {
		t.Errorf("restored below a running orca: exit %d, %s", code, errs)
	}
}

// TestKilledBackupAndRestore: kill -9 in the middle of either leaves nothing
// that is taken for a whole one.
func TestKilledBackupAndRestore(t *testing.T) {
	p := up(t, t.TempDir(), "--root", t.TempDir(), "--mem", "64MB", "--ssd", "256MB")
	ctx := ctxFor(t, time.Minute)
	if _, err := p.fs().CreateEmpty(ctx, client.Path("/here"), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "b")
	cmd := exec.Command(orcaBin, "admin", "backup", "--output", file, "--rate", "1")
	cmd.Env = append(os.Environ(), "ORCA_ADDRESS="+p.ep.MetaSocket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the backup has begun", func() bool {
		part, _ := filepath.Glob(filepath.Join(dir, ".orca-backup-*"))
		if len(part) == 0 {
			return false
		}
		st, err := os.Stat(part[0])
		return err == nil && st.Size() > 0
	})
	cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	part, _ := filepath.Glob(filepath.Join(dir, ".orca-backup-*"))
	if _, err := os.Stat(file); err == nil || len(part) != 1 {
		t.Fatalf("a killed backup: %v, %v", err, part)
	}
	if _, errs, code := alone(t, "admin", "backup", "verify", part[0]); code == 0 || !strings.Contains(errs, "cut off") {
		t.Fatalf("half a backup verifies: %d %s", code, errs)
	}
	p.must("admin", "backup", "--output", file)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	// Restores that are killed at any time: the start is refused, or all is there.
	refused, whole, whenKilled := 0, 0, time.Duration(0)
	for range 8 {
		data := t.TempDir()
		cmd := exec.Command(orcaBin, "admin", "restore", file, "--data", data)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(whenKilled, func() { cmd.Process.Signal(syscall.SIGKILL) })
		cmd.Wait()
		timer.Stop()
		whenKilled += 15 * time.Millisecond
		if _, err := os.Stat(filepath.Join(data, "meta", "FORMAT")); err == nil {
			whole++
			continue
		}
		if left, _ := filepath.Glob(filepath.Join(data, "meta.restoring")); len(left) == 0 {
			continue // it had not begun
		}
		refused++
		if _, errs, code := alone(t, "up", "--data", data, "--meta-addr", "127.0.0.1:0", "--web-addr", ""); code == 0 || !strings.Contains(errs, "interrupted") {
			t.Fatalf("started on half a restore: %d %s", code, errs)
		}
		must(t, "admin", "restore", file, "--data", data)
	}
	t.Logf("%d restores were killed in the middle, %d were whole", refused, whole)

	// The same without chance.
	data := t.TempDir()
	if err := os.MkdirAll(filepath.Join(data, "meta.restoring", "store-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := alone(t, "up", "--data", data, "--meta-addr", "127.0.0.1:0", "--web-addr", ""); code == 0 || !strings.Contains(errs, "interrupted") {
		t.Fatalf("started on half a restore: %d %s", code, errs)
	}
	must(t, "admin", "restore", file, "--data", data)
	q := up(t, data, "--mem", "64MB", "--ssd", "256MB")
	if _, err := q.fs().Stat(ctx, client.Path("/here"), client.Sync{}); err != nil {
		t.Fatal(err)
	}
}

// TestBackupOfThreeAndRestoreOfThree backs up a follower of a cluster under load
// and begins a new cluster of three with it.
func TestBackupOfThreeAndRestoreOfThree(t *testing.T) {
	c := startCluster(t)
	fs := c.fs()
	ctx := ctxFor(t, 2*time.Minute)
	for i := range 20 {
		if _, err := fs.CreateEmpty(ctx, client.Path(fmt.Sprintf("/f%d", i)), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
			t.Fatal(err)
		}
	}
	lead := c.leader(fs)
	file := filepath.Join(t.TempDir(), "b")
	b := parse(t, c.must(c.nodes[lead], "admin", "backup", "--json", "--output", file))
	if b.Node == lead || b.Node == "" {
		t.Errorf("the leader %s has made the backup: %q", lead, b.Node)
	}
	var check checkpoint
	dec := json.NewDecoder(strings.NewReader(c.must(c.nodes[lead], "admin", "journal", "checkpoint", "--json")))
	n := 0
	for ; dec.Decode(&check) == nil; n++ {
		if check.Index == 0 {
			t.Errorf("checkpoint %+v", check)
		}
	}
	if n != 3 {
		t.Errorf("%d members have cut their journal", n)
	}
	want := listing(t, fs, "")
	for n := range c.nodes {
		c.kill(n)
	}

	names := []string{"a", "b", "c"}
	next := &cluster{t: t, root: c.root, raft: map[string]string{}, meta: map[string]string{}, data: map[string]string{}, nodes: map[string]*proc{}}
	var peers []string
	for _, n := range names {
		next.raft[n], next.meta[n], next.data[n] = fixedAddr(t), fixedAddr(t), t.TempDir()
		peers = append(peers, n+"="+next.raft[n])
	}
	var made []string
	for _, n := range names {
		r := parse(t, must(t, "admin", "restore", file, "--json", "--data", next.data[n], "--node", n, "--peers", strings.Join(peers, ",")))
		made = append(made, r.New)
	}
	if slices.Sort(made); made[0] != made[2] || made[0] == b.Cluster {
		t.Fatalf("identities %v, was %s", made, b.Cluster)
	}
	var ready []<-chan struct{}
	for _, n := range names {
		ready = append(ready, next.launch(n, "--peers", strings.Join(peers, ",")))
	}
	for i, n := range names {
		next.await(n, ready[i])
	}
	fs = next.fs()
	same(t, want, listing(t, fs, ""))
	if _, err := fs.CreateEmpty(ctx, client.Path("/more"), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	// A member that begins with nothing, under the same list, is a stranger.
	dead := "a"
	if next.leader(fs) == dead {
		dead = "b"
	}
	next.kill(dead)
	stranger := t.TempDir()
	next.data[dead] = stranger
	next.launch(dead, "--root", next.root, "--peers", strings.Join(peers, ","))
	select {
	case err := <-next.nodes[dead].exit:
		next.nodes[dead].exit <- err
		if err == nil || !strings.Contains(next.nodes[dead].output(), "cluster") {
			t.Errorf("a stranger: %v\n%s", err, next.nodes[dead].output())
		}
	case <-time.After(time.Minute):
		t.Error("a member without the state takes part")
	}
	if _, err := fs.Stat(ctx, client.Path("/more"), client.Sync{}); err != nil {
		t.Fatal(err)
	}
}

// checkpoint is a line of `orca admin journal checkpoint --json`.
type checkpoint struct {
	Replica, Index, First, Last uint64
}

// TestJournalDump: what the journal shows of a running member is what it shows
// when the member is stopped; its folder is left as it was; secrets stay hidden.
func TestJournalDump(t *testing.T) {
	p := up(t, t.TempDir(), "--root", t.TempDir(), "--mem", "64MB", "--ssd", "256MB")
	ctx := ctxFor(t, time.Minute)
	fs := p.fs()
	if _, err := fs.Mkdir(ctx, client.Path("/dumped"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.CreateEmpty(ctx, client.Path("/dumped/f"), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	live := p.must("admin", "journal", "dump")
	if !strings.Contains(live, "\tmkdir\t") || !strings.Contains(live, "\tcreate\t") || !strings.Contains(live, "dumped") {
		t.Fatalf("journal\n%s", live)
	}
	first, _, _ := strings.Cut(live, "\t")
	if one := p.must("admin", "journal", "dump", "--to", first); strings.Count(one, "\n") != 1 {
		t.Errorf("one entry: %s", one)
	}
	if _, errs, code := alone(t, "admin", "journal", "dump", "--data", p.data); code == 0 || !strings.Contains(errs, "another process") {
		t.Errorf("dumped the folder of a running member: %d %s", code, errs)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	before := tree(t, filepath.Join(p.data, "meta"))
	stopped := must(t, "admin", "journal", "dump", "--data", p.data, "--state")
	if !strings.Contains(stopped, strings.TrimSpace(live)) {
		t.Errorf("stopped:\n%s\nrunning:\n%s", stopped, live)
	}
	for _, want := range []string{"d\tdentry\t", "n\tdirectory\t", "k\tcounters\t", "m\tmount\t", `"grant.key"}` + "\t\"******\""} {
		if !strings.Contains(stopped, want) {
			t.Errorf("no %q in\n%s", want, stopped)
		}
	}
	if after := tree(t, filepath.Join(p.data, "meta")); !slices.Equal(before, after) {
		t.Errorf("the folder was %v, is %v", before, after)
	}
	for line := range strings.Lines(must(t, "admin", "journal", "dump", "--data", p.data, "--state", "--json")) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if _, errs, code := alone(t, "admin", "journal", "dump", "--data", t.TempDir()); code == 0 || !strings.Contains(errs, "no member") {
		t.Errorf("dumped nothing: %d %s", code, errs)
	}
	up(t, p.data, "--mem", "64MB", "--ssd", "256MB")
}

// tree lists what is below a folder, with sizes.
func tree(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			out = append(out, fmt.Sprintf("%s %d", p, st.Size()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestGroupsAreBackedUpAndRestored: a metaplane of several groups is one backup,
// and comes back with all of them, alone and as a cluster's first member would
// have it; each group's journal is to be seen, running or stopped.
func TestGroupsAreBackedUpAndRestored(t *testing.T) {
	root, other, dir := t.TempDir(), t.TempDir(), t.TempDir()
	p := up(t, t.TempDir(), "--root", root, "--mem", "64MB", "--ssd", "256MB")
	fs, ctx := p.fs(), ctxFor(t, 2*time.Minute)
	p.must("admin", "group", "add")
	p.must("admin", "group", "add")
	p.must("fs", "mount", "--group", "3", "/g3", other)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(put(ctx, fs, "/first", "of the first group"))
	ok(put(ctx, fs, "/g3/d/f", "of the third"))
	ok(fs.Chmod(ctx, client.Path("/g3/d/f"), 0o640))
	ok(fs.SetXattr(ctx, client.Path("/g3/d"), "user.color", []byte("blue"), false, false))
	before := listing(t, fs, "/g3")
	b := parse(t, p.must("admin", "backup", "--json", "--output", dir))
	if len(b.Records) != 3 || b.Records["3"]["d"] < 2 {
		t.Fatalf("records %v", b.Records)
	}
	cut := p.must("admin", "journal", "checkpoint")
	if strings.Count(strings.TrimSpace(cut), "\n") != 2 {
		t.Errorf("not one line per group:\n%s", cut)
	}
	if d := p.must("admin", "journal", "dump", "--group", "3"); !strings.Contains(d, "user.color") {
		t.Errorf("journal of the third group:\n%s", d)
	}
	ok(put(ctx, fs, "/g3/d/late", "after the backup"))
	late, err := fs.Stat(ctx, client.Path("/g3/d/late"), client.Sync{})
	ok(err)
	p.kill()
	if d := must(t, "admin", "journal", "dump", "--data", p.data, "--group", "3", "--state"); !strings.Contains(d, "user.color") || !strings.Contains(d, "group 3") {
		t.Errorf("journal of the third group, stopped:\n%s", d)
	}
	if _, errs, code := alone(t, "admin", "journal", "dump", "--data", p.data, "--group", "4"); code == 0 || !strings.Contains(errs, "no group 4") {
		t.Errorf("a group that there is not: %d %s", code, errs)
	}

	data := t.TempDir()
	must(t, "admin", "restore", b.File, "--data", data)
	q := up(t, data, "--root", root, "--mem", "64MB", "--ssd", "256MB")
	fs = q.fs()
	for name, c := range map[string]string{"/first": "of the first group", "/g3/d/f": "of the third", "/g3/d/late": "after the backup"} {
		if have, err := get(ctx, fs, name, client.Sync{}); err != nil || have != c {
			t.Errorf("%s: %q, %v", name, have, err)
		}
	}
	changed := []string{"/g3/d", "/g3/d/late"}
	keep := func(list []string) (out []string) {
		for _, l := range list {
			if path, _, _ := strings.Cut(l, " "); !slices.Contains(changed, path) {
				out = append(out, l)
			}
		}
		return out
	}
	same(t, keep(before), keep(listing(t, fs, "/g3")))
	if v, err := fs.GetXattr(ctx, client.Path("/g3/d"), "user.color"); err != nil || string(v) != "blue" {
		t.Errorf("xattr %q, %v", v, err)
	}
	if i, err := fs.Stat(ctx, client.Path("/g3/d/late"), client.Sync{}); err != nil || i.Ino <= late.Ino || i.Ino.Group() != 3 {
		t.Errorf("inode %v was given away before, as late as %v (%v)", i.Ino, late.Ino, err)
	}
	// It goes on: the mount leaves and comes back, a new group is added.
	q.must("fs", "unmount", "/g3")
	q.must("fs", "mount", "--group", "2", "/g2", other)
	if out := q.must("admin", "group", "add"); !strings.HasPrefix(out, "group 4 ") {
		t.Errorf("group add: %q", out)
	}
	if have, err := get(ctx, fs, "/g2/d/f", client.Sync{}); err != nil || have != "of the third" {
		t.Errorf("mounted anew: %q, %v", have, err)
	}
}
