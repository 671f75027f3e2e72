// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

func (p *pair) mkdirIn(path string, group uint32) (*metapb.Attr, error) {
	r, err := p.ns.Mkdir(p.t.Context(), &metapb.MkdirRequest{Target: at(path), Mode: 0o750, Group: group})
	return r.GetAttr(), err
}

func (p *pair) remove(path string, recursive bool) error {
	_, err := p.ns.Delete(p.t.Context(), &metapb.DeleteRequest{Target: at(path), Recursive: recursive})
	return err
}

func (p *pair) names(path string) []string {
	p.t.Helper()
	l, err := p.ns.List(p.t.Context(), &metapb.ListRequest{Target: at(path)})
	require.NoError(p.t, err)
	out := []string{}
	for _, e := range l.Entries {
		out = append(out, e.Name)
	}
	return out
}

func TestADirectoryInAGroup(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/a"), Mode: 0o755})
	require.NoError(t, err)
	_, err = p.mkdirIn("/m/a/p", 3)
	require.ErrorIs(t, err, orca.Invalid, "there is no such group")
	a, err := p.mkdirIn("/m/a/p", 2)
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(a.Ino).Group())
	require.DirExists(t, filepath.Join(store, "a/p"))
	_, err = p.mkdirIn("/m/a/p", 2)
	require.ErrorIs(t, err, orca.Exists)
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/a/p"), Mode: 0o750, Parents: true, Group: 2})
	require.ErrorIs(t, err, orca.Exists, "with its parents, as the command line asks")
	_, err = p.mkdirIn("/m/a/p/q", 2)
	require.ErrorIs(t, err, orca.Unsupported)

	// What is below is the other group's, in the same store.
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/a/p/d"), Mode: 0o755})
	require.NoError(t, err)
	require.DirExists(t, filepath.Join(store, "a/p/d"))
	st, err := p.stat("/m/a/p")
	require.NoError(t, err)
	require.Equal(t, a.Ino, st.Ino)
	require.EqualValues(t, 0o750, st.Mode)
	require.NoError(t, os.WriteFile(filepath.Join(store, "a/p/have"), []byte("x"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(store, "a/beside"), []byte("x"), 0o644))
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Created, "each by its own group")
	require.Zero(t, s.Removed)
	require.Equal(t, []string{"beside", "p"}, p.names("/m/a"))
	require.Equal(t, []string{"d", "have"}, p.names("/m/a/p"))
	has, err := p.stat("/m/a/p/have")
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(has.Ino).Group())
	require.Equal(t, "file://"+store+"/a/p/have", has.UfsPath)

	// Sums are each group's: the first says that it does not know all.
	u, err := p.ns.Usage(ctx, &metapb.UsageRequest{Target: at("/m/a")})
	require.NoError(t, err)
	require.False(t, u.Whole)
	u, err = p.ns.Usage(ctx, &metapb.UsageRequest{Target: at("/m/a/p")})
	require.NoError(t, err)
	require.EqualValues(t, 1, u.Usage.Files)
	quota := func(path string) error {
		_, err := p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at(path), Bytes: -1, Inodes: 3})
		return err
	}
	require.ErrorIs(t, quota("/m/a"), orca.Unsupported)
	require.NoError(t, quota("/m/a/p"))
	require.NoError(t, p.touch("/m/a/p/one"))
	require.ErrorIs(t, p.touch("/m/a/p/two"), orca.OverQuota)
	require.NoError(t, p.touch("/m/a/two"), "it counts there only")

	// It stays where it is.
	rename := func(src, dst string) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: at(src), Dst: at(dst)})
		return err
	}
	require.ErrorIs(t, rename("/m/a", "/m/b"), orca.CrossMount)
	require.ErrorIs(t, rename("/m/a/p", "/m/b"), orca.CrossMount)
	itself := func(noReplace bool, ns metaplane.Namespace) error {
		_, err := ns.Rename(ctx, &metapb.RenameRequest{Src: at("/m/a/p"), Dst: at("/m/a/p"), NoReplace: noReplace})
		return err
	}
	for _, ns := range []metaplane.Namespace{p.ns, p.two} {
		require.NoError(t, itself(false, ns))
		require.ErrorIs(t, itself(true, ns), orca.Exists)
	}
	require.NoError(t, rename("/m/a/p/d", "/m/b"), "a directory in it goes anywhere in its mount")
	require.NoError(t, rename("/m/b", "/m/a/p/d"))
	require.NoError(t, rename("/m/a/p/have", "/m/b"), "so does a file")
	require.NoError(t, rename("/m/b", "/m/a/p/d/have"))
	require.ErrorIs(t, p.unmount("/m"), orca.Busy)

	// Options of the mount are its own.
	_, err = p.ns.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, ReadOnly: true, SyncIntervalMs: -1}})
	require.NoError(t, err)
	require.ErrorIs(t, p.remove("/m/a/p/one", false), orca.ReadOnly)
	require.ErrorIs(t, p.remove("/m/a/p", true), orca.ReadOnly)
	p.mount("/m", "file://"+store, 0)
	require.NoError(t, p.remove("/m/a/p/one", false))

	// It goes when it is empty, or with all that is in it.
	require.ErrorIs(t, p.remove("/m/a/p", false), orca.NotEmpty)
	_, err = p.stat("/m/a/p/d/have")
	require.NoError(t, err, "it is as it was")
	p.stop()
	p.start()
	require.ErrorIs(t, p.remove("/m/a", false), orca.NotEmpty)
	require.NoError(t, p.remove("/m/a", true))
	require.Eventually(t, func() bool { // the store follows
		_, err := os.Stat(filepath.Join(store, "a"))
		return os.IsNotExist(err)
	}, time.Minute, 10*time.Millisecond)
	require.Nil(t, p.row("/m/a/p"))
	_, err = p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(store, "p/stranger"), nil, 0o644))
	require.ErrorIs(t, p.remove("/m/p", false), orca.NotEmpty, "the store is asked")
	require.NoError(t, p.touch("/m/p/f"))
	require.NoError(t, p.remove("/m/p", true))
	require.NoDirExists(t, filepath.Join(store, "p"))
	require.NoError(t, p.unmount("/m"))
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// Given back it is a directory like any other, with what the store has.
func TestADirectoryIsGivenBack(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(store, "p/f"), []byte("x"), 0o644))
	require.NoError(t, p.unmount("/m/p"))
	a, err := p.stat("/m/p/f")
	require.NoError(t, err)
	require.Equal(t, uint16(1), orca.Ino(a.Ino).Home())
	require.NoError(t, p.remove("/m/p", true))
	require.NoError(t, p.unmount("/m"))
}

