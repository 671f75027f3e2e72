// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"strings"
	"testing"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Case is one behaviour; dir is a folder of its own on the store of the run.
type Case struct {
	Name string
	Do   func(e *Env, dir string)
}

// Run checks that ns, a door to the metaplane of h, behaves on each kind of
// store. Each case has a folder of its own, so doors may share a metaplane if
// their names differ.
func Run(t *testing.T, h *Harness, door string, ns metaplane.Namespace) {
	t.Helper()
	for _, root := range []string{"", "/p", "/o"} {
		kind := map[string]string{"": "local", "/p": "posix", "/o": "objects"}[root]
		t.Run(kind, func(t *testing.T) {
			for _, c := range Cases() {
				t.Run(c.Name, func(t *testing.T) {
					e := &Env{TB: t, H: h, NS: ns}
					dir := root + "/" + door + "-" + c.Name
					e.mkdir(dir)
					e.ok(chmod(e, dir, 0o777))
					c.Do(e, dir)
				})
			}
		})
	}
}

// Cases returns what every store must do.
func Cases() []Case {
	return []Case{
		{"visibility", visibility}, {"overwrite", overwrite}, {"fences", fences}, {"steal", steal},
		{"abandon", abandon}, {"empty-files", emptyFiles}, {"keep", keep}, {"mkdir", mkdirs},
		{"rename", rename}, {"rename-dir", renameDir}, {"rename-refused", renameRefused},
		{"delete", deletes}, {"delete-tree", deleteTree}, {"permissions", permissions}, {"delete-walk", deleteWalk},
		{"attributes", attributes}, {"xattrs", xattrs}, {"symlink", symlink}, {"paging", paging},
		{"write-types", writeTypes}, {"persist", persist}, {"exactly-once", exactlyOnce}, {"bad-input", badInput},
		{"watch", watch}, {"by-inode", byInode}, {"reserved", reserved},
		{"quota", quotas}, {"trash", trash}, {"trash-links", trashLinks}, {"trash-expires", trashExpires},
		{"links", links}, {"links-refused", linksRefused}, {"links-replaced", linksReplaced},
		{"links-in-trees", linksInTrees}, {"links-unpersisted", linksUnpersisted}, {"exchange", exchanges},
	}
}

func chmod(e *Env, p string, mode uint32) error {
	_, err := e.NS.SetAttr(e.ctx(), &metapb.SetAttrRequest{H: e.h(), Target: at(p), Mask: uint32(metapb.SetAttrMask_SET_MODE), Mode: mode})
	return err
}

func visibility(e *Env, dir string) {
	p := dir + "/f"
	r, err := e.create(p, orca.CacheThrough)
	e.ok(err)
	e.absent(p, nil)
	e.equal("[]", e.names(dir, nil))
	i, err := e.upload(r.Session, "hello")
	e.ok(err)
	e.absent(p, every(0)) // in the store, but not complete: hidden by its session
	c, err := e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 5, Fingerprint: i.Fingerprint})
	e.ok(err)
	e.equal(5, c.Attr.Length)
	a := e.stat(p)
	e.equal(c.Attr.Ino, a.Ino)
	e.equal(uint32(orca.Persisted), a.Persist)
	e.equal("[f]", e.names(dir, nil))
	e.content(p, "hello")
}

func overwrite(e *Env, dir string) {
	p := dir + "/f"
	old := e.write(p, orca.CacheThrough, "old")
	r, err := e.create(p, orca.CacheThrough)
	e.ok(err)
	e.equal(old.Ino, r.Session.File)
	e.equal(old.Version, e.stat(p).Version)
	e.equal(3, e.stat(p).Length)
	e.equal(old.Fingerprint, r.Session.Expect)
	i, err := e.upload(r.Session, "newer")
	e.ok(err)
	e.equal(3, e.stat(p).Length)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 5, Fingerprint: i.Fingerprint})
	e.ok(err)
	e.equal(5, e.stat(p).Length)
	if v := e.stat(p).Version; v <= old.Version {
		e.Fatalf("version %d is not newer than %d", v, old.Version)
	}
	e.content(p, "newer")
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(p)})
	e.want(orca.Exists, err)
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(p), Overwrite: true, Exclusive: true})
	e.want(orca.Exists, err)
}

