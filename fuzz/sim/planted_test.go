// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs/wrap"
)

// bugs are defects as they have been made, or nearly, in systems like this
// one. Each stands in the way of the product's own code.
var bugs = []Bug{
	{Name: "results are not remembered", Command: func(c *command.Command) {
		c.Client, c.Seq = 0, 0
	}},
	{Name: "a deferred rename takes neither mask nor override", After: func(c *command.Command, r *command.Result) *command.Command {
		if c.Rename == nil || r.Intent.GetOp() != metapb.IntentOp_INTENT_MOVE {
			return nil
		}
		return &command.Command{Now: c.Now, FinishIntent: &metapb.FinishIntentOp{Intent: r.Intent.Id}}
	}},
	{Name: "a move deletes its source whatever is at the target", Call: func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
		if c.Op == wrap.Copy {
			return nil
		}
		return do(ctx)
	}},
	{Name: "a sync ignores what changed since its question", Command: func(c *command.Command) {
		if c.SyncApply != nil {
			c.SyncApply.Change = math.MaxInt64
		}
	}},
	{Name: "the replay begins one entry late", SkipsEntry: true},
	{Name: "a worker does not say how long its upload is", Command: func(c *command.Command) {
		if c.Renew.GetFence() != 0 {
			c.Renew.Length = 0
		}
	}},
	{Name: "a delete keeps nothing", Plan: NewTrashPlan, Command: func(c *command.Command) {
		if c.Delete != nil {
			c.Delete.SkipTrash = true
		}
	}},
	{Name: "a restore forgets a name in what comes back", Plan: NewTrashPlan, Call: func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
		if c.Op == wrap.Copy && inTrash(c.Key) && strings.HasSuffix(c.Key, "/b") {
			return nil
		}
		return do(ctx)
	}},
	{Name: "to empty the trash removes what has been restored meanwhile", Plan: NewTrashPlan, After: func(c *command.Command, r *command.Result) *command.Command {
		if c.PurgeTrash == nil || len(c.PurgeTrash.Inos) != 1 || r.Kind != 0 || len(r.Ids) > 0 {
			return nil
		}
		return &command.Command{Now: c.Now, Delete: &metapb.DeleteOp{Target: &metapb.Target{Ino: c.PurgeTrash.Inos[0]}, Recursive: true, SkipTrash: true}}
	}},
}

// groupBugs are those of several groups, and of members that follow.
var groupBugs = []Bug{
	{Name: "a row goes active before the mount is in its group", Plan: NewGroupsPlan, Join: func(r *metapb.MountRequest) *metapb.MountReply {
		m := proto.Clone(r.Mount).(*metapb.Mount)
		m.Root = uint64(orca.NewIno(uint16(m.Group), 1000))
		return &metapb.MountReply{Mount: m}
	}},
	{Name: "a part goes without a look at what is in it", Plan: NewGroupsPlan, Part: func(r *metapb.UnmountRequest, _ bool) bool {
		r.Empty = false
		return false
	}},
	{Name: "a part that is not empty is removed by the first look alone", Plan: NewGroupsPlan, Part: func(r *metapb.UnmountRequest, _ bool) bool {
		r.Empty = false
		return false
	}, Command: func(c *command.Command) {
		if c.Delete != nil && c.Delete.Target.GetPath() == "" {
			c.Checks, c.Delete.Recursive = 0, true
		}
	}},
	{Name: "a number that the group does not have is not forgotten", Plan: apartPlan, Part: func(_ *metapb.UnmountRequest, has bool) bool {
		return !has
	}},
	{Name: "a number is used again", Plan: NewGroupsPlan, Command: func(c *command.Command) {
		if m := c.Mount.GetMount(); m.GetId() > 3 {
			m.Id = 3
		}
	}},
	{Name: "the first group believes that a part has gone which its group keeps", Plan: NewGroupsPlan, Part: func(*metapb.UnmountRequest, bool) bool { return true }},
	{Name: "who follows answers before it has applied what was committed", Plan: NewFollowersPlan, Hasty: true},
}

// apartPlan draws plans of groups that take no files of each other.
func apartPlan(seed uint64) *Plan {
	p := NewGroupsPlan(seed)
	p.Apart = true
	return p
}

