// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

func newEnv(t *testing.T, h *Harness) *Env {
	t.Helper()
	return &Env{TB: t, H: h, NS: metaclient.NewSession(h.Service, metaclient.SessionConfig{BusyPatience: 200 * time.Millisecond})}
}

// stores are the two memory stores by their mounts.
func stores(h *Harness) map[string]*memufs.Store {
	return map[string]*memufs.Store{"/p": h.Posix, "/o": h.Objects}
}

func TestLoadOnce(t *testing.T) {
	h := NewHarness(t)
	h.Posix.Put("d/a", "a")
	h.Objects.Put("d/a", "a")
	h.Start(t)
	defer h.Stop()
	for root, store := range stores(h) {
		e := newEnv(t, h)
		// A missing name of a directory that was not listed is asked for by itself.
		e.content(root+"/d/a", "a")
		require.EqualValues(t, 0, store.Counters.List.Load()-1, "only the mount listed")
		e.absent(root+"/d/b", nil)
		e.equal("[a]", e.names(root+"/d", nil))
		// Listed now: what appears behind is not seen, and costs no call.
		store.Put("d/b", "b")
		before := store.Counters.Stat.Load() + store.Counters.List.Load()
		e.absent(root+"/d/b", nil)
		e.equal("[a]", e.names(root+"/d", nil))
		require.Equal(t, before, store.Counters.Stat.Load()+store.Counters.List.Load())
		// Unless it is asked for.
		e.equal("[a b]", e.names(root+"/d", every(0)))
		e.content(root+"/d/b", "b")
		store.Put("d/c", "c")
		r, err := e.NS.List(e.ctx(), &metapb.ListRequest{Target: at(root + "/d"), Force: true})
		require.NoError(t, err)
		require.Len(t, r.Entries, 3)
	}
}

func TestIntervalZeroSeesAllThatHappensBehind(t *testing.T) {
	h := quick(t)
	for root, store := range stores(h) {
		t.Run(root[1:], func(t *testing.T) {
			e := newEnv(t, h)
			e.mkdir(root + "/d")
			store.Put("d/f", "one")
			a, err := e.statErr(root+"/d/f", every(0))
			require.NoError(t, err)
			require.EqualValues(t, 3, a.Length)
			store.Put("d/f", "changed")
			b, err := e.statErr(root+"/d/f", every(0))
			require.NoError(t, err)
			require.Equal(t, a.Ino, b.Ino)
			require.Greater(t, b.Version, a.Version)
			e.content(root+"/d/f", "changed")
			store.Drop("d/f")
			e.absent(root+"/d/f", every(0))
			require.Empty(t, e.names(root+"/d", nil))
			// A whole tree appears, changes its shape, and vanishes.
			store.Put("d/t/x/1", "1")
			store.Put("d/t/x-y", "2")
			store.Put("d/t/x.z", "3")
			e.equal("[x x-y x.z]", e.names(root+"/d/t", every(0)))
			e.content(root+"/d/t/x/1", "1")
			store.Drop("d/t/x")
			store.Put("d/t/x", "a file now")
			e.equal("[x x-y x.z]", e.names(root+"/d/t", every(0)))
			e.eventually("the directory has become a file", func() bool {
				a, err := e.statErr(root+"/d/t/x", every(0))
				return err == nil && a.Type == uint32(orca.TypeFile)
			})
			e.content(root+"/d/t/x", "a file now")
			store.Drop("d/t")
			e.absent(root+"/d/t", every(0))
			e.equal("[]", e.names(root+"/d", every(0)))
		})
	}
}

func TestLocalFolderBehind(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	e.putDisk("d/f", "one")
	e.content("/d/f", "one")
	require.NoError(t, os.Chmod(e.onDisk("d/f"), 0o604))
	a, err := e.statErr("/d/f", every(0))
	require.NoError(t, err)
	require.EqualValues(t, 0o604, a.Mode)
	require.EqualValues(t, 1, a.Version, "a change of mode is no change of content")
	require.NoError(t, os.Rename(e.onDisk("d"), e.onDisk("e")))
	e.absent("/d/f", every(0))
	e.content("/e/f", "one")
	require.NoError(t, os.WriteFile(e.onDisk("e/"+ufs.TempPrefix+"x"), nil, 0o600))
	e.equal("[f]", e.names("/e", every(0)))
}

