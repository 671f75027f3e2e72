// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// bugsOfObjects are the planted faults that only a store that copies has.
var bugsOfObjects = []string{"keeps the old fingerprint", "removes it too early", "removes whatever is there"}

// known is what a file is told apart by: its fingerprint, but for what copies have
// added to it, or where a link leads.
func known(a *metapb.Attr) string {
	return cmp.Or(strings.TrimRight(a.Fingerprint, "'"), a.Target)
}

// link makes a symbolic link, of which the store has nothing.
func (g *twoGroups) link(group int, name string) {
	g.files++
	to := fmt.Sprintf("l%d", g.files)
	r := g.w[group].do(&command.Command{Create: &metapb.CreateOp{Target: &metapb.Target{Ino: uint64(g.dir[group]), Path: name}, Complete: true, Symlink: to}})
	if r.Kind == 0 {
		g.mode[to] = r.Attr.Mode
	}
}

// work has the target's group do what one of its intents says; it may die before
// it has put on record what came of that.
func (g *twoGroups) work(to int, it *command.Intent, dies, fails bool) {
	t := it.Command.GetTransfer()
	src, dst := keyOf(1-to, t.GetKey()), keyOf(to, it.Target)
	d := &metapb.DecideOp{Intent: it.Id}
	switch {
	case it.Ino != 0: // a link takes the place of an object
		if g.store[dst] == it.Want {
			g.drop(dst)
		}
	case t.GetExchange() && it.Want != "" && it.Have != "":
		g.trade(d, it, src, dst, fails)
	case it.Want == "":
		g.carry(d, it.Have, "", dst, src, fails)
	default:
		g.carry(d, it.Want, it.Have, src, dst, fails)
	}
	if dies {
		return
	}
	r := g.w[to].do(&command.Command{Decide: d})
	require.Equal(g.t, d.Kind, r.Kind, r.Msg)
	if d.Kind == uint32(orca.Stale) && it.Want == "" {
		g.learn(to, it)
	}
}

// drop is a change of the store that is asked for by the name alone, whatever is
// there.
func (g *twoGroups) drop(key string) {
	delete(g.foreign, g.store[key])
	delete(g.store, key)
}

// trade has the store exchange two objects, once.
func (g *twoGroups) trade(d *metapb.DecideOp, it *command.Intent, src, dst string, fails bool) {
	a, b := g.store[src], g.store[dst]
	switch done := a == it.Have && b == it.Want; {
	case done && g.bug != "exchanges again":
		return
	case !done && fails && g.bug == "":
		d.Kind = uint32(orca.NoSpace)
		return
	case g.bug == "decides before the store has":
		return
	case g.bug == "refuses what the store has done":
		d.Kind = uint32(orca.NoSpace)
	case !done:
		require.Equal(g.t, [2]string{it.Want, it.Have}, [2]string{a, b})
	}
	g.store[src], g.store[dst] = b, a
}

// carry has the store bring one object to another key, in one call, or by a copy that
// has a new fingerprint.
func (g *twoGroups) carry(d *metapb.DecideOp, want, have, src, dst string, fails bool) {
	at := g.store[src]
	switch {
	case at == want && fails && g.bug == "" && (g.store[dst] == have || !g.objects): // it can say that nothing was done
		d.Kind = uint32(orca.NoSpace)
	case at == want && g.bug == "decides before the store has":
	case at == want && g.bug == "refuses what the store has done":
		d.Kind = uint32(orca.NoSpace)
		fallthrough
	case at == want && !g.objects:
		g.store[dst] = want
		delete(g.store, src)
	case at == want:
		g.drop(dst)
		g.store[dst] = want + "'"
		if d.Fingerprint = g.store[dst]; g.bug == "keeps the old fingerprint" {
			d.Fingerprint = want
		}
		if g.bug == "removes it too early" {
			delete(g.store, src)
		}
	case !g.objects:
		require.Equal(g.t, want, g.store[dst], "%s has gone from %s, and is not at %s", want, src, dst)
	default: // somebody else has changed it
		require.True(g.t, g.foreign[at], "%s is at %s, not %s", at, src, want)
		if d.Fingerprint = g.store[dst]; d.Fingerprint != want+"'" {
			d.Kind, d.Fingerprint = uint32(orca.Stale), ""
		}
	}
}

// clear has a group remove what a copy has left, and die before that is on record.
func (g *twoGroups) clear(group int, it *command.Intent, dies bool) {
	key := keyOf(group, it.Source)
	if g.store[key] == it.Want || g.bug == "removes whatever is there" {
		delete(g.store, key)
	}
	if !dies {
		require.Zero(g.t, g.w[group].do(&command.Command{FinishIntent: &metapb.FinishIntentOp{Intent: it.Id, Noted: true}}).Kind)
	}
}

