// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

func (e *Env) link(src, dst string) error {
	_, err := e.NS.Link(e.ctx(), &metapb.LinkRequest{H: e.h(), Src: at(src), Dst: at(dst)})
	return err
}

func (e *Env) exchange(a, b string) error {
	_, err := e.NS.Rename(e.ctx(), &metapb.RenameRequest{H: e.h(), Src: at(a), Dst: at(b), Exchange: true})
	return err
}

func (e *Env) chown(p string, uid uint32) error {
	_, err := e.NS.SetAttr(e.ctx(), &metapb.SetAttrRequest{H: e.h(), Target: at(p), Mask: uint32(metapb.SetAttrMask_SET_UID), Uid: uid})
	return err
}

// same checks that all names lead to one file with that many names, and to its
// content.
func (e *Env) same(data string, names ...string) {
	e.Helper()
	first := e.stat(names[0])
	for _, p := range names {
		a := e.stat(p)
		e.equal(first.Ino, a.Ino)
		e.equal(len(names), a.Nlink)
		e.content(p, data)
	}
}

// below is what the store has in a folder, by its own account.
func (e *Env) below(dir string) map[string]string {
	e.Helper()
	out := map[string]string{}
	e.ok(e.fs(e.stat(dir).MountId).List(e.ctx(), e.key(dir), func(i ufs.Info) error {
		out[i.Key] = i.Fingerprint
		return nil
	}))
	return out
}

// links: the content stays readable by whatever name is left, and the store has
// it once, under one of them.
func links(e *Env, dir string) {
	a, b, c := dir+"/a", dir+"/b", dir+"/sub/c"
	e.mkdir(dir + "/sub")
	e.write(a, orca.CacheThrough, "one")
	e.ok(e.link(a, b))
	e.ok(e.link(b, c))
	e.same("one", a, b, c)
	e.equal("[a b sub]", e.names(dir, nil))
	e.equal(2, len(e.below(dir))) // a and sub

	e.write(b, orca.CacheThrough, "two") // by an alias
	e.same("two", a, b, c)
	e.equal(2, len(e.below(dir)))
	e.ok(chmod(e, c, 0o640))
	e.equal(0o640, e.stat(a).Mode)
	e.same("two", a, b, c)

	// A sync finds everything as it should be.
	_, err := e.NS.Sync(e.ctx(), &metapb.SyncRequest{H: e.h(), Target: at(dir), Recursive: true})
	e.ok(err)
	e.equal("[a b sub]", e.names(dir, every(0)))
	_, err = e.statErr(b, every(0))
	e.ok(err)
	e.same("two", a, b, c)

	e.ok(e.delete(a, false))
	e.same("two", b, c)
	e.drained()
	e.equal(2, len(e.below(dir))) // b and sub
	e.ok(e.rename(b, dir+"/d"))   // the home: the object goes along
	e.drained()
	e.ok(e.rename(c, b)) // an alias: nothing to do below
	e.same("two", dir+"/d", b)
	e.ok(e.delete(dir+"/d", false))
	e.same("two", b)
	e.drained()
	e.same("two", b)
	_, err = e.NS.Sync(e.ctx(), &metapb.SyncRequest{H: e.h(), Target: at(dir), Recursive: true})
	e.ok(err)
	e.same("two", b)
	e.ok(e.delete(b, false))
	e.drained()
	e.equal("[sub]", e.names(dir, every(0)))
}

func linksRefused(e *Env, dir string) {
	e.mkdir(dir + "/d")
	e.write(dir+"/f", orca.CacheThrough, "f")
	e.want(orca.Permission, e.link(dir+"/d", dir+"/e"))
	e.want(orca.Exists, e.link(dir+"/f", dir+"/d"))
	e.want(orca.Exists, e.link(dir+"/f", dir+"/f"))
	e.want(orca.NotFound, e.link(dir+"/no", dir+"/x"))
	e.want(orca.NotFound, e.link(dir+"/f", dir+"/no/x"))
	e.want(orca.NotDir, e.link(dir+"/f", dir+"/f/x"))
	e.want(orca.Invalid, e.link(dir+"/f", dir+"/.~orca.x"))
	e.ok(chmod(e, dir+"/d", 0o700))
	e.want(orca.Permission, e.As(7, 7).link(dir+"/f", dir+"/d/x"))
	for _, other := range []string{"/p", "/o"} {
		if dir[:2] != other {
			e.want(orca.CrossMount, e.link(dir+"/f", fmt.Sprintf("%s/x%d", other, len(dir))))
		}
	}
	e.equal(1, e.stat(dir+"/f").Nlink)
}

