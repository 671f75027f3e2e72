// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"errors"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// drainAll drains a deferred intent, or finds out what became of a persist,
// again and again until it is done.
func (e *Executor) drainAll(r *run, in *command.Intent) error {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-r.reign.ctx.Done():
		return orca.PathE("ufsexec.drain", in.Source, orca.Unavailable, r.reign.ctx.Err())
	}
	for attempt := 0; ; attempt++ {
		if _, err := e.group.Machine().Intent(in.Id); err != nil {
			return nil // finished by somebody else, or its mount is gone
		}
		r.attempts.Add(1)
		err := e.drain(r.reign.ctx, r, in)
		if err == nil && in.Deferred {
			err = e.finish(r.reign.ctx, in)
		}
		if err == nil {
			e.Stats.Drained.Add(1)
			return nil
		}
		if attempt == 3 {
			e.log.Warn("intent is hard to drain", "op", in.Op.String(), "ino", in.Ino, "intent", in.Id, "err", err)
		}
		if !e.again(r, err, attempt) {
			return err
		}
	}
}

func (e *Executor) drain(ctx context.Context, r *run, in *command.Intent) error {
	store, err := e.stores.FS(ctx, in.MountId)
	if err != nil {
		return err
	}
	if err := e.removing(e.ctx, store, in); err != nil {
		return err
	}
	switch in.Op {
	case metapb.IntentOp_INTENT_PERSIST:
		return e.settlePersist(ctx, store, in)
	case metapb.IntentOp_INTENT_REMOVE_TREE:
		err := e.removeTree(ctx, store, in.Source, e.spareOf(in))
		if err == nil {
			e.sync.Removed(in.MountId, in.Source)
		}
		return err
	case metapb.IntentOp_INTENT_LEFT:
		return e.left(ctx, store, in)
	case metapb.IntentOp_INTENT_MOVE:
		return (&move{e: e, store: store, in: in, copied: &r.copied}).run(ctx)
	}
	return orca.E("ufsexec.drain", orca.Unsupported, "unknown intent "+in.Op.String())
}

func (e *Executor) finish(ctx context.Context, in *command.Intent) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.CallTimeout)
	defer cancel()
	_, err := e.group.Propose(ctx, &command.Command{Now: e.cfg.Now().UnixNano(),
		FinishIntent: &metapb.FinishIntentOp{Intent: in.Id, Noted: true}})
	if orca.KindOf(err) == orca.NotFound {
		return nil
	}
	return err
}

// removeBatch is how many names of a tree are held in memory at a time.
const removeBatch = 1000

var errFull = errors.New("batch is full")

// batch lists up to removeBatch infos with list; what was not returned is
// found by listing again, when these are gone.
func batch(list func(fn func(ufs.Info) error) error) ([]ufs.Info, error) {
	var out []ufs.Info
	err := list(func(i ufs.Info) error {
		out = append(out, i)
		if len(out) >= removeBatch {
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return out, err
}

// absent drops the errors that say that there is nothing to remove.
func absent(err error) error {
	if k := orca.KindOf(err); k == orca.NotFound || k == orca.NotDir {
		return nil
	}
	return err
}

// spare says which objects an intent leaves alone: zero, none; else those that
// were written then or later.
type spare time.Time

// spareOf returns what an intent leaves alone. One that comes from a backup was
// perhaps drained after that was taken, and the names given to something new
// since: that is not what was to be removed.
func (e *Executor) spareOf(in *command.Intent) spare {
	at, restored := e.group.Machine().RestoredIntent(in.Id)
	if !restored {
		return spare{}
	}
	return spare(time.Unix(0, at).Truncate(time.Second)) // as object stores tell times
}

func (s spare) spares(i *ufs.Info) bool {
	return s.any() && !i.Dir && !i.Mtime.Before(time.Time(s))
}

func (s spare) any() bool { return !time.Time(s).IsZero() }

// but passes on what is not spared.
func (s spare) but(fn func(ufs.Info) error) func(ufs.Info) error {
	return func(i ufs.Info) error {
		if s.spares(&i) {
			return nil
		}
		return fn(i)
	}
}

// left drops the error of a directory that what was spared is in.
func (s spare) left(err error) error {
	if s.any() && orca.KindOf(err) == orca.NotEmpty {
		return nil
	}
	return absent(err)
}

// removeTree deletes all below a key, and the key, leaves first, but for what
// keep spares.
func (e *Executor) removeTree(ctx context.Context, store ufs.FS, key string, keep spare) error {
	if bulk, ok := store.(ufs.BulkRemover); ok {
		if walker, ok := store.(ufs.Lister); ok {
			return e.removeFlat(ctx, store, walker, bulk, key, keep)
		}
	}
	if keep.any() {
		return e.removeOld(ctx, store, key, keep)
	}
	for round := 0; ; round++ {
		kids, err := batch(func(fn func(ufs.Info) error) error { return store.List(ctx, key, fn) })
		if err = absent(err); err != nil {
			return err
		}
		if len(kids) == 0 {
			break
		}
		if round > maxRounds {
			return orca.PathE("ufsexec.removeTree", key, orca.Busy, errors.New("names keep appearing"))
		}
		for _, i := range kids {
			if i.Dir {
				err = e.removeTree(ctx, store, i.Key, keep)
			} else {
				err = absent(store.Remove(ctx, i.Key))
				e.Stats.FilesRemoved.Add(1)
			}
			if err != nil {
				return err
			}
		}
	}
	return absent(store.Remove(ctx, key))
}

// removeOld is removeTree in one pass that leaves things behind, whose
// directories stay.
func (e *Executor) removeOld(ctx context.Context, store ufs.FS, key string, keep spare) error {
	err := store.List(ctx, key, func(i ufs.Info) error {
		switch {
		case i.Dir:
			return e.removeOld(ctx, store, i.Key, keep)
		case keep.spares(&i):
			return nil
		}
		e.Stats.FilesRemoved.Add(1)
		return absent(store.Remove(ctx, i.Key))
	})
	if err = absent(err); err != nil {
		return err
	}
	return keep.left(store.Remove(ctx, key))
}

// maxRounds bounds the listings of one directory in one attempt.
const maxRounds = 1 << 20

// removeFlat deletes a tree of an object store by one pass over its keys per
// batch. Listings may be late: a batch that comes back unchanged is believed to
// be gone after a second look at each key.
func (e *Executor) removeFlat(ctx context.Context, store ufs.FS, walker ufs.Lister, bulk ufs.BulkRemover, key string, keep spare) error {
	last := ""
	for range maxRounds {
		objects, err := batch(func(fn func(ufs.Info) error) error { return walker.Walk(ctx, key, keep.but(fn)) })
		if err = absent(err); err != nil {
			return err
		}
		if len(objects) == 0 {
			return keep.left(store.Remove(ctx, key))
		}
		if objects[0].Key == last {
			gone, err := allGone(ctx, store, objects)
			if err != nil {
				return err
			}
			if gone {
				return keep.left(store.Remove(ctx, key))
			}
		}
		last = objects[0].Key
		if err := bulk.RemoveMany(ctx, objects); err != nil {
			return err
		}
		e.Stats.FilesRemoved.Add(int64(len(objects)))
	}
	return orca.PathE("ufsexec.removeFlat", key, orca.Busy, errors.New("names keep appearing"))
}

func allGone(ctx context.Context, store ufs.FS, objects []ufs.Info) (bool, error) {
	for _, o := range objects {
		_, err := store.Stat(ctx, o.Key)
		if err == nil {
			return false, nil
		}
		if err = absent(err); err != nil {
			return false, err
		}
	}
	return true, nil
}