// overwrite has somebody else put an object where one is just being copied from, or
// was.
func (g *twoGroups) overwrite(rt *rapid.T) {
	if !g.objects || g.bug != "" && g.bug != "removes whatever is there" {
		return
	}
	ops := []metapb.IntentOp{metapb.IntentOp_INTENT_LEFT, metapb.IntentOp_INTENT_TRANSFER}
	x, ok := one(rt, g.intents(rapid.SampledFrom(ops).Draw(rt, "of")), "intent")
	if !ok || x.it.Want == "" || g.foreign[g.store[keyOf(x.group, x.it.Source)]] {
		return
	}
	g.files++
	fp := fmt.Sprintf("fp%d", g.files)
	g.store[keyOf(x.group, x.it.Source)], g.foreign[fp] = fp, true
}

// learn has a group look at a file that it could not give away.
func (g *twoGroups) learn(group int, it *command.Intent) {
	name := cmp.Or(it.Source, it.Target)
	op := &metapb.SyncApplyOp{Dir: uint64(g.dir[group]), Change: g.w[group].index}
	if fp := g.store[keyOf(group, name)]; fp != "" {
		op.Entries = []*metapb.SyncEntry{{Name: name, Length: 1, Fingerprint: fp}}
	}
	r := g.w[group].do(&command.Command{SyncApply: op})
	if r.Sync.GetChanged()+r.Sync.GetCreated() == 1 {
		a := g.attr(group, name)
		g.mode[known(a)] = a.Mode
		delete(g.foreign, a.Fingerprint) // the namespace knows it
	}
}

// list has both groups see all that the store has.
func (g *twoGroups) list() {
	for i, w := range g.w {
		op := &metapb.SyncApplyOp{Dir: uint64(g.dir[i]), Change: w.index}
		for _, key := range slices.Sorted(maps.Keys(g.store)) {
			if name, ok := strings.CutPrefix(key, keyOf(i, "")); ok && g.attr(i, name).GetFingerprint() != g.store[key] {
				require.True(g.t, g.foreign[g.store[key]], "nobody knows of %s at %s", g.store[key], key)
				op.Entries = append(op.Entries, &metapb.SyncEntry{Name: name, Length: 1, Fingerprint: g.store[key]})
			}
		}
		require.Zero(g.t, w.do(&command.Command{SyncApply: op}).Kind)
	}
}

// Nothing is lost that changes places, however often: files and links, with all that
// is kept of them.
func TestWhatAnExchangeOfTwoGroupsTakes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newTwoGroups(t, rt, false)
		g.put(0, "a")
		g.put(1, "b")
		g.link(0, "l")
		names := []string{"a", "l"}
		var before []*metapb.Attr
		for i, name := range []string{"a", "b"} {
			at := &metapb.Target{Ino: uint64(g.dir[i]), Path: name}
			for _, c := range []*command.Command{
				{Xattr: &metapb.XattrOp{Target: at, Name: "user.x", Value: []byte(name)}},
				{SetAttr: &metapb.SetAttrOp{Target: at, Mask: setPinned | setMode | setUID | setMtime | setCopies, Pinned: i == 0, Mode: uint32(0o600 + i), Uid: 7, Mtime: 9, ReplicaMin: 2, ReplicaLimit: 4}},
			} {
				require.Zero(rt, g.w[i].do(c).Kind)
			}
			g.mode[known(g.attr(i, name))] = uint32(0o600 + i)
			before = append(before, g.attr(i, name))
		}
		there := "b"
		for k := range rapid.IntRange(1, 6).Draw(rt, "times") {
			from := rapid.IntRange(0, 1).Draw(rt, "from")
			at := [2]string{rapid.SampledFrom(names).Draw(rt, "name"), there}
			op := &metapb.RenameOp{Exchange: true, Src: &metapb.Target{Ino: uint64(g.dir[from]), Path: at[from]},
				Away: &metapb.Target{Ino: uint64(g.dir[1-from]), Path: at[1-from]}, AwayBytes: g.attr(1-from, at[1-from]).Length}
			g.calls = append(g.calls, asked{from: from, seq: uint64(k + 1), op: op})
			g.rename(k)
			g.drain()
			require.True(rt, g.calls[k].over)
			require.Zero(rt, g.calls[k].kind)
		}
		found := map[string]*metapb.Attr{}
		for i, ns := range [][]string{names, {there}} {
			for _, name := range ns {
				a := g.attr(i, name)
				require.NotNil(rt, a)
				found[known(a)] = a
				if a.Target != "" {
					continue
				}
				v, err := g.w[i].m.Xattr(orca.Caller{}, orca.Ino(a.Ino), "user.x")
				require.NoError(rt, err)
				require.Equal(rt, map[bool]string{true: "a", false: "b"}[a.Fingerprint == before[0].Fingerprint], string(v))
			}
		}
		require.Len(rt, found, 3)
		for _, was := range before {
			a := found[known(was)]
			require.Equal(rt, []any{was.Mode, was.Uid, was.Mtime, was.Pinned, was.Length, was.ReplicaMin, was.ReplicaLimit},
				[]any{a.Mode, a.Uid, a.Mtime, a.Pinned, a.Length, a.ReplicaMin, a.ReplicaLimit})
		}
	})
}
