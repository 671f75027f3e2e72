// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// memberJSON is a line of `orca admin quorum info --json`.
type memberJSON struct {
	Replica  uint64 `json:"replica"`
	Node     string `json:"node"`
	Role     string `json:"role"` // leader, voter or learner
	Address  string `json:"address"`
	RaftAddr string `json:"raft_address"`
}

func (e *env) quorumCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "quorum", Short: "The members of the metaplane",
		Long: `The members of the metaplane, which decide together: one serves, the leader,
and any majority of them can go on. A member is named by its number (replica),
its node or its Raft address.

To replace a member whose disk is lost: remove it, add the Raft address of a
new one, and start that with orca start --role meta --join (see there). It
votes when it has caught up.

All groups (orca admin group) have the same members, but each has a leader of
its own: add and remove are about all of them, and info and transfer about the
one that --group says.`,
		Example: `  orca admin quorum info
  orca admin quorum info --group 2
  orca admin quorum remove 2
  orca admin quorum add 10.0.0.4:18200
  orca admin quorum transfer b`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(
		e.infoVerb(),
		e.quorumVerb("add HOST:PORT", "Let a new member in, that will listen for Raft at HOST:PORT", oneAddress, func(ctx context.Context, fs *client.FS, addr string) error {
			m, err := fs.AddMember(ctx, addr)
			if err != nil {
				return err
			}
			return e.printChange(m, fmt.Sprintf("member %d is to be started: orca start --role meta --raft-addr %s --join %s", m.Replica, m.RaftAddr, fs.MetaAddress()))
		}),
		e.quorumVerb("remove MEMBER", "End a membership, for ever", oneMember, func(ctx context.Context, fs *client.FS, who string) error {
			m, err := findMember(ctx, fs, who)
			if err != nil {
				return err
			}
			if err := fs.RemoveMember(ctx, m.Replica); err != nil {
				return err
			}
			return e.printChange(m, fmt.Sprintf("member %d is none any more", m.Replica))
		}),
		e.transferVerb(),
	)
	return c
}

func (e *env) infoVerb() *cobra.Command {
	var group uint16
	c := e.quorumVerb("info", "List the members, and who leads", noArgs, func(ctx context.Context, fs *client.FS, _ string) error {
		q, err := fs.QuorumIn(ctx, group)
		if err != nil {
			return err
		}
		if err := e.printMembers(q); err != nil || e.json || group > 1 {
			return err
		}
		gs, err := fs.Groups(ctx)
		if err != nil || len(gs) < 2 {
			return err
		}
		if _, err := fmt.Fprintln(e.Out); err != nil {
			return err
		}
		return e.printGroups(gs)
	})
	c.Flags().Uint16Var(&group, "group", 1, "the group that is asked")
	return c
}

func (e *env) transferVerb() *cobra.Command {
	var group uint16
	c := e.quorumVerb("transfer [MEMBER]", "Hand the leadership to a member, or to any other one", func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("want at most one MEMBER")
		}
		return nil
	}, func(ctx context.Context, fs *client.FS, who string) error {
		to := &client.Member{}
		if who != "" {
			var err error
			if to, err = findMember(ctx, fs, who); err != nil {
				return err
			}
		}
		m, err := fs.TransferGroup(ctx, group, to.Replica)
		if err != nil {
			return err
		}
		return e.printChange(m, fmt.Sprintf("member %d leads", m.Replica))
	})
	c.Flags().Uint16Var(&group, "group", 1, "the group whose leader it is about")
	c.Aliases = []string{"elect"}
	return c
}

// quorumVerb makes one of the commands, with one argument at most.
func (e *env) quorumVerb(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, fs *client.FS, arg string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			return do(cmd.Context(), fs, append(args, "")[0])
		}),
	}
}

func oneMember(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want one MEMBER: its number, node or Raft address")
	}
	return nil
}

func oneAddress(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want the Raft address HOST:PORT of the new member")
	}
	if _, _, err := net.SplitHostPort(args[0]); err != nil {
		return usagef("%q: want HOST:PORT", args[0])
	}
	return nil
}

// findMember finds the member that a person means.
func findMember(ctx context.Context, fs *client.FS, who string) (*client.Member, error) {
	const op = "admin.quorum"
	q, err := fs.Quorum(ctx)
	if err != nil {
		return nil, err
	}
	var found *client.Member
	n, nerr := strconv.ParseUint(who, 10, 64)
	for _, m := range q.Members {
		if nerr == nil && m.Replica == n {
			return m, nil
		}
		if m.RaftAddr == who || m.Node == who {
			if found != nil {
				return nil, &orca.Error{Op: op, Path: who, Kind: orca.Invalid, Msg: "two members are called so: give the number"}
			}
			found = m
		}
	}
	if found == nil {
		return nil, &orca.Error{Op: op, Path: who, Kind: orca.NotFound, Msg: "no member has this number, node or Raft address"}
	}
	return found, nil
}

func memberOf(m *client.Member) memberJSON {
	role := "learner"
	if m.Voter {
		role = "voter"
	}
	if m.Leader {
		role = "leader"
	}
	return memberJSON{m.Replica, m.Node, role, m.Addr, m.RaftAddr}
}

func (e *env) printMembers(q *client.Quorum) error {
	if e.json {
		for _, m := range q.Members {
			if err := e.emit(memberOf(m)); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("MEMBER", "NODE", "ROLE", "ADDRESS", "RAFT ADDRESS")
	for _, m := range q.Members {
		j := memberOf(m)
		if err := t.row(j.Replica, j.Node, j.Role, j.Address, j.RaftAddr); err != nil {
			return err
		}
	}
	return t.flush()
}

func (e *env) printChange(m *client.Member, text string) error {
	if e.json {
		return e.emit(memberOf(m))
	}
	_, err := fmt.Fprintln(e.Out, text)
	return err
}
