// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
	"orca/metaplane/backup"
	"orca/metaplane/inspect"
)

// RestoreOptions are the flags of `orca admin restore`.
type RestoreOptions struct {
	File string
	// Data is the data folder, Node, Peers and RaftAddr are as in StartOptions.
	Data, Node, RaftAddr string
	Peers                []string
	// Replace puts a state that is there aside.
	Replace bool
	// Progress is called with the bytes so far.
	Progress func(done, total int64)
}

// Restored says what a restore has made.
type Restored struct {
	backup.Header
	backup.Trailer
	Cluster string // the new identity
	Aside   string // where what was there before is; "": nothing was
}

// backupJSON is what --json says of a backup.
type backupJSON struct {
	File    string                      `json:"file"`
	Size    int64                       `json:"size_bytes"`
	Cluster string                      `json:"cluster"`
	Version string                      `json:"version"`
	Node    string                      `json:"node,omitempty"`
	Created time.Time                   `json:"created"`
	Groups  []backup.Group              `json:"groups"`
	Records map[uint16]map[string]int64 `json:"records"`
	Total   int64                       `json:"total_records"`
	Digest  string                      `json:"digest"`
	// Of a restore:
	Restored string `json:"restored_cluster,omitempty"`
	Aside    string `json:"aside,omitempty"`
}

func backupOf(file string, size int64, h *backup.Header, t *backup.Trailer) backupJSON {
	return backupJSON{File: file, Size: size, Cluster: h.Cluster, Version: h.Version, Node: h.Node, Created: h.Created,
		Groups: h.Groups, Records: t.Records, Total: t.Total, Digest: t.Digest}
}

func (e *env) printBackup(b backupJSON) error {
	if e.json {
		return e.emit(b)
	}
	t := e.table()
	line := func(k string, v ...any) { _ = t.row(k+":", fmt.Sprint(v...)) } // flush reports what matters
	line("file", b.File)
	line("size", size(b.Size, true))
	line("cluster", b.Cluster)
	line("written by", "orca ", b.Version, " on ", orDash(b.Node))
	line("state of", stamp(b.Created))
	for _, g := range b.Groups {
		line("group", g.ID, ", applied index ", g.Applied)
	}
	line("records", b.Total)
	for _, g := range slices.Sorted(maps.Keys(b.Records)) {
		for _, space := range slices.Sorted(maps.Keys(b.Records[g])) {
			kind := inspect.Kind(space[0])
			if kind == "" {
				kind = "of key space " + space
			}
			line("  "+kind, b.Records[g][space])
		}
	}
	line("digest", b.Digest)
	if b.Restored != "" {
		line("restored as", b.Restored)
	}
	if b.Aside != "" {
		line("put aside", b.Aside)
	}
	return t.flush()
}

func (e *env) backupCommand() *cobra.Command {
	var output, rate string
	var overwrite bool
	var replica uint64
	c := &cobra.Command{
		Use: "backup", Short: "Back up the metaplane while it runs",
		Long: `Back up the metaplane while it runs: names, attributes, mounts, jobs, and what
has still to be brought in line with the stores, all as they were at one moment
after this command began. The content of files is not in it: that is in the
stores and on the workers.

A member that does not lead makes the backup, if there is one that answers, and
streams it here; it is checked on its way. The file appears under its name only
when it is whole and on disk. It holds the secrets of the mounts, so that only
its owner may read it, and only root may ask for it.

--output is a file, or a folder, in which the file is named after cluster, time
and index. Restore it with orca admin restore.`,
		Example: `  orca admin backup
  orca admin backup --output /backups/ --rate 20MB
  orca admin backup verify /backups/orca-7f4e1a92-20261129T050000Z-1234567.backup`,
		Args: noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			o := client.BackupOptions{Replica: replica}
			var err error
			if o.Rate, err = quota("--rate", rate, 0); err != nil {
				return err
			}
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			return e.backUp(cmd.Context(), fs, output, overwrite, o)
		}),
	}
	fl := c.Flags()
	fl.StringVarP(&output, "output", "o", ".", "file or folder to write to")
	fl.BoolVar(&overwrite, "overwrite", false, "replace the file if it is there")
	fl.StringVar(&rate, "rate", "", "bytes per second at the most, such as 20MB (default: as fast as it goes)")
	fl.Uint64Var(&replica, "member", 0, "number of the member that makes it (default: one that does not lead)")
	c.AddCommand(e.verifyCommand())
	return c
}

