// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// twoGroups are two machines that hand files to each other, the store below them,
// and what is on its way between them. Files are told apart by their fingerprint.
type twoGroups struct {
	t     *rapid.T
	w     [2]*world
	dir   [2]orca.Ino
	store map[string]string // fingerprint, by key below the mount
	mode  map[string]uint32 // by what a file is known by, as acknowledged
	// objects: the store cannot rename.
	objects bool
	foreign map[string]bool // objects that somebody else has put into the store
	sent    []sent          // requests, to arrive late and again
	said    []said          // answers, likewise
	calls   []asked
	files   int
	bug     string // of who leads a group; "": none
}

type sent struct {
	to int
	op *metapb.TransferOp
}

type said struct {
	to  int
	rec *metapb.TransferRecord
}

// asked is a client's rename, to be repeated, and what it came to once it had.
type asked struct {
	from int
	seq  uint64
	op   *metapb.RenameOp
	kind orca.Kind
	over bool
}

const (
	quotaOfSecond = 2 // files and links
	quotaOfBytes  = 7 // of either
)

func newTwoGroups(t *testing.T, rt *rapid.T, objects bool) *twoGroups {
	g := &twoGroups{t: rt, store: map[string]string{}, mode: map[string]uint32{}, objects: objects, foreign: map[string]bool{}}
	caps := func(o *metapb.MountOp) *metapb.MountOp {
		o.AtomicRename, o.Exchange, o.Directories, o.Mount.SyncIntervalMs = !objects, !objects, !objects, -1
		return o
	}
	mounts := []*metapb.MountOp{
		caps(&metapb.MountOp{Mount: &metapb.Mount{Path: "/d", Uri: "file:///r/0"}, Parents: true}),
		caps(&metapb.MountOp{Mount: &metapb.Mount{Path: "/d", Uri: "file:///r/1", Group: 2, Id: 7, Serial: 1, Part: &metapb.Part{Mount: 1, Mode: 0o755}}, Parents: true}),
	}
	for i := range g.w {
		g.w[i] = newWorld(t, Config{Group: uint16(i + 1), CacheEntries: 1}, nil)
		require.Zero(rt, g.w[i].do(&command.Command{Mount: mounts[i]}).Kind)
		w, err := g.w[i].m.Walk(orca.Caller{}, 0, "/d")
		require.NoError(rt, err)
		g.dir[i] = orca.Ino(w.Attr.Ino)
	}
	for i, inodes := range []int64{-1, quotaOfSecond} {
		r := g.w[i].do(&command.Command{SetQuota: &metapb.SetQuotaOp{Target: at("/d"), Bytes: quotaOfBytes, Inodes: inodes}})
		require.Zero(rt, r.Kind)
	}
	return g
}

func keyOf(group int, name string) string { return fmt.Sprintf("%d/%s", group, name) }

// put has a store get a new file, which the namespace sees.
func (g *twoGroups) put(group int, name string) {
	key := keyOf(group, name)
	g.files++
	length := int64(1 + g.files%3)
	used := g.used(group)
	if g.store[key] != "" || g.taken(key) || group == 1 && used.inodes == quotaOfSecond || used.bytes+length > quotaOfBytes { // no sync asks
		return
	}
	fp := fmt.Sprintf("fp%d", g.files)
	r := g.w[group].do(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: uint64(g.dir[group]), Change: g.w[group].index,
		Entries: []*metapb.SyncEntry{{Name: name, Length: length, Fingerprint: fp}}}})
	if r.Sync.GetCreated() == 1 {
		g.store[key], g.mode[fp] = fp, g.attr(group, name).Mode
	}
}

// taken reports whether something under way is about a key.
func (g *twoGroups) taken(key string) bool {
	for i, w := range g.w {
		for _, it := range w.m.Intents() {
			if keyOf(i, it.Source) == key || keyOf(i, it.Target) == key {
				return true
			}
		}
	}
	return false
}

func (g *twoGroups) attr(group int, name string) *metapb.Attr {
	w, err := g.w[group].m.Walk(orca.Caller{}, g.dir[group], name)
	if err != nil || !w.Found {
		return nil
	}
	return w.Attr
}

