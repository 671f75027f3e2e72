// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// walk calls f for path and everything below it, parents first.
func walk(ctx context.Context, fs *client.FS, path string, f func(path string, i *client.Info) error) error {
	i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
	if err != nil {
		return err
	}
	if err := f(path, &i); err != nil {
		return err
	}
	if !i.IsDir() {
		return nil
	}
	return walkDir(ctx, fs, path, f)
}

func walkDir(ctx context.Context, fs *client.FS, path string, f func(path string, i *client.Info) error) error {
	var dirs []string
	for x, err := range fs.Entries(ctx, client.Path(path), client.ListOptions{}) {
		if err != nil {
			return err
		}
		p := orca.JoinPath(path, x.Name)
		if err := f(p, &x); err != nil {
			return err
		}
		if x.IsDir() {
			dirs = append(dirs, p)
		}
	}
	for _, d := range dirs {
		if err := walkDir(ctx, fs, d, f); err != nil {
			return err
		}
	}
	return nil
}

// usage sums a tree.
type usage struct{ bytes, cached, files, dirs int64 }

func (u *usage) add(i *client.Info) {
	if i.IsDir() {
		u.dirs++
		return
	}
	u.files++
	u.bytes += i.Length
	u.cached += i.CachedBytes
}

func (e *env) duCommand() *cobra.Command {
	var summary, human, known bool
	c := e.verb("du PATH...", "Show how large files are and how much of them is cached",
		`Show the length of files, how much of them is cached, and the path. With -s one
line for each path given, with the sum of what is below it. With --known that
is the sum which the namespace keeps: it comes at once, however much there is,
but says nothing of what is cached, nor of what is in directories of a store
that were never listed.`,
		"  orca fs du -s -h '/data/*'\n  orca fs du --known -h /data", 1,
		func(cmd *cobra.Command, args []string) error {
			t := e.table("LENGTH", "CACHED", "", "PATH")
			print := func(path string, n, cached int64) error {
				if e.json {
					return e.emit(map[string]any{"path": path, "length": n, "cached_bytes": cached})
				}
				return t.row(size(n, human), size(cached, human), percent(cached, n), path)
			}
			err := e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				if known {
					return e.duKnown(ctx, fs, path, t, human)
				}
				var sum usage
				err := walk(ctx, fs, path, func(p string, i *client.Info) error {
					sum.add(i)
					if summary || i.IsDir() {
						return nil
					}
					return print(p, i.Length, i.CachedBytes)
				})
				if err != nil || !summary {
					return err
				}
				return print(path, sum.bytes, sum.cached)
			})
			if ferr := t.flush(); err == nil {
				err = ferr
			}
			return err
		})
	c.Flags().BoolVarP(&summary, "summary", "s", false, "one sum for each path")
	c.Flags().BoolVar(&known, "known", false, "the sum on record for each path, without a walk")
	c.Flags().BoolVarP(&human, "human", "h", false, "sizes such as 1.5G")
	return c
}

// duKnown prints the sum on record for one path.
func (e *env) duKnown(ctx context.Context, fs *client.FS, path string, t *table, human bool) error {
	i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
	if err != nil {
		return err
	}
	n := i.Length
	if i.IsDir() {
		u, err := fs.Usage(ctx, client.ByIno(i.Ino))
		if err != nil {
			return err
		}
		n = u.Bytes
	}
	if e.json {
		return e.emit(map[string]any{"path": path, "length": n})
	}
	return t.row(size(n, human), "-", "-", path)
}

func (e *env) countCommand() *cobra.Command {
	var human bool
	c := e.verb("count PATH...", "Count files, directories and bytes",
		`Count the files, the directories and the bytes at and below each path. Orca
keeps these sums: the answer comes at once, unless there are directories below
whose store has to be asked first.`,
		`  orca fs count -h /data`, 1,
		func(cmd *cobra.Command, args []string) error {
			t := e.table("FILES", "DIRECTORIES", "BYTES", "PATH")
			err := e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				u, err := usageOf(ctx, fs, path)
				if err != nil {
					return err
				}
				if e.json {
					return e.emit(map[string]any{"path": path, "files": u.files, "directories": u.dirs, "bytes": u.bytes})
				}
				return t.row(u.files, u.dirs, size(u.bytes, human), path)
			})
			if ferr := t.flush(); err == nil {
				err = ferr
			}
			return err
		})
	c.Flags().BoolVarP(&human, "human", "h", false, "sizes such as 1.5G")
	return c
}
