// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
)

// twoDirs has a mount with a directory in each group, /m/1 and /m/2.
func twoDirs(t *testing.T) (p *pair, store string) {
	p = newPairOn(t, true)
	store = t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/2", 2)
	require.NoError(t, err)
	p.mkdir("/m/1")
	return p, store
}

func (p *pair) mkdir(path string) {
	p.t.Helper()
	_, err := p.ns.Mkdir(p.t.Context(), &metapb.MkdirRequest{Target: at(path), Mode: 0o755})
	require.NoError(p.t, err)
}

var ctimeOf = regexp.MustCompile(` ctime:\d+`)

// seenAs is what is seen at and below a path, called by another one; a rename
// changes the ctime of the directory itself.
func (p *pair) seenAs(path, as string) map[string]string {
	p.t.Helper()
	out := map[string]string{}
	for k, v := range p.seen(path) {
		v = strings.ReplaceAll(v, path[2:], as[2:])
		if k == path {
			v = ctimeOf.ReplaceAllString(strings.Join(strings.Fields(v), " "), "")
		}
		out[as+k[len(path):]] = strings.Join(strings.Fields(v), " ")
	}
	return out
}

// inStore is what the store has at and below a path, by key.
func inStore(t *testing.T, store, path string) map[string]string {
	t.Helper()
	out := map[string]string{}
	top := filepath.Join(store, path[2:])
	err := filepath.WalkDir(top, func(at string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if out[at[len(top):]] = "dir"; !d.IsDir() {
			b, err := os.ReadFile(at)
			require.NoError(t, err)
			out[at[len(top):]] = string(b)
		}
		return nil
	})
	require.NoError(t, err)
	return out
}

// A directory goes to another group and back with all that is known of what is
// below it.
func TestADirectoryGoesToAnotherGroup(t *testing.T) {
	t.Parallel()
	p, store := twoDirs(t)
	ctx := t.Context()
	p.furnish(store, "/m/1/d")
	want, stored := p.seenAs("/m/1/d", "/m/1/d"), inStore(t, store, "/m/1/d")
	quotas := p.quotas("/m/1/d/d/f01")
	lists := p.one.Syncer.Stats.Lists.Load() + p.two.Syncer.Stats.Lists.Load()
	at1, at2 := "/m/1/d", ""
	for i, to := range []string{"/m/2/e", "/m/1/there", "/m/2/x/y", "/m/1/d"} {
		if i == 2 {
			p.mkdir("/m/2/x")
		}
		at2, at1 = at1, to
		was, err := p.stat(at2 + "/d/f03")
		require.NoError(t, err)
		require.NoError(t, p.rename(at2, at1), to)
		_, err = p.stat(at2)
		require.ErrorIs(t, err, orca.NotFound)
		require.Equal(t, want, p.seenAs(at1, "/m/1/d"), to)
		require.Equal(t, stored, inStore(t, store, at1))
		require.NoDirExists(t, filepath.Join(store, at2[2:]))
		require.Equal(t, quotas, strings.ReplaceAll(p.quotas(at1+"/d/f01"), at1, "/m/1/d"))
		a, err := p.stat(at1)
		require.NoError(t, err)
		require.Equal(t, uint16(at1[3]-'0'), orca.Ino(a.Ino).Home())
		p.check()
		// Who has a file open by the number that it had goes on.
		o, err := p.ns.Open(ctx, &metapb.OpenRequest{Target: &metapb.Target{Ino: was.Ino}})
		require.NoError(t, err)
		require.Equal(t, orca.Ino(a.Ino).Home(), orca.Ino(o.Attr.Ino).Home())
		require.Equal(t, was.Fingerprint, o.Attr.Fingerprint)
		require.Equal(t, was.Version, o.Attr.Version)
	}
	require.Equal(t, lists, p.one.Syncer.Stats.Lists.Load()+p.two.Syncer.Stats.Lists.Load(), "nothing is listed again")
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	require.NoError(t, p.touch("/m/1/d/d/new"))
	require.FileExists(t, filepath.Join(store, "1/d/d/new"))
	p.stop()
	p.start()
	require.Equal(t, want["/m/1/d/made"], p.seenAs("/m/1/d", "/m/1/d")["/m/1/d/made"])
	p.check()
}

