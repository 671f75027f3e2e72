// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// regroupStep names a step of a move to another group.
func regroupStep(o *metapb.RegroupOp) string {
	switch {
	case o.Cleared != 0:
		return "cleared"
	case o.Settled != 0:
		return "settled"
	case o.Intent == 0:
		return "begin"
	case o.Root == 0:
		return "give up"
	}
	return "switch"
}

// stageStep names what is brought to a group.
func stageStep(self *metapb.StagedEntry, seal *metapb.StagedSums) string {
	switch {
	case seal != nil:
		return "seal"
	case self != nil:
		return "self"
	}
	return "pages"
}

func (o cutOther) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	what := stageStep(r.Self, r.Seal)
	switch {
	case what == "pages" && o.p.cut.Load() == "a name is lost":
		last := r.Pages[len(r.Pages)-1]
		last.Entries[len(last.Entries)-1] = last.Entries[0] // there already
	}
	return around(o, what, func() (*metapb.StageReply, error) { return o.Namespace.Stage(ctx, r) })
}

// departStep names a step of a move away from a group.
func departStep(o *metapb.DepartOp) string {
	return strings.ToLower(strings.TrimPrefix(o.Step.String(), "DEPART_"))
}

func (o cutOther) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	return around(o, departStep(r.Op), func() (*metapb.DepartReply, error) { return o.Namespace.Depart(ctx, r) })
}

func (p *pair) regroup(path string, group uint32, ask metapb.RegroupAsk) (*metapb.RegroupReply, error) {
	return p.ns.Regroup(p.t.Context(), &metapb.RegroupRequest{Target: at(path), Group: group, Ask: ask})
}

// move moves a directory to group 2 and waits until it is there.
func (p *pair) move(path string) {
	p.t.Helper()
	p.moveTo(path, 2)
}

func (p *pair) moveTo(path string, group uint32) {
	p.t.Helper()
	_, err := p.regroup(path, group, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(p.t, err)
	p.movedTo(path, group)
}

func (p *pair) moved(path string) {
	p.t.Helper()
	p.movedTo(path, 2)
}

func (p *pair) movedTo(path string, group uint32) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		r, err := p.regroup(path, 0, metapb.RegroupAsk_REGROUP_STATUS)
		require.NoError(p.t, err)
		if r.State == metapb.RegroupState_REGROUP_MOVING {
			return false
		}
		require.Equal(p.t, group, r.Group, r.Problem)
		return true
	}, time.Minute, 5*time.Millisecond)
}

// seen is all that a client can learn of what is at and below a directory, by
// path; numbers of inodes are not in it, nor is what belongs to the row.
func (p *pair) seen(path string) map[string]string {
	p.t.Helper()
	out := map[string]string{}
	var walk func(path string)
	walk = func(path string) {
		a, err := p.stat(path)
		require.NoError(p.t, err, path)
		x, err := p.ns.ListXattr(p.t.Context(), &metapb.XattrRequest{Target: at(path)})
		require.NoError(p.t, err, path)
		attrs := ""
		for _, n := range x.Names {
			v, err := p.ns.GetXattr(p.t.Context(), &metapb.XattrRequest{Target: at(path), Name: n})
			require.NoError(p.t, err, path)
			attrs += fmt.Sprintf(" %s=%s", n, v.Value)
		}
		ino := a.Ino
		a.Ino, a.MountId, a.MountPoint, a.UfsPending, a.CachedBytes = 0, 0, false, false, 0
		out[path] = a.String() + attrs
		if a.Type != uint32(orca.TypeDir) {
			return
		}
		u, err := p.ns.Usage(p.t.Context(), &metapb.UsageRequest{Target: &metapb.Target{Ino: ino}})
		require.NoError(p.t, err, path)
		out[path] += " " + u.Usage.String()
		for _, n := range p.names(path) {
			walk(orca.JoinPath(path, n))
		}
	}
	walk(path)
	return out
}

