// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package readthrough

import (
	"sync"

	"orca"
	"orca/dataplane"
)

// trackSlots is how many readers are remembered, by a hash of their block.
const trackSlots = 512

// tracker tells readers that go on in order from those that jump.
type tracker struct {
	mu    sync.Mutex
	slots [trackSlots]progress // GUARDED_BY(mu)
}

type progress struct {
	id     orca.BlockID
	next   int64 // where the last read ended
	edge   int64 // up to where bytes have been fetched for it
	window int64 // bytes to be ahead of the reader
	known  bool
}

// note records a read and says whether it is sequential and how far to run
// ahead of it. The window starts at a page (four when the reader says that it
// is sequential) and doubles with each read in order.
func (t *tracker) note(req dataplane.ReadRequest, c Config) (seq bool, window int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.slotLocked(req.ID)
	if p.id != req.ID || !p.known {
		*p = progress{id: req.ID, known: true, next: req.Off}
		if req.Off != 0 && !req.Sequential {
			p.next = req.Off + req.N
			return false, 0
		}
	}
	// Reads of what is cached are not all noted: who comes to the edge of what
	// was fetched has read up to it.
	if p.edge > 0 && alignDown(req.Off) <= p.edge && req.Off+req.N > p.edge {
		p.next = req.Off
	}
	inOrder := req.Off <= p.next && req.Off+2*req.N >= p.next || req.Off > p.next && req.Off-p.next <= req.N
	switch {
	case !inOrder && !req.Sequential:
		p.window = 0
		p.next = req.Off + req.N
		return false, 0
	case p.window == 0 && req.Sequential:
		p.window = 4 * c.Page
	case p.window == 0:
		p.window = c.Page
	case req.Off+req.N > p.next:
		p.window *= 2
	}
	p.window = min(p.window, c.ReadAhead)
	p.next = max(p.next, req.Off+req.N)
	return true, p.window
}

func (t *tracker) slotLocked(id orca.BlockID) *progress {
	h := (uint64(id.File)*0x9E3779B97F4A7C15 ^ uint64(id.Index)*0xC2B2AE3D27D4EB4F) >> 32 % trackSlots
	return &t.slots[h]
}

// reach notes up to where bytes are fetched for the reader of a block.
func (t *tracker) reach(id orca.BlockID, end int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.slotLocked(id); p.id == id {
		p.edge = end
	}
}
