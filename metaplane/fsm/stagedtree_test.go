// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// brought is a tree of one machine on its way to another.
type brought struct {
	from, to *world
	tx       uint64
	dir      orca.Ino
	again    bool // it is there already
}

// caps mounts a store that does all in one call.
func caps(o *metapb.MountOp) *command.Command {
	o.AtomicRename, o.Directories, o.Parents = true, true, true
	o.Mount.SyncIntervalMs = -1
	return &command.Command{Mount: o}
}

// newBrought has a directory with one of each in the first group, and a mount in
// the second.
func newBrought(t *testing.T) *brought {
	b := &brought{from: newWorld(t, Config{Group: 1}, nil), to: newWorld(t, Config{Group: 2, CacheEntries: 1}, nil), tx: 7}
	ok := func(w *world, c *command.Command) *command.Result {
		t.Helper()
		r := w.do(c)
		require.Zero(t, r.Kind, r.Msg)
		return r
	}
	ok(b.from, caps(&metapb.MountOp{Mount: &metapb.Mount{Path: "/m", Uri: "file:///r"}}))
	ok(b.to, caps(&metapb.MountOp{Mount: &metapb.Mount{Path: "/m/p", Uri: "file:///r/p", Group: 2, Id: 3, Serial: 1, Part: &metapb.Part{Mount: 1, Mode: 0o755}}}))
	sync := func(path string, names ...*metapb.SyncEntry) {
		t.Helper()
		w, err := b.from.m.Walk(orca.Caller{}, 0, path)
		require.NoError(t, err)
		ok(b.from, &command.Command{SyncApply: &metapb.SyncApplyOp{Dir: w.Attr.Ino, Change: b.from.index, Range: true, Loaded: true, Entries: names}})
	}
	file := func(name string, n int64) *metapb.SyncEntry {
		return &metapb.SyncEntry{Name: name, Length: n, Fingerprint: "fp " + name}
	}
	sync("/m", &metapb.SyncEntry{Name: "d", Dir: true})
	sync("/m/d", file("a", 1), file("b", 2), &metapb.SyncEntry{Name: "e", Dir: true}, file("z", 3))
	sync("/m/d/e", file("f", 4), &metapb.SyncEntry{Name: "never", Dir: true})
	ok(b.from, &command.Command{Link: &metapb.LinkOp{Src: at("/m/d/z"), Dst: at("/m/d/e/also")}})
	ok(b.from, &command.Command{Xattr: &metapb.XattrOp{Target: at("/m/d"), Name: "user.x", Value: []byte("y")}})
	ok(b.from, &command.Command{Xattr: &metapb.XattrOp{Target: at("/m/d/e/f"), Name: "user.x", Value: []byte("z")}})
	ok(b.from, &command.Command{SetQuota: &metapb.SetQuotaOp{Target: at("/m/d"), Bytes: -1, Inodes: 20}})
	ok(b.from, &command.Command{SetAttr: &metapb.SetAttrOp{Target: at("/m/d/b"), Mask: setPinned | setMode | setCopies, Pinned: true, Mode: 0o600, ReplicaMin: 2, ReplicaLimit: 4}})
	w, err := b.from.m.Walk(orca.Caller{}, 0, "/m/d")
	require.NoError(t, err)
	b.dir = orca.Ino(w.Attr.Ino)
	return b
}

// self, page and seal are what is sent.
func (b *brought) self() *metapb.StageOp {
	l, err := b.from.m.LeavingDir(b.dir)
	require.NoError(b.to.t, err)
	return &metapb.StageOp{Tx: b.tx, Self: l.StagedEntry}
}

func (b *brought) seal() *metapb.StageOp {
	u, err := b.from.m.Usage(b.dir)
	require.NoError(b.to.t, err)
	return &metapb.StageOp{Tx: b.tx, Seal: &metapb.StagedSums{Bytes: u.Bytes, Files: u.Files, Dirs: u.Dirs}}
}

// stage applies what was sent.
func (b *brought) stage(o *metapb.StageOp) *command.Result {
	r := b.to.do(&command.Command{Stage: proto.Clone(o).(*metapb.StageOp)})
	require.NoError(b.to.t, b.to.m.Check())
	return r
}

