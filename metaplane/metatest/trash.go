// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"strings"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// keep mounts a store of the kind that dir is in, which keeps what is deleted.
func (e *Env) keep(dir string, retention time.Duration) {
	e.Helper()
	uri := "file://" + e.TempDir()
	switch name := strings.ReplaceAll(dir, "/", "-"); {
	case strings.HasPrefix(dir, "/p/"):
		uri = "mem://keeps" + name
	case strings.HasPrefix(dir, "/o/"):
		uri = "mem://obj-keeps" + name
	}
	e.remount(dir, uri, retention)
}

func (e *Env) remount(dir, uri string, retention time.Duration) {
	e.Helper()
	ms := retention.Milliseconds()
	if ms == 0 {
		ms = -1
	}
	_, err := e.NS.Mount(e.ctx(), &metapb.MountRequest{H: e.h(), Mount: &metapb.Mount{
		Path: dir, Uri: uri, SyncIntervalMs: -1, TrashRetentionMs: ms}})
	e.ok(err)
}

// trash returns what is kept at or below a path.
func (e *Env) trash(p string) []*metapb.Trashed {
	e.Helper()
	r, err := e.NS.Trash(e.ctx(), &metapb.TrashRequest{H: e.h(), Path: p})
	e.ok(err)
	return r.Entries
}

func (e *Env) trashed(p string) string {
	e.Helper()
	var s []string
	for _, x := range e.trash(p) {
		s = append(s, strings.TrimPrefix(x.Path, p))
	}
	return strings.Join(s, " ")
}

func (e *Env) restore(ino uint64, to *metapb.Target) error {
	_, err := e.NS.RestoreTrash(e.ctx(), &metapb.RestoreTrashRequest{H: e.h(), Ino: ino, Dst: to})
	return err
}

func (e *Env) purge(inos ...uint64) error {
	_, err := e.NS.PurgeTrash(e.ctx(), &metapb.PurgeTrashRequest{H: e.h(), Inos: inos})
	return err
}

func trash(e *Env, dir string) {
	m := dir + "/m"
	e.keep(m, time.Hour)
	e.mkdir(m + "/d/sub")
	e.ok(chmod(e, m+"/d", 0o777))
	f := e.write(m+"/d/f", orca.CacheThrough, "one")
	e.write(m+"/d/sub/g", orca.CacheThrough, "below")

	// A file: gone from all that looks, and its name is free.
	e.ok(e.delete(m+"/d/f", false))
	e.absent(m+"/d/f", every(0))
	e.equal("[sub]", e.names(m+"/d", nil))
	e.equal("[d]", e.names(m, every(0)))
	e.absent(m+"/.~orca.trash", every(0))
	_, err := e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: at(m + "/.~orca.trash/x"), Parents: true})
	e.want(orca.Invalid, err)
	e.equal("/d/f", e.trashed(m))
	e.write(m+"/d/f", orca.CacheThrough, "two")
	e.want(orca.Exists, e.restore(f.Ino, nil))
	e.want(orca.NotFound, e.As(7, 7).restore(f.Ino, at(m+"/d/mine")))
	e.ok(e.As(7, 7).purge(f.Ino)) // which is nothing to them
	e.want(orca.NotFound, e.restore(f.Ino, at(m+"/d/new/f")))
	e.mkdir(m + "/d/new")
	e.ok(e.restore(f.Ino, at(m+"/d/new/f")))
	e.content(m+"/d/new/f", "one")
	e.content(m+"/d/f", "two")
	e.equal("", e.trashed(m))

	// A tree, that of another caller, and one that is not empty for nothing.
	e.ok(e.delete(m+"/d", true))
	e.absent(m+"/d/sub/g", every(0))
	e.equal("/d", e.trashed(m))
	d := e.trash(m)[0]
	if !d.Dir || d.Bytes != int64(len("one"+"two"+"below")) || d.Inodes != 6 || d.Expires-d.Deleted != time.Hour.Nanoseconds() {
		e.Fatalf("of the tree it says %v", d)
	}
	_, err = e.NS.List(e.ctx(), &metapb.ListRequest{H: e.h(), Target: &metapb.Target{Ino: d.Ino}})
	e.want(orca.NotFound, err)
	_, err = e.NS.Mkdir(e.ctx(), &metapb.MkdirRequest{H: e.h(), Target: &metapb.Target{Ino: d.Ino, Path: "x"}})
	e.want(orca.NotFound, err)
	_, err = e.NS.Unmount(e.ctx(), &metapb.UnmountRequest{H: e.h(), Path: m})
	e.want(orca.Busy, err)
	e.ok(e.restore(d.Ino, nil))
	e.content(m+"/d/sub/g", "below")
	e.content(m+"/d/new/f", "one")
	u := e.As(7, 7)
	u.write(m+"/d/theirs", orca.CacheThrough, "7")
	e.equal("", u.trashed(m))
	e.ok(u.delete(m+"/d/theirs", false))
	e.equal("/d/theirs", u.trashed(m))
	e.equal("", e.As(8, 8).trashed(m))
	e.ok(u.restore(u.trash(m)[0].Ino, nil))
	u.content(m+"/d/theirs", "7")

	// What nobody has persisted; for good; as the mount says.
	e.write(m+"/d/only", orca.MustCache, "only")
	e.ok(e.delete(m+"/d/only", false))
	e.equal("/d/only", e.trashed(m))
	e.ok(e.restore(e.trash(m)[0].Ino, nil))
	e.equal(4, e.stat(m+"/d/only").Length)
	_, err = e.NS.Delete(e.ctx(), &metapb.DeleteRequest{H: e.h(), Target: at(m + "/d/only"), SkipTrash: true})
	e.ok(err)
	e.ok(e.delete(m+"/d", true))
	e.ok(e.purge(e.trash(m)[0].Ino))
	e.equal("", e.trashed(m))
	e.drained()
	e.equal("[]", e.names(m, every(0)))
	_, err = e.NS.Unmount(e.ctx(), &metapb.UnmountRequest{H: e.h(), Path: m})
	e.ok(err)
}

