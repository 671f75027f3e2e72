// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/mount"
	"orca/metaplane/raftgroup"
	"orca/ufs"
	"orca/ufs/local"
	"orca/ufs/wrap"
)

// pair is a metaplane of one host with two groups, or with three if it is wide.
type pair struct {
	t        *testing.T
	dir      string
	stores   shelf
	host     *raftgroup.Host
	second   *raftgroup.Group
	one, two *metaserver.Service
	ns       *metaclient.Router
	hasty    *metaclient.Router // is told what is so now, and that something is on its way
	wide     bool
	third    *raftgroup.Group // nil unless it is wide
	three    *metaserver.Service
	// cut is the point where who leads a group dies: before or after the other
	// group was asked, a step was recorded, or a store called. "": nowhere.
	cut  atomic.Value   // of string
	dead [4]atomic.Bool // by group
	// life ends when the first of those that lead groups since the last serve dies.
	life context.Context //nolint:containedctx // of who leads, not of a call
	die  context.CancelFunc
	away [4]atomic.Bool // nobody leads it, as far as others can tell
	// then is called at each such point.
	then atomic.Value  // of func(point string)
	slow bool          // a store takes its time
	busy time.Duration // for which who meets another's change waits; 0: the default
	lame bool          // who is dead does not go on with what moves, but serves clients
	// remote opens stores of other schemes.
	remote func(ctx context.Context, uri string) (ufs.FS, error)
}

// spared reports whether a sweep leaves this one of its points out: with -short, as
// under the race detector, it takes every third, other ones in each of its rounds of
// so many points.
func spared(n, round uint64) bool { return testing.Short() && (n+n/round)%3 != 0 }

var errDead = orca.E("metatest", orca.Canceled, "the process is dead")

// at reports whether who leads a group dies at a point.
func (p *pair) at(group uint16, point string) bool {
	if f, ok := p.then.Load().(func(string)); ok {
		f(point)
	}
	if p.cut.Load() == point {
		p.dead[group].Store(true)
		p.die()
	}
	return p.dead[group].Load()
}

// cutGroup dies around the steps of junctions, moves and transfers.
type cutGroup struct {
	*raftgroup.Group
	p *pair
}

// stepOf names what a command does; "": nobody dies there.
func stepOf(g *raftgroup.Group, c *command.Command) string {
	switch {
	case c.Junction != nil:
		return strings.ToLower(strings.TrimPrefix(c.Junction.To.String(), "JUNCTION_"))
	case c.Rename.GetAway() != nil:
		return "sending"
	case c.Brought != nil:
		return "bringing"
	case c.Transfer.GetTx() != 0:
		return "receiving"
	case c.Regroup != nil:
		return regroupStep(c.Regroup)
	case c.Depart != nil:
		return "departing " + departStep(c.Depart)
	case c.Stage.GetTx() != 0:
		return "staging " + stageStep(c.Stage.Self, c.Stage.Seal)
	case c.FinishIntent != nil:
		return "finishing"
	case c.Delete != nil && c.Client != 0 && c.Client%2 == 0:
		return "removing what was given back"
	case c.Decide != nil:
		if it, err := g.Machine().Intent(c.Decide.Intent); err == nil {
			return "deciding " + strings.ToLower(strings.TrimPrefix(it.Op.String(), "INTENT_"))
		}
	}
	return ""
}

func (g cutGroup) Propose(ctx context.Context, c *command.Command) (*command.Result, error) {
	name := stepOf(g.Group, c)
	if name == "" && !g.p.dead[g.Number()].Load() || g.p.lame && c.Regroup == nil && c.Depart == nil && c.Stage == nil && c.Brought == nil {
		return g.Group.Propose(ctx, c)
	}
	if g.p.at(g.Number(), "before "+name) {
		return nil, errDead
	}
	res, err := g.Group.Propose(ctx, c)
	if g.p.at(g.Number(), "after "+name) {
		return nil, errDead
	}
	return res, err
}

// cutOther dies around calls of another group.
type cutOther struct {
	metaplane.Namespace
	p  *pair
	by uint16 // whose leader calls
	to uint16
}

func around[R any](o cutOther, what string, call func() (R, error)) (R, error) {
	var zero R
	if o.p.at(o.by, "before "+what) {
		return zero, errDead
	}
	if o.p.away[o.to].Load() {
		return zero, orca.E("metatest", orca.Unavailable, "no member leads the group")
	}
	r, err := call()
	if o.p.at(o.by, "after "+what) {
		return zero, errDead
	}
	return r, err
}