// The leader of the first group dies at every point of making and removing a
// directory in another group: afterwards it is there, whole, or it is not, and
// what can be done to it can be done.
func TestPartsSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	again := func() {
		p.cut.Store("")
		p.leave()
		p.serve()
	}
	settle := func(path string, want bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			m := p.row(path)
			return m == nil && !want || m != nil && want && m.Junction == metapb.JunctionState_JUNCTION_ACTIVE
		}, time.Minute, 10*time.Millisecond)
	}
	for _, point := range []string{"before mount", "after mount", "before active", "after active"} {
		path := "/m/made " + point
		p.cut.Store(point)
		_, err := p.mkdirIn(path, 2)
		require.Error(t, err, point)
		again()
		settle(path, true)
		require.NoError(t, p.touch(path+"/f"), point)
		require.ErrorIs(t, p.remove(path, false), orca.NotEmpty)
		require.NoError(t, p.remove(path, true), point)
		require.NoDirExists(t, filepath.Join(store, path[2:]), point)
	}
	for _, point := range []string{"before unmount", "after unmount", "before none", "after none"} {
		path := "/m/gone " + point
		_, err := p.mkdirIn(path, 2)
		require.NoError(t, err)
		require.NoError(t, p.touch(path+"/f"), point)
		p.cut.Store(point)
		if err := p.remove(path, true); point != "after none" { // then a repetition finds it done
			require.Error(t, err, point)
		}
		again()
		settle(path, false)
		if err := p.remove(path, false); err != nil {
			require.ErrorIs(t, err, orca.NotFound, point)
		}
		require.NoDirExists(t, filepath.Join(store, path[2:]), point)
		require.NotContains(t, p.names("/m"), path[3:])
	}
	// What the group refuses is undone wherever the leader dies.
	_, err := p.mkdirIn("/m/full", 2)
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/full/f"))
	for _, point := range []string{"after unmount", "before active", "after active"} {
		p.cut.Store(point)
		require.Error(t, p.remove("/m/full", false), point)
		again()
		settle("/m/full", true)
		_, err = p.stat("/m/full/f")
		require.NoError(t, err, point)
	}
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// once has f called at a point, the first time that the process gets there.
func (p *pair) once(point string, f func()) {
	var done atomic.Bool
	p.then.Store(func(at string) {
		if at == point && !done.Swap(true) {
			f()
		}
	})
}

