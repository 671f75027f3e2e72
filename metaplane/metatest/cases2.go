// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

func permissions(e *Env, dir string) {
	e.mkdir(dir + "/priv")
	e.ok(chmod(e, dir+"/priv", 0o700))
	e.write(dir+"/priv/f", orca.CacheThrough, "f")
	e.write(dir+"/pub", orca.CacheThrough, "p")
	u := e.As(1000, 1000)
	_, err := u.statErr(dir+"/priv/f", nil)
	e.want(orca.Permission, err)
	_, err = u.NS.List(e.ctx(), &metapb.ListRequest{H: u.h(), Target: at(dir + "/priv")})
	e.want(orca.Permission, err)
	_, err = u.create(dir+"/pub", orca.CacheThrough)
	e.want(orca.Permission, err)
	e.want(orca.Permission, chmod(u, dir+"/pub", 0o666))
	r, err := u.NS.Open(e.ctx(), &metapb.OpenRequest{H: u.h(), Target: at(dir + "/pub")})
	e.ok(err)
	e.equal(1000, r.Grant.Uid)
	e.ok(chmod(e, dir+"/pub", 0o600))
	_, err = u.NS.Open(e.ctx(), &metapb.OpenRequest{H: u.h(), Target: at(dir + "/pub")})
	e.want(orca.Permission, err)
	e.mkdir(dir + "/closed")
	e.want(orca.Permission, u.rename(dir+"/pub", dir+"/closed/x"))
	e.want(orca.Permission, u.delete(dir+"/priv/f", false))
	own := u.write(dir+"/mine", orca.CacheThrough, "m")
	e.equal(1000, own.Uid)
	e.ok(chmod(u, dir+"/mine", 0o640))
	e.equal(0o640, e.stat(dir+"/mine").Mode)
}

func deleteWalk(e *Env, dir string) {
	u := e.As(1000, 1000)
	e.write(dir+"/t/a", orca.CacheThrough, "a")
	e.write(dir+"/t/s/b", orca.CacheThrough, "b")
	u.want(orca.Permission, u.delete(dir+"/t", true))
	e.content(dir+"/t/a", "a")
	e.ok(chmod(e, dir+"/t", 0o777))
	e.ok(chmod(e, dir+"/t/s", 0o777))
	e.ok(u.delete(dir+"/t", true)) // each name is allowed
	e.absent(dir+"/t", every(0))
}

func attributes(e *Env, dir string) {
	p := dir + "/f"
	e.write(p, orca.CacheThrough, "f")
	before := e.stat(p).Version
	set := func(r *metapb.SetAttrRequest) error {
		r.H, r.Target = e.h(), at(p)
		_, err := e.NS.SetAttr(e.ctx(), r)
		return err
	}
	mtime := time.Date(2020, 2, 2, 2, 2, 2, 0, time.UTC).UnixNano()
	e.ok(set(&metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_MODE | metapb.SetAttrMask_SET_MTIME), Mode: 0o600, Mtime: mtime}))
	a := e.stat(p)
	e.equal(0o600, a.Mode)
	e.equal(mtime, a.Mtime)
	e.content(p, "f")
	_, err := e.statErr(p, every(0))
	e.ok(err)
	e.equal(before, e.stat(p).Version) // our own change is no new content
	e.ok(set(&metapb.SetAttrRequest{Mask: uint32(metapb.SetAttrMask_SET_PINNED), Pinned: true}))
	e.equal(true, e.stat(p).Pinned)
	_, err = e.NS.Free(e.ctx(), &metapb.FreeRequest{H: e.h(), Target: at(p)})
	e.want(orca.Busy, err)
	_, err = e.NS.Free(e.ctx(), &metapb.FreeRequest{H: e.h(), Target: at(p), Force: true})
	e.ok(err)
	e.write(dir+"/t/x/y", orca.CacheThrough, "y")
	_, err = e.NS.SetAttr(e.ctx(), &metapb.SetAttrRequest{H: e.h(), Target: at(dir + "/t"), Recursive: true,
		Mask: uint32(metapb.SetAttrMask_SET_GID), Gid: 42})
	e.ok(err)
	e.equal(42, e.stat(dir+"/t/x/y").Gid)
	e.equal(42, e.stat(dir+"/t/x").Gid)
}

