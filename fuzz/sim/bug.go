// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"

	"google.golang.org/protobuf/proto"

	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs/wrap"
)

// Bug is a defect planted around the product's code, to show that the
// simulator finds it. The fields that are set act; all of them are pure.
type Bug struct {
	Name string
	// Plan draws the plans that may show it; nil: NewPlan.
	Plan func(seed uint64) *Plan
	// Command changes a command (a copy) on its way into the journal.
	Command func(c *command.Command)
	// After returns a command that is committed right behind one that came to
	// r; nil: none.
	After func(c *command.Command, r *command.Result) *command.Command
	// Call stands in the way of a call of a store.
	Call func(ctx context.Context, c wrap.Call, do func(context.Context) error) error
	// Expect changes what a worker expects at the key that it uploads to.
	Expect func(string) string
	// Join answers for a group that it has taken a mount; nil: it is asked.
	Join func(r *metapb.MountRequest) *metapb.MountReply
	// Part changes what a group is asked to give back, and reports whether it is
	// said to have done so without being asked. has: it has it.
	Part func(r *metapb.UnmountRequest, has bool) bool
	// Hand stands between the group of a file and the one that it goes to; nil: it
	// asks.
	Hand func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error)
	// Stage stands between the first group and the one that a directory moves to.
	Stage func(r *metapb.StageRequest, ask func(*metapb.StageRequest) (*metapb.StageReply, error)) (*metapb.StageReply, error)
	// Depart stands between the first group and one that a part leaves.
	Depart func(r *metapb.DepartRequest, ask func(*metapb.DepartRequest) (*metapb.DepartReply, error)) (*metapb.DepartReply, error)
	// With is Command that knows the machine as it is before.
	With func(m *fsm.Machine, c *command.Command)
	// Hasty: who follows answers without having applied what was committed.
	Hasty bool
	// SkipsEntry: after a power cut the replay begins one entry too late.
	SkipsEntry bool
}

func (b *Bug) plan(seed uint64) *Plan {
	if b.Plan == nil {
		return NewPlan(seed)
	}
	return b.Plan(seed)
}

func (b *Bug) onCommand(m *fsm.Machine, c *command.Command) *command.Command {
	if b == nil || b.Command == nil && b.With == nil {
		return c
	}
	c = proto.Clone(c).(*command.Command)
	if b.Command != nil {
		b.Command(c)
	}
	if b.With != nil {
		b.With(m, c)
	}
	return c
}

func (b *Bug) onHand(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
	if b == nil || b.Hand == nil || o.Tx == 0 {
		return ask(o)
	}
	return b.Hand(o, ask)
}

func (b *Bug) onStage(r *metapb.StageRequest, ask func(*metapb.StageRequest) (*metapb.StageReply, error)) (*metapb.StageReply, error) {
	if b == nil || b.Stage == nil {
		return ask(r)
	}
	return b.Stage(r, ask)
}

func (b *Bug) onDepart(r *metapb.DepartRequest, ask func(*metapb.DepartRequest) (*metapb.DepartReply, error)) (*metapb.DepartReply, error) {
	if b == nil || b.Depart == nil {
		return ask(r)
	}
	return b.Depart(r, ask)
}

func (b *Bug) after(c *command.Command, r *command.Result) *command.Command {
	if b == nil || b.After == nil {
		return nil
	}
	return b.After(c, r)
}

func (b *Bug) onCall(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
	if b == nil || b.Call == nil {
		return do(ctx)
	}
	return b.Call(ctx, c, do)
}

func (b *Bug) onExpect(s string) string {
	if b == nil || b.Expect == nil {
		return s
	}
	return b.Expect(s)
}

func (b *Bug) onJoin(r *metapb.MountRequest) *metapb.MountReply {
	if b == nil || b.Join == nil {
		return nil
	}
	return b.Join(r)
}

func (b *Bug) onPart(r *metapb.UnmountRequest, has bool) bool {
	return b != nil && b.Part != nil && b.Part(r, has)
}

func (b *Bug) hasty() bool { return b != nil && b.Hasty }

func (b *Bug) skipsEntry() bool { return b != nil && b.SkipsEntry }
