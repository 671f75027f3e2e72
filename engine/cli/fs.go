// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"orca"
)

// fsCommand is `orca fs` with all its verbs. Verbs are spelled as Alluxio
// spells them; where that has capitals there is an alias with dashes.
func (e *env) fsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "fs",
		Aliases: []string{"dfs"},
		Short:   "Work with files and directories",
		Long: `Work with files and directories.

A path is absolute (/data/x) or a URI (orca://host:port/data/x); cp also takes
file:///… on either side. Quote wildcards (* ? [a-z] {a,b} and ** for any
depth): they are matched against Orca's own names. A backslash before a
wildcard takes its meaning away.

Hands trained on hadoop may put a dash before the verb: orca dfs -ls /.`,
		Example: `  orca fs ls -h /data
  orca fs cat '/logs/2026-*/part-*' | grep ERROR
  orca fs cp -R --thread 8 file:///src /dst`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown verb %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(
		e.lsCommand(), e.statCommand(), e.catCommand(), e.headCommand(), e.tailCommand(), e.testCommand(),
		e.duCommand(), e.countCommand(), e.checksumCommand(), e.locationCommand(),
		e.mkdirCommand(), e.touchCommand(), e.mvCommand(), e.lnCommand(), e.rmCommand(),
		e.chmodCommand(), e.chownCommand(), e.chgrpCommand(),
		e.cpCommand(), e.copyFromLocalCommand(), e.copyToLocalCommand(),
		e.mountCommand(), e.unmountCommand(), e.loadCommand(), e.persistCommand(), e.freeCommand(), e.pinCommand(), e.unpinCommand(), e.setReplicationCommand(),
		e.quotaCommand(), e.trashCommand(), e.regroupCommand(),
		e.leaderCommand(), e.capacityCommand(), e.usedCommand(),
	)
	return c
}

// verb builds a command of `orca fs` that works on at least n paths.
func (e *env) verb(use, short, long, example string, n int, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < n {
				return usagef("want %s", use)
			}
			return nil
		},
		RunE:              e.run(run),
		ValidArgsFunction: e.completePath,
	}
}

// exactly limits the number of arguments of a verb.
func exactly(c *cobra.Command, n int) *cobra.Command {
	use := c.Use
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("want %s", use)
		}
		return nil
	}
	return c
}

// writeType adds --write-type.
func writeType(c *cobra.Command) *string {
	return c.Flags().String("write-type", "", "MUST_CACHE, CACHE_THROUGH, ASYNC_THROUGH or THROUGH (default: the cluster's)")
}

func parseWriteType(s string) (orca.WriteType, error) {
	if s == "" {
		return orca.WriteDefault, nil
	}
	w, err := orca.ParseWriteType(s)
	if err != nil {
		return 0, usagef("unknown write type %q", s)
	}
	return w, nil
}

// replicas adds --replicas.
func replicas(c *cobra.Command, def uint32, doc string) *uint32 {
	return c.Flags().Uint32("replicas", def, doc)
}

const replicasDoc = "on how many workers a file is before it is acknowledged, and is kept (0: the cluster's default)"

// readType adds --read-type.
func readType(c *cobra.Command) *string {
	return c.Flags().String("read-type", "", "CACHE, CACHE_PROMOTE or NO_CACHE (default CACHE)")
}

func parseReadType(s string) (orca.ReadType, error) {
	if s == "" {
		return orca.ReadCache, nil
	}
	r, err := orca.ParseReadType(s)
	if err != nil {
		return 0, usagef("unknown read type %q", s)
	}
	return r, nil
}
