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
	refs   atomic.Int64 // 0: closed, for ever

	mapped      atomic.Pointer[[]byte] // see readAt; nil: not mapped
	tried       atomic.Bool            // to map it
	read, reads atomic.Int64           // bytes and calls until then
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
		_ = d.file.Close() // read-only: nothing can be lost
	}
}

type cached struct {
	d    *descriptor
	used time.Time
}

// descriptors is a bounded LRU of local block descriptors, shared by all Files
// of an FS so that opening a small file again costs no descriptor passing. It
// holds one reference on each.
type descriptors struct {
	max int

	mu    sync.Mutex
	by    map[orca.BlockID]*list.Element // of *cached; GUARDED_BY(mu)
	lru   *list.List                     // front: most recent
	sweep *time.Timer                    // nil: not armed
	done  bool
}

func newDescriptors(limit int) *descriptors {
	return &descriptors{max: limit, by: map[orca.BlockID]*list.Element{}, lru: list.New()}
}

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
func (c *descriptors) put(id orca.BlockID, f *os.File, length int64) *descriptor {
	d := &descriptor{id: id, file: f, length: length}
	d.refs.Store(1)
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
		c.sweep = time.AfterFunc(idleDescriptor, c.expire)
	}
	return d
}

// drop forgets a block, after its descriptor failed to read.
func (c *descriptors) drop(id orca.BlockID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.by[id]; e != nil {
		c.dropLocked(e)
	}
}

func (c *descriptors) dropLocked(e *list.Element) {
	x := e.Value.(*cached)
	c.lru.Remove(e)
	delete(c.by, x.d.id)
	x.d.release()
}

// expire closes what was idle, and re-arms itself while anything is left.
func (c *descriptors) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := time.Now().Add(-idleDescriptor)
	for e := c.lru.Back(); e != nil && e.Value.(*cached).used.Before(old); e = c.lru.Back() {
		c.dropLocked(e)
	}
	c.sweep = nil
	if c.lru.Len() > 0 && !c.done {
		c.sweep = time.AfterFunc(idleDescriptor/2, c.expire)
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
