// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

// crashOps are the UFS calls of the operations under test.
var crashOps = []wrap.Op{wrap.Copy, wrap.Remove, wrap.RemoveMany, wrap.Mkdir, wrap.Rename, wrap.Walk, wrap.List, wrap.Commit, wrap.Stat}

// story is an operation that a crash interrupts.
type story struct {
	name string
	do   func(e *Env, ctx context.Context, root string) error
	// files are what must be readable in the end, by name, if the operation
	// took effect (after) or not (before).
	before, after map[string]string
	deleted       []string // names that must not come back once it took effect
}

func stories() []story {
	tree := func(dir string) map[string]string {
		m := map[string]string{}
		for i := range 3 {
			m[fmt.Sprintf("%s/f%d", dir, i)] = fmt.Sprint("content ", i)
			m[fmt.Sprintf("%s/sub/g%d", dir, i)] = fmt.Sprint("below ", i)
		}
		return m
	}
	return []story{
		{"rename-file", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Rename(ctx, &metapb.RenameRequest{Src: at(root + "/t/f0"), Dst: at(root + "/moved")})
			return err
		}, map[string]string{"t/f0": "content 0"}, map[string]string{"moved": "content 0"}, []string{"t/f0"}},
		{"rename-dir", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Rename(ctx, &metapb.RenameRequest{Src: at(root + "/t"), Dst: at(root + "/u")})
			return err
		}, tree("t"), tree("u"), []string{"t", "t/f1", "t/sub/g1"}},
		{"delete-tree", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t"), Recursive: true})
			return err
		}, tree("t"), nil, []string{"t", "t/f1", "t/sub/g1"}},
		{"delete-file", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t/f0")})
			return err
		}, map[string]string{"t/f0": "content 0"}, nil, []string{"t/f0"}},
		{"unlink-home", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Link(ctx, &metapb.LinkRequest{Src: at(root + "/t/f0"), Dst: at(root + "/linked")})
			if err == nil {
				_, err = e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t/f0")})
			}
			return err
		}, map[string]string{"t/f0": "content 0"}, map[string]string{"linked": "content 0"}, []string{"t/f0"}},
		{"exchange", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Mkdir(ctx, &metapb.MkdirRequest{Target: at(root + "/x"), Mode: 0o755})
			if err == nil { // an object store refuses
				_, err = e.NS.Rename(ctx, &metapb.RenameRequest{Src: at(root + "/t/sub"), Dst: at(root + "/x"), Exchange: true})
			}
			return err
		}, map[string]string{"t/sub/g1": "below 1"}, map[string]string{"x/g1": "below 1"}, []string{"t/sub/g1"}},
		{"keep-file", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t/f0")})
			return err
		}, map[string]string{"t/f0": "content 0"}, nil, []string{"t/f0"}},
		{"keep-tree", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t"), Recursive: true})
			return err
		}, tree("t"), nil, []string{"t", "t/f1", "t/sub/g1"}},
		{"restore-tree", func(e *Env, ctx context.Context, root string) error {
			v, err := e.NS.Stat(ctx, &metapb.StatRequest{Target: at(root + "/t")})
			if err == nil {
				_, err = e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t"), Recursive: true})
			}
			if err == nil {
				_, err = e.NS.RestoreTrash(ctx, &metapb.RestoreTrashRequest{Ino: v.Attr.Ino})
			}
			return err
		}, tree("t"), tree("t"), nil},
		{"purge-tree", func(e *Env, ctx context.Context, root string) error {
			v, err := e.NS.Stat(ctx, &metapb.StatRequest{Target: at(root + "/t")})
			if err == nil {
				_, err = e.NS.Delete(ctx, &metapb.DeleteRequest{Target: at(root + "/t"), Recursive: true})
			}
			if err == nil {
				_, err = e.NS.PurgeTrash(ctx, &metapb.PurgeTrashRequest{Inos: []uint64{v.Attr.Ino}})
			}
			return err
		}, tree("t"), nil, []string{"t"}},
		{"mkdir", func(e *Env, ctx context.Context, root string) error {
			_, err := e.NS.Mkdir(ctx, &metapb.MkdirRequest{Target: at(root + "/a/b/c"), Mode: 0o755, Parents: true})
			return err
		}, nil, map[string]string{}, nil},
	}
}