// refused answers for a group that what comes would be across mounts.
func refused(o *metapb.TransferOp) *metapb.TransferReply {
	return &metapb.TransferReply{Record: &metapb.TransferRecord{Tx: o.Tx, Kind: uint32(orca.CrossMount)}}
}

// betweenBugs are those of files and directories that go to other groups.
var betweenBugs = []Bug{
	{Name: "a target decides as often as it is asked", Plan: NewTransfersPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		tx := o.Tx
		o = proto.Clone(o).(*metapb.TransferOp)
		o.Tx += uint64(time.Now().UnixMicro()-946_684_800_000_000) << 12 // another number each time
		r, err := ask(o)
		if r.GetRecord() != nil {
			r.Record.Tx = tx
			_, _ = ask(&metapb.TransferOp{DoneBelow: o.Tx + 1})
		}
		return r, err
	}},
	{Name: "a source gives up by itself when it has no answer", Plan: NewTransfersPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		r, err := ask(o)
		if err != nil {
			return &metapb.TransferReply{Record: &metapb.TransferRecord{Tx: o.Tx, Kind: uint32(orca.Unavailable)}}, nil
		}
		return r, nil
	}},
	{Name: "a decision is forgotten as soon as it is made", Plan: NewTransfersPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		r, err := ask(o)
		if err == nil {
			_, _ = ask(&metapb.TransferOp{DoneBelow: o.Tx + 1})
		}
		return r, err
	}},
	{Name: "a source takes no note, so that decisions stay for ever", Plan: NewTransfersPlan, Command: func(c *command.Command) {
		if c.Transfer != nil {
			c.Transfer.DoneBelow = 0
		}
	}},
	{Name: "a file goes without its extended attributes", Plan: NewTransfersPlan, Command: func(c *command.Command) {
		if c.Transfer != nil {
			c.Transfer.Xattrs = nil
		}
	}},
	{Name: "a directory is switched before it is sealed", Plan: NewMovesPlan, Stage: func(r *metapb.StageRequest, ask func(*metapb.StageRequest) (*metapb.StageReply, error)) (*metapb.StageReply, error) {
		if r.Seal != nil {
			return &metapb.StageReply{}, nil
		}
		return ask(r)
	}},
	{Name: "a move does not mask what is below it from syncs", Plan: NewMovesPlan, With: func(m *fsm.Machine, c *command.Command) {
		if all := m.Regroups(); c.SyncApply != nil && c.SyncApply.Intent == 0 && len(all) > 0 {
			c.SyncApply.Intent = all[0].Id
		}
	}},
	{Name: "a move forgets extended attributes", Plan: NewMovesPlan, Stage: func(r *metapb.StageRequest, ask func(*metapb.StageRequest) (*metapb.StageReply, error)) (*metapb.StageReply, error) {
		withoutXattrs(r.Pages)
		return ask(r)
	}},
	{Name: "a directory is renamed without extended attributes", Plan: NewTreesPlan, Stage: func(r *metapb.StageRequest, ask func(*metapb.StageRequest) (*metapb.StageReply, error)) (*metapb.StageReply, error) {
		withoutXattrs(r.Pages)
		return ask(r)
	}},
	{Name: "a group takes no directories", Plan: NewTreesPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		if o.Dir {
			return refused(o), nil
		}
		return ask(o)
	}},
	{Name: "what a move that was given up has brought stays", Plan: NewMovesPlan, Part: func(r *metapb.UnmountRequest, _ bool) bool { return r.Path == "" }},
}

// withoutXattrs takes from what is staged what is kept in extended attributes.
func withoutXattrs(pages []*metapb.StagedPage) {
	for _, p := range pages {
		for _, e := range p.Entries {
			e.Xattrs = nil
		}
	}
}