func fences(e *Env, dir string) {
	p := dir + "/f"
	r, err := e.create(p, orca.MustCache)
	e.ok(err)
	_, err = e.create(p, orca.MustCache)
	e.want(orca.Busy, err)
	q := &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence + 1000, Length: 1}
	_, err = e.NS.Complete(e.ctx(), q)
	e.want(orca.Stale, err)
	n, err := e.NS.Renew(e.ctx(), &metapb.RenewRequest{H: e.h(), Sessions: []uint64{r.Session.Id, 1 << 60}})
	e.ok(err)
	e.equal([]uint64{1 << 60}, n.Expired)
	e.want(orca.Busy, e.delete(dir, true)) // a session below it
	q.Fence = r.Session.Fence
	_, err = e.NS.Complete(e.ctx(), q)
	e.ok(err)
	_, err = e.NS.Complete(e.ctx(), q)
	e.want(orca.Stale, err)
}

func steal(e *Env, dir string) {
	p := dir + "/f"
	a, err := e.create(p, orca.MustCache)
	e.ok(err)
	b, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(p), Overwrite: true, Steal: true, WriteType: uint32(orca.MustCache)})
	e.ok(err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: a.Session.Id, Fence: a.Session.Fence, Length: 1})
	e.want(orca.Stale, err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: b.Session.Id, Fence: b.Session.Fence, Length: 2})
	e.ok(err)
	e.equal(2, e.stat(p).Length)
}

func abandon(e *Env, dir string) {
	p := dir + "/f"
	r, err := e.create(p, orca.CacheThrough)
	e.ok(err)
	_, err = e.NS.Abandon(e.ctx(), &metapb.AbandonRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence})
	e.ok(err)
	e.absent(p, nil)
	e.write(p, orca.CacheThrough, "x") // the name is free again, once swept
	e.content(p, "x")
}

func emptyFiles(e *Env, dir string) {
	r, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/sub/f"), Mode: 0o600, Parents: true, Complete: true})
	e.ok(err)
	if r.Session != nil {
		e.Fatalf("a complete file has a session")
	}
	e.equal(0o600, e.stat(dir+"/sub/f").Mode)
	e.content(dir+"/sub/f", "")
	e.write(dir+"/sub/f", orca.CacheThrough, "full")
	_, err = e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/sub/f"), Overwrite: true, Complete: true})
	e.ok(err)
	e.content(dir+"/sub/f", "")
}

func keep(e *Env, dir string) {
	p := dir + "/f"
	r, err := e.create(p, orca.CacheThrough)
	e.ok(err)
	s := r.Session
	for _, data := range []string{"a", "bb", "ccc"} {
		i, err := e.upload(s, data)
		e.ok(err)
		c, err := e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: s.Id, Fence: s.Fence, Length: int64(len(data)), Fingerprint: i.Fingerprint, Keep: true})
		e.ok(err)
		e.content(p, data)
		if c.Session == nil || c.Session.Id == s.Id {
			e.Fatalf("no next session")
		}
		s = c.Session
	}
	_, err = e.NS.Abandon(e.ctx(), &metapb.AbandonRequest{H: e.h(), Session: s.Id, Fence: s.Fence})
	e.ok(err)
	e.content(p, "ccc")
}

func mkdirs(e *Env, dir string) {
	_, err := e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/a/b/c"), Mode: 0o750})
	e.want(orca.NotFound, err)
	r, err := e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/a/b/c"), Mode: 0o750, Parents: true})
	e.ok(err)
	e.equal(0o750, r.Attr.Mode)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/a/b/c")})
	e.want(orca.Exists, err)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/a/b/c"), ExistOk: true})
	e.ok(err)
	e.write(dir+"/f", orca.CacheThrough, "x")
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/f"), ExistOk: true})
	e.want(orca.Exists, err)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(dir + "/f/g")})
	e.want(orca.NotDir, err)
	i, err := e.fs(r.Attr.MountId).Stat(e.ctx(), e.key(dir+"/a/b/c"))
	e.ok(err)
	e.equal(true, i.Dir)
}

// key is the UFS key of a path below one of the three mounts.
func (e *Env) key(p string) string {
	for _, m := range []string{"/p/", "/o/"} {
		if k, ok := strings.CutPrefix(p, m); ok {
			return k
		}
	}
	return p[1:]
}