func TestIntervalNIsBoundedStaleness(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	h.Posix.Put("n/f", "one")
	_, err := e.statErr("/p/n/f", every(60_000))
	require.NoError(t, err)
	calls := h.Posix.Counters.Stat.Load()
	h.Posix.Put("n/f", "longer")
	a, err := e.statErr("/p/n/f", every(60_000))
	require.NoError(t, err)
	b, err := e.statErr("/p/n/f", every(60_000))
	require.NoError(t, err)
	require.LessOrEqual(t, h.Posix.Counters.Stat.Load(), calls+2, "at most one look per inode and interval")
	require.Equal(t, a.Version, b.Version)
	e.eventually("the change is seen after the interval", func() bool {
		c, err := e.statErr("/p/n/f", every(20))
		return err == nil && c.Length == 6
	})
	// The interval of a path, inherited.
	_, err = e.NS.SetAttr(e.ctx(), &metapb.SetAttrRequest{Target: at("/p/n"), Mask: uint32(metapb.SetAttrMask_SET_SYNC), SyncIntervalMs: 0})
	require.NoError(t, err)
	h.Posix.Drop("n/f")
	e.absent("/p/n/f", nil)
	r, err := e.NS.Stat(e.ctx(), &metapb.StatRequest{Target: at("/p/n")})
	require.NoError(t, err)
	require.Zero(t, r.TtlMs, "nothing may be cached at interval 0")
}

func TestMutationsSeeWhatAppearedBehind(t *testing.T) {
	h := quick(t)
	for root, store := range stores(h) {
		e := newEnv(t, h)
		store.Put("m/there", "precious")
		_, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{Target: at(root + "/m/there"), Complete: true})
		require.ErrorIs(t, err, orca.Exists)
		_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{Target: at(root + "/m/there")})
		require.ErrorIs(t, err, orca.Exists)
		store.Put("m2/x", "x")
		require.ErrorIs(t, e.delete(root+"/m2", false), orca.NotEmpty, "it was never listed")
		data, _ := store.Data("m/there")
		require.Equal(t, "precious", data)
		// Changed under an upload: the commit is a conflict, not an overwrite.
		e.write(root+"/m/c", orca.CacheThrough, "mine")
		r, err := e.create(root+"/m/c", orca.CacheThrough)
		require.NoError(t, err)
		store.Put("m/c", "theirs")
		_, err = e.upload(r.Session, "mine again")
		require.ErrorIs(t, err, orca.Conflict)
		_, err = e.NS.Abandon(e.ctx(), &metapb.AbandonRequest{Session: r.Session.Id, Fence: r.Session.Fence})
		require.NoError(t, err)
		e.eventually("the other's content is imported", func() bool {
			got, err := e.read(root + "/m/c")
			return err == nil && got == "theirs"
		})
	}
}

func TestStaleUFSImportsTheNewContent(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	a := e.write("/p/f", orca.CacheThrough, "old")
	h.Posix.Put("f", "new content")
	_, err := e.NS.StaleUFS(e.ctx(), &metapb.StaleUFSRequest{File: a.Ino, Version: a.Version})
	require.NoError(t, err)
	require.Greater(t, e.stat("/p/f").Version, a.Version)
	e.content("/p/f", "new content")
	h.Posix.Drop("f")
	_, err = e.NS.StaleUFS(e.ctx(), &metapb.StaleUFSRequest{File: a.Ino, Version: e.stat("/p/f").Version})
	require.NoError(t, err)
	e.absent("/p/f", nil)
}

func TestRecursiveSync(t *testing.T) {
	h := quick(t)
	for root, store := range stores(h) {
		e := newEnv(t, h)
		e.mkdir(root + "/s")
		for i := range 30 {
			store.Put(fmt.Sprintf("s/%d/%d/f", i%3, i%5), "x")
			store.Put(fmt.Sprintf("s/f%d", i), "x")
		}
		r, err := e.NS.Sync(e.ctx(), &metapb.SyncRequest{Target: at(root + "/s"), Recursive: true})
		require.NoError(t, err)
		require.EqualValues(t, 30+15+3+15, r.Created)
		calls := store.Counters.Stat.Load() + store.Counters.List.Load() + store.Counters.Walk.Load()
		e.content(root+"/s/2/4/f", "x")
		require.Equal(t, calls, store.Counters.Stat.Load()+store.Counters.List.Load()+store.Counters.Walk.Load(), "all is known")
		store.Drop("s/1")
		store.Put("s/f0", "changed")
		r, err = e.NS.Sync(e.ctx(), &metapb.SyncRequest{Target: at(root + "/s"), Recursive: true})
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Changed)
		require.Positive(t, r.Removed)
		e.absent(root+"/s/1", nil)
	}
}