// Who leads the group of the source or of the target dies at every point of a
// rename of a directory between them: the next one brings it to its end, and the
// request that began it has one answer.
func TestDirectoryTransfersSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p, store := twoDirs(t)
	points := []string{"sending", "self", "staging self", "staging pages", "staging seal", "pages", "seal", "bringing", "transfer", "receiving", "store", "deciding receive", "deciding transfer"}
	seq := uint64(0)
	for i := range 4 * len(points) {
		point, from, to, over := []string{"before ", "after "}[i%2]+points[i/4], 1+i/2%2, 2-i/2%2, (i+i/4)%2 == 1
		if seq++; spared(seq, 4) {
			continue
		}
		name := fmt.Sprintf("%s from %d %v", point, from, over)
		src, dst := fmt.Sprintf("/m/%d/%s", from, name), fmt.Sprintf("/m/%d/%s", to, name)
		p.furnish(store, src)
		want, stored := p.seenAs(src, dst), inStore(t, store, src)
		var old uint64
		if over {
			p.mkdir(dst)
			a, err := p.stat(dst)
			require.NoError(t, err)
			old = a.Ino
		}
		p.cut.Store(point)
		require.Error(t, p.asOne(from, seq, src, dst), name)
		require.Eventually(t, func() bool { return p.dead[1].Load() || p.dead[2].Load() }, time.Minute, time.Millisecond, name)
		p.notTwice(src, dst, old)
		p.cut.Store("")
		p.leave()
		p.serve()
		p.notTwice(src, dst, old)
		require.Eventually(t, func() bool {
			p.notTwice(src, dst, old)
			return len(p.host.Group().Machine().Intents())+len(p.second.Machine().Intents()) == 0
		}, time.Minute, 5*time.Millisecond, name)
		_, gone := p.stat(src)
		if gone == nil {
			require.Equal(t, "before sending", point, "it was begun, and nobody refused it")
		}
		for range 2 {
			require.Eventually(t, func() bool { return p.asOne(from, seq, src, dst) == nil }, time.Minute, 5*time.Millisecond, name)
			_, err := p.stat(src)
			require.ErrorIs(t, err, orca.NotFound, name)
			require.Equal(t, want, p.seenAs(dst, dst), name)
			require.Equal(t, stored, inStore(t, store, dst), name)
			require.NoDirExists(t, filepath.Join(store, src[2:]))
		}
		p.check()
		require.NoError(t, p.remove(dst, true))
	}
	p.forgotten()
}

// forgotten waits until neither group keeps anything of what is over.
func (p *pair) forgotten() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		one, two := p.host.Group().Machine(), p.second.Machine()
		return one.Counts().Transfers+two.Counts().Transfers == 0 && len(one.Staged())+len(two.Staged()) == 0
	}, time.Minute, 10*time.Millisecond)
	p.check()
}

