// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

func (p *pair) rename(src, dst string) error {
	_, err := p.ns.Rename(p.t.Context(), &metapb.RenameRequest{Src: at(src), Dst: at(dst)})
	return err
}

// put makes a file in a store and has the namespace see it.
func (p *pair) put(store, path, data string) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(filepath.Join(store, path), []byte(data), 0o644))
	_, err := p.ns.Sync(p.t.Context(), &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(p.t, err)
}

func TestAFileGoesToAnotherGroup(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	for _, dir := range []string{"/m/p", "/m/q"} {
		_, err := p.mkdirIn(dir, 2)
		require.NoError(t, err)
	}
	_, err := p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/a"), Mode: 0o755})
	require.NoError(t, err)
	p.put(store, "a/f", "content")
	a, err := p.stat("/m/a/f")
	require.NoError(t, err)
	require.NoError(t, p.rename("/m/a/f", "/m/p/f"))
	_, err = p.stat("/m/a/f")
	require.ErrorIs(t, err, orca.NotFound)
	b, err := p.stat("/m/p/f")
	require.NoError(t, err)
	require.Equal(t, uint16(2), orca.Ino(b.Ino).Group())
	require.Equal(t, a.Mtime, b.Mtime)
	require.Equal(t, a.Fingerprint, b.Fingerprint)
	require.NoFileExists(t, filepath.Join(store, "a/f"))
	got, err := os.ReadFile(filepath.Join(store, "p/f"))
	require.NoError(t, err)
	require.Equal(t, "content", string(got))
	// And back, by directory and name.
	dir, err := p.stat("/m/p")
	require.NoError(t, err)
	to, err := p.stat("/m/a")
	require.NoError(t, err)
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: &metapb.Target{Ino: dir.Ino, Path: "f"}, Dst: &metapb.Target{Ino: to.Ino, Path: "g"}, NoReplace: true})
	require.NoError(t, err)
	require.NoError(t, p.rename("/m/a/g", "/m/q/g"))
	require.NoError(t, p.rename("/m/q/g", "/m/a/h"))
	require.Equal(t, []string{"h"}, p.names("/m/a"))
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// asOne renames as one request of a client, however often it is made.
func (p *pair) asOne(group int, seq uint64, src, dst string) error {
	ctx, cancel := p.asking()
	defer cancel()
	s := p.one
	if group == 2 {
		s = p.two
	}
	_, err := s.Rename(ctx, &metapb.RenameRequest{H: &metapb.Header{Client: 77, Seq: seq}, Src: at(src), Dst: at(dst)})
	return err
}

// notTwice fails when a file has been seen to have arrived, and is still where it
// was.
func (p *pair) notTwice(src, dst string, old uint64) {
	p.t.Helper()
	stat := func(path string) (uint64, error) {
		r, err := p.hasty.Stat(p.t.Context(), &metapb.StatRequest{Target: at(path)})
		return r.GetAttr().GetIno(), err
	}
	if ino, err := stat(dst); err == nil && ino != old {
		_, err := stat(src)
		require.Error(p.t, err, "%s has arrived as %s, and is still there", src, dst)
	}
}

// Who leads the group of the source or of the target dies at every point of a
// rename between them: the next one brings it to its end, and the request that
// began it has one answer.
func TestTransfersSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/2", 2)
	require.NoError(t, err)
	_, err = p.ns.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/m/1"), Mode: 0o755})
	require.NoError(t, err)
	seq := uint64(0)
	for from, to := range map[string]string{"1": "2", "2": "1"} {
		for _, point := range []string{
			"before sending", "after sending", "before transfer", "after transfer", "before receiving", "after receiving",
			"before store", "after store", "before deciding receive", "after deciding receive", "before deciding transfer", "after deciding transfer",
		} {
			for _, over := range []bool{false, true} {
				if seq++; spared(seq, 24) {
					continue
				}
				name := fmt.Sprintf("%s from %s %v", point, from, over)
				group := int(from[0] - '0')
				src, dst := "/m/"+from+"/"+name, "/m/"+to+"/"+name
				p.put(store, src[2:], "content")
				var old uint64
				if over {
					p.put(store, dst[2:], "replaced")
					a, err := p.stat(dst)
					require.NoError(t, err)
					old = a.Ino
				}
				p.cut.Store(point)
				require.Error(t, p.asOne(group, seq, src, dst), name)
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
					require.Eventually(t, func() bool { return p.asOne(group, seq, src, dst) == nil }, time.Minute, 5*time.Millisecond, name)
					_, err := p.stat(src)
					require.ErrorIs(t, err, orca.NotFound, name)
					a, err := p.stat(dst)
					require.NoError(t, err, name)
					require.EqualValues(t, len("content"), a.Length, name)
					got, err := os.ReadFile(filepath.Join(store, dst[2:]))
					require.NoError(t, err, name)
					require.Equal(t, "content", string(got))
					require.NoFileExists(t, filepath.Join(store, src[2:]))
				}
				require.NoError(t, p.remove(dst, false))
			}
		}
	}
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
	require.Eventually(t, func() bool { // what is not asked for again is not kept
		return p.host.Group().Machine().Counts().Transfers+p.second.Machine().Counts().Transfers == 0
	}, time.Minute, 10*time.Millisecond)
}