// linksReplaced: a name that is replaced leaves the others their content.
func linksReplaced(e *Env, dir string) {
	a, b := dir+"/a", dir+"/b"
	e.write(a, orca.CacheThrough, "old")
	e.ok(e.link(a, b))
	e.ok(e.rename(a, b)) // the same file: nothing
	e.same("old", a, b)
	e.write(dir+"/n", orca.CacheThrough, "new")
	e.eventually("the home is replaced", func() bool { return e.rename(dir+"/n", a) == nil })
	e.same("new", a)
	e.same("old", b)
	e.drained()
	e.same("new", a)
	e.same("old", b)
	e.equal(2, len(e.below(dir)))
}

// linksInTrees: a tree that goes takes no content of names outside along.
func linksInTrees(e *Env, dir string) {
	e.mkdir(dir + "/t")
	e.mkdir(dir + "/t/s")
	e.write(dir+"/t/s/f", orca.CacheThrough, "kept")
	e.write(dir+"/t/g", orca.CacheThrough, "gone")
	e.ok(e.link(dir+"/t/s/f", dir+"/out"))
	e.ok(e.link(dir+"/t/g", dir+"/t/s/g"))
	e.ok(e.As(0, 0).chown(dir+"/t", 7)) // its owner may remove it with all that is in it
	e.ok(e.rename(dir+"/t", dir+"/u"))
	e.same("kept", dir+"/u/s/f", dir+"/out")
	e.drained()
	e.same("kept", dir+"/u/s/f", dir+"/out")
	e.eventually("the tree is gone", func() bool { return e.As(7, 7).delete(dir+"/u", true) == nil })
	e.equal("[out]", e.names(dir, nil))
	e.same("kept", dir+"/out")
	e.drained()
	e.same("kept", dir+"/out")
	e.equal("[out]", e.names(dir, every(0)))
}

// linksUnpersisted: what waits for its store gets there under a name that is
// left.
func linksUnpersisted(e *Env, dir string) {
	a := e.write(dir+"/a", orca.AsyncThrough, "abc")
	e.ok(e.link(dir+"/a", dir+"/b"))
	e.ok(e.delete(dir+"/a", false))
	p, err := e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: a.Ino, Version: a.Version})
	e.ok(err)
	e.equal(e.key(dir+"/b"), p.UfsKey)
	i, err := e.upload(&metapb.WriteSession{Id: p.Intent, MountId: p.MountId, UfsKey: p.UfsKey}, "abc")
	e.ok(err)
	_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: p.Intent, Fingerprint: i.Fingerprint})
	e.ok(err)
	e.same("abc", dir+"/b")
}

// exchanges: two names change places at once, or not at all.
func exchanges(e *Env, dir string) {
	f, d := dir+"/f", dir+"/d"
	e.write(f, orca.CacheThrough, "file")
	e.mkdir(d)
	e.write(d+"/in", orca.CacheThrough, "in")
	e.write(dir+"/g", orca.CacheThrough, "g")
	e.want(orca.NotFound, e.exchange(f, dir+"/no"))
	e.want(orca.Invalid, e.exchange(d, d+"/in"))
	_, err := e.NS.Rename(e.ctx(), &metapb.RenameRequest{H: e.h(), Src: at(f), Dst: at(d), Exchange: true, NoReplace: true})
	e.want(orca.Invalid, err)
	if dir[:2] == "/o" {
		e.want(orca.Unsupported, e.exchange(f, d))
		e.want(orca.Unsupported, e.exchange(f, dir+"/g"))
		e.content(f, "file")
		e.content(d+"/in", "in")
		return
	}
	before := [2]uint64{e.stat(f).Ino, e.stat(d).Ino}
	e.ok(e.exchange(f, d))
	e.equal(before, [2]uint64{e.stat(d).Ino, e.stat(f).Ino})
	e.content(d, "file")
	e.content(f+"/in", "in")
	e.ok(e.exchange(d, dir+"/g"))
	e.content(d, "g")
	e.content(dir+"/g", "file")
	_, err = e.NS.Sync(e.ctx(), &metapb.SyncRequest{H: e.h(), Target: at(dir), Recursive: true})
	e.ok(err)
	e.equal("[d f g]", e.names(dir, every(0)))
	e.content(f+"/in", "in")
}
