// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/dataplane"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
)

func TestMounts(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	mount := func(path, uri string, opts map[string]string) (*metapb.Mount, error) {
		r, err := e.NS.Mount(e.ctx(), &metapb.MountRequest{H: e.h(), Parents: true, Mount: &metapb.Mount{Path: path, Uri: uri, Options: opts, SyncIntervalMs: -1}})
		return r.GetMount(), err
	}
	h.others.store("obj-nested").Put("in/side", "nested")
	m, err := mount("/p/deep/m", "mem://obj-nested", map[string]string{"aws.secretKey": "hush", "s3.endpoint": "e"})
	require.NoError(t, err)
	require.Equal(t, "******", m.Options["s3.secret_key"])
	require.Equal(t, "e", m.Options["s3.endpoint"])
	e.content("/p/deep/m/in/side", "nested")
	require.True(t, e.stat("/p/deep/m").MountPoint)

	_, err = mount("/p/deep/m2", "mem://obj-nested/in", nil)
	require.ErrorIs(t, err, orca.Exists, "the same store twice")
	_, err = mount("/p/deep/m", "mem://obj-other", nil)
	require.ErrorIs(t, err, orca.Exists)
	m2, err := mount("/p/deep/m", "mem://obj-nested", map[string]string{"s3.region": "r"})
	require.NoError(t, err, "mounting the same again updates the options")
	require.Equal(t, m.Id, m2.Id)
	require.Equal(t, map[string]string{"s3.region": "r"}, m2.Options)
	_, err = e.As(1000, 1000).NS.Mount(e.ctx(), &metapb.MountRequest{H: e.As(1000, 1000).h(), Mount: &metapb.Mount{Path: "/x", Uri: "mem://x"}})
	require.ErrorIs(t, err, orca.Permission)

	// Nothing reaches over a nested mount.
	require.ErrorIs(t, e.delete("/p/deep", true), orca.Invalid)
	require.ErrorIs(t, e.rename("/p/deep", "/p/deeper"), orca.Invalid)
	require.ErrorIs(t, e.delete("/p/deep/m", true), orca.Invalid)
	e.write("/p/deep/f", orca.CacheThrough, "f")
	require.ErrorIs(t, e.rename("/p/deep/f", "/p/deep/m/f"), orca.CrossMount)
	e.equal("[f m]", e.names("/p/deep", every(0)))

	ro, err := e.NS.Mount(e.ctx(), &metapb.MountRequest{H: e.h(), Mount: &metapb.Mount{Path: "/ro", Uri: "mem://obj-ro", ReadOnly: true}})
	require.NoError(t, err)
	require.True(t, ro.Mount.ReadOnly)
	_, err = e.create("/ro/f", orca.CacheThrough)
	require.ErrorIs(t, err, orca.ReadOnly)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{Target: at("/ro/d")})
	require.ErrorIs(t, err, orca.ReadOnly)

	l, err := e.NS.ListMounts(e.ctx(), &metapb.ListMountsRequest{H: e.h()})
	require.NoError(t, err)
	require.Len(t, l.Mounts, 5)
	_, err = e.NS.ListMounts(e.ctx(), &metapb.ListMountsRequest{H: e.As(1, 1).h(), Secrets: true})
	require.ErrorIs(t, err, orca.Permission)
	_, err = e.NS.Unmount(e.ctx(), &metapb.UnmountRequest{H: e.h(), Path: "/p/deep/m"})
	require.NoError(t, err)
	e.absent("/p/deep/m/in/side", nil)
	l2, err := e.NS.ListMounts(e.ctx(), &metapb.ListMountsRequest{H: e.h()})
	require.NoError(t, err)
	require.NotEqual(t, l.Epoch, l2.Epoch)
	data, _ := h.others.store("obj-nested").Data("in/side")
	require.Equal(t, "nested", data, "the store keeps what it has")
	h.Stop()
	h.Start(t)
	require.Len(t, mustMounts(t, h), 4, "the table survives")
}

func mustMounts(t *testing.T, h *Harness) []*metapb.Mount {
	t.Helper()
	r, err := h.Service.ListMounts(t.Context(), &metapb.ListMountsRequest{})
	require.NoError(t, err)
	return r.Mounts
}