// What a rename into another group answers, other than that it is done.
func TestWhatDoesNotGoToAnotherGroup(t *testing.T) {
	t.Parallel()
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.mount("/other", "file://"+t.TempDir(), 2)
	_, err := p.mkdirIn("/m/2", 2)
	require.NoError(t, err)
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/1"), Mode: 0o777})
	require.NoError(t, err)
	_, err = p.ns.Mkdir(ctx, &metapb.MkdirRequest{Target: at("/m/2/d"), Mode: 0o777})
	require.NoError(t, err)
	p.put(store, "1/f", "content")
	p.put(store, "2/have", "have")
	rename := func(uid uint32, src, dst string, exclusive bool) error {
		_, err := p.ns.Rename(ctx, &metapb.RenameRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: uid, Gid: uid}},
			Src: at(src), Dst: at(dst), NoReplace: exclusive})
		return err
	}
	require.ErrorIs(t, rename(0, "/m/1/none", "/m/2/f", false), orca.NotFound)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/none/f", false), orca.NotFound)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/have/f", false), orca.NotDir)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/have", true), orca.Exists)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/d", false), orca.IsDir)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2", false), orca.CrossMount, "as it is over any mount point")
	require.ErrorIs(t, rename(7, "/m/1/f", "/m/2/d/f", false), orca.Permission, "the directory above is not for everybody")
	require.ErrorIs(t, rename(0, "/m/2", "/m/1/2", false), orca.CrossMount, "a directory that lives in a group of its own")
	require.ErrorIs(t, rename(0, "/m/1/f", "/other/f", false), orca.CrossMount)
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/1/f"), Dst: at("/m/2/f")})
	require.ErrorIs(t, err, orca.CrossMount)
	_, err = p.ns.Link(ctx, &metapb.LinkRequest{Src: at("/m/1/f"), Dst: at("/m/1/g")})
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/f", false), orca.CrossMount, "it has two names")
	require.NoError(t, p.remove("/m/1/g", false))
	// What its store has not is copied; what is being written is busy.
	w, err := p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/1/cached"), Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	_, err = p.ns.Complete(ctx, &metapb.CompleteRequest{Session: w.Session.Id, Fence: w.Session.Fence, Length: 1, Workers: []uint64{1}})
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/cached", "/m/2/f", false), orca.CrossMount)
	_, err = p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/1/f"), Mode: 0o644, Overwrite: true})
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/f", "/m/2/f", false), orca.Busy)
	p.put(store, "1/h", "h")
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m/2"), Bytes: 4, Inodes: -1})
	require.NoError(t, err)
	require.ErrorIs(t, rename(0, "/m/1/h", "/m/2/h", false), orca.OverQuota)
	require.NoError(t, rename(0, "/m/1/h", "/m/2/have", false), "there is room for what it replaces")
	// A link has no object; what it replaces had one.
	_, err = p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/1/l"), Complete: true, Symlink: "f"})
	require.NoError(t, err)
	require.NoError(t, rename(0, "/m/1/l", "/m/2/l", true))
	require.NoError(t, rename(0, "/m/2/l", "/m/1/l", true))
	require.NoError(t, rename(0, "/m/1/l", "/m/2/have", false))
	require.NoFileExists(t, filepath.Join(store, "2/have"))
	a, err := p.stat("/m/2/have")
	require.NoError(t, err)
	require.Equal(t, "f", a.Target)
	require.Equal(t, []string{"cached", "f"}, p.names("/m/1"))
	require.NoError(t, p.host.Group().Machine().Check())
	require.NoError(t, p.second.Machine().Check())
}

// While the group of the target is away its answer is waited for, and who asks for
// the name is told so; nothing else waits, and it ends when the group is back.
func TestAGroupIsAwayDuringATransfer(t *testing.T) {
	p := newPairWith(t, func(p *pair) { p.slow, p.busy = true, 100*time.Millisecond })
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	_, err := p.mkdirIn("/m/2", 2)
	require.NoError(t, err)
	_, err = p.ns.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/m/1"), Mode: 0o755})
	require.NoError(t, err)
	p.put(store, "1/f", "content")
	p.put(store, "1/beside", "beside")
	p.cut.Store("before receiving")
	require.Error(t, p.asOne(1, 1, "/m/1/f", "/m/2/f"))
	patient := p.ns
	p.ns = p.hasty // it stays away as long as it is asked here
	_, err = p.stat("/m/1/f")
	require.ErrorIs(t, err, orca.Busy)
	_, err = p.ns.List(t.Context(), &metapb.ListRequest{Target: at("/m/1")})
	require.ErrorIs(t, err, orca.Busy)
	require.ErrorIs(t, p.remove("/m/1/f", false), orca.Busy)
	_, err = p.stat("/m/1/beside")
	require.NoError(t, err)
	require.NoError(t, p.touch("/m/1/new"))
	p.ns = patient
	p.cut.Store("")
	p.dead[2].Store(false) // it is back
	require.Eventually(t, func() bool { return p.asOne(1, 1, "/m/1/f", "/m/2/f") == nil }, time.Minute, 10*time.Millisecond)
	require.Equal(t, []string{"beside", "new"}, p.names("/m/1"))
	require.Equal(t, []string{"f"}, p.names("/m/2"))
}
