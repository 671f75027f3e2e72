// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// imageOf is the state of a group as Restore wants it, and its applied index.
func imageOf(t testing.TB, g *Group, digest string) Image {
	t.Helper()
	c, err := g.Machine().Cursor()
	require.NoError(t, err)
	var recs [][2][]byte
	for {
		k, v, err := c.Next()
		require.NoError(t, err)
		if k == nil {
			break
		}
		if k[0] != inode.SpaceApplied {
			recs = append(recs, [2][]byte{append([]byte(nil), k...), append([]byte(nil), v...)})
		}
	}
	require.NoError(t, c.Close())
	return Image{Digest: digest, Groups: []GroupImage{{firstGroup, c.Applied}}, Next: func(uint16) ([]byte, []byte, error) {
		if len(recs) == 0 {
			return nil, nil, nil
		}
		r := recs[0]
		recs = recs[1:]
		return r[0], r[1], nil
	}}
}

// planted is a host that has a few directories and has ended.
func planted(t testing.TB) *Host {
	t.Helper()
	h := open(t, Config{Dir: t.TempDir()})
	for i := range 20 {
		propose(t, h.group, mkdir(fmt.Sprintf("/d%d", i)))
	}
	return h
}

// TestRestoredGoesOnFromItsIndex: no index that is in a record comes again, in
// this life or the next, however the life ends.
func TestRestoredGoesOnFromItsIndex(t *testing.T) {
	h := planted(t)
	old := h.Cluster()
	img := imageOf(t, h.group, "digest")
	require.Greater(t, img.Groups[0].Applied, uint64(20))
	applied := img.Groups[0].Applied
	require.NoError(t, h.Close())

	cfg := Config{Dir: filepath.Join(t.TempDir(), "meta")}
	cluster, err := Restore(cfg, img, quiet())
	require.NoError(t, err)
	require.NotEqual(t, old, cluster)
	require.True(t, Used(cfg.Dir))
	for life := range 3 {
		h = open(t, cfg)
		require.Equal(t, cluster, h.Cluster())
		require.GreaterOrEqual(t, h.group.Machine().Applied(), applied)
		require.NoError(t, h.group.ReadReady(t.Context()))
		for i := range 20 {
			require.True(t, exists(t, h.group, fmt.Sprintf("/d%d", i)))
		}
		for i := range life {
			require.True(t, exists(t, h.group, fmt.Sprintf("/life%d", i)))
		}
		propose(t, h.group, mkdir(fmt.Sprintf("/life%d", life)))
		w, err := h.group.Machine().Walk(orca.Caller{}, 0, fmt.Sprintf("/life%d", life))
		require.NoError(t, err)
		require.Greater(t, w.Change, applied)
		applied = w.Change
		require.NoError(t, h.group.Machine().Check())
		if life == 0 {
			require.NoError(t, h.crash())
		} else {
			require.NoError(t, h.Close())
		}
	}
	_, err = Restore(cfg, Image{Groups: []GroupImage{{firstGroup, 1}}, Next: func(uint16) ([]byte, []byte, error) { return nil, nil, nil }}, quiet())
	require.ErrorIs(t, err, orca.Exists)
}

// TestHalfARestoreIsNoHost: a restore that fails leaves what Open refuses.
func TestHalfARestoreIsNoHost(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	n := 0
	_, err := Restore(cfg, Image{Digest: "x", Groups: []GroupImage{{firstGroup, 5}}, Next: func(uint16) ([]byte, []byte, error) {
		if n++; n > 3 {
			return nil, nil, orca.PathE("test", "", orca.Corrupt, io.ErrUnexpectedEOF)
		}
		return fmt.Appendf(nil, "d%d", n), nil, nil
	}}, quiet())
	require.ErrorIs(t, err, orca.Corrupt)
	_, err = Open(cfg, quiet())
	require.ErrorIs(t, err, orca.Corrupt)
	require.ErrorContains(t, err, "no FORMAT file")
}

// TestThreeRestoredMembers: they find each other by members and backup; one that
// learns gets the base along, and one that begins with nothing is refused.
func TestThreeRestoredMembers(t *testing.T) {
	h := planted(t)
	members := map[uint64]string{}
	for i, a := range freeAddrs(t, 3) {
		members[uint64(i+1)] = a
	}
	c := &trio{t: t, cfgs: map[uint64]Config{}, hosts: map[uint64]*Host{}}
	t.Cleanup(func() {
		for id := range c.hosts {
			c.close(id)
		}
	})
	var applied uint64
	var cluster string
	for id, a := range members {
		c.cfgs[id] = Config{Dir: t.TempDir(), Address: a, Members: members, SnapshotEntries: 40}
		img := imageOf(t, h.group, "digest")
		applied = img.Groups[0].Applied
		var err error
		cluster, err = Restore(c.cfgs[id], img, quiet())
		require.NoError(t, err)
	}
	require.NoError(t, h.Close())
	empty := Config{Dir: t.TempDir(), Address: members[3], Members: members}
	c.open(1)
	c.open(2)
	_, err := Open(empty, quiet())
	require.ErrorIs(t, err, orca.Conflict, "a member without the state")
	require.Equal(t, cluster, c.hosts[1].Cluster())
	proposeUntil(t, c.leader().group, "/first")
	c.open(3)
	for _, x := range c.hosts {
		applied2(t, x, "/first", "/d7")
		require.Greater(t, x.group.Machine().Applied(), applied)
	}
	for i := range 100 { // more than the journal keeps
		proposeUntil(t, c.leader().group, fmt.Sprintf("/f%d", i))
	}
	addr := freeAddrs(t, 1)[0]
	require.NoError(t, c.leader().group.AddLearner(t.Context(), 4, addr))
	c.cfgs[4] = Config{Dir: t.TempDir(), Address: addr, Join: &Join{Cluster: cluster, Replica: 4}, SnapshotEntries: 40}
	fresh := c.open(4)
	applied2(t, fresh, "/first", "/d7", "/f99")
	require.Equal(t, c.leader().group.Machine().Base(), fresh.group.Machine().Base())
	require.NotZero(t, fresh.group.Machine().Base())
	c.close(4)
	applied2(t, c.open(4), "/f99")
}

