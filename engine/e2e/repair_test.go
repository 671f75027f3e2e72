// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// repairs are files that are to have two copies each, on three workers.
type repairs struct {
	t     *testing.T
	x     *trio // the workers
	fs    *client.FS
	files map[string]string
	bytes int64

	addrs []string
	lead  func() *proc // the member that leads
	kill  func()       // has it die; another one, or the same again, leads later
}

// repairArgs have copies made soon, and slowly.
var repairArgs = []string{"--repair-after", "500ms", "--repair-rate", "2MiB"}

// startRepairs starts three members, or one (alone), and the workers.
func startRepairs(t *testing.T, alone bool) *repairs {
	t.Helper()
	r := &repairs{t: t, x: &trio{t: t, workers: map[uint64]*proc{}}, files: map[string]string{}}
	if alone {
		r.startAlone()
	} else {
		c := startCluster(t, repairArgs...)
		r.addrs = c.addrs()
		r.lead = func() *proc { return c.nodes[c.leader(r.fs)] }
		r.kill = func() { c.kill(c.leader(r.fs)) }
	}
	r.fs = dial(t, client.Config{Addresses: r.addrs, Node: "elsewhere", Attempt: 5 * time.Second, WorkersTTL: 100 * time.Millisecond})
	ctx := ctxFor(t, time.Minute)
	for i := range 3 {
		w := startWorker(t, strings.Join(r.addrs, ","), fmt.Sprint("w", i), workerArgs...)
		eventually(t, time.Minute, "the metaplane knows the worker", func() bool {
			ws, err := r.fs.Workers(ctx)
			for _, o := range ws {
				if err == nil && o.Live && o.Addr == w.ep.Worker {
					r.x.workers[o.Id] = w
				}
			}
			return err == nil && len(r.x.workers) == i+1
		})
	}
	return r
}

// startAlone starts one member, which comes back when it is killed.
func (r *repairs) startAlone() {
	t := r.t
	data, root, addr := t.TempDir(), t.TempDir(), fixedAddr(t)
	var m *proc
	start := func() {
		var ready <-chan struct{}
		m, ready = launch(t, data, nil, slices.Concat([]string{"start", "--role", "meta", "--node", "meta", "--data", data},
			freePorts, repairArgs, []string{"--root", root, "--meta-addr", addr})...)
		select {
		case <-ready:
		case <-time.After(2 * time.Minute):
			t.Fatalf("the metaplane is not ready:\n%s", tail(m.output(), 6000))
		}
		m.loadEndpoints()
	}
	start()
	r.addrs = []string{addr}
	r.lead = func() *proc { return m }
	r.kill = func() {
		m.kill()
		start()
	}
}