func (o cutOther) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	return around(o, "mount", func() (*metapb.MountReply, error) { return o.Namespace.Mount(ctx, r) })
}

func (o cutOther) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	return around(o, "unmount", func() (*metapb.Empty, error) { return o.Namespace.Unmount(ctx, r) })
}

func (o cutOther) Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	return around(o, "quorum", func() (*metapb.QuorumReply, error) { return o.Namespace.Quorum(ctx, r) })
}

func (o cutOther) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	if r.Op.GetTx() == 0 {
		return o.Namespace.Transfer(ctx, r)
	}
	return around(o, "transfer", func() (*metapb.TransferReply, error) { return o.Namespace.Transfer(ctx, r) })
}

// cutStore has the leader of a group die around renames, copies and removals in a
// store.
func (p *pair) cutStore(group uint16) mount.Opener {
	return func(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
		fs, err := p.openStore(ctx, m)
		if err != nil {
			return nil, err
		}
		return wrap.Intercept(fs, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
			step := map[wrap.Op]string{wrap.Rename: "store", wrap.Copy: "store", wrap.Remove: "leaving"}[c.Op]
			if step == "" || p.lame {
				return do(ctx)
			}
			if p.at(group, "before "+step) {
				return errDead
			}
			if err := do(ctx); err != nil {
				return err
			}
			if p.at(group, "after "+step) {
				return errDead
			}
			return nil
		}), nil
	}
}

func (p *pair) openStore(ctx context.Context, m *metapb.Mount) (ufs.FS, error) {
	if dir, ok := strings.CutPrefix(m.Uri, "file://"); ok {
		return local.Open(ctx, local.Config{Root: dir}, slog.New(slog.DiscardHandler))
	}
	name, ok := strings.CutPrefix(m.Uri, "mem://")
	if !ok && p.remote != nil {
		return p.remote(ctx, m.Uri)
	}
	if !ok {
		return nil, &orca.Error{Op: "metatest.open", Path: m.Uri, Kind: orca.Unavailable, Msg: "connection refused"}
	}
	return p.stores.store(name).FS(), nil
}

func (p *pair) start() {
	t := p.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	p.host, err = raftgroup.Open(raftgroup.Config{Dir: p.dir, Machine: fsm.Config{Group: 1}}, log)
	require.NoError(t, err)
	p.second, err = p.host.StartGroup(raftgroup.GroupConfig{Number: 2, Members: p.host.Group().Voters(), Machine: fsm.Config{Group: 2}})
	require.NoError(t, err)
	if p.wide {
		p.third, err = p.host.StartGroup(raftgroup.GroupConfig{Number: 3, Members: p.host.Group().Voters(), Machine: fsm.Config{Group: 3}})
		require.NoError(t, err)
	}
	p.serve()
}

// serve starts the services on the groups.
func (p *pair) serve() {
	t := p.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	for i := range p.dead {
		p.dead[i].Store(false)
	}
	p.life, p.die = context.WithCancel(context.WithoutCancel(t.Context()))
	var err error
	// What was begun before goes on as soon as the first service is there.
	var ns *metaclient.Router
	ready := make(chan struct{})
	other := func(by uint16) func(uint16) (metaplane.Namespace, error) {
		return func(n uint16) (metaplane.Namespace, error) {
			<-ready
			s, err := ns.In(n)
			return cutOther{s, p, by, n}, err
		}
	}
	groups := func() []uint32 { return []uint32{1, 2} }
	here := func(uint16) *metaserver.Service { return p.two }
	if p.wide {
		groups = func() []uint32 { return []uint32{1, 2, 3} }
		here = func(n uint16) *metaserver.Service { return map[uint16]*metaserver.Service{2: p.two, 3: p.three}[n] }
	}
	p.one, err = metaserver.New(t.Context(), metaserver.Config{Others: other(1), Groups: groups, Here: here, BusyWait: p.busy}, cutGroup{p.host.Group(), p}, p.cutStore(1), log)
	require.NoError(t, err)
	p.two, err = metaserver.New(t.Context(), metaserver.Config{Group: 2, Home: p.one, Others: other(2), BusyWait: p.busy}, cutGroup{p.second, p}, p.cutStore(2), log)
	require.NoError(t, err)
	if p.wide {
		p.three, err = metaserver.New(t.Context(), metaserver.Config{Group: 3, Home: p.one, Others: other(3), BusyWait: p.busy}, cutGroup{p.third, p}, p.cutStore(3), log)
		require.NoError(t, err)
	}
	ns = p.client()
	p.ns, p.hasty = ns, p.clientFor(time.Millisecond)
	close(ready)
}

