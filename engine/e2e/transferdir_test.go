// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// goingDir is a directory that goes to and fro between /m/1 and /m/2 while it is
// read and written.
type goingDir struct {
	t      *testing.T
	name   string
	store  string
	files  map[string]string // path below it → content
	at     string            // "1" or "2"; of who moves it
	moves  int
	reads  atomic.Int64
	writes atomic.Int64

	mu   sync.Mutex
	made map[string]string // GUARDED_BY(mu)
}

func (d *goingDir) in(group string) string { return "/m/" + group + "/" + d.name }

func other(group string) string { return map[string]string{"1": "2", "2": "1"}[group] }

// move renames it, by the mount if there is one.
func (d *goingDir) move(ctx context.Context, fs *client.FS, mnt string) {
	from, to := d.at, other(d.at)
	var err error
	if mnt != "" {
		err = os.Rename(filepath.Join(mnt, d.in(from)), filepath.Join(mnt, d.in(to)))
	} else {
		err = fs.Rename(ctx, client.Path(d.in(from)), client.Path(d.in(to)), true)
	}
	switch {
	case err == nil:
		d.moves++
		d.at = to
		return
	case mnt == "" && !orca.KindOf(err).Retryable():
		d.t.Errorf("%s to %s: %v", d.in(from), to, err)
	}
	// What came of it is not known yet; then it is at one of the two.
	eventually(d.t, 2*time.Minute, "it is known where "+d.name+" is", func() bool {
		_, gone := fs.Stat(ctx, client.Path(d.in(from)), client.Sync{})
		_, err := fs.Stat(ctx, client.Path(d.in(to)), client.Sync{})
		if orca.KindOf(gone) == orca.NotFound && err == nil {
			d.at = to
			return true
		}
		return gone == nil && orca.KindOf(err) == orca.NotFound
	})
}

// read reads files wherever they are.
func (d *goingDir) read(ctx context.Context, fs *client.FS, stop chan struct{}) {
	for {
		for p, want := range d.files {
			select {
			case <-stop:
				return
			default:
			}
			for _, g := range []string{"1", "2"} {
				got, err := get(ctx, fs, d.in(g)+"/"+p, client.Sync{})
				switch k := orca.KindOf(err); {
				case err == nil && got != want:
					d.t.Errorf("%s: %q", p, got)
					return
				case err == nil:
					d.reads.Add(1)
				case k != orca.NotFound && k != orca.Stale && !k.Retryable():
					d.t.Errorf("%s: %v", p, err)
					return
				}
			}
		}
	}
}

// write makes files where the directory is.
func (d *goingDir) write(ctx context.Context, fs *client.FS, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		p := fmt.Sprintf("s%d/w%d", n%3, n)
		for _, g := range []string{"1", "2"} {
			err := putNew(ctx, fs, d.in(g)+"/"+p, "written "+p)
			if err == nil {
				d.mu.Lock()
				d.made[p] = "written " + p
				d.mu.Unlock()
				d.writes.Add(1)
				break
			}
			if k := orca.KindOf(err); k == orca.NotFound {
				continue
			} else if !k.Retryable() && k != orca.Stale && k != orca.SessionExpired {
				d.t.Errorf("%s: %v", p, err)
				return
			}
			break // what came of it is not known
		}
	}
}

// putNew is put without the directories above.
func putNew(ctx context.Context, fs *client.FS, p, content string) error {
	w, err := fs.Create(ctx, client.Path(p), client.CreateOptions{})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		_ = w.Abort()
		return err
	}
	return w.Close()
}

// check looks at everything once it is at rest.
func (d *goingDir) check(ctx context.Context, fs *client.FS) {
	d.t.Helper()
	for _, gone := range []string{d.in(other(d.at)), filepath.Join(d.store, other(d.at), d.name)} {
		var err error
		if gone[:3] == "/m/" {
			_, err = fs.Stat(ctx, client.Path(gone), client.Sync{})
		} else {
			_, err = os.Stat(gone)
		}
		if orca.KindOf(err) != orca.NotFound && !os.IsNotExist(err) {
			d.t.Errorf("%s is there as well: %v", gone, err)
		}
	}
	for p, content := range d.made {
		d.files[p] = content
	}
	for p, want := range d.files {
		if got, err := get(ctx, fs, d.in(d.at)+"/"+p, client.Sync{}); err != nil || got != want {
			d.t.Errorf("%s: %q, %v", d.in(d.at)+"/"+p, got, err)
		}
		if b, err := os.ReadFile(filepath.Join(d.store, d.at, d.name, p)); err != nil || string(b) != want {
			d.t.Errorf("the store has of %s: %q, %v", d.in(d.at)+"/"+p, b, err)
		}
	}
	d.t.Logf("%s: %d moves, %d reads, %d writes", d.name, d.moves, d.reads.Load(), d.writes.Load())
	if d.moves == 0 || d.reads.Load() == 0 || d.writes.Load() == 0 {
		d.t.Errorf("%s was not moved, read and written", d.name)
	}
}

