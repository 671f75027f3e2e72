// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
)

// renewBefore is how long before its expiry a grant is asked for again.
const renewBefore = 5 * time.Second

// fetch fills all of p from block idx at boff, which must end within the
// block. Workers are asked in the order of route; one that fails is passed
// over for the next, which goes on where it stopped, and when all have failed
// the metaplane is asked once for newer locations.
func (f *File) fetch(ctx context.Context, idx uint32, boff int64, p []byte, seq bool) (int, error) {
	return f.fetchAhead(ctx, idx, boff, p, seq, 0)
}

// fetchAhead is fetch of a reader that goes on: up to ahead bytes of the block
// behind p are on their way when it returns.
func (f *File) fetchAhead(ctx context.Context, idx uint32, boff int64, p []byte, seq bool, ahead int64) (int, error) {
	g, err := f.currentGrant(ctx)
	if err != nil {
		return 0, err
	}
	req := dataplane.ReadRequest{
		ID: f.blockID(idx), Off: boff, Type: f.typ, Grant: *g, Sequential: seq,
		Ahead: ahead, Until: f.info.BlockLength(idx),
	}
	attempt := f.fs.cfg.Attempt
	n, err := f.ask(ctx, req, p, attempt)
	if err != nil && (passOver(orca.KindOf(err)) || errors.Is(err, orca.Permission) || f.expired(err, g)) {
		first := err
		if err := f.refresh(ctx); err != nil {
			if errors.Is(err, orca.Stale) || ctx.Err() != nil {
				return n, err
			}
			return n, worse(first, err)
		}
		req.ID, req.Grant, req.Off = f.blockID(idx), *f.grant.Load(), boff+int64(n)
		var m int
		m, err = f.ask(ctx, req, p[n:], 4*attempt) // a worker may have waited for another one, which it knows now to be stuck
		n += m
		err = worse(err, first)
		if n == len(p) {
			err = nil
		}
	}
	if err != nil {
		return n, err
	}
	f.fs.stats.RangeReads.Add(1)
	f.fs.stats.RangeBytes.Add(int64(n))
	if boff+int64(n) == f.info.BlockLength(idx) {
		f.filled(idx)
	}
	return n, nil
}

// expired tells a Stale that is about the grant's time from one about the
// content.
func (f *File) expired(err error, g *dataplane.Grant) bool {
	return errors.Is(err, orca.Stale) && !g.Expiry.IsZero() && time.Until(g.Expiry) < renewBefore
}

// ask goes through the workers once, waiting for each but the last no longer
// than attempt; a nil error means that p is full.
func (f *File) ask(ctx context.Context, req dataplane.ReadRequest, p []byte, attempt time.Duration) (int, error) {
	var cause error
	n := 0
	var room [8]*Worker
	route := f.route(room[:0], req.ID.Index)
	for i, w := range route {
		if i > 0 {
			f.fs.stats.Failovers.Add(1)
		}
		if req.Patience = 0; i < len(route)-1 {
			req.Patience = attempt
		}
		var m int
		var err error
		if other := f.second(route[i:], req.ID.Index, len(p)-n); other != nil {
			m, err = f.askHedged(ctx, w, other, req, p[n:])
		} else {
			m, err = f.askOne(ctx, w, req, p[n:])
		}
		n += m
		req.Off += int64(m)
		if n == len(p) {
			f.fs.peers.markUp(w.Id)
			return n, nil
		}
		if ctx.Err() != nil {
			return n, ctxError("client.ReadAt", ctx)
		}
		k := orca.KindOf(err)
		if !passOver(k) {
			return n, err
		}
		if k == orca.Unavailable || k == orca.Timeout {
			f.fs.peers.markDown(w.Id)
			f.fs.log.Info("a worker does not serve a read; another one is asked", "worker", w.Id, "addr", w.Addr, "block", req.ID.String(), "err", err)
		}
		cause = worse(cause, err)
	}
	if cause == nil {
		cause = &orca.Error{Op: "client.ReadAt", Path: f.info.Name, Kind: orca.Unavailable, Msg: "no live worker"}
	}
	return n, cause
}

func (f *File) askOne(ctx context.Context, w *Worker, req dataplane.ReadRequest, p []byte) (int, error) {
	pr, err := f.fs.peers.get(ctx, w)
	if err != nil {
		return 0, err
	}
	n, err := pr.blocks.ReadAt(ctx, req, p)
	if n < len(p) && (err == nil || err == io.EOF) { // within the block by its attributes
		err = &orca.Error{Op: "client.ReadAt", Path: req.ID.String(), Kind: orca.Corrupt, Msg: "block is shorter than its file says"}
	}
	return n, err
}

