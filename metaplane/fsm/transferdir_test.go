// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// twoGroupsOfDirs are two machines that hand directories to each other: what is on
// its way are pages of names as well. Each directory has a file in it and one
// further down, by whose fingerprints it is known.
type twoGroupsOfDirs struct {
	*twoGroups
	trees  map[string]map[string]uint32 // of a directory, by fingerprint: modes of its files
	staged []stagedOp                   // to arrive late and again
	subs   map[uint64]uint64            // by transaction: the number of the directory in it there
	roots  map[uint64]uint64            // of what is all there
}

type stagedOp struct {
	to int
	op *metapb.StageOp
}

func newTwoGroupsOfDirs(t *testing.T, rt *rapid.T) *twoGroupsOfDirs {
	g := newTwoGroups(t, rt, false)
	for i, inodes := range []int64{1 << 20, 2 * treeInodes} {
		r := g.w[i].do(&command.Command{SetQuota: &metapb.SetQuotaOp{Target: at("/d"), Inodes: inodes}})
		require.Zero(rt, r.Kind)
	}
	return &twoGroupsOfDirs{twoGroups: g, trees: map[string]map[string]uint32{}, subs: map[uint64]uint64{}, roots: map[uint64]uint64{}}
}

// treeInodes is how many inodes a directory is.
const treeInodes = 4

// busy reports whether something under way is about a key, or about one below.
func (g *twoGroupsOfDirs) busy(key string) bool {
	for i, w := range g.w {
		for _, it := range w.m.Intents() {
			for _, k := range []string{it.Source, it.Target} {
				if k != "" && (keyOf(i, k) == key || strings.HasPrefix(key, keyOf(i, k)+"/")) {
					return true
				}
			}
		}
	}
	return false
}

// putDir has a store get a new directory, which the namespace sees.
func (g *twoGroupsOfDirs) putDir(group int, name string) {
	key := keyOf(group, name)
	if g.store[key] != "" || g.busy(key) || group == 1 && g.used(1).inodes+treeInodes > 2*treeInodes { // no sync asks
		return
	}
	w := g.w[group]
	if v, err := w.m.Walk(orca.Caller{}, g.dir[group], name); err == nil && v.Found {
		return // being given up
	}
	g.files++
	fp := fmt.Sprintf("fp%d", g.files)
	add := func(dir uint64, entries ...*metapb.SyncEntry) {
		r := w.do(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: dir, Change: w.index, Range: dir != uint64(g.dir[group]), Loaded: true, Entries: entries}})
		require.Zero(g.t, r.Kind, r.Msg)
		require.EqualValues(g.t, len(entries), r.Sync.GetCreated())
	}
	file := func(name string) *metapb.SyncEntry { return &metapb.SyncEntry{Name: name, Length: 1, Fingerprint: fp} }
	add(uint64(g.dir[group]), &metapb.SyncEntry{Name: name, Dir: true})
	add(g.attr(group, name).Ino, file("f"), &metapb.SyncEntry{Name: "s", Dir: true})
	add(g.attr(group, name+"/s").Ino, file("g"))
	g.store[key], g.trees[fp] = fp, map[string]uint32{"f": g.attr(group, name+"/f").Mode, "s/g": g.attr(group, name+"/s/g").Mode}
}

// bring sends one step of a copy, once all is at rest.
func (g *twoGroupsOfDirs) bring(from int, it *command.Intent, step string) {
	m := g.w[from].m
	if err := m.Restless(it.Id); err != nil {
		require.ErrorIs(g.t, err, orca.Busy)
		return
	}
	dir := orca.Ino(it.Ino)
	op := &metapb.StageOp{Tx: it.Id}
	page := func(dir orca.Ino, to uint64) {
		kids, more, err := m.LeavingPage(it.Id, dir, "", 10, 1<<20)
		require.NoError(g.t, err)
		require.False(g.t, more)
		p := &metapb.StagedPage{Dir: to}
		for _, k := range kids {
			p.Entries = append(p.Entries, k.StagedEntry)
		}
		op.Pages = append(op.Pages, p)
	}
	switch step {
	case "self":
		l, err := m.LeavingDir(dir)
		require.NoError(g.t, err)
		op.Self = l.StagedEntry
	case "page":
		page(dir, 0)
	case "below":
		sub := m.dirs[dir].sub.get("s")
		if g.subs[it.Id] == 0 || sub == nil {
			return
		}
		page(sub.rec.Ino, g.subs[it.Id])
	case "seal":
		u, err := m.Usage(dir)
		require.NoError(g.t, err)
		op.Seal = &metapb.StagedSums{Bytes: u.Bytes, Files: u.Files, Dirs: u.Dirs}
	}
	g.staged = append(g.staged, stagedOp{1 - from, op})
}

