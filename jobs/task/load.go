// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"slices"
	"time"

	"orca"
	"orca/dataplane"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

const (
	// loadPiece is how much is asked for at a time.
	loadPiece = 4 << 20
	// loadTries is how often a file is tried.
	loadTries = 3
	loadPause = 200 * time.Millisecond
)

// Load brings the items of a task into the cache of this worker, unless each
// block is on as many workers as asked for. Failures of single files are in
// Done; an error means that the context ended.
func Load(ctx context.Context, e *Env, t *jobpb.Task, replicas uint32) (*jobpb.Done, error) {
	return e.items(ctx, t, func(ctx context.Context, i *jobpb.Item) (bool, error) {
		return e.loadItem(ctx, i, max(int(replicas), 1))
	})
}

// anyReplicas is more copies than there are workers: this one is to have its
// own.
const anyReplicas = 1 << 30

// loadItem tries an item a few times; skipped says that nothing was to do.
func (e *Env) loadItem(ctx context.Context, i *jobpb.Item, replicas int) (skipped bool, err error) {
	for try := 1; ; try++ {
		skipped, err = e.loadOnce(ctx, i, replicas)
		// Stale: the metaplane hears of the change from the read path, and the
		// next Open has the new version.
		if err == nil || try == loadTries || !orca.KindOf(err).Retryable() && !errors.Is(err, orca.Stale) {
			return skipped, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(loadPause << try):
		}
	}
}

func (e *Env) loadOnce(ctx context.Context, i *jobpb.Item, replicas int) (skipped bool, err error) {
	rep, a, g, err := e.open(ctx, i.File)
	switch {
	case errors.Is(err, orca.NotFound):
		return true, nil // deleted since it was listed
	case err != nil:
		return false, err
	case a.Persist != orca.Persisted:
		return true, nil // only in the cache anyway
	}
	from, to := i.FirstBlock, blocks(a)
	if i.Blocks != 0 {
		to = min(to, from+i.Blocks)
	}
	skipped = true
	for b := from; b < to; b++ {
		missing := replicas - e.held(rep.Locations, b)
		if missing <= 0 || e.here(ctx, a, b) {
			continue
		}
		skipped = false
		// Where more are missing, a home that fetches for all may keep one.
		own := missing == 1 || replicas == anyReplicas
		if err := e.loadBlock(ctx, a, b, g, own); err != nil {
			return false, err
		}
		if replicas == anyReplicas && e.lacks(ctx, a, b) {
			return false, &orca.Error{Op: "task.Replicate", Path: i.Path, Kind: orca.NoSpace, Msg: "no tier has room for the copy"}
		}
	}
	return skipped, nil
}

// held returns how many other workers have the block.
func (e *Env) held(locations []*metapb.Location, block uint32) int {
	n := 0
	for _, l := range locations {
		if l.Worker != e.Self && slices.Contains(l.Complete, block) {
			n++
		}
	}
	return n
}

// here reports whether this worker has the whole block.
func (e *Env) here(ctx context.Context, a *orca.Attr, block uint32) bool {
	inf, ok := e.Blocks.(dataplane.Informer)
	if !ok {
		return false
	}
	bi, err := inf.BlockInfo(ctx, blockID(a, block))
	return err == nil && bi.Complete
}

// lacks reports whether this worker is known not to have a block: what finds no
// room is read all the same, and passed on.
func (e *Env) lacks(ctx context.Context, a *orca.Attr, block uint32) bool {
	_, ok := e.Blocks.(dataplane.Informer)
	return ok && !e.here(ctx, a, block)
}

func blockID(a *orca.Attr, block uint32) orca.BlockID {
	return orca.BlockID{File: a.Ino, Version: a.BlockVersion(block), Index: block}
}

// loadBlock reads a block from end to end and drops what it reads; own: no other
// worker is to have it for that.
func (e *Env) loadBlock(ctx context.Context, a *orca.Attr, block uint32, g dataplane.Grant, own bool) error {
	n := a.BlockLength(block)
	for off := int64(0); off < n; {
		ext, err := e.Blocks.Open(ctx, dataplane.ReadRequest{
			ID: blockID(a, block), Off: off, N: min(loadPiece, n-off), Grant: g, Sequential: true, Own: own,
		})
		if err != nil {
			return err
		}
		got := ext.N
		if ext.Release != nil {
			ext.Release()
		}
		if got <= 0 {
			return &orca.Error{Op: "task.Load", Path: blockID(a, block).String(), Kind: orca.Corrupt, Msg: "the block ends early"}
		}
		off += got
		if err := e.moved(ctx, got); err != nil {
			return err
		}
	}
	return nil
}
