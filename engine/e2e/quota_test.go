// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestQuota limits a directory, and comes up against the limits through a
// mount, the command line and the Go client; what a store has is counted, and
// a kill changes nothing of it.
func TestQuota(t *testing.T) {
	root, data, mnt := t.TempDir(), t.TempDir(), t.TempDir()
	t.Cleanup(func() { syscall.Unmount(mnt, syscall.MNT_DETACH) })
	p := up(t, data, "--root", root, "--mount", mnt)
	team := filepath.Join(mnt, "team")
	p.must("fs", "mkdir", "/team", "/other")
	p.must("fs", "quota", "set", "--bytes", "1MB", "--inodes", "4", "/team")

	big := bytes.Repeat([]byte("x"), 600_000)
	write := func(name string, b []byte, want error) {
		t.Helper()
		err := os.WriteFile(filepath.Join(team, name), b, 0o644)
		if !errors.Is(err, want) {
			t.Fatalf("write %s: %v, want %v", name, err, want)
		}
		_, err = os.Stat(filepath.Join(root, "team", name))
		if want != nil && err == nil {
			if i, _ := os.Stat(filepath.Join(root, "team", name)); i.Size() != 0 {
				t.Fatalf("%s was refused, and is in the store all the same", name)
			}
		} else if want == nil && err != nil {
			t.Fatal(err)
		}
	}
	write("a", big, nil)
	write("b", big, syscall.EDQUOT)
	var st syscall.Statfs_t
	if err := syscall.Statfs(team, &st); err != nil {
		t.Fatal(err)
	}
	if total, free := int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize; total != 1_000_000/4096*4096 || free != 400_000/4096*4096 || st.Files != 4 || st.Ffree > 3 {
		t.Errorf("df shows %d of %d bytes free, %d of %d inodes", free, total, st.Ffree, st.Files)
	}
	if err := syscall.Statfs(filepath.Join(mnt, "other"), &st); err != nil || int64(st.Blocks)*st.Bsize < 1<<40 {
		t.Errorf("df elsewhere shows %d bytes (%v)", int64(st.Blocks)*st.Bsize, err)
	}
	for _, d := range []string{"d", "e", "f"} {
		if err := os.Mkdir(filepath.Join(team, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(team, "g"), 0o755); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("the fifth name: %v, want EDQUOT", err)
	}
	write("g", nil, syscall.EDQUOT)
	if err := os.Symlink("x", filepath.Join(team, "l")); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("a link: %v, want EDQUOT", err)
	}
	if err := os.Rename(filepath.Join(team, "d"), filepath.Join(team, "e", "d")); err != nil {
		t.Error(err)
	}
	quotaByCLI(t, p, team)
	quotaOfLongFiles(t, p)

	// What is acknowledged, and what is below directories, survives kill -9.
	before := p.must("fs", "quota", "ls", "--json") + p.must("fs", "count", "/", "/team") + p.must("fs", "du", "--known", "/team")
	p.kill()
	syscall.Unmount(mnt, syscall.MNT_DETACH)
	p = up(t, data, "--root", root, "--mount", mnt)
	if after := p.must("fs", "quota", "ls", "--json") + p.must("fs", "count", "/", "/team") + p.must("fs", "du", "--known", "/team"); after != before {
		t.Errorf("before the kill:\n%s\nafter:\n%s", before, after)
	}

	// What a store has is counted, whatever the limit.
	if err := os.WriteFile(filepath.Join(root, "team", "stranger"), big, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.fs().Sync(ctxFor(t, time.Minute), client.Path("/team"), true); err != nil {
		t.Fatal(err)
	}
	if out := p.must("fs", "quota", "ls", "/team"); !strings.HasPrefix(out, "1200000\t1000000\t120%\t4\t4\t100%\t/team") {
		t.Errorf("quota ls: %q", out)
	}
	write("g", nil, syscall.EDQUOT)
	if err := os.Remove(filepath.Join(team, "stranger")); err != nil {
		t.Error(err)
	}
	p.must("fs", "quota", "clear", "/team")
	write("g", big, nil)
	if out := p.must("fs", "quota", "ls"); out != "" {
		t.Errorf("quota ls after clear: %q", out)
	}
	if p.metric("orca_meta_quota_refusals_total") == 0 {
		t.Error("orca_meta_quota_refusals_total counts nothing")
	}
}

// quotaByCLI comes up against the limits of /team with the command line and
// the client: it has 600,000 of 1,000,000 bytes and 4 of 4 inodes.
func quotaByCLI(t *testing.T, p *proc, team string) {
	local := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(local, make([]byte, 500_000), 0o644); err != nil {
		t.Fatal(err)
	}
	const sentence = "Disk quota exceeded: the quota of /team is "
	refused := func(args ...string) {
		t.Helper()
		o, e, code := p.cli(args...)
		if code != 1 || !strings.Contains(e, sentence) {
			t.Errorf("orca %s: exit %d\n%s%s", strings.Join(args, " "), code, o, e)
		}
	}
	refused("fs", "mkdir", "/team/x")
	refused("fs", "touch", "/team/x")
	refused("fs", "cp", "file://"+local, "/team/x")
	if err := os.Remove(filepath.Join(team, "f")); err != nil {
		t.Fatal(err)
	}
	blocks := p.metric("orca_tier_blocks")
	for _, w := range []string{"CACHE_THROUGH", "ASYNC_THROUGH", "THROUGH", "MUST_CACHE"} {
		refused("fs", "cp", "--write-type", w, "file://"+local, "/team/x")
		// Whose length is not known before is refused at the end.
		ctx := ctxFor(t, time.Minute)
		wt, _ := orca.ParseWriteType(w)
		f, err := p.fs().Create(ctx, client.Path("/team/x"), client.CreateOptions{WriteType: wt})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 500_000)); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); !errors.Is(err, orca.OverQuota) {
			t.Errorf("%s: close: %v, want over quota", w, err)
		}
	}
	eventually(t, time.Minute, "the blocks of what was refused leave", func() bool { return p.metric("orca_tier_blocks") == blocks })
	p.must("fs", "mv", "/team/a", "/other/a")
	p.must("fs", "cp", "file://"+local, "/team/x")
	refused("fs", "mv", "/other/a", "/team/a")
	p.must("fs", "rm", "/team/x")
	p.must("fs", "mv", "/other/a", "/team/a")
	for _, bad := range [][]string{
		{"fs", "quota", "set", "/team"}, {"fs", "quota", "set", "--bytes", "-1", "/team"}, {"fs", "quota", "set", "--inodes", "many", "/team"},
		{"fs", "quota", "set", "--bytes", "0", "/team"}, {"fs", "quota", "set", "--bytes", "1GB"}, {"fs", "quota", "what"},
	} {
		if o, e, code := p.cli(bad...); code != 2 || e == "" {
			t.Errorf("orca %s: exit %d\n%s%s", strings.Join(bad, " "), code, o, e)
		}
	}
	if _, e, code := p.cli("fs", "quota", "set", "--bytes", "1GB", "/team/a", "/nope"); code != 1 || !strings.Contains(e, "'/team/a': Not a directory") || !strings.Contains(e, "'/nope': No such file") {
		t.Errorf("quota of a file, and of nothing: exit %d, %s", code, e)
	}
}

// quotaOfLongFiles writes files so long that a writer asks before it goes on:
// it is refused as soon as there is no room, and counts what it replaces.
func quotaOfLongFiles(t *testing.T, p *proc) {
	ctx := ctxFor(t, time.Minute)
	p.must("fs", "mkdir", "/long")
	p.must("fs", "quota", "set", "--bytes", "70MB", "/long")
	at := func(f *client.Writer, off int64, want error) {
		t.Helper()
		if _, err := f.WriteAt([]byte("x"), off); !errors.Is(err, want) {
			t.Fatalf("write at %d: %v, want %v", off, err, want)
		}
	}
	for _, base := range []int64{0, 66_000_000} { // what the file has before
		f, err := p.fs().Create(ctx, client.Path("/long/f"), client.CreateOptions{WriteType: orca.MustCache, Overwrite: true})
		if err != nil {
			t.Fatal(err)
		}
		at(f, 100_000_000, orca.OverQuota)
		at(f, 69_000_000, nil)
		at(f, 70_000_000, orca.OverQuota)
		at(f, 69_500_000, nil)
		if err := f.Truncate(ctx, 66_000_000); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatalf("over %d bytes: %v", base, err)
		}
	}
	p.must("fs", "rm", "-R", "/long")
}
