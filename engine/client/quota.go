// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"math"

	"orca"
	"orca/metaplane/metapb"
)

// Quota is the quota of one directory.
type Quota = metapb.Quota

// Usage is what is below a directory, itself left out.
type Usage struct {
	Bytes int64 // sum of the lengths of files and links
	Files int64 // and links
	Dirs  int64
	// Whole says that this is all there is: no store has to be asked.
	Whole bool
	// Quotas are those of the directory and of all above it, the nearest first.
	Quotas []*Quota
}

// Usage returns what the namespace knows to be below a directory, at once
// however much that is; of a file, what is below the directory that it is in.
// NotFound, Permission.
func (fs *FS) Usage(ctx context.Context, t Target) (Usage, error) {
	tp, err := t.pb()
	if err != nil {
		return Usage{}, err
	}
	r, err := fs.meta.Usage(ctx, &metapb.UsageRequest{H: fs.header(), Target: tp})
	if err != nil {
		return Usage{}, err
	}
	u := r.GetUsage()
	return Usage{Bytes: u.GetBytes(), Files: u.GetFiles(), Dirs: u.GetDirs(), Whole: r.Whole, Quotas: r.Quotas}, nil
}

// Limits of SetQuota.
const (
	// KeepLimit leaves a limit as it is.
	KeepLimit = -1
	// NoLimit takes a limit away.
	NoLimit = 0
)

// SetQuota limits the bytes and the number of files, links and directories
// below a directory. Permission (only root may), NotFound, NotDir.
func (fs *FS) SetQuota(ctx context.Context, t Target, bytes, inodes int64) (*Quota, error) {
	tp, err := t.pb()
	if err != nil {
		return nil, err
	}
	r, err := fs.meta.SetQuota(ctx, &metapb.SetQuotaRequest{H: fs.header(), Target: tp, Bytes: bytes, Inodes: inodes})
	if err != nil {
		return nil, err
	}
	return r.Quota, nil
}

// Quotas returns the quotas of the directories that the caller can reach, by
// path.
func (fs *FS) Quotas(ctx context.Context) ([]*Quota, error) {
	r, err := fs.meta.Quotas(ctx, &metapb.QuotasRequest{H: fs.header()})
	if err != nil {
		return nil, err
	}
	return r.Quotas, nil
}

// askFrom is the length from which on a Writer asks whether quotas have room,
// before it writes more: short files are refused when they are published.
const askFrom = 64 << 20

// roomLocked refuses to write a file up to length when a directory above has no
// room for that. It is a courtesy, for the last word is the metaplane's: it asks
// when the length passes what it knows there to be room for, and lets pass what
// it cannot learn.
func (w *Writer) roomLocked(length int64) error {
	if length <= w.askAt {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), abandonWait)
	defer stop()
	ino := ByIno(orca.Ino(w.sess.File))
	u, err := w.fs.Usage(ctx, ino)
	if err != nil || len(u.Quotas) == 0 {
		w.askAt = max(length, 2*w.askAt)
		return nil
	}
	var old int64 // what the file has in the sums now
	if i, err := w.fs.Stat(ctx, ino, SyncNever()); err == nil {
		old = i.Length
	}
	room := int64(math.MaxInt64)
	for _, q := range u.Quotas {
		if q.Bytes == 0 {
			continue
		}
		there := q.GetUsage().GetBytes() + q.HeldBytes - max(0, w.expect-old)
		if more := length - old; more > 0 && there+more > q.Bytes {
			return &orca.Error{Op: "client.Write", Path: w.name, Kind: orca.OverQuota, Msg: fmt.Sprintf(
				"the quota of %s is %d bytes, with %d there or being written: no room for %d more", q.Path, q.Bytes, there, more)}
		}
		room = min(room, q.Bytes-there+old)
	}
	w.askAt = min(room, max(length, 2*w.askAt))
	return nil
}
