// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// retention is a flag: how long what is deleted is kept, as a request to mount
// says it.
type retention struct{ ms int64 }

func (r *retention) Type() string { return "duration" }

func (r *retention) String() string {
	switch {
	case r.ms < 0:
		return "0s"
	case r.ms == 0:
		return "as it is"
	}
	return (time.Duration(r.ms) * time.Millisecond).String()
}

func (r *retention) Set(s string) error {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return err
	case d < 0 || d > 0 && d < time.Millisecond:
		return usagef("%q: not a retention; want 0, or a time such as 72h", s)
	}
	if r.ms = d.Milliseconds(); d == 0 {
		r.ms = -1
	}
	return nil
}

func (e *env) trashCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "trash", Short: "Undelete files and directories",
		Long: `Undelete files and directories. A mount that was given a retention (orca fs mount
--trash-retention, orca up --trash-retention) keeps what is deleted for that
long, in a hidden directory of its store. It counts for quotas until it is gone.
Who deleted it, its owner and root see it here, and may restore it.

Removed at once are empty directories, names of files with several, what a
rename replaces, and what rm --skip-trash removes.`,
		Example: `  orca fs trash ls /data
  orca fs trash restore /data/report.csv
  orca fs trash restore 1f4 --to /data/old.csv
  orca fs trash empty /data/scratch`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(e.trashLsCommand(), e.trashRestoreCommand(), e.trashEmptyCommand())
	return c
}

// trashJSON is what --json says about something deleted.
type trashJSON struct {
	ID      string    `json:"id"`
	Path    string    `json:"path"`
	Type    string    `json:"type"`
	Deleted time.Time `json:"deleted"`
	Expires time.Time `json:"expires"`
	UID     uint32    `json:"uid"` // who deleted it
	GID     uint32    `json:"gid"`
	Bytes   int64     `json:"bytes"`
	Inodes  int64     `json:"inodes"`
}

func trashOf(x *client.Trashed) trashJSON {
	j := trashJSON{
		ID: orca.Ino(x.Ino).String(), Path: x.Path, Type: "file", Deleted: time.Unix(0, x.Deleted), Expires: time.Unix(0, x.Expires),
		UID: x.Uid, GID: x.Gid, Bytes: x.Bytes, Inodes: x.Inodes,
	}
	if x.Dir {
		j.Type = "directory"
	}
	return j
}

func (e *env) trashLsCommand() *cobra.Command {
	var human bool
	c := e.verb("ls [PATH...]", "List what can be restored",
		`List what was deleted and can be restored by the caller: all of it, or what was at
or below the paths. The time is that of the deletion.`,
		"  orca fs trash ls -h\n  orca fs trash ls /data", 0,
		func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{""}
			}
			t := e.table("ID", "DELETED", "EXPIRES", "UID", "BYTES", "INODES", "PATH")
			for _, path := range args {
				all, err := e.inTrash(cmd.Context(), fs, path)
				if err != nil {
					return err
				}
				for _, x := range all {
					j := trashOf(x)
					if e.json {
						err = e.emit(j)
					} else {
						err = t.row(j.ID, j.Deleted.Format(time.DateTime), j.Expires.Format(time.DateTime), j.UID, size(j.Bytes, human), j.Inodes, j.Path)
					}
					if err != nil {
						return err
					}
				}
			}
			return t.flush()
		})
	c.Flags().BoolVarP(&human, "human", "h", false, "sizes such as 1.5G")
	return c
}

// inTrash returns what is in the trash of a path; "": all.
func (e *env) inTrash(ctx context.Context, fs *client.FS, path string) ([]*client.Trashed, error) {
	if path != "" {
		p, err := e.clean(path)
		if err != nil {
			return nil, err
		}
		path = p
	}
	return fs.Trash(ctx, path)
}

// oneTrashed finds what an argument means: an ID, or the last thing that was
// deleted at a path.
func (e *env) oneTrashed(ctx context.Context, fs *client.FS, arg string) (*client.Trashed, error) {
	if !strings.Contains(arg, "/") {
		n, err := strconv.ParseUint(arg, 16, 64)
		if err != nil {
			return nil, usagef("%q: want an ID of orca fs trash ls, or a path", arg)
		}
		return fs.TrashedByIno(ctx, orca.Ino(n))
	}
	all, err := e.inTrash(ctx, fs, arg)
	if err != nil {
		return nil, err
	}
	p, err := e.clean(arg)
	if err != nil {
		return nil, err
	}
	var last *client.Trashed
	for _, x := range all {
		if x.Path == p && (last == nil || x.Deleted > last.Deleted) {
			last = x
		}
	}
	if last == nil {
		return nil, &orca.Error{Op: "cli.trash", Path: p, Kind: orca.NotFound, Msg: "nothing that was deleted there can be restored"}
	}
	return last, nil
}

func (e *env) trashRestoreCommand() *cobra.Command {
	var to string
	c := e.verb("restore ID|PATH...", "Bring back what was deleted",
		`Bring back what was deleted: by its ID, or the last thing that was deleted at a
path. It comes back to the path that it had, or to that of --to; nothing is
replaced. Missing directories above are made.`,
		"  orca fs trash restore /data/report.csv\n  orca fs trash restore 1f4 --to /data/old.csv", 1,
		func(cmd *cobra.Command, args []string) error {
			if to != "" && len(args) > 1 {
				return usagef("--to is for one")
			}
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			for _, arg := range args {
				x, err := e.oneTrashed(cmd.Context(), fs, arg)
				if err != nil {
					return err
				}
				path := x.Path
				if to != "" {
					if path, err = e.clean(to); err != nil {
						return err
					}
				}
				if _, err := fs.Restore(cmd.Context(), orca.Ino(x.Ino), path); err != nil {
					e.report("restore", path, err)
					return errReported
				}
			}
			return nil
		})
	c.Flags().StringVar(&to, "to", "", "the path to restore it to")
	return c
}

func (e *env) trashEmptyCommand() *cobra.Command {
	var all bool
	c := e.verb("empty [PATH...]", "Remove for good what is in the trash",
		`Remove for good what was deleted at or below the paths, or with --all everywhere,
and can be restored by the caller.`,
		"  orca fs trash empty /data/scratch\n  orca fs trash empty --all", 0,
		func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef("want paths, or --all")
			}
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			if all {
				args = []string{""}
			}
			for _, path := range args {
				xs, err := e.inTrash(cmd.Context(), fs, path)
				if err != nil {
					return err
				}
				inos := make([]orca.Ino, 0, len(xs))
				for _, x := range xs {
					inos = append(inos, orca.Ino(x.Ino))
				}
				if err := fs.Purge(cmd.Context(), inos...); err != nil {
					return err
				}
			}
			return nil
		})
	c.Flags().BoolVar(&all, "all", false, "everything")
	return c
}
