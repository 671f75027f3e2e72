// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/jobs"
	"orca/jobs/jobclient"
	"orca/jobs/jobmaster"
	"orca/jobs/jobpb"
	"orca/jobs/jobworker"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

var quiet = slog.New(slog.DiscardHandler)

// rig is a metaplane of one node with the job master beside it, over a store
// in memory with faults, and blocks that a worker would have.
type rig struct {
	t      *testing.T
	dir    string
	cfg    jobmaster.Config
	store  *memufs.Store
	faults *wrap.Faults
	blocks *blocks

	host    *raftgroup.Host
	service *metaserver.Service
	master  *jobmaster.Master
	ns      *metaclient.Session
	jobs    *jobclient.Client
	worker  *jobworker.Worker
	id      uint64
}

func newRig(t *testing.T, objects bool, cfg jobmaster.Config) *rig {
	t.Helper()
	cfg.Tick = 10 * time.Millisecond
	if cfg.FirstPause == 0 {
		cfg.FirstPause = 5 * time.Millisecond
	}
	r := &rig{t: t, dir: t.TempDir(), cfg: cfg, store: memufs.New(memufs.Config{Objects: objects})}
	r.blocks = &blocks{dir: t.TempDir(), have: map[orca.BlockID]string{}, reads: map[orca.BlockID]int{}}
	r.start()
	t.Cleanup(r.stop)
	_, err := r.ns.Mount(t.Context(), &metapb.MountRequest{Mount: &metapb.Mount{Path: "/", Uri: "mem://rig", SyncIntervalMs: -1}})
	require.NoError(t, err)
	return r
}

// start opens everything but the worker on r.dir.
func (r *rig) start() {
	r.faults = wrap.NewFaults(r.store.FS()) // the service closes it
	mach := machine.New()
	var err error
	r.master, err = jobmaster.New(r.cfg, mach, quiet)
	require.NoError(r.t, err)
	r.host, err = raftgroup.Open(raftgroup.Config{Dir: r.dir, Machine: fsm.Config{Group: 1}, Hosted: map[string]fsm.Hosted{jobs.Machine: mach}}, quiet)
	require.NoError(r.t, err)
	r.service, err = metaserver.New(r.t.Context(), metaserver.Config{
		Hosted: map[string]metaserver.HostedHandler{jobs.Machine: r.master}, OnHosted: r.master.OnHosted,
	}, r.host.Group(), func(context.Context, *metapb.Mount) (ufs.FS, error) { return r.faults.FS(), nil }, quiet)
	require.NoError(r.t, err)
	r.master.Start(r.host.Group(), r.service)
	r.ns = metaclient.NewSession(r.service, metaclient.SessionConfig{})
	r.jobs = jobclient.New(r.ns, nil)
	rep, err := r.ns.Register(r.t.Context(), &metapb.RegisterRequest{Worker: &metapb.Worker{Id: r.id, Node: "here"}, Files: r.blocks.report()})
	require.NoError(r.t, err)
	r.id = rep.Id
}

func (r *rig) stop() {
	r.stopWorker()
	r.master.Close()
	require.NoError(r.t, r.service.Close())
	require.NoError(r.t, r.host.Close())
}

func (r *rig) startWorker(cfg jobworker.Config) {
	cfg.ID = func() uint64 { return r.id }
	cfg.Wait, cfg.Pause = 200*time.Millisecond, 20*time.Millisecond
	var err error
	r.worker, err = jobworker.New(cfg, r.ns, r.blocks, r.service.Stores, quiet)
	require.NoError(r.t, err)
	r.worker.Start()
}

func (r *rig) stopWorker() {
	if r.worker != nil {
		r.worker.Close()
		r.worker = nil
	}
}

// write makes a file as a client and a worker do, unpersisted.
func (r *rig) write(path, data string, wt orca.WriteType) *metapb.Attr {
	r.t.Helper()
	ctx := r.t.Context()
	c, err := r.ns.Create(ctx, &metapb.CreateRequest{Target: &metapb.Target{Path: path}, Parents: true, Overwrite: true, WriteType: uint32(wt), Mode: 0o640})
	require.NoError(r.t, err)
	s := c.Session
	r.blocks.put(orca.BlockID{File: orca.Ino(s.File), Version: s.Version}, data)
	rep, err := r.ns.Complete(ctx, &metapb.CompleteRequest{
		Session: s.Id, Fence: s.Fence, Length: int64(len(data)), Workers: []uint64{r.id}, Durable: true,
	})
	require.NoError(r.t, err)
	return rep.Attr
}