// copy makes the first steps of a copy.
func (g *twoGroupsOfDirs) copy(from int, it *command.Intent, steps int) {
	for _, step := range []string{"self", "page", "below", "seal"}[:steps] {
		g.bring(from, it, step)
		g.comes(g.staged[len(g.staged)-1])
	}
}

// comes applies a step of a copy, which may have come before.
func (g *twoGroupsOfDirs) comes(s stagedOp) {
	r := g.w[s.to].do(&command.Command{Stage: proto.Clone(s.op).(*metapb.StageOp)})
	switch {
	case r.Kind != 0:
		require.Contains(g.t, []orca.Kind{orca.Stale, orca.Internal}, orca.Kind(r.Kind), r.Msg)
	case len(s.op.Pages) > 0 && s.op.Pages[0].Dir == 0:
		g.subs[s.op.Tx] = r.Ids[1]
	case s.op.Seal != nil || r.Existed:
		g.roots[s.op.Tx] = r.Id
	}
}

// ask has the source's group put on record that all is there.
func (g *twoGroupsOfDirs) ask(from int, it *command.Intent) {
	root := g.roots[it.Id]
	if root == 0 {
		return
	}
	r := g.w[from].do(&command.Command{Brought: &metapb.BroughtOp{Intent: it.Id, Root: root}})
	require.Zero(g.t, r.Kind, r.Msg)
}

// giveUp ends a move that nobody was asked about, as far as who leads knows.
func (g *twoGroupsOfDirs) giveUp(from int, it *command.Intent) {
	d := &metapb.DecideOp{Intent: it.Id, Kind: uint32(orca.CrossMount), Early: it.Copying || g.bug == ""}
	r := g.w[from].do(&command.Command{Decide: d})
	if !it.Copying && g.bug == "" {
		require.EqualValues(g.t, orca.Busy, r.Kind)
		return
	}
	g.noteEnd(from, it.Seq, orca.Kind(r.Kind))
}

func (g *twoGroupsOfDirs) noteEnd(from int, seq uint64, kind orca.Kind) {
	for i := range g.calls {
		if a := &g.calls[i]; a.from == from && a.seq == seq && !kind.Retryable() {
			require.False(g.t, a.over)
			a.kind, a.over = kind, true
		}
	}
}

// rename has the target's group do what one of its intents says; it may die before
// it has put on record what came of that.
func (g *twoGroupsOfDirs) renames(to int, it *command.Intent, dies, fails bool) {
	src, dst := keyOf(1-to, it.Command.GetTransfer().GetKey()), keyOf(to, it.Target)
	d := &metapb.DecideOp{Intent: it.Id}
	switch {
	case g.store[src] != "" && fails && g.bug == "":
		d.Kind = uint32(orca.NoSpace)
	case g.store[src] != "" && g.bug == "decides before the store has":
	case g.store[src] != "":
		require.Empty(g.t, g.store[dst], "no directory that has something is replaced")
		g.store[dst] = g.store[src]
		delete(g.store, src)
	default:
		require.NotEmpty(g.t, g.store[dst], "it has gone from %s, and is not at %s", src, dst)
	}
	if dies {
		return
	}
	r := g.w[to].do(&command.Command{Decide: d})
	require.Equal(g.t, d.Kind, r.Kind, r.Msg)
}

// change changes the mode of a file in a directory, if that may be changed.
func (g *twoGroupsOfDirs) change(group int, name, file string, mode uint32) {
	a := g.attr(group, name+"/"+file)
	t := &metapb.Target{Ino: uint64(g.dir[group]), Path: name + "/" + file}
	r := g.w[group].do(&command.Command{SetAttr: &metapb.SetAttrOp{Target: t, Mask: setMode, Mode: mode}})
	if r.Kind == 0 {
		require.NotNil(g.t, a)
		g.trees[a.Fingerprint][file] = mode
	}
}

// look compares what can be read with what there must be at any moment.
func (g *twoGroupsOfDirs) look() map[string]string {
	at := map[string]string{}
	for i, w := range g.w {
		require.NoError(g.t, w.m.Check())
		kids, _, err := w.m.Children(orca.Caller{}, g.dir[i], "", 1000)
		require.NoError(g.t, err)
		for _, k := range kids {
			a := g.attr(i, k.Name+"/f")
			if a == nil {
				continue // it is on its way
			}
			tree := g.trees[a.Fingerprint]
			require.Empty(g.t, at[a.Fingerprint], "%s is at two names", a.Fingerprint)
			at[a.Fingerprint] = keyOf(i, k.Name)
			for file, mode := range tree {
				b := g.attr(i, k.Name+"/"+file)
				require.NotNil(g.t, b, "%s of %s", file, a.Fingerprint)
				require.Equal(g.t, mode, b.Mode, "the mode of %s of %s", file, a.Fingerprint)
				require.Equal(g.t, a.Fingerprint, b.Fingerprint)
			}
		}
	}
	require.LessOrEqual(g.t, g.used(1).inodes, int64(2*treeInodes))
	return at
}

