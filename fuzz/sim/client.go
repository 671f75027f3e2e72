// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"orca"
	"orca/fuzz/model"
	"orca/metaplane"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
	"orca/ufs"
)

// event is one operation of a client, as the history has it.
type event struct {
	client    int
	op        Op
	verb      string // that of op, or create and complete of a write
	call, ret int64  // ret is never when the outcome is unknown
	kind      orca.Kind
	unknown   bool
	node      model.Node // of stat
	names     []string   // of list
	tree      model.Tree // of the last look
}

const never = int64(1) << 60

func (e *event) String() string {
	s := fmt.Sprintf("[%4d..%4d] c%d %-8s", e.call, e.ret, e.client, e.verb)
	if e.ret == never {
		s = fmt.Sprintf("[%4d..    ] c%d %-8s", e.call, e.client, e.verb)
	}
	s += e.op.String() + " -> " + e.kind.String()
	switch {
	case e.unknown:
		s += ", may or may not have happened"
	case e.verb == "stat" && e.kind == orca.OK:
		s += fmt.Sprintf(" dir=%v length=%d mode=%o names=%d copies=%d", e.node.Dir, e.node.Length, e.node.Mode, e.node.Names, e.node.Min)
	case e.verb == "list" && e.kind == orca.OK:
		s += fmt.Sprintf(" %v", e.names)
	case e.tree != nil:
		s += fmt.Sprintf(" %v", e.tree)
	}
	return s
}

// client does what the plan says for it.
type client struct {
	w   *world
	id  int
	ns  metaplane.Namespace
	ctx context.Context //nolint:containedctx // a client lives as long as the run
}

func (w *world) newClient(id int) *client {
	name := fmt.Sprintf("c%d", id)
	var mu sync.Mutex
	// Who comes again with the same number is somebody new.
	r := rand.New(rand.NewPCG(w.plan.Seed, uint64(100+id+1000*w.came[id])))
	w.came[id]++
	cfg := metaclient.SessionConfig{MutationPatience: 30 * time.Second, ReadPatience: 10 * time.Second, Chance: func(n uint64) uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64N(n)
	}}
	to := func(g *group, number uint16) *metaclient.Session {
		cfg.Group = number
		return metaclient.NewSession(&wire{w: w, g: g, client: name}, cfg)
	}
	c := &client{w: w, id: id, ctx: context.WithValue(context.Background(), whoKey{}, name)}
	home := to(w.groups[0], 0)
	if c.ns = home; w.plan.Groups > 0 {
		c.ns = metaclient.NewRouter(home, func(n uint16) (*metaclient.Session, error) { return to(w.group(uint32(n)), n), nil })
	}
	return c
}

// clients starts them.
func (w *world) clients() {
	for i, ops := range w.plan.Clients {
		w.join()
		c := w.newClient(i)
		go func() {
			defer w.leave()
			for n, o := range ops {
				if w.wait(c.ctx, &gate{kind: gateStart, label: fmt.Sprintf("c%d: begins %d, %s", i, n, o)}) != pass {
					return
				}
				c.do(o)
			}
		}()
	}
}

// begin notes the call of an operation.
func (c *client) begin(o Op, verb string) *event {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.clock++
	c.w.stats.Ops++
	return &event{client: c.id, op: o, verb: verb, call: c.w.clock}
}

