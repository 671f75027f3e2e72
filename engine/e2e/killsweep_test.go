// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orca"
	"orca/engine/client"
	"orca/ufs"
)

// every makes a sweep take literally each step of the directory mutations, with
// manyFiles or, without -full, a tenth of them.
var every = flag.Bool("every", false, "kill at every step of a directory mutation, not at a spread of them (hours with -full)")

// manyFiles is the size of the directory in the directory sweeps.
const manyFiles = 1000

// store is what a sweep runs on: where Orca's root is, a trap on the way
// there, and the tree that is really in it.
type store struct {
	upArgs []string
	env    []string
	trap   *trap
	// tree returns path → content of every file, and path/ → "" of every
	// directory that exists on its own.
	tree func(t *testing.T) map[string]string
	raw  string // the folder behind a local store
	// reads returns how many requests for data the store has had (MinIO).
	reads         func() int64
	gets          *getLog // what each of them asked for and got
	asked         func() (heads, lists, gets int64)
	uri, endpoint string // of an object store, as is all below
	mountOptions  []string
	open          func(t *testing.T) ufs.FS // past the proxy
}

func localStore(t *testing.T) *store {
	tf := newTrapFS(t)
	return &store{
		upArgs: []string{"--root", tf.Dir},
		trap:   &tf.trap,
		raw:    tf.Raw,
		tree: func(t *testing.T) map[string]string {
			out := map[string]string{}
			err := filepath.WalkDir(tf.Raw, func(p string, d os.DirEntry, err error) error {
				if err != nil || p == tf.Raw {
					return err
				}
				rel := "/" + strings.TrimPrefix(p, tf.Raw+"/")
				if d.IsDir() {
					out[rel+"/"] = ""
					return nil
				}
				b, err := os.ReadFile(p)
				out[rel] = string(b)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return out
		},
	}
}

// mutation is one swept operation. setup makes what it works on; do is
// attempted once; is says which of the two legal outcomes the namespace shows.
type mutation struct {
	name  string
	setup func(ctx context.Context, fs *client.FS) error
	do    func(ctx context.Context, fs *client.FS) error
	// before and after are the legal trees of Orca: path → content.
	before, after map[string]string
}

func put(ctx context.Context, fs *client.FS, p, content string) error {
	w, err := fs.Create(ctx, client.Path(p), client.CreateOptions{Overwrite: true, Parents: true})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Close()
}

func get(ctx context.Context, fs *client.FS, p string, sync client.Sync) (string, error) {
	f, err := fs.Open(ctx, client.Path(p), client.ReadOptions{Sync: sync})
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// orcaTree lists and reads everything through Orca. A walk is no snapshot: a
// mutation that was undecided at the kill may take effect in its middle. Where
// a listed name is gone by the time it is read, the walk begins again.
func orcaTree(t *testing.T, fs *client.FS, sync client.Sync) map[string]string {
	t.Helper()
	for range 20 {
		if out, whole := walkTree(t, fs, sync); whole {
			return out
		}
	}
	t.Fatal("names went on vanishing under 20 walks")
	return nil
}

// walkTree is one walk; whole is false when a name vanished under it.
func walkTree(t *testing.T, fs *client.FS, sync client.Sync) (out map[string]string, whole bool) {
	t.Helper()
	ctx := ctxFor(t, 2*time.Minute)
	out, whole = map[string]string{}, true
	gone := func(p string) bool {
		_, err := fs.Stat(ctx, client.Path(p), sync)
		return orca.KindOf(err) == orca.NotFound
	}
	var walk func(dir string)
	walk = func(dir string) {
		for e, err := range fs.Entries(ctx, client.Path(dir), client.ListOptions{Sync: sync}) {
			if err != nil && gone(dir) {
				whole = false
				return
			}
			if err != nil {
				t.Fatalf("list %s: %v", dir, err)
			}
			p := orca.JoinPath(dir, e.Name)
			if e.IsDir() {
				out[p+"/"] = ""
				walk(p)
				continue
			}
			content, err := get(ctx, fs, p, sync)
			if err != nil && gone(p) {
				whole = false
				return
			}
			if err != nil {
				t.Errorf("%s is listed but cannot be read: %v", p, err)
			}
			out[p] = content
		}
	}
	walk("/")
	return out, whole
}

func diffTrees(got, want map[string]string) string {
	var b strings.Builder
	n := 0
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[p]; !ok {
			fmt.Fprintf(&b, "missing %s\n", p)
			n++
		} else if g != want[p] {
			fmt.Fprintf(&b, "%s: got %q want %q\n", p, tail(g, 40), tail(want[p], 40))
			n++
		}
		if n > 10 {
			break
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			fmt.Fprintf(&b, "unexpected %s\n", p)
			if n++; n > 20 {
				break
			}
		}
	}
	return b.String()
}

func filesIn(dir string, n int) map[string]string {
	out := map[string]string{dir + "/": ""}
	for i := range n {
		p := fmt.Sprintf("%s/f%04d", dir, i)
		out[p] = "content of " + p
	}
	return out
}

// moved is tree with the prefix from replaced by to; contents stay.
func moved(tree map[string]string, from, to string) map[string]string {
	out := map[string]string{}
	for p, c := range tree {
		if rel, ok := strings.CutPrefix(p, from+"/"); ok {
			out[to+"/"+rel] = c
		} else {
			out[p] = c
		}
	}
	return out
}

// makeTree writes a tree through Orca, directories first, files 16 at a time.
func makeTree(tree map[string]string) func(context.Context, *client.FS) error {
	return func(ctx context.Context, fs *client.FS) error {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(16)
		for _, p := range slices.Sorted(maps.Keys(tree)) {
			if strings.HasSuffix(p, "/") {
				if _, err := fs.MkdirAll(ctx, client.Path(strings.TrimSuffix(p, "/")), 0o755); err != nil {
					return fmt.Errorf("%s: %w", p, err)
				}
				continue
			}
			g.Go(func() error {
				if err := put(gctx, fs, p, tree[p]); err != nil {
					return fmt.Errorf("%s: %w", p, err)
				}
				return nil
			})
		}
		return g.Wait()
	}
}

func mutations(n int) []mutation {
	file := map[string]string{"/d/": "", "/d/a": "alpha", "/d/keep": "k"}
	renamed := map[string]string{"/d/": "", "/d/b": "alpha", "/d/keep": "k"}
	replaced := map[string]string{"/d/": "", "/d/keep": "alpha"}
	deleted := map[string]string{"/d/": "", "/d/keep": "k"}
	dir := filesIn("/src", n)
	made := map[string]string{"/d/": "", "/d/a": "alpha", "/d/keep": "k", "/d/new/": ""}
	rename := func(a, b string) func(context.Context, *client.FS) error {
		return func(ctx context.Context, fs *client.FS) error {
			return fs.Rename(ctx, client.Path(a), client.Path(b), false)
		}
	}
	return []mutation{
		{"mkdir", makeTree(file), func(ctx context.Context, fs *client.FS) error {
			_, err := fs.Mkdir(ctx, client.Path("/d/new"), 0o755)
			return err
		}, file, made},
		{"rename-file", makeTree(file), rename("/d/a", "/d/b"), file, renamed},
		{"rename-over-file", makeTree(file), rename("/d/a", "/d/keep"), file, replaced},
		{"delete-file", makeTree(file), func(ctx context.Context, fs *client.FS) error {
			return fs.Unlink(ctx, client.Path("/d/a"))
		}, file, deleted},
		{"rename-dir", makeTree(dir), rename("/src", "/dst"), dir, moved(dir, "/src", "/dst")},
		{"delete-dir", makeTree(dir), func(ctx context.Context, fs *client.FS) error {
			return fs.RemoveAll(ctx, client.Path("/src"), client.RemoveOptions{})
		}, dir, map[string]string{}},
	}
}

// points are the steps at which a sweep of an operation with this many steps
// kills: all of a short one, or with -every; the first, the last and a spread
// of a long one.
func points(steps int) []int {
	if steps <= 12 || *every {
		out := make([]int, steps)
		for i := range out {
			out[i] = i + 1
		}
		return out
	}
	out := []int{1, 2, 3, 4, steps - 2, steps - 1, steps}
	for _, f := range []float64{0.1, 0.5, 0.9} {
		out = append(out, int(f*float64(steps)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// drained reports whether nothing is left to bring to the store.
func drained(ctx context.Context, fs *client.FS) bool {
	r, err := fs.Report(ctx)
	return err == nil && len(r.Intents) == 0 && r.Sessions == 0
}

// runMutation performs m on a fresh store, killing at step n (0: never), and
// checks every promise. It returns how many steps the operation took.
func runMutation(t *testing.T, newStore func(*testing.T) *store, m mutation, n int) int {
	t.Helper()
	s := newStore(t)
	data := t.TempDir()
	p := upEnv(t, data, s.env, s.upArgs...)
	fs := p.fs()
	ctx := ctxFor(t, 3*time.Minute)
	if err := m.setup(ctx, fs); err != nil {
		t.Fatalf("setup: %v", err)
	}
	eventually(t, time.Minute, "setup drained", func() bool { return drained(ctx, fs) })

	victim := p.cmd.Process
	if n == 0 {
		s.trap.arm(1<<30, func() {})
	} else {
		s.trap.arm(n, func() { victim.Signal(syscall.SIGKILL) })
	}
	opCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.do(opCtx, fs) }()
	acked := false
	if n == 0 {
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		acked = true
		eventually(t, time.Minute, "drained", func() bool { return drained(ctx, fs) })
	} else {
		select {
		case <-p.exit:
			p.exit <- nil
			select { // the reply may have been on its way
			case err := <-done:
				acked = err == nil
			case <-time.After(50 * time.Millisecond):
			}
		case <-time.After(3 * time.Minute):
			steps, _ := s.trap.disarm()
			t.Fatalf("the trap at step %d never closed (%d steps)", n, steps)
		}
		cancel()
	}
	steps, _ := s.trap.disarm()

	if n != 0 {
		p = upEnv(t, data, s.env, s.upArgs...)
		fs = p.fs()
	}
	// At once, and looking at the store on every access: each file is readable
	// by its current name and no deleted name comes back.
	check := func(when string, sync client.Sync) map[string]string {
		got := orcaTree(t, fs, sync)
		before, after := diffTrees(got, m.before), diffTrees(got, m.after)
		if before != "" && after != "" { // it may have been decided between two reads of the walk
			got = orcaTree(t, fs, sync)
			before, after = diffTrees(got, m.before), diffTrees(got, m.after)
		}
		if after != "" && (acked || before != "") {
			t.Errorf("%s, acknowledged=%v: neither legal tree.\nagainst before:\n%sagainst after:\n%s", when, acked, before, after)
		}
		return got
	}
	check("at once", client.SyncNever())
	check("at once, sync interval 0", client.SyncEvery(0))
	eventually(t, 2*time.Minute, "drained after restart", func() bool { return drained(ctx, fs) })
	got := check("drained, sync interval 0", client.SyncEvery(0))
	inStore := s.tree(t)
	if d := diffTrees(withoutDirs(got), withoutDirs(inStore)); d != "" {
		t.Errorf("drained: Orca's tree is not the store's:\n%s", d)
	}
	if s.raw != "" {
		if l := leftovers(t, s.raw); len(l) != 0 {
			t.Errorf("drained: temporary names are left: %q", l)
		}
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	return steps
}

// withoutDirs leaves the files: an object store only implies directories.
func withoutDirs(tree map[string]string) map[string]string {
	out := maps.Clone(tree)
	maps.DeleteFunc(out, func(p, _ string) bool { return strings.HasSuffix(p, "/") })
	return out
}

func sweep(t *testing.T, newStore func(*testing.T) *store) {
	n := 100
	if *full {
		n = manyFiles
	}
	for _, m := range mutations(n) {
		t.Run(m.name, func(t *testing.T) {
			steps := 0
			if !t.Run("undisturbed", func(t *testing.T) { steps = runMutation(t, newStore, m, 0) }) {
				return
			}
			if steps == 0 {
				t.Fatal("the operation took no step on the store: the trap sees nothing")
			}
			for _, at := range points(steps) {
				t.Run(fmt.Sprintf("kill-at-%d-of-%d", at, steps), func(t *testing.T) { runMutation(t, newStore, m, at) })
			}
		})
	}
}

// TestKillSweepLocal kills Orca at every step of each mutation on a local
// store.
func TestKillSweepLocal(t *testing.T) { sweep(t, localStore) }

// TestKillSweepMinIO does the same on MinIO.
func TestKillSweepMinIO(t *testing.T) { sweep(t, minioStore) }