// client is the way of one more process to the services. It gives up soon: what is
// dead stays so.
func (p *pair) client() *metaclient.Router {
	return p.clientFor(p.patience())
}

func (p *pair) patience() time.Duration {
	if p.slow {
		return 2 * time.Second
	}
	return 20 * time.Millisecond
}

// short is a session of that client.
func (p *pair) short(group uint16) metaclient.SessionConfig { return patience(group, p.patience()) }

// clientFor is a client that repeats what may be repeated for so long.
func (p *pair) clientFor(wait time.Duration) *metaclient.Router {
	by := map[uint16]*metaserver.Service{2: p.two, 3: p.three}
	return metaclient.NewRouter(metaclient.NewSession(p.one, patience(0, wait)), func(n uint16) (*metaclient.Session, error) {
		return metaclient.NewSession(by[n], patience(n, wait)), nil
	})
}

func patience(group uint16, wait time.Duration) metaclient.SessionConfig {
	return metaclient.SessionConfig{Group: group, MutationPatience: wait, BusyPatience: wait, ReadPatience: wait}
}

func (p *pair) stop() {
	p.leave()
	require.NoError(p.t, p.host.Close())
}

// leave ends the services where they are.
func (p *pair) leave() {
	if p.wide {
		_ = p.three.Close()
	}
	_ = p.two.Close()
	_ = p.one.Close()
	p.die()
}

// asking bounds a request that who leads a group may die in. It is given up when
// those that are left have had the time to try once more (ufsexec's first pause is
// 50 ms): who is dead does not answer any more.
func (p *pair) asking() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(p.t.Context(), 200*time.Millisecond)
	stop := context.AfterFunc(p.life, func() { time.AfterFunc(60*time.Millisecond, cancel) })
	return ctx, func() { stop(); cancel() }
}

func newPair(t *testing.T) *pair {
	return newPairOn(t, false)
}

// newPairOn is newPair, for stores that take their time.
func newPairOn(t *testing.T, slow bool) *pair {
	return newPairWith(t, func(p *pair) { p.slow = slow })
}

// newTriple is newPairOn with three groups.
func newTriple(t *testing.T) *pair {
	return newPairWith(t, func(p *pair) { p.slow, p.wide = true, true })
}

func newPairWith(t *testing.T, set func(p *pair)) *pair {
	p := &pair{t: t, dir: memDir(t)}
	set(p)
	p.start()
	t.Cleanup(func() { p.stop() })
	p.mount("/", "mem://obj-"+t.Name()+"-root", 0)
	return p
}

func (p *pair) mount(path, uri string, group uint32) {
	p.t.Helper()
	require.NoError(p.t, p.tryMount(path, uri, group))
}

func (p *pair) tryMount(path, uri string, group uint32) error {
	_, err := p.ns.Mount(p.t.Context(), &metapb.MountRequest{Parents: true, Mount: &metapb.Mount{Path: path, Uri: uri, SyncIntervalMs: -1, Group: group}})
	return err
}

func (p *pair) unmount(path string) error {
	_, err := p.ns.Unmount(p.t.Context(), &metapb.UnmountRequest{Path: path})
	return err
}

func (p *pair) touch(path string) error {
	_, err := p.ns.Create(p.t.Context(), &metapb.CreateRequest{Target: at(path), Mode: 0o644, Complete: true, Exclusive: true})
	return err
}

func (p *pair) stat(path string) (*metapb.Attr, error) {
	r, err := p.ns.Stat(p.t.Context(), &metapb.StatRequest{Target: at(path)})
	return r.GetAttr(), err
}

// row is the mount at a path, nil if there is none.
func (p *pair) row(path string) *metapb.Mount {
	p.t.Helper()
	l, err := p.one.ListMounts(p.t.Context(), &metapb.ListMountsRequest{})
	require.NoError(p.t, err)
	for _, m := range l.Mounts {
		if m.Path == path {
			return m
		}
	}
	return nil
}