func xattrs(e *Env, dir string) {
	p := dir + "/f"
	e.write(p, orca.CacheThrough, "f")
	x := func(name, v string) *metapb.XattrRequest {
		return &metapb.XattrRequest{H: e.h(), Target: at(p), Name: name, Value: []byte(v)}
	}
	_, err := e.NS.GetXattr(e.ctx(), x("user.a", ""))
	e.want(orca.NoData, err)
	_, err = e.NS.SetXattr(e.ctx(), x("user.a", "1"))
	e.ok(err)
	_, err = e.NS.SetXattr(e.ctx(), x("user.b", ""))
	e.ok(err)
	c := x("user.a", "2")
	c.Create = true
	_, err = e.NS.SetXattr(e.ctx(), c)
	e.want(orca.Exists, err)
	g, err := e.NS.GetXattr(e.ctx(), x("user.a", ""))
	e.ok(err)
	e.equal("1", string(g.Value))
	l, err := e.NS.ListXattr(e.ctx(), x("", ""))
	e.ok(err)
	e.equal("[user.a user.b]", l.Names)
	_, err = e.NS.RemoveXattr(e.ctx(), x("user.a", ""))
	e.ok(err)
	_, err = e.NS.RemoveXattr(e.ctx(), x("user.a", ""))
	e.want(orca.NoData, err)
	_, err = e.NS.SetXattr(e.ctx(), x(strings.Repeat("n", 300), ""))
	e.want(orca.NameTooLong, err)
	_, err = e.NS.SetXattr(e.ctx(), x("user.big", strings.Repeat("v", 65<<10)))
	e.want(orca.TooLarge, err)
}

func symlink(e *Env, dir string) {
	_, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/l"), Complete: true, Symlink: "some/where"})
	e.ok(err)
	a := e.stat(dir + "/l")
	e.equal(uint32(orca.TypeSymlink), a.Type)
	e.equal("some/where", a.Target)
	_, err = e.NS.Open(e.ctx(), &metapb.OpenRequest{H: e.h(), Target: at(dir + "/l")})
	e.want(orca.Invalid, err)
	e.ok(e.rename(dir+"/l", dir+"/m"))
	e.ok(e.delete(dir+"/m", false))
}

func paging(e *Env, dir string) {
	var want []string
	for i := range 23 {
		n := "f" + strings.Repeat("x", i%5) + string(rune('a'+i))
		want = append(want, n)
		_, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/" + n), Complete: true})
		e.ok(err)
	}
	got := e.names(dir, nil)
	e.equal(len(want), len(got))
	for i := 1; i < len(got); i++ {
		if got[i-1] >= got[i] {
			e.Fatalf("not in order: %v", got)
		}
	}
	e.equal(got, e.names(dir, every(0)))
	_, err := e.NS.List(e.ctx(), &metapb.ListRequest{H: e.h(), Target: at(dir + "/" + want[0])})
	e.want(orca.NotDir, err)
	_, err = e.NS.List(e.ctx(), &metapb.ListRequest{H: e.h(), Target: at(dir + "/none")})
	e.want(orca.NotFound, err)
}

func writeTypes(e *Env, dir string) {
	e.equal(uint32(orca.NotPersisted), e.write(dir+"/m", orca.MustCache, "m").Persist)
	e.equal(uint32(orca.Persisted), e.write(dir+"/c", orca.CacheThrough, "c").Persist)
	e.equal(uint32(orca.ToBePersisted), e.write(dir+"/a", orca.AsyncThrough, "a").Persist)
	e.equal(uint32(orca.Persisted), e.write(dir+"/t", orca.Through, "t").Persist)
	e.equal("[a c m t]", e.names(dir, every(0))) // what is not in the store stays
	e.ok(e.rename(dir+"/m", dir+"/c"))
	e.equal(uint32(orca.NotPersisted), e.stat(dir+"/c").Persist)
	e.drained()
	e.equal("[a c t]", e.names(dir, every(0)))
	_, err := e.fs(e.stat(dir).MountId).Stat(e.ctx(), e.key(dir+"/c"))
	e.want(orca.NotFound, err) // the old content is not left under the name
}

