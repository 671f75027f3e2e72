// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// regrouping is a directory that moves to another group while it is used.
type regrouping struct {
	t      *testing.T
	c      *cluster
	dir    string
	want   map[string]string // path → content, of what was there before
	stop   chan struct{}
	wg     sync.WaitGroup
	uses   int
	reads  atomic.Int64
	writes atomic.Int64
	longms atomic.Int64 // the longest wait of a write

	mu   sync.Mutex
	made map[string]string // GUARDED_BY(mu)
}

// furnish has the store hold n files in directories of 100, which are listed
// once.
func furnish(t *testing.T, c *cluster, fs *client.FS, dir string, n int) *regrouping {
	t.Helper()
	r := &regrouping{t: t, c: c, dir: dir, want: map[string]string{}, made: map[string]string{}}
	for i := range n {
		p := fmt.Sprintf("%s/d%d/f%d", dir, i/100, i)
		r.want[p] = "content of " + p
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(c.root, p)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		writeFile(t, filepath.Join(c.root, p), r.want[p])
	}
	ctx := ctxFor(t, 3*time.Minute)
	if err := patiently(ctx, func() error { _, err := fs.Sync(ctx, client.Path(dir), true); return err }); err != nil {
		t.Fatal(err)
	}
	return r
}

// use reads and writes below the directory until end.
func (r *regrouping) use() {
	r.t.Helper()
	r.uses++
	r.stop = make(chan struct{})
	reads, writes := r.reads.Load(), r.writes.Load()
	paths := make([]string, 0, len(r.want))
	for p := range r.want {
		paths = append(paths, p)
	}
	for i := range 3 {
		fs := r.c.fs()
		r.wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			r.loop(func(ctx context.Context, _ int) error {
				p, got := paths[rnd.IntN(len(paths))], ""
				err := patiently(ctx, func() (err error) { got, err = get(ctx, fs, p, client.Sync{}); return err })
				if err == nil && got != r.want[p] {
					err = fmt.Errorf("%s: %q", p, got)
				}
				r.reads.Add(1)
				return err
			})
		})
	}
	for i := range 3 {
		fs := r.c.fs()
		r.wg.Go(func() {
			r.loop(func(ctx context.Context, n int) error {
				p := fmt.Sprintf("%s/d%d/w%d-%d-%d", r.dir, n%10, r.uses, i, n)
				began := time.Now()
				err := patiently(ctx, func() error { return put(ctx, fs, p, "written to "+p) })
				r.longms.Store(max(r.longms.Load(), time.Since(began).Milliseconds()))
				if err == nil {
					r.mu.Lock()
					r.made[p] = "written to " + p
					r.mu.Unlock()
					r.writes.Add(1)
				}
				return err
			})
		})
	}
	eventually(r.t, time.Minute, "it is used", func() bool {
		return r.t.Failed() || r.writes.Load() > writes+20 && r.reads.Load() > reads+20
	})
}

