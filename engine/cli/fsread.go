// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

func (e *env) lsCommand() *cobra.Command {
	var l lister
	c := e.verb("ls PATH...", "List directories",
		`List the entries of directories, or files themselves. Columns: mode, owner,
group, length (entries, for a directory), persistence, modification time, how
much is cached, path. Where a Raft group of its own begins it is named behind.`,
		`  orca fs ls -h /data
  orca fs ls -R --sort size -r /data
  orca fs ls --json '/data/*.parquet'`, 1,
		func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"name", "path", "size", "creationTime", "lastModificationTime", "mtime", "inMemoryPercentage"}, l.sort) {
				return usagef("unknown --sort %q (want name, size, mtime or inMemoryPercentage)", l.sort)
			}
			l.e = e
			l.t = e.table()
			err := e.each(cmd, args, l.list)
			if ferr := l.t.flush(); err == nil {
				err = ferr
			}
			return err
		})
	f := c.Flags()
	f.BoolVarP(&l.recursive, "recursive", "R", false, "list directories below, too")
	f.BoolVarP(&l.human, "human", "h", false, "sizes such as 1.5G")
	f.BoolVarP(&l.force, "force", "f", false, "look at the store below first, whatever is known")
	f.BoolVarP(&l.self, "directory", "d", false, "list directories themselves, not their entries")
	f.BoolVarP(&l.pinned, "pinned", "p", false, "only what is pinned")
	f.BoolVarP(&l.reverse, "reverse", "r", false, "reverse the order")
	f.StringVar(&l.sort, "sort", "name", "name, size, mtime or inMemoryPercentage")
	return c
}

type lister struct {
	e                                              *env
	t                                              *table
	recursive, human, force, self, pinned, reverse bool
	sort                                           string
}

func (l *lister) list(ctx context.Context, fs *client.FS, path string) error {
	var s client.Sync
	if l.force {
		s = client.SyncEvery(0)
	}
	i, err := fs.Stat(ctx, client.Path(path), s)
	if err != nil {
		return err
	}
	if !i.IsDir() || l.self {
		return l.print(path, &i)
	}
	return l.dir(ctx, fs, path)
}

func (l *lister) dir(ctx context.Context, fs *client.FS, path string) error {
	var all []client.Info
	sorted := l.sort == "name" || l.sort == "path"
	for x, err := range fs.Entries(ctx, client.Path(path), client.ListOptions{Force: l.force}) {
		if err != nil {
			return err
		}
		if sorted && !l.reverse && !l.recursive {
			if err := l.print(orca.JoinPath(path, x.Name), &x); err != nil { // streams: any size in constant memory
				return err
			}
			continue
		}
		all = append(all, x)
	}
	l.order(all)
	for i := range all {
		p := orca.JoinPath(path, all[i].Name)
		if err := l.print(p, &all[i]); err != nil {
			return err
		}
		if l.recursive && all[i].IsDir() {
			if err := l.dir(ctx, fs, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) order(all []client.Info) {
	key := func(a, b client.Info) int { return strings.Compare(a.Name, b.Name) }
	switch l.sort {
	case "size":
		key = func(a, b client.Info) int { return int(max(-1, min(1, a.Length-b.Length))) }
	case "mtime", "lastModificationTime", "creationTime":
		key = func(a, b client.Info) int { return a.Mtime.Compare(b.Mtime) }
	case "inMemoryPercentage":
		share := func(i client.Info) int64 { return i.CachedBytes * 1000 / max(i.Length, 1) }
		key = func(a, b client.Info) int { return int(share(a) - share(b)) }
	}
	slices.SortStableFunc(all, key)
	if l.reverse {
		slices.Reverse(all)
	}
}

func (l *lister) print(path string, i *client.Info) error {
	if l.pinned && !i.Pinned {
		return nil
	}
	if l.e.json {
		return l.e.emit(entryOf(path, i))
	}
	cached, length := percent(i.CachedBytes, i.Length), size(i.Length, l.human)
	if i.IsDir() {
		cached, length = "DIR", strconv.FormatInt(i.Length, 10)
	}
	name := path
	if i.Type == orca.TypeSymlink {
		name += " -> " + i.Target
	}
	if i.MountPoint && i.Ino.Group() > 1 {
		name += fmt.Sprintf(" -> group %d", i.Ino.Group())
	}
	return l.t.row(i.FileMode(), ids.user(i.UID), ids.group(i.GID), length, i.Persist, stamp(i.Mtime), cached, name)
}

func (e *env) statCommand() *cobra.Command {
	var format string
	c := e.verb("stat PATH...", "Show all attributes",
		`Show all attributes of files and directories. With -f the line is made from a
format: %N name, %z length, %u owner, %g group, %y modification time, %Y the
same in milliseconds since 1970, %b blocks, %i inode number, %% a percent sign.
ufs: PENDING means that the store below has still to follow the namespace.`,
		`  orca fs stat /data/x
  orca fs stat -f '%z %N' '/data/*'`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				i, err := fs.Stat(ctx, client.Path(path), client.Sync{})
				if err != nil {
					return err
				}
				if format != "" && !e.json {
					_, err = fmt.Fprintln(e.Out, statFormat(format, path, &i))
					return err
				}
				copies := 0
				if i.Type == orca.TypeFile {
					if copies, err = fs.Copies(ctx, client.Path(path)); err != nil {
						return err
					}
				}
				if e.json {
					return e.emit(statJSON{entryOf(path, &i), i.ReplicaMin, i.ReplicaMax, copies})
				}
				return e.statText(path, &i, copies)
			})
		})
	c.Flags().StringVarP(&format, "format", "f", "", "print a line made from this format instead")
	return c
}