func persist(e *Env, dir string) {
	p := dir + "/a"
	a := e.write(p, orca.AsyncThrough, "async")
	prep, err := e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: a.Ino, Version: a.Version})
	e.ok(err)
	e.equal(e.key(p), prep.UfsKey)
	i, err := e.upload(&metapb.WriteSession{Id: prep.Intent, MountId: prep.MountId, UfsKey: prep.UfsKey}, "async")
	e.ok(err)
	_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: prep.Intent, Fingerprint: i.Fingerprint})
	e.ok(err)
	e.equal(uint32(orca.Persisted), e.stat(p).Persist)
	e.content(p, "async")
	b := e.write(p, orca.AsyncThrough, "second")
	_, err = e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: a.Ino, Version: a.Version})
	if k := orca.KindOf(err); k != orca.Stale && k != orca.NotFound {
		e.Fatalf("an old version was prepared: %v", err)
	}
	prep, err = e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: b.Ino, Version: b.Version})
	e.ok(err)
	_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: prep.Intent})
	e.ok(err) // given up
	e.equal(uint32(orca.ToBePersisted), e.stat(p).Persist)
	e.ok(e.delete(p, false))
	e.absent(p, every(0))
	persistUnsure(e, dir)
}

// persistUnsure: a worker that does not know whether its commit took effect
// leaves nothing behind that a removal would not know of.
func persistUnsure(e *Env, dir string) {
	for _, committed := range []bool{true, false} {
		for _, remove := range []bool{true, false} {
			p := fmt.Sprintf("%s/u%v%v/f", dir, committed, remove)
			r, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(p), Mode: 0o644, Parents: true, WriteType: uint32(orca.AsyncThrough)})
			e.ok(err)
			done, err := e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 5})
			e.ok(err)
			prep, err := e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: done.Attr.Ino, Version: done.Attr.Version})
			e.ok(err)
			if committed {
				_, err = e.upload(&metapb.WriteSession{Id: prep.Intent, MountId: prep.MountId, UfsKey: prep.UfsKey}, "async")
				e.ok(err)
			}
			_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: prep.Intent, Unsure: true})
			e.ok(err)
			if !remove {
				e.drained()
				e.equal(uint32(orca.ToBePersisted), e.stat(p).Persist)
				again, err := e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: done.Attr.Ino, Version: done.Attr.Version})
				e.ok(err)
				i, err := e.upload(&metapb.WriteSession{Id: again.Intent, MountId: prep.MountId, UfsKey: prep.UfsKey}, "async")
				e.ok(err)
				_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: again.Intent, Fingerprint: i.Fingerprint})
				e.ok(err)
				e.content(p, "async")
				continue
			}
			e.ok(e.delete(p, false))
			_, err = e.fs(prep.MountId).Stat(e.ctx(), prep.UfsKey)
			e.want(orca.NotFound, err)
			up := p[:len(p)-2]
			e.ok(e.delete(up, false))
			e.absent(up, every(0))
		}
	}
}

func exactlyOnce(e *Env, dir string) {
	h := &metapb.Header{Client: rand.Uint64() | 1, Seq: 1, Caller: &metapb.Caller{}}
	raw := e.H.Service
	mk := func() error {
		_, err := raw.Mkdir(e.ctx(), &metapb.MkdirRequest{H: h, Target: at(dir + "/once"), Mode: 0o755})
		return err
	}
	e.ok(mk())
	e.ok(mk()) // the same number: the same answer, not Exists
	e.write(dir+"/f", orca.CacheThrough, "f")
	h = &metapb.Header{Client: h.Client, Seq: 2, Caller: h.Caller}
	mv := func() error {
		_, err := raw.Rename(e.ctx(), &metapb.RenameRequest{H: h, Src: at(dir + "/f"), Dst: at(dir + "/g")})
		return err
	}
	e.ok(mv())
	e.ok(mv())
	e.content(dir+"/g", "f")
	h = &metapb.Header{Client: h.Client, Seq: 3, Caller: h.Caller}
	rm := func() error {
		_, err := raw.Delete(e.ctx(), &metapb.DeleteRequest{H: h, Target: at(dir + "/g")})
		return err
	}
	e.ok(rm())
	e.ok(rm())
}