func TestLargeDirectoryIsSyncedInBatches(t *testing.T) {
	h := NewHarness(t)
	h.Config.Sync.BatchNames = 100
	h.Start(t)
	defer h.Stop()
	e := newEnv(t, h)
	for i := range 2500 {
		h.Objects.Put(fmt.Sprintf("big/f%04d", i), "x")
		if i%100 == 0 {
			h.Objects.Put(fmt.Sprintf("big/f%04d/in", i+5000), "x")
		}
	}
	count := func() (n int) {
		for after := ""; ; {
			r, err := e.NS.List(e.ctx(), &metapb.ListRequest{Target: at("/o/big"), After: after, Sync: every(0)})
			require.NoError(t, err)
			n += len(r.Entries)
			if !r.More {
				return n
			}
			after = r.Entries[len(r.Entries)-1].Name
		}
	}
	require.Equal(t, 2525, count())
	for i := range 1000 {
		h.Objects.Drop(fmt.Sprintf("big/f%04d", i))
	}
	require.Equal(t, 1525, count())
}

func TestStoreFailuresAreTypedAndNameTheRequest(t *testing.T) {
	h := quick(t)
	e := &Env{TB: t, H: h, NS: h.Service}
	h.Posix.Put("x/f", "f")
	f := h.Faults(posixURI)
	f.Add(wrap.Rule{Op: wrap.Stat, Err: &orca.Error{Op: "s3.Stat", Path: "x", Kind: orca.Unauthenticated, Msg: "HEAD /x: 403 SignatureDoesNotMatch"}})
	_, err := e.statErr("/p/x/f", nil)
	require.ErrorIs(t, err, orca.Unauthenticated)
	require.Contains(t, err.Error(), "HEAD /x: 403")
	f.Clear()
	f.Add(wrap.Rule{Op: wrap.Mkdir, Err: &orca.Error{Op: "s3.Mkdir", Kind: orca.NoSpace, Msg: "PUT d/: 507"}})
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{Target: at("/p/d")})
	require.ErrorIs(t, err, orca.NoSpace)
	e.absent("/p/d", nil)
	f.Clear()
	e.mkdir("/p/d") // the refusal left nothing behind
}

func TestLateListingsNeitherHideNorResurrect(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	f := h.Faults(objectsURI)
	e.mkdir("/o/l")
	e.write("/o/l/old", orca.CacheThrough, "old")
	e.write("/o/l/gone", orca.CacheThrough, "gone")
	i, err := f.FS().Stat(t.Context(), "l/gone")
	require.NoError(t, err)
	require.NoError(t, e.delete("/o/l/gone", false))
	f.Ghost(i)             // still listed
	f.Hide("l/old", false) // not listed yet
	e.equal("[old]", e.names("/o/l", every(0)))
	e.content("/o/l/old", "old")
	require.NoError(t, e.rename("/o/l", "/o/m"))
	e.drained()
	e.content("/o/m/old", "old")
	e.equal("[old]", e.names("/o/m", every(0)))
	f.Clear()
	e.equal("[old]", e.names("/o/m", every(0)))
	e.absent("/o/l", every(0))
}

// MinIO lists an object that is being made or removed as a directory. No
// directory appears for it, and none takes the place of a file.
func TestGhostDirectoriesOfAnObjectStore(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	f := h.Faults(objectsURI)
	e.mkdir("/o/l")
	e.write("/o/l/old", orca.CacheThrough, "old")
	e.equal("[old]", e.names("/o/l", every(0)))
	f.Ghost(ufs.Info{Key: "l/half", Dir: true})
	e.equal("[old]", e.names("/o/l", every(0)))
	f.Hide("l/old", false)
	f.Ghost(ufs.Info{Key: "l/old", Dir: true})
	e.equal("[old]", e.names("/o/l", every(0)))
	e.content("/o/l/old", "old")
	f.Clear()
	e.equal("[old]", e.names("/o/l", every(0)))
	e.content("/o/l/old", "old")
}

