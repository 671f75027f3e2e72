// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca"
	"orca/dataplane/freeport"
	"orca/dataplane/transport"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
	"orca/ufs"
	"orca/ufs/memufs"
)

// member is one of three services in this process, with a door.
type member struct {
	host *raftgroup.Host
	svc  *metaserver.Service
	srv  *metaserver.Server
	addr string
}

// trio is a cluster in this process over one store.
type trio struct {
	t       *testing.T
	store   *memufs.Store
	members []*member
}

func newTrio(t *testing.T) *trio {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := &trio{t: t, store: memufs.New(memufs.Config{})}
	raft := map[uint64]string{}
	addrs, err := freeport.Addrs(3)
	require.NoError(t, err)
	for i, a := range addrs {
		raft[uint64(i+1)] = a
	}
	open := func(context.Context, *metapb.Mount) (ufs.FS, error) { return c.store.FS(), nil }
	for id := range uint64(3) {
		m := &member{}
		var err error
		m.host, err = raftgroup.Open(raftgroup.Config{Dir: memDir(t), Address: raft[id+1], Members: raft}, log)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.host.Close()) })
		m.svc, err = metaserver.New(t.Context(), metaserver.Config{}, m.host.Group(), open, log)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.svc.Close()) })
		m.srv, err = metaserver.NewServer(m.svc, transport.ServerConfig{}, log)
		require.NoError(t, err)
		a, err := m.srv.Listen("127.0.0.1:0")
		require.NoError(t, err)
		m.addr = a.String()
		m.svc.Announce(m.addr, m.addr)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = m.srv.Shutdown(ctx)
		})
		c.members = append(c.members, m)
	}
	return c
}

// roles waits until one serves and the others know where.
func (c *trio) roles() (lead *member, follow []*member) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		lead, follow = nil, nil
		for _, m := range c.members {
			if m.svc.Serving() == nil {
				lead = m
			} else {
				follow = append(follow, m)
			}
		}
		for _, m := range follow {
			var e *orca.Error
			if err := m.svc.Serving(); err == nil || lead == nil || !asError(err, &e) || e.Path != lead.addr {
				return false
			}
		}
		return len(follow) == 2
	}, time.Minute, 5*time.Millisecond)
	return lead, follow
}

func asError(err error, e **orca.Error) (ok bool) {
	*e, ok = err.(*orca.Error) //nolint:errorlint // as the service makes it
	return ok
}

func (c *trio) client(from metaclient.ReadFrom) *metaclient.Client {
	c.t.Helper()
	var addrs []string
	for _, m := range c.members {
		addrs = append(addrs, m.addr)
	}
	cl, err := metaclient.New(metaclient.Config{Addrs: addrs, ReadFrom: from}, slog.New(slog.DiscardHandler))
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// sums of the followers' counters.
func counts(ms []*member) (followed, referred, looks int64) {
	for _, m := range ms {
		followed, referred = followed+m.svc.Stats.Followed.Load(), referred+m.svc.Stats.Referred.Load()
		looks += m.svc.Syncer.Stats.Stats.Load() + m.svc.Syncer.Stats.Lists.Load()
	}
	return followed, referred, looks
}

// anyway marks a read that any member may answer.
func anyway() *metapb.Header { return &metapb.Header{AnyMember: true, Caller: &metapb.Caller{}} }

// filled is a cluster with /d, listed, with file f and attribute user.a, and
// /e, of which nothing was looked at and in which the store has a file g; /now
// looks at each access.
func filled(t *testing.T) (*trio, *metaclient.Client) {
	t.Helper()
	c := newTrio(t)
	c.roles()
	put := func(p string) {
		w, err := c.store.FS().Create(t.Context(), p, "")
		require.NoError(t, err)
		_, err = w.Write([]byte("content"))
		require.NoError(t, err)
		_, err = w.Commit(t.Context())
		require.NoError(t, err)
	}
	for _, d := range []string{"d", "e", "now"} {
		require.NoError(t, c.store.FS().Mkdir(t.Context(), d, 0o755))
		put(d + "/g")
	}
	cl := c.client(metaclient.Leader)
	ctx := t.Context()
	_, err := cl.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/", Uri: "mem://trio", SyncIntervalMs: -1}, Parents: true})
	require.NoError(t, err)
	_, err = cl.List(ctx, &metapb.ListRequest{Target: at("/")})
	require.NoError(t, err)
	_, err = cl.List(ctx, &metapb.ListRequest{Target: at("/d")})
	require.NoError(t, err)
	_, err = cl.Create(ctx, &metapb.CreateRequest{Target: at("/d/f"), Complete: true, Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	_, err = cl.SetXattr(ctx, &metapb.XattrRequest{Target: at("/d/f"), Name: "user.a", Value: []byte("v")})
	require.NoError(t, err)
	return c, cl
}

// TestFollowersAnswer asks members that do not lead directly.
func TestFollowersAnswer(t *testing.T) {
	c, _ := filled(t)
	lead, follow := c.roles()
	ctx := t.Context()
	for _, m := range follow {
		s := m.svc
		want, err := lead.svc.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{}, Target: at("/d/f")})
		require.NoError(t, err)
		got, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/f")})
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got), "%v %v", want, got)
		_, err = s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/g")})
		require.NoError(t, err, "what the store brought in")
		_, err = s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/none")})
		require.Equal(t, orca.NotFound, orca.KindOf(err), "the directory was listed: %v", err)
		page, err := s.List(ctx, &metapb.ListRequest{H: anyway(), Target: at("/d")})
		require.NoError(t, err)
		require.Len(t, page.Entries, 2)
		x, err := s.GetXattr(ctx, &metapb.XattrRequest{H: anyway(), Target: at("/d/f"), Name: "user.a"})
		require.NoError(t, err)
		require.Equal(t, "v", string(x.Value))
		x, err = s.ListXattr(ctx, &metapb.XattrRequest{H: anyway(), Target: at("/d/f")})
		require.NoError(t, err)
		require.Equal(t, []string{"user.a"}, x.Names)
		_, err = s.Usage(ctx, &metapb.UsageRequest{H: anyway(), Target: &metapb.Target{Ino: want.Parent}})
		require.NoError(t, err)
		_, err = s.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{AnyMember: true, Caller: &metapb.Caller{Uid: 7}}, Target: at("/d/f/x")})
		require.Equal(t, orca.NotDir, orca.KindOf(err))
	}
	_, _, looks := counts(follow)
	require.Zero(t, looks, "a follower looked at a store")
}

