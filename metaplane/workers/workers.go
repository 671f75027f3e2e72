// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package workers is the soft state of the metaplane: which block workers
// live, what they hold, and what they are asked to drop or pin. Nothing here
// is in Raft. Every metaplane node keeps its own registry and rebuilds it from
// the workers' reports, so that a failover needs no re-registration.
//
// Flow: a worker registers with a full report (in pages), then sends deltas in
// heartbeats and takes orders from the replies. Each full report gets a new
// generation; when its last page is in, holdings of older generations are
// ignored and pruned. A worker whose boot number changed, or that this node
// does not know, is told to register again.
//
// Goroutines: none of its own. Lock order: Registry.mu before shard.mu; no
// lock is held while calling out. It refuses: more workers than MaxWorkers
// (Busy), a report of a worker id that another live node name uses (Conflict).
package workers

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// Config bounds a Registry. The zero value means the defaults.
type Config struct {
	// Lease is how long a worker is live after it was last heard. Default 10 s.
	Lease time.Duration
	// Forget is how long a silent worker is remembered. Default 24 h.
	Forget time.Duration
	// MaxWorkers caps the registry. Default 10,000.
	MaxWorkers int
	// MaxOrders caps one worker's queue; what does not fit is dropped and
	// counted (the blocks are evicted in time). Default 100,000.
	MaxOrders int
	// OrdersPerReply caps one heartbeat reply. Default 4,096.
	OrdersPerReply int
	// Grace protects a holding that was announced by a Complete from a full
	// report that began before the worker could know of it. Default 10 s.
	Grace time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

func (c *Config) setDefaults() {
	c.Lease = cmp.Or(c.Lease, 10*time.Second)
	c.Forget = cmp.Or(c.Forget, 24*time.Hour)
	c.MaxWorkers = cmp.Or(c.MaxWorkers, 10_000)
	c.MaxOrders = cmp.Or(c.MaxOrders, 100_000)
	c.OrdersPerReply = cmp.Or(c.OrdersPerReply, 4096)
	c.Grace = cmp.Or(c.Grace, 10*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Stats are counters for telemetry.
type Stats struct {
	Registrations atomic.Int64
	Heartbeats    atomic.Int64
	OrdersSent    atomic.Int64
	OrdersDropped atomic.Int64
	Files         atomic.Int64 // files with at least one holding
}

// Registry is safe for concurrent use.
type Registry struct {
	cfg   Config
	log   *slog.Logger
	Stats Stats

	mu      sync.RWMutex
	epoch   uint64 // of doubt; a full report of an older one does not show what is lost
	workers map[uint64]*worker
	order   []*worker  // by id, for stable listings
	freed   freedFiles // GUARDED_BY(mu)
	// carried is closed when a worker has carried out more orders; nil: nobody
	// waits for that. GUARDED_BY(mu)
	carried chan struct{}

	shards [shardCount]shard
}

type worker struct {
	id      uint64
	pb      *metapb.Worker // replaced, never changed in place
	seen    time.Time
	gen     uint64 // of the last whole full report; 0: none yet
	filling uint64 // generation of the report being received; 0: none
	epoch   uint64 // of the last whole full report
	filled  uint64 // epoch of the report being received
	began   time.Time
	born    time.Time // when a life after another one was first heard of
	lastGen uint64
	orders  orderQueue
	freed   uint64 // number of the next freed file when it reported last
	sent    uint64 // as freed, when its last order was sent
	obeyed  uint64 // as sent, of the orders that it has carried out
	link    Link   // that it was last heard over; nil: none to be lost
	unlink  func() bool
	cut     bool // the link was lost, and it was not heard of since
}

// Link is what a worker is heard over; *transport.Peer is one. Links are
// compared.
type Link interface {
	// Lost has f called once the link is lost; stop takes that back.
	Lost(f func()) (stop func() bool)
}

// HeardOver notes over which link the last report of a worker came. While one
// that has lost its link is silent, nobody waits for it.
func (r *Registry) HeardOver(id uint64, l Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.workers[id]
	if w == nil || w.link == l {
		return
	}
	if w.unlink != nil {
		w.unlink()
	}
	w.link, w.cut = l, false
	w.unlink = l.Lost(func() { r.lost(w, l) })
}

func (r *Registry) lost(w *worker, l Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.link == l {
		w.link, w.unlink, w.cut = nil, nil, true
		r.carriedLocked()
	}
}

// New makes an empty registry.
func New(cfg Config, log *slog.Logger) *Registry {
	cfg.setDefaults()
	r := &Registry{cfg: cfg, log: log, workers: map[uint64]*worker{}}
	for i := range r.shards {
		r.shards[i].files = map[orca.Ino]*fileHoldings{}
	}
	return r
}

// Register takes one page of a full report and returns the worker's id (a new
// one when the worker has none).
func (r *Registry) Register(q *metapb.RegisterRequest) (uint64, error) {
	const op = "workers.Register"
	if q.Worker == nil {
		return 0, orca.E(op, orca.Invalid, "no worker in the request")
	}
	now := r.cfg.Now()
	r.mu.Lock()
	w, err := r.admitLocked(q.Worker, now)
	if err != nil {
		r.mu.Unlock()
		return 0, err
	}
	if w.filling == 0 {
		w.lastGen++
		w.filling, w.began, w.filled = w.lastGen, now, q.Epoch
		r.Stats.Registrations.Add(1)
	}
	w.filled = min(w.filled, q.Epoch)
	id, gen, last := w.id, w.filling, !q.More
	r.freeLateLocked(w, q.Files, q.More)
	// What an earlier life of the worker was to hold, this one would know of.
	noted := w.began.Add(-r.cfg.Grace)
	if noted.Before(w.born) {
		noted = w.born
	}
	r.mu.Unlock()

	for _, f := range q.Files {
		r.put(id, gen, f)
	}
	if !last {
		return id, nil
	}
	r.mu.Lock()
	if w.filling == gen {
		w.gen, w.filling, w.epoch = gen, 0, w.filled
	}
	node := w.pb.Node
	r.mu.Unlock()
	r.prune(id, gen, noted)
	r.log.Info("worker registered", "worker", id, "node", node)
	return id, nil
}

// admitLocked finds or makes the record of a worker that reports now.
func (r *Registry) admitLocked(pb *metapb.Worker, now time.Time) (*worker, error) {
	const op = "workers.Register"
	id := pb.Id
	for id == 0 || (pb.Id == 0 && r.workers[id] != nil) {
		id = rand.Uint64() >> 1
	}
	w := r.workers[id]
	if w == nil {
		if len(r.workers) >= r.cfg.MaxWorkers {
			return nil, orca.E(op, orca.Busy, "too many workers")
		}
		w = &worker{id: id, freed: r.freed.next, sent: r.freed.next, obeyed: r.freed.next}
		r.workers[id] = w
		at, _ := slices.BinarySearchFunc(r.order, id, func(w *worker, id uint64) int { return cmp.Compare(w.id, id) })
		r.order = slices.Insert(r.order, at, w)
	} else if w.pb.Node != pb.Node && w.pb.Boot != pb.Boot && now.Sub(w.seen) < r.cfg.Lease {
		return nil, &orca.Error{Op: op, Kind: orca.Conflict, Path: pb.Node,
			Msg: "worker id is in use by node " + w.pb.Node + " (was its data folder copied?)"}
	}
	if w.pb != nil && w.pb.Boot != pb.Boot {
		w.filling, w.born = 0, now // not the half report of an earlier life
	}
	r.touchLocked(w, pb, now)
	return w, nil
}

func (r *Registry) touchLocked(w *worker, pb *metapb.Worker, now time.Time) {
	c := cloneWorker(pb)
	c.Id = w.id
	c.LastSeen = now.UnixNano()
	if old := w.pb; old != nil && old.Boot == c.Boot { // a heartbeat may be short
		c.Node, c.Addr, c.Socket = cmp.Or(c.Node, old.Node), cmp.Or(c.Addr, old.Addr), cmp.Or(c.Socket, old.Socket)
		c.Domain = cmp.Or(c.Domain, old.Domain)
		c.Http, c.Version, c.Rack = cmp.Or(c.Http, old.Http), cmp.Or(c.Version, old.Version), cmp.Or(c.Rack, old.Rack)
		if len(c.Tiers) == 0 {
			c.Tiers = old.Tiers
		}
	}
	w.pb, w.seen, w.cut = c, now, false
}

// Heartbeat takes a worker's deltas and returns its orders. The reply asks for
// a full report when this node has none of the worker's present life.
func (r *Registry) Heartbeat(q *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error) {
	const op = "workers.Heartbeat"
	if q.Worker == nil {
		return nil, orca.E(op, orca.Invalid, "no worker in the request")
	}
	r.Stats.Heartbeats.Add(1)
	now := r.cfg.Now()
	r.mu.Lock()
	w := r.workers[q.Worker.Id]
	if w == nil || w.pb.Boot != q.Worker.Boot || (w.gen == 0 && w.filling == 0) {
		rep := &metapb.HeartbeatReply{Register: true, Epoch: r.epoch}
		r.mu.Unlock()
		return rep, nil
	}
	r.touchLocked(w, q.Worker, now)
	gen := max(w.gen, w.filling)
	was, sent := w.obeyed, w.sent
	r.freeLateLocked(w, q.Files, false)
	orders := w.orders.take(r.cfg.OrdersPerReply)
	if len(w.orders.list) == 0 {
		w.sent = w.freed
	}
	// It carries out the orders of one reply before its next report.
	if w.obeyed = sent; len(orders) == 0 {
		w.obeyed = w.sent
	}
	if w.obeyed != was {
		r.carriedLocked()
	}
	rep := &metapb.HeartbeatReply{Orders: orders, Epoch: r.epoch, Register: w.epoch != r.epoch && w.filling == 0}
	r.mu.Unlock()
	for _, f := range q.Files {
		r.put(w.id, gen, f)
	}
	r.Stats.OrdersSent.Add(int64(len(orders)))
	return rep, nil
}

// Doubt begins a new epoch: another node knew more of the holdings than this
// one. They are still believed to be where they are said to be, but nothing is
// called gone before its holders have sent a full report, made after they
// heard of the epoch.
func (r *Registry) Doubt() {
	r.mu.Lock()
	r.epoch = max(r.epoch+1, uint64(r.cfg.Now().UnixNano()))
	r.mu.Unlock()
}

// List returns every known worker, by id, with live set.
func (r *Registry) List() []*metapb.Worker {
	now := r.cfg.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*metapb.Worker, 0, len(r.order))
	for _, w := range r.order {
		c := cloneWorker(w.pb)
		c.Live = r.liveLocked(w, now)
		out = append(out, c)
	}
	return out
}

// Live returns the live workers, those with the most free space first.
func (r *Registry) Live() []*metapb.Worker {
	now := r.cfg.Now()
	r.mu.RLock()
	out := make([]*metapb.Worker, 0, len(r.order))
	for _, w := range r.order {
		if r.liveLocked(w, now) {
			c := cloneWorker(w.pb)
			c.Live = true
			out = append(out, c)
		}
	}
	r.mu.RUnlock()
	slices.SortStableFunc(out, func(a, b *metapb.Worker) int { return cmp.Compare(free(b), free(a)) })
	return out
}

func (r *Registry) liveLocked(w *worker, now time.Time) bool {
	return now.Sub(w.seen) < r.cfg.Lease
}

// Expire forgets workers that were silent for Config.Forget; the service calls
// it now and then.
func (r *Registry) Expire() {
	now := r.cfg.Now()
	var gone []uint64
	r.mu.Lock()
	for id, w := range r.workers {
		if now.Sub(w.seen) >= r.cfg.Forget {
			gone = append(gone, id)
			delete(r.workers, id)
		}
	}
	r.order = slices.DeleteFunc(r.order, func(w *worker) bool { return r.workers[w.id] == nil })
	r.mu.Unlock()
	for _, id := range gone {
		r.prune(id, ^uint64(0), now)
		r.log.Info("worker forgotten", "worker", id)
	}
}

func free(w *metapb.Worker) (n int64) {
	for _, t := range w.Tiers {
		if t.Healthy {
			n += max(t.Capacity-t.Used, 0)
		}
	}
	return n
}

// cloneWorker copies a record; the tiers are shared and never changed in place.
func cloneWorker(w *metapb.Worker) *metapb.Worker {
	return &metapb.Worker{Id: w.Id, Node: w.Node, Addr: w.Addr, Socket: w.Socket, Http: w.Http,
		Tiers: w.Tiers, LastSeen: w.LastSeen, Live: w.Live, Version: w.Version, Boot: w.Boot, Rack: w.Rack, Domain: w.Domain}
}
