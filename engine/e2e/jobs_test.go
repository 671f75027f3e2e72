// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orca"
	"orca/engine/client"
	"orca/ufs"
)

// gate stands between Orca and an object store. While it is shut, writes wait
// at it, and so do reads of data of some objects.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{}          // closed when the gate opens; nil: open; GUARDED_BY(mu)
	stops func(path string) bool // which reads wait; GUARDED_BY(mu)
	waits int                    // requests at the gate; GUARDED_BY(mu)
}

func (g *gate) close(stops func(path string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.stops = make(chan struct{}), stops
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut != nil {
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

// pass waits until a request may go on; false: its sender is gone.
func (g *gate) pass(r *http.Request) bool {
	q := r.URL.Query()
	read := r.Method == http.MethodGet && !q.Has("list-type") && !q.Has("uploads") && !q.Has("location")
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == nil || r.Method == http.MethodHead || r.Method == http.MethodGet && !read {
		return true
	}
	if read && !g.stops(r.URL.Path) {
		return true
	}
	opened := g.shut
	g.waits++
	g.mu.Unlock()
	ok := true
	select {
	case <-opened:
	case <-r.Context().Done():
		ok = false
	}
	g.mu.Lock()
	g.waits--
	return ok
}

// gated puts a gate before an object store; args are those of `orca up`.
func gated(t *testing.T, s *store) (g *gate, args []string) {
	t.Helper()
	target, err := url.Parse(s.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	g = &gate{}
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host // signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.pass(r) {
			panic(http.ErrAbortHandler)
		}
		rp.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { g.open(); srv.Close() })
	args = slices.Clone(s.upArgs)
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, s.endpoint, srv.URL)
	}
	return g, args
}

// putObject writes one object past Orca.
func putObject(ctx context.Context, st ufs.FS, key, content string) error {
	w, err := st.Create(ctx, key, "")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	_, err = w.Commit(ctx)
	return err
}

// TestJobsOutliveKill kills Orca in the middle of a load of 200 files, with a
// persist on order and an ASYNC_THROUGH file not yet in the store. The next
// start finishes all three, under the same job ids.
func TestJobsOutliveKill(t *testing.T) {
	const files = 200
	s := minioStore(t)
	g, args := gated(t, s)
	ctx := ctxFor(t, 2*time.Minute)
	st := s.open(t)
	defer st.Close()
	var eg errgroup.Group
	eg.SetLimit(8)
	for i := range files {
		eg.Go(func() error { return putObject(ctx, st, fmt.Sprintf("many/f%03d", i), content(i)) })
	}
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	p := upEnv(t, data, s.env, args...)
	fs := p.fs()
	if err := write(ctx, fs, "/must", "kept by order", client.CreateOptions{WriteType: orca.MustCache}); err != nil {
		t.Fatal(err)
	}
	// Tasks take files in the order of their names: those of the first files get
	// through, whichever are run first, and the last one does not.
	g.close(func(path string) bool { return path[strings.LastIndexByte(path, '/')+1:] >= "f150" })
	if err := write(ctx, fs, "/async", "kept behind", client.CreateOptions{WriteType: orca.AsyncThrough}); err != nil {
		t.Fatal(err)
	}
	persist, err := fs.Persist(ctx, "/must")
	if err != nil {
		t.Fatal(err)
	}
	load, err := fs.Load(ctx, "/many")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the load is stuck in its middle", func() bool {
		j, err := fs.Job(ctx, load, 0)
		return err == nil && j.FilesDone > 0 && g.waiting() > 0
	})
	id := strconv.FormatUint(load, 10)
	if out := p.must("job", "ls", "--active"); !strings.Contains(out, id+"\tLOAD\tRUNNING") {
		t.Errorf("job ls:\n%s", out)
	}
	if r, err := fs.Report(ctx); err != nil || r.Counters["to_be_persisted"] != 2 {
		t.Errorf("to be persisted: %d, want 2 (%v)", r.GetCounters()["to_be_persisted"], err)
	}
	p.kill()
	g.open()

	p = upEnv(t, data, s.env, args...)
	fs = p.fs()
	for _, id := range []uint64{load, persist} {
		j, err := fs.WaitJob(ctx, id, nil)
		if err != nil || client.JobError(j) != nil {
			t.Fatalf("job %d after the restart: %v %v", id, err, j)
		}
		if id == load && j.FilesDone != files {
			t.Errorf("loaded %d of %d files", j.FilesDone, files)
		}
	}
	eventually(t, time.Minute, "everything is persisted", func() bool { return persisted(ctx, fs) })
	tree := s.tree(t)
	for name, want := range map[string]string{"/must": "kept by order", "/async": "kept behind"} {
		if tree[name] != want {
			t.Errorf("%s in the store: %q", name, tree[name])
		}
		if out := p.must("fs", "stat", name); !strings.Contains(out, "PERSISTED") {
			t.Errorf("stat %s:\n%s", name, out)
		}
	}
	before := s.reads()
	for i := range files {
		if got, err := get(ctx, fs, fmt.Sprintf("/many/f%03d", i), client.Sync{}); err != nil || got != content(i) {
			t.Fatalf("file %d: %d bytes, %v", i, len(got), err)
		}
	}
	if n := s.reads() - before; n != 0 {
		t.Errorf("%d reads of the store after the load: it did not load everything", n)
	}
	if out := p.must("job", "stat", id); !strings.Contains(out, "COMPLETED") {
		t.Errorf("job stat:\n%s", out)
	}
	cancelLoad(t, p, g)
}

// cancelLoad stops a load that hangs at the gate, by the command line.
func cancelLoad(t *testing.T, p *proc, g *gate) {
	t.Helper()
	p.must("fs", "free", "/many")
	eventually(t, time.Minute, "the cache is freed", func() bool { return p.must("fs", "location", "/many/f199") == "" })
	g.close(func(string) bool { return true })
	id := strings.TrimSpace(p.must("fs", "load", "--submit", "/many"))
	eventually(t, time.Minute, "the load waits for the store", func() bool { return g.waiting() > 0 })
	p.must("job", "cancel", id)
	if out := p.must("job", "stat", id); !strings.Contains(out, "CANCELED") {
		t.Errorf("after cancel:\n%s", out)
	}
	g.open()
	p.must("fs", "load", "/many")
}