func TestAMountInAGroup(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ctx := t.Context()
	p.stores.store("obj-junction").Put("d/have", "content")
	require.ErrorIs(t, p.tryMount("/no", "mem://obj-x", 3), orca.Invalid, "there is no such group")
	p.mount("/a/b", "mem://obj-junction", 2)
	require.ErrorIs(t, p.tryMount("/a/b/in", "mem://obj-y", 0), orca.Unsupported)
	require.ErrorIs(t, p.tryMount("/again", "mem://obj-junction/d", 0), orca.Exists)

	// What is below is the other group's, by path and by number.
	a, err := p.stat("/a/b/d/have")
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(a.Ino).Group())
	require.NoError(t, p.touch("/a/b/d/new"))
	require.ErrorIs(t, p.touch("/a/b/d/new"), orca.Exists)
	dir, err := p.stat("/a")
	require.NoError(t, err)
	r, err := p.ns.Stat(ctx, &metapb.StatRequest{Target: &metapb.Target{Ino: dir.Ino, Path: "b"}})
	require.NoError(t, err)
	require.Equal(t, dir.Ino, r.Parent)
	require.True(t, r.Attr.MountPoint)
	root := r.Attr.Ino
	l, err := p.ns.List(ctx, &metapb.ListRequest{Target: at("/a")})
	require.NoError(t, err)
	require.Equal(t, root, l.Entries[0].Attr.Ino, "one number, however it is asked")
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: &metapb.Target{Ino: dir.Ino, Path: "b/e"}, Mode: 0o755})
	require.NoError(t, err)
	_, err = p.ns.Stat(ctx, &metapb.StatRequest{Target: &metapb.Target{Ino: root, Path: "e"}})
	require.NoError(t, err)

	// Sessions find their way by their number.
	c, err := p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/a/b/s"), Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	rn, err := p.ns.Renew(ctx, &metapb.RenewRequest{Sessions: []uint64{c.Session.Id, 1}})
	require.NoError(t, err)
	require.Equal(t, []uint64{1}, rn.Expired)
	require.ErrorIs(t, p.unmount("/a/b"), orca.Busy, "a writer is there")
	require.Equal(t, metapb.JunctionState_JUNCTION_ACTIVE, p.row("/a/b").Junction)
	_, err = p.ns.Complete(ctx, &metapb.CompleteRequest{Session: c.Session.Id, Fence: c.Session.Fence, Length: 1, Workers: []uint64{1}})
	require.NoError(t, err)

	// Names of two groups are of two mounts.
	rename := func(src, dst *metapb.Target) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: src, Dst: dst})
		return err
	}
	require.NoError(t, p.touch("/f"))
	require.ErrorIs(t, rename(at("/f"), at("/a/b/f")), orca.CrossMount)
	require.ErrorIs(t, rename(at("/a/b/d/new"), at("/new")), orca.CrossMount)
	require.ErrorIs(t, rename(&metapb.Target{Ino: root, Path: "d/new"}, &metapb.Target{Ino: 1, Path: "new"}), orca.CrossMount)
	require.ErrorIs(t, rename(&metapb.Target{Ino: dir.Ino, Path: "b"}, at("/c")), orca.CrossMount)
	require.NoError(t, rename(at("/a/b/d/new"), at("/a/b/e/new")))
	_, err = p.ns.Delete(ctx, &metapb.DeleteRequest{Target: at("/a"), Recursive: true})
	require.ErrorIs(t, err, orca.Invalid)

	// What takes a tree takes both groups' parts.
	_, err = p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at("/"), Mask: uint32(metapb.SetAttrMask_SET_PINNED), Pinned: true, Recursive: true})
	require.NoError(t, err)
	a, err = p.stat("/a/b/e/new")
	require.NoError(t, err)
	require.True(t, a.Pinned)
	p.stores.store("obj-junction").Put("d/later", "x")
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/"), Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Created)
	rep, err := p.ns.Report(ctx, &metapb.ReportRequest{})
	require.NoError(t, err)
	require.Greater(t, rep.Inodes, p.mustReport().Inodes)

	// The path above guards it, and a change of mind is heard of soon.
	as := func(uid uint32) error {
		_, err := p.ns.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: uid, Gid: uid}}, Target: at("/a/b/d/have")})
		return err
	}
	require.NoError(t, as(7))
	_, err = p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at("/a"), Mask: uint32(metapb.SetAttrMask_SET_MODE), Mode: 0o700})
	require.NoError(t, err)
	require.ErrorIs(t, as(8), orca.Permission)
	require.Eventually(t, func() bool { return orca.KindOf(as(7)) == orca.Permission }, time.Minute, 50*time.Millisecond)

	// It is all there after a restart, and gone after an unmount; who had been
	// referred is told.
	p.stop()
	p.start()
	_, err = p.stat("/a/b/e/new")
	require.NoError(t, err)
	require.NoError(t, p.unmount("/a/b"))
	_, err = p.stat("/a/b/e/new")
	require.ErrorIs(t, err, orca.NotFound)
	require.Nil(t, p.row("/a/b"))
	p.mount("/a/b", "mem://obj-other", 0)
	require.NoError(t, p.touch("/a/b/here"))
	a, err = p.stat("/a/b/here")
	require.NoError(t, err)
	require.NotEqual(t, uint16(2), orca.Ino(a.Ino).Group())
}

