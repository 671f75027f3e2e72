// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
)

// council are members that say who leads, and hold watches.
type council struct {
	addrs  atomic.Pointer[[]string]
	leader atomic.Uint64 // replica
	asked  atomic.Int64  // who leads, of all
}

type councillor struct {
	metaplane.Namespace
	c       *council
	replica uint64
	hung    atomic.Bool
}

func (m *councillor) Quorum(ctx context.Context, _ *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	m.c.asked.Add(1)
	if m.hung.Load() {
		<-ctx.Done()
		return nil, orca.E("test", orca.Timeout, "hung")
	}
	l, addrs := m.c.leader.Load(), *m.c.addrs.Load()
	rep := &metapb.QuorumReply{Replica: m.replica, Leader: l, LeaderAddr: addrs[l-1], Term: l}
	for i, a := range addrs {
		rep.Members = append(rep.Members, &metapb.Member{Replica: uint64(i + 1), Addr: a})
	}
	return rep, nil
}

func (m *councillor) Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error) {
	if m.c.leader.Load() != m.replica && !m.hung.Load() {
		return nil, &orca.Error{Op: "test", Path: (*m.c.addrs.Load())[m.c.leader.Load()-1], Kind: orca.NotLeader}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.WaitMs)*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	return &metapb.WatchReply{Cursor: m.replica}, nil
}

// TestWatchAsksLittle: a watch that waits costs few questions while its member
// leads, and none of the other members after the first; when its member hangs
// it is left soon.
func TestWatchAsksLittle(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	c := &council{}
	c.leader.Store(1)
	var members []*councillor
	var addrs []string
	for i := range uint64(3) {
		m := &councillor{c: c, replica: i + 1}
		srv, err := metaserver.NewServer(m, transport.ServerConfig{}, log)
		require.NoError(t, err)
		a, err := srv.Listen("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = srv.Shutdown(ctx)
		})
		addrs, members = append(addrs, a.String()), append(members, m)
	}
	c.addrs.Store(&addrs)
	cl, err := New(Config{Addrs: addrs}, log)
	require.NoError(t, err)
	defer cl.Close()
	_, err = cl.Watch(t.Context(), &metapb.WatchRequest{WaitMs: 1})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.asked.Load() == 1 }, time.Minute, time.Millisecond, "who the members are")

	began := time.Now()
	r, err := cl.Watch(t.Context(), &metapb.WatchRequest{WaitMs: 2600})
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Cursor)
	took := time.Since(began)
	// The others once, and who leads once a second from 0.4 s on: 5 in all. Both
	// others every askEvery would be twice as many as what is allowed here to a
	// machine that is late with its answers.
	require.LessOrEqual(t, c.asked.Load()-1, int64((took-suspectAfter)/askEvery), "in %v", took)

	time.AfterFunc(100*time.Millisecond, func() {
		members[0].hung.Store(true)
		c.leader.Store(2)
	})
	began = time.Now()
	go func() {
		for cl.Addr() == addrs[0] && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		cl.Close() // it waits at the next one by now
	}()
	_, err = cl.Watch(t.Context(), &metapb.WatchRequest{WaitMs: 120_000})
	require.Error(t, err)
	require.Less(t, time.Since(began), 30*time.Second, "it stays with a member that hangs")
}

// widow says that a member leads that is gone, until it was asked often enough.
type widow struct {
	metaplane.Namespace
	gone string
	left atomic.Int64
}

func (w *widow) Quorum(context.Context, *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	return &metapb.QuorumReply{}, nil
}

func (w *widow) Mkdir(context.Context, *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	if w.left.Add(-1) >= 0 {
		return nil, &orca.Error{Op: "test", Path: w.gone, Kind: orca.NotLeader}
	}
	return &metapb.MkdirReply{}, nil
}

// TestNobodyWaitsAtTheDeadForLong: while the others still call a leader that is
// gone theirs, a client asks them at the pace of an election, and does not pause
// longer and longer since it cannot be reached.
func TestNobodyWaitsAtTheDeadForLong(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addrs := []string{gone.Addr().String()}
	require.NoError(t, gone.Close())
	const asked = 12 // pauses that double would be over a second by then
	for range 2 {
		w := &widow{gone: addrs[0]}
		w.left.Store(asked)
		srv, err := metaserver.NewServer(w, transport.ServerConfig{}, log)
		require.NoError(t, err)
		a, err := srv.Listen("127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = srv.Shutdown(ctx)
		})
		addrs = append(addrs, a.String())
	}
	var longest atomic.Int64
	chance := func(n uint64) uint64 {
		if n < uint64(time.Minute) { // else it is the number of a client
			longest.Store(max(longest.Load(), int64(n)))
		}
		return 0
	}
	cl, err := New(Config{Addrs: addrs, Session: SessionConfig{Chance: chance}}, log)
	require.NoError(t, err)
	defer cl.Close()
	_, err = cl.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.NoError(t, err)
	require.Positive(t, longest.Load())
	require.LessOrEqual(t, longest.Load(), int64(electionPause/2+1))
}
