// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"time"
)

// crew runs the parsers of connections. A goroutine that has run one waits for
// the next, the one that was busy last first: its stack has grown to what a
// parser needs, which a new goroutine would copy several times on its way
// there, for every request. Who has had nothing to do for a rest is sent home.
type crew struct {
	mu     sync.Mutex
	idle   []chan func() // of those who wait
	unused int           // how many of idle, the first, nobody has called since the last look
	looks  bool          // there is a goroutine that looks
}

// rest is how long a goroutine waits for work at least before it ends, and
// twice that at most.
const rest = 50 * time.Millisecond

// run calls f on a goroutine.
func (c *crew) run(f func()) {
	c.mu.Lock()
	n := len(c.idle) - 1
	if n < 0 {
		c.mu.Unlock()
		go c.work(make(chan func(), 1), f)
		return
	}
	next := c.idle[n]
	c.idle[n] = nil
	c.idle = c.idle[:n]
	c.unused = min(c.unused, n)
	c.mu.Unlock()
	next <- f
}

// work is the goroutine of next.
func (c *crew) work(next chan func(), f func()) {
	for f != nil {
		f()
		c.mu.Lock()
		c.idle = append(c.idle, next)
		if !c.looks {
			c.looks = true
			go c.look()
		}
		c.mu.Unlock()
		f = <-next
	}
}

// look sends home who was not needed between two looks, and ends when nobody
// waits.
func (c *crew) look() {
	tick := time.NewTicker(rest)
	defer tick.Stop()
	for range tick.C {
		if !c.relieve() {
			return
		}
	}
}

// relieve is one look; false: nobody waits.
func (c *crew) relieve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	home := c.idle[:c.unused]
	for _, next := range home {
		next <- nil
	}
	n := copy(c.idle, c.idle[c.unused:])
	clear(c.idle[n:])
	c.idle = c.idle[:n]
	c.unused = n
	c.looks = n > 0
	return c.looks
}