func (r *rig) stat(path string) *metapb.Attr {
	r.t.Helper()
	rep, err := r.ns.Stat(r.t.Context(), &metapb.StatRequest{Target: &metapb.Target{Path: path}})
	require.NoError(r.t, err)
	return rep.Attr
}

// until polls for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	require.Eventually(r.t, ok, time.Minute, 5*time.Millisecond, what)
}

func (r *rig) persisted(path, data string) {
	r.t.Helper()
	r.until(path+" is persisted", func() bool { return r.stat(path).Persist == uint32(orca.Persisted) })
	got, ok := r.store.Data(path[1:])
	require.True(r.t, ok, "%s is in the store", path)
	require.Equal(r.t, data, got)
}

// list returns the jobs of a kind.
func (r *rig) list(k jobpb.Kind) []*jobpb.Job {
	r.t.Helper()
	js, _, err := r.jobs.List(r.t.Context(), &jobpb.ListRequest{Kind: k})
	require.NoError(r.t, err)
	return js
}

func (r *rig) wait(id uint64) *jobpb.Job {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	j, err := r.jobs.Wait(ctx, id, 0, nil)
	require.NoError(r.t, err)
	return j
}

// blocks stands for a worker's read path: what was put is there, and anything
// else is made of zeros when it is read.
type blocks struct {
	dir string

	mu    sync.Mutex
	have  map[orca.BlockID]string
	reads map[orca.BlockID]int
}

func (b *blocks) put(id orca.BlockID, data string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.have[id] = data
}

// report is the full report of a worker that is known already.
func (b *blocks) report() (out []*metapb.FileReport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, data := range b.have {
		out = append(out, &metapb.FileReport{File: uint64(id.File), Version: id.Version, Cached: int64(len(data)), Complete: []uint32{0}, Dirty: true})
	}
	return out
}

func (b *blocks) loaded() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.reads)
}

// BlockInfo implements dataplane.Informer.
func (b *blocks) BlockInfo(_ context.Context, id orca.BlockID) (dataplane.BlockInfo, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return dataplane.BlockInfo{Complete: b.reads[id] > 0}, nil
}

func (b *blocks) Open(_ context.Context, q dataplane.ReadRequest) (dataplane.Extent, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(q.Grant.Token) == 0 || q.Grant.File != q.ID.File {
		return dataplane.Extent{}, orca.E("blocks.Open", orca.Permission, "no grant")
	}
	data, ok := b.have[q.ID]
	var piece []byte
	if ok {
		piece = []byte(data[q.Off:min(q.Off+q.N, int64(len(data)))])
	} else {
		if q.Off == 0 {
			b.reads[q.ID]++
		}
		piece = make([]byte, q.N)
	}
	f, err := os.CreateTemp(b.dir, "")
	if err != nil {
		return dataplane.Extent{}, err
	}
	_ = os.Remove(f.Name())
	if _, err := f.Write(piece); err != nil {
		return dataplane.Extent{}, err
	}
	var sums []uint32
	for at := 0; at < len(piece); at += orca.GrainSize {
		sums = append(sums, crc32.Checksum(piece[at:min(at+orca.GrainSize, len(piece))], crc32.MakeTable(crc32.Castagnoli)))
	}
	return dataplane.Extent{File: f, N: int64(len(piece)), Sums: sums, Release: func() { _ = f.Close() }}, nil
}

