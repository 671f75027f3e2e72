// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package task is what a worker does for one piece of work: Load reads files
// through the worker's own read path, so that they are cached; Persist uploads
// a file that is only in the cache; Replicate and Evict make and drop copies on
// this worker. All may be done twice without harm: a
// block that is cached is passed over, and a store's key changes only under
// the intent that the metaplane gives for exactly this version.
//
// No goroutines; all obey their context and leave nothing behind when it
// ends. Progress is told by a callback.
package task

import (
	"context"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Namespace is what tasks ask of the metaplane; metaplane.Namespace is one.
type Namespace interface {
	Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error)
	PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error)
	PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error)
}

// Blocks is this worker's read path; dataplane.Blocks is one. When it is a
// dataplane.Informer too, blocks that are cached are passed over unread.
type Blocks interface {
	Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error)
}

// Stores opens the store of a mount.
type Stores interface {
	FS(ctx context.Context, mountID uint32) (ufs.FS, error)
}

// Env is where tasks run.
type Env struct {
	NS     Namespace
	Blocks Blocks
	Stores Stores
	// Self is the id of this worker.
	Self uint64
	// Throttles are waited for with each piece of data; nil ones are no bound.
	Throttles []*Throttle
	// Progress is called with bytes as they are done; may be nil.
	Progress func(bytes int64)
	// Patience is how long, in all, the task waits for workers that have what is
	// nowhere else: a metaplane that has just started does not know them yet.
	Patience time.Duration
}

// lookAgain is the pause of a wait for such workers.
const lookAgain = 500 * time.Millisecond

// await uses up a little of the patience; false when there is none left.
func (e *Env) await(ctx context.Context) bool {
	if e.Patience <= 0 {
		return false
	}
	e.Patience -= lookAgain
	late := time.NewTimer(lookAgain)
	defer late.Stop()
	select {
	case <-late.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// moved throttles and reports n bytes.
func (e *Env) moved(ctx context.Context, n int64) error {
	if e.Progress != nil {
		e.Progress(n)
	}
	for _, t := range e.Throttles {
		if err := t.wait(ctx, n); err != nil {
			return orca.PathE("task.throttle", "", orca.Canceled, err)
		}
	}
	return nil
}

// open asks for the attributes of a file, and the right to read it.
func (e *Env) open(ctx context.Context, file uint64) (*metapb.OpenReply, *orca.Attr, dataplane.Grant, error) {
	rep, err := e.NS.Open(ctx, &metapb.OpenRequest{H: &metapb.Header{}, Target: &metapb.Target{Ino: file}})
	if err != nil {
		return nil, nil, dataplane.Grant{}, err
	}
	a := rep.Attr
	attr := &orca.Attr{
		Ino: orca.Ino(a.Ino), Type: orca.FileType(a.Type), Length: a.Length, BlockSize: a.BlockSize, Version: a.Version,
		Mode: a.Mode, UID: a.Uid, GID: a.Gid, Persist: orca.PersistState(a.Persist), MountID: a.MountId,
	}
	if attr.BlockSize <= 0 {
		attr.BlockSize = max(attr.Length, 1)
	}
	for _, r := range a.Runs {
		attr.Runs = append(attr.Runs, orca.Run{First: r.First, Version: r.Version})
	}
	var g dataplane.Grant
	if p := rep.Grant; p != nil {
		g = dataplane.Grant{
			File: orca.Ino(p.File), Version: p.Version, UID: p.Uid, Write: p.Write, Expiry: time.Unix(0, p.Expiry), Token: p.Token,
		}
	}
	return rep, attr, g, nil
}

// blocks returns how many blocks a file has.
func blocks(a *orca.Attr) uint32 {
	return uint32((a.Length + a.BlockSize - 1) / a.BlockSize)
}

// Throttle bounds bytes per second over all that share it.
type Throttle struct {
	rate float64

	mu   sync.Mutex
	next time.Time // when the debt is paid; GUARDED_BY(mu)
}

// NewThrottle returns a throttle; nil, which never waits, for a rate of 0.
func NewThrottle(bytesPerSecond int64) *Throttle {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Throttle{rate: float64(bytesPerSecond)}
}

// wait takes n bytes and waits until those taken before are paid for.
func (t *Throttle) wait(ctx context.Context, n int64) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	now := time.Now()
	at := t.next
	if at.Before(now) {
		at = now
	}
	t.next = at.Add(time.Duration(float64(n) / t.rate * float64(time.Second)))
	t.mu.Unlock()
	if !at.After(now) {
		return nil
	}
	timer := time.NewTimer(at.Sub(now))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
