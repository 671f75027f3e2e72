// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

// between is the way of a coordinator to those of other groups. Its messages
// fare as those of clients do. A request that is being served goes on when the
// coordinator that sent it ends: nothing tells who serves it.
type between struct {
	metaplane.Namespace // nil: what is not overridden is not called here
	l                   *life
	to                  *group
}

// session returns the session for what a request does: each has one of its own,
// so that the numbers do not depend on which of two is faster. does tells apart
// what is not done for a client.
func (b *between) session(ctx context.Context, does string) *metaclient.Session {
	w := b.l.w
	again, _ := ctx.Value(againKey{}).(int)
	name, _ := ctx.Value(whoKey{}).(string)
	key := fmt.Sprintf("%s%s %d>%d", name, does, again, b.to.number)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := b.l.others[key]; s != nil {
		return s
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", key, b.l.term)
	r := rand.New(rand.NewPCG(w.plan.Seed, h.Sum64()))
	var mu sync.Mutex
	s := metaclient.NewSession(&wire{w: w, g: b.to, from: b.l, client: who(ctx) + b.l.g.prefix() + "to " + b.to.prefix()}, metaclient.SessionConfig{
		Group: b.to.number, MutationPatience: 30 * time.Second, ReadPatience: 10 * time.Second, Chance: func(n uint64) uint64 {
			mu.Lock()
			defer mu.Unlock()
			return r.Uint64N(n)
		}})
	b.l.others[key] = s
	return s
}

// once names what a coordinator does by itself, so that what comes of it in the
// other group is told apart from what it has done there before, and from what an
// earlier one has.
func (b *between) once(ctx context.Context, does string) context.Context {
	w := b.l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	b.l.asked[does]++
	return context.WithValue(ctx, whoKey{}, fmt.Sprintf("%s.%d.%d", does, b.l.term, b.l.asked[does]))
}

// whichever is for a step of a junction. Only one takes it, and when a request has come
// twice and both wait for the same, which of them does is not the seed's to say.
func whichever(ctx context.Context) context.Context { return context.WithValue(ctx, againKey{}, 0) }

// Stat implements metaplane.Reader: a rename looks where its target lives.
func (b *between) Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	return b.session(ctx, "").Stat(ctx, r)
}

// Mount implements metaplane.Mounts.
func (b *between) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	if p := b.l.w.bug.onJoin(r); p != nil {
		return p, nil
	}
	if r.Mount.Junction == metapb.JunctionState_JUNCTION_STAGED {
		ctx = b.once(ctx, "moves")
	}
	ctx = whichever(ctx)
	return b.session(ctx, "").Mount(ctx, r)
}

// Unmount implements metaplane.Mounts.
func (b *between) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	if b.l.w.bug.onPart(r, b.to.row(r.Id) != nil) {
		return &metapb.Empty{}, nil
	}
	if r.Path == "" {
		ctx = b.once(ctx, "clears")
	}
	ctx = whichever(ctx)
	return b.session(ctx, "").Unmount(ctx, r)
}

// Stage implements metaplane.Mounts: what is in a directory that moves to another
// group, or is renamed to one. In plans of old, none is.
func (b *between) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	if r.Tx != 0 && b.l.w.plan.Apart {
		return nil, orca.E("sim.Stage", orca.CrossMount, "")
	}
	ctx = b.once(ctx, "moves")
	return b.l.w.bug.onStage(r, func(r *metapb.StageRequest) (*metapb.StageReply, error) { return b.session(ctx, "").Stage(ctx, r) })
}

// Depart implements metaplane.Mounts: the steps of a move away from a group, and
// pages. What is looked at before a move begins is for the client that asks for it.
func (b *between) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	if o := r.Op; o.Part != 0 {
		ctx = b.once(ctx, fmt.Sprintf("d%d.%d", o.Part, o.Step))
	}
	return b.l.w.bug.onDepart(r, func(r *metapb.DepartRequest) (*metapb.DepartReply, error) { return b.session(ctx, "").Depart(ctx, r) })
}

// List implements metaplane.Reader. It is only asked for to empty a part, so one
// without names comes before its removal, of which the client learns nothing.
func (b *between) List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	began := b.l.w.now()
	p, err := b.session(ctx, "").List(ctx, r)
	if err == nil && len(p.Entries) == 0 {
		if path := b.pathOf(r.Target.Ino); path != "" {
			b.l.w.unseen(event{client: 97, op: Op{Verb: "delete", Path: path}, verb: "delete", call: began, ret: never, unknown: true})
		}
	}
	return p, err
}

// Delete implements metaplane.Writer: a name in a part goes for a client that
// removes what is above.
func (b *between) Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	w, path := b.l.w, b.pathOf(r.Target.Ino)
	e := event{client: 97, op: Op{Verb: "delete", Path: orca.JoinPath(path, r.Target.Path), Recursive: true}, verb: "delete", call: w.now()}
	p, err := b.session(ctx, "").Delete(ctx, r)
	switch e.kind = orca.KindOf(err); {
	case path == "":
	case err == nil:
		e.ret = w.now()
		w.unseen(e)
	case e.kind.Retryable() || e.kind == orca.Canceled || e.kind == orca.UFSFailure || e.kind == orca.Internal:
		e.unknown, e.ret = true, never
		w.unseen(e)
	}
	return p, err
}

// pathOf returns the path of the part that has or had this root; "" if there is none.
func (b *between) pathOf(root uint64) string {
	for _, r := range b.l.machine.Mounts() {
		if r.Mount.Root == root {
			return r.Mount.Path
		}
	}
	b.l.w.mu.Lock()
	defer b.l.w.mu.Unlock()
	return b.l.w.was[root] // it has moved on
}

// now ticks the clock of the history.
func (w *world) now() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock++
	return w.clock
}

// unseen notes what was done for a client, of which it hears no more than what
// comes of the whole.
func (w *world) unseen(e event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, e)
}

// Transfer implements metaplane.Groups. In plans of old, files do not go between
// groups: who is asked refuses, as it does when the two directories are of
// different mounts.
func (b *between) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	does := fmt.Sprintf("g%d tells", max(b.l.g.number, 1))
	switch {
	case r.Op.Tx != 0 && b.l.w.plan.Apart:
		return &metapb.TransferReply{Record: &metapb.TransferRecord{Tx: r.Op.Tx, Kind: uint32(orca.CrossMount)}}, nil
	case b.l.w.plan.Apart:
		return &metapb.TransferReply{}, nil
	case r.Op.Tx != 0:
		does = "t" + number(r.Op.Tx)
	}
	ctx = b.once(ctx, does)
	return b.l.w.bug.onHand(r.Op, func(o *metapb.TransferOp) (*metapb.TransferReply, error) {
		return b.session(ctx, "").Transfer(ctx, &metapb.TransferRequest{H: r.H, Op: o})
	})
}

// Quorum implements metaplane.Cluster. It is only asked for to learn whether
// somebody leads the group.
func (b *between) Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	_, err := b.session(ctx, "").Stat(ctx, &metapb.StatRequest{H: r.H, Target: &metapb.Target{Ino: uint64(orca.RootIno)}})
	if orca.KindOf(err).Retryable() {
		return nil, err
	}
	return &metapb.QuorumReply{}, nil
}
