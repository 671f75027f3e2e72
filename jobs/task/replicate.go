// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"slices"

	"orca"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

// Keeper is optional for Blocks: it keeps and drops copies by order.
type Keeper interface {
	// Keep makes this worker have a block of length bytes that is in no store:
	// read from a worker at one of the addresses, verified, and kept until it is
	// persisted; durable if asked for. One that is here so already is left
	// alone, a damaged one is replaced. moved is told of bytes as they come.
	Keep(ctx context.Context, id orca.BlockID, length int64, durable bool, from []string, moved func(int64) error) error
	// Drop removes the blocks of a version that are not the only copies.
	Drop(file orca.Ino, version uint32)
}

// Replicate makes copies on this worker. Failures of single files are in Done;
// an error means that the context ended.
func Replicate(ctx context.Context, e *Env, t *jobpb.Task) (*jobpb.Done, error) {
	return e.items(ctx, t, func(ctx context.Context, i *jobpb.Item) (bool, error) {
		if !i.Unpersisted {
			return e.loadItem(ctx, i, anyReplicas)
		}
		return e.keepItem(ctx, i)
	})
}

// Evict drops copies of this worker that are too many.
func Evict(ctx context.Context, e *Env, t *jobpb.Task) (*jobpb.Done, error) {
	return e.items(ctx, t, e.dropItem)
}

// items does one thing after the other.
func (e *Env) items(ctx context.Context, t *jobpb.Task, do func(context.Context, *jobpb.Item) (skipped bool, err error)) (*jobpb.Done, error) {
	d := &jobpb.Done{Job: t.Job, Task: t.Id}
	for _, i := range t.Items {
		skipped, err := do(ctx, i)
		if ctx.Err() != nil {
			return nil, orca.PathE("task", i.Path, orca.Canceled, ctx.Err())
		}
		if err != nil {
			d.Failures = append(d.Failures, &jobpb.Failure{Path: i.Path, Error: err.Error()})
			continue
		}
		d.Bytes += i.Bytes
		if i.FirstBlock == 0 { // a large file counts once
			d.Files++
			if skipped {
				d.Skipped++
			}
		}
	}
	return d, nil
}

var errNoKeeper = orca.E("task", orca.Unsupported, "this worker keeps no copies by order")

// keepItem copies blocks of an unpersisted file from other workers. Persisted
// meanwhile, it is loaded like any other.
func (e *Env) keepItem(ctx context.Context, i *jobpb.Item) (skipped bool, err error) {
	k, ok := e.Blocks.(Keeper)
	if !ok {
		return false, errNoKeeper
	}
	rep, a, _, err := e.open(ctx, i.File)
	switch {
	case errors.Is(err, orca.NotFound):
		return true, nil
	case err != nil:
		return false, err
	case a.Version != i.Version:
		return true, nil // that one is looked after by itself
	case a.Persist == orca.Persisted:
		return e.loadItem(ctx, i, anyReplicas)
	case a.Persist == orca.Lost:
		return false, orca.PathE("task.Replicate", i.Path, orca.LostData, nil)
	}
	durable := a.Persist == orca.ToBePersisted // what ASYNC_THROUGH has promised
	from, to := i.FirstBlock, blocks(a)
	if i.Blocks != 0 {
		to = min(to, from+i.Blocks)
	}
	for b := from; b < to; b++ {
		moved := func(n int64) error { return e.moved(ctx, n) }
		sources := e.sources(rep, b)
		err := k.Keep(ctx, blockID(a, b), a.BlockLength(b), durable, sources, moved)
		if err != nil && len(sources) == 0 && e.await(ctx) {
			return e.keepItem(ctx, i) // what is here by now is left alone
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// sources are the addresses of the other workers that have a block.
func (e *Env) sources(rep *metapb.OpenReply, block uint32) (out []string) {
	for _, l := range rep.Locations {
		if l.Worker == e.Self || l.Cached < rep.Attr.Length && !slices.Contains(l.Complete, block) {
			continue
		}
		for _, w := range rep.Workers {
			if w.Id == l.Worker {
				out = append(out, w.Addr)
			}
		}
	}
	return out
}

// dropItem drops a persisted file, if enough others still have all of it.
func (e *Env) dropItem(ctx context.Context, i *jobpb.Item) (skipped bool, err error) {
	k, ok := e.Blocks.(Keeper)
	if !ok {
		return false, errNoKeeper
	}
	rep, a, _, err := e.open(ctx, i.File)
	switch {
	case errors.Is(err, orca.NotFound):
		return true, nil
	case err != nil:
		return false, err
	case a.Version != i.Version || a.Persist != orca.Persisted:
		return true, nil
	}
	others := uint32(0)
	for _, l := range rep.Locations {
		if l.Worker != e.Self && l.Cached >= a.Length {
			others++
		}
	}
	if others < i.Others {
		return true, nil
	}
	k.Drop(a.Ino, a.Version)
	return false, nil
}