// pages sends all that is below the directory, one name at a time, and returns
// what was sent.
func (b *brought) pages() (sent []*metapb.StageOp) {
	t := b.to.t
	links := map[orca.Ino]uint64{}
	var walk func(dir orca.Ino, to uint64)
	walk = func(dir orca.Ino, to uint64) {
		for after, more := "", true; more; {
			var l []Leaving
			var err error
			l, more, err = b.from.m.LeavingPage(0, dir, after, 1, 1<<20)
			require.NoError(t, err)
			if len(l) == 0 {
				return
			}
			e := l[0].StagedEntry
			after = e.Name
			if l[0].Links > 0 && links[l[0].Ino] != 0 {
				e = &metapb.StagedEntry{Name: e.Name, Link: links[l[0].Ino], Home: l[0].Home}
			}
			o := &metapb.StageOp{Tx: b.tx, Pages: []*metapb.StagedPage{{Dir: to, Entries: []*metapb.StagedEntry{e}}}}
			sent = append(sent, o)
			r := b.stage(o)
			require.Zero(t, r.Kind, r.Msg)
			require.Len(t, r.Ids, 1)
			pins := slices.ContainsFunc(b.to.out.Effects, func(e Effect) bool { return e.Kind == EffectPin && e.File == orca.Ino(r.Ids[0]) })
			require.Equal(t, e.Name == "b" && !b.again, pins, "workers keep what is pinned")
			require.Equal(t, r.Ids, b.stage(o).Ids, "again, it is there already")
			if l[0].Links > 0 {
				links[l[0].Ino] = r.Ids[0]
			}
			if l[0].Dir {
				walk(l[0].Ino, r.Ids[0])
			}
		}
	}
	walk(b.dir, 0)
	return sent
}

// inApply runs what is part of the effect of some command.
func (w *world) inApply(f func(m *Machine)) {
	m := w.m
	m.mu.Lock()
	defer m.mu.Unlock()
	w.index++
	m.applying = true
	defer func() { m.applying = false }()
	m.batch.recycle()
	m.batch.index, m.batch.now, m.batch.marks = w.index, w.now, m.count
	f(m)
	m.applied.Store(w.index)
	m.finishBatch()
	require.NoError(w.t, m.tx.Commit(w.index, 1))
}

// A tree that has come is nowhere until it is placed, and then it is all there.
func TestATreeIsStaged(t *testing.T) {
	b := newBrought(t)
	nowhere := func() {
		t.Helper()
		for _, d := range b.to.m.staging {
			_, err := b.to.m.Lookup(d.node.rec.Ino)
			require.ErrorIs(t, err, orca.NotFound)
		}
		u, err := b.to.m.Usage(orca.RootIno)
		require.NoError(t, err)
		require.EqualValues(t, 2, u.Inodes(), "what leads to the mount")
		require.NoError(t, b.to.m.Check())
		b.to.reopen()
		require.NoError(t, b.to.m.Check())
	}
	require.EqualValues(t, orca.Stale, b.stage(b.seal()).Kind, "it has not begun")
	require.Zero(t, b.stage(b.self()).Kind)
	nowhere()
	require.EqualValues(t, orca.Internal, b.stage(b.seal()).Kind, "nothing has come")
	sent := b.pages()
	nowhere()
	require.Zero(t, b.stage(b.self()).Kind, "who leads now begins again")
	b.again = true
	require.Len(t, b.pages(), len(sent))
	require.False(t, b.to.m.Sweepable(1<<62))
	require.Zero(t, b.to.do(&command.Command{SweepTrash: &metapb.SweepTrashOp{}}).Kind)
	b.to.inApply(func(m *Machine) { require.Nil(t, m.stagedTree(b.tx), "it is not all there") })
	require.Zero(t, b.stage(b.seal()).Kind)
	nowhere()
	require.Equal(t, []uint64{b.tx}, b.to.m.Staged())
	for _, o := range []*metapb.StageOp{b.seal(), b.self()} { // who begins again is told
		r := b.stage(o)
		require.Zero(t, r.Kind)
		require.True(t, r.Existed)
		require.EqualValues(t, b.to.m.staging[b.tx].node.rec.Ino, r.Id)
	}
	for _, late := range sent {
		require.EqualValues(t, orca.Stale, b.stage(late).Kind)
	}

	want := b.from.listing("/m/d")
	b.to.inApply(func(m *Machine) {
		require.NotNil(t, m.stagedTree(b.tx))
		root := m.dirs[orca.Ino(m.mounts[3].Root)]
		n := m.placeTree(b.tx, root, "there")
		require.Equal(t, "/m/p/there", n.path())
		m.outcomes.decided[b.tx] = &metapb.TransferRecord{Tx: b.tx}
		m.putDecided(&call{res: &command.Result{}}, m.outcomes.decided[b.tx])
	})
	for range 2 {
		require.NoError(t, b.to.m.Check())
		require.Equal(t, want, b.to.listing("/m/p/there"))
		require.Empty(t, b.to.m.Staged())
		for _, late := range append(sent, b.self()) {
			require.EqualValues(t, orca.Stale, b.stage(late).Kind)
		}
		b.to.reopen()
	}
	u, err := b.to.m.Usage(orca.RootIno)
	require.NoError(t, err)
	require.EqualValues(t, 2+1+6, u.Inodes())
	require.EqualValues(t, 1, b.to.m.Counts().Quotas)
}

