// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// seedStores puts into the stores what was there before Orca came.
func (w *world) seedStores() {
	for _, s := range w.stores {
		ctx := context.Background()
		for _, dir := range []string{"b", "b/a"} {
			_ = s.raw.Mkdir(ctx, dir, dirMode)
		}
		s.mem.Put("a", content(901))
		s.mem.Put("b/c", content(902))
		s.mem.Put("b/a/b", content(903))
	}
}

// origin is the namespace that the clients find.
func (w *world) origin() model.Tree {
	t := model.New()
	for _, s := range w.stores {
		root := s.name
		t[root] = model.Node{Dir: true}
		t[root+"/a"] = model.Node{Length: 901, Mode: fileMode}
		for _, d := range []string{"/b", "/b/a"} {
			t[root+d] = model.Node{Dir: true, Mode: dirMode}
		}
		t[root+"/b/c"] = model.Node{Length: 902, Mode: fileMode}
		t[root+"/b/a/b"] = model.Node{Length: 903, Mode: fileMode}
	}
	for _, o := range w.plan.Parts {
		t[o.Path], t[part+o.Path] = model.Node{Dir: true, Mode: dirMode}, inGroup(o.Group)
	}
	return t
}

// start opens the first coordinator and mounts the stores, without faults.
func (w *world) start() {
	w.healing, w.setup = true, true
	if w.over() {
		return
	}
	for _, g := range w.groups {
		if g.begin(); w.over() {
			return
		}
		for _, f := range g.members {
			f.serve()
		}
	}
	w.quietly("mount", func(c *client) {
		for i, s := range w.stores {
			m := w.mountOf(s)
			if w.plan.Group > 1 { // as the leader of the first group would have it
				m.Group, m.Id, m.Serial = uint32(w.plan.Group), uint32(i+1), 1
			}
			if _, err := c.ns.Mount(c.ctx, &metapb.MountRequest{Mount: m, Parents: true}); err != nil {
				w.broken("mount", "%v", err)
			}
		}
	})
	for _, o := range slices.Concat(w.plan.Parts, w.plan.Marks) {
		w.quietly(o.Verb, func(*client) {
			c := w.newClient(92)
			err := w.verbs[o.Verb].do(c, o, nil)
			for i := 0; i < 10 && orca.KindOf(err).Retryable(); i++ { // time may have made a leap
				err = w.verbs[o.Verb].do(c, o, nil)
			}
			if err != nil && orca.KindOf(err) != orca.Exists {
				w.broken(o.Verb, "%s: %v", o, err)
			}
		})
	}
	w.healing, w.setup = false, false
}

// quietly runs something for a client of its own, to its end, without faults.
func (w *world) quietly(what string, do func(c *client)) {
	w.join()
	c := w.newClient(90)
	go func() {
		defer w.leave()
		do(c)
	}()
	for i := 0; w.busy() && !w.over(); i++ {
		if i == maxSteps {
			w.broken("liveness", "%s does not come to an end", what)
		}
		w.step()
	}
}

// heal ends the faults and waits until everything has settled; then it
// compares everything with everything.
func (w *world) heal() {
	w.healing = true
	w.tracef("HEALED")
	for _, s := range w.stores {
		s.faults.Clear()
	}
	w.comeBack()
	for _, g := range w.groups {
		for len(g.journal.late) > 0 && !w.over() {
			g.journal.catchUp()
		}
	}
	w.settleAll(false)
}

// settleAll is heal once the faults are over; restored says that what was in the
// trash has been.
func (w *world) settleAll(restored bool) {
	deadline := time.Now().Add(20 * time.Minute)
	for i := 0; !w.over() && !w.drained(); i++ {
		if time.Now().After(deadline) || i > maxSteps {
			w.broken("drain", "%s", w.undone())
			return
		}
		w.step()
		w.settle()
		if gates := w.waiting(); len(gates) == 0 {
			w.sleep(time.Second)
			w.persistRest()
		}
	}
	if w.over() {
		return
	}
	if w.plan.Keep != 0 && !restored {
		w.undelete()
		w.settleAll(true)
		return
	}
	w.quietly("sync", func(c *client) {
		for _, s := range w.stores {
			if w.mountAt(s.name) == nil { // somebody has unmounted it
				if _, err := c.ns.Mount(c.ctx, &metapb.MountRequest{Mount: w.mountOf(s)}); err != nil {
					w.broken("mount", "%v", err)
				}
			}
			if _, err := c.ns.Sync(c.ctx, &metapb.SyncRequest{Target: at(s.name), Recursive: true}); err != nil {
				w.broken("sync", "%v", err)
			}
		}
	})
	if !w.over() {
		w.compare()
	}
}

func (w *world) drained() bool {
	for _, g := range w.groups {
		c := g.machine().Counts()
		if w.stats.Moves > 0 && w.plan.Seed%5 != 0 {
			c.Trash = 0 // what has moved stays for ten minutes, which is long here
		}
		if c.Intents != 0 || c.Sessions != 0 || c.Trash != 0 || c.Transfers != 0 {
			return false
		}
	}
	return len(w.unpersisted()) == 0 && w.underWay() == nil
}

