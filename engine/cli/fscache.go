// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"orca/engine/client"
	"orca/metaplane/metapb"
)

// mountJSON is what --json says about one mount.
type mountJSON struct {
	ID             uint32            `json:"id"`
	Path           string            `json:"path"`
	URI            string            `json:"uri"`
	ReadOnly       bool              `json:"read_only"`
	Shared         bool              `json:"shared"`
	SyncIntervalMS int64             `json:"sync_interval_ms"` // -1: loaded once
	Options        map[string]string `json:"options,omitempty"`
	Group          uint32            `json:"group"`
	TrashMS        int64             `json:"trash_retention_ms"` // 0: nothing is kept
	State          string            `json:"state,omitempty"`    // mounting, unmounting
	PartOf         uint32            `json:"part_of,omitempty"`  // the mount that it is a directory of
}

func mountOf(m *client.Mount) mountJSON {
	return mountJSON{m.Id, m.Path, m.Uri, m.ReadOnly, m.Shared, m.SyncIntervalMs, m.Options, max(m.Group, 1), m.TrashRetentionMs, junctionState(m), m.Part.GetMount()}
}

// junctionState says how far a mount in a group of its own is; "" when it is
// whole, as one without is at once.
func junctionState(m *client.Mount) string {
	switch m.Junction {
	case metapb.JunctionState_JUNCTION_JOINING:
		return "mounting"
	case metapb.JunctionState_JUNCTION_LEAVING:
		return "unmounting"
	}
	return ""
}

func (e *env) mountCommand() *cobra.Command {
	var options []string
	var readOnly, shared bool
	var group uint16
	var interval time.Duration
	var keep retention
	c := e.verb("mount [PATH URI]", "Attach a store, or list what is attached",
		`Attach a bucket or a folder at PATH; without arguments, list the mounts. PATH
must not exist. Wrong credentials and unreachable stores fail here, naming the
request that failed.

Options of s3:// are s3.endpoint, s3.region, s3.path_style, s3.access_key,
s3.secret_key and s3.session_token (Alluxio's spellings work, too); without
keys the AWS_* environment of the server is used. Every store takes
limit.read_rate and limit.write_rate (bytes per second), limit.iops (calls per
second), limit.concurrent and retry.attempts; each process of Orca keeps to
them on its own.

With --trash-retention what is deleted below PATH is kept for that long (orca fs
trash); mounting the same store at the same path again leaves it as it is, or
changes it for what is there, too.

With --group the names of the mount live in that Raft group of the metaplane
(orca admin group), with a leader of its own: the subtree goes on when another
group's leader fails, and takes nothing of its speed. PATH must be outside of
such mounts, and stays in its group until it is unmounted.`,
		`  orca fs mount
  orca fs mount /s3 s3://bucket/prefix --option s3.region=eu-central-1
  orca fs mount /far s3://archive --option limit.read_rate=100MB/s --option limit.iops=500
  orca fs mount --readonly /ref file:///srv/reference
  orca fs mount --group 2 /train s3://training`, 0,
		func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return e.listMounts(cmd.Context(), fs)
			}
			p, err := e.clean(args[0])
			if err != nil {
				return err
			}
			opts, err := pairs(options)
			if err != nil {
				return err
			}
			m := &client.Mount{Path: p, Uri: args[1], Options: opts, ReadOnly: readOnly, Shared: shared, SyncIntervalMs: -1, Group: uint32(group)}
			m.TrashRetentionMs = keep.ms
			if interval >= 0 {
				m.SyncIntervalMs = interval.Milliseconds()
			}
			m, err = fs.Mount(cmd.Context(), m, true)
			if err != nil {
				e.report("mount", p, err)
				return errReported
			}
			if e.json {
				return e.emit(mountOf(m))
			}
			_, err = fmt.Fprintf(e.Out, "mounted %s at %s\n", m.Uri, m.Path)
			return err
		})
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 0 && len(args) != 2 {
			return usagef("want mount PATH URI, or no argument")
		}
		return nil
	}
	f := c.Flags()
	f.StringArrayVar(&options, "option", nil, "an option of the store, key=value; may be repeated")
	f.BoolVar(&readOnly, "readonly", false, "refuse writes")
	f.BoolVar(&shared, "shared", false, "others write to the store, too; kept with the mount")
	f.Uint16Var(&group, "group", 0, "the group that the mount lives in; 0: that of the root")
	f.Var(&keep, "trash-retention", "how long what is deleted is kept in the trash, such as 72h; 0: not at all")
	f.DurationVar(&interval, "sync-interval", -1, "how old what is known of the store may be: 0 looks on every access, negative loads once")
	f.Lookup("sync-interval").DefValue = "load once"
	return c
}

// pairs parses key=value arguments.
func pairs(in []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range in {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, usagef("option %q: want key=value", s)
		}
		out[k] = v
	}
	return out, nil
}

