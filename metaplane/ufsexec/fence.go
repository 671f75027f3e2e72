// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"

	"orca/ufs"
	"orca/ufs/wrap"
)

// fenced are stores whose changes ask first whether they may still be made.
type fenced struct {
	Stores
	fence func(ctx context.Context) error
}

// FS implements Stores.
func (f fenced) FS(ctx context.Context, mountID uint32) (ufs.FS, error) {
	return f.fenced(f.Stores.FS(ctx, mountID))
}

// At implements Stores.
func (f fenced) At(ctx context.Context, mountID uint32, uri string) (ufs.FS, error) {
	return f.fenced(f.Stores.At(ctx, mountID, uri))
}

func (f fenced) fenced(fs ufs.FS, err error) (ufs.FS, error) {
	if err != nil {
		return nil, err
	}
	return wrap.Intercept(fs, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
		if c.Op.Mutates() || c.Op == wrap.Sweep {
			if err := f.fence(ctx); err != nil {
				return err
			}
		}
		return do(ctx)
	}), nil
}
