// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"errors"
	"fmt"
	"io"
	"os"

	sm "github.com/lni/dragonboat/v4/statemachine"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/inodekv"
)

// replica is the group as dragonboat's on-disk state machine.
type replica Group

// Open returns the index of the last entry of this journal that the store
// holds.
func (r *replica) Open(<-chan struct{}) (uint64, error) { return r.db.Applied() - r.db.Base(), nil }

// updateScratch is what Update uses again and again.
type updateScratch struct {
	in      []fsm.Entry
	flights []*flight
	reign   uint64 // that was on record after the last
}

// Update applies committed entries in one batch, and tells the commands that
// this process has proposed what they came to: there is no shorter way to who
// waits. An error of the store is the end of the member.
func (r *replica) Update(entries []sm.Entry) ([]sm.Entry, error) {
	g := (*Group)(r)
	u := &g.update
	u.in, u.flights = u.in[:0], u.flights[:0]
	for i := range entries {
		in := fsm.Entry{Index: entries[i].Index + r.db.Base(), Data: entries[i].Cmd, Want: fsm.WantNone}
		f := g.claim(in.Data)
		if f != nil {
			in.Want = fsm.WantDecoded
		}
		u.in, u.flights = append(u.in, in), append(u.flights, f)
		g.grown += len(in.Data)
	}
	if g.grown >= g.host.cfg.JournalBytes {
		g.grown = 0
		select {
		case g.cut <- struct{}{}:
		default:
		}
	}
	defer clear(u.in)
	defer clear(u.flights)
	outs, err := r.machine.Apply(u.in)
	if err != nil {
		for _, f := range u.flights {
			if f != nil {
				fail(f.ops, orca.PathE("metaplane.Propose", "", orca.Timeout, err))
			}
		}
		r.host.fatal(err.Error())
		return nil, fmt.Errorf("apply: %w", err)
	}
	for i := range outs {
		entries[i].Result = sm.Result{Value: 1}
		g.publish(&outs[i])
		if f := u.flights[i]; f != nil {
			f.deliver(&outs[i])
		}
	}
	g.reigned(g.machine.Reign())
	return entries, nil
}

// Lookup is not used: readers go to the machine.
func (r *replica) Lookup(any) (any, error) { return nil, nil }

// Sync makes what was applied durable, so that the journal may be cut.
func (r *replica) Sync() error { return r.db.Flush() }

// PrepareSnapshot takes a view of the store to stream.
func (r *replica) PrepareSnapshot() (any, error) { return r.db.View(), nil }

// SaveSnapshot streams the view to a member that is behind.
func (r *replica) SaveSnapshot(ctx any, w io.Writer, stop <-chan struct{}) error {
	v, ok := ctx.(*inodekv.View)
	if !ok {
		return fmt.Errorf("save snapshot: not a view but %T", ctx)
	}
	return errors.Join(v.WriteTo(w, stop), v.Close())
}

// RecoverFromSnapshot fills a new store from a stream and swaps it in.
func (r *replica) RecoverFromSnapshot(in io.Reader, stop <-chan struct{}) error {
	g := (*Group)(r)
	next := g.part.Store + 1
	dir := storeDir(g.dir, next)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear %s: %w", dir, err)
	}
	db, err := inodekv.Open(g.storeConfig(next), g.log)
	if err != nil {
		return err
	}
	if err := errors.Join(db.Receive(in, stop), db.Close(false)); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if db, err = inodekv.Open(g.storeConfig(next), g.log); err != nil {
		return err
	}
	if err := g.host.f.update(g.host.cfg.Dir, func() {
		g.part.Store = next
		if db.Base() != 0 {
			g.host.f.Format = formatRestored
		}
	}); err != nil {
		return errors.Join(err, db.Close(false))
	}
	if err := g.machine.Reset(db); err != nil {
		return err
	}
	old := g.db
	g.db = db
	g.events.start(db.Applied())
	if err := old.Close(false); err != nil {
		return err
	}
	return sweepStores(g.dir, next)
}

// Close is called when dragonboat stops; the host closes the store.
func (r *replica) Close() error { return nil }
