// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"errors"
	"hash/crc32"
	"time"

	"orca"
	"orca/dataplane"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
	"orca/ufs"
)

const (
	// persistPiece is the unit of copying; whole grains.
	persistPiece = 1 << 20
	// prepareFor is how long a finished upload waits for a name that somebody
	// holds.
	prepareFor   = 30 * time.Second
	preparePause = 100 * time.Millisecond
	// commitFor bounds a commit: half of ufsexec.Config.PersistTimeout.
	commitFor = 5 * time.Minute
	// cleanUp bounds what is done after the context has ended.
	cleanUp = 30 * time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errGone says that this version is not to be persisted (any more).
var errGone = errors.New("the file is gone, or has a newer version")

// Persist uploads one version of a file to key of its store:
//
//	upload and prepare ─► PersistPrepare (the metaplane holds the name)
//	─► commit in the store ─► PersistCommit (the file is persisted)
//
// A crash before the commit leaves an upload that the next attempt sweeps. A
// crash after it, or a commit without an answer, leaves an intent that the
// metaplane settles by looking at the key.
// An error means that it is to be tried again, but for LostData, which is an
// outcome.
func Persist(ctx context.Context, e *Env, p *jobpb.Persist, key string) (*jobpb.Done, error) {
	d := &jobpb.Done{File: p.File, Version: p.Version, Outcome: jobpb.Outcome_PERSISTED}
	err := e.persist(ctx, p, key)
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, errGone):
		d.Outcome = jobpb.Outcome_GONE
		return d, nil
	case errors.Is(err, orca.LostData):
		d.Outcome = jobpb.Outcome_LOST
		return d, nil
	}
	return nil, err
}

func (e *Env) persist(ctx context.Context, p *jobpb.Persist, key string) (err error) {
	_, a, g, err := e.open(ctx, p.File)
	switch {
	case errors.Is(err, orca.NotFound):
		return errGone
	case err != nil:
		return err
	case a.Version != p.Version || a.Persist != orca.ToBePersisted:
		return errGone
	}
	store, err := e.Stores.FS(ctx, p.MountId)
	if err != nil {
		return err
	}
	token := ufsexec.PersistToken(p.File, p.Version)
	if err := store.Sweep(ctx, key, token); err != nil {
		return err
	}
	w, err := store.Create(ctx, key, token)
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		if aerr := w.Abort(end); aerr != nil {
			err = errors.Join(err, aerr)
		}
	}()
	if h, ok := w.(ufs.Hinted); ok {
		h.Hint(ufs.WriteHint{Length: a.Length, Owned: true, Mode: a.Mode, UID: a.UID, GID: a.GID})
	}
	for b := range blocks(a) {
		if err := e.upload(ctx, w, a, b, g); err != nil {
			return err
		}
	}
	if pr, ok := w.(ufs.Preparer); ok {
		if err := pr.Prepare(ctx); err != nil {
			return err
		}
	}
	return e.publish(ctx, p, key, w, a)
}

// upload copies one block into the upload, checking its grains on the way.
func (e *Env) upload(ctx context.Context, w ufs.Writer, a *orca.Attr, block uint32, g dataplane.Grant) error {
	n := a.BlockLength(block)
	buf := make([]byte, min(persistPiece, n))
	for off := int64(0); off < n; {
		ext, err := e.Blocks.Open(ctx, dataplane.ReadRequest{
			ID: blockID(a, block), Off: off, N: min(persistPiece, n-off), Type: orca.ReadNoCache, Grant: g, Sequential: true,
		})
		if err != nil {
			return err
		}
		got, err := read(ext, buf, off)
		if ext.Release != nil {
			ext.Release()
		}
		if err != nil {
			return &orca.Error{Op: "task.Persist", Path: blockID(a, block).String(), Kind: orca.KindOf(err), Err: err}
		}
		if _, err := w.Write(buf[:got]); err != nil {
			return err
		}
		off += int64(got)
		if err := e.moved(ctx, int64(got)); err != nil {
			return err
		}
	}
	return nil
}

// read copies an extent that starts at off of its block into buf and verifies
// the sums of its grains; off is at a grain, because pieces are whole grains.
func read(ext dataplane.Extent, buf []byte, off int64) (int, error) {
	n := int(min(ext.N, int64(len(buf))))
	if n <= 0 {
		return 0, orca.E("task.read", orca.Corrupt, "the block ends early")
	}
	if _, err := ext.File.ReadAt(buf[:n], ext.Off); err != nil {
		return 0, orca.PathE("task.read", "", orca.Unavailable, err)
	}
	if len(ext.Sums) == 0 || ext.SumOff != ext.Off || off%orca.GrainSize != 0 {
		return n, nil
	}
	for i, at := 0, 0; at < n && i < len(ext.Sums); i, at = i+1, at+orca.GrainSize {
		if crc32.Checksum(buf[at:min(at+orca.GrainSize, n)], castagnoli) != ext.Sums[i] {
			return 0, orca.E("task.read", orca.Corrupt, "a grain does not match its checksum")
		}
	}
	return n, nil
}

// publish commits the upload while the metaplane holds the name.
// What the upload was given of a's attributes goes with the commit.
func (e *Env) publish(ctx context.Context, p *jobpb.Persist, key string, w ufs.Writer, a *orca.Attr) error {
	prep, err := e.prepare(ctx, p)
	if err != nil {
		return err
	}
	// From here on the intent must be settled, whatever happens to ctx.
	settle := func(r *metapb.PersistCommitRequest) error {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
		defer cancel()
		r.H, r.Intent = &metapb.Header{}, prep.Intent
		_, err := e.NS.PersistCommit(end, r)
		return err
	}
	if prep.UfsKey != key || prep.MountId != p.MountId {
		moved := &orca.Error{Op: "task.Persist", Path: p.Path, Kind: orca.Busy, Msg: "the file was renamed while it was uploaded"}
		return errors.Join(moved, settle(&metapb.PersistCommitRequest{}))
	}
	in, err := commit(ctx, w)
	if err != nil {
		// The answer may be all that was lost: the metaplane holds the name
		// until it has looked at the key.
		return errors.Join(err, settle(&metapb.PersistCommitRequest{Unsure: true}))
	}
	err = settle(&metapb.PersistCommitRequest{
		Fingerprint: in.Fingerprint, Mtime: in.Mtime.UnixNano(), Owned: true, Mode: a.Mode, Uid: a.UID, Gid: a.GID,
	})
	if errors.Is(err, orca.Stale) || errors.Is(err, orca.NotFound) {
		return errGone
	}
	return err
}

// commit bounds the commit well below the time for which the metaplane holds
// the name for a worker that it does not hear of.
func commit(ctx context.Context, w ufs.Writer) (ufs.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, commitFor)
	defer cancel()
	return w.Commit(ctx)
}

// prepare asks the metaplane to hold the name, and waits while somebody else
// does.
func (e *Env) prepare(ctx context.Context, p *jobpb.Persist) (*metapb.PersistPrepareReply, error) {
	until := time.Now().Add(prepareFor)
	for {
		rep, err := e.NS.PersistPrepare(ctx, &metapb.PersistPrepareRequest{H: &metapb.Header{}, File: p.File, Version: p.Version})
		switch {
		case errors.Is(err, orca.Stale), errors.Is(err, orca.NotFound):
			return nil, errGone
		case !errors.Is(err, orca.Busy) || time.Now().After(until):
			return rep, err
		}
		select {
		case <-ctx.Done():
			return nil, orca.PathE("task.Persist", p.Path, orca.Canceled, ctx.Err())
		case <-time.After(preparePause):
		}
	}
}