// What is not to be moved is found while it is copied: wherever who leads a group
// dies, it stays as it was, is refused once, and nothing of it stays there.
func TestDirectoriesThatStaySurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p, store := twoDirs(t)
	seq := uint64(0)
	for i := range 8 {
		point, from, to := []string{"before ", "after "}[i%2]+[]string{"pages", "deciding transfer"}[i/4], 1+i/2%2, 2-i/2%2
		if seq++; spared(seq, 4) {
			continue
		}
		name := fmt.Sprintf("%s from %d", point, from)
		src, dst := fmt.Sprintf("/m/%d/%s", from, name), fmt.Sprintf("/m/%d/%s", to, name)
		p.furnish(store, src)
		for n := range 2*1000 + 1 { // several pages, the last of which has it
			require.NoError(t, os.WriteFile(filepath.Join(store, src[2:], fmt.Sprintf("a%d", n)), nil, 0o644))
		}
		_, err := p.ns.SetQuota(t.Context(), &metapb.SetQuotaRequest{Target: at(src), Bytes: 0, Inodes: 0})
		require.NoError(t, err)
		_, err = p.ns.Sync(t.Context(), &metapb.SyncRequest{Target: at(src), Recursive: true})
		require.NoError(t, err)
		p.cached(src + "/zzz")
		want := p.seenAs(src, src)
		p.cut.Store(point)
		require.Error(t, p.asOne(from, seq, src, dst), name)
		require.Eventually(t, func() bool { return p.dead[from].Load() }, time.Minute, time.Millisecond, name)
		p.cut.Store("")
		p.leave()
		p.serve()
		for range 2 {
			require.Eventually(t, func() bool {
				err := p.asOne(from, seq, src, dst)
				return err != nil && !orca.KindOf(err).Retryable() && orca.KindOf(err) == orca.CrossMount
			}, time.Minute, 5*time.Millisecond, name)
			require.Equal(t, want, p.seenAs(src, src), name)
			_, err = p.stat(dst)
			require.ErrorIs(t, err, orca.NotFound)
			require.NoDirExists(t, filepath.Join(store, dst[2:]))
		}
		require.NoError(t, p.touch(src+"/late"))
	}
	p.forgotten()
}

// cached makes a file that only the cache has.
func (p *pair) cached(path string) { p.t.Helper(); p.made(path, orca.MustCache) }

func (p *pair) made(path string, how orca.WriteType) {
	p.t.Helper()
	w, err := p.ns.Create(p.t.Context(), &metapb.CreateRequest{Target: at(path), Mode: 0o644, WriteType: uint32(how)})
	require.NoError(p.t, err)
	_, err = p.ns.Complete(p.t.Context(), &metapb.CompleteRequest{Session: w.Session.Id, Fence: w.Session.Fence, Length: 1, Workers: []uint64{1}})
	require.NoError(p.t, err)
}