func TestAsyncThrough(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{})
	r.startWorker(jobworker.Config{})
	big := string(bytes.Repeat([]byte("0123456789abcde\n"), 3<<20/16)) + "tail"
	r.write("/dir/a b+%", "hello", orca.AsyncThrough)
	r.write("/dir/big", big, orca.AsyncThrough)
	r.write("/dir/empty", "", orca.AsyncThrough)
	r.persisted("/dir/a b+%", "hello")
	r.persisted("/dir/big", big)
	r.persisted("/dir/empty", "")
	r.until("all jobs are finished", func() bool {
		n := 0
		for _, j := range r.list(jobpb.Kind_PERSIST) {
			if j.State == jobpb.State_COMPLETED {
				n++
			}
		}
		return n >= 2
	})
	require.Zero(t, r.store.Uploads(), "no upload is left")
	in, err := r.store.FS().Stat(t.Context(), "dir/big")
	require.NoError(t, err)
	require.EqualValues(t, 0o640, in.Mode, "with the mode of the file")
	require.Equal(t, in.Fingerprint, r.stat("/dir/big").Fingerprint)
}

// TestPersistRetries: whatever the store refuses, a promise is kept, and the
// reason is there to be seen meanwhile.
func TestPersistRetries(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{})
	full := r.faults.Add(wrap.Rule{Op: wrap.Commit, Err: orca.E("store", orca.NoSpace, "the disk is full")})
	r.startWorker(jobworker.Config{})
	r.write("/f", "data", orca.AsyncThrough)
	r.until("several attempts failed", func() bool {
		js := r.list(jobpb.Kind_PERSIST)
		return len(js) == 1 && js[0].Attempts >= 3 && js[0].State == jobpb.State_RUNNING
	})
	require.Contains(t, r.list(jobpb.Kind_PERSIST)[0].Error, "the disk is full")
	require.Equal(t, uint32(orca.ToBePersisted), r.stat("/f").Persist)
	require.GreaterOrEqual(t, r.faults.Hits(full), 3)
	require.ErrorIs(t, r.jobs.Cancel(t.Context(), r.list(jobpb.Kind_PERSIST)[0].Id), orca.Unsupported)
	r.faults.Clear()
	r.persisted("/f", "data")
	require.Zero(t, r.store.Uploads())
}

// TestLostAnswers: each call of the store and each of its answers is lost once;
// the file is persisted all the same.
func TestLostAnswers(t *testing.T) {
	down := orca.E("store", orca.Unavailable, "connection reset")
	for _, op := range []wrap.Op{wrap.Sweep, wrap.Create, wrap.Write, wrap.Prepare, wrap.Commit} {
		for _, lose := range []bool{false, true} {
			t.Run(fmt.Sprint(op, lose), func(t *testing.T) {
				r := newRig(t, false, jobmaster.Config{})
				rule := wrap.Rule{Op: op, Nth: 1, Err: down}
				if lose {
					rule.Err, rule.Lose = nil, down
				}
				hit := r.faults.Add(rule)
				r.startWorker(jobworker.Config{})
				r.write("/f", "some data", orca.AsyncThrough)
				r.persisted("/f", "some data")
				require.Equal(t, 1, r.faults.Hits(hit))
				r.until("no upload is left", func() bool { return r.store.Uploads() == 0 })
			})
		}
	}
}

// TestChangedBeforePersist: a newer version, and a deletion, while the older
// one waits for a worker.
func TestChangedBeforePersist(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{})
	r.write("/f", "one", orca.AsyncThrough)
	r.write("/gone", "x", orca.AsyncThrough)
	r.write("/f", "two!", orca.AsyncThrough)
	_, err := r.ns.Delete(t.Context(), &metapb.DeleteRequest{Target: &metapb.Target{Path: "/gone"}})
	require.NoError(t, err)
	r.startWorker(jobworker.Config{})
	r.persisted("/f", "two!")
	r.until("every promise is settled", func() bool {
		for _, j := range r.list(jobpb.Kind_PERSIST) {
			if !jobs.Finished(j.State) {
				return false
			}
		}
		return true
	})
	_, ok := r.store.Data("gone")
	require.False(t, ok, "a deleted file does not come back")
}

// TestRenamedDuringUpload: the upload goes to the new name, and none stays at
// the old one.
func TestRenamedDuringUpload(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{})
	renamed := make(chan error, 1)
	r.faults.Add(wrap.Rule{Op: wrap.Prepare, Nth: 1, Before: func(wrap.Call) {
		_, err := r.ns.Rename(context.Background(), &metapb.RenameRequest{Src: &metapb.Target{Path: "/old"}, Dst: &metapb.Target{Path: "/new"}})
		renamed <- err
	}})
	r.write("/old", "data", orca.AsyncThrough)
	r.startWorker(jobworker.Config{})
	require.NoError(t, <-renamed)
	r.persisted("/new", "data")
	_, ok := r.store.Data("old")
	require.False(t, ok)
}

