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
		p.dial = defaultDialer(&c.cfg)
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

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.conns {
		delete(p.conns, k)
		p.discard(c.blocks)
	}
	return nil
}

// rank orders workers for one file: the worker a miss of the file should go to
// comes first, so that clients without a local worker agree on it
// (rendezvous hashing, Thaler and Ravishankar 1998).
func rank(file orca.Ino, ws []*Worker) []*Worker {
	out := slices.Clone(ws)
	slices.SortFunc(out, func(a, b *Worker) int {
		return cmp.Compare(mix(uint64(file)^mix(b.Id)), mix(uint64(file)^mix(a.Id)))
	})
	return out
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
