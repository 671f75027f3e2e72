// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

func (e *env) mkdirCommand() *cobra.Command {
	var group uint16
	c := e.verb("mkdir PATH...", "Make directories", `Make directories and their missing parents. One that is there is fine. With
--group they must be new, and what will be in them lives in that group: see
orca admin group. They stay where they are, and so do the directories above.`,
		`  orca fs mkdir /data/a/b /data/c
  orca fs mkdir --group 2 /data/logs`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.eachNew(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				if group > 1 {
					_, err := fs.MkdirIn(ctx, client.Path(path), 0o755, group)
					return err
				}
				_, err := fs.MkdirAll(ctx, client.Path(path), 0o755)
				return err
			})
		})
	c.Flags().BoolP("parents", "p", true, "make missing parents; always on, for habit's sake")
	c.Flags().Uint16Var(&group, "group", 0, "the group that what will be in them lives in; 0: that of the directory above")
	return c
}

// eachNew is each for names that do not exist yet: nothing is expanded.
func (e *env) eachNew(cmd *cobra.Command, args []string, f func(ctx context.Context, fs *client.FS, path string) error) error {
	failed := false
	for _, a := range args {
		p, err := e.clean(a)
		if err == nil {
			var fs *client.FS
			if fs, err = e.open(cmd.Context()); err != nil {
				return err
			}
			err = f(cmd.Context(), fs, unescape(p))
		}
		if err != nil {
			if stops(cmd.Context(), err) {
				return err
			}
			e.report(cmd.Name(), a, err)
			failed = true
		}
	}
	if failed {
		return errReported
	}
	return nil
}

func (e *env) touchCommand() *cobra.Command {
	var typ *string
	c := e.verb("touch PATH...", "Make empty files or update times",
		"Make empty files. Of one that is there the times are set to now.",
		`  orca fs touch /data/_SUCCESS`, 1,
		func(cmd *cobra.Command, args []string) error {
			w, err := parseWriteType(*typ)
			if err != nil {
				return err
			}
			return e.eachNew(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				_, err := fs.CreateEmpty(ctx, client.Path(path), client.CreateOptions{Exclusive: true, WriteType: w})
				if errors.Is(err, orca.Exists) {
					now := time.Now()
					return fs.Chtimes(ctx, client.Path(path), now, now)
				}
				return err
			})
		})
	typ = writeType(c)
	return c
}

func (e *env) mvCommand() *cobra.Command {
	var noReplace, exchange bool
	c := e.verb("mv SOURCE... TARGET", "Rename files and directories",
		`Rename a file or directory; into TARGET if that is a directory. Each rename is
atomic, at any size of the tree, and stays within one mount. With --exchange the
two change places, whatever they are; what an object store holds cannot.`,
		`  orca fs mv /data/tmp /data/final
  orca fs mv '/in/*.csv' /done
  orca fs mv --exchange /models/new /models/current`, 2,
		func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if exchange {
				return e.exchange(ctx, args, noReplace)
			}
			dst, err := e.clean(args[len(args)-1])
			if err != nil {
				return err
			}
			fs, err := e.open(ctx)
			if err != nil {
				return err
			}
			into, err := isDir(ctx, fs, dst)
			if err != nil {
				return err
			}
			srcs := args[:len(args)-1]
			if !into && (len(srcs) > 1 || hasGlob(srcs[0])) {
				return orca.PathE("cli.mv", dst, orca.NotDir, nil)
			}
			return e.each(cmd, srcs, func(ctx context.Context, fs *client.FS, src string) error {
				to := dst
				if into {
					_, name := orca.SplitPath(src)
					to = orca.JoinPath(dst, name)
				}
				return fs.Rename(ctx, client.Path(src), client.Path(to), noReplace)
			})
		})
	c.Flags().BoolVarP(&noReplace, "no-clobber", "n", false, "fail if the new name is taken")
	c.Flags().BoolVar(&exchange, "exchange", false, "have SOURCE and TARGET change places")
	return c
}

func (e *env) exchange(ctx context.Context, args []string, noReplace bool) error {
	if len(args) != 2 || noReplace {
		return usagef("--exchange wants two names, and no --no-clobber")
	}
	a, err := e.clean(args[0])
	if err != nil {
		return err
	}
	b, err := e.clean(args[1])
	if err != nil {
		return err
	}
	fs, err := e.open(ctx)
	if err != nil {
		return err
	}
	return fs.Exchange(ctx, client.Path(unescape(a)), client.Path(unescape(b)))
}

func (e *env) lnCommand() *cobra.Command {
	var symbolic bool
	c := e.verb("ln [-s] SOURCE NAME", "Give a file one more name",
		`Give a file one more name (a hard link); in NAME if that is a directory. All
names are equal: the file is gone with the last. They stay within one mount, and a
directory has one name. The store below has the content once, under one of them.

With -s make a symbolic link whose text is SOURCE, which need not exist. It is
Orca's alone: the store below has none.`,
		`  orca fs ln /data/model-7 /data/current
  orca fs ln -s model-7 /data/latest`, 2,
		func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("want ln [-s] SOURCE NAME")
			}
			return e.link(cmd.Context(), args[0], args[1], symbolic)
		})
	c.Flags().BoolVarP(&symbolic, "symbolic", "s", false, "make a symbolic link")
	return c
}

