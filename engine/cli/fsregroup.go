// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// regroupPoll is how often the metaplane is asked how far a move is.
const regroupPoll = 100 * time.Millisecond

func (e *env) regroupCommand() *cobra.Command {
	var group uint16
	var abort bool
	c := e.verb("regroup --group N DIR...", "Move directories to another group, online",
		`Move directories of a mount of the first group into another group, with all that
is below them: names, attributes, links, pins and quotas. Nothing is listed or
read again, and the store does not change. While a directory moves it can be
read; who would change something in it waits, and is refused as busy (EBUSY) if
it takes long. Afterwards it is as one made by orca fs mkdir --group: see
docs/cluster.md. Cached blocks of its files are dropped.

One that lives in another group already moves on to the group given, and with
--group 1 home to the first: then it is a directory like any other again.

The command waits for the end. Interrupted, the move goes on; the same command
again shows how far it is, and --abort gives it up, so that the directory stays
as it was. A group that does not answer refuses at once; one that is away later
is waited for.

Refused are a directory with a quota above it, in a mount with a trash, with
mounts or directories in groups below it, with files that are not in the store
(orca fs persist) or that have names outside of it, one in which a file stays
open for writing, and what is below a directory that lives in a group of its own.
Only root moves directories.`,
		`  orca fs regroup --group 2 /data/logs
  orca fs regroup --abort /data/logs
  orca fs regroup --group 1 /data/logs`, 1,
		func(cmd *cobra.Command, args []string) error {
			if abort == (group != 0) {
				return usagef("want either --group or --abort")
			}
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				if abort {
					return fs.AbortRegroup(ctx, path)
				}
				return e.regroup(ctx, fs, path, group)
			})
		})
	c.Flags().Uint16Var(&group, "group", 0, "the group to move to; 1: the first")
	c.Flags().BoolVar(&abort, "abort", false, "give up a move that is under way")
	return c
}

// regroupJSON is what --json says about one directory that has moved.
type regroupJSON struct {
	Path   string `json:"path"`
	Group  uint16 `json:"group"`
	Inodes int64  `json:"inodes"` // brought there by this move, as far as it was seen
}

func (e *env) regroup(ctx context.Context, fs *client.FS, path string, group uint16) error {
	p := e.progress("regroup " + path)
	p.unit = "inodes"
	defer p.stop()
	r, err := fs.Regroup(ctx, path, group)
	inodes := int64(0)
	for problem := ""; err == nil && r.Moving; r, err = fs.Regrouping(ctx, path) {
		inodes = r.Total
		p.set(r.Copied, r.Total)
		if r.Problem != "" && r.Problem != problem {
			problem = r.Problem
			fmt.Fprintf(e.Err, "%s: not yet, and tried again: %s\n", path, problem)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(regroupPoll):
		}
	}
	switch {
	case err != nil:
		return err
	case r.Group != group:
		return &orca.Error{Op: "regroup", Path: path, Kind: orca.Unsupported, Msg: "it stays in its group: " + r.Problem}
	case e.json:
		return e.emit(regroupJSON{Path: path, Group: group, Inodes: inodes})
	}
	return nil
}
