// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

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