func statFormat(format, path string, i *client.Info) string {
	_, name := orca.SplitPath(path)
	return strings.NewReplacer("%%", "%", "%N", name, "%z", strconv.FormatInt(i.Length, 10),
		"%u", ids.user(i.UID), "%g", ids.group(i.GID), "%y", stamp(i.Mtime),
		"%Y", strconv.FormatInt(i.Mtime.UnixMilli(), 10), "%b", strconv.FormatInt(blocksOf(i), 10),
		"%i", strconv.FormatUint(uint64(i.Ino), 10)).Replace(format)
}

// statJSON is an entry with what a listing does not tell.
type statJSON struct {
	entryJSON
	ReplicaMin int `json:"replica_min"`
	ReplicaMax int `json:"replica_max"` // -1: no bound
	Copies     int `json:"copies"`      // workers that have all of it
}

func (e *env) statText(path string, i *client.Info, copies int) error {
	j := entryOf(path, i)
	t := e.table()
	line := func(k string, v any) {
		if s := fmt.Sprint(v); s != "" {
			_ = t.row(k+":", s) // flush reports what matters
		}
	}
	line("path", path)
	line("type", j.Type)
	line("length", fmt.Sprintf("%d (%s)", i.Length, size(i.Length, true)))
	line("mode", fmt.Sprintf("%s (%s)", j.Mode, i.FileMode()))
	line("owner", fmt.Sprintf("%s (%d)", j.Owner, j.UID))
	line("group", fmt.Sprintf("%s (%d)", j.Group, j.GID))
	line("modified", stamp(i.Mtime))
	line("changed", stamp(i.Ctime))
	line("accessed", stamp(i.Atime))
	line("inode", j.Inode)
	if j.RaftGroup > 1 {
		line("raft group", j.RaftGroup)
	}
	if i.Type == orca.TypeFile {
		line("version", i.Version)
		line("blocks", fmt.Sprintf("%d of at most %s", j.Blocks, size(i.BlockSize, true)))
		most := "any"
		if i.ReplicaMax >= 0 {
			most = strconv.Itoa(i.ReplicaMax)
		}
		line("copies", fmt.Sprintf("%d (min %d, max %s)", copies, i.ReplicaMin, most))
		line("cached", fmt.Sprintf("%s (%s)", size(i.CachedBytes, true), percent(i.CachedBytes, i.Length)))
	}
	line("target", i.Target)
	line("persistence", i.Persist)
	line("pinned", i.Pinned)
	line("ufs path", i.UFSPath)
	line("ufs", j.UFS)
	line("fingerprint", i.Fingerprint)
	return t.flush()
}

// reading opens a file with the verb's --read-type.
func reading(ctx context.Context, fs *client.FS, path, typ string) (*client.File, error) {
	r, err := parseReadType(typ)
	if err != nil {
		return nil, err
	}
	return fs.Open(ctx, client.Path(path), client.ReadOptions{Type: r})
}

func (e *env) catCommand() *cobra.Command {
	var typ *string
	c := e.verb("cat PATH...", "Print files", "Print the content of files to stdout, one after the other.",
		`  orca fs cat /logs/today.gz | zcat`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				f, err := reading(ctx, fs, path, *typ)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = f.WriteToContext(ctx, e.Out)
				return err
			})
		})
	typ = readType(c)
	return c
}

func (e *env) headCommand() *cobra.Command { return e.part("head", "first", 0) }
func (e *env) tailCommand() *cobra.Command { return e.part("tail", "last", 2) }

