// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"orca/metaplane/metapb"
)

// Regrouping is how far the move of a directory to another group is.
type Regrouping struct {
	Moving bool   // it is under way: who would change what is below waits
	Group  uint16 // that it is on its way to, or lives in
	Copied int64  // files, links and directories, by the present attempt
	Total  int64
	// Problem is why it does not come on, or why the last move of the directory
	// was given up; "": there is none.
	Problem string
}

// Regroup begins to move a directory of a mount of the first group, wherever it
// lives now, to a group (1: the first), with all that is below it, and returns once
// writers wait, or will; Regrouping tells
// when it is over. One that lives there already, or is on its way, is fine.
// Permission (only root may), Invalid when there is no such group, Unavailable when
// nobody leads it, Exists when it is on its way to another one, Busy while
// something below waits to be persisted, Unsupported when something is in the way:
// a quota above it, a trash of its mount, mounts or directories in groups below
// it, files that are not in the store or have names outside.
func (fs *FS) Regroup(ctx context.Context, path string, group uint16) (Regrouping, error) {
	return fs.regroup(ctx, path, group, metapb.RegroupAsk_REGROUP_BEGIN)
}

// Regrouping tells how far the move of a directory is. Permission, NotFound.
func (fs *FS) Regrouping(ctx context.Context, path string) (Regrouping, error) {
	return fs.regroup(ctx, path, 0, metapb.RegroupAsk_REGROUP_STATUS)
}

// AbortRegroup gives up the move of a directory, which stays as it was. Exists
// when it is over already.
func (fs *FS) AbortRegroup(ctx context.Context, path string) error {
	_, err := fs.regroup(ctx, path, 0, metapb.RegroupAsk_REGROUP_ABORT)
	return err
}

func (fs *FS) regroup(ctx context.Context, path string, group uint16, ask metapb.RegroupAsk) (Regrouping, error) {
	r, err := fs.meta.Regroup(ctx, &metapb.RegroupRequest{H: fs.header(), Target: &metapb.Target{Path: path}, Group: uint32(group), Ask: ask})
	if err != nil {
		return Regrouping{}, err
	}
	return Regrouping{Moving: r.State == metapb.RegroupState_REGROUP_MOVING, Group: uint16(r.Group),
		Copied: r.Copied, Total: r.Total, Problem: r.Problem}, nil
}