func (r *regrouping) loop(do func(ctx context.Context, n int) error) {
	for n := 0; ; n++ {
		select {
		case <-r.stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		err := do(ctx, n)
		cancel()
		if err != nil {
			r.t.Errorf("while it moves: %v", err)
			return
		}
	}
}

// leader is the node that leads a group.
func (r *regrouping) leader(fs *client.FS, group uint16) (node string) {
	r.t.Helper()
	eventually(r.t, time.Minute, "all groups are led", func() bool {
		if g := r.c.leaders(fs)[group]; g != nil {
			node = g.Leader.Node
		}
		return node != ""
	})
	return node
}

// begin begins the move, which writers must not keep from beginning.
func (r *regrouping) begin(fs *client.FS, group uint16) {
	r.t.Helper()
	ctx := ctxFor(r.t, 2*time.Minute)
	if err := patiently(ctx, func() error { _, err := fs.Regroup(ctx, r.dir, group); return err }); err != nil {
		r.t.Fatal(err)
	}
}

// end waits for the end of the move and looks at everything.
func (r *regrouping) end(fs *client.FS, group uint16) {
	r.t.Helper()
	ctx := ctxFor(r.t, 4*time.Minute)
	eventually(r.t, 2*time.Minute, "it has moved", func() bool {
		g, err := fs.Regrouping(ctx, r.dir)
		if err == nil && !g.Moving && g.Group != group {
			r.t.Fatalf("it stays: %s", g.Problem)
		}
		return err == nil && g.Group == group && !g.Moving
	})
	n := r.writes.Load()
	eventually(r.t, 2*time.Minute, "writers go on", func() bool { return r.t.Failed() || r.writes.Load() > n+20 })
	close(r.stop)
	r.wg.Wait()
	r.t.Logf("%d reads, %d writes meanwhile, the longest in %d ms", r.reads.Load(), r.writes.Load(), r.longms.Load())
	r.longms.Store(0)
	for p, content := range r.made {
		r.want[p] = content
	}
	got := map[string]string{}
	for p, content := range orcaTree(r.t, r.c.fs(), client.SyncNever()) {
		if strings.HasPrefix(p, r.dir+"/") {
			got[p] = content
		}
	}
	for p, want := range r.want {
		if content, ok := got[p]; !ok || content != want {
			r.t.Errorf("%s: %q, %v", p, content, ok)
		}
		if b, err := os.ReadFile(filepath.Join(r.c.root, p)); err != nil || string(b) != want {
			r.t.Errorf("the store has of %s: %q, %v", p, b, err)
		}
	}
	i, err := fs.Stat(ctx, client.Path(r.dir+"/d0/f0"), client.SyncNever())
	if err != nil || i.Ino.Home() != group {
		r.t.Errorf("f0 is %v, %v", i.Ino, err)
	}
	u, err := fs.Usage(ctx, client.Path(r.dir))
	if files := int64(len(r.want)); err != nil || u.Files < files || u.Files > files+int64(6*r.uses) { // of a write that was not acknowledged
		r.t.Errorf("%d files, want %d, %v", u.Files, files, err)
	}
}

// TestADirectoryMovesToAGroup moves directories to another group on three
// processes, from that to a third one and back to the first, while they are read
// and written, and kills the leader of the first group, or of the other that is
// concerned, in the middle: every file is there, with its content, also what was
// written meanwhile.
func TestADirectoryMovesToAGroup(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	p := c.nodes[c.leader(fs)]
	c.must(p, "admin", "group", "add")
	c.must(p, "admin", "group", "add")
	c.spread(fs, 3)
	for _, kills := range []string{"nobody", "the first", "the other"} {
		t.Run("kill "+kills, func(t *testing.T) {
			r := furnish(t, c, fs, "/moves "+kills, 2000)
			for _, move := range []struct{ to, other uint16 }{{2, 2}, {3, 2}, {1, 3}} {
				r.use()
				r.begin(fs, move.to)
				var dead string
				switch kills {
				case "the first":
					dead = r.leader(fs, 1)
				case "the other":
					dead = r.leader(fs, move.other)
				}
				if dead != "" {
					c.kill(dead)
				}
				r.end(fs, move.to)
				if dead != "" {
					c.restart(dead)
				}
			}
		})
	}
	// The command line waits for the end, and says what it was.
	for _, n := range firstMembers {
		p = c.nodes[n]
	}
	r := furnish(t, c, fs, "/small", 100)
	dir := c.fuse(p)
	open, err := os.Open(filepath.Join(dir, "small/d0/f7"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := os.ReadDir(filepath.Join(dir, "small/d0")); err != nil {
		t.Fatal(err)
	}
	// So does a mount, with what it had open and had looked up.
	for i, group := range []string{"2", "3", "1", "2"} {
		c.must(p, "fs", "regroup", "--group", group, "/small")
		if _, err := open.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(open); err != nil || string(b) != r.want["/small/d0/f7"] {
			t.Errorf("open, in group %s: %q, %v", group, b, err)
		}
		was := fmt.Sprintf("/small/d0/f%d", 8+i)
		made := fmt.Sprintf("small/d0/new%d", i)
		eventually(t, time.Minute, "the mount reads and writes in group "+group, func() bool {
			b, err := os.ReadFile(filepath.Join(dir, was))
			return err == nil && string(b) == r.want[was] && os.WriteFile(filepath.Join(dir, made), []byte("x"), 0o644) == nil
		})
		if b, err := os.ReadFile(filepath.Join(c.root, made)); string(b) != "x" {
			t.Errorf("the store has %q, %v", b, err)
		}
		eventually(t, time.Minute, "it is closed", func() bool { // what the mount writes is complete when it says so, or soon after
			i, err := fs.Stat(ctxFor(t, time.Minute), client.Path("/"+made), client.SyncNever())
			return err == nil && i.Ino.Home() == uint16(group[0]-'0')
		})
	}
	if out := c.must(p, "fs", "ls", "/"); !strings.Contains(out, "/small -> group 2") {
		t.Errorf("ls: %q", out)
	}
	c.must(p, "fs", "regroup", "--group", "2", "/small")
	if _, e, code := p.cli("fs", "regroup", "--group", "9", "/moves nobody"); code == 0 || !strings.Contains(e, "no group 9") {
		t.Errorf("exit %d, %q", code, e)
	}
	if _, e, code := p.cli("fs", "regroup", "/small"); code == 0 || !strings.Contains(e, "--group or --abort") {
		t.Errorf("exit %d, %q", code, e)
	}
	if _, e, code := p.cli("fs", "regroup", "--abort", "/small"); code == 0 || !strings.Contains(e, "File exists") {
		t.Errorf("exit %d, %q", code, e)
	}
	if err := patiently(ctxFor(t, time.Minute), func() error {
		_, err := fs.Regroup(ctxFor(t, time.Minute), "/small/d0/f0", 2)
		return err
	}); orca.KindOf(err) != orca.Unsupported {
		t.Errorf("a file in it: %v", err)
	}
}