// TestRestart: promises and a half-planned load survive the whole process.
func TestRestart(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{Window: 2})
	for i := range 20 {
		r.write(fmt.Sprintf("/d/f%02d", i), fmt.Sprint("data ", i), orca.AsyncThrough)
	}
	for i := range 10 {
		r.store.Put(fmt.Sprintf("lib/x%d", i), "lib")
	}
	id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/lib", Recursive: true})
	require.NoError(t, err)
	r.until("the load is planned", func() bool {
		j, err := r.jobs.Stat(t.Context(), id, 0)
		return err == nil && j.Files == 10
	})
	r.stop()
	r.start()
	r.startWorker(jobworker.Config{})
	for i := range 20 {
		r.persisted(fmt.Sprintf("/d/f%02d", i), fmt.Sprint("data ", i))
	}
	j := r.wait(id)
	require.Equal(t, jobpb.State_COMPLETED, j.State)
	require.EqualValues(t, 10, j.FilesDone)
	require.Equal(t, 10, r.blocks.loaded())
}

func TestLoad(t *testing.T) {
	r := newRig(t, true, jobmaster.Config{})
	r.startWorker(jobworker.Config{})
	const n = 150
	for i := range n {
		r.store.Put(fmt.Sprintf("set/%d/f%03d", i%7, i), "content")
	}
	r.store.Put("set/zero", "")
	var seen []int64
	id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/set", Recursive: true})
	require.NoError(t, err)
	j, err := r.jobs.Wait(t.Context(), id, 5*time.Millisecond, func(j *jobpb.Job) { seen = append(seen, j.FilesDone) })
	require.NoError(t, err)
	require.Equal(t, jobpb.State_COMPLETED, j.State, "%v", j)
	require.EqualValues(t, n+1, j.Files)
	require.EqualValues(t, n+1, j.FilesDone)
	require.EqualValues(t, 1, j.FilesSkipped, "the empty file")
	require.EqualValues(t, 7*n, j.BytesDone)
	require.Equal(t, j.Bytes, j.BytesDone)
	require.Equal(t, n, r.blocks.loaded())
	require.IsNonDecreasing(t, seen)

	again, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/set", Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, n+1, r.wait(again).FilesSkipped, "everything is there already")

	one, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/set/0/f000"})
	require.NoError(t, err)
	require.EqualValues(t, 1, r.wait(one).Files)
	for path, want := range map[string]string{"/none": "not found", "/set": "directory"} {
		id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: path})
		require.NoError(t, err)
		j := r.wait(id)
		require.Equal(t, jobpb.State_FAILED, j.State)
		require.Contains(t, j.Error, want)
	}
	_, err = r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "relative"})
	require.ErrorIs(t, err, orca.Invalid)
	_, err = r.jobs.Stat(t.Context(), 999, 0)
	require.ErrorIs(t, err, orca.NotFound)
}

// TestPersistTree: "fs persist" of a tree that was never to be persisted.
func TestPersistTree(t *testing.T) {
	r := newRig(t, false, jobmaster.Config{})
	r.startWorker(jobworker.Config{})
	for i := range 12 {
		r.write(fmt.Sprintf("/tree/%d/f", i), fmt.Sprint(i), orca.MustCache)
	}
	_, ok := r.store.Data("tree/1/f")
	require.False(t, ok)
	id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_PERSIST, Path: "/tree", Recursive: true})
	require.NoError(t, err)
	j := r.wait(id)
	require.Equal(t, jobpb.State_COMPLETED, j.State, "%v", j)
	require.EqualValues(t, 12, j.FilesDone)
	require.Zero(t, j.FilesSkipped)
	for i := range 12 {
		r.persisted(fmt.Sprintf("/tree/%d/f", i), fmt.Sprint(i))
	}
	id, err = r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_PERSIST, Path: "/tree", Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, 12, r.wait(id).FilesSkipped)
}

