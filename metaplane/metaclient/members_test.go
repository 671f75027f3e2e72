// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"log/slog"
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