// rename begins a client's rename, or repeats one.
func (g *twoGroups) rename(i int) {
	a := &g.calls[i]
	r := g.w[a.from].do(&command.Command{Client: 1, Seq: a.seq, Rename: proto.Clone(a.op).(*metapb.RenameOp)})
	k := orca.Kind(r.Kind)
	switch {
	case r.Intent != nil:
		require.False(g.t, a.over, "a rename that had an answer is under way")
	case a.over:
		require.Equal(g.t, a.kind, k, "another answer than before")
	case !k.Retryable():
		a.kind, a.over = k, true
	}
}

// send asks the group of the target for a decision.
func (g *twoGroups) send(from int, id uint64) {
	op, err := g.w[from].m.Transfer(id)
	require.NoError(g.t, err)
	switch g.bug {
	case "numbers each question anew":
		op.Tx += uint64(len(g.sent)+1) << 20
	case "takes note too early":
		op.DoneBelow = id + 1
	case "asks for no room":
		op.Room = 1 << 40
	}
	g.sent = append(g.sent, sent{1 - from, op})
}

// arrive applies a request, which may have arrived before.
func (g *twoGroups) arrive(s sent, abort bool) {
	op := proto.Clone(s.op).(*metapb.TransferOp)
	if abort {
		op.Abort = uint32(orca.Busy)
	}
	r := g.w[s.to].do(&command.Command{Transfer: op})
	if g.bug == "takes silence for no" && r.Transfer == nil {
		g.said = append(g.said, said{1 - s.to, &metapb.TransferRecord{Tx: op.Tx, Kind: uint32(orca.Unavailable)}})
	}
	if r.Transfer != nil {
		require.Equal(g.t, op.Tx, r.Transfer.Tx)
		g.said = append(g.said, said{1 - s.to, r.Transfer})
	}
}

// heed applies an answer.
func (g *twoGroups) heed(s said) {
	it, err := g.w[s.to].m.Intent(s.rec.Tx)
	if err != nil {
		return
	}
	kind, back := s.rec.Kind, s.rec.Back
	switch {
	case kind == uint32(orca.Stale):
		kind = uint32(orca.Busy) // as metaserver has it
	case g.bug == "keeps what comes back":
		back = nil
	}
	r := g.w[s.to].do(&command.Command{Decide: &metapb.DecideOp{Intent: it.Id, Kind: kind, Msg: s.rec.Msg, Back: back}})
	require.Equal(g.t, kind, r.Kind, r.Msg)
	if s.rec.Kind == uint32(orca.Stale) {
		g.learn(s.to, it)
	}
	for i := range g.calls {
		if a := &g.calls[i]; a.from == s.to && a.seq == it.Seq && !orca.Kind(kind).Retryable() {
			require.False(g.t, a.over)
			a.kind, a.over = orca.Kind(kind), true
		}
	}
}

func (g *twoGroups) acknowledge(from int) {
	r := g.w[1-from].do(&command.Command{Transfer: &metapb.TransferOp{DoneBelow: g.w[from].m.TransfersDone()}})
	require.Zero(g.t, r.Kind, r.Msg)
}

// check compares what can be read with what there must be at any moment.
func (g *twoGroups) check() {
	readable := map[string]string{}
	for i, w := range g.w {
		require.NoError(g.t, w.m.Check())
		kids, _, err := w.m.Children(orca.Caller{}, g.dir[i], "", 1000)
		require.NoError(g.t, err)
		for _, k := range kids {
			a := g.attr(i, k.Name)
			if a == nil {
				continue // it is on its way
			}
			is := known(a)
			require.Empty(g.t, readable[is], "%s is at two names, the other %s", is, keyOf(i, k.Name))
			readable[is] = keyOf(i, k.Name)
			require.Equal(g.t, g.mode[is], a.Mode, "the mode of %s", is)
		}
		require.LessOrEqual(g.t, g.used(i).bytes, int64(quotaOfBytes), "of group %d", i+1)
	}
	require.LessOrEqual(g.t, g.used(1).inodes, int64(quotaOfSecond))
}