// settle has everything come to its end.
func (g *twoGroupsOfDirs) settle() {
	for _, abort := range []bool{false, true} { // what is in the way may not have passed at first
		for _, x := range g.intents(metapb.IntentOp_INTENT_TRANSFER) {
			if x.it.Copying {
				g.copy(x.group, x.it, 4)
				g.ask(x.group, x.it)
			}
			g.send(x.group, x.it.Id)
		}
		late := g.sent
		for range 2 {
			for _, s := range late {
				g.arrive(s, abort)
			}
			for _, y := range g.intents(metapb.IntentOp_INTENT_RECEIVE) {
				g.renames(y.group, y.it, false, false)
			}
		}
		for _, s := range g.said {
			g.heed(s)
		}
	}
	for i, w := range g.w {
		require.Empty(g.t, w.m.Intents(), "an intent is left for ever")
		g.acknowledge(i)
	}
	for _, w := range g.w {
		require.Zero(g.t, w.m.Counts().Transfers, "a decision is kept that nobody asks for")
		require.Empty(g.t, w.m.Staged(), "a tree is kept that nobody asks for")
	}
	for _, s := range g.staged { // what is late changes nothing
		r := g.w[s.to].do(&command.Command{Stage: proto.Clone(s.op).(*metapb.StageOp)})
		require.EqualValues(g.t, orca.Stale, r.Kind)
	}
	require.Equal(g.t, slices.Sorted(maps.Values(g.store)), slices.Sorted(maps.Keys(g.look())), "the namespace is what the store has")
	for fp, key := range g.look() {
		require.Equal(g.t, fp, g.store[key])
	}
	for _, w := range g.w {
		w.now += 2 * forwardFor
		for w.do(&command.Command{SweepTrash: &metapb.SweepTrashOp{Limit: 2}}).More {
		}
		require.Zero(g.t, w.m.Counts().Trash)
		require.NoError(g.t, w.m.Check())
	}
}

// playDirs takes random steps, and settles what they have left.
func (g *twoGroupsOfDirs) playDirs(rt *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b"})
	other := rapid.SampledFrom([]string{"a", "c", "d"})
	side := rapid.IntRange(0, 1)
	steps := []string{"put", "put", "mv", "mv", "mv", "again", "go on", "go on", "go on", "go on", "go on", "go on", "copy", "bring", "come", "ask", "give up", "send",
		"arrive", "abort", "work", "work", "work", "heed", "heed", "tell", "chmod", "reopen", "sweep"}
	for range rapid.IntRange(30, 90).Draw(rt, "steps") {
		i := side.Draw(rt, "group")
		switch step := rapid.SampledFrom(steps).Draw(rt, "step"); step {
		case "put":
			g.putDir(i, name.Draw(rt, "name"))
		case "mv":
			g.calls = append(g.calls, asked{from: i, seq: uint64(len(g.calls) + 1), op: &metapb.RenameOp{
				Src: &metapb.Target{Ino: uint64(g.dir[i]), Path: name.Draw(rt, "from")}, NoReplace: rapid.Bool().Draw(rt, "no replace"),
				Away: &metapb.Target{Ino: uint64(g.dir[1-i]), Path: other.Draw(rt, "to")},
			}})
			g.rename(len(g.calls) - 1)
		case "again":
			if len(g.calls) > 0 {
				g.rename(rapid.IntRange(0, len(g.calls)-1).Draw(rt, "call"))
			}
		case "go on", "copy", "bring", "ask", "give up", "send":
			if x, ok := one(rt, g.intents(metapb.IntentOp_INTENT_TRANSFER), "intent"); ok {
				g.lead(rt, step, x.group, x.it)
			}
		case "come":
			if s, ok := one(rt, g.staged, "page"); ok {
				g.comes(s)
			}
		case "arrive", "abort":
			if s, ok := one(rt, g.sent, "request"); ok {
				g.arrive(s, rapid.IntRange(0, 3).Draw(rt, "abort") == 0)
			}
		case "work":
			if x, ok := one(rt, g.intents(metapb.IntentOp_INTENT_RECEIVE), "intent"); ok {
				g.renames(x.group, x.it, rapid.Bool().Draw(rt, "dies"), rapid.Bool().Draw(rt, "fails"))
			}
		case "heed":
			if s, ok := one(rt, g.said, "answer"); ok {
				g.heed(s)
			}
		case "tell":
			g.acknowledge(i)
		case "chmod":
			g.change(i, name.Draw(rt, "name"), rapid.SampledFrom([]string{"f", "s/g"}).Draw(rt, "file"), uint32(rapid.IntRange(0, 0o777).Draw(rt, "mode")))
		case "reopen":
			g.w[i].reopen()
		case "sweep":
			g.w[i].do(&command.Command{SweepTrash: &metapb.SweepTrashOp{Limit: 1}})
		}
		g.look()
	}
	g.settle()
}