// What a rename of a directory into another group answers, other than that it is
// done; and it is as it was.
func TestWhatDirectoriesDoNotGoToAnotherGroup(t *testing.T) {
	t.Parallel()
	p, store := twoDirs(t)
	ctx := t.Context()
	p.mount("/other", "file://"+t.TempDir(), 2)
	rename := func(uid uint32, src, dst string, exclusive bool) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: uid, Gid: uid}},
			Src: at(src), Dst: at(dst), NoReplace: exclusive})
		return err
	}
	chmod := func(path string, mode, uid uint32) {
		t.Helper()
		_, err := p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at(path), Mask: uint32(metapb.SetAttrMask_SET_MODE | metapb.SetAttrMask_SET_UID), Mode: mode, Uid: uid})
		require.NoError(t, err)
	}
	p.furnish(store, "/m/1/d")
	p.put(store, "2/file", "x")
	p.mkdir("/m/2/full")
	p.put(store, "2/full/f", "x")
	p.mkdir("/m/2/empty")
	p.mkdir("/m/2/strange")
	want := p.seen("/m/1/d")
	intents := func() int {
		return len(p.host.Group().Machine().Intents()) + len(p.second.Machine().Intents())
	}
	stays := func(kind orca.Kind, uid uint32, dst string, exclusive bool) {
		t.Helper()
		require.ErrorIs(t, rename(uid, "/m/1/d", dst, exclusive), kind)
		require.Equal(t, want, p.seen("/m/1/d"))
		require.DirExists(t, filepath.Join(store, "1/d"))
		require.Zero(t, intents())
	}
	stays(orca.NotFound, 0, "/m/2/none/d", false)
	stays(orca.NotDir, 0, "/m/2/file/d", false)
	stays(orca.NotDir, 0, "/m/2/file", false)
	stays(orca.Exists, 0, "/m/2/file", true)
	stays(orca.Exists, 0, "/m/2/empty", true)
	stays(orca.NotEmpty, 0, "/m/2/full", false)
	stays(orca.CrossMount, 0, "/m/2", false)
	stays(orca.CrossMount, 0, "/other/d", false)
	stays(orca.Permission, 7, "/m/2/d", false)
	// Who it is looked at: the directory that it is in, itself, and the new one.
	chmod("/m/1", 0o777, 0)
	chmod("/m/2", 0o777, 0)
	stays(orca.Permission, 7, "/m/2/d", false)
	chmod("/m/1/d", 0o755, 7)
	chmod("/m/1", 0o755, 0)
	want = p.seen("/m/1/d")
	stays(orca.Permission, 7, "/m/2/d", false)
	chmod("/m/1", 0o1777, 0)
	chmod("/m/2", 0o755, 0)
	stays(orca.Permission, 7, "/m/2/d", false)
	chmod("/m/2", 0o1777, 0)
	stays(orca.Permission, 7, "/m/2/empty", false)
	require.NoError(t, rename(7, "/m/1/d", "/m/2/d", false))
	require.NoError(t, rename(7, "/m/2/d", "/m/1/d", false))
	want = p.seen("/m/1/d")
	// The store has more than the namespace knows of.
	p.leave()
	require.NoError(t, os.WriteFile(filepath.Join(store, "2/strange/f"), nil, 0o644))
	p.serve()
	stays(orca.NotEmpty, 0, "/m/2/strange", false)
	// There is no room.
	_, err := p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m/2"), Bytes: -1, Inodes: 10})
	require.NoError(t, err)
	stays(orca.OverQuota, 0, "/m/2/d", false)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m/2"), Bytes: 0, Inodes: 0})
	require.NoError(t, err)
	// What does not go is in it.
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/1/d/made"), Dst: at("/m/1/outside")})
	require.NoError(t, err)
	want = p.seen("/m/1/d")
	stays(orca.CrossMount, 0, "/m/2/d", false)
	require.NoError(t, p.remove("/m/1/outside", false))
	p.cached("/m/1/d/cached")
	want = p.seen("/m/1/d")
	stays(orca.CrossMount, 0, "/m/2/d", false)
	require.NoError(t, p.remove("/m/1/d/cached", false))
	p.made("/m/1/d/waits", orca.AsyncThrough)
	want = p.seen("/m/1/d")
	stays(orca.CrossMount, 0, "/m/2/d", false)
	require.NoError(t, p.remove("/m/1/d/waits", false))
	_, err = p.mkdirIn("/m/1/d/part", 2)
	require.Error(t, err, "it has a quota")
	p.mkdir("/m/1/above")
	_, err = p.mkdirIn("/m/1/above/part", 2)
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/above", "/m/2/above", false), orca.CrossMount)
	require.ErrorIs(t, rename(0, "/m/1/above", "/m/1/above/part/in", false), orca.CrossMount)
	require.ErrorIs(t, rename(0, "/m/1/above/part", "/m/2/part", false), orca.CrossMount)
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: at("/m/1/d"), Dst: at("/m/2/empty"), Exchange: true})
	require.ErrorIs(t, err, orca.CrossMount)
	p.mount("/m", "file://"+store, 0)
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, ReadOnly: true, SyncIntervalMs: -1}})
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/d", "/m/2/d", false), orca.ReadOnly)
	p.mount("/m", "file://"+store, 0)
	require.NoError(t, rename(0, "/m/1/d", "/m/2/empty", false), "an empty directory is replaced")
	require.NoDirExists(t, filepath.Join(store, "1/d"))
	p.forgotten()
}