// furnish makes a tree with one of each thing that a namespace knows.
func (p *pair) furnish(store, path string) {
	p.t.Helper()
	ctx := p.t.Context()
	abs := filepath.Join(store, path[2:])
	require.NoError(p.t, os.MkdirAll(filepath.Join(abs, "d/deep/er"), 0o751))
	require.NoError(p.t, os.Mkdir(filepath.Join(abs, "empty"), 0o700))
	for i := range 25 {
		require.NoError(p.t, os.WriteFile(filepath.Join(abs, fmt.Sprintf("d/f%02d", i)), make([]byte, i), 0o640))
	}
	_, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at(path), Recursive: true})
	require.NoError(p.t, err)
	require.NoError(p.t, p.touch(path+"/made"))
	set := func(path string, r *metapb.SetAttrRequest) {
		p.t.Helper()
		r.Target = at(path)
		_, err := p.ns.SetAttr(ctx, r)
		require.NoError(p.t, err)
	}
	set(path+"/made", &metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_PINNED), Pinned: true})
	set(path+"/made", &metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_MODE), Mode: 0o604})
	set(path+"/d", &metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_SYNC), SyncIntervalMs: 3_600_000})
	set(path+"/d/f01", &metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_REPLICAS), ReplicaMin: 2, ReplicaLimit: 4})
	set(path+"/d/f02", &metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_MTIME), Mtime: 1234567890})
	for _, x := range []string{"", "/d", "/d/f03"} {
		_, err := p.ns.SetXattr(ctx, &metapb.XattrRequest{Target: at(path + x), Name: "user.k", Value: []byte("v" + x)})
		require.NoError(p.t, err)
	}
	_, err = p.ns.Create(ctx, &metapb.CreateRequest{Target: at(path + "/link"), Complete: true, Symlink: "d/f01"})
	require.NoError(p.t, err)
	for _, n := range []string{"/empty/other", "/z"} {
		_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at(path + "/d/f04"), Dst: at(path + n)})
		require.NoError(p.t, err)
	}
	// The home of the content is not the first name that a walk meets.
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: at(path + "/d/f05"), Dst: at(path + "/zz")})
	require.NoError(p.t, err)
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at(path + "/zz"), Dst: at(path + "/aa")})
	require.NoError(p.t, err)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(path + "/d"), Bytes: 1 << 20, Inodes: 50})
	require.NoError(p.t, err)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(path), Bytes: -1, Inodes: 500})
	require.NoError(p.t, err)
}

func (p *pair) check() {
	p.t.Helper()
	require.NoError(p.t, p.host.Group().Machine().Check())
	require.NoError(p.t, p.second.Machine().Check())
	if p.wide {
		require.NoError(p.t, p.third.Machine().Check())
	}
}

func (p *pair) quotas(path string) string {
	p.t.Helper()
	u, err := p.ns.Usage(p.t.Context(), &metapb.UsageRequest{Target: at(path)})
	require.NoError(p.t, err)
	out := ""
	for _, q := range u.Quotas {
		out += fmt.Sprint(q.Path, " ", q.Bytes, " ", q.Inodes, " ", q.Usage, "; ")
	}
	return out
}

func TestADirectoryMovesToAGroup(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	before, quotas := p.seen("/m/p"), p.quotas("/m/p/d/f01")
	was, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	above, err := p.stat("/m")
	require.NoError(t, err)
	lists := p.one.Syncer.Stats.Lists.Load()

	_, err = p.regroup("/m/p", 3, metapb.RegroupAsk_REGROUP_BEGIN)
	require.ErrorIs(t, err, orca.Invalid, "there is no such group")
	p.move("/m/p")
	a, err := p.stat("/m/p/d/f01")
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(a.Ino).Group())
	require.Equal(t, before, p.seen("/m/p"))
	require.Equal(t, quotas, p.quotas("/m/p/d/f01"))
	require.Equal(t, lists, p.one.Syncer.Stats.Lists.Load(), "nothing is listed again")
	require.Zero(t, p.two.Syncer.Stats.Lists.Load())
	now, err := p.stat("/m")
	require.NoError(t, err)
	require.Equal(t, above.Mtime, now.Mtime, "what is above has not changed")
	p.move("/m/p") // nothing happens
	// Who has a file open by the number that it had goes on.
	o, err := p.ns.Open(t.Context(), &metapb.OpenRequest{Target: &metapb.Target{Ino: was.Ino}})
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(o.Attr.Ino).Group())
	require.Equal(t, was.Fingerprint, o.Attr.Fingerprint)
	_, err = p.ns.Stat(t.Context(), &metapb.StatRequest{Target: &metapb.Target{Ino: was.Ino}})
	require.ErrorIs(t, err, orca.NotFound)
	p.settled("/m/p")
	p.check()

	// It is a part like any other.
	s, err := p.ns.Sync(t.Context(), &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	require.NoError(t, p.touch("/m/p/d/new"))
	require.FileExists(t, filepath.Join(store, "p/d/new"))
	require.NoError(t, p.remove("/m/p/d/new", false))
	require.ErrorIs(t, p.remove("/m/p", false), orca.NotEmpty)
	p.stop()
	p.start()
	require.Equal(t, before["/m/p/made"], p.seen("/m/p")["/m/p/made"])
	require.NoError(t, p.remove("/m/p", true))
	require.NoDirExists(t, filepath.Join(store, "p"))
	p.check()
}