// used is what is in a directory, or on its way there.
func (g *twoGroups) used(group int) room {
	u, err := g.w[group].m.Usage(g.dir[group])
	require.NoError(g.t, err)
	return room{u.Bytes + u.Quotas[0].HeldBytes, u.Inodes() + u.Quotas[0].HeldInodes}
}

// intents returns those of one kind, by group.
func (g *twoGroups) intents(op metapb.IntentOp) (out []struct {
	group int
	it    *command.Intent
}) {
	for i, w := range g.w {
		for _, it := range w.m.Intents() {
			if it.Op == op {
				out = append(out, struct {
					group int
					it    *command.Intent
				}{i, it})
			}
		}
	}
	return out
}

// drain has everything come to its end.
func (g *twoGroups) drain() {
	for _, abort := range []bool{false, true} { // what is in the way may not have passed at first
		for _, x := range g.intents(metapb.IntentOp_INTENT_TRANSFER) {
			g.send(x.group, x.it.Id)
		}
		late := g.sent
		for range 2 {
			for _, s := range late {
				g.arrive(s, abort)
			}
			for _, y := range g.intents(metapb.IntentOp_INTENT_RECEIVE) {
				g.work(y.group, y.it, false, false)
			}
		}
		for _, s := range g.said {
			g.heed(s)
		}
	}
	require.Empty(g.t, g.intents(metapb.IntentOp_INTENT_TRANSFER), "an intent is left for ever")
	require.Empty(g.t, g.intents(metapb.IntentOp_INTENT_RECEIVE), "an intent is left for ever")
	for _, x := range g.intents(metapb.IntentOp_INTENT_LEFT) {
		g.clear(x.group, x.it, false)
	}
	for i := range g.w {
		g.acknowledge(i)
	}
	for _, w := range g.w {
		require.Zero(g.t, w.m.Counts().Transfers, "a decision is kept that nobody asks for")
	}
	for _, s := range g.sent { // what is late changes nothing
		r := g.w[s.to].do(&command.Command{Transfer: proto.Clone(s.op).(*metapb.TransferOp)})
		require.EqualValues(g.t, orca.Stale, r.Kind)
	}
	for fp := range g.foreign {
		require.Contains(g.t, slices.Collect(maps.Values(g.store)), fp, "what somebody else has put is lost")
	}
	g.check()
	g.list()
	names := map[string]string{}
	for i, w := range g.w {
		kids, _, err := w.m.Children(orca.Caller{}, g.dir[i], "", 1000)
		require.NoError(g.t, err)
		for _, k := range kids {
			key := keyOf(i, k.Name)
			switch {
			case k.Attr.Fingerprint != "":
				names[key] = k.Attr.Fingerprint
			case g.foreign[g.store[key]]: // put where a link is now, which hides it
				names[key] = g.store[key]
			}
		}
	}
	require.Equal(g.t, g.store, names, "the namespace is what the store has")
}

func one[T any](t *rapid.T, of []T, what string) (T, bool) {
	var zero T
	if len(of) == 0 {
		return zero, false
	}
	return of[rapid.IntRange(0, len(of)-1).Draw(t, what)], true
}

// TestTransfersOfTwoGroups: whatever is late, lost, repeated or interrupted, a file
// is at one name, with what was acknowledged about it, a request has one answer,
// and in the end nothing is left of it but that.
func TestTransfersOfTwoGroups(t *testing.T) {
	for _, objects := range []bool{false, true} {
		t.Run(fmt.Sprintf("objects=%v", objects), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) { newTwoGroups(t, rt, objects).play(rt) })
		})
	}
}

// A fault of who leads one of the groups is noticed.
func TestPlantedFaultsOfTransfersAreCaught(t *testing.T) {
	for name, value := range map[string]string{"rapid.shrinktime": "0s", "rapid.nofailfile": "true", "rapid.checks": "20000"} {
		was := flag.Lookup(name).Value.String()
		require.NoError(t, flag.Set(name, value))
		t.Cleanup(func() { require.NoError(t, flag.Set(name, was)) })
	}
	for _, bug := range []string{
		"numbers each question anew", "takes note too early", "takes silence for no", "decides before the store has", "refuses what the store has done",
		"keeps what comes back", "exchanges again", "asks for no room", "keeps the old fingerprint", "removes it too early", "removes whatever is there",
	} {
		t.Run(bug, func(t *testing.T) {
			q := &quiet{name: t.Name()}
			done := make(chan struct{})
			go func() {
				defer close(done) // also when it fails
				rapid.Check(q, func(rt *rapid.T) {
					g := newTwoGroups(t, rt, slices.Contains(bugsOfObjects, bug))
					g.bug = bug
					g.play(rt)
				})
			}()
			<-done
			require.True(t, q.failed.Load(), "nobody has noticed")
		})
	}
}

