// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"slices"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/engine/hedge"
)

// hedges are of reads that share a connection and of longer ones, whose times
// have nothing to do with each other.
type hedges struct {
	small, long *hedge.Hedge
}

func newHedges(share float64) hedges {
	every := 0
	if share > 0 {
		every = max(int(1/share), 1)
	}
	return hedges{hedge.New(every), hedge.New(every)}
}

func (h *hedges) of(n int) *hedge.Hedge {
	if n <= smallRead {
		return h.small
	}
	return h.long
}

// second returns the worker that a read of the first of a route may be sent to
// as well: the next one, if both hold the block, on other nodes than this, and
// neither has just failed. Else nil.
func (f *File) second(route []*Worker, idx uint32, n int) *Worker {
	if len(route) < 2 || n > chunkSize || !f.fs.hedges.small.On() || f.typ != orca.ReadCache {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range route[:2] {
		l := f.locs[w.Id]
		if l == nil || !slices.Contains(l.Complete, idx) || !w.Live || f.fs.peers.distance(w) == 0 || f.fs.peers.isDown(w.Id) {
			return nil
		}
	}
	return route[1]
}

// race is one read that may be sent to two workers. The first is asked by the
// reader itself, into its buffer; the second, when the timer rings, by a
// goroutine that ends with the request, into a buffer of its own.
type race struct {
	f      *File
	w      *Worker // the second
	req    dataplane.ReadRequest
	n      int
	ctx    context.Context // of the second request
	stop   context.CancelFunc
	settle context.CancelFunc // ends the first request
	done   chan struct{}

	mu   sync.Mutex
	buf  *[chunkSize]byte // GUARDED_BY(mu)
	won  bool             // buf has all bytes; GUARDED_BY(mu)
	over bool             // nobody wants buf any more; GUARDED_BY(mu)
}

// askHedged is askOne of w that asks second as well when w takes longer than
// most do, and returns whatever comes first.
func (f *File) askHedged(ctx context.Context, w, second *Worker, req dataplane.ReadRequest, p []byte) (int, error) {
	h := f.fs.hedges.of(len(p))
	h.Earn()
	r := &race{f: f, w: second, req: req, n: len(p), done: make(chan struct{})}
	r.req.Ahead = 0
	var first context.Context
	first, r.settle = context.WithCancel(ctx)
	defer r.settle()
	r.ctx, r.stop = context.WithCancel(ctx)
	defer r.stop()
	begin := time.Now()
	timer := time.AfterFunc(h.After(), r.run)
	n, err := f.askOne(first, w, req, p)
	h.Took(time.Since(begin))
	if timer.Stop() {
		return n, err
	}
	if n < len(p) {
		<-r.done // it is as good a source as the next worker, and under way
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < len(p) && r.won {
		n, err = copy(p, r.buf[:r.n]), nil
		f.fs.stats.HedgesWon.Add(1)
	}
	r.over = true
	r.giveBack()
	return n, err
}

// run asks the second worker.
func (r *race) run() {
	defer close(r.done)
	if !r.f.fs.hedges.of(r.n).Spend() {
		return
	}
	r.f.fs.stats.Hedges.Add(1)
	buf := buffers.Get().(*[chunkSize]byte)
	n, err := r.f.askOne(r.ctx, r.w, r.req, buf[:r.n])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf, r.won = buf, err == nil && n == r.n
	if r.won {
		r.settle()
	}
	if r.over {
		r.giveBack()
	}
}

// giveBack gives the buffer to the next; the caller has r.mu.
func (r *race) giveBack() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf = nil
	}
}