// settled waits until the row of a part is active, and no group has to be told of
// a move any more.
func (p *pair) settled(path string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		m := p.row(path)
		return m != nil && m.Junction == metapb.JunctionState_JUNCTION_ACTIVE
	}, time.Minute, 10*time.Millisecond)
	p.told()
}

func (p *pair) told() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		m := p.host.Group().Machine()
		return len(m.Abandoned())+len(m.Departed()) == 0
	}, time.Minute, 5*time.Millisecond)
}

// The leader of the first group dies at every point of a move: the next one ends
// it, and all is there as it was. Or it gives it up, and all is there as it was.
func TestMovesToAGroupSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	again := func() {
		p.cut.Store("")
		p.leave()
		p.serve()
	}
	dies := func(point string) {
		t.Helper()
		require.Eventually(t, func() bool { return p.dead[1].Load() }, time.Minute, time.Millisecond, point)
	}
	points := []string{"begin", "mount", "self", "pages", "seal", "switch", "active"}
	for i := range 2 * len(points) {
		point := []string{"before ", "after "}[i%2] + points[i/2]
		path := "/m/moves " + point
		p.furnish(store, path)
		before := p.seen(path)
		p.cut.Store(point)
		_, err := p.regroup(path, 2, metapb.RegroupAsk_REGROUP_BEGIN)
		if points[i/2] == "begin" {
			require.Error(t, err, point)
		}
		dies(point)
		if point != "after switch" { // then the group lets nobody in before it is told, by whoever leads next
			require.Equal(t, before, p.seen(path), point)
		}
		again()
		if point == "before begin" {
			require.Nil(t, p.row(path))
			p.move(path)
		}
		p.moved(path)
		p.settled(path)
		require.Equal(t, before, p.seen(path), point)
		require.NoError(t, p.touch(path+"/late"), point)
		p.check()
	}
	points = []string{"give up", "unmount", "cleared"}
	for i := range 2 * len(points) {
		point := []string{"before ", "after "}[i%2] + points[i/2]
		path := "/m/stays " + point
		p.furnish(store, path)
		before := p.seen(path)
		p.cut.Store("after pages") // half of it is there
		_, _ = p.regroup(path, 2, metapb.RegroupAsk_REGROUP_BEGIN)
		dies(point)
		p.cut.Store("before seal")
		p.dead[1].Store(false)
		dies(point)
		p.cut.Store(point)
		p.dead[1].Store(false)
		_, err := p.regroup(path, 0, metapb.RegroupAsk_REGROUP_ABORT)
		if points[i/2] == "give up" {
			require.Error(t, err, point)
		}
		dies(point)
		again()
		if point == "before give up" { // nobody knows that it was to be
			p.moved(path)
			require.Equal(t, before, p.seen(path), point)
			continue
		}
		require.Eventually(t, func() bool { return len(p.host.Group().Machine().Abandoned()) == 0 }, time.Minute, 5*time.Millisecond)
		require.Equal(t, before, p.seen(path), point)
		require.Nil(t, p.row(path))
		require.NoError(t, p.touch(path+"/late"), point)
		require.NoError(t, p.remove(path+"/late", false), point)
		p.check()
		p.move(path)
		p.settled(path)
		require.Equal(t, len(before), len(p.seen(path)), point)
		p.check()
	}
}

