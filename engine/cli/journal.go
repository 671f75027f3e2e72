// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
	"orca/metaplane/inspect"
	"orca/metaplane/metapb"
)

// Inspection is the folder of a member that does not run.
type Inspection interface {
	About() MemberState
	// Journal puts entries from an index on, up to one, into rep.
	Journal(ctx context.Context, from, to uint64, rep *metapb.UpkeepReply) error
	// Records calls fn with the records of the store, in order.
	Records(fn func(key, value []byte) error) error
	Close() error
}

// MemberState says whose folder it is.
type MemberState struct {
	Cluster  string `json:"cluster"`
	Group    uint16 `json:"group"`
	Replica  uint64 `json:"replica"`
	Address  string `json:"raft_address"`
	Restored string `json:"restored,omitempty"` // digest of the backup
	Term     uint64 `json:"term"`
	Vote     uint64 `json:"vote"`
	Applied  uint64 `json:"applied"` // by the store
}

// journalCommand also lets hands trained on Alluxio write journal quorum.
func (e *env) journalCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "journal", Short: "The journal of the metaplane",
		Long: `The journal of the metaplane, in which every change is written before it is
made: look into it, and cut it short.`,
		Example: "  orca admin journal checkpoint\n  orca admin journal dump --from 1000 --to 1010",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	quorum := e.quorumCommand()
	quorum.Hidden = true
	c.AddCommand(e.checkpointCommand(), e.dumpCommand(), quorum)
	return c
}

// checkpointJSON is a line of `orca admin journal checkpoint --json`.
type checkpointJSON struct {
	Replica uint64 `json:"replica"`
	Node    string `json:"node"`
	Group   uint16 `json:"group"`
	Index   uint64 `json:"index"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
}

func (e *env) checkpointCommand() *cobra.Command {
	var replica uint64
	c := &cobra.Command{
		Use: "checkpoint", Short: "Make the state durable and cut the journal, now",
		Long: `Have each member make its state durable and cut its journal of each group, now, without a pause
of its service. Members do so by themselves every so many entries; this makes the
next start short, and gives disk space back (in files of 64 MiB).

INDEX is that of the last entry whose effect no start has to repeat any more;
FIRST and LAST are the entries that the journal still has: some are kept for
members that are a little behind.`,
		Example: "  orca admin journal checkpoint\n  orca admin journal checkpoint --member 2 --json",
		Args:    noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			cs, err := fs.CutJournal(cmd.Context(), replica)
			t := e.table("MEMBER", "NODE", "GROUP", "INDEX", "FIRST", "LAST")
			for _, x := range cs {
				j := checkpointJSON{x.Member.Replica, x.Member.Node, x.Group, x.Index, x.First, x.Last}
				if e.json {
					if err := e.emit(j); err != nil {
						return err
					}
				} else if err := t.row(j.Replica, orDash(j.Node), j.Group, j.Index, j.First, j.Last); err != nil {
					return err
				}
			}
			if ferr := t.flush(); err == nil {
				err = ferr
			}
			return err
		}),
	}
	c.Flags().Uint64Var(&replica, "member", 0, "number of one member (default: all)")
	return c
}

func (e *env) dumpCommand() *cobra.Command {
	var o client.JournalOptions
	var data string
	var state bool
	c := &cobra.Command{
		Use: "dump", Short: "Show what the journal holds, and the state",
		Long: `Show the commands that the journal of a member holds: of one that runs, or with
--data of one that is stopped, whose folder is left as it is. The journal is cut
from time to time, so that it begins somewhere.

Each line is a command: the index and the term of its entry, its place in it, the
operation (docs/format/command.md), the client and its number, and the rest as
JSON. With --state, which needs --data, the records of the store follow
(docs/format/inodekeys.md). Secrets of mounts are masked.`,
		Example: `  orca admin journal dump --from 1000 --to 1010
  orca admin journal dump --data /var/lib/orca --state --json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return usagef("unexpected argument %q", args[0])
			case o.To != 0 && o.From > o.To:
				return usagef("--from %d is behind --to %d", o.From, o.To)
			case state && data == "":
				return usagef("--state needs --data, the folder of a member that is stopped")
			case data != "" && o.Replica != 0:
				return usagef("either --data or --member")
			}
			return nil
		},
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if data != "" {
				dir, err := filepath.Abs(data)
				if err != nil {
					return usagef("--data: %v", err)
				}
				return e.dumpFolder(ctx, dir, o, state)
			}
			fs, err := e.open(ctx)
			if err != nil {
				return err
			}
			return fs.Journal(ctx, o, e.printEntry)
		}),
	}
	fl := c.Flags()
	fl.Uint64Var(&o.From, "from", 0, "index of the first entry (default: the first that there is)")
	fl.Uint64Var(&o.To, "to", 0, "index of the last entry (default: the last that there is)")
	fl.Uint64Var(&o.Replica, "member", 0, "number of the member that is asked (default: one that does not lead)")
	fl.Uint16Var(&o.Group, "group", 0, "number of the group whose journal it is (default: the first)")
	fl.StringVar(&data, "data", "", "data folder of a member that is stopped")
	fl.BoolVar(&state, "state", false, "show the records of the store, too")
	return c
}

func (e *env) dumpFolder(ctx context.Context, dir string, o client.JournalOptions, state bool) (err error) {
	if e.hooks.Inspect == nil {
		return orca.E("cli.dump", orca.Unsupported, "this program cannot read the folder of a member")
	}
	x, err := e.hooks.Inspect(dir, o.Group)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := x.Close(); err == nil {
			err = cerr
		}
	}()
	about := x.About()
	if e.json {
		err = e.emit(map[string]any{"member": about})
	} else {
		_, err = fmt.Fprintf(e.Out, "# member %d of cluster %s, group %d: term %d, store at %d\n", about.Replica, about.Cluster, about.Group, about.Term, about.Applied)
	}
	for end := false; err == nil && !end; {
		rep := &metapb.UpkeepReply{}
		if err = x.Journal(ctx, o.From, o.To, rep); err != nil {
			return err
		}
		if err = ctx.Err(); err != nil {
			return err
		}
		for _, en := range rep.Entries {
			if err = e.printEntry(en); err != nil {
				return err
			}
			o.From = en.Index + 1
		}
		end = rep.End
	}
	if err != nil || !state {
		return err
	}
	return x.Records(func(key, value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r := inspect.Of(key, value)
		if e.json {
			return e.emit(map[string]any{"record": r})
		}
		k, err := json.Marshal(r.Key)
		if err != nil {
			return err
		}
		v, err := json.Marshal(r.Value)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.Out, "%s\t%s\t%s\t%s%s\n", r.Space, orDash(r.Kind), k, v, suffix(r.Error))
		return err
	})
}

func (e *env) printEntry(en *client.JournalEntry) error {
	for _, c := range inspect.Entry(en) {
		if e.json {
			if err := e.emit(map[string]any{"command": c}); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(e.Out, "%d\t%d\t%d\t%s\t%x/%d\t%s%s\n", c.Index, c.Term, c.N, c.Op, c.Client, c.Seq, orDash(string(c.Body)), suffix(c.Error)); err != nil {
			return err
		}
	}
	return nil
}

func suffix(err string) string {
	if err == "" {
		return ""
	}
	return "\t" + err
}