func rename(e *Env, dir string) {
	a, b := dir+"/a", dir+"/b"
	e.write(a, orca.CacheThrough, "one")
	ino := e.stat(a).Ino
	e.ok(e.rename(a, b))
	e.absent(a, nil)
	e.equal(ino, e.stat(b).Ino)
	e.content(b, "one")
	e.drained()
	e.content(b, "one")
	e.absent(a, every(0))
	e.write(a, orca.CacheThrough, "two")
	_, err := e.NS.Rename(e.ctx(), &metapb.RenameRequest{H: e.h(), Src: at(a), Dst: at(b), NoReplace: true})
	e.want(orca.Exists, err)
	e.ok(e.rename(a, b))
	e.content(b, "two")
	e.drained()
	e.content(b, "two")
	e.equal("[b]", e.names(dir, every(0)))
	e.ok(e.rename(b, b))
	e.content(b, "two")
}

func renameDir(e *Env, dir string) {
	for _, n := range []string{"x", "y", "sub/z"} {
		e.write(dir+"/src/"+n, orca.CacheThrough, n)
	}
	e.ok(e.rename(dir+"/src", dir+"/dst"))
	for range 2 {
		for _, n := range []string{"x", "y", "sub/z"} {
			e.content(dir+"/dst/"+n, n)
		}
		e.absent(dir+"/src", every(0))
		e.drained()
	}
	e.equal("[sub x y]", e.names(dir+"/dst", every(0)))
	e.equal("[dst]", e.names(dir, every(0)))
	e.write(dir+"/dst/new", orca.CacheThrough, "n")
	e.content(dir+"/dst/new", "n")
}

func renameRefused(e *Env, dir string) {
	e.mkdir(dir + "/d/e")
	e.write(dir+"/f", orca.CacheThrough, "f")
	e.write(dir+"/full/x", orca.CacheThrough, "x")
	e.want(orca.Invalid, e.rename(dir+"/d", dir+"/d/e/d"))
	e.want(orca.NotFound, e.rename(dir+"/none", dir+"/x"))
	e.want(orca.IsDir, e.rename(dir+"/f", dir+"/d"))
	e.want(orca.NotDir, e.rename(dir+"/d", dir+"/f"))
	e.want(orca.NotEmpty, e.rename(dir+"/d", dir+"/full"))
	e.want(orca.NotFound, e.rename(dir+"/f", dir+"/no/where"))
	other := "/p/elsewhere"
	if strings.HasPrefix(dir, "/p/") {
		other = "/o/elsewhere"
	}
	e.want(orca.CrossMount, e.rename(dir+"/f", other))
	e.content(dir+"/f", "f")
}

func deletes(e *Env, dir string) {
	e.write(dir+"/f", orca.CacheThrough, "f")
	e.mkdir(dir + "/d")
	e.write(dir+"/full/x", orca.CacheThrough, "x")
	_, err := e.NS.Delete(e.ctx(), &metapb.DeleteRequest{H: e.h(), Target: at(dir + "/f"), Want: 2})
	e.want(orca.NotDir, err)
	_, err = e.NS.Delete(e.ctx(), &metapb.DeleteRequest{H: e.h(), Target: at(dir + "/d"), Want: 1})
	e.want(orca.IsDir, err)
	e.want(orca.NotEmpty, e.delete(dir+"/full", false))
	e.want(orca.NotFound, e.delete(dir+"/none", false))
	e.ok(e.delete(dir+"/f", false))
	e.ok(e.delete(dir+"/d", false))
	e.absent(dir+"/f", every(0))
	e.absent(dir+"/d", every(0))
	e.write(dir+"/g", orca.CacheThrough, "g")
	_, err = e.NS.Delete(e.ctx(), &metapb.DeleteRequest{H: e.h(), Target: at(dir + "/g"), CacheOnly: true})
	e.ok(err)
	e.absent(dir+"/g", nil)
	e.equal("[full g]", e.names(dir, every(0)))
	e.content(dir+"/g", "g")
}

func deleteTree(e *Env, dir string) {
	for _, n := range []string{"a", "b/c", "b/d/e"} {
		e.write(dir+"/t/"+n, orca.CacheThrough, n)
	}
	e.ok(e.delete(dir+"/t", true))
	e.absent(dir+"/t", nil)
	e.absent(dir+"/t/b/c", every(0))
	e.equal("[]", e.names(dir, every(0)))
	e.write(dir+"/t/a", orca.CacheThrough, "again") // waits for the drain
	e.drained()
	e.content(dir+"/t/a", "again")
	e.equal("[a]", e.names(dir+"/t", every(0)))
	e.eventually("trash swept", func() bool {
		r, err := e.NS.Report(e.ctx(), &metapb.ReportRequest{H: e.h()})
		e.ok(err)
		return r.Counters["trash"] == 0
	})
}