// quiet is a test that may fail.
type quiet struct {
	name   string
	failed atomic.Bool
}

func (q *quiet) Helper()               {}
func (q *quiet) Name() string          { return q.name }
func (q *quiet) Logf(string, ...any)   {}
func (q *quiet) Log(...any)            {}
func (q *quiet) Skipf(string, ...any)  { runtime.Goexit() }
func (q *quiet) Skip(...any)           { runtime.Goexit() }
func (q *quiet) SkipNow()              { runtime.Goexit() }
func (q *quiet) Errorf(string, ...any) { q.Fail() }
func (q *quiet) Error(...any)          { q.Fail() }
func (q *quiet) Fatalf(string, ...any) { q.FailNow() }
func (q *quiet) Fatal(...any)          { q.FailNow() }
func (q *quiet) FailNow()              { q.Fail(); runtime.Goexit() }
func (q *quiet) Fail()                 { q.failed.Store(true) }
func (q *quiet) Failed() bool          { return q.failed.Load() }

// play takes random steps, and drains what they have left.
func (g *twoGroups) play(rt *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	side := rapid.IntRange(0, 1)
	for range rapid.IntRange(1, 60).Draw(rt, "steps") {
		i := side.Draw(rt, "group")
		switch rapid.SampledFrom([]string{"put", "put", "ln", "mv", "mv", "again", "send", "send", "arrive", "arrive", "abort", "work", "work", "heed", "heed", "tell", "chmod", "rm", "reopen", "clear", "foreign"}).Draw(rt, "step") {
		case "put":
			g.put(i, name.Draw(rt, "name"))
		case "mv":
			op := &metapb.RenameOp{
				Src:  &metapb.Target{Ino: uint64(g.dir[i]), Path: name.Draw(rt, "from")},
				Away: &metapb.Target{Ino: uint64(g.dir[1-i]), Path: name.Draw(rt, "to")},
			}
			if op.Exchange = rapid.Bool().Draw(rt, "exchange"); op.Exchange {
				if rapid.IntRange(0, 3).Draw(rt, "grows") > 0 {
					op.AwayBytes = g.attr(1-i, op.Away.Path).GetLength()
				}
			} else {
				op.NoReplace = rapid.Bool().Draw(rt, "no replace")
			}
			g.calls = append(g.calls, asked{from: i, seq: uint64(len(g.calls) + 1), op: op})
			g.rename(len(g.calls) - 1)
		case "again":
			if len(g.calls) > 0 {
				g.rename(rapid.IntRange(0, len(g.calls)-1).Draw(rt, "call"))
			}
		case "send":
			if x, ok := one(rt, g.intents(metapb.IntentOp_INTENT_TRANSFER), "intent"); ok {
				g.send(x.group, x.it.Id)
			}
		case "arrive", "abort":
			if s, ok := one(rt, g.sent, "request"); ok {
				g.arrive(s, rapid.IntRange(0, 3).Draw(rt, "abort") == 0)
			}
		case "work":
			if x, ok := one(rt, g.intents(metapb.IntentOp_INTENT_RECEIVE), "intent"); ok {
				g.work(x.group, x.it, rapid.Bool().Draw(rt, "dies"), rapid.Bool().Draw(rt, "fails"))
			}
		case "heed":
			if s, ok := one(rt, g.said, "answer"); ok {
				g.heed(s)
			}
		case "tell":
			g.acknowledge(i)
		case "chmod":
			g.chmod(i, name.Draw(rt, "name"), uint32(rapid.IntRange(0, 0o777).Draw(rt, "mode")))
		case "rm":
			g.remove(i, name.Draw(rt, "name"))
		case "reopen":
			g.w[i].reopen()
		case "ln":
			g.link(i, name.Draw(rt, "name"))
		case "clear":
			if x, ok := one(rt, g.intents(metapb.IntentOp_INTENT_LEFT), "intent"); ok {
				g.clear(x.group, x.it, rapid.Bool().Draw(rt, "dies"))
			}
		case "foreign":
			g.overwrite(rt)
		}
		g.check()
	}
	g.drain()
}