func (e *env) link(ctx context.Context, source, name string, symbolic bool) error {
	dst, err := e.clean(name)
	if err != nil {
		return err
	}
	src := source
	if !symbolic {
		if src, err = e.clean(source); err != nil {
			return err
		}
		src = unescape(src)
	}
	fs, err := e.open(ctx)
	if err != nil {
		return err
	}
	dst = unescape(dst)
	if into, err := isDir(ctx, fs, dst); err != nil {
		return err
	} else if into {
		_, last := orca.SplitPath("/" + strings.Trim(src, "/"))
		dst = orca.JoinPath(dst, last)
	}
	if symbolic {
		_, err = fs.Symlink(ctx, client.Path(dst), src)
	} else {
		_, err = fs.Link(ctx, client.Path(src), client.Path(dst))
	}
	return err
}

func isDir(ctx context.Context, fs *client.FS, path string) (bool, error) {
	i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
	if errors.Is(err, orca.NotFound) {
		return false, nil
	}
	return err == nil && i.IsDir(), err
}

func (e *env) rmCommand() *cobra.Command {
	var recursive, quiet bool
	var o client.RemoveOptions
	c := e.verb("rm [-R] PATH...", "Remove files and directories",
		`Remove files; with -R whole trees. A tree of any size vanishes at once; the
store below follows in the background (orca admin report ufs shows it). A mount
with a trash keeps both for a while (orca fs trash).`,
		`  orca fs rm '/tmp/*.part'
  orca fs rm -R /data/old
  orca fs rm -R --alluxioOnly /data/old   # the store keeps its objects`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				err := removeOne(ctx, fs, path, recursive, o)
				if quiet && errors.Is(err, orca.NotFound) {
					return nil
				}
				return err
			})
		})
	f := c.Flags()
	f.BoolVarP(&recursive, "recursive", "R", false, "remove directories and what is below them")
	f.BoolVarP(&recursive, "r", "r", false, "the same")
	f.BoolVarP(&o.Unchecked, "unchecked", "U", false, "do not look first for what the store holds that Orca has not seen")
	f.BoolVar(&o.CacheOnly, "cache-only", false, "forget it in Orca, leave the store as it is")
	f.BoolVar(&o.CacheOnly, "alluxioOnly", false, "the same, in Alluxio's spelling")
	f.BoolVar(&o.SkipTrash, "skip-trash", false, "remove for good what the mount would keep in its trash")
	f.BoolVar(&o.SkipTrash, "skipTrash", false, "the same, in Hadoop's spelling")
	f.BoolVarP(&quiet, "force", "f", false, "no error for what is missing")
	return c
}

func removeOne(ctx context.Context, fs *client.FS, path string, recursive bool, o client.RemoveOptions) error {
	i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
	if err != nil {
		return err
	}
	switch {
	case !i.IsDir():
		return fs.Remove(ctx, client.Path(path), o)
	case !recursive:
		return orca.PathE("cli.rm", path, orca.IsDir, nil)
	}
	return fs.RemoveAll(ctx, client.Path(path), o)
}

// changing builds chmod, chown and chgrp: the first argument says what.
func (e *env) changing(use, short, long, example string, parse func(string) (client.AttrChange, error)) *cobra.Command {
	var recursive bool
	c := e.verb(use, short, long, example, 2, func(cmd *cobra.Command, args []string) error {
		change, err := parse(args[0])
		if err != nil {
			return err
		}
		change.Recursive = recursive
		return e.each(cmd, args[1:], func(ctx context.Context, fs *client.FS, path string) error {
			_, err := fs.SetAttr(ctx, client.Path(path), change)
			return err
		})
	})
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "everything below, too")
	return c
}

func (e *env) chmodCommand() *cobra.Command {
	var recursive bool
	c := e.verb("chmod [-R] MODE PATH...", "Change permission bits",
		"Change permission bits, in octal (0644) or by symbols (u+x,go-w,a=r).",
		`  orca fs chmod -R go-w /data
  orca fs chmod 0600 /secret`, 2,
		func(cmd *cobra.Command, args []string) error {
			m, err := parseMode(args[0])
			if err != nil {
				return err
			}
			return e.each(cmd, args[1:], func(ctx context.Context, fs *client.FS, path string) error {
				if m.octal {
					mode := m.apply(0, false)
					_, err := fs.SetAttr(ctx, client.Path(path), client.AttrChange{Mode: &mode, Recursive: recursive})
					return err
				}
				one := func(p string, i *client.Info) error {
					return fs.Chmod(ctx, client.Path(p), m.apply(i.Mode, i.IsDir()))
				}
				if recursive {
					return walk(ctx, fs, path, one)
				}
				i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
				if err != nil {
					return err
				}
				return one(path, &i)
			})
		})
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "everything below, too")
	return c
}

func (e *env) chownCommand() *cobra.Command {
	return e.changing("chown [-R] OWNER[:GROUP] PATH...", "Change the owner", "Change the owner, and the group if one is given. Names are those of this host; numbers work everywhere.",
		`  orca fs chown -R spark:data /warehouse`, func(s string) (client.AttrChange, error) {
			var c client.AttrChange
			owner, group, both := strings.Cut(s, ":")
			if owner != "" {
				id, err := lookupUser(owner)
				if err != nil {
					return c, err
				}
				c.UID = &id
			}
			if both {
				id, err := lookupGroup(group)
				if err != nil {
					return c, err
				}
				c.GID = &id
			}
			return c, nil
		})
}

func (e *env) chgrpCommand() *cobra.Command {
	return e.changing("chgrp [-R] GROUP PATH...", "Change the group", "Change the group. Names are those of this host; numbers work everywhere.",
		`  orca fs chgrp data /warehouse`, func(s string) (client.AttrChange, error) {
			id, err := lookupGroup(s)
			return client.AttrChange{GID: &id}, err
		})
}