// kept reports whether the mounts keep what is deleted. In the end of such a story
// all that is in the trash is restored, and what was there before reads again; or
// it is purged for good.
func (s story) kept() bool {
	head, _, _ := strings.Cut(s.name, "-")
	return head == "keep" || head == "restore" || head == "purge"
}

// TestCrashSweep drops the metaplane at the nth UFS call of an operation,
// before the call reaches the store and after it has, for every n, opens it
// again, and checks: whatever took effect is whole, every file reads by its
// current name at any time, and what the namespace says is what the store has.
func TestCrashSweep(t *testing.T) {
	for _, uri := range []string{posixURI, objectsURI} {
		for _, s := range stories() {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/late=%v", strings.TrimPrefix(uri, "mem://"), s.name, late), func(t *testing.T) {
					t.Parallel()
					for n := 1; n < 200; n++ {
						if !crashAt(t, uri, s, n, late) {
							t.Logf("ends after step %d", n-1)
							require.Greater(t, n, 1, "the operation made no call that could be interrupted")
							return
						}
						if n > 5 {
							n += 7 // the steps of further files are those of the first
						}
					}
				})
			}
		}
	}
}

// crashAt runs one story with a crash at the nth call; false when the story
// has fewer.
func crashAt(t *testing.T, uri string, s story, n int, late bool) bool {
	h := NewHarness(t)
	h.Config.UFSWait = 20 * time.Millisecond
	h.Config.Exec.Copies = 1
	if s.kept() {
		h.Retention = time.Hour
	}
	h.Start(t)
	defer h.Stop()
	e := newEnv(t, h)
	root, store := "/p", h.Posix
	if uri == objectsURI {
		root, store = "/o", h.Objects
	}
	for i := range 3 {
		e.write(fmt.Sprintf("%s/t/f%d", root, i), orca.CacheThrough, fmt.Sprint("content ", i))
		e.write(fmt.Sprintf("%s/t/sub/g%d", root, i), orca.CacheThrough, fmt.Sprint("below ", i))
	}
	e.names(root, nil)
	store.Put("t/unseen", "unseen") // nobody has asked for it
	f := h.Faults(uri)
	hit, never := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	hold := func(wrap.Call) { // from the nth call on, none passes until the crash
		switch k := calls.Add(1); {
		case k == int64(n):
			close(hit)
			fallthrough
		case k > int64(n):
			<-never
		}
	}
	for _, op := range crashOps {
		r := wrap.Rule{Op: op, Before: hold}
		if late {
			r.Before, r.After = nil, hold
		}
		f.Add(r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	acked := make(chan error, 1)
	go func() { acked <- s.do(&Env{TB: t, H: h, NS: h.Service}, ctx, root) }()
	crashed, err := watchFor(e, hit, acked)
	if err == nil {
		readable(e, root, s)
	}
	close(never) // the goroutines of the old life find their context ended
	cancel()
	h.Stop()
	f.Clear()

	h.Start(t)
	e = newEnv(t, h)
	readable(e, root, s)
	e.drained()
	readable(e, root, s)
	if strings.HasPrefix(s.name, "restore-") {
		restoreAll(e, root)
	}
	settled(e, root, s, err == nil)
	switch {
	case strings.HasPrefix(s.name, "purge-"):
		for _, x := range e.trash(root) {
			e.ok(e.purge(x.Ino))
		}
		e.drained()
	case s.kept():
		restoreAll(e, root)
		settled(e, root, story{before: s.before}, false)
	}
	agree(e, root, store)
	return crashed
}

// watchFor waits until the operation has met its crash point, or is done with
// all that it left to do. err is nil when it was
// acknowledged; a slow machine may have made it wait too long for the store.
func watchFor(e *Env, hit chan struct{}, acked chan error) (crashed bool, err error) {
	e.Helper()
	err = orca.Unavailable
	e.eventually("the operation ends or crashes", func() bool {
		select {
		case <-hit:
			crashed = true
		default:
		}
		select {
		case err = <-acked:
			acked = nil
		default:
		}
		return crashed || acked == nil && e.H.Service.Idle()
	})
	if crashed && acked != nil {
		select {
		case err = <-acked: // a deferred operation is acknowledged at once
		case <-time.After(20 * time.Millisecond):
		}
	}
	return crashed, err
}

// readable checks that each file that has one of the story's names has its
// content.
func readable(e *Env, root string, s story) {
	e.Helper()
	for _, names := range []map[string]string{s.before, s.after} {
		for name, data := range names {
			if _, err := e.statErr(root+"/"+name, nil); err != nil {
				continue
			}
			got, err := e.read(root + "/" + name)
			if _, serr := e.statErr(root+"/"+name, nil); orca.KindOf(serr) == orca.NotFound {
				continue // it was taken away meanwhile
			}
			e.ok(err)
			e.equal(data, got)
		}
	}
}

// restoreAll empties the trash by restoring what is in it.
func restoreAll(e *Env, root string) {
	e.Helper()
	for _, x := range e.trash(root) {
		e.ok(e.restore(x.Ino, nil))
	}
	e.drained()
}

// settled checks the end: all or nothing, and all when it was acknowledged.
func settled(e *Env, root string, s story, acked bool) {
	e.Helper()
	took := acked
	if !took && len(s.deleted) > 0 {
		_, err := e.statErr(root+"/"+s.deleted[0], nil)
		took = err != nil
	}
	want := s.before
	if took {
		want = s.after
		for _, name := range s.deleted {
			e.absent(root+"/"+name, every(0))
		}
	}
	for name, data := range want {
		if _, err := e.statErr(root+"/"+name, every(0)); err != nil {
			e.Fatalf("%s: %v (acked %v)", name, err, acked)
		}
		e.content(root+"/"+name, data)
	}
}

// agree compares the whole tree with the store.
func agree(e *Env, root string, store *memufs.Store) {
	e.Helper()
	_, err := e.NS.Sync(e.ctx(), &metapb.SyncRequest{Target: at(root), Recursive: true})
	e.ok(err)
	var names []string
	var walk func(dir string)
	walk = func(dir string) {
		r, err := e.NS.List(e.ctx(), &metapb.ListRequest{Target: at(dir)})
		e.ok(err)
		for _, x := range r.Entries {
			p := dir + "/" + x.Name
			if x.Attr.Type == uint32(orca.TypeDir) {
				walk(p)
				continue
			}
			_, key, _ := strings.Cut(strings.TrimPrefix(x.Attr.UfsPath, "mem://"), "/") // of all names of a file the same
			names = append(names, key)
			data, err := e.read(p)
			e.ok(err)
			want, _ := store.Data(key)
			e.equal(want, data)
		}
	}
	walk(root)
	var keys []string
	for _, k := range store.Keys() {
		if !strings.HasSuffix(k, "/") {
			keys = append(keys, k)
		}
	}
	slices.Sort(names)
	slices.Sort(keys)
	e.equal(keys, slices.Compact(names))
	e.equal(0, store.Uploads())
}

// TestExpiredSessions covers the crash between the store's commit and the
// complete: the file is the old one or the new one, and its name is free.
func TestExpiredSessions(t *testing.T) {
	for _, uri := range []string{posixURI, objectsURI} {
		t.Run(uri, func(t *testing.T) {
			h := NewHarness(t)
			h.Config.SessionTTL = 300 * time.Millisecond
			h.Config.Exec.Tick = 20 * time.Millisecond
			h.Start(t)
			defer h.Stop()
			e := newEnv(t, h)
			root, store := "/p", h.Posix
			if uri == objectsURI {
				root, store = "/o", h.Objects
			}
			e.write(root+"/d/old", orca.CacheThrough, "old")
			e.write(root+"/d/kept", orca.CacheThrough, "kept")
			fresh, err := e.create(root+"/d/fresh", orca.CacheThrough)
			e.ok(err)
			over, err := e.create(root+"/d/old", orca.CacheThrough)
			e.ok(err)
			half, err := e.create(root+"/d/kept", orca.CacheThrough)
			e.ok(err)
			_, err = e.upload(fresh.Session, "fresh content")
			e.ok(err)
			_, err = e.upload(over.Session, "overwritten")
			e.ok(err)
			w, err := e.fs(half.Session.MountId).Create(e.ctx(), half.Session.UfsKey, fmt.Sprintf("%x", half.Session.Id))
			e.ok(err)
			_, err = io.WriteString(w, "half of it")
			e.ok(err)
			h.Stop() // and the clients are gone, too
			h.Start(t)
			e = newEnv(t, h)
			e.eventually("the committed uploads are imported", func() bool {
				a, err := e.read(root + "/d/fresh")
				b, err2 := e.read(root + "/d/old")
				return err == nil && err2 == nil && a == "fresh content" && b == "overwritten"
			})
			e.content(root+"/d/kept", "kept")
			e.eventually("sessions are gone", func() bool {
				r, err := e.NS.Report(e.ctx(), &metapb.ReportRequest{})
				return err == nil && r.Sessions == 0 && r.Counters["sessions"] == 0
			})
			_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{Session: over.Session.Id, Fence: over.Session.Fence, Length: 11})
			e.want(orca.Stale, err)
			e.write(root+"/d/kept", orca.CacheThrough, "free again")
			require.Zero(t, store.Uploads(), "no upload is left")
		})
	}
}

// TestUnreachableStore: a synchronous operation whose store does not answer is
// neither done nor lost: it ends when the store is back.
func TestUnreachableStore(t *testing.T) {
	h := NewHarness(t)
	h.Config.UFSWait = 50 * time.Millisecond
	h.Config.BusyWait = 50 * time.Millisecond
	h.Start(t)
	defer h.Stop()
	e := &Env{TB: t, H: h, NS: h.Service}
	e.write("/p/f", orca.CacheThrough, "f")
	f := h.Faults(posixURI)
	f.Add(wrap.Rule{Op: wrap.Mkdir, Err: orca.E("test", orca.Unavailable, "connection refused")})
	f.Add(wrap.Rule{Op: wrap.Rename, Lose: orca.E("test", orca.Timeout, "answer lost"), Nth: 1})
	hd := &metapb.Header{Client: 77, Seq: 1, Caller: &metapb.Caller{}}
	mk := func() error {
		_, err := h.Service.Mkdir(e.ctx(), &metapb.MkdirRequest{H: hd, Target: at("/p/d")})
		return err
	}
	err := mk()
	require.ErrorIs(t, err, orca.Unavailable)
	require.Contains(t, err.Error(), "connection refused")
	e.absent("/p/d", nil)
	r, err := e.NS.Report(e.ctx(), &metapb.ReportRequest{})
	require.NoError(t, err)
	require.Len(t, r.Intents, 1)
	require.Positive(t, r.Intents[0].Attempts)
	require.Contains(t, r.Intents[0].Error, "connection refused")
	// Its name waits; the rest of the store does not.
	_, err = h.Service.Mkdir(e.ctx(), &metapb.MkdirRequest{Target: at("/p/d")})
	require.ErrorIs(t, err, orca.Busy)
	h.Service.Stats.BusyWaits.Store(0)
	require.NoError(t, newEnv(t, h).rename("/p/f", "/p/g"), "a lost answer is found out")
	e.content("/p/g", "f")
	f.Clear()
	e.drained()
	require.NoError(t, mk(), "the same request has its result")
	e.stat("/p/d")
}