func (e *env) listMounts(ctx context.Context, fs *client.FS) error {
	ms, err := fs.Mounts(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(ms, func(a, b *client.Mount) int { return strings.Compare(a.Path, b.Path) })
	t := e.table("PATH", "URI", "GROUP", "ACCESS", "SYNC", "OPTIONS")
	for _, m := range ms {
		if e.json {
			if err := e.emit(mountOf(m)); err != nil {
				return err
			}
			continue
		}
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		if m.Shared {
			access += ",shared"
		}
		sync := "once"
		if m.SyncIntervalMs >= 0 {
			sync = (time.Duration(m.SyncIntervalMs) * time.Millisecond).String()
		}
		var os []string
		for k, v := range m.Options {
			os = append(os, k+"="+v)
		}
		slices.Sort(os)
		if m.Part != nil {
			access += ",part"
		}
		if s := junctionState(m); s != "" {
			access += "," + s
		}
		if m.TrashRetentionMs > 0 {
			access += ",trash=" + (time.Duration(m.TrashRetentionMs) * time.Millisecond).String()
		}
		if err := t.row(m.Path, m.Uri, max(m.Group, 1), access, sync, strings.Join(os, ",")); err != nil {
			return err
		}
	}
	return t.flush()
}

func (e *env) unmountCommand() *cobra.Command {
	c := e.verb("unmount PATH", "Detach a store", `Detach a store from the namespace. What it holds stays in it. A directory that
was made by orca fs mkdir --group comes back into the group of its mount, with
what the store has.`,
		`  orca fs unmount /s3`, 1,
		func(cmd *cobra.Command, args []string) error {
			return e.eachNew(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				return fs.Unmount(ctx, path)
			})
		})
	c.Aliases = []string{"umount"}
	return c
}

func (e *env) freeCommand() *cobra.Command {
	var o client.FreeOptions
	c := e.verb("free PATH...", "Drop cached blocks",
		"Drop the cached blocks of files that the store has, whole trees included. The\nfiles stay, and are fetched again when read.",
		`  orca fs free /data/2025`, 1,
		func(cmd *cobra.Command, args []string) error {
			o.Recursive = true
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				return fs.Free(ctx, client.Path(path), o)
			})
		})
	c.Flags().BoolVarP(&o.Force, "force", "f", false, "pinned files, too")
	return c
}

func (e *env) pinCommand() *cobra.Command {
	return e.verb("pin PATH...", "Keep cached blocks from eviction", "Keep the cached blocks of files and trees from being evicted.",
		`  orca fs pin /models/current`, 1, e.pinning(true))
}

func (e *env) unpinCommand() *cobra.Command {
	return e.verb("unpin PATH...", "Let cached blocks be evicted again", "Undo pin.",
		`  orca fs unpin /models/old`, 1, e.pinning(false))
}

func (e *env) pinning(on bool) func(cmd *cobra.Command, args []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
			return fs.Pin(ctx, client.Path(path), on)
		})
	}
}

func (e *env) setReplicationCommand() *cobra.Command {
	var r client.Replicas
	var recursive bool
	c := e.verb("setReplication PATH...", "Bound the number of cached copies",
		`Say on how many workers a file is to be. Copies that are missing are made up
for, and as many are kept until a write needs the room and nothing else may
leave; of what is in the store below, copies over the maximum are dropped. The
last copy of what is nowhere else stays. Without flags there are no bounds. A
cached copy is counted block by block.`,
		`  orca fs setReplication --min 2 /models/current
  orca fs setReplication --min 1 --max 3 -R /data/hot`, 1,
		func(cmd *cobra.Command, args []string) error {
			switch {
			case r.Min < 0 || r.Max < -1:
				return usagef("--min must be at least 0 and --max at least -1, which is no bound")
			case r.Max >= 0 && r.Max < r.Min:
				return usagef("--max %d is less than --min %d", r.Max, r.Min)
			}
			return e.each(cmd, args, func(ctx context.Context, fs *client.FS, path string) error {
				return fs.SetReplication(ctx, client.Path(path), r, recursive)
			})
		})
	c.Aliases = []string{"set-replication"}
	c.Flags().IntVar(&r.Min, "min", 0, "on how many workers at least")
	c.Flags().IntVar(&r.Max, "max", -1, "on how many workers at most; -1: no bound, 0: never cached")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "all files below directories")
	return c
}

func (e *env) leaderCommand() *cobra.Command {
	return exactly(e.verb("leader", "Print the address of the metaplane that answers", "Print the address of the metaplane member that answers.",
		`  orca fs leader`, 0,
		func(cmd *cobra.Command, _ []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := fs.Mounts(cmd.Context()); err != nil {
				return err
			}
			if e.json {
				return e.emit(map[string]string{"address": fs.MetaAddress()})
			}
			_, err = fmt.Fprintln(e.Out, fs.MetaAddress())
			return err
		}), 0)
}

func (e *env) capacityCommand() *cobra.Command {
	c := e.total("getCapacityBytes", "Print the capacity of all live workers, in bytes", func(c client.Capacity) int64 { return c.Total })
	c.Aliases = []string{"get-capacity-bytes"}
	return c
}

func (e *env) usedCommand() *cobra.Command {
	c := e.total("getUsedBytes", "Print the bytes in use on all live workers", func(c client.Capacity) int64 { return c.Used })
	c.Aliases = []string{"get-used-bytes"}
	return c
}

func (e *env) total(name, short string, pick func(client.Capacity) int64) *cobra.Command {
	return exactly(e.verb(name, short, short+".", "  orca fs "+name, 0,
		func(cmd *cobra.Command, _ []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			c, err := fs.Statfs(cmd.Context())
			if err != nil {
				return err
			}
			if e.json {
				return e.emit(map[string]int64{"bytes": pick(c)})
			}
			_, err = fmt.Fprintln(e.Out, pick(c))
			return err
		}), 0)
}