// While it is brought to the other group a directory is read, and who would change
// it waits; once that group is asked, nobody reads it.
func TestReadersAndWritersOfADirectoryOnItsWay(t *testing.T) {
	t.Parallel()
	p, store := twoDirs(t)
	ctx := t.Context()
	p.furnish(store, "/m/1/d")
	p.leave()
	p.slow, p.busy, p.lame = false, time.Millisecond, true // what waits is not waited for here
	p.serve()
	before := p.seen("/m/1/d")
	p.cut.Store("before bringing")
	require.Error(t, p.asOne(1, 1, "/m/1/d", "/m/2/d"))
	require.Eventually(t, func() bool { return p.dead[1].Load() }, time.Minute, time.Millisecond)
	require.Equal(t, before, p.seen("/m/1/d"))
	_, err := p.stat("/m/2/d")
	require.ErrorIs(t, err, orca.NotFound)
	require.Empty(t, p.names("/m/2"))
	require.Equal(t, []string{"d"}, p.names("/m/1"))
	changed := func(path string) []error {
		var errs []error
		note := func(_ any, err error) { errs = append(errs, err) }
		errs = append(errs, p.touch(path+"/x"), p.remove(path+"/made", false), p.remove(path, true), p.rename(path+"/made", "/m/1/made"), p.rename(path, "/m/1/q"))
		for _, mask := range []metapb.SetAttrMask{metapb.SetAttrMask_SET_PINNED, metapb.SetAttrMask_SET_MODE, metapb.SetAttrMask_SET_REPLICAS} {
			note(p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at(path + "/d/f07"), Mask: uint32(mask)}))
		}
		note(p.ns.SetXattr(ctx, &metapb.XattrRequest{Target: at(path + "/d/f07"), Name: "user.x"}))
		note(p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(path + "/d/deep"), Bytes: 7, Inodes: -1}))
		note(p.ns.Link(ctx, &metapb.LinkRequest{Src: at(path + "/d/f07"), Dst: at("/m/1/l")}))
		return errs
	}
	for i, err := range changed("/m/1/d") {
		require.ErrorIs(t, err, orca.Busy, "%d", i)
	}
	require.NoError(t, os.Remove(filepath.Join(store, "1/d/d/f08")))
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m/1"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed)
	require.NoError(t, p.touch("/m/1/beside"))
	require.Equal(t, before, p.seen("/m/1/d"))

	// Who was referred there is told to wait, not that there is nothing.
	p.cut.Store("before transfer")
	p.dead[1].Store(false)
	require.Eventually(t, func() bool {
		_, err := p.stat("/m/1/d")
		return orca.KindOf(err) == orca.Busy
	}, time.Minute, time.Millisecond)
	for path := range before {
		_, err := p.stat(path)
		require.ErrorIs(t, err, orca.Busy)
	}
	_, err = p.stat("/m/1/d/none")
	require.ErrorIs(t, err, orca.Busy)
	_, err = p.ns.List(ctx, &metapb.ListRequest{Target: at("/m/1")})
	require.ErrorIs(t, err, orca.Busy)
	for i, err := range changed("/m/1/d") {
		require.ErrorIs(t, err, orca.Busy, "%d", i)
	}
	require.NoError(t, p.touch("/m/1/beside too"))
	p.cut.Store("")
	p.leave()
	p.slow, p.busy, p.lame = true, 0, false
	p.serve()
	require.Eventually(t, func() bool { return p.asOne(1, 1, "/m/1/d", "/m/2/d") == nil }, time.Minute, 5*time.Millisecond)
	s, err = p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, s.Removed, "what the store lost meanwhile")
	p.forgotten()
}