func TestWorkersGrantsAndLoss(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	reg := func(id, boot uint64, files ...*metapb.FileReport) *metapb.RegisterReply {
		r, err := e.NS.Register(e.ctx(), &metapb.RegisterRequest{Worker: &metapb.Worker{Id: id, Node: "n", Boot: boot}, Files: files})
		require.NoError(t, err)
		return r
	}
	r := reg(0, 1)
	require.NotZero(t, r.Id)
	other := reg(0, 1)
	require.NotEqual(t, r.Id, other.Id)
	asked := &metapb.Worker{Node: "n", Boot: 1}
	_, err := e.NS.Register(e.ctx(), &metapb.RegisterRequest{Worker: asked, More: true})
	require.NoError(t, err)
	require.Zero(t, asked.Id, "the caller's request is its own")

	s, err := e.create("/p/f", orca.MustCache)
	require.NoError(t, err)
	require.Len(t, s.Workers, 3)
	wg := grantOf(s.Session.Grant)
	require.NoError(t, grant.Verify(r.GrantKey, &wg, time.Now()))
	require.True(t, wg.Write)
	c, err := e.NS.Complete(e.ctx(), &metapb.CompleteRequest{Session: s.Session.Id, Fence: s.Session.Fence, Length: 10, Workers: []uint64{r.Id}})
	require.NoError(t, err)
	o, err := e.NS.Open(e.ctx(), &metapb.OpenRequest{Target: at("/p/f")})
	require.NoError(t, err)
	require.Len(t, o.Locations, 1)
	require.Equal(t, r.Id, o.Locations[0].Worker)
	require.Equal(t, r.Id, o.Workers[0].Id, "who holds it comes first")
	require.EqualValues(t, 10, o.Attr.CachedBytes)
	rg := grantOf(o.Grant)
	require.NoError(t, grant.Verify(r.GrantKey, &rg, time.Now()))
	rg.Write = true
	require.ErrorIs(t, grant.Verify(r.GrantKey, &rg, time.Now()), orca.Permission)

	// After a restart of the metaplane nobody has reported: it may come back.
	h.Stop()
	h.Start(t)
	e = newEnv(t, h)
	require.Equal(t, r.GrantKey, h.Service.GrantKey())
	_, err = e.NS.Open(e.ctx(), &metapb.OpenRequest{Target: at("/p/f")})
	require.NoError(t, err)
	hb, err := e.NS.Heartbeat(e.ctx(), &metapb.HeartbeatRequest{Worker: &metapb.Worker{Id: r.Id, Boot: 1}})
	require.NoError(t, err)
	require.True(t, hb.Register)
	reg(r.Id, 1, &metapb.FileReport{File: c.Attr.Ino, Version: c.Attr.Version, Cached: 10, Complete: []uint32{0}, Dirty: true},
		&metapb.FileReport{File: 1 << 40, Version: 1, Cached: 5})
	hb, err = e.NS.Heartbeat(e.ctx(), &metapb.HeartbeatRequest{Worker: &metapb.Worker{Id: r.Id, Boot: 1}})
	require.NoError(t, err)
	require.Len(t, hb.Orders, 1, "a file that nobody knows is freed")
	require.EqualValues(t, 1<<40, hb.Orders[0].File)

	// A new life of the worker, without the file: it is lost, and says so.
	reg(r.Id, 2)
	_, err = e.NS.Open(e.ctx(), &metapb.OpenRequest{Target: at("/p/f")})
	require.ErrorIs(t, err, orca.LostData)
	require.EqualValues(t, orca.Lost, e.stat("/p/f").Persist)
	require.NoError(t, e.delete("/p/f", false))

	// Orders: an overwrite, a pin and a delete reach the holder.
	a := e.write("/p/g", orca.CacheThrough, "g")
	reg(r.Id, 3, &metapb.FileReport{File: a.Ino, Version: a.Version, Cached: 1})
	_, err = e.NS.SetAttr(e.ctx(), &metapb.SetAttrRequest{Target: at("/p/g"), Mask: uint32(metapb.SetAttrMask_SET_PINNED), Pinned: true})
	require.NoError(t, err)
	b := e.write("/p/g", orca.CacheThrough, "gg")
	require.NoError(t, e.delete("/p/g", false))
	want := map[metapb.WorkerOrder_Kind]uint32{metapb.WorkerOrder_PIN: 0, metapb.WorkerOrder_FREE_OLD: b.Version, metapb.WorkerOrder_FREE_FILE: 0}
	e.eventually("the orders arrive", func() bool {
		hb, err := e.NS.Heartbeat(e.ctx(), &metapb.HeartbeatRequest{Worker: &metapb.Worker{Id: r.Id, Boot: 3}})
		require.NoError(t, err)
		for _, o := range hb.Orders {
			if v, ok := want[o.Kind]; ok && o.File == a.Ino && v == o.Version {
				delete(want, o.Kind)
			}
		}
		return len(want) == 0
	})

	// A free returns when the holder has dropped what it had: an order that came
	// later would take what was read since.
	a = e.write("/p/k", orca.CacheThrough, "k")
	reg(r.Id, 4)
	freed := make(chan error, 1)
	go func() {
		_, err := e.NS.Free(e.ctx(), &metapb.FreeRequest{Target: at("/p/k")})
		freed <- err
	}()
	beat := func(files ...*metapb.FileReport) []*metapb.WorkerOrder {
		hb, err := e.NS.Heartbeat(e.ctx(), &metapb.HeartbeatRequest{Worker: &metapb.Worker{Id: r.Id, Boot: 4}, Files: files})
		require.NoError(t, err)
		return hb.Orders
	}
	held := &metapb.FileReport{File: a.Ino, Version: a.Version, Cached: 1}
	e.eventually("it is ordered to", func() bool { return len(beat(held)) > 0 })
	require.Empty(t, beat(&metapb.FileReport{File: a.Ino}))
	require.NoError(t, <-freed)
	require.Empty(t, beat(held), "read again since")
}