// part builds head and tail.
func (e *env) part(name, which string, whence int) *cobra.Command {
	var count string
	var typ *string
	c := e.verb(name+" PATH...", "Print the "+which+" bytes of files", "Print the "+which+" bytes of files: 1 KiB unless -c says otherwise.",
		"  orca fs "+name+" -c 4KB /logs/today", 1,
		func(cmd *cobra.Command, args []string) error {
			n, err := humanize.ParseBytes(count)
			if err != nil || n > 1<<62 {
				return usagef("-c %s: not a size", count)
			}
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				f, err := reading(ctx, fs, path, *typ)
				if err != nil {
					return err
				}
				defer f.Close()
				off := int64(0)
				if whence == 2 {
					off = max(0, f.Size()-int64(n))
				}
				_, err = io.Copy(e.Out, io.NewSectionReader(f.WithContext(ctx), off, int64(n)))
				return err
			})
		})
	c.Flags().StringVarP(&count, "bytes", "c", "1KiB", "how many bytes")
	typ = readType(c)
	return c
}

func (e *env) testCommand() *cobra.Command {
	var d, x, f, s, z bool
	c := exactly(e.verb("test [-d|-e|-f|-s|-z] PATH", "Check what a path is",
		"Exit with 0 if the path is what the flags say, with 1 if not. Prints nothing.",
		`  orca fs test -d /data && echo a directory`, 1,
		func(cmd *cobra.Command, args []string) error {
			p, err := e.clean(args[0])
			if err != nil {
				return err
			}
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			i, err := fs.Stat(cmd.Context(), client.Path(p), client.Sync{})
			if k := orca.KindOf(err); k == orca.NotFound || k == orca.NotDir {
				return errReported
			}
			if err != nil {
				return err
			}
			if d && !i.IsDir() || f && i.Type != orca.TypeFile || s && i.Length == 0 || z && (i.IsDir() || i.Length != 0) {
				return errReported
			}
			return nil
		}), 1)
	c.Flags().BoolVarP(&d, "directory", "d", false, "it is a directory")
	c.Flags().BoolVarP(&x, "exists", "e", false, "it exists")
	c.Flags().BoolVarP(&f, "file", "f", false, "it is a file")
	c.Flags().BoolVarP(&s, "size", "s", false, "it is not empty")
	c.Flags().BoolVarP(&z, "zero", "z", false, "it is a file of length 0")
	return c
}

func (e *env) checksumCommand() *cobra.Command {
	var crc bool
	c := e.verb("checksum PATH...", "Print checksums of files",
		"Print the MD5 of the content of files, or their CRC32C.",
		`  orca fs checksum /data/x
  orca fs checksum --crc32c '/data/**'`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				f, err := fs.Open(ctx, client.Path(path), client.ReadOptions{})
				if err != nil {
					return err
				}
				defer f.Close()
				name, h := "md5", md5.New()
				if crc {
					name, h = "crc32c", crc32.New(crc32.MakeTable(crc32.Castagnoli))
				}
				if _, err := f.WriteToContext(ctx, h); err != nil {
					return err
				}
				sum := hex.EncodeToString(h.Sum(nil))
				if e.json {
					return e.emit(map[string]any{"path": path, "algorithm": name, "checksum": sum})
				}
				_, err = fmt.Fprintf(e.Out, "%s\t%s\t%s\n", name, sum, path)
				return err
			})
		})
	c.Flags().BoolVar(&crc, "crc32c", false, "CRC32C (Castagnoli) instead of MD5")
	return c
}

func (e *env) locationCommand() *cobra.Command {
	return e.verb("location PATH...", "Show which workers hold a file",
		"Show which workers hold blocks of a file, how much, and in which tier.",
		`  orca fs location /data/x`, 1,
		func(cmd *cobra.Command, args []string) error {
			t := e.table("WORKER", "ADDRESS", "CACHED", "TIER", "BLOCKS", "PATH")
			err := e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				_, ls, err := fs.Locations(ctx, client.Path(path))
				if err != nil {
					return err
				}
				for _, l := range ls {
					node, addr := "?", "?"
					if l.Worker != nil {
						node, addr = l.Worker.Node, l.Worker.Addr
					}
					if e.json {
						err = e.emit(map[string]any{"path": path, "worker": l.WorkerID, "node": node, "address": addr,
							"cached_bytes": l.Cached, "tier": l.Tier.String(), "complete_blocks": l.Complete})
					} else {
						err = t.row(node, addr, l.Cached, l.Tier, len(l.Complete), path)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
			if ferr := t.flush(); err == nil {
				err = ferr
			}
			return err
		})
}