func (w *world) undone() string {
	var b strings.Builder
	b.WriteString("never comes to rest:")
	for _, g := range w.groups {
		for _, it := range g.machine().Intents() {
			st := g.life.svc.Exec.Status(it.Id)
			b.WriteString("\n  " + g.prefix() + "intent " + it.String() + ": " + st.Err)
		}
		if n := g.machine().Counts().Transfers; n != 0 {
			fmt.Fprintf(&b, "\n  %s%d decisions about files of others", g.prefix(), n)
		}
		for _, s := range g.machine().Sessions() {
			b.WriteString("\n  " + g.prefix() + "session " + s.String())
		}
	}
	for _, a := range w.unpersisted() {
		b.WriteString("\n  not persisted: " + a.String())
	}
	if m := w.underWay(); m != nil {
		b.WriteString("\n  junction: " + m.String())
	}
	return b.String()
}

// unpersisted returns the files that wait for their store.
func (w *world) unpersisted() []*metapb.Attr {
	var out []*metapb.Attr
	w.files(func(x *spot) {
		if x.Attr.Persist == uint32(orca.ToBePersisted) {
			out = append(out, x.Attr)
		}
	})
	return out
}

// persistRest does the jobs that nobody is doing any more.
func (w *world) persistRest() {
	todo := w.unpersisted()
	if len(todo) == 0 || w.busy() {
		return
	}
	w.quietly("persist", func(c *client) {
		for _, a := range todo {
			c.persist(a)
		}
	})
}

// look checks, when something changed, that every file can be read, and that
// what the groups have of each other agrees.
func (w *world) look() {
	w.mu.Lock()
	touched := w.touched
	w.touched = false
	w.mu.Unlock()
	if !touched || w.over() {
		return
	}
	w.joined()
	if w.plan.Faults.Strangers > 0 {
		return
	}
	w.files(func(x *spot) {
		if x.Attr.Persist == uint32(orca.Persisted) && !w.readable(x) {
			w.broken("readable", "%s: its key %q has no object with fingerprint %s", x.path, x.Key, x.Attr.Fingerprint)
		}
	})
}

// readable reports whether a file's content is where the namespace says, or
// where a mutation that is in the making puts it.
func (w *world) readable(x *spot) bool {
	if x.at.store == nil || x.at.has(x.Key, x.Attr.Fingerprint) {
		return true
	}
	m := x.g.machine()
	if w.onItsWay(x) {
		return true
	}
	for _, ws := range m.Sessions() {
		if ws.MountId == x.Attr.MountId && ws.UfsKey == x.Key {
			return true // it is being written
		}
	}
	for _, it := range m.Intents() {
		if it.Deferred || it.MountId != x.Attr.MountId {
			continue
		}
		switch it.Op {
		case metapb.IntentOp_INTENT_REMOVE:
			if it.Source == x.Key || it.Target == x.Key {
				return true
			}
		case metapb.IntentOp_INTENT_PUT_EMPTY, metapb.IntentOp_INTENT_PERSIST, metapb.IntentOp_INTENT_RECEIVE:
			if it.Target == x.Key {
				return true
			}
		case metapb.IntentOp_INTENT_RENAME:
			if it.Target == x.Key {
				return true // it is being replaced
			}
			if x.hasMoved(it.Source, it.Target) {
				return true
			}
		case metapb.IntentOp_INTENT_EXCHANGE:
			if x.hasMoved(it.Source, it.Target) || x.hasMoved(it.Target, it.Source) {
				return true
			}
		}
	}
	return false
}

// hasMoved reports whether a file at or below one key is at the other.
func (x *spot) hasMoved(from, to string) bool {
	rest, ok := strings.CutPrefix(x.Key, from)
	return ok && (rest == "" || rest[0] == '/') && x.at.has(to+rest, x.Attr.Fingerprint)
}