// Writers that never cease: what they have made is in the directory wherever that
// goes, and none is refused but as Busy, or because it has gone meanwhile.
func TestWritersOfADirectoryThatGoesToAndFro(t *testing.T) {
	p, store := twoDirs(t)
	p.mkdir("/m/1/d")
	stop, made := make(chan struct{}), make([][]string, 3)
	var wg sync.WaitGroup
	var writes atomic.Int64
	for w := range made {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("w%d-%d", w, i)
				for _, dir := range []string{"/m/1/d/", "/m/2/d/"} {
					switch err := p.touch(dir + name); orca.KindOf(err) {
					case orca.OK:
						made[w] = append(made[w], name)
						writes.Add(1)
					case orca.Busy, orca.NotFound, orca.Exists: // or it is made, all the same
						continue
					default:
						t.Errorf("%s: %v", name, err)
						return
					}
					break
				}
			}
		})
	}
	for i := range 8 {
		was := writes.Load()
		require.Eventually(t, func() bool { return writes.Load() > was+3 || t.Failed() }, time.Minute, time.Millisecond)
		from, to := 1+i%2, 2-i%2
		src, dst := fmt.Sprintf("/m/%d/d", from), fmt.Sprintf("/m/%d/d", to)
		require.Eventually(t, func() bool {
			err := p.rename(src, dst)
			if err != nil {
				require.ErrorIs(t, err, orca.Busy)
			}
			return err == nil
		}, time.Minute, time.Millisecond)
	}
	close(stop)
	wg.Wait()
	for _, names := range made {
		for _, name := range names {
			_, err := p.stat("/m/1/d/" + name)
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(store, "1/d", name))
		}
	}
	require.NoDirExists(t, filepath.Join(store, "2/d"))
	p.forgotten()
}

// A namespace that comes from a backup aborts what was on its way when that was
// taken, on both sides, and looks at what its stores have.
func TestARestoreAbortsADirectoryOnItsWay(t *testing.T) {
	for _, point := range []string{"before pages", "before bringing", "before transfer", "before receiving", "before store", "before deciding receive", "before deciding transfer"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p, store := twoDirs(t)
			ctx := t.Context()
			p.furnish(store, "/m/1/d")
			before, stored := p.seen("/m/1/d"), inStore(t, store, "/m/1/d")
			p.cut.Store(point)
			require.Error(t, p.asOne(1, 1, "/m/1/d", "/m/2/d"))
			require.Eventually(t, func() bool { return p.dead[1].Load() || p.dead[2].Load() }, time.Minute, time.Millisecond)
			p.cut.Store("")
			p.leave()
			for _, g := range []*raftgroup.Group{p.host.Group(), p.second} {
				restored := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
				last := uint64(0)
				for _, it := range g.Machine().Intents() {
					last = it.Id
				}
				restored = binary.BigEndian.AppendUint64(restored, last)
				restored = binary.BigEndian.AppendUint32(restored, 1<<20)
				_, err := g.Propose(ctx, &command.Command{Now: 1, SetFact: &metapb.SetFactOp{Key: "restored", Value: restored}})
				require.NoError(t, err)
			}
			require.NoError(t, p.host.Close())
			p.start()
			require.Eventually(t, func() bool {
				return len(p.host.Group().Machine().Intents())+len(p.second.Machine().Intents()) == 0
			}, time.Minute, 5*time.Millisecond)
			p.forgotten()
			_, err := os.Stat(filepath.Join(store, "1/d"))
			there := err == nil
			require.Equal(t, point != "before deciding receive" && point != "before deciding transfer", there)
			if there {
				require.Equal(t, before, p.seen("/m/1/d"))
			}
			_, err = p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
			require.NoError(t, err)
			require.Equal(t, !there, slices.Contains(p.names("/m/2"), "d"))
			_, err = p.stat("/m/1/d/d/f01") // what only the namespace has stays
			require.Equal(t, there, err == nil)
			if there {
				require.Equal(t, stored, inStore(t, store, "/m/1/d"))
				require.NoError(t, p.touch("/m/1/d/late"))
			} else {
				require.Equal(t, stored, inStore(t, store, "/m/2/d"))
				require.NoError(t, p.touch("/m/2/d/late"))
			}
			p.check()
		})
	}
}