// trashLinks: of a file with several names each goes at once but the last one,
// and a tree keeps one of those it had.
func trashLinks(e *Env, dir string) {
	m := dir + "/m"
	e.keep(m, time.Hour)
	e.mkdir(m + "/d")
	e.write(m+"/d/f", orca.CacheThrough, "one")
	e.ok(e.link(m+"/d/f", m+"/out"))
	e.ok(e.delete(m+"/d/f", false))
	e.equal("", e.trashed(m))
	e.content(m+"/out", "one")
	e.ok(e.delete(m+"/out", false))
	e.equal("/out", e.trashed(m))
	e.ok(e.restore(e.trash(m)[0].Ino, at(m+"/d/f")))
	e.drained()
	e.ok(e.link(m+"/d/f", m+"/d/g"))
	e.ok(e.delete(m+"/d", true))
	e.equal("/d", e.trashed(m))
	e.ok(e.restore(e.trash(m)[0].Ino, nil))
	names := e.names(m+"/d", nil)
	e.equal(1, len(names))
	e.content(m+"/d/"+names[0], "one")
}

// trashExpires: when it is kept no longer it goes, from the store, too.
func trashExpires(e *Env, dir string) {
	m := dir + "/m"
	e.keep(m, time.Hour)
	e.write(m+"/d/f", orca.CacheThrough, "one")
	e.write(m+"/g", orca.CacheThrough, "two")
	fs := e.fs(e.stat(m + "/g").MountId)
	e.ok(e.delete(m+"/d", true))
	e.ok(e.delete(m+"/g", false))
	e.equal("/d /g", e.trashed(m))
	e.drained()
	keys := 0
	e.ok(fs.List(e.ctx(), ".~orca.trash", func(ufs.Info) error { keys++; return nil }))
	e.equal(2, keys)
	r, err := e.NS.ListMounts(e.ctx(), &metapb.ListMountsRequest{H: e.h()})
	e.ok(err)
	for _, x := range r.Mounts {
		if x.Path == m {
			e.remount(m, x.Uri, 0)
		}
	}
	e.eventually("it expires", func() bool { return e.trashed(m) == "" })
	e.drained()
	keys = 0
	if err := fs.List(e.ctx(), ".~orca.trash", func(ufs.Info) error { keys++; return nil }); orca.KindOf(err) != orca.NotFound {
		e.ok(err)
	}
	e.equal(0, keys)
}