// TestCancel: a slow load is canceled by its owner only, and what runs of it
// stops.
func TestCancel(t *testing.T) {
	r := newRig(t, true, jobmaster.Config{Lease: 200 * time.Millisecond})
	for i := range 40 {
		r.store.Put(fmt.Sprintf("slow/f%d", i), string(make([]byte, 1000)))
	}
	r.startWorker(jobworker.Config{Slots: 2})
	mine := jobclient.New(r.ns, &metapb.Caller{Uid: 7})
	id, err := mine.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/slow", Recursive: true, Bandwidth: 1000})
	require.NoError(t, err)
	r.until("it runs", func() bool {
		j, err := mine.Stat(t.Context(), id, 0)
		return err == nil && len(j.Workers) == 1 && j.BytesDone > 0
	})
	require.ErrorIs(t, jobclient.New(r.ns, &metapb.Caller{Uid: 8}).Cancel(t.Context(), id), orca.Permission)
	require.NoError(t, mine.Cancel(t.Context(), id))
	require.Equal(t, jobpb.State_CANCELED, r.wait(id).State)
	r.until("the worker has dropped it", func() bool { return r.worker.Stats.Running.Load() == 0 })
	require.Less(t, r.blocks.loaded(), 40)
}

// TestWorkerLost: what a silent worker had is done by another one.
func TestWorkerLost(t *testing.T) {
	r := newRig(t, true, jobmaster.Config{Lease: 150 * time.Millisecond})
	for i := range 5 {
		r.store.Put(fmt.Sprintf("d/f%d", i), "x")
	}
	id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/d", Recursive: true})
	require.NoError(t, err)
	b, err := (&jobpb.PollRequest{Worker: 99, Slots: 10, WaitMs: 5000}).MarshalVT()
	require.NoError(t, err)
	rep, err := r.ns.Hosted(t.Context(), &metapb.HostedRequest{Machine: jobs.Machine, Method: jobs.MethodPoll, Body: b, Read: true})
	require.NoError(t, err)
	var poll jobpb.PollReply
	require.NoError(t, poll.UnmarshalVT(rep.Body))
	require.Len(t, poll.Work, 1)
	r.startWorker(jobworker.Config{})
	j := r.wait(id)
	require.Equal(t, jobpb.State_COMPLETED, j.State)
	require.EqualValues(t, 5, j.FilesDone)
	require.Positive(t, r.master.Stats.Expired.Load())
}

// TestOwedToStore: a rename that an object store has still to carry out is
// shown as a job.
func TestOwedToStore(t *testing.T) {
	r := newRig(t, true, jobmaster.Config{})
	r.store.Put("from", "content")
	r.stat("/from")
	gate := make(chan struct{})
	r.faults.Add(wrap.Rule{Op: wrap.Copy, Block: gate})
	_, err := r.ns.Rename(t.Context(), &metapb.RenameRequest{Src: &metapb.Target{Path: "/from"}, Dst: &metapb.Target{Path: "/to"}})
	require.NoError(t, err)
	js := r.list(jobpb.Kind_UFS_MOVE)
	require.Len(t, js, 1)
	require.Equal(t, "from", js[0].Source)
	require.Equal(t, "to", js[0].Target)
	j, err := r.jobs.Stat(t.Context(), js[0].Id, 0)
	require.NoError(t, err)
	require.Equal(t, jobpb.State_RUNNING, j.State)
	require.ErrorIs(t, r.jobs.Cancel(t.Context(), js[0].Id), orca.Unsupported)
	close(gate)
	r.until("it is drained", func() bool { return len(r.list(jobpb.Kind_UFS_MOVE)) == 0 })
}

// TestRetention: finished jobs are forgotten beyond the number to keep.
func TestRetention(t *testing.T) {
	r := newRig(t, true, jobmaster.Config{Keep: 1})
	for range 3 {
		id, err := r.jobs.Submit(t.Context(), &jobpb.Spec{Kind: jobpb.Kind_LOAD, Path: "/none"})
		require.NoError(t, err)
		r.wait(id)
	}
	r.stop()
	r.start() // it looks at once
	r.until("one is left", func() bool { return len(r.list(jobpb.Kind_LOAD)) == 1 })
	require.EqualValues(t, 3, r.list(jobpb.Kind_LOAD)[0].Id)
}