// returnBugs are those of directories that move on to other groups and come home.
var returnBugs = []Bug{
	{Name: "a part is read where it was until its group hears that it has moved", Plan: NewReturnsPlan, Depart: func(r *metapb.DepartRequest, ask func(*metapb.DepartRequest) (*metapb.DepartReply, error)) (*metapb.DepartReply, error) {
		switch r.Op.Step {
		case metapb.DepartStep_DEPART_CLOSE:
			return &metapb.DepartReply{}, nil
		case metapb.DepartStep_DEPART_LEAVE:
			late := proto.Clone(r).(*metapb.DepartRequest)
			late.Op.Step = metapb.DepartStep_DEPART_CLOSE
			_, _ = ask(late)
		}
		return ask(r)
	}},
	{Name: "a group is not told that a part stays", Plan: NewReturnsPlan, Depart: func(r *metapb.DepartRequest, ask func(*metapb.DepartRequest) (*metapb.DepartReply, error)) (*metapb.DepartReply, error) {
		if r.Op.Step == metapb.DepartStep_DEPART_LIFT {
			return &metapb.DepartReply{}, nil
		}
		return ask(r)
	}},
	{Name: "a group is not told that a part has moved on", Plan: NewReturnsPlan, Depart: func(r *metapb.DepartRequest, ask func(*metapb.DepartRequest) (*metapb.DepartReply, error)) (*metapb.DepartReply, error) {
		if r.Op.Step == metapb.DepartStep_DEPART_LEAVE {
			return &metapb.DepartReply{}, nil
		}
		return ask(r)
	}},
	{Name: "what comes home has no extended attributes", Plan: NewReturnsPlan, Command: func(c *command.Command) {
		if c.Stage.GetTx() != 0 {
			withoutXattrs(c.Stage.Pages)
		}
	}},
	{Name: "a part that moves on is not masked from syncs", Plan: NewReturnsPlan, With: func(m *fsm.Machine, c *command.Command) {
		for _, it := range m.Regroups() {
			if c.SyncApply != nil && c.SyncApply.Intent == 0 && it.Source == "" { // all of a mount
				c.SyncApply.Intent = it.Id
			}
		}
	}},
}

// exchangeBugs are those of names of different groups that change places.
var exchangeBugs = []Bug{
	{Name: "what comes back from an exchange has no extended attributes", Plan: NewExchangesPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		r, err := ask(o)
		if back := r.GetRecord().GetBack(); back != nil {
			back.Xattrs = nil
		}
		return r, err
	}},
	{Name: "the source of an exchange gets back what it gave", Plan: NewExchangesPlan, With: func(m *fsm.Machine, c *command.Command) {
		if c.Decide.GetBack() != nil {
			c.Decide.Back, _ = m.Transfer(c.Decide.Intent)
		}
	}},
	{Name: "a source gives an exchange up by itself when it has no answer", Plan: NewExchangesPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		r, err := ask(o)
		if err != nil && o.Exchange {
			return &metapb.TransferReply{Record: &metapb.TransferRecord{Tx: o.Tx, Kind: uint32(orca.Unavailable)}}, nil
		}
		return r, err
	}},
	{Name: "a group changes nothing for what comes", Plan: NewExchangesPlan, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		if o.Exchange {
			return refused(o), nil
		}
		return ask(o)
	}},
	{Name: "an exchange holds no room for what comes back", Plan: NewExchangesPlan, Command: func(c *command.Command) {
		if c.Rename.GetAway() != nil {
			c.Rename.AwayBytes = 0
		}
	}, Hand: func(o *metapb.TransferOp, ask func(*metapb.TransferOp) (*metapb.TransferReply, error)) (*metapb.TransferReply, error) {
		o = proto.Clone(o).(*metapb.TransferOp)
		o.Room = math.MaxInt64
		return ask(o)
	}},
}

// TestPlantedBugsAreCaught plants one bug at a time and runs seeds until one
// of them shows it.
func TestPlantedBugsAreCaught(t *testing.T) {
	const most = 1000
	bugs := slices.Concat(bugs, groupBugs, betweenBugs, returnBugs, exchangeBugs)
	for i := range bugs {
		t.Run(bugs[i].Name, func(t *testing.T) {
			for seed := uint64(1); seed <= most; seed++ {
				if f := Play(t, bugs[i].plan(seed), &bugs[i]).Failure; f != nil {
					t.Logf("caught: %v", f)
					if f := Play(t, bugs[i].plan(seed), nil).Failure; f != nil {
						t.Fatalf("but without the bug, too: %v", f)
					}
					return
				}
			}
			t.Fatalf("not caught within %d seeds", most)
		})
	}
}