// TestFollowersRefer asks for what takes the leader: with its address, and
// without a look at the store.
func TestFollowersRefer(t *testing.T) {
	c, _ := filled(t)
	lead, follow := c.roles()
	ctx := t.Context()
	s := follow[0].svc
	for what, ask := range map[string]func() error{
		"a name of a directory that was not listed": func() error {
			_, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/e/g")})
			return err
		},
		"one that is nowhere": func() error {
			_, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/e/none/x")})
			return err
		},
		"a listing of such a directory": func() error {
			_, err := s.List(ctx, &metapb.ListRequest{H: anyway(), Target: at("/e")})
			return err
		},
		"a listing that is forced": func() error {
			_, err := s.List(ctx, &metapb.ListRequest{H: anyway(), Target: at("/d"), Force: true})
			return err
		},
		"a look at each access": func() error {
			_, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/g"), Sync: every(0)})
			return err
		},
		"a look once in a while": func() error {
			_, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/g"), Sync: every(3_600_000)})
			return err
		},
		"a missing name, with one": func() error {
			_, err := s.Stat(ctx, &metapb.StatRequest{H: anyway(), Target: at("/d/none"), Sync: every(3_600_000)})
			return err
		},
		"a listing, with one": func() error {
			_, err := s.List(ctx, &metapb.ListRequest{H: anyway(), Target: at("/d"), Sync: every(3_600_000)})
			return err
		},
		"a caller who wants the leader": func() error {
			return s.Serving()
		},
	} {
		var e *orca.Error
		err := ask()
		require.Equal(t, orca.NotLeader, orca.KindOf(err), "%s: %v", what, err)
		require.True(t, asError(err, &e))
		require.Equal(t, lead.addr, e.Path, what)
	}
	_, referred, looks := counts(follow)
	require.Equal(t, int64(8), referred)
	require.Zero(t, looks, "a follower looked at a store")
}

// TestClientsSpreadReads has members take turns; what they refer goes to the
// leader, for a while without asking.
func TestClientsSpreadReads(t *testing.T) {
	c, cl := filled(t)
	lead, follow := c.roles()
	ctx := t.Context()
	const reads = 90
	for range reads {
		_, err := cl.Stat(ctx, &metapb.StatRequest{Target: at("/d/f")})
		require.NoError(t, err)
	}
	followed, _, _ := counts(follow)
	require.Zero(t, followed, "by default reads go to the leader")

	spread := c.client(metaclient.AnyMember)
	_, err := spread.ListMounts(ctx, &metapb.ListMountsRequest{})
	require.NoError(t, err)
	for range reads {
		_, err := spread.Stat(ctx, &metapb.StatRequest{Target: at("/d/f")})
		require.NoError(t, err)
	}
	for _, m := range follow {
		require.NotZero(t, m.svc.Stats.Followed.Load(), "each has its turn")
	}

	_, err = spread.SetAttr(ctx, &metapb.SetAttrRequest{Target: at("/now"), Mask: uint32(metapb.SetAttrMask_SET_SYNC)})
	require.NoError(t, err)
	_, before, _ := counts(follow)
	began := time.Now()
	for range reads {
		_, err := spread.Stat(ctx, &metapb.StatRequest{Target: at("/now/g")})
		require.NoError(t, err)
	}
	_, after, _ := counts(follow)
	require.LessOrEqual(t, after-before, 2+int64(time.Since(began)/time.Second), "a directory that takes the leader is remembered")

	// A member that is gone costs one attempt in a while.
	gone, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = follow[0].srv.Shutdown(gone)
	for range reads {
		_, err := spread.Stat(ctx, &metapb.StatRequest{Target: at("/d/f")})
		require.NoError(t, err)
	}
	require.Equal(t, lead, c.members[indexOf(c, spread.Addr())], "who leads is not forgotten")
}

func indexOf(c *trio, addr string) int {
	for i, m := range c.members {
		if m.addr == addr {
			return i
		}
	}
	return 0
}
