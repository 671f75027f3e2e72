// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/engine/placement"
)

const (
	// maxChain bounds the workers that are named for the further copies, beyond
	// those that are needed: who fails is replaced by one of them.
	maxChain = 4
	// sealWait is how long a worker may take to seal and pass on a file of
	// several copies, and a second more for each sealRate bytes of it.
	sealWait = 2 * time.Minute
	sealRate = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the worker that a Writer speaks with: the first of its chain, until
// that fails; then the next one that has everything.
type head struct {
	at     int // position in the chain
	peer   *peer
	handle uint64
	chain  dataplane.Chains // nil: it is alone
}

// chain is the way of a Writer's bytes to the workers that keep them. A
// position stands for a worker: 0 for the first. Its calls may run at once.
type chain struct {
	fs *FS

	mu     sync.Mutex
	now    head             // GUARDED_BY(mu)
	grant  dataplane.Grant  // for the private files as they are; GUARDED_BY(mu)
	behind []dataplane.Link // positions 1, 2, …
	whole  int              // positions below it have everything that was acknowledged; GUARDED_BY(mu)
}

func newChain(fs *FS, g dataplane.Grant, first head, behind []dataplane.Link) *chain {
	return &chain{fs: fs, grant: g, now: first, behind: behind, whole: 1 + len(behind)}
}

// sealed takes note that the private files go on under another grant.
func (c *chain) sealed(g dataplane.Grant) {
	c.mu.Lock()
	c.grant = g
	c.mu.Unlock()
}

func (c *chain) head() head {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// workers returns the ids of the workers that have everything, the head first.
func (c *chain) workers() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []uint64{c.now.peer.id}
	for at := c.now.at + 1; at < c.whole; at++ {
		out = append(out, c.behind[at-1].Worker)
	}
	return out
}

// confirm takes note that copies workers from position at on have what was
// written; false: not the one that is the head by now.
func (c *chain) confirm(at, copies int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole = min(c.whole, max(at+copies, c.now.at+1))
	return at+copies > c.now.at
}

// failed reports whether an error means that a worker is gone, rather than that
// it refuses.
func failed(err error) bool {
	switch orca.KindOf(err) {
	case orca.Unavailable, orca.Timeout:
		return true
	}
	return false
}

// turn makes the next worker the head after the one at a position has failed
// with err; false when there is none that has everything.
func (c *chain) turn(ctx context.Context, at int, err error) bool {
	if ctx.Err() != nil || !failed(err) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.at > at {
		return true // another call has noticed
	}
	c.fs.peers.markDown(c.now.peer.id)
	for next := at + 1; next < c.whole; next++ {
		l := c.behind[next-1]
		h, derr := c.fs.resume(ctx, l, c.grant)
		if derr != nil {
			c.fs.log.Debug("the next worker of a chain", "worker", l.Worker, "err", derr)
			continue
		}
		h.at = next
		c.fs.log.Warn("a writer goes on at the next worker of its chain", "worker", l.Worker, "failed", c.now.peer.id, "err", err)
		c.fs.stats.WriteFailovers.Add(1)
		c.now = h
		return true
	}
	return false
}

// do makes a call to the head, and to the next one when it fails.
func (c *chain) do(ctx context.Context, call func(h head) error) error {
	for {
		h := c.head()
		err := call(h)
		if err == nil || !c.turn(ctx, h.at, err) {
			return err
		}
	}
}

// write sends a piece through the chain.
func (c *chain) write(ctx context.Context, p []byte, off int64) error {
	var sums []uint32
	for {
		h := c.head()
		if h.chain == nil {
			return h.peer.blocks.WriteAt(ctx, h.handle, p, off)
		}
		if sums == nil {
			for at := 0; at < len(p); at += orca.GrainSize {
				sums = append(sums, crc32.Checksum(p[at:min(at+orca.GrainSize, len(p))], castagnoli))
			}
		}
		copies, err := h.chain.WriteChain(ctx, h.handle, p, off, sums)
		switch {
		case err == nil:
			if c.confirm(h.at, copies) {
				return nil
			}
		case !c.turn(ctx, h.at, err):
			return err
		}
	}
}

// truncate sets the length at every worker of the chain.
func (c *chain) truncate(ctx context.Context, length int64) error {
	return c.do(ctx, func(h head) error {
		err := h.peer.blocks.Truncate(ctx, h.handle, length)
		if err != nil || h.chain == nil {
			return err
		}
		copies, err := h.chain.WriteChain(ctx, h.handle, nil, 0, nil)
		if err == nil && !c.confirm(h.at, copies) {
			err = orca.E("client.Truncate", orca.Unavailable, "the worker was left out of its chain")
		}
		return err
	})
}

// resume makes the private file of another worker one of this client.
func (fs *FS) resume(ctx context.Context, l dataplane.Link, g dataplane.Grant) (head, error) {
	ws, err := fs.peers.list(ctx)
	if err != nil {
		return head{}, err
	}
	for _, w := range ws {
		if w.Id != l.Worker {
			continue
		}
		pr, err := fs.peers.get(ctx, w)
		if err != nil {
			return head{}, err
		}
		ch, ok := pr.blocks.(dataplane.Chains)
		if !ok {
			break
		}
		ch.Resume(l.Handle, g)
		return head{peer: pr, handle: l.Handle, chain: ch}, nil
	}
	return head{}, orca.E("client.chain", orca.NotFound, fmt.Sprintf("worker %x is not known", l.Worker))
}

// candidates returns the workers on which further copies may be made, when the
// first is at a worker: each on a node of its own as far as there are so many,
// and those that do not answer last.
func (w *Writer) candidates(ctx context.Context, first *peer) []dataplane.Link {
	if w.sess.Replicas < 2 || orca.WriteType(w.sess.WriteType) == orca.Through {
		return nil
	}
	ws, err := w.fs.peers.list(ctx)
	if err != nil {
		return nil // Seal says what is missing
	}
	known := map[uint64]*Worker{}
	var up, down []placement.Worker
	var at placement.Place
	for _, x := range w.fs.order(w.fs.cfg.WritePolicy, orca.Ino(w.sess.File), 0, ws) {
		known[x.Id] = x
		switch p := placed(x); {
		case x.Id == first.id:
			at = p.Place
		case w.fs.peers.isDown(x.Id):
			down = append(down, p)
		default:
			up = append(up, p)
		}
	}
	placement.Spread(up, at)
	var out []dataplane.Link
	for _, p := range append(up, down...) {
		if len(out) < int(w.sess.Replicas)-1+maxChain {
			out = append(out, dataplane.Link{Worker: p.ID, Addr: known[p.ID].Addr})
		}
	}
	return out
}

// enough refuses a file of which more copies are promised than workers live:
// nothing else would make up for those that are missing.
func (w *Writer) enough(ctx context.Context) error {
	if w.sess.Replicas < 2 || orca.WriteType(w.sess.WriteType) != orca.MustCache {
		return nil
	}
	ws, err := w.fs.peers.list(ctx)
	if err != nil || len(ws) >= int(w.sess.Replicas) {
		return err
	}
	return &orca.Error{Op: "client.Create", Path: w.name, Kind: orca.NoSpace,
		Msg: fmt.Sprintf("MUST_CACHE with %d replicas needs as many live workers, and there are %d", w.sess.Replicas, len(ws))}
}

// rescueLocked brings what is in the private file of a worker on this host that
// has failed to another worker: the file itself is still open here.
func (w *Writer) rescueLocked(ctx context.Context, cause error) error {
	src, gone := w.spare, w.way.head().peer.id
	w.fs.peers.markDown(gone)
	ws, err := w.fs.peers.list(ctx)
	if err != nil {
		return errors.Join(cause, err)
	}
	var rest []*Worker
	for _, x := range ws {
		if x.Id != gone {
			rest = append(rest, x)
		}
	}
	if len(rest) == 0 {
		return cause
	}
	st, err := src.Stat()
	if err != nil {
		return errors.Join(cause, err)
	}
	w.remote = true
	if err := w.place(ctx, rest); err != nil {
		return errors.Join(cause, err)
	}
	w.moved = true
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	for off := int64(0); off < st.Size(); {
		n, err := src.ReadAt(buf[:min(chunkSize, st.Size()-off)], off)
		if n == 0 {
			return errors.Join(cause, err)
		}
		if _, err := w.pipe.write(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	if err := w.pipe.flush(ctx); err != nil {
		return err
	}
	if st.Size() == 0 {
		return nil
	}
	w.fs.stats.WriteFailovers.Add(1)
	return w.way.truncate(ctx, st.Size()) // a hole at the end is a part of it
}
