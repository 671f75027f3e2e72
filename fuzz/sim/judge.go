// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
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
func origin() model.Tree {
	t := model.New()
	for _, root := range []string{"/p", "/o"} {
		t[root] = model.Node{Dir: true}
		t[root+"/a"] = model.Node{Length: 901, Mode: fileMode}
		for _, d := range []string{"/b", "/b/a"} {
			t[root+d] = model.Node{Dir: true, Mode: dirMode}
		}
		t[root+"/b/c"] = model.Node{Length: 902, Mode: fileMode}
		t[root+"/b/a/b"] = model.Node{Length: 903, Mode: fileMode}
	}
	return t
}

// start opens the first coordinator and mounts the stores, without faults.
func (w *world) start() {
	w.healing = true
	if w.over() {
		return
	}
	w.begin()
	if w.over() {
		return
	}
	w.quietly("mount", func(c *client) {
		for i, s := range w.stores {
			m := &metapb.Mount{Path: s.name, Uri: "mem:/" + s.name, SyncIntervalMs: -1, TrashRetentionMs: w.plan.Keep.Milliseconds()}
			if w.plan.Group > 1 { // as the leader of the first group would have it
				m.Group, m.Id, m.Serial = uint32(w.plan.Group), uint32(i+1), 1
			}
			if _, err := c.ns.Mount(c.ctx, &metapb.MountRequest{Mount: m, Parents: true}); err != nil {
				w.broken("mount", "%v", err)
			}
		}
	})
	w.healing = false
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
	for len(w.journal.late) > 0 && !w.over() {
		w.journal.catchUp()
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
	c := w.journal.machine.Counts()
	return c.Intents == 0 && c.Sessions == 0 && c.Trash == 0 && len(w.unpersisted()) == 0
}

func (w *world) undone() string {
	var b strings.Builder
	b.WriteString("never comes to rest:")
	for _, it := range w.journal.machine.Intents() {
		st := w.life.svc.Exec.Status(it.Id)
		b.WriteString("\n  intent " + it.String() + ": " + st.Err)
	}
	for _, s := range w.journal.machine.Sessions() {
		b.WriteString("\n  session " + s.String())
	}
	for _, a := range w.unpersisted() {
		b.WriteString("\n  not persisted: " + a.String())
	}
	return b.String()
}

// unpersisted returns the files that wait for their store.
func (w *world) unpersisted() []*metapb.Attr {
	var out []*metapb.Attr
	w.files(func(_ string, v *fsm.View) {
		if v.Attr.Persist == uint32(orca.ToBePersisted) {
			out = append(out, v.Attr)
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

// walk calls fn for everything in the namespace, by path.
func (w *world) walk(fn func(path string, v *fsm.View)) { w.below("/", orca.RootIno, fn) }

// below is walk from a directory on.
func (w *world) below(dir string, ino orca.Ino, fn func(path string, v *fsm.View)) {
	m := w.journal.machine
	var down func(dir string, ino orca.Ino)
	down = func(dir string, ino orca.Ino) {
		kids, more, err := m.Children(orca.Caller{}, ino, "", 10_000)
		if err != nil || more {
			w.broken("list", "%s: %v", dir, err)
			return
		}
		for i := range kids {
			p := orca.JoinPath(dir, kids[i].Name)
			fn(p, &kids[i].View)
			if kids[i].Attr.Type == uint32(orca.TypeDir) {
				down(p, orca.Ino(kids[i].Attr.Ino))
			}
		}
	}
	down(dir, ino)
}

// files calls fn for all files, those in the trash, too.
func (w *world) files(fn func(path string, v *fsm.View)) {
	one := func(p string, v *fsm.View) {
		if v.Attr.Type == uint32(orca.TypeFile) {
			fn(p, v)
		}
	}
	w.walk(one)
	w.walkTrash(one)
}

// storeAt returns the store of a path below a mount.
func (w *world) storeAt(path string) *store {
	for _, s := range w.stores {
		if strings.HasPrefix(path, s.name+"/") {
			return s
		}
	}
	return nil
}

// look checks, when something changed, that every file can be read.
func (w *world) look() {
	w.mu.Lock()
	touched := w.touched
	w.touched = false
	w.mu.Unlock()
	if !touched || w.over() || w.plan.Faults.Strangers > 0 {
		return
	}
	w.files(func(p string, v *fsm.View) {
		if v.Attr.Persist == uint32(orca.Persisted) && !w.readable(p, v) {
			w.broken("readable", "%s: its key %q has no object with fingerprint %s", p, v.Key, v.Attr.Fingerprint)
		}
	})
}

// readable reports whether a file's content is where the namespace says, or
// where a mutation that is in the making puts it.
func (w *world) readable(p string, v *fsm.View) bool {
	s := w.storeAt(p)
	if s == nil || w.has(s, v.Key, v.Attr.Fingerprint) {
		return true
	}
	m := w.journal.machine
	for _, ws := range m.Sessions() {
		if ws.MountId == v.Attr.MountId && ws.UfsKey == v.Key {
			return true // it is being written
		}
	}
	for _, it := range m.Intents() {
		if it.Deferred || it.MountId != v.Attr.MountId {
			continue
		}
		switch it.Op {
		case metapb.IntentOp_INTENT_REMOVE:
			if it.Source == v.Key || it.Target == v.Key {
				return true
			}
		case metapb.IntentOp_INTENT_PUT_EMPTY, metapb.IntentOp_INTENT_PERSIST:
			if it.Target == v.Key {
				return true
			}
		case metapb.IntentOp_INTENT_RENAME:
			if it.Target == v.Key {
				return true // it is being replaced
			}
			if w.hasMoved(s, v, it.Source, it.Target) {
				return true
			}
		case metapb.IntentOp_INTENT_EXCHANGE:
			if w.hasMoved(s, v, it.Source, it.Target) || w.hasMoved(s, v, it.Target, it.Source) {
				return true
			}
		}
	}
	return false
}

// hasMoved reports whether a file at or below one key is at the other.
func (w *world) hasMoved(s *store, v *fsm.View, from, to string) bool {
	rest, ok := strings.CutPrefix(v.Key, from)
	return ok && (rest == "" || rest[0] == '/') && w.has(s, to+rest, v.Attr.Fingerprint)
}

func (w *world) has(s *store, key, fingerprint string) bool {
	i, err := s.raw.Stat(context.Background(), key)
	return err == nil && !i.Dir && i.Fingerprint == fingerprint
}

// compare holds the namespace against the stores, and adds what the namespace
// shows in the end to the history.
func (w *world) compare() {
	tree := model.Tree{"/": {Dir: true}, "/p": {Dir: true}, "/o": {Dir: true}}
	have := map[string]bool{}
	names := map[uint64][]string{} // of files with several
	w.walk(func(p string, v *fsm.View) {
		s := w.storeAt(p)
		if s == nil {
			return
		}
		n := nodeOf(v.Attr)
		if n.Names > 1 {
			names[v.Attr.Ino] = append(names[v.Attr.Ino], p)
		}
		tree[p] = n
		key := strings.TrimPrefix(p, s.name+"/")
		if v.Alias {
			// What strangers have put there is none of the namespace's.
			have[s.name+":"+key] = w.plan.Faults.Strangers > 0
			return
		}
		if v.Key != key {
			w.broken("key", "%s has the key %q when nothing is on its way", p, v.Key)
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

// stop ends everything, whatever state it is in.
func (w *world) stop() {
	w.healing = true
	if w.life != nil {
		w.mu.Lock()
		w.life.over, w.leader = true, nil
		w.mu.Unlock()
	}
	closed := make(chan struct{})
	if l := w.life; l != nil && l.svc != nil {
		go func() {
			_ = l.svc.Close()
			close(closed)
		}()
	} else {
		close(closed)
	}
	for w.settle(); ; w.settle() {
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
				w.journal.close()
				w.settle()
				return
			}
		default:
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
		Init: func() []any { return []any{origin()} },
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

// step returns the trees that an operation with this answer may leave.
func (w *world) outcomes(t model.Tree, e *event) []model.Tree {
	switch e.verb {
	case "undelete", "purge":
		return stepTrash(t, e)
	}
	after := t.Clone()
	var k orca.Kind
	o := e.op
	switch e.verb {
	case "mkdir":
		k = after.Mkdir(o.Path, dirMode, o.Parents)
	case "touch":
		k = after.Put(o.Path, model.Node{Mode: fileMode}, o.Overwrite)
	case "create":
		k = after.Create(o.Path, o.Overwrite)
	case "complete":
		k = after.Put(o.Path, model.Node{Length: o.Length, Mode: fileMode, Min: o.Copies}, true)
		if e.unknown && k == orca.OK && o.Copies > 0 {
			// What a dead session has uploaded is taken in as any change of the
			// store is: by its content.
			found := t.Clone()
			found.Put(o.Path, model.Node{Length: o.Length, Mode: fileMode}, true)
			return []model.Tree{t, after, found}
		}
	case "rename":
		k = after.Rename(o.Path, o.Dst)
	case "link":
		k = after.Link(o.Path, o.Dst)
	case "exchange":
		k = after.Exchange(o.Path, o.Dst)
	case "delete":
		var all []model.Tree
		if all, k = w.discards(t, o); k == orca.OK && (e.kind == orca.OK || e.unknown) {
			if e.unknown {
				all = append(all, t)
			}
			return all
		}
	case "chmod":
		k = after.Chmod(o.Path, o.Mode)
	case "quota": // the model has none: what they refuse is taken as it is
		var n model.Node
		if n, k = t.Find(o.Path); k == orca.OK && !n.Dir {
			k = orca.NotDir
		}
	case "keep":
		k = after.Keep(o.Path, o.Copies)
	case "stat":
		var n model.Node
		n, k = t.Find(o.Path)
		if n.Peer = ""; k == orca.OK && e.kind == orca.OK && n != e.node {
			return nil
		}
	case "list":
		var n model.Node
		if n, k = t.Find(o.Path); k == orca.OK && !n.Dir {
			k = orca.NotDir
		}
		if k == orca.OK && e.kind == orca.OK && !slices.Equal(t.Children(o.Path), e.names) {
			return nil
		}
	case "tree":
		if w.plan.Keep != 0 && w.plan.Keep != forLong {
			t = untrashed(t) // it has expired
		}
		if !maps.Equal(t, withRoots(t, e.tree)) {
			return nil
		}
	}
	switch {
	case e.kind == orca.OverQuota:
		return []model.Tree{t}
	case e.unknown && k == orca.OK:
		return []model.Tree{t, after}
	case e.unknown:
		return []model.Tree{t}
	case k != e.kind:
		return nil
	case k != orca.OK:
		return []model.Tree{t}
	}
	return []model.Tree{after}
}

// withRoots takes over from t what is not compared: the mount points.
func withRoots(t, shown model.Tree) model.Tree {
	out := shown.Clone()
	for _, p := range []string{"/", "/p", "/o"} {
		out[p] = t[p]
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
