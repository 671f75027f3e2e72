// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

func (e *env) quotaCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "quota", Short: "Limit what may be below directories",
		Long: `Limit what may be below directories: the sum of the lengths of files and links,
and the number of files, links and directories, the directory itself left out.
The limits of all directories above a name hold. Who would pass one is refused
("Disk quota exceeded", EDQUOT on a mount); what is being written counts, so
that nobody passes a limit by being quick. What Orca finds in a store is counted
and never refused: a directory may so come to hold more than its limit, or when
the limit is lowered, and then takes no more until there is room again.

A quota belongs to the directory: it moves with it, and goes with it. Only root
sets quotas.`,
		Example: `  orca fs quota set --bytes 10TB --inodes 1000000 /team
  orca fs quota ls
  orca fs quota clear /team`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(e.quotaSetCommand(), e.quotaClearCommand(), e.quotaLsCommand())
	return c
}

func (e *env) quotaSetCommand() *cobra.Command {
	var bytes, inodes string
	c := e.verb("set DIR...", "Set the quota of directories",
		`Set the quota of directories. A limit that is not given stays as it is, and
"none" takes it away. A limit may be lower than what is there.`,
		"  orca fs quota set --bytes 500GB /team/a /team/b\n  orca fs quota set --inodes none /team/a", 1,
		func(cmd *cobra.Command, args []string) error {
			b, err := limit(bytes, func(s string) (uint64, error) { return humanize.ParseBytes(s) })
			if err != nil {
				return err
			}
			n, err := limit(inodes, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
			if err != nil {
				return err
			}
			if b == client.KeepLimit && n == client.KeepLimit {
				return usagef("want --bytes, --inodes or both")
			}
			return e.setQuotas(cmd, args, b, n)
		})
	c.Flags().StringVar(&bytes, "bytes", "", "the most bytes, such as 500GB; none: no limit")
	c.Flags().StringVar(&inodes, "inodes", "", "the most files, links and directories; none: no limit")
	return c
}

// limit parses what a limit is to be.
func limit(s string, parse func(string) (uint64, error)) (int64, error) {
	switch s {
	case "":
		return client.KeepLimit, nil
	case "none":
		return client.NoLimit, nil
	}
	n, err := parse(strings.ReplaceAll(s, "_", ""))
	if err != nil || n == 0 || n > 1<<62 {
		return 0, usagef("%q: not a limit; want a number above 0, or none", s)
	}
	return int64(n), nil
}

func (e *env) quotaClearCommand() *cobra.Command {
	return e.verb("clear DIR...", "Take the quota of directories away", "Take the quota of directories away. What is below them stays.",
		`  orca fs quota clear /team`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.setQuotas(cmd, args, client.NoLimit, client.NoLimit)
		})
}

func (e *env) setQuotas(cmd *cobra.Command, args []string, bytes, inodes int64) error {
	return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
		q, err := fs.SetQuota(ctx, client.Path(path), bytes, inodes)
		if err != nil || !e.json {
			return err
		}
		if q.Path == "" {
			q.Path = path
		}
		return e.emit(quotaOf(q))
	})
}

// quotaJSON is what --json says about one quota; a limit of 0 is none.
type quotaJSON struct {
	Path         string `json:"path"`
	Bytes        int64  `json:"bytes"`
	Inodes       int64  `json:"inodes"`
	UsedBytes    int64  `json:"used_bytes"`
	UsedInodes   int64  `json:"used_inodes"`
	Files        int64  `json:"files"`
	Directories  int64  `json:"directories"`
	WritingBytes int64  `json:"writing_bytes"` // kept free for what is under way
	MakingInodes int64  `json:"making_inodes"`
}

func quotaOf(q *client.Quota) quotaJSON {
	u := q.GetUsage()
	return quotaJSON{
		Path: q.Path, Bytes: q.Bytes, Inodes: q.Inodes, UsedBytes: u.GetBytes(), UsedInodes: u.GetFiles() + u.GetDirs(),
		Files: u.GetFiles(), Directories: u.GetDirs(), WritingBytes: q.HeldBytes, MakingInodes: q.HeldInodes,
	}
}

func (e *env) quotaLsCommand() *cobra.Command {
	var human bool
	c := e.verb("ls [PATH...]", "List quotas and what is used of them",
		`List the quotas of all directories, or those that hold for the paths given: of
the path and of every directory above it, the nearest first. What is being
written or made at this moment is not counted as used yet.`,
		"  orca fs quota ls -h\n  orca fs quota ls /team/a/b", 0,
		func(cmd *cobra.Command, args []string) error {
			t := e.table("BYTES", "LIMIT", "", "INODES", "LIMIT", "", "PATH")
			show := func(qs []*client.Quota) error {
				for _, q := range qs {
					j := quotaOf(q)
					if e.json {
						if err := e.emit(j); err != nil {
							return err
						}
						continue
					}
					limitOf := func(n int64, s string) string {
						if n == 0 {
							return "-"
						}
						return s
					}
					err := t.row(size(j.UsedBytes, human), limitOf(j.Bytes, size(j.Bytes, human)), limitOf(j.Bytes, part(j.UsedBytes, j.Bytes)),
						j.UsedInodes, limitOf(j.Inodes, strconv.FormatInt(j.Inodes, 10)), limitOf(j.Inodes, part(j.UsedInodes, j.Inodes)), j.Path)
					if err != nil {
						return err
					}
				}
				return nil
			}
			err := e.showQuotas(cmd, args, show)
			if ferr := t.flush(); err == nil {
				err = ferr
			}
			return err
		})
	c.Flags().BoolVarP(&human, "human", "h", false, "sizes such as 1.5G")
	return c
}

func (e *env) showQuotas(cmd *cobra.Command, args []string, show func([]*client.Quota) error) error {
	if len(args) > 0 {
		return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
			u, err := fs.Usage(ctx, client.Path(path))
			if err != nil {
				return err
			}
			return show(u.Quotas)
		})
	}
	fs, err := e.open(cmd.Context())
	if err != nil {
		return err
	}
	qs, err := fs.Quotas(cmd.Context())
	if err != nil {
		return err
	}
	return show(qs)
}

// part is how much of a limit is used; it may be more than all.
func part(used, limit int64) string {
	if limit <= 0 {
		return "-"
	}
	return strconv.FormatInt(int64(float64(used)/float64(limit)*100), 10) + "%"
}

// usageOf returns what is at and below a path: from the sums that the
// namespace keeps, unless a store may have more; then by a walk, which makes
// that known.
func usageOf(ctx context.Context, fs *client.FS, path string) (usage, error) {
	i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
	if err != nil {
		return usage{}, err
	}
	if i.Type == orca.TypeDir {
		if u, err := fs.Usage(ctx, client.ByIno(i.Ino)); err == nil && u.Whole {
			return usage{bytes: u.Bytes, files: u.Files, dirs: u.Dirs + 1}, nil
		}
	}
	var u usage
	err = walk(ctx, fs, path, func(_ string, i *client.Info) error { u.add(i); return nil })
	return u, err
}