// inPlace reports whether long reads of f are copied from the file of a worker
// on this host.
func (f *File) inPlace() bool {
	if f.typ != orca.ReadCache {
		return false
	}
	w := f.localWorker()
	if w == nil {
		return false
	}
	pr, err := f.fs.peers.get(context.Background(), w)
	if err != nil {
		return false
	}
	c, ok := pr.blocks.(interface{ InPlace() bool })
	return ok && c.InPlace()
}

// route appends the workers to ask for block idx to ws, in this order: the
// local one, where the policy prefers it (it keeps what it fetches); those that
// hold the block, the nearest first; the rest as the read policy has it. What
// is not live, and after that who has just failed, comes last.
func (f *File) route(ws []*Worker, idx uint32) []*Worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	var scores [16]uint8 // of ws, ascending; a longer list is sorted by asking again
	for _, w := range f.workers {
		s := f.score(w, idx)
		i := len(ws)
		ws = append(ws, w)
		for ; i > 0; i-- {
			var before uint8
			if i <= len(scores) {
				before = scores[i-1]
			} else {
				before = f.score(ws[i-1], idx)
			}
			if before <= s {
				break
			}
			ws[i] = ws[i-1]
			if i < len(scores) {
				scores[i] = before
			}
		}
		ws[i] = w
		if i < len(scores) {
			scores[i] = s
		}
	}
	return ws
}

// score is what route sorts by; the caller has f.mu.
func (f *File) score(w *Worker, idx uint32) uint8 {
	const rest = 10
	s := uint8(rest)
	l := f.locs[w.Id]
	d := uint8(f.fs.peers.distance(w))
	switch {
	case d == 0 && (l != nil || f.typ != orca.ReadNoCache && f.fs.cfg.ReadPolicy.PrefersLocal()):
		s = 0
	case l != nil && slices.Contains(l.Complete, idx):
		s = 1 + d
	case l != nil:
		s = 4 + d
	}
	if !w.Live {
		s += 16
	}
	if f.fs.peers.isDown(w.Id) {
		s += 32
	}
	return s
}

// passOver says whether another worker may do better.
func passOver(k orca.Kind) bool {
	switch k {
	case orca.Stale, orca.Permission, orca.Invalid, orca.Canceled, orca.Conflict, orca.Unauthenticated:
		return false
	}
	return true
}

// worse keeps the more telling of two errors: one that says what is wrong with
// the data beats one that says a worker could not be reached.
func worse(a, b error) error {
	if b == nil {
		return a
	}
	if a == nil || orca.KindOf(a).Retryable() && !orca.KindOf(b).Retryable() {
		return b
	}
	return a
}

// currentGrant returns the grant, renewed when it is about to expire.
func (f *File) currentGrant(ctx context.Context) (*dataplane.Grant, error) {
	g := f.grant.Load()
	if g.Expiry.IsZero() || time.Until(g.Expiry) > renewBefore {
		return g, nil
	}
	if err := f.refresh(ctx); err != nil {
		if time.Until(g.Expiry) > 0 && !errors.Is(err, orca.Stale) {
			return g, nil // still good, and the metaplane may be back in time
		}
		return nil, err
	}
	return f.grant.Load(), nil
}

// refresh asks the metaplane again for grant and locations of this version.
// Stale when the file is gone or has another version by now.
func (f *File) refresh(ctx context.Context) error {
	f.fs.stats.Refreshes.Add(1)
	r, err := f.fs.meta.Open(ctx, &metapb.OpenRequest{
		H: f.fs.header(), Target: &metapb.Target{Ino: f.ino.Load()}, Sync: SyncNever().pb(),
	})
	if errors.Is(err, orca.NotFound) {
		return &orca.Error{Op: "client.ReadAt", Path: f.info.Name, Kind: orca.Stale, Msg: "the file was removed", Err: err}
	}
	if err != nil {
		return err
	}
	if r.Attr != nil && r.Attr.Ino != f.ino.Load() {
		if f.fingerprint == "" || r.Attr.Fingerprint != f.fingerprint || r.Attr.Length != f.info.Length {
			return &orca.Error{Op: "client.ReadAt", Path: f.info.Name, Kind: orca.Stale, Msg: "the file was removed, or replaced, in another group"}
		}
		f.ino.Store(r.Attr.Ino)
	}
	if r.Attr == nil || r.Attr.Version != f.info.Version {
		return &orca.Error{Op: "client.ReadAt", Path: f.info.Name, Kind: orca.Stale, Msg: "the file has a newer version"}
	}
	f.adopt(r)
	return nil
}

// ctxError is the typed form of ctx.Err.
func ctxError(op string, ctx context.Context) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return orca.PathE(op, "", k, ctx.Err())
}