// listing is what is at and below a directory, but for the numbers.
func (w *world) listing(path string) (out []string) {
	a, err := w.m.Walk(orca.Caller{}, 0, path)
	require.NoError(w.t, err)
	var walk func(rel string, v *View)
	walk = func(rel string, v *View) {
		attr := proto.Clone(v.Attr).(*metapb.Attr)
		names, err := w.m.Xattrs(orca.Caller{}, orca.Ino(attr.Ino))
		require.NoError(w.t, err)
		ino := orca.Ino(attr.Ino)
		attr.Ino, attr.MountId, attr.UfsPath, attr.Ctime = 0, 0, "", 0
		attr.UfsPending = false
		out = append(out, rel+" "+attr.String())
		for _, n := range names {
			x, err := w.m.Xattr(orca.Caller{}, ino, n)
			require.NoError(w.t, err)
			out = append(out, rel+" "+n+"="+string(x))
		}
		if attr.Type != uint32(orca.TypeDir) {
			return
		}
		kids, _, err := w.m.Children(orca.Caller{}, ino, "", 1000)
		require.NoError(w.t, err)
		for _, k := range kids {
			walk(rel+"/"+k.Name, &k.View)
		}
	}
	walk("", &a.View)
	return out
}

// Given up it is swept, whoever gives it up, and nothing of it comes any more once
// the transaction is over.
func TestAStagedTreeIsGivenUp(t *testing.T) {
	for what, c := range map[string]*command.Command{
		"on request":           {Stage: &metapb.StageOp{Tx: 7, Forget: true}},
		"as refused":           {Transfer: &metapb.TransferOp{Tx: 7, Dst: at("/m/p/x"), Abort: uint32(orca.Busy)}},
		"as all before it are": {Transfer: &metapb.TransferOp{DoneBelow: 8}},
	} {
		b := newBrought(t)
		before := b.to.m.Counts()
		require.Zero(t, b.stage(b.self()).Kind, what)
		sent := b.pages()
		b.to.do(proto.Clone(c).(*command.Command))
		for range 2 {
			require.Empty(t, b.to.m.Staged(), what)
			require.NoError(t, b.to.m.Check(), what)
			for _, late := range sent {
				require.EqualValues(t, orca.Stale, b.stage(late).Kind, what)
			}
			b.to.reopen()
		}
		if c.Stage == nil {
			require.EqualValues(t, orca.Stale, b.stage(b.self()).Kind, what)
		}
		require.True(t, b.to.m.Sweepable(0), what)
		for b.to.do(&command.Command{SweepTrash: &metapb.SweepTrashOp{Limit: 2}}).More {
			require.NoError(t, b.to.m.Check(), what)
		}
		after := b.to.m.Counts()
		require.Equal(t, [3]int64{before.Files, before.Dirs, before.Trash}, [3]int64{after.Files, after.Dirs, after.Trash}, what)
		require.NoError(t, b.to.m.Check(), what)
	}
}

// What no group may send, or for what is not there, changes nothing.
func TestWhatIsNotStaged(t *testing.T) {
	b := newBrought(t)
	require.Zero(t, b.stage(b.self()).Kind)
	before := b.to.m.Counts()
	self := b.self()
	b.to.caller = &metapb.Caller{Uid: 5}
	require.EqualValues(t, orca.Permission, b.stage(self).Kind)
	b.to.caller = nil
	self.Mount = 3
	require.EqualValues(t, orca.Invalid, b.stage(self).Kind)
	w, err := b.to.m.Walk(orca.Caller{}, 0, "/m/p")
	require.NoError(t, err)
	for _, o := range []*metapb.StageOp{
		{Pages: []*metapb.StagedPage{{Dir: w.Attr.Ino, Entries: []*metapb.StagedEntry{self.Self}}}}, // a visible directory
		{Pages: []*metapb.StagedPage{{Entries: []*metapb.StagedEntry{{Name: "x", Link: 1}}}}},
		{Pages: []*metapb.StagedPage{{Entries: []*metapb.StagedEntry{{Name: "a/b", Dir: self.Self.Dir}}}}},
		{Self: &metapb.StagedEntry{Name: "x", Dir: []byte("?")}},
	} {
		o.Tx = b.tx
		require.EqualValues(t, orca.Invalid, b.stage(o).Kind)
	}
	// A number of this group is one of its intents, or over.
	o := b.self()
	o.Tx = 2<<48 + 1
	require.EqualValues(t, orca.Stale, b.stage(o).Kind)
	require.Equal(t, before.Dirs, b.to.m.Counts().Dirs)
	require.NoError(t, b.to.m.Check())
}