func TestWhatDoesNotMoveToAGroup(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	mkdir := func(path string) {
		t.Helper()
		_, err := p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at(path), Mode: 0o755})
		require.NoError(t, err)
	}
	refused := func(path string, kind orca.Kind) {
		t.Helper()
		intents := p.host.Group().Machine().Counts().Intents
		_, err := p.regroup(path, 2, metapb.RegroupAsk_REGROUP_BEGIN)
		require.ErrorIs(t, err, kind)
		require.Equal(t, intents, p.host.Group().Machine().Counts().Intents, "nothing has happened")
	}
	refused("/m", orca.Unsupported)
	refused("/", orca.Unsupported)
	refused("/m/none", orca.NotFound)
	require.NoError(t, p.touch("/m/file"))
	refused("/m/file", orca.NotDir)
	mkdir("/m/a")
	mkdir("/m/a/b")
	_, err := p.ns.Regroup(ctx, &metapb.RegroupRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: 7}}, Target: at("/m/a"), Group: 2})
	require.ErrorIs(t, err, orca.Permission)

	quota := func(path string, n int64) {
		_, err := p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(path), Bytes: -1, Inodes: n})
		require.NoError(t, err)
	}
	quota("/m/a", 10)
	refused("/m/a/b", orca.Unsupported)
	quota("/m/a", 0)

	require.NoError(t, p.touch("/m/a/b/f"))
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/a/b/f"), Dst: at("/m/a/g")})
	require.NoError(t, err)
	refused("/m/a/b", orca.Unsupported)
	require.NoError(t, p.remove("/m/a/g", false))

	// A file that only the cache has stays; one that is being written is waited for,
	// a while.
	c, err := p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/a/b/w"), Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	_, err = p.regroup("/m/a/b", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond) // the move is given up later
	_, err = p.ns.Create(soon, &metapb.CreateRequest{Target: at("/m/a/b/x"), Mode: 0o644, Complete: true, Exclusive: true})
	cancel()
	require.Error(t, err, "all others wait")
	var r *metapb.RegroupReply
	stays := func() {
		t.Helper()
		require.Eventually(t, func() bool {
			r, err = p.regroup("/m/a/b", 0, metapb.RegroupAsk_REGROUP_STATUS)
			require.NoError(t, err)
			return r.State == metapb.RegroupState_REGROUP_NONE
		}, time.Minute, 10*time.Millisecond)
	}
	stays()
	require.Contains(t, r.Problem, "open for writing")
	_, err = p.regroup("/m/a/b", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	_, err = p.ns.Complete(ctx, &metapb.CompleteRequest{Session: c.Session.Id, Fence: c.Session.Fence, Length: 3, Workers: []uint64{1}})
	require.NoError(t, err, "who was there before goes on")
	stays()
	require.Contains(t, r.Problem, "not in the store")
	refused("/m/a/b", orca.Unsupported)
	require.NoError(t, p.remove("/m/a/b/w", false))

	p.move("/m/a/b")
	refused("/m/a", orca.Unsupported)
	_, err = p.regroup("/m/a/b/f", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.ErrorIs(t, err, orca.Unsupported)
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, SyncIntervalMs: -1, TrashRetentionMs: 1000}})
	require.ErrorIs(t, err, orca.Unsupported)
	p.settled("/m/a/b")
	p.check()
}