func grantOf(g *metapb.Grant) dataplane.Grant {
	return dataplane.Grant{File: orca.Ino(g.File), Version: g.Version, UID: g.Uid, Write: g.Write, Expiry: time.Unix(0, g.Expiry), Token: g.Token}
}

func TestIdentityOverTheSocket(t *testing.T) {
	h := quick(t)
	c := serve(t, h, "unix")
	r, err := c.Mkdir(t.Context(), &metapb.MkdirRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: 1234, Gid: 5}}, Target: at("/p/x")})
	if os.Geteuid() == 0 { // root may speak for others
		require.ErrorIs(t, err, orca.Permission, "the root of the store is root's: 1234 was believed")
		r, err = c.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/p/x")})
		require.NoError(t, err)
		require.Zero(t, r.Attr.Uid)
		return
	}
	require.NoError(t, err)
	require.EqualValues(t, os.Geteuid(), r.Attr.Uid)
}

// TestFreeAfterAWorkerDied: the kernel closes the connections of a worker that is
// killed, so a free does not wait for it.
func TestFreeAfterAWorkerDied(t *testing.T) {
	h := quick(t)
	worker, user := serve(t, h, "tcp"), serve(t, h, "tcp")
	w := &metapb.Worker{Node: "n", Boot: 1}
	r, err := worker.Register(t.Context(), &metapb.RegisterRequest{Worker: w})
	require.NoError(t, err)
	w.Id = r.Id
	_, err = worker.Heartbeat(t.Context(), &metapb.HeartbeatRequest{Worker: w})
	require.NoError(t, err)
	h.Service.Workers.Free(1, 1)
	require.NoError(t, worker.Close())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, h.Service.Workers.Freed(ctx))
	_, err = user.Free(ctx, &metapb.FreeRequest{Target: at("/"), Recursive: true})
	require.NoError(t, err)
}