// compare holds the namespace against the stores, and adds what the namespace
// shows in the end to the history.
func (w *world) compare() {
	w.remains()
	tree := model.Tree{"/": {Dir: true}}
	for _, s := range w.stores {
		tree[s.name] = model.Node{Dir: true}
	}
	have := map[string]bool{}
	names := map[uint64][]string{} // of files with several
	w.walk(func(x *spot) {
		p, v, s := x.path, x.View, x.at.store
		if s == nil || p == s.name {
			return
		}
		n := nodeOf(v.Attr)
		if n.Names > 1 {
			names[v.Attr.Ino] = append(names[v.Attr.Ino], p)
		}
		if x.away {
			m := w.mounts[v.Attr.MountId]
			tree[part+p] = inGroup(uint16(m.Group))
			if there, err := w.group(m.Group).machine().Lookup(orca.Ino(v.Attr.Ino)); err == nil {
				n.Mode = there.Attr.Mode
			}
		}
		tree[p] = n
		key := strings.TrimPrefix(p, s.name+"/")
		if v.Alias || n.Link {
			// What strangers have put there is none of the namespace's.
			have[s.name+":"+key] = w.plan.Faults.Strangers > 0
			return
		}
		if x.at.key(v.Key) != key {
			w.broken("key", "%s has the key %q when nothing is on its way", p, x.at.key(v.Key))
		}
		if !v.InUFS {
			return
		}
		raw := key
		if n.Dir {
			raw += "/"
		}
		have[s.name+":"+raw] = true
		if !n.Dir && v.Attr.Persist != uint32(orca.Persisted) {
			return // an older object may be there
		}
		i, err := s.raw.Stat(context.Background(), key)
		if n.Dir && w.plan.Faults.Strangers > 0 {
			return // it stays for what is in it, though a stranger removed it
		}
		if err != nil || i.Dir != n.Dir {
			w.broken("agree", "%s: the store has none: %v", p, err)
		}
		data, _ := s.mem.Data(key)
		switch {
		case n.Dir:
		case i.Fingerprint != v.Attr.Fingerprint:
			w.broken("agree", "%s: fingerprint %s, in the store %s", p, v.Attr.Fingerprint, i.Fingerprint)
		case int64(len(data)) != n.Length, data != content(n.Length) && !strings.HasPrefix(data, "stranger"):
			w.broken("agree", "%s: length %d, in the store %q", p, n.Length, data)
		}
	})
	for _, all := range names {
		for _, p := range all {
			n := tree[p]
			n.Peer = slices.Min(all)
			tree[p] = n
		}
	}
	for _, s := range w.stores {
		for _, raw := range s.mem.Keys() {
			if !have[s.name+":"+raw] && raw != fsm.BinName+"/" && !(inTrash(raw) && w.plan.Faults.Strangers > 0) {
				w.broken("agree", "%s:%s is in the store and not in the namespace", s.name, raw)
			}
		}
		if n := s.mem.Uploads(); n > 0 {
			w.broken("uploads", "%d uploads are left in the store of %s", n, s.name)
		}
	}
	w.history = append(w.history, event{client: 99, verb: "tree", call: never - 1, ret: never - 1, tree: tree})
}

// stopPatience is how long, by its own clock, what ends may take: it would be for
// ever, without a word, for the stores have clocks that go on.
const stopPatience = 100 * time.Hour

// stop ends everything, whatever state it is in.
func (w *world) stop() {
	w.healing = true
	var ends sync.WaitGroup
	for _, g := range w.groups {
		g.drop(g.life)
		for _, svc := range g.services() {
			ends.Go(func() { _ = svc.Close() })
		}
	}
	closed := make(chan struct{})
	go func() {
		ends.Wait()
		close(closed)
	}()
	for began := time.Now(); ; {
		w.settle()
		gates := w.waiting()
		for _, g := range gates {
			w.release(g, gone)
		}
		if len(gates) > 0 {
			continue
		}
		select {
		case <-closed:
			if !w.busy() {
				for _, g := range w.groups {
					g.close()
				}
				w.settle()
				return
			}
		default:
		}
		if time.Since(began) > stopPatience {
			panic(fmt.Sprintf("sim: seed %d does not stop (clients go on: %v)", w.plan.Seed, w.busy()))
		}
		w.sleep(time.Minute)
	}
}

// judge asks whether the history of the clients can be put in an order that
// the model allows. It runs outside the bubble: it takes real time.
func (w *world) judge() {
	if w.plan.Faults.Strangers > 0 {
		return
	}
	ops := make([]porcupine.Operation, 0, len(w.history))
	for i := range w.history {
		e := &w.history[i]
		ops = append(ops, porcupine.Operation{ClientId: min(e.client, 20), Input: e, Call: e.call, Output: e, Return: e.ret})
	}
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{w.origin()} },
		Step: func(state, input, _ any) []any {
			var out []any
			for _, t := range w.outcomes(state.(model.Tree), input.(*event)) {
				out = append(out, t)
			}
			return out
		},
		Equal: func(a, b any) bool { return maps.Equal(a.(model.Tree), b.(model.Tree)) },
	}
	switch porcupine.CheckOperationsTimeout(m.ToModel(), ops, 20*time.Second) {
	case porcupine.Illegal:
		w.broken("linearizable", "no order of the clients' operations explains their results")
	case porcupine.Unknown:
		w.stats.Unjudged = true
	}
}

// withRoots takes over from t what is not compared: the mount points.
func (w *world) withRoots(t, shown model.Tree) model.Tree {
	out := shown.Clone()
	out["/"] = t["/"]
	for _, s := range w.stores {
		out[s.name] = t[s.name]
	}
	return out
}

// report writes the history in order of the calls.
func (w *world) report() string {
	h := slices.Clone(w.history)
	slices.SortFunc(h, func(a, b event) int { return cmp.Compare(a.call, b.call) })
	var b strings.Builder
	for i := range h {
		b.WriteString("  " + h[i].String() + "\n")
	}
	return b.String()
}