// backUp writes a backup to a temporary name beside its own, and renames it when
// it is whole and on disk.
func (e *env) backUp(ctx context.Context, fs *client.FS, output string, overwrite bool, o client.BackupOptions) error {
	const op = "cli.backup"
	dir, name := filepath.Dir(output), filepath.Base(output)
	if st, err := os.Stat(output); err == nil && st.IsDir() || strings.HasSuffix(output, "/") {
		dir, name = filepath.Clean(output), ""
	}
	taken := func(p string) error {
		if _, err := os.Lstat(p); err == nil && !overwrite {
			return &orca.Error{Op: op, Path: p, Kind: orca.Exists, Msg: "the file is there already: give --overwrite, or another name"}
		}
		return nil
	}
	if name != "" {
		if err := taken(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	tmp, err := os.CreateTemp(dir, ".orca-backup-*.partial")
	if err != nil {
		return orca.PathE(op, dir, orca.FileKind(err), err)
	}
	defer os.Remove(tmp.Name()) // gone when it was renamed
	p := e.progress("backup")
	p.unit = "records"
	o.Progress = func(records, estimate, _ int64) { p.set(records, estimate) }
	b, err := fs.Backup(ctx, tmp, o)
	p.stop()
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if name == "" {
		name = fmt.Sprintf("orca-%.8s-%s-%d.backup", b.Cluster, b.Created.UTC().Format("20060102T150405Z"), b.Groups[0].Applied)
	}
	file := filepath.Join(dir, name)
	if err := taken(file); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return orca.PathE(op, file, orca.FileKind(err), err)
	}
	if d, err := os.Open(dir); err == nil {
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return orca.PathE(op, dir, orca.Unavailable, err)
		}
	}
	return e.printBackup(backupOf(file, b.Size, &b.Header, &b.Trailer))
}

func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usagef("want one FILE")
	}
	return nil
}

func (e *env) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE", Short: "Check a backup and say what is in it",
		Long: `Read a whole backup, check every checksum and the counts at its end, and say what
is in it. No Orca is asked.`,
		Example: "  orca admin backup verify /backups/orca-7f4e1a92-20261129T050000Z-1234567.backup",
		Args:    oneFile,
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return orca.PathE("cli.verify", args[0], orca.FileKind(err), err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				return orca.PathE("cli.verify", args[0], orca.Unavailable, err)
			}
			p := e.progress("verify")
			r, err := backup.Verify(&progressReader{ctx: cmd.Context(), r: f, p: p, total: st.Size()})
			p.stop()
			if err != nil {
				return orca.PathE("cli.verify", args[0], orca.KindOf(err), err)
			}
			return e.printBackup(backupOf(args[0], st.Size(), &r.Header, &r.Trailer))
		}),
	}
}

// progressReader tells how far a file was read.
type progressReader struct {
	ctx         context.Context //nolint:containedctx // of the one call that reads
	r           io.Reader
	p           *progress
	done, total int64
}

// Read implements io.Reader.
func (r *progressReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(b)
	r.done += int64(n)
	r.p.set(r.done, r.total)
	return n, err
}

func (e *env) restoreCommand() *cobra.Command {
	var o RestoreOptions
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make a metaplane from a backup",
		Long: `Make the state of a metaplane below --data from a backup; nothing may run there.
The file is checked before anything is written. Start the metaplane afterwards as
usual: orca up, or orca start --role meta.

A cluster of three (or five) is restored by restoring the same file on each of
its first members, with the same --peers that they are then started with. They
have a new identity that comes of both: a member that was not restored, or from
another file, is refused by the others.

Where there is a state already this is refused, unless --replace puts it aside.
The restored metaplane is a new cluster. Write sessions that were open end as
expired, directories are listed again from their stores when they are next used,
and operations that wait for a store resume, but leave alone what changed there
since the backup. docs/backup.md says what else to know.`,
		Example: `  orca admin restore nightly.backup --data /var/lib/orca
  orca admin restore nightly.backup --data /var/lib/orca --node a \
      --peers a=10.0.0.1:18200,b=10.0.0.2:18200,c=10.0.0.3:18200`,
		Args: oneFile,
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			s := StartOptions{Roles: []string{"meta"}, Peers: o.Peers, RaftAddr: o.RaftAddr}
			if err := s.checkCluster(); err != nil {
				return err
			}
			if o.RaftAddr != "" && len(o.Peers) == 0 {
				return usagef("--raft-addr without --peers")
			}
			var err error
			if o.Data, err = filepath.Abs(o.Data); err != nil {
				return usagef("--data: %v", err)
			}
			o.File, o.Node = args[0], e.node
			p := e.progress("restore")
			o.Progress = p.set
			r, err := e.hooks.Restore(cmd.Context(), o, e.Streams)
			p.stop()
			if err != nil {
				return err
			}
			var n int64
			if st, err := os.Stat(o.File); err == nil {
				n = st.Size()
			}
			b := backupOf(o.File, n, &r.Header, &r.Trailer)
			b.Restored, b.Aside = r.Cluster, r.Aside
			return e.printBackup(b)
		}),
	}
	fl := c.Flags()
	fl.StringVar(&o.Data, "data", defaultData(), "folder of all state")
	fl.Lookup("data").DefValue = "~/.orca"
	fl.StringSliceVar(&o.Peers, "peers", nil, "the first members of the cluster, NODE=HOST:PORT of Raft; all are given the same")
	fl.StringVar(&o.RaftAddr, "raft-addr", "", "address at which this member speaks with the others (default: that of --node among --peers)")
	fl.BoolVar(&o.Replace, "replace", false, "put a state that is there aside")
	return c
}