// end notes its answer. What is not one of the kinds that the model knows may
// have happened, or may still.
func (c *client) end(e *event, err error) {
	e.kind = orca.KindOf(err)
	switch e.kind {
	case orca.OK, orca.Invalid, orca.NotFound, orca.Exists, orca.NotDir, orca.IsDir, orca.NotEmpty, orca.CrossMount, orca.OverQuota:
	case orca.Permission:
		e.unknown = e.verb != "link"
	default:
		e.unknown = true
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.clock++
	e.ret = c.w.clock
	switch {
	case !e.unknown:
	case c.w.verbs[e.verb].asks, e.kind == orca.Unsupported:
		return // it says nothing
	default:
		e.ret = never
	}
	c.w.history = append(c.w.history, *e)
}

func at(p string) *metapb.Target { return &metapb.Target{Path: p} }

func (o Op) sync() *metapb.SyncOption {
	if o.Now {
		return &metapb.SyncOption{Mode: 2}
	}
	return nil
}

// Modes of what clients make.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// do does one operation.
func (c *client) do(o Op) {
	x := c.w.verbs[o.Verb]
	if x.run != nil {
		x.run(c, o)
		return
	}
	e := c.begin(o, o.Verb)
	c.end(e, x.do(c, o, e))
}

func nodeOf(a *metapb.Attr) model.Node {
	n := model.Node{Dir: a.Type == uint32(orca.TypeDir), Mode: a.Mode}
	if !n.Dir {
		n.Length, n.Min, n.Link = a.Length, a.ReplicaMin, a.Type == uint32(orca.TypeSymlink)
		if a.Nlink > 1 {
			n.Names = int(a.Nlink)
		}
	}
	return n
}

// content is what a file of a length holds.
func content(n int64) string {
	if n > 1000 {
		return fmt.Sprintf("stranger %d", n)
	}
	s := strings.Repeat(fmt.Sprintf("%d,", n), int(n))
	return s[:n]
}

// write makes a file: as a client, and as the worker that uploads for it.
func (c *client) write(o Op) {
	e := c.begin(o, "create")
	r, err := c.ns.Create(c.ctx, &metapb.CreateRequest{Target: at(o.Path), Mode: fileMode, Overwrite: o.Overwrite, Steal: o.Steal, WriteType: uint32(o.Type), Replicas: o.Copies})
	c.end(e, err)
	if err != nil || o.Die == 1 {
		return
	}
	s, a := r.Session, r.Attr
	// The name may be one of several, and go meanwhile: what the session holds
	// is the one that the store has the content under.
	at := c.w.mounted(s.MountId)
	o.Path = at.store.name + "/" + at.key(s.UfsKey)
	e = c.begin(o, "complete")
	q := &metapb.CompleteRequest{Session: s.Id, Fence: s.Fence, Length: o.Length}
	if o.Type == orca.CacheThrough || o.Type == orca.Through {
		info, may, err := c.upload(s, a, o)
		if err != nil {
			if may {
				c.end(e, err)
			}
			if o.Die == 0 {
				_, _ = c.ns.Abandon(c.ctx, &metapb.AbandonRequest{Session: s.Id, Fence: s.Fence})
			}
			return
		}
		q.Fingerprint, q.Mtime = info.Fingerprint, info.Mtime.UnixNano()
	}
	if o.Die == 3 {
		if q.Fingerprint != "" {
			c.end(e, orca.Unavailable)
		}
		return
	}
	done, err := c.ns.Complete(c.ctx, q)
	if orca.KindOf(err) == orca.Stale && q.Fingerprint == "" {
		return // nobody has it
	}
	c.end(e, err)
	if err == nil && o.Type == orca.AsyncThrough {
		c.persist(done.Attr)
	}
}

// errDied ends the upload of a client that dies.
var errDied = errors.New("the client has died")

// upload is the worker's half of a write; may says that it may have taken
// effect although it failed.
func (c *client) upload(s *metapb.WriteSession, a *metapb.Attr, o Op) (info ufs.Info, may bool, err error) {
	fs, token := c.w.through(c.w.mounted(s.MountId), nil), fmt.Sprintf("%x", s.Id)
	w, err := fs.Create(c.ctx, s.UfsKey, token)
	if err != nil {
		c.until(func() error { return fs.Sweep(c.ctx, s.UfsKey, token) }) // its session may be swept already
		return info, false, err
	}
	defer func() {
		if err != nil && !errors.Is(err, errDied) {
			_ = w.Abort(c.ctx)
		}
	}()
	w.(ufs.Hinted).Hint(ufs.WriteHint{Owned: true, Mode: a.Mode, UID: a.Uid, GID: a.Gid, Expect: c.w.bug.onExpect(s.Expect)})
	if _, err := io.WriteString(w, content(o.Length)); err != nil {
		return info, false, err
	}
	if o.Die == 2 {
		return info, false, errDied
	}
	if _, err := c.ns.Renew(c.ctx, &metapb.RenewRequest{Sessions: []uint64{s.Id}, Fence: s.Fence, Length: o.Length}); err != nil {
		return info, false, err
	}
	info, err = w.Commit(c.ctx)
	k := orca.KindOf(err)
	return info, err != nil && k != orca.Conflict && k != orca.IsDir && k != orca.NotDir && k != orca.Stale, err
}

// persist uploads a file that waits for that, as a worker's job does; what
// fails is left for another try.
func (c *client) persist(a *metapb.Attr) {
	prep, err := c.ns.PersistPrepare(c.ctx, &metapb.PersistPrepareRequest{File: a.Ino, Version: a.Version})
	if err != nil {
		return
	}
	release := func(unsure bool) {
		_, _ = c.ns.PersistCommit(c.ctx, &metapb.PersistCommitRequest{Intent: prep.Intent, Unsure: unsure})
	}
	fs := c.w.through(c.w.mounted(prep.Attr.MountId), nil)
	token := ufsexec.PersistToken(a.Ino, a.Version)
	w, err := fs.Create(c.ctx, prep.UfsKey, token)
	if err != nil {
		c.until(func() error { return fs.Sweep(c.ctx, prep.UfsKey, token) })
		release(false)
		return
	}
	p := prep.Attr
	w.(ufs.Hinted).Hint(ufs.WriteHint{Owned: true, Mode: p.Mode, UID: p.Uid, GID: p.Gid})
	if _, err = io.WriteString(w, content(p.Length)); err == nil {
		var i ufs.Info
		if i, err = w.Commit(c.ctx); err == nil {
			_, _ = c.ns.PersistCommit(c.ctx, &metapb.PersistCommitRequest{Intent: prep.Intent, Fingerprint: i.Fingerprint,
				Mtime: i.Mtime.UnixNano(), Owned: true, Mode: p.Mode, Uid: p.Uid, Gid: p.Gid})
			return
		}
	}
	c.until(func() error { return w.Abort(c.ctx) })
	release(true)
}

// until does something again and again until it succeeds, as it does at the end,
// when the store is back; but when something is broken, there is no such end.
func (c *client) until(do func() error) {
	for do() != nil && !c.w.over() {
		time.Sleep(time.Second)
	}
}