func TestGarbageCostsOneConnection(t *testing.T) {
	h := quick(t)
	c := serve(t, h, "tcp")
	addr := c.Addr()
	for i := range 20 {
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		junk := make([]byte, 1+i*97)
		_, _ = rand.Read(junk)
		_, _ = conn.Write(junk)
		_ = conn.Close()
	}
	tc, err := transport.NewClient(transport.ClientConfig{Addr: addr}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer tc.Close()
	for _, meta := range [][]byte{nil, {0xff}, {0x0a, 0x00}, make([]byte, 4096)} {
		for op := frame.OpMetaFirst; op < frame.OpMetaFirst+0x70; op++ {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := tc.Call(ctx, op, meta, nil)
			cancel()
			if k := orca.KindOf(err); k == orca.Unavailable || k == orca.Internal {
				t.Fatalf("op %v with %d bytes: %v", op, len(meta), err)
			}
		}
	}
	_, err = c.Stat(t.Context(), &metapb.StatRequest{Target: at("/")})
	require.NoError(t, err)
}

func TestClientMovesOnToALivingServer(t *testing.T) {
	h := quick(t)
	log := slog.New(slog.DiscardHandler)
	var addrs []string
	var servers []*metaserver.Server
	for range 2 {
		srv, err := metaserver.NewServer(h.Service, transport.ServerConfig{}, log)
		require.NoError(t, err)
		a, err := srv.Listen("127.0.0.1:0")
		require.NoError(t, err)
		addrs, servers = append(addrs, a.String()), append(servers, srv)
	}
	c, err := metaclient.New(metaclient.Config{Addrs: addrs}, log)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/p/one"), Mode: 0o755})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = servers[0].Shutdown(ctx)
	_, err = c.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/p/two"), Mode: 0o755})
	require.NoError(t, err)
	require.NoError(t, servers[1].Shutdown(ctx))
}

// TestManyClientsAtOnce runs conflicting mutations; each name ends with one
// owner, and tree and store agree.
func TestManyClientsAtOnce(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	e.mkdir("/o/race")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			s := metaclient.NewSession(h.Service, metaclient.SessionConfig{BusyPatience: 20 * time.Second})
			for i := range 15 {
				p := "/o/race/" + string(rune('a'+(i+w)%5))
				_, _ = s.Create(t.Context(), &metapb.CreateRequest{Target: at(p), Complete: true, Overwrite: true})
				_, _ = s.Rename(t.Context(), &metapb.RenameRequest{Src: at(p), Dst: at("/o/race/" + string(rune('f'+i%3)))})
				_, _ = s.Delete(t.Context(), &metapb.DeleteRequest{Target: at("/o/race/" + string(rune('f'+(i+1)%3)))})
			}
		})
	}
	wg.Wait()
	e.drained()
	agree(e, "/o", h.Objects)
}

func TestReportAndConf(t *testing.T) {
	h := NewHarness(t)
	h.Config.Cluster, h.Config.Version = "c", "v1"
	h.Config.Conf = func() []*metapb.ConfReply_Value {
		return []*metapb.ConfReply_Value{{Key: "s3.secret_key", Value: "hush"}, {Key: "a", Value: "b"}}
	}
	h.Start(t)
	defer h.Stop()
	e := newEnv(t, h)
	e.write("/p/f", orca.CacheThrough, "f")
	r, err := e.NS.Report(e.ctx(), &metapb.ReportRequest{})
	require.NoError(t, err)
	require.Equal(t, "c", r.Cluster)
	require.Equal(t, "v1", r.Version)
	require.Len(t, r.Mounts, 3)
	require.EqualValues(t, 1, r.Inodes-r.Directories)
	require.Positive(t, r.Applied)
	require.Positive(t, r.Counters["mutations"])
	cf, err := e.NS.Conf(e.ctx(), &metapb.ConfRequest{})
	require.NoError(t, err)
	require.Equal(t, "a", cf.Values[0].Key)
	require.Equal(t, "******", cf.Values[1].Value)
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	h := NewHarness(t)
	h.Start(t)
	h.Stop() // what the engines below start for ever has been started
	time.Sleep(10 * time.Millisecond)
	opt := goleak.IgnoreCurrent()
	h.Start(t)
	e := newEnv(t, h)
	e.write("/o/d/f", orca.CacheThrough, "f")
	require.NoError(t, e.rename("/o/d", "/o/e"))
	require.NoError(t, os.WriteFile(filepath.Join(h.Folder, "x"), nil, 0o600))
	e.absent("/nothing", nil)
	h.Stop()
	goleak.VerifyNone(t, opt)
}

// TestFirstRequestMayBeRefusedBeforeTheJournal: a client whose first numbers
// never reached the state machine is not taken for a forgotten one.
func TestFirstRequestMayBeRefusedBeforeTheJournal(t *testing.T) {
	h := quick(t)
	s := metaclient.NewSession(h.Service, metaclient.SessionConfig{})
	_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("relative")})
	require.ErrorIs(t, err, orca.Invalid)
	_, err = s.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/p/good"), Mode: 0o755})
	require.NoError(t, err)
}