// write makes files of 2 MiB with one copy each: half of them are in no store.
func (r *repairs) write(ctx context.Context, n int) {
	r.t.Helper()
	for i := range n {
		path, ty := fmt.Sprint("/d/f", i), orca.MustCache
		if i%2 == 1 {
			ty = orca.CacheThrough
		}
		r.files[path] = string(random(uint64(40+i), 2<<20+i))
		r.bytes += int64(len(r.files[path]))
		if err := write(ctx, r.fs, path, r.files[path], client.CreateOptions{WriteType: ty, Parents: true}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// count returns how many files have fewer copies than two, and those that have
// more.
func (r *repairs) count(ctx context.Context) (under int, over []string) {
	for path := range r.files {
		switch n := len(r.x.copies(ctx, r.fs, path)); {
		case n < 2:
			under++
		case n > 2:
			over = append(over, path)
		}
	}
	return under, over
}

// TestLeaderDiesDuringRepair kills the leader while a job makes copies. The next
// one goes on with that job and makes no other: each file has two copies in the
// end, never three, and no more bytes went from worker to worker than there are,
// and what was on its way to each. (What is in the store may come from there.)
func TestLeaderDiesDuringRepair(t *testing.T) {
	for name, alone := range map[string]bool{"one of three": false, "alone": true} {
		t.Run(name, func(t *testing.T) { leaderDiesDuringRepair(t, startRepairs(t, alone)) })
	}
}

func leaderDiesDuringRepair(t *testing.T, r *repairs) {
	ctx := ctxFor(t, 4*time.Minute)
	r.write(ctx, 24)
	moved := func() float64 { return r.x.metric("orca_worker_server_read_bytes_total") }
	if under, over := r.count(ctx); under != len(r.files) || len(over) > 0 {
		t.Fatalf("%d of %d files have one copy, %v more than two", under, len(r.files), over)
	}
	before := moved()
	if err := r.fs.SetReplication(ctx, client.Path("/d"), client.Replicas{Min: 2, Max: -1}, true); err != nil {
		t.Fatal(err)
	}
	under, files := 0, int64(0)
	eventually(t, time.Minute, "some of the copies are made", func() bool {
		if files < int64(len(r.files)) {
			files = 0
			for _, j := range r.jobs(ctx) {
				files += j.Files
			}
			return false
		}
		// What has gone between the workers is known sooner than where each file is.
		under = len(r.files) - int(moved()-before)>>21
		return under < len(r.files)-2
	})
	if under < 2 {
		t.Fatalf("only %d files are left to be repaired: this tests nothing", under)
	}
	jobs := r.jobIDs(ctx)
	r.kill()
	t.Logf("killed with about %d of %d files to be repaired, jobs %v", under, len(r.files), jobs)
	eventually(t, 2*time.Minute, "every file has two copies", func() bool {
		left, over := r.count(ctx)
		if len(over) > 0 {
			t.Fatalf("more than two copies: %v", over)
		}
		return left == 0
	})
	eventually(t, time.Minute, "the jobs have ended", func() bool {
		js, err := r.fs.Jobs(ctx, client.JobFilter{Active: true})
		return err == nil && len(js) == 0
	})
	r.settled(ctx, jobs)
	if d := moved() - before; d < float64(r.bytes)/2-1024 || d > float64(r.bytes)+3*float64(2<<20+24) {
		t.Errorf("%.0f bytes between workers for %d of copies", d, r.bytes)
	}
	for path, want := range r.files {
		if got, err := get(ctx, r.fs, path, client.Sync{}); err != nil || got != want {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
}

// settled waits for some rounds of the checker of who leads now, after which
// there are no more jobs and copies than before.
func (r *repairs) settled(ctx context.Context, jobs []uint64) {
	r.t.Helper()
	lead := r.lead()
	n := lead.metric("orca_jobs_rounds_total")
	eventually(r.t, time.Minute, "some rounds", func() bool { return lead.metric("orca_jobs_rounds_total") > n+4 })
	if now := r.jobIDs(ctx); !slices.Equal(now, jobs) {
		r.t.Errorf("jobs before the leader died: %v, at the end %v", jobs, now)
	}
	if under, over := r.count(ctx); under > 0 || len(over) > 0 {
		r.t.Errorf("%d files have one copy, and %v more than two", under, over)
	}
	done := int64(0)
	for _, j := range r.jobs(ctx) {
		if done += j.FilesDone - j.FilesSkipped; j.FilesFailed > 0 || !client.JobEnded(j) {
			r.t.Errorf("job %d: %v", j.Id, j)
		}
	}
	if done != int64(len(r.files)) {
		r.t.Errorf("%d copies made for %d files", done, len(r.files))
	}
	if n := r.x.metric("orca_worker_read_home_reads_total"); n > 0 {
		r.t.Errorf("%v times another worker was asked to fetch what was to be copied: it has a copy, too", n)
	}
}

// jobs are those that make copies.
func (r *repairs) jobs(ctx context.Context) []*client.Job {
	r.t.Helper()
	js, err := r.fs.Jobs(ctx, client.JobFilter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(js, func(j *client.Job) bool { return j.Spec.Kind.String() != "REPLICATE" })
}

func (r *repairs) jobIDs(ctx context.Context) (out []uint64) {
	r.t.Helper()
	for _, j := range r.jobs(ctx) {
		out = append(out, j.Id)
	}
	return out
}

// TestWantedCopiesGiveWay fills a worker that holds clean copies which the bounds
// of their files ask for with what may not leave. No write fails while there are
// such copies; what they were copies of is read as before; and when there is room
// they are made again.
func TestWantedCopiesGiveWay(t *testing.T) {
	x := startTrio(t, 0, nil, "--repair-after", "500ms")
	ctx := ctxFor(t, 3*time.Minute)
	var ids []uint64
	for _, n := range []string{"w0", "w1"} {
		ids = append(ids, x.join(startWorkerAt(t, t.TempDir(), x.meta.ep.Meta, n, nil, "--mem", "0", "--ssd", "32MB"), n))
	}
	full := x.workers[ids[0]]
	fs := x.client("w0")
	wanted := map[string]string{}
	for i := range 6 {
		path := fmt.Sprint("/wanted", i)
		wanted[path] = string(random(uint64(70+i), 2<<20))
		if err := write(ctx, fs, path, wanted[path], client.CreateOptions{WriteType: orca.CacheThrough, Replicas: 2}); err != nil {
			t.Fatal(err)
		}
	}
	copies := func() (n int) {
		for path := range wanted {
			n += len(x.copies(ctx, fs, path))
		}
		return n
	}
	x.settle()
	if n := copies(); n != 12 {
		t.Fatalf("%d copies of six files", n)
	}
	for i := range 14 {
		path := fmt.Sprint("/dirty", i)
		if err := write(ctx, fs, path, string(random(uint64(90+i), 2<<20)), client.CreateOptions{WriteType: orca.MustCache}); err != nil {
			t.Fatal(err)
		}
		if at := x.copies(ctx, fs, path); !slices.Contains(at, ids[0]) {
			t.Errorf("write %d is on %x and not on the worker beside the writer, %x: it was refused there", i, at, ids[0])
		}
	}
	if n := full.metric("orca_block_evictions_total"); n < 5 {
		t.Errorf("%v blocks left the worker for 28 MiB of writes", n)
	}
	for path, want := range wanted {
		if got, err := get(ctx, x.client("reader"), path, client.Sync{}); err != nil || got != want {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
	}
	// There is no room to make them again: nothing else leaves for that, and what
	// was tried has failed.
	eventually(t, time.Minute, "copies are tried in vain", func() bool {
		failed := int64(0)
		js, err := fs.Jobs(ctx, client.JobFilter{})
		for _, j := range js {
			if j.Spec.Kind.String() == "REPLICATE" {
				failed += j.FilesFailed
			}
		}
		return err == nil && failed > 2
	})
	for i := range 14 {
		if n := len(x.copies(ctx, fs, fmt.Sprint("/dirty", i))); n != 1 {
			t.Errorf("write %d is on %d workers", i, n)
		}
	}
	if n := copies(); n < 6 || n > 8 {
		t.Errorf("%d copies of six files", n)
	}
	for i := range 14 {
		x.meta.must("fs", "rm", fmt.Sprint("/dirty", i))
	}
	eventually(t, 2*time.Minute, "all files have two copies again", func() bool { return copies() == 12 })
}

// settle waits for some rounds of the checker, and for its orders.
func (x *trio) settle() {
	x.t.Helper()
	n := x.meta.metric("orca_jobs_rounds_total")
	eventually(x.t, time.Minute, "some rounds", func() bool { return x.meta.metric("orca_jobs_rounds_total") > n+8 })
}