// Of two who remove a directory in another group one has removed it, and the
// other finds none.
func TestOneRemovesADirectoryInAGroup(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	other := metaclient.NewSession(p.one, p.short(0))
	p.once("after none", func() {
		_, err := other.Delete(t.Context(), &metapb.DeleteRequest{Target: at("/m/p")})
		require.NoError(t, err)
	})
	require.ErrorIs(t, p.remove("/m/p", false), orca.NotFound)
	require.NoDirExists(t, filepath.Join(store, "p"))
}

// The options of its mount change while a directory is being made: it gets the
// new ones, and who makes it hears nothing of that.
func TestAMountChangesWhileADirectoryIsMade(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.once("before active", func() {
		_, err := p.host.Group().Propose(t.Context(), &command.Command{Now: 1, Mount: &metapb.MountOp{Update: true, Directories: true, AtomicRename: true,
			Mount: &metapb.Mount{Path: "/m", Uri: "file://" + store, SyncIntervalMs: 7}}})
		require.NoError(t, err)
	})
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.EqualValues(t, 7, p.row("/m/p").SyncIntervalMs)
	there, err := p.second.Machine().Mount(p.row("/m/p").Id)
	require.NoError(t, err)
	require.EqualValues(t, 7, there.Mount.SyncIntervalMs)
}

// It is unmounted while it is being made: it was made all the same.
func TestADirectoryIsGivenBackWhileItIsMade(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.once("before active", func() {
		m := p.row("/m/p")
		g := p.host.Group()
		for _, to := range []metapb.JunctionState{metapb.JunctionState_JUNCTION_LEAVING, metapb.JunctionState_JUNCTION_NONE} {
			res, err := g.Propose(t.Context(), &command.Command{Now: 1, Junction: &metapb.JunctionOp{Mount: m.Id, From: m.Junction, To: to, Serial: m.Serial}})
			require.NoError(t, err)
			m = res.Mount.Mount
		}
	})
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.Nil(t, p.row("/m/p"))
	require.DirExists(t, filepath.Join(store, "p"))
}

// While another group does not answer, who waits for the turn of a junction may
// give up.
func TestWhoWaitsForAJunctionMayGiveUp(t *testing.T) {
	p := newPairOn(t, true)
	p.mount("/m", "file://"+t.TempDir(), 0)
	hangs, goOn := make(chan struct{}), make(chan struct{})
	p.once("before mount", func() {
		close(hangs)
		<-goOn
	})
	made := make(chan error, 1)
	go func() {
		_, err := p.mkdirIn("/m/p", 2)
		made <- err
	}()
	<-hangs
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := p.one.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/q"), Mode: 0o755, Group: 2})
		gaveUp <- err
	}()
	require.Eventually(t, func() bool { return p.row("/m/q") != nil }, time.Minute, time.Millisecond)
	cancel()
	select {
	case err := <-gaveUp:
		require.ErrorIs(t, err, orca.Canceled)
	case <-time.After(time.Minute):
		t.Error("it waits for who hangs")
	}
	close(goOn)
	require.NoError(t, <-made)
}

// A removal that the other group has refused is answered so however late its
// request comes again, and whatever was emptied, or is there, by then.
func TestARefusedRemovalIsNotRepeated(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/p/f"))
	rmdir := func(seq uint64) error {
		_, err := p.one.Delete(t.Context(), &metapb.DeleteRequest{H: &metapb.Header{Client: 77, Seq: seq}, Target: at("/m/p")})
		return err
	}
	require.ErrorIs(t, rmdir(1), orca.NotEmpty)
	require.NoError(t, p.remove("/m/p/f", false))
	require.ErrorIs(t, rmdir(1), orca.NotEmpty)
	st, err := p.stat("/m/p")
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(st.Ino).Home(), "it is still in its group")
	// Another leader knows, too; and a directory that is nobody's part is safe.
	p.stop()
	p.start()
	require.NoError(t, p.unmount("/m/p"))
	require.ErrorIs(t, rmdir(1), orca.NotEmpty)
	require.DirExists(t, filepath.Join(store, "p"))
	require.NoError(t, rmdir(2))
	require.NoDirExists(t, filepath.Join(store, "p"))

	// One that was not refused has been done.
	_, err = p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, rmdir(3))
	require.NoError(t, rmdir(3))
	require.NoDirExists(t, filepath.Join(store, "p"))
}