func (p *pair) mustReport() *metapb.ReportReply {
	p.t.Helper()
	r, err := p.one.Report(p.t.Context(), &metapb.ReportRequest{})
	require.NoError(p.t, err)
	return r
}

// The leader of the first group dies at every point of a mount and an unmount:
// the next one brings it to its end, whichever that is.
func TestJunctionsSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	settle := func(path string, want bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			m := p.row(path)
			return m == nil && !want || m != nil && want && m.Junction == metapb.JunctionState_JUNCTION_ACTIVE
		}, time.Minute, 10*time.Millisecond)
	}
	for i, point := range []string{"before mount", "after mount", "before active", "after active"} {
		path := "/m" + string(rune('0'+i))
		p.cut.Store(point)
		require.Error(t, p.tryMount(path, "mem://obj-sweep"+path[1:], 2), point)
		p.cut.Store("")
		p.leave()
		p.serve()
		settle(path, true)
		require.NoError(t, p.touch(path+"/f"), point)
	}
	for i, point := range []string{"before unmount", "after unmount", "before none", "after none"} {
		path := "/m" + string(rune('0'+i))
		p.cut.Store(point)
		if err := p.unmount(path); point != "after none" { // then a repetition finds it done
			require.Error(t, err, point)
		}
		p.cut.Store("")
		p.leave()
		p.serve()
		settle(path, false)
		p.mount(path, "mem://obj-sweep"+path[1:], 2)
		require.ErrorIs(t, p.touch(path+"/f"), orca.Exists, "the store kept it")
		require.NoError(t, p.unmount(path))
	}
	// What the group refuses is undone wherever the leader dies.
	p.mount("/busy", "mem://obj-busy", 2)
	c, err := p.ns.Create(t.Context(), &metapb.CreateRequest{Target: at("/busy/f"), Mode: 0o644})
	require.NoError(t, err)
	for _, point := range []string{"after unmount", "before active", "after active"} {
		p.cut.Store(point)
		require.Error(t, p.unmount("/busy"), point)
		p.cut.Store("")
		p.leave()
		p.serve()
		settle("/busy", true)
	}
	_, err = p.ns.Abandon(t.Context(), &metapb.AbandonRequest{Session: c.Session.Id, Fence: c.Session.Fence})
	require.NoError(t, err)
	// A mount that the store's absence refuses for good leaves nothing.
	require.Error(t, p.tryMount("/never", "gone://x", 2))
	require.Nil(t, p.row("/never"))
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// TestMountIsRepeatedWhenItIsGone: who has lost the answer of a mount, and asks again
// when somebody has unmounted it, is told so, and mounts nothing anew.
func TestMountIsRepeatedWhenItIsGone(t *testing.T) {
	p := newPair(t)
	for i, kind := range []orca.Kind{orca.OK, orca.Stale} {
		group := i + 1
		path := fmt.Sprintf("/again%d", group)
		again := func() (*metapb.MountReply, error) {
			return p.one.Mount(t.Context(), &metapb.MountRequest{H: &metapb.Header{Client: 77, Seq: uint64(group), Caller: &metapb.Caller{}},
				Mount: &metapb.Mount{Path: path, Uri: "mem://obj-" + t.Name(), SyncIntervalMs: -1, Group: uint32(group)}})
		}
		first, err := again()
		require.NoError(t, err)
		second, err := again()
		require.NoError(t, err)
		require.Equal(t, first.Mount.Id, second.Mount.Id)
		require.NoError(t, p.unmount(path))
		gone, err := again()
		require.Equal(t, kind, orca.KindOf(err), "%v", err)
		require.Equal(t, kind == orca.OK, gone != nil && gone.Mount.Id == first.Mount.Id)
		all, err := p.ns.ListMounts(t.Context(), &metapb.ListMountsRequest{})
		require.NoError(t, err)
		require.Len(t, all.Mounts, 1, "the root")
	}
}
