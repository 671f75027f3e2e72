// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"container/list"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"orca"
)

// idleDescriptor is how long an unused descriptor is kept: a block evicted by
// its worker holds its room until the last descriptor is closed.
const idleDescriptor = 20 * time.Second

// descriptor is a read-only descriptor of one complete, immutable block. It is
// closed when the last reference goes.
type descriptor struct {
	id     orca.BlockID
	file   *os.File
	length int64
	gen    uint64       // of the file, by the worker
	refs   atomic.Int64 // 0: closed, for ever
	cache  *descriptors // nil in tests
	maps   *maps

	leased   time.Time   // when the worker last vouched for it; GUARDED_BY(descriptors.leases)
	over     atomic.Bool // the lease has ended: ask the worker again
	renewing atomic.Bool

	mapped      atomic.Pointer[mapping] // see readAt; nil: not mapped
	tried       atomic.Bool             // to map it
	read, reads atomic.Int64            // bytes and calls until then
}

// acquire takes a reference unless the descriptor is closed.
func (d *descriptor) acquire() bool {
	for {
		n := d.refs.Load()
		if n <= 0 {
			return false
		}
		if d.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (d *descriptor) release() {
	if d.refs.Add(-1) == 0 {
		d.unmap()
		if d.cache != nil {
			d.cache.leases.forget(d)
		}
		_ = d.file.Close() // read-only: nothing can be lost
	}
}

// leases are the descriptors that are open, in the cache or held by a File. A
// worker cannot call a descriptor back, so the client asks for it again when
// its lease is over: then it learns that the block has left, or has another
// file since (generation) because a grain of the old one was bad.
type leases struct {
	term time.Duration

	mu   sync.Mutex
	live map[*descriptor]struct{} // GUARDED_BY(mu)
}

func (l *leases) grant(d *descriptor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.leased = time.Now()
	d.over.Store(false)
	l.live[d] = struct{}{}
}

func (l *leases) forget(d *descriptor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, d)
}

// count returns how many descriptors are open.
func (l *leases) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live)
}

// expire ends leases, and reports how many descriptors are open.
func (l *leases) expire() int {
	old := time.Now().Add(-l.term)
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range l.live {
		if !d.leased.After(old) {
			d.over.Store(true)
		}
	}
	return len(l.live)
}

type cached struct {
	d    *descriptor
	used time.Time
}

// descriptors is a bounded LRU of local block descriptors, shared by all Files
// of an FS so that opening a small file again costs no descriptor passing. It
// holds one reference on each.
type descriptors struct {
	max    int
	maps   *maps
	leases leases

	mu    sync.Mutex
	by    map[orca.BlockID]*list.Element // of *cached; GUARDED_BY(mu)
	lru   *list.List                     // front: most recent
	sweep *time.Timer                    // nil: not armed
	done  bool
}

func newDescriptors(limit, mapped int, lease time.Duration) *descriptors {
	c := &descriptors{max: limit, maps: newMaps(mapped), by: map[orca.BlockID]*list.Element{}, lru: list.New()}
	c.leases.term, c.leases.live = lease, map[*descriptor]struct{}{}
	return c
}

// period is how often the cache is looked through while anything is open.
func (c *descriptors) period() time.Duration { return min(idleDescriptor, c.leases.term) / 2 }

// get returns a referenced descriptor, or nil.
func (c *descriptors) get(id orca.BlockID) *descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.by[id]
	if e == nil {
		return nil
	}
	x := e.Value.(*cached)
	x.used = time.Now()
	c.lru.MoveToFront(e)
	x.d.refs.Add(1) // the cache's own reference keeps it above 0
	return x.d
}

// put adds a descriptor and returns it, or the one already there, referenced
// for the caller.
func (c *descriptors) put(id orca.BlockID, f *os.File, length int64, gen uint64) *descriptor {
	d := &descriptor{id: id, file: f, length: length, gen: gen, cache: c, maps: c.maps}
	d.refs.Store(1)
	c.leases.grant(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return d
	}
	if e := c.by[id]; e != nil {
		d.release()
		x := e.Value.(*cached)
		x.d.refs.Add(1)
		return x.d
	}
	d.refs.Add(1)
	c.by[id] = c.lru.PushFront(&cached{d: d, used: time.Now()})
	for c.lru.Len() > c.max {
		c.dropLocked(c.lru.Back())
	}
	if c.sweep == nil {
		c.sweep = time.AfterFunc(c.period(), c.expire)
	}
	return d
}

// drop forgets a descriptor that failed to read or is of the past.
func (c *descriptors) drop(d *descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[d.id]; e != nil && e.Value.(*cached).d == d {
		c.dropLocked(e)
	}
}

func (c *descriptors) dropLocked(e *list.Element) {
	x := e.Value.(*cached)
	c.lru.Remove(e)
	delete(c.by, x.d.id)
	x.d.release()
}

// expire closes what was idle, ends leases, and re-arms itself while anything
// is open.
func (c *descriptors) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	open := c.leases.expire()
	old := time.Now().Add(-idleDescriptor)
	for e := c.lru.Back(); e != nil && e.Value.(*cached).used.Before(old); e = c.lru.Back() {
		c.dropLocked(e)
	}
	c.sweep = nil
	if open > 0 && !c.done {
		c.sweep = time.AfterFunc(c.period(), c.expire)
	}
}

func (c *descriptors) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	if c.sweep != nil {
		c.sweep.Stop()
	}
	for c.lru.Len() > 0 {
		c.dropLocked(c.lru.Back())
	}
}
