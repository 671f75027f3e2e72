// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"orca"
	"orca/metaplane/backup"
	"orca/metaplane/fsm"
	"orca/metaplane/raftgroup"
)

// restoring is where a restore works below the data folder: it becomes the
// metaplane's folder when all is there.
const restoring = "meta.restoring"

// Restored says what a restore has made.
type Restored struct {
	Backup  *backup.Reader // its header and trailer
	Cluster string
	// Aside is where the state that was there before is; "": there was none.
	Aside string
}

// RestoreOptions shape Restore.
type RestoreOptions struct {
	// Replace puts a state that is there aside; else it is refused with Exists.
	Replace bool
	// Progress is called with the bytes read so far; the file is read twice. May
	// be nil.
	Progress func(done, total int64)
}

// Restore makes the metaplane's state below cfg.Data from a backup; nothing may
// run there. Of cfg, who the members are counts, too. The whole file is checked
// before anything is written. A restore that is interrupted leaves a folder that
// no start takes for a state, and is done again.
func Restore(ctx context.Context, cfg Config, file string, o RestoreOptions, log *slog.Logger) (out *Restored, err error) {
	const op = "daemon.Restore"
	if err := cfg.resolve(); err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, orca.PathE(op, file, orca.FileKind(err), err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, orca.PathE(op, file, orca.Unavailable, err)
	}
	in := &counted{ctx: ctx, r: f, total: 2 * st.Size(), progress: o.Progress}
	checked, err := backup.Verify(in)
	if err != nil {
		return nil, orca.PathE(op, file, orca.KindOf(err), err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, orca.PathE(op, file, orca.Unavailable, err)
	}
	d, err := openDataDir(cfg.Data)
	if err != nil {
		return nil, err
	}
	defer d.close()
	out = &Restored{}
	if used(d.join("meta")) && !o.Replace {
		return nil, &orca.Error{Op: op, Path: d.join("meta"), Kind: orca.Exists,
			Msg: "there is a metaplane in this data folder already: give another one, or --replace, which puts it aside"}
	}
	if err := os.RemoveAll(d.join(restoring)); err != nil {
		return nil, orca.PathE(op, d.join(restoring), orca.Unavailable, err)
	}
	if out.Cluster, err = fill(&cfg, d.join(restoring), in, checked.Trailer.Digest, log); err != nil {
		return nil, errors.Join(err, os.RemoveAll(d.join(restoring)))
	}
	if out.Backup = checked; used(d.join("meta")) {
		out.Aside = d.join("meta.before-" + time.Now().UTC().Format("20060102T150405.000"))
		if err := os.Rename(d.join("meta"), out.Aside); err != nil {
			return nil, orca.PathE(op, d.join("meta"), orca.Unavailable, err)
		}
	} else if err := os.RemoveAll(d.join("meta")); err != nil { // an empty folder
		return nil, orca.PathE(op, d.join("meta"), orca.Unavailable, err)
	}
	if err := os.Rename(d.join(restoring), d.join("meta")); err != nil {
		return nil, orca.PathE(op, d.join("meta"), orca.Unavailable, err)
	}
	return out, syncFolder(d.path)
}

// fill makes the folder of a host from the backup that in reads.
func fill(cfg *Config, dir string, in io.Reader, digest string, log *slog.Logger) (cluster string, err error) {
	b, err := backup.NewReader(in)
	if err != nil {
		return "", err
	}
	rc := raftgroup.Config{Dir: dir, Address: cfg.RaftAddr, Members: cfg.firstMembers()}
	img := raftgroup.Image{Digest: digest}
	for _, g := range b.Header.Groups {
		img.Groups = append(img.Groups, raftgroup.GroupImage{Number: g.ID, Applied: g.Applied})
	}
	last := img.Groups[len(img.Groups)-1].Number
	records := &renewed{in: b, members: raftgroup.MemberList(rc.FirstMembers())}
	img.Next = func(group uint16) (key, value []byte, err error) {
		key, value, err = records.next(group)
		if key == nil && err == nil && group == last {
			err = records.whole(digest)
		}
		return key, value, err
	}
	return raftgroup.Restore(rc, img, log)
}

// renewed are the records of a backup as they are to be gone on with, one group
// after the other.
type renewed struct {
	in      *backup.Reader
	members string

	group   uint16 // that is handed out
	renewal fsm.Renewal
	rest    [][2][]byte // of it, behind its records
	over    bool        // its records were handed out

	ahead      uint16 // the group of the record that was read too far, 0: none was
	key, value []byte
	end        bool // of all
}

// next returns the next record of a group; a nil key: that was all of it.
func (r *renewed) next(group uint16) (key, value []byte, err error) {
	if group != r.group {
		r.group, r.over, r.rest = group, false, nil
		r.renewal = fsm.Renewal{Created: r.in.Header.Created.UnixNano(), Members: r.members}
	}
	for !r.over {
		if err := r.read(); err != nil {
			return nil, nil, err
		}
		if r.end || r.ahead != group {
			r.over = true
			err = r.renewal.Rest(func(k, v []byte) { r.rest = append(r.rest, [2][]byte{k, v}) })
			if err != nil {
				return nil, nil, err
			}
			break
		}
		r.ahead = 0
		value, keep, err := r.renewal.Record(r.key, r.value)
		if err != nil {
			return nil, nil, err
		}
		if keep {
			return r.key, value, nil
		}
	}
	if len(r.rest) == 0 {
		return nil, nil, nil
	}
	kv := r.rest[0]
	r.rest = r.rest[1:]
	return kv[0], kv[1], nil
}

// read reads the next record, unless one was read too far.
func (r *renewed) read() (err error) {
	if r.ahead != 0 || r.end {
		return nil
	}
	r.ahead, r.key, r.value, err = r.in.Next()
	if errors.Is(err, io.EOF) {
		r.ahead, r.end = 0, true
		return nil
	}
	if err == nil && r.ahead == 0 {
		err = orca.E("daemon.Restore", orca.Corrupt, "a record is of no group")
	}
	return err
}

// whole reports an error unless all was read, of the file that was checked.
func (r *renewed) whole(digest string) error {
	if err := r.read(); err != nil {
		return err
	}
	if !r.end || r.in.Trailer.Digest != digest {
		return orca.E("daemon.Restore", orca.Corrupt, "the file has changed while it was read, or its groups are out of order")
	}
	return nil
}

// used reports whether a folder has something in it.
func used(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}

// unfinished refuses a data folder in which a restore was interrupted: what
// would start there is an empty namespace, not the one that was to be restored.
func (d *dataDir) unfinished() error {
	if _, err := os.Stat(d.join(restoring)); err != nil || used(d.join("meta")) {
		return nil
	}
	return &orca.Error{Op: "daemon.start", Path: d.path, Kind: orca.Conflict,
		Msg: "a restore was interrupted here: do it again, or remove " + restoring + " to begin with an empty namespace"}
}

// counted reads a file, telling how far it is.
type counted struct {
	ctx         context.Context //nolint:containedctx // of the one call that reads
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, orca.PathE("daemon.Restore", "", orca.Canceled, err)
	}
	n, err := c.r.Read(p)
	if c.done += int64(n); c.progress != nil {
		c.progress(min(c.done, c.total), c.total)
	}
	return n, err
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return orca.PathE("daemon.Restore", dir, orca.Unavailable, err)
	}
	return nil
}

// Inspect opens the metaplane's folder below a data folder, to be read, for one
// of its groups (0: the first); nothing may run there.
func Inspect(data string, group uint16, log *slog.Logger) (*raftgroup.Inspection, error) {
	return raftgroup.Inspect(filepath.Join(data, "meta"), group, log)
}
