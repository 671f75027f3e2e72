// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
)

// Bits of Command.checks.
const (
	checkNames   = uint32(metapb.CommandCheck_CHECK_NAMES)
	checkContent = uint32(metapb.CommandCheck_CHECK_CONTENT)
)

// change is mutate of a command that depends on what the UFS has (it says on
// what by its checks), which is asked first. The namespace may be another one
// by the time the command is applied: then the state machine sends it back as
// unknown, and it is asked again.
func (s *Service) change(ctx context.Context, h *metapb.Header, c *command.Command) (*command.Result, error) {
	s.sign(h, c)
	if err := s.learn(ctx, c); err != nil {
		return nil, err
	}
	c.Now = now()
	res, err := s.group.Propose(ctx, c)
	return s.see(ctx, c, res, err)
}

// learn makes known from the UFS what a command depends on, so that it cannot
// overwrite what the namespace has not seen, and notes in it what is missing
// there. What the walk refuses is left to the state machine.
func (s *Service) learn(ctx context.Context, c *command.Command) error {
	if !s.mayPropose() {
		if err := s.group.ReadReady(ctx); err != nil {
			return err
		}
	}
	c.Absent = nil
	who := callerIn(c.Caller)
	content, spared := (*metapb.Target)(nil), false
	names := make([]*metapb.Target, 0, 2)
	switch o := c; {
	case o.Create != nil:
		names = append(names, o.Create.Target)
	case o.Mkdir != nil:
		names = append(names, o.Mkdir.Target)
	case o.Rename.GetAway() != nil:
		names = append(names, o.Rename.Src)
	case o.Transfer.GetDst() != nil:
		names = append(names, o.Transfer.Dst)
		if o.Transfer.Dir { // as in a rename
			content = o.Transfer.Dst
		}
	case o.Rename != nil:
		names = append(names, o.Rename.Src, o.Rename.Dst)
		if !o.Rename.Exchange {
			content = o.Rename.Dst
		}
	case o.Link != nil:
		names = append(names, o.Link.Src, o.Link.Dst)
	case o.Delete != nil:
		// Who may detach a directory whole need not know what is in it.
		names, content, spared = append(names, o.Delete.Target), o.Delete.Target, o.Delete.Recursive
	case o.SetAttr != nil:
		names = append(names, o.SetAttr.Target)
	case o.Xattr != nil:
		names = append(names, o.Xattr.Target)
	case o.RestoreTrash != nil:
		names = append(names, o.RestoreTrash.Dst)
	case o.SetQuota != nil:
		names = append(names, o.SetQuota.Target)
	case o.Regroup != nil:
		names = append(names, o.Regroup.Target)
	case o.Mount != nil:
		names = append(names, &metapb.Target{Path: o.Mount.Mount.Path})
	}
	for _, t := range names {
		if err := s.known(ctx, who, t, c); err != nil {
			return err
		}
	}
	if content == nil || c.Checks&checkContent == 0 {
		return nil
	}
	return s.contentKnown(ctx, who, content, spared)
}

// known makes the parent and the name of one target known.
func (s *Service) known(ctx context.Context, who orca.Caller, t *metapb.Target, c *command.Command) error {
	if s.group.Machine().Settled(&who, orca.Ino(t.Ino), t.Path) {
		return nil
	}
	absent, err := s.Syncer.Known(ctx, who, orca.Ino(t.Ino), t.Path)
	if absent != nil {
		c.Absent = append(c.Absent, absent)
	}
	switch orca.KindOf(err) {
	case orca.OK, orca.NotFound, orca.NotDir, orca.NameTooLong, orca.Invalid:
		return nil
	case orca.Busy:
		return nil // the state machine meets the same intent, and says which
	case orca.Referral:
		return nil // the state machine says so, or that a rename crosses mounts
	case orca.Permission:
		return nil // of the namespace; the store's own says so in the mutation
	}
	return err
}

// contentKnown lists a directory that was never listed when the command depends
// on what is in it: it must be empty (an object store would merge the two in a
// rename), or the caller has no right to detach it whole.
func (s *Service) contentKnown(ctx context.Context, who orca.Caller, t *metapb.Target, recursive bool) error {
	w, err := s.group.Machine().Walk(who, orca.Ino(t.Ino), t.Path)
	if err != nil || !w.Found || w.Attr.Type != uint32(orca.TypeDir) || w.Loaded {
		return nil // nothing to list, or the state machine says what is wrong
	}
	if recursive && (who.UID == 0 || who.UID == w.Attr.Uid) {
		return nil
	}
	_, err = s.Syncer.Dir(ctx, &w.View, ufssync.Option{})
	switch orca.KindOf(err) {
	case orca.NotFound, orca.NotDir, orca.Busy:
		return nil // it has gone or is being changed: the state machine looks again
	}
	return err
}