// lead does what who leads the source's group does.
func (g *twoGroupsOfDirs) lead(rt *rapid.T, step string, group int, it *command.Intent) {
	switch {
	case step == "go on" && !it.Copying:
		g.send(group, it.Id)
		g.arrive(g.sent[len(g.sent)-1], false)
	case step == "go on" && g.roots[it.Id] != 0:
		g.ask(group, it)
	case step == "go on" && g.w[group].m.Restless(it.Id) == nil:
		g.copy(group, it, 4)
	case step == "bring" && it.Copying:
		g.bring(group, it, rapid.SampledFrom([]string{"self", "page", "below", "seal"}).Draw(rt, "of"))
	case step == "copy" && it.Copying && g.w[group].m.Restless(it.Id) == nil:
		g.copy(group, it, min(4, rapid.IntRange(1, 8).Draw(rt, "as far")))
	case step == "ask":
		g.ask(group, it)
	case step == "give up":
		g.giveUp(group, it)
	case step == "send" && !it.Copying:
		g.send(group, it.Id)
	}
}

// TestDirectoryTransfersOfTwoGroups: whatever is late, lost, repeated or
// interrupted, a directory is at one name, with all that was in it, a request has
// one answer, and in the end nothing is left of it but that.
func TestDirectoryTransfersOfTwoGroups(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { newTwoGroupsOfDirs(t, rt).playDirs(rt) })
}

// A fault of who leads one of the groups is noticed.
func TestPlantedFaultsOfDirectoryTransfersAreCaught(t *testing.T) {
	for name, value := range map[string]string{"rapid.shrinktime": "0s", "rapid.nofailfile": "true"} {
		was := flag.Lookup(name).Value.String()
		require.NoError(t, flag.Set(name, value))
		t.Cleanup(func() { require.NoError(t, flag.Set(name, was)) })
	}
	for _, bug := range []string{"gives up what was asked for", "takes note too early", "takes silence for no", "decides before the store has"} {
		t.Run(bug, func(t *testing.T) {
			q := &quiet{name: t.Name()}
			done := make(chan struct{})
			go func() {
				defer close(done) // also when it fails
				rapid.Check(q, func(rt *rapid.T) {
					g := newTwoGroupsOfDirs(t, rt)
					g.bug = bug
					g.playDirs(rt)
				})
			}()
			<-done
			require.True(t, q.failed.Load(), "nobody has noticed")
		})
	}
}

// A directory of another group that was being made below one when that began to
// move is no directory that is copied.
func TestAPartThatIsMadeMeanwhileIsNotCopied(t *testing.T) {
	for _, c := range []*command.Command{
		{Rename: &metapb.RenameOp{Src: at("/m/d"), Away: &metapb.Target{Ino: 2<<48 | 0x12, Path: "d"}}},
		{Regroup: &metapb.RegroupOp{Target: at("/m/d"), Group: 2}},
	} {
		b := newBrought(t)
		require.Zero(t, b.from.do(&command.Command{SetQuota: &metapb.SetQuotaOp{Target: at("/m/d")}}).Kind)
		made := b.from.do(&command.Command{Mkdir: &metapb.MkdirOp{Target: at("/m/d/e/part"), Mode: 0o755, Group: 2}})
		require.NotNil(t, made.Intent, made.Msg)
		begun := b.from.do(c)
		require.NotNil(t, begun.Intent, begun.Msg)
		require.Zero(t, b.from.do(&command.Command{Decide: &metapb.DecideOp{Intent: made.Intent.Id}}).Kind)
		require.NoError(t, b.from.m.Restless(begun.Intent.Id))
		_, _, err := b.from.m.LeavingPage(begun.Intent.Id, b.from.m.dirs[b.dir].sub.get("e").rec.Ino, "", 100, 1<<20)
		require.ErrorIs(t, err, orca.Unsupported)
		require.Contains(t, err.Error(), "/m/d/e/part")
	}
}