func applied2(t testing.TB, h *Host, paths ...string) {
	t.Helper()
	for _, p := range paths {
		applied(t, h, p)
	}
}

// journal reads entries of a group, page by page.
func journal(t testing.TB, read func(from uint64, rep *metapb.UpkeepReply) error, from uint64) (out []*metapb.JournalEntry, first, last uint64) {
	t.Helper()
	for {
		rep := &metapb.UpkeepReply{}
		require.NoError(t, read(from, rep))
		if out == nil {
			first, last = rep.First, rep.Last
		}
		out = append(out, rep.Entries...)
		if rep.End {
			return out, first, last
		}
		from = out[len(out)-1].Index + 1
	}
}

// TestCheckpointsMeet: one that meets another, which began earlier, is of what was
// applied when it was asked for all the same.
func TestCheckpointsMeet(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir(), FlushEvery: time.Hour, SnapshotEntries: 4})
	for i := range 50 {
		propose(t, h.group, mkdir(fmt.Sprintf("/d%d", i)))
		since := h.group.Machine().Applied()
		index, err := h.group.Checkpoint(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, index, since)
	}
	require.NoError(t, h.Close())
}

// TestCheckpointCutsTheJournal, asked to and by itself, beside writes; what is
// cut is durable.
func TestCheckpointCutsTheJournal(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), JournalBytes: 64 << 10, FlushEvery: time.Hour, SnapshotEntries: 100}
	h := open(t, cfg)
	g := h.group
	for i := range 150 {
		propose(t, g, mkdir(fmt.Sprintf("/first%d", i)))
	}
	_, err := g.Checkpoint(t.Context())
	require.NoError(t, err)
	again, err := g.Checkpoint(t.Context())
	require.NoError(t, err, "nothing is new")
	require.GreaterOrEqual(t, again, uint64(150))
	es, first, last := journal(t, func(from uint64, rep *metapb.UpkeepReply) error { return g.Journal(t.Context(), from, 0, rep) }, 0)
	require.Equal(t, first, es[0].Index)
	require.Equal(t, last, es[len(es)-1].Index)
	for i, e := range es {
		require.Equal(t, first+uint64(i), e.Index)
	}
	require.ErrorIs(t, g.Journal(t.Context(), first-1, 0, &metapb.UpkeepReply{}), map[bool]error{true: orca.NotFound, false: nil}[first > 1])
	rep := &metapb.UpkeepReply{}
	require.NoError(t, g.Journal(t.Context(), last+10, 0, rep))
	require.True(t, rep.End)

	// By itself: every 64 KiB.
	before := first
	long := strings.Repeat("l", 240)
	for i := range 400 {
		propose(t, g, mkdir(fmt.Sprintf("/%s%d", long, i)))
	}
	require.Eventually(t, func() bool {
		rep := &metapb.UpkeepReply{}
		require.NoError(t, g.Journal(t.Context(), 0, 1, rep))
		return rep.First > before+100
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, h.crash())
	h = open(t, cfg)
	require.NoError(t, h.group.ReadReady(t.Context()))
	require.True(t, exists(t, h.group, "/first0"))
	require.True(t, exists(t, h.group, "/"+long+"399"))
	require.NoError(t, h.Close())

	x, err := Inspect(cfg.Dir, 0, quiet())
	require.NoError(t, err)
	stopped, _, _ := journal(t, func(from uint64, rep *metapb.UpkeepReply) error { return x.Journal(t.Context(), from, 0, rep) }, 0)
	require.GreaterOrEqual(t, stopped[len(stopped)-1].Index, x.Applied)
	_, err = Open(cfg, quiet())
	require.ErrorIs(t, err, orca.Busy, "it is being read")
	require.NoError(t, x.Close())
	left, err := filepath.Glob(filepath.Join(cfg.Dir, "inspect-*"))
	require.NoError(t, errors.Join(err, os.MkdirAll(filepath.Join(cfg.Dir, "inspect-of-one-that-was-killed", "tandb"), 0o700)))
	require.Empty(t, left)
	x, err = Inspect(cfg.Dir, 0, quiet())
	require.NoError(t, err)
	require.NoError(t, x.Close())
	left, err = filepath.Glob(filepath.Join(cfg.Dir, "inspect-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}
