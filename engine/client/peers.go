// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/engine/placement"
	"orca/metaplane/metapb"
)

// downMin and downMax bound for how long a worker that could not be reached or
// did not answer is tried last: longer with each failure in a row.
const (
	downMin = 2 * time.Second
	downMax = 30 * time.Second
)

// outage is what is remembered of a worker that failed.
type outage struct {
	until time.Time     // it is tried last
	wait  time.Duration // of the next failure, if none succeeds before
}

// peer is a way to one worker, for one boot of it.
type peer struct {
	id     uint64
	local  bool // descriptors may be asked of it
	blocks dataplane.Access
}

type peerKey struct{ id, boot uint64 }

// peers knows the live workers and how to reach them.
type peers struct {
	c    *core
	dial Dialer

	mu      sync.Mutex
	workers []*Worker // live; GUARDED_BY(mu)
	fetched time.Time
	conns   map[peerKey]*peer
	down    map[uint64]outage // by worker; GUARDED_BY(mu)
	downs   atomic.Int64      // len(down), to be seen without mu
}

func (p *peers) init(c *core) {
	p.c, p.dial = c, c.cfg.Dial
	p.conns = map[peerKey]*peer{}
	p.down = map[uint64]outage{}
	if p.dial == nil {
		p.dial = defaultDialer(c)
	}
}

// learn takes a fresh list of workers that came with another answer.
func (p *peers) learn(ws []*Worker) {
	if len(ws) == 0 {
		return
	}
	live := make([]*Worker, 0, len(ws))
	for _, w := range ws {
		if w.Live {
			live = append(live, w)
		}
	}
	slices.SortFunc(live, func(a, b *Worker) int { return cmp.Compare(a.Id, b.Id) })
	p.mu.Lock()
	p.workers, p.fetched = live, time.Now()
	p.mu.Unlock()
}

// list returns the live workers, at most WorkersTTL old.
func (p *peers) list(ctx context.Context) ([]*Worker, error) {
	p.mu.Lock()
	ws, at := p.workers, p.fetched
	p.mu.Unlock()
	if time.Since(at) < p.c.cfg.WorkersTTL && len(ws) > 0 {
		return ws, nil
	}
	r, err := p.c.meta.ListWorkers(ctx, &metapb.ListWorkersRequest{H: &metapb.Header{Caller: callerPB(*p.c.cfg.Caller)}})
	if err != nil {
		if len(ws) > 0 {
			return ws, nil // an old list is better than none
		}
		return nil, err
	}
	p.learn(r.Workers)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers, nil
}

// isLocal reports whether w shares this host.
func (p *peers) isLocal(w *Worker) bool { return w.Node == p.c.cfg.Node }

// get returns the way to w, dialling it when this is the first time.
func (p *peers) get(ctx context.Context, w *Worker) (*peer, error) {
	k := peerKey{w.Id, w.Boot}
	p.mu.Lock()
	pr := p.conns[k]
	p.mu.Unlock()
	if pr != nil {
		return pr, nil
	}
	b, err := p.dial(ctx, w)
	if err != nil {
		return nil, err
	}
	pr = &peer{id: w.Id, local: p.isLocal(w), blocks: b}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.conns[k]; other != nil {
		p.discard(b)
		return other, nil
	}
	for old, c := range p.conns { // an earlier boot of the same worker
		if old.id == k.id {
			delete(p.conns, old)
			p.discard(c.blocks)
			delete(p.down, k.id) // the new one has not failed yet
		}
	}
	p.downs.Store(int64(len(p.down)))
	p.conns[k] = pr
	return pr, nil
}

// discard closes what the default dialer made.
func (p *peers) discard(b dataplane.Access) {
	if c, ok := b.(io.Closer); ok && p.c.cfg.Dial == nil {
		if err := c.Close(); err != nil {
			p.c.log.Debug("close a worker's connection", "err", err)
		}
	}
}

// markDown notes that a worker failed.
func (p *peers) markDown(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.down[id]
	if time.Now().Before(o.until) {
		return // another reader's failure of the same moment
	}
	o.wait = min(max(2*o.wait, downMin), downMax)
	o.until = time.Now().Add(o.wait)
	p.down[id] = o
	p.downs.Store(int64(len(p.down)))
}

// markUp forgets the failures of a worker that has answered.
func (p *peers) markUp(id uint64) {
	if p.downs.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.down, id)
	p.downs.Store(int64(len(p.down)))
}

func (p *peers) isDown(id uint64) bool {
	if p.downs.Load() == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.down[id].until)
}

// lateness is 1 for a worker that is to be asked after the others, else 0.
func (p *peers) lateness(w *Worker) int {
	if p.isDown(w.Id) {
		return 1
	}
	return 0
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.conns {
		delete(p.conns, k)
		p.discard(c.blocks)
	}
	return nil
}

// order sorts workers by a policy, best first, for a file of size bytes.
func (c *core) order(p placement.Policy, file orca.Ino, size int64, ws []*Worker) []*Worker {
	known := make(map[uint64]*Worker, len(ws))
	in := make([]placement.Worker, 0, len(ws))
	for _, w := range ws {
		known[w.Id] = w
		in = append(in, placed(w))
	}
	t := placement.Task{Key: uint64(file), Size: size, At: placement.Place{Node: c.cfg.Node, Rack: c.cfg.Rack}, Turn: c.turn.Add(1) - 1}
	p.Order(in, t)
	out := make([]*Worker, len(in))
	for i, w := range in {
		out[i] = known[w.ID]
	}
	return out
}

// placed is what a policy wants to know of a worker.
func placed(w *Worker) placement.Worker {
	p := placement.Worker{ID: w.Id, Place: placement.Place{Node: w.Node, Rack: w.Rack}}
	for _, t := range w.Tiers {
		if t.Healthy {
			p.Capacity += t.Capacity
			p.Free += max(t.Capacity-t.Used, 0)
		}
	}
	return p
}

// distance is that of a worker from this client.
func (p *peers) distance(w *Worker) int {
	return placement.Place{Node: p.c.cfg.Node, Rack: p.c.cfg.Rack}.Distance(placement.Place{Node: w.Node, Rack: w.Rack})
}