func (g *twoGroups) chmod(group int, name string, mode uint32) {
	a := g.attr(group, name)
	r := g.w[group].do(&command.Command{SetAttr: &metapb.SetAttrOp{Target: &metapb.Target{Ino: uint64(g.dir[group]), Path: name}, Mask: setMode, Mode: mode}})
	if r.Kind == 0 {
		require.NotNil(g.t, a)
		g.mode[known(a)] = mode
	}
}

// remove deletes a file, and its object.
func (g *twoGroups) remove(group int, name string) {
	r := g.w[group].do(&command.Command{Delete: &metapb.DeleteOp{Target: &metapb.Target{Ino: uint64(g.dir[group]), Path: name}}})
	if r.Kind == 0 && r.Intent != nil {
		require.Zero(g.t, g.w[group].do(&command.Command{Decide: &metapb.DecideOp{Intent: r.Intent.Id}}).Kind)
		g.drop(keyOf(group, name))
	}
}

// What goes with a file, and what does not go at all.
func TestWhatATransferTakes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newTwoGroups(t, rt, false)
		g.put(0, "a")
		at := &metapb.Target{Ino: uint64(g.dir[0]), Path: "a"}
		for _, c := range []*command.Command{
			{Xattr: &metapb.XattrOp{Target: at, Name: "user.x", Value: []byte("y")}},
			{SetAttr: &metapb.SetAttrOp{Target: at, Mask: setPinned | setMode | setUID | setGID | setMtime | setCopies, Pinned: true, Mode: 0o640, Uid: 7, Gid: 8, Mtime: 9, ReplicaMin: 2, ReplicaLimit: 4}},
		} {
			require.Zero(rt, g.w[0].do(c).Kind)
		}
		g.mode["fp1"] = 0o640
		was := g.attr(0, "a")
		g.calls = []asked{{seq: 1, op: &metapb.RenameOp{Src: at, Away: &metapb.Target{Ino: uint64(g.dir[1]), Path: "b"}}}}
		g.rename(0)
		require.Nil(rt, g.attr(0, "a"), "nobody reads it meanwhile")
		for _, c := range []*command.Command{
			{Xattr: &metapb.XattrOp{Target: at, Name: "user.x", Value: []byte("z")}},
			{SetAttr: &metapb.SetAttrOp{Target: at, Mask: setPinned}},
			{Delete: &metapb.DeleteOp{Target: at}},
			{Create: &metapb.CreateOp{Target: at, Overwrite: true}},
			{Rename: &metapb.RenameOp{Src: at, Dst: &metapb.Target{Ino: uint64(g.dir[0]), Path: "c"}}},
			{Link: &metapb.LinkOp{Src: at, Dst: &metapb.Target{Ino: uint64(g.dir[0]), Path: "c"}}},
			{Unmount: &metapb.UnmountOp{Path: "/d"}},
		} {
			require.EqualValues(rt, orca.Busy, g.w[0].do(c).Kind, "%v", c)
		}
		g.drain()
		now := g.attr(1, "b")
		require.NotEqual(rt, was.Ino, now.Ino)
		require.NotNil(rt, now)
		now.Ino, now.Ctime, now.MountId, now.UfsPath = was.Ino, was.Ctime, was.MountId, was.UfsPath
		require.True(rt, proto.Equal(was, now), "%v, was %v", now, was)
		v, err := g.w[1].m.Xattr(orca.Caller{}, orca.Ino(g.attr(1, "b").Ino), "user.x")
		require.NoError(rt, err)
		require.Equal(rt, "y", string(v))
		require.Contains(rt, slices.Collect(maps.Values(g.store)), "fp1")
	})
}
