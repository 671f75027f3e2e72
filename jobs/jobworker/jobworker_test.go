// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobworker

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/dataplane"
	"orca/jobs"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// master hands out scripted work and keeps what is reported.
type master struct {
	mu      sync.Mutex
	work    []*jobpb.Work
	drop    []*jobpb.Running
	down    bool
	most    int // running at one time, as polls said
	results []*jobpb.Result
}

func (m *master) Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, orca.E("master", orca.Unavailable, "down")
	}
	if r.Method == jobs.MethodReport {
		q := &jobpb.ReportRequest{}
		if err := q.UnmarshalVT(r.Body); err != nil {
			return nil, err
		}
		m.results = append(m.results, q.Results...)
		return &metapb.HostedReply{}, nil
	}
	q := &jobpb.PollRequest{}
	if err := q.UnmarshalVT(r.Body); err != nil {
		return nil, err
	}
	m.most = max(m.most, len(q.Running))
	rep := &jobpb.PollReply{LeaseMs: 40, Drop: m.drop}
	n := min(int(q.Slots), len(m.work))
	rep.Work, m.work = m.work[:n], m.work[n:]
	if n == 0 && q.Slots > 0 {
		m.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
		m.mu.Lock()
	}
	b, err := rep.MarshalVT()
	return &metapb.HostedReply{Body: b}, err
}

func (m *master) reported() []*jobpb.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.results
}

func (m *master) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// Open answers for a persisted file of one block.
func (m *master) Open(_ context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return &metapb.OpenReply{Attr: &metapb.Attr{
		Ino: r.Target.Ino, Version: 1, Length: 100, BlockSize: 100, Persist: uint32(orca.Persisted), Type: uint32(orca.TypeFile),
	}}, nil
}

func (m *master) PersistPrepare(context.Context, *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	return nil, orca.E("master", orca.Stale, "")
}

func (m *master) PersistCommit(context.Context, *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	return &metapb.Empty{}, nil
}

// slow is a read path that waits for its gate.
type slow struct{ gate chan struct{} }

func (s slow) Open(ctx context.Context, q dataplane.ReadRequest) (dataplane.Extent, error) {
	select {
	case <-s.gate:
		return dataplane.Extent{N: q.N}, nil
	case <-ctx.Done():
		return dataplane.Extent{}, orca.PathE("slow", "", orca.Canceled, ctx.Err())
	}
}

func work(n int) (out []*jobpb.Work) {
	for i := range n {
		out = append(out, &jobpb.Work{Task: &jobpb.Task{Job: 1, Id: uint32(i + 1), Items: []*jobpb.Item{{File: uint64(i + 1), Version: 1, Path: "/f", Bytes: 100}}}})
	}
	return out
}

func start(t *testing.T, m *master, s slow, slots int) *Worker {
	t.Helper()
	w, err := New(Config{ID: func() uint64 { return 3 }, Slots: slots, Wait: 20 * time.Millisecond, Pause: 5 * time.Millisecond, Goodbye: 50 * time.Millisecond},
		m, s, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	w.Start()
	return w
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, time.Minute, time.Millisecond)
}

func TestSlotsAndReports(t *testing.T) {
	m := &master{work: work(20)}
	s := slow{make(chan struct{})}
	w := start(t, m, s, 3)
	until(t, func() bool { return w.Stats.Running.Load() == 3 })
	until(t, func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.most == 3 }) // renewed
	close(s.gate)
	until(t, func() bool { return len(m.reported()) == 20 })
	w.Close()
	require.LessOrEqual(t, m.most, 3)
	for _, r := range m.reported() {
		require.Zero(t, r.Kind)
		require.EqualValues(t, 1, r.Done.Files)
		require.EqualValues(t, 100, r.Done.Bytes)
	}
	require.EqualValues(t, 2000, w.Stats.Bytes.Load())
}

// TestSettledBeforeReported: when the master hears of a result, what the work
// cached has been settled.
func TestSettledBeforeReported(t *testing.T) {
	m := &master{work: work(4)}
	s := slow{make(chan struct{})}
	close(s.gate)
	var w *Worker
	var done atomic.Int64 // loads that were through when Settle was last called
	w, err := New(Config{
		ID: func() uint64 { return 3 }, Slots: 2, Wait: 20 * time.Millisecond, Pause: 5 * time.Millisecond, Goodbye: 50 * time.Millisecond,
		Settle: func(context.Context) {
			require.Less(t, len(m.reported()), 4)
			done.Store(w.Stats.Loads.Load())
		},
	}, m, s, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	w.Start()
	until(t, func() bool {
		n := int64(len(m.reported()))
		require.GreaterOrEqual(t, done.Load(), n)
		return n == 4
	})
	w.Close()
}

// TestReportsSurviveOutage: results wait for a master that is away.
func TestReportsSurviveOutage(t *testing.T) {
	m := &master{work: work(5)}
	s := slow{make(chan struct{})}
	w := start(t, m, s, 5)
	until(t, func() bool { return w.Stats.Running.Load() == 5 })
	m.set(func() { m.down = true })
	close(s.gate)
	until(t, func() bool { return w.Stats.Loads.Load() == 5 })
	require.Empty(t, m.reported())
	m.set(func() { m.down = false })
	until(t, func() bool { return len(m.reported()) == 5 })
	w.Close()
}

func TestDropped(t *testing.T) {
	m := &master{work: work(2)}
	s := slow{make(chan struct{})}
	w := start(t, m, s, 2)
	until(t, func() bool { return w.Stats.Running.Load() == 2 })
	m.set(func() { m.drop = []*jobpb.Running{{Job: 1, Task: 2}} })
	until(t, func() bool { return w.Stats.Dropped.Load() == 1 && w.Stats.Running.Load() == 1 })
	require.Empty(t, m.reported(), "nobody wants the result")
	w.Close()
	rs := m.reported()
	require.Len(t, rs, 1, "what Close cancels is told, so that another one begins at once")
	require.EqualValues(t, orca.Canceled, rs[0].Kind)
	require.EqualValues(t, 1, rs[0].Done.Task)
}

// TestCloseWithoutMaster ends in bounded time.
func TestCloseWithoutMaster(t *testing.T) {
	m := &master{work: work(2)}
	w := start(t, m, slow{make(chan struct{})}, 2)
	until(t, func() bool { return w.Stats.Running.Load() == 2 })
	m.set(func() { m.down = true })
	begun := time.Now()
	w.Close()
	require.Less(t, time.Since(begun), time.Minute)
}
