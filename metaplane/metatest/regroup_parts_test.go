// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// A directory that lives in one group moves to another one, with all that is in it.
func TestAPartMovesToAGroup(t *testing.T) {
	p := newTriple(t)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	before, quotas := p.seen("/m/p"), p.quotas("/m/p/d/f01")
	first, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	p.move("/m/p")
	p.settled("/m/p")
	second, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	above, err := p.stat("/m")
	require.NoError(t, err)
	lists := p.one.Syncer.Stats.Lists.Load()

	p.moveTo("/m/p", 3)
	a, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	require.Equal(t, uint16(3), orca.Ino(a.Ino).Group())
	require.Equal(t, before, p.seen("/m/p"))
	require.Equal(t, quotas, p.quotas("/m/p/d/f01"))
	require.Equal(t, lists, p.one.Syncer.Stats.Lists.Load(), "nothing is listed again")
	require.Zero(t, p.two.Syncer.Stats.Lists.Load()+p.three.Syncer.Stats.Lists.Load())
	now, err := p.stat("/m")
	require.NoError(t, err)
	require.Equal(t, above, now, "what is above has not changed")
	p.moveTo("/m/p", 3) // nothing happens
	p.settled("/m/p")
	p.check()
	// Who has a file open by a number that it had goes on, whichever that was.
	for _, ino := range []uint64{first.Ino, second.Ino} {
		o, err := p.ns.Open(ctx, &metapb.OpenRequest{Target: &metapb.Target{Ino: ino}})
		require.NoError(t, err)
		require.Equal(t, a.Ino, o.Attr.Ino)
		require.Equal(t, first.Fingerprint, o.Attr.Fingerprint)
		_, err = p.ns.Stat(ctx, &metapb.StatRequest{Target: &metapb.Target{Ino: ino}})
		require.ErrorIs(t, err, orca.NotFound)
	}
	// It is a part like any other, and may come back.
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	require.NoError(t, p.touch("/m/p/d/new"))
	require.FileExists(t, filepath.Join(store, "p/d/new"))
	require.NoError(t, p.remove("/m/p/d/new", false))
	before = p.seen("/m/p")
	p.moveTo("/m/p", 2)
	p.settled("/m/p")
	require.Equal(t, before, p.seen("/m/p"))
	p.check()
	p.stop()
	p.start()
	require.Equal(t, before, p.seen("/m/p"))
	p.check()
	require.NoError(t, p.remove("/m/p", true))
	require.NoDirExists(t, filepath.Join(store, "p"))
	p.check()
}

// The leader of either group dies at every point of a move from one group to
// another: the next one ends it, and all is there as it was. Or it gives it up, and
// all is there as it was.
func TestMovesBetweenGroupsSurviveACrashAnywhere(t *testing.T) {
	p := newTriple(t)
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	again := func() {
		p.cut.Store("")
		p.leave()
		p.serve()
	}
	dies := func(point string, group int) {
		t.Helper()
		require.Eventually(t, func() bool { return p.dead[group].Load() }, time.Minute, time.Millisecond, point)
	}
	part := func(path string) map[string]string {
		t.Helper()
		p.furnish(store, path)
		p.move(path)
		p.settled(path)
		return p.seen(path)
	}
	points := []struct {
		name   string
		group  int  // that dies
		unread bool // meanwhile
	}{
		{"begin", 1, false}, {"hold", 1, false}, {"departing hold", 2, false}, {"mount", 1, false}, {"self", 1, false}, {"look", 1, false},
		{"pages", 1, false}, {"seal", 1, false}, {"close", 1, false}, {"departing close", 2, false}, {"switch", 1, true}, {"active", 1, true},
		{"leave", 1, true}, {"departing leave", 2, true}, {"settled", 1, false},
	}
	for i := range 2 * len(points) {
		x := points[i/2]
		point := []string{"before ", "after "}[i%2] + x.name
		path := "/m/moves " + point
		before := part(path)
		if x.name != "look" {
			p.cut.Store(point)
		}
		p.then.Store(func(at string) {
			if x.name == "look" && at == "after self" { // not when it was looked at before it was to move
				p.cut.Store(point)
			}
		})
		_, err := p.regroup(path, 3, metapb.RegroupAsk_REGROUP_BEGIN)
		if x.name == "begin" {
			require.Error(t, err, point)
		}
		dies(point, x.group)
		p.then.Store(func(string) {})
		if !x.unread && (i%2 == 0 || !strings.HasSuffix(x.name, "close")) {
			require.Equal(t, before, p.seen(path), point)
		}
		again()
		if point == "before begin" {
			p.moveTo(path, 3)
		}
		p.movedTo(path, 3)
		p.settled(path)
		require.Equal(t, before, p.seen(path), point)
		require.NoError(t, p.touch(path+"/late"), point)
		p.check()
	}
	stays := []struct {
		name  string
		group int
	}{{"give up", 1}, {"lift", 1}, {"departing lift", 2}, {"settled", 1}, {"unmount", 1}, {"cleared", 1}}
	for i := range 2 * len(stays) {
		x := stays[i/2]
		point := []string{"before ", "after "}[i%2] + x.name
		path := "/m/stays " + point
		before := part(path)
		p.cut.Store("after close") // all of it is there, and nobody reads it
		_, err := p.regroup(path, 3, metapb.RegroupAsk_REGROUP_BEGIN)
		require.NoError(t, err)
		dies(point, 1)
		p.cut.Store("before switch")
		p.dead[1].Store(false)
		dies(point, 1)
		p.cut.Store(point)
		p.dead[1].Store(false)
		_, err = p.regroup(path, 0, metapb.RegroupAsk_REGROUP_ABORT)
		if x.name == "give up" {
			require.Error(t, err, point)
		}
		dies(point, x.group)
		again()
		if point == "before give up" { // nobody knows that it was to be
			p.movedTo(path, 3)
			p.settled(path)
			require.Equal(t, before, p.seen(path), point)
			continue
		}
		p.told()
		p.movedTo(path, 2) // it is where it was
		require.Equal(t, before, p.seen(path), point)
		require.NoError(t, p.touch(path+"/late"), point)
		require.NoError(t, p.remove(path+"/late", false), point)
		p.check()
		p.moveTo(path, 3)
		p.settled(path)
		require.Equal(t, len(before), len(p.seen(path)), point)
		p.check()
	}
}
