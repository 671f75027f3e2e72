// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

// fresh is a router that has been referred nowhere yet.
func (p *pair) fresh() *metaclient.Router {
	return metaclient.NewRouter(metaclient.NewSession(p.one, p.short(0)), func(n uint16) (*metaclient.Session, error) {
		return metaclient.NewSession(p.two, p.short(n)), nil
	})
}

// keep mounts what keeps what is deleted for so many ms.
func (p *pair) keep(path, uri string, group uint32, ms int64) {
	p.t.Helper()
	_, err := p.ns.Mount(p.t.Context(), &metapb.MountRequest{Parents: true, Mount: &metapb.Mount{
		Path: path, Uri: uri, SyncIntervalMs: -1, TrashRetentionMs: ms, Group: group}})
	require.NoError(p.t, err)
}

func restoreIn(t *testing.T, ns *metaclient.Router, ino uint64, to *metapb.Target) error {
	_, err := ns.RestoreTrash(t.Context(), &metapb.RestoreTrashRequest{Ino: ino, Dst: to})
	return err
}

// TestTrashOfGroups: mounts of two groups keep what is deleted. It is one trash
// to who lists it, and each thing comes back through its own group, whatever the
// caller has been referred to before.
func TestTrashOfGroups(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	ctx := t.Context()
	hour := time.Hour.Milliseconds()
	p.keep("/one", "mem://trash-one", 0, hour)
	p.keep("/a/two", "mem://trash-two", 2, hour)
	list := func(path string) []*metapb.Trashed {
		t.Helper()
		r, err := p.fresh().Trash(ctx, &metapb.TrashRequest{Path: path})
		require.NoError(t, err)
		return r.Entries
	}
	paths := func(path string) []string {
		t.Helper()
		s := []string{}
		for _, e := range list(path) {
			s = append(s, e.Path)
		}
		return s
	}
	remove := func(path string) uint64 {
		t.Helper()
		require.NoError(t, p.touch(path))
		a, err := p.stat(path)
		require.NoError(t, err)
		_, err = p.ns.Delete(ctx, &metapb.DeleteRequest{Target: at(path)})
		require.NoError(t, err)
		_, err = p.stat(path)
		require.ErrorIs(t, err, orca.NotFound)
		return a.Ino
	}
	back := func(path string, ino uint64) {
		t.Helper()
		a, err := p.stat(path)
		require.NoError(t, err)
		require.Equal(t, ino, a.Ino)
	}

	// All of it, what is below a path, and one thing by its number.
	f, g, h := remove("/one/f"), remove("/a/two/g"), remove("/a/two/h")
	require.Equal(t, []string{"/one/f", "/a/two/g", "/a/two/h"}, paths(""))
	require.Equal(t, paths(""), paths("/"))
	require.Equal(t, []string{"/a/two/g", "/a/two/h"}, paths("/a"))
	require.Equal(t, []string{"/a/two/h"}, paths("/a/two/h"))
	require.Equal(t, []string{"/one/f"}, paths("/one"))
	r, err := p.fresh().Trash(ctx, &metapb.TrashRequest{Ino: g})
	require.NoError(t, err)
	require.Len(t, r.Entries, 1)
	require.Equal(t, hour*1e6, r.Entries[0].Expires-r.Entries[0].Deleted)

	// Back: where it was, by path, and below a number. p.ns has been referred to
	// the second group by now, the fresh one has not.
	require.NoError(t, restoreIn(t, p.fresh(), g, nil))
	back("/a/two/g", g)
	require.ErrorIs(t, restoreIn(t, p.fresh(), h, at("/a/two/g")), orca.Exists)
	require.NoError(t, restoreIn(t, p.fresh(), h, at("/a/two/new")))
	back("/a/two/new", h)
	root, err := p.stat("/a/two")
	require.NoError(t, err)
	k := remove("/a/two/k")
	require.NoError(t, restoreIn(t, p.fresh(), k, &metapb.Target{Ino: root.Ino, Path: "k"}))
	back("/a/two/k", k)
	require.ErrorIs(t, restoreIn(t, p.fresh(), k, at("/a/two/more")), orca.NotFound, "it is not in the trash any more")

	// What was deleted stays in its mount, and so in its group.
	k = remove("/a/two/k2")
	for _, ns := range []*metaclient.Router{p.fresh(), p.ns} {
		require.ErrorIs(t, restoreIn(t, ns, k, at("/k")), orca.CrossMount)
		require.ErrorIs(t, restoreIn(t, ns, k, &metapb.Target{Ino: 1, Path: "one/k"}), orca.CrossMount)
		require.ErrorIs(t, restoreIn(t, ns, f, at("/a/two/f")), orca.CrossMount)
		require.ErrorIs(t, restoreIn(t, ns, f, &metapb.Target{Ino: root.Ino, Path: "f"}), orca.CrossMount)
		require.ErrorIs(t, restoreIn(t, ns, f+1000, at("/a/two/f")), orca.NotFound)
	}

	// Others see and bring back what they deleted, if the way there is theirs.
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/a/two/d"), Mode: 0o777})
	require.NoError(t, err)
	require.NoError(t, p.touch("/a/two/d/u"))
	them := func() *metapb.Header { return &metapb.Header{Caller: &metapb.Caller{Uid: 7, Gid: 7}} }
	_, err = p.ns.Delete(ctx, &metapb.DeleteRequest{H: them(), Target: at("/a/two/d/u")})
	require.NoError(t, err)
	r, err = p.fresh().Trash(ctx, &metapb.TrashRequest{H: them()})
	require.NoError(t, err)
	require.Len(t, r.Entries, 1)
	theirs := func(to *metapb.Target) error {
		_, err := p.fresh().RestoreTrash(ctx, &metapb.RestoreTrashRequest{H: them(), Ino: r.Entries[0].Ino, Dst: to})
		return err
	}
	mode := func(mode uint32) {
		t.Helper()
		_, err := p.ns.SetAttr(ctx, &metapb.SetAttrRequest{Target: at("/a"), Mask: uint32(metapb.SetAttrMask_SET_MODE), Mode: mode})
		require.NoError(t, err)
	}
	mode(0o700)
	require.ErrorIs(t, theirs(at("/a/two/d/back")), orca.Permission)
	mode(0o755)
	require.NoError(t, theirs(at("/a/two/d/back")))
	back("/a/two/d/back", r.Entries[0].Ino)

	// It keeps its mount busy, and is emptied in one go.
	require.ErrorIs(t, p.unmount("/a/two"), orca.Busy)
	require.Equal(t, metapb.JunctionState_JUNCTION_ACTIVE, p.row("/a/two").Junction)
	g = remove("/a/two/again")
	e, err := p.fresh().PurgeTrash(ctx, &metapb.PurgeTrashRequest{Inos: []uint64{k, f, g}})
	require.NoError(t, err)
	require.ElementsMatch(t, []uint64{f, g, k}, e.Purged)
	require.Empty(t, list(""))

	// It expires in its own group, as its mount comes to say.
	remove("/one/x")
	remove("/a/two/y")
	p.keep("/a/two", "mem://trash-two", 2, -1)
	require.Eventually(t, func() bool { return len(list("/a")) == 0 }, time.Minute, 10*time.Millisecond)
	require.Equal(t, []string{"/one/x"}, paths(""))
	require.NoError(t, p.unmount("/a/two"))
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}