// While it moves it is read, and who would change it waits.
func TestReadersAndWritersOfWhatMovesToAGroup(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	p.leave()
	p.slow, p.busy, p.lame = false, time.Millisecond, true // what waits is not waited for here
	p.serve()
	before := p.seen("/m/p")
	p.cut.Store("before switch")
	_, err := p.regroup("/m/p", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.dead[1].Load() }, time.Minute, time.Millisecond)
	require.Equal(t, before, p.seen("/m/p"))
	_, err = p.two.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{}, Target: at("/m/p/made")})
	require.ErrorIs(t, err, orca.Busy, "nor is it there yet for who was referred to an earlier part of this path")
	refused := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, orca.Busy)
	}
	refused(p.touch("/m/p/x"))
	refused(p.remove("/m/p/made", false))
	refused(p.remove("/m/p", true))
	rename := func(src, dst string) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: at(src), Dst: at(dst)})
		return err
	}
	refused(rename("/m/p/made", "/m/made"))
	refused(rename("/m/p", "/m/q"))
	for _, mask := range []metapb.SetAttrMask{metapb.SetAttrMask_SET_PINNED, metapb.SetAttrMask_SET_MODE, metapb.SetAttrMask_SET_REPLICAS} {
		_, err = p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at("/m/p/d/f07"), Mask: uint32(mask)})
		refused(err)
	}
	_, err = p.ns.SetXattr(ctx, &metapb.XattrRequest{Target: at("/m/p/d/f07"), Name: "user.x"})
	refused(err)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m/p/d/deep"), Bytes: 7, Inodes: -1})
	refused(err)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m"), Bytes: 7, Inodes: -1})
	refused(err)
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/p/d/f07"), Dst: at("/m/l")})
	refused(err)
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m/p/empty", Uri: "mem://obj-within", SyncIntervalMs: -1}})
	require.Error(t, err)
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, SyncIntervalMs: -1, TrashRetentionMs: 1000}})
	refused(err)
	refused(p.unmount("/m"))
	require.NoError(t, os.Remove(filepath.Join(store, "p/d/f08")))
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed)
	require.NoError(t, p.touch("/m/beside"))
	// Whatever has changed of the mount meanwhile holds for the part, too.
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, ReadOnly: true, SyncIntervalMs: -1}})
	require.NoError(t, err)
	require.Equal(t, before, p.seen("/m/p"))

	p.cut.Store("")
	p.leave()
	p.slow, p.busy, p.lame = true, 0, false
	p.serve()
	p.moved("/m/p")
	p.settled("/m/p")
	require.ErrorIs(t, p.touch("/m/p/x"), orca.ReadOnly)
	p.mount("/m", "file://"+store, 0)
	s, err = p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Removed, "what the store lost meanwhile")
	p.check()

	// Writers that never cease: none of their files is lost, and none is refused
	// but as Busy.
	p.furnish(store, "/m/busy")
	stop, made := make(chan struct{}), make([][]string, 4)
	var wg sync.WaitGroup
	for w := range made {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("/m/busy/d/w%d-%d", w, i)
				switch err := p.touch(name); orca.KindOf(err) {
				case orca.OK:
					made[w] = append(made[w], name)
					if i%3 > 0 { // refused, it may be done all the same
						_ = p.remove(name, false)
						made[w] = made[w][:len(made[w])-1]
					}
				case orca.Busy, orca.OverQuota:
				case orca.Exists: // an earlier attempt made it
				default:
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
	p.move("/m/busy")
	time.Sleep(50 * time.Millisecond)
	close(stop)
	wg.Wait()
	n := 0
	for _, names := range made {
		for _, name := range names {
			n++
			a, err := p.stat(name)
			require.NoError(t, err)
			require.Equal(t, uint16(2), orca.Ino(a.Ino).Group())
			require.FileExists(t, filepath.Join(store, name[2:]))
		}
	}
	require.Positive(t, n)
	p.settled("/m/busy")
	p.check()
}

// What comes late is refused, and what has not come is missed.
func TestWhatComesLateForAMoveToAGroup(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	before := p.seen("/m/p")
	late := func(mount uint32) {
		t.Helper()
		f, err := p.host.Group().Machine().LeavingDir(orca.RootIno)
		require.NoError(t, err)
		f.Name = "late"
		_, err = p.two.Stage(ctx, &metapb.StageRequest{H: &metapb.Header{}, Mount: mount, Pages: []*metapb.StagedPage{{Entries: []*metapb.StagedEntry{f.StagedEntry}}}})
		require.ErrorIs(t, err, orca.Stale)
	}
	p.cut.Store("a name is lost")
	_, err := p.regroup("/m/p", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r, err := p.regroup("/m/p", 0, metapb.RegroupAsk_REGROUP_STATUS)
		require.NoError(t, err)
		require.NotEqual(t, metapb.RegroupState_REGROUP_DONE, r.State)
		return r.State == metapb.RegroupState_REGROUP_NONE && len(p.host.Group().Machine().Abandoned()) == 0
	}, time.Minute, 5*time.Millisecond)
	require.Equal(t, before, p.seen("/m/p"))
	late(3) // after / and /m

	// Nobody gets at what is not whole yet, by no way.
	p.cut.Store("before seal")
	_, err = p.regroup("/m/p", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.dead[1].Load() }, time.Minute, time.Millisecond)
	_, err = p.two.Mkdir(ctx, &metapb.MkdirRequest{H: &metapb.Header{}, Target: at("/m/p/x"), Mode: 0o755})
	require.ErrorIs(t, err, orca.Busy)
	number := p.host.Group().Machine().Regroups()[0].Part
	p.cut.Store("")
	p.leave()
	p.serve()
	p.moved("/m/p")
	late(number)
	require.Equal(t, before, p.seen("/m/p"))
	p.check()
}
