// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"orca/engine/client"
)

// groupJSON is a line of `orca admin group ls --json`.
type groupJSON struct {
	Group  uint16   `json:"group"`
	Leader uint64   `json:"leader"` // number of the member; 0: none is known
	Node   string   `json:"node"`
	Term   uint64   `json:"term"`
	Mounts []string `json:"mounts"`
	// Directories are those of mounts in other groups that live in it.
	Directories []string `json:"directories"`
}

func (e *env) groupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "group", Short: "The Raft groups of the metaplane",
		Long: `The Raft groups of the metaplane. The first has the root of the namespace and
everything that was not given another one; orca fs mount --group puts a mount
into a group of its own, and orca fs mkdir --group a new directory of a mount of
the first one; orca fs regroup --group moves one that is there, with all that is
below it, to any group and back, which is how a cluster that began with one group
grows. All groups are on all members, each with a journal
order and a leader of its own, and the leaders are spread over the members: a
member that fails takes only the groups that it leads along, and those for a
second. On one disk each further group makes the others' commits slower: add
groups for subtrees that are to be independent, not by the number of cores.

Groups are added, never removed.`,
		Example: `  orca admin group ls
  orca admin group add
  orca fs mount --group 2 /train s3://training
  orca fs mkdir --group 3 /data/logs
  orca fs regroup --group 2 /data/old`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(
		e.quorumVerb("ls", "List the groups, who leads them, and what is in them", noArgs, func(ctx context.Context, fs *client.FS, _ string) error {
			gs, err := fs.Groups(ctx)
			if err != nil {
				return err
			}
			return e.printGroups(gs)
		}),
		e.quorumVerb("add [NUMBER]", "Add a group, with the next free number", oneNumber, func(ctx context.Context, fs *client.FS, arg string) error {
			n, _ := strconv.ParseUint("0"+arg, 10, 16)
			g, err := fs.AddGroup(ctx, uint16(n))
			if err != nil {
				return err
			}
			if e.json {
				return e.emit(groupJSON{Group: g})
			}
			_, err = fmt.Fprintf(e.Out, "group %d is there: orca fs mount --group %d PATH URI\n", g, g)
			return err
		}),
	)
	return c
}

func oneNumber(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usagef("want at most one NUMBER")
	}
	if len(args) == 1 {
		if n, err := strconv.ParseUint(args[0], 10, 16); err != nil || n < 2 {
			return usagef("%q: want a number from 2 on", args[0])
		}
	}
	return nil
}

func (e *env) printGroups(gs []client.Group) error {
	t := e.table("GROUP", "LEADER", "NODE", "TERM", "DIRS", "MOUNTS")
	for _, g := range gs {
		j := groupJSON{Group: g.Number, Term: g.Term, Mounts: append([]string{}, g.Mounts...), Directories: append([]string{}, g.Dirs...)}
		if g.Leader != nil {
			j.Leader, j.Node = g.Leader.Replica, g.Leader.Node
		}
		if e.json {
			if err := e.emit(j); err != nil {
				return err
			}
			continue
		}
		leader := "-"
		if j.Leader != 0 {
			leader = strconv.FormatUint(j.Leader, 10)
		}
		if err := t.row(j.Group, leader, j.Node, j.Term, len(j.Directories), strings.Join(j.Mounts, " ")); err != nil {
			return err
		}
	}
	return t.flush()
}
