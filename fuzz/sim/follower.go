// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/metawire"
)

// NewFollowersPlan draws a plan in which one or two members follow the one that
// leads, and answer reads. There are more reads in it.
func NewFollowersPlan(seed uint64) *Plan {
	p := NewPlan(seed)
	r := rand.New(rand.NewPCG(seed, 13))
	p.Followers = 1 + r.IntN(2)
	p.Faults.Strangers = 0
	for i, ops := range p.Clients {
		var more []Op
		for _, o := range ops {
			more = append(more, o)
			if o.Verb != "quota" && r.IntN(2) == 0 {
				more = append(more, Op{Verb: []string{"stat", "list"}[r.IntN(2)], Path: []string{o.Path, p.path(r, o.Path[:2])}[r.IntN(2)]})
			}
		}
		p.Clients[i] = more
	}
	return p
}

// follower is a member that does not lead: it applies what is committed, later,
// and answers reads. It is the metaserver.Group of its service.
type follower struct {
	alone
	g       *group
	number  uint64
	journal *journal // what it has applied of the group's
	svc     *metaserver.Service
	effects chan fsm.Effect
	changed chan struct{}
	applied chan struct{} // closed when more is; GUARDED_BY(world.mu)
}

var _ metaserver.Group = (*follower)(nil)

func newFollower(g *group, number uint64) *follower {
	f := &follower{g: g, number: number, journal: &journal{w: g.w, g: g, disk: inodekv.NewDisk()},
		effects: make(chan fsm.Effect, 1<<12), changed: make(chan struct{}), applied: make(chan struct{})}
	f.journal.open()
	return f
}

// serve starts its service. It proposes nothing, so nothing waits.
func (f *follower) serve() {
	svc, err := metaserver.New(context.Background(), metaserver.Config{Group: f.g.number}, f,
		(&life{w: f.g.w, g: f.g}).openStore, quiet)
	if err != nil {
		f.g.w.broken("start", "%v", err)
	}
	f.svc = svc
}

// follows has one member apply a little.
func (g *group) follows() {
	f := g.members[g.w.rng.IntN(len(g.members))]
	f.apply(1 + g.w.rng.IntN(6))
}

// catchUp has all members apply what there is.
func (g *group) catchUp() {
	for _, f := range g.members {
		f.apply(len(g.journal.entries))
	}
}

// apply applies up to n entries.
func (f *follower) apply(n int) {
	m, w := f.journal.machine, f.g.w
	todo := f.g.journal.entries[m.Applied():]
	if todo = todo[:min(n, len(todo))]; len(todo) == 0 {
		return
	}
	outs, err := m.Apply(todo)
	if err == nil {
		err = m.Check()
	}
	if err != nil {
		w.broken("follow", "member %d: %v", f.number, err)
		return
	}
	w.tracef("%sMEMBER %d has applied %d", f.g.prefix(), f.number, m.Applied())
	for i := range outs {
		for _, e := range outs[i].Effects {
			select {
			case f.effects <- e:
			default:
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(f.applied)
	f.applied = make(chan struct{})
}

// read is a request that any member may answer.
type read interface {
	message
	metawire.Request
}

// readAny asks the member whose turn it is, as a client does that reads from any;
// ok is false when that left it to the leader.
func readAny[Q read, R any](ctx context.Context, n *wire, op metawire.Op, what string, r Q, o *metapb.SyncOption, call func(metaplane.Namespace, context.Context, Q) (*R, error)) (p *R, err error, ok bool) { //nolint:revive // the error is the service's
	if len(n.g.members) == 0 || n.from != nil || o.GetMode() == 2 {
		return nil, nil, false
	}
	n.turn++
	i := n.turn % (len(n.g.members) + 1)
	if i == len(n.g.members) {
		return nil, nil, false
	}
	w, f := n.w, n.g.members[i]
	label := fmt.Sprintf("%s: %s%s at member %d", n.client, f.g.prefix(), what, f.number)
	if w.wait(ctx, &gate{kind: gateSend, label: label}) == fail {
		return nil, nil, false
	}
	q := proto.Clone(r).(Q)
	q.GetH().AnyMember = true
	if err = f.svc.Admit(op, q); err == nil {
		p, err = call(f.svc, ctx, q)
	}
	switch k := orca.KindOf(err); {
	case w.wait(ctx, &gate{kind: gateReply, label: label + " answers " + k.String()}) != pass, k.Retryable(), k == orca.Canceled:
		return nil, nil, false
	}
	return p, err, true
}

// ReadReady implements metaserver.Group: it learns what was committed, and waits
// until it has applied that.
func (f *follower) ReadReady(ctx context.Context) error {
	w := f.g.w
	lead := f.g.serving()
	if lead == nil {
		return down("ReadReady")
	}
	x := &gate{kind: gateRead, life: lead, label: fmt.Sprintf("%s%smember %d asks what is committed", f.g.prefix(), who(ctx), f.number)}
	if w.wait(ctx, x) != pass {
		return down("ReadReady")
	}
	for {
		applied := f.moved()
		if w.bug.hasty() || f.journal.machine.Applied() >= uint64(x.index) {
			return nil
		}
		select {
		case <-applied:
		case <-ctx.Done():
			return orca.PathE("sim.ReadReady", "", orca.Timeout, ctx.Err())
		}
	}
}

// moved is closed when more is applied.
func (f *follower) moved() <-chan struct{} {
	f.g.w.mu.Lock()
	defer f.g.w.mu.Unlock()
	return f.applied
}

// Alone implements metaserver.Group.
func (f *follower) Alone() bool { return false }

// Replica implements metaserver.Group.
func (f *follower) Replica() uint64 { return f.number }

// Leader implements ufsexec.Group.
func (f *follower) Leader() (leading bool, term uint64) { return false, 1 }

// LeaderChanged implements ufsexec.Group.
func (f *follower) LeaderChanged() <-chan struct{} { return f.changed }

// Machine implements ufsexec.Group.
func (f *follower) Machine() *fsm.Machine { return f.journal.machine }

// Propose implements ufsexec.Group; nobody proposes here.
func (f *follower) Propose(_ context.Context, c *command.Command) (*command.Result, error) {
	f.g.w.broken("follow", "member %d proposes %s", f.number, describe(c))
	return nil, errAlone
}

// ReadProven implements metaserver.Group.
func (f *follower) ReadProven() bool { return false }

// Start implements metaserver.Group.
func (f *follower) Start(*command.Command, time.Time, command.Waiter) error { return errAlone }

// Effects implements metaserver.Group.
func (f *follower) Effects() <-chan fsm.Effect { return f.effects }

// Watch implements metaserver.Group; nobody watches here.
func (f *follower) Watch(ctx context.Context, cursor uint64) (events []fsm.Event, next uint64, lost bool) {
	<-ctx.Done()
	return nil, cursor, false
}