func badInput(e *Env, dir string) {
	for p, k := range map[string]orca.Kind{
		"": orca.Invalid, "rel/x": orca.Invalid,
		dir + "/" + strings.Repeat("n", 256):   orca.NameTooLong,
		dir + "/" + strings.Repeat("d/", 2100): orca.NameTooLong,
		dir + "/nul\x00":                       orca.Invalid,
	} {
		_, err := e.statErr(p, nil)
		e.want(k, err)
		_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(p)})
		e.want(k, err)
		e.want(k, e.rename(dir, p))
	}
	_, err := e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h()})
	e.want(orca.Invalid, err)
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/x"), WriteType: 99})
	e.want(orca.Invalid, err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: 1 << 50})
	e.want(orca.Stale, err)
	_, err = e.NS.Mount(e.ctx(), &metapb.MountRequest{H: e.h(), Mount: &metapb.Mount{Path: dir + "/m", Uri: "nonsense"}})
	e.want(orca.Invalid, err)
	_, err = e.NS.Mount(e.ctx(), &metapb.MountRequest{H: e.h(), Mount: &metapb.Mount{Path: dir + "/m", Uri: "s3://away"}})
	e.want(orca.Unavailable, err)
	if !strings.Contains(err.Error(), "GET s3://away") {
		e.Fatalf("the failing request is not named: %v", err)
	}
}

func watch(e *Env, dir string) {
	r, err := e.NS.Watch(e.ctx(), &metapb.WatchRequest{H: e.h()})
	e.ok(err)
	cursor := r.Cursor
	a := e.write(dir+"/f", orca.MustCache, "f")
	seen := map[metapb.EventKind]bool{}
	e.eventually("the new name is announced", func() bool {
		r, err := e.NS.Watch(e.ctx(), &metapb.WatchRequest{H: e.h(), Cursor: cursor, WaitMs: 1000})
		e.ok(err)
		cursor = r.Cursor
		for _, x := range r.Events {
			if x.Ino == a.Ino && x.Name == "f" {
				seen[x.Kind] = true
			}
		}
		return seen[metapb.EventKind_EVENT_ENTRY]
	})
	ctx, cancel := context.WithTimeout(e.ctx(), 50*time.Millisecond)
	defer cancel()
	_, err = e.NS.Watch(ctx, &metapb.WatchRequest{H: e.h(), Cursor: cursor + 1<<40, WaitMs: 10})
	if err != nil && !errors.Is(err, orca.Timeout) {
		e.Fatalf("watch of the future: %v", err)
	}
}

func byInode(e *Env, dir string) {
	e.write(dir+"/a/f", orca.CacheThrough, "f")
	d, f := e.stat(dir+"/a"), e.stat(dir+"/a/f")
	r, err := e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h(), Target: &metapb.Target{Ino: d.Ino, Path: "f"}})
	e.ok(err)
	e.equal(f.Ino, r.Attr.Ino)
	e.equal(d.Ino, r.Parent)
	r, err = e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h(), Target: &metapb.Target{Ino: f.Ino}})
	e.ok(err)
	e.equal(f.Ino, r.Attr.Ino)
	e.ok(e.rename(dir+"/a", dir+"/b"))
	r, err = e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h(), Target: &metapb.Target{Ino: f.Ino}})
	e.ok(err)
	e.equal(f.Ino, r.Attr.Ino)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: &metapb.Target{Ino: d.Ino, Path: "sub"}, Mode: 0o755})
	e.ok(err)
	e.equal("[f sub]", e.names(dir+"/b", nil))
	_, err = e.NS.Stat(e.ctx(), &metapb.StatRequest{H: e.h(), Target: &metapb.Target{Ino: 1 << 60}})
	e.want(orca.NotFound, err)
}

func reserved(e *Env, dir string) {
	p := dir + "/" + ufs.TempPrefix + "x"
	_, err := e.create(p, orca.CacheThrough)
	e.want(orca.Invalid, err)
	e.want(orca.Invalid, e.rename(dir, p))
	e.absent(p, every(0))
}