// TestRenameOntoUnlistedDirectory: a directory that was never listed may hold
// something, and an object store would merge the two.
func TestRenameOntoUnlistedDirectory(t *testing.T) {
	h := NewHarness(t)
	h.Start(t)
	defer h.Stop()
	e := newEnv(t, h)
	h.Objects.Put("full/x", "x")
	e.mkdir("/o/d")
	e.want(orca.NotEmpty, e.rename("/o/d", "/o/full"))
	e.content("/o/full/x", "x")
}

// TestNamesOfADirectoryThatHasJustArrived: what was asked about a path before
// a directory arrived there says nothing of that directory.
func TestNamesOfADirectoryThatHasJustArrived(t *testing.T) {
	h := NewHarness(t)
	h.Start(t)
	defer h.Stop()
	cases := map[string]struct {
		do   func(e *Env, p string) error
		want orca.Kind
	}{
		"stat": {func(e *Env, p string) error { _, err := e.statErr(p, nil); return err }, orca.OK},
		"create": {func(e *Env, p string) error {
			_, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{Target: at(p), Mode: 0o644, Overwrite: true})
			return err
		}, orca.IsDir},
		"mkdir": {func(e *Env, p string) error {
			_, err := e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{Target: at(p)})
			return err
		}, orca.Exists},
		"delete": {func(e *Env, p string) error { return e.delete(p, false) }, orca.NotEmpty},
		"rename": {func(e *Env, p string) error { return e.rename(p, p+"2") }, orca.OK},
		"chmod":  {func(e *Env, p string) error { return chmod(e, p, 0o700) }, orca.OK},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, h)
			h.Posix.Put(name+"/1/a/x", "x") // a directory, never listed, with one in it
			f := h.Faults(posixURI)
			defer f.Clear()
			f.Add(wrap.Rule{Op: wrap.Stat, Key: name + "/2", Nth: 1, After: func(wrap.Call) {
				e.ok(e.rename("/p/"+name+"/1", "/p/"+name+"/2"))
			}})
			dir := "/p/" + name + "/2/a"
			e.equal(c.want, orca.KindOf(c.do(e, dir)))
			if name == "rename" {
				dir += "2"
			}
			e.content(dir+"/x", "x")
		})
	}
}

// TestLateListingsAfterACrash: whoever leads after a crash does not remember
// what was removed before, and a store's listing still shows it.
func TestLateListingsAfterACrash(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	e.mkdir("/o/l")
	for _, p := range []string{"file", "moved", "tree/x"} {
		h.Objects.Put("l/"+p, p)
	}
	h.Objects.Put("top/y", "y")
	e.equal("[file moved tree]", e.names("/o/l", every(0)))
	var gone []ufs.Info
	for _, key := range []string{"l/file", "l/moved", "l/tree/x", "top/y"} {
		i, err := h.Objects.FS().Stat(t.Context(), key)
		require.NoError(t, err)
		gone = append(gone, i)
	}
	e.ok(e.delete("/o/l/file", false))
	e.ok(e.rename("/o/l/moved", "/o/moved"))
	e.ok(e.delete("/o/l/tree", true))
	e.ok(e.delete("/o/top", true))
	e.drained()
	e.mkdir("/o/l/tree") // another one, in which nothing was removed
	e.mkdir("/o/top")
	h.Stop()
	h.Start(t)
	e = newEnv(t, h)
	f := h.Faults(objectsURI)
	for _, i := range gone {
		f.Ghost(i)
	}
	e.equal("[tree]", e.names("/o/l", every(0)))
	e.equal("[]", e.names("/o/l/tree", every(0)))
	e.equal("[]", e.names("/o/top", every(0)))
	e.content("/o/moved", "moved")
	f.Clear()
	h.Objects.Put("l/file", "new") // a name that was removed may come back
	e.equal("[file tree]", e.names("/o/l", every(0)))
	e.content("/o/l/file", "new")
}