// A directory whose part was given back for its removal moves to a group again before
// it is removed: whoever repeats the request is told that it was done, as before.
func TestARepeatedRemovalOfWhatHasMovedMeanwhile(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	moved := 0
	p.then.Store(func(point string) {
		if point == "before removing what was given back" {
			if moved++; moved == 1 {
				p.move("/m/p")
			}
		}
	})
	remove := func() error {
		_, err := p.one.Delete(t.Context(), &metapb.DeleteRequest{H: &metapb.Header{Client: 79, Seq: 1}, Target: at("/m/p")})
		return err
	}
	require.NoError(t, remove())
	require.Positive(t, moved)
	require.NoDirExists(t, filepath.Join(store, "p"))
	require.NoError(t, remove())
	p.check()
	// What somebody else has made there since stays.
	_, err = p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, remove())
	require.NotNil(t, p.row("/m/p"))
}

// A group that has refused to forget a directory, and kept it, is told to once more
// by a message of that attempt which was on its way: it keeps the directory.
func TestALateUnmountForgetsNothing(t *testing.T) {
	p := newPairOn(t, true)
	p.mount("/m", "file://"+t.TempDir(), 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/p/f"))
	require.ErrorIs(t, p.remove("/m/p", false), orca.NotEmpty)
	row := p.row("/m/p")
	require.NoError(t, p.remove("/m/p/f", false))
	_, err = p.two.Unmount(t.Context(), &metapb.UnmountRequest{H: &metapb.Header{}, Path: row.Path, Id: row.Id, Empty: true, Serial: row.Serial})
	require.ErrorIs(t, err, orca.Stale)
	require.NoError(t, p.touch("/m/p/g"))
	require.ErrorIs(t, p.remove("/m/p", false), orca.NotEmpty)
	require.NoError(t, p.remove("/m/p", true))
	require.Nil(t, p.row("/m/p"))
}

// The group forgets it by a repeated message while the first one's refusal is being
// heard: what counts is that it is gone.
func TestARepeatedUnmountIsDoneBeforeItIsTakenBack(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/p/f"))
	row := p.row("/m/p")
	root := row.Root
	p.once("after unmount", func() {
		_, err := p.two.Delete(t.Context(), &metapb.DeleteRequest{H: &metapb.Header{}, Target: &metapb.Target{Ino: root, Path: "f"}})
		require.NoError(t, err)
		row = p.row("/m/p")
		_, err = p.two.Unmount(t.Context(), &metapb.UnmountRequest{H: &metapb.Header{}, Path: row.Path, Id: row.Id, Empty: true, Serial: row.Serial})
		require.NoError(t, err)
	})
	require.NoError(t, p.remove("/m/p", false))
	require.Nil(t, p.row("/m/p"))
	require.NoDirExists(t, filepath.Join(store, "p"))
}

// The step back of an attempt that was refused is committed late, when another one
// has had the group forget the directory: it is refused, too.
func TestALateStepBackLeadsToNothing(t *testing.T) {
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/p", 2)
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/p/f"))
	p.cut.Store("before active")
	require.Error(t, p.remove("/m/p", false))
	row := p.row("/m/p")
	require.Equal(t, metapb.JunctionState_JUNCTION_LEAVING, row.Junction)
	_, err = p.two.Delete(t.Context(), &metapb.DeleteRequest{H: &metapb.Header{}, Target: &metapb.Target{Ino: row.Root, Path: "f"}})
	require.NoError(t, err)
	p.once("before none", func() {
		_, err := p.host.Group().Propose(t.Context(), &command.Command{Now: 1, Junction: &metapb.JunctionOp{Mount: row.Id, From: row.Junction,
			To: metapb.JunctionState_JUNCTION_ACTIVE, Serial: row.Serial, Refused: uint32(orca.NotEmpty)}})
		require.ErrorIs(t, err, orca.Stale)
	})
	p.cut.Store("")
	p.leave()
	p.serve()
	require.Eventually(t, func() bool { return p.row("/m/p") == nil }, time.Minute, 10*time.Millisecond)
	require.NoError(t, p.remove("/m/p", false))
	require.NoDirExists(t, filepath.Join(store, "p"))
}