// TestDirectoryTransfers renames directories to and fro between those of two
// groups, by clients and by a mount, while they are read and written and the
// leaders of both groups are killed: each is at one name in the end, with all that
// was in it and was written to it, and the store has it there and nowhere else.
func TestDirectoryTransfers(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	lead := c.nodes[c.leader(fs)]
	lead.must("admin", "group", "add")
	store := t.TempDir()
	c.must(lead, "fs", "mount", "/m", store)
	c.must(lead, "fs", "mkdir", "--group", "2", "/m/2")
	c.must(lead, "fs", "mkdir", "/m/1")
	ctx := ctxFor(t, 8*time.Minute)
	dirs := make([]*goingDir, 3)
	for i := range dirs {
		d := &goingDir{t: t, name: fmt.Sprint("d", i), store: store, at: "1", files: map[string]string{}, made: map[string]string{}}
		dirs[i] = d
		for n := range 120 {
			p := fmt.Sprintf("s%d/f%d", n%3, n)
			d.files[p] = "content of " + d.name + p
			if n < 3 {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(store, "1", d.name, p)), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			writeFile(t, filepath.Join(store, "1", d.name, p), d.files[p])
		}
	}
	if err := patiently(ctx, func() error { _, err := fs.Sync(ctx, client.Path("/m/1"), true); return err }); err != nil {
		t.Fatal(err)
	}
	mnt := c.fuse(lead)
	mvMoves(t, mnt, store, dirs[0])

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, d := range dirs {
		by := ""
		if i == 0 {
			by = mnt
		}
		movers, readers, writers := c.fs(), c.fs(), c.fs()
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond): // so that somebody gets at it
					d.move(ctx, movers, by)
				}
			}
		})
		wg.Go(func() { d.read(ctx, readers, stop) })
		wg.Go(func() { d.write(ctx, writers, stop) })
	}
	for _, group := range []uint16{2, 1, 2} {
		was := dirs[1].writes.Load()
		eventually(t, 2*time.Minute, "it is used", func() bool { return t.Failed() || dirs[1].writes.Load() > was+3 })
		var dead string
		eventually(t, 2*time.Minute, "the groups have leaders", func() bool {
			gs := c.leaders(fs)
			if gs[group] != nil {
				dead = gs[group].Leader.Node
			}
			return dead != ""
		})
		c.kill(dead)
		time.Sleep(2 * time.Second) // with two
		c.restart(dead)
	}
	close(stop)
	wg.Wait()
	eventually(t, 2*time.Minute, "nothing is under way", func() bool {
		r, err := fs.Report(ctx)
		return err == nil && len(r.Intents) == 0
	})
	for _, d := range dirs {
		d.check(ctx, fs)
	}
}

// mvMoves has mv(1) take a directory to the other group and back: no object of it
// is copied.
func mvMoves(t *testing.T, mnt, store string, d *goingDir) {
	t.Helper()
	inode := func(group string) uint64 {
		st, err := os.Stat(filepath.Join(store, group, d.name, "s1/f1"))
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Ino
	}
	was := inode("1")
	for _, to := range []string{"2", "1"} {
		if out, err := exec.Command("mv", filepath.Join(mnt, d.in(other(to))), filepath.Join(mnt, "m", to)+"/").CombinedOutput(); err != nil {
			t.Fatalf("mv: %v: %s", err, out)
		}
		if now := inode(to); now != was {
			t.Errorf("the store has a copy: inode %d, was %d", now, was)
		}
		es, err := os.ReadDir(filepath.Join(mnt, d.in(to), "s1"))
		if err != nil || len(es) != 40 {
			t.Errorf("%d names, %v", len(es), err)
		}
		b, err := os.ReadFile(filepath.Join(mnt, d.in(to), "s1/f1"))
		if err != nil || !strings.HasPrefix(string(b), "content of") {
			t.Errorf("%q, %v", b, err)
		}
	}
}
