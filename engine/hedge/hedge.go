// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package hedge decides when a request that takes long is worth sending a
// second time, to another server that can answer it: after a delay that 95 of
// 100 requests stay below, and within a budget of extra requests (Dean and
// Barroso, "The Tail at Scale", 2013).
//
//	Took ─► delay        After ─► when to ask a second server
//	Earn, Spend ─► budget
//
// It starts no goroutines, knows no clock and sends nothing; all methods are
// safe for concurrent use and take no lock.
package hedge

import (
	"sync/atomic"
	"time"
)

const (
	// grow and shrink move the estimate of the 95th percentile with each
	// sample above and below it. They balance where 5 of 100 are above:
	// grow^5 · shrink^95 = 1.
	grow   = 1.1
	shrink = 0.994996
	// Start is the delay before anything is known.
	Start = 20 * time.Millisecond
	// Least is the shortest delay: below it a second request is more likely to
	// make things worse.
	Least = time.Millisecond
	// Most is the longest.
	Most = 2 * time.Second
	// burst is how many second requests may be saved up.
	burst = 10
)

// Hedge is the state for one kind of request. The zero value never asks twice;
// see New.
type Hedge struct {
	every  int64        // requests per second request
	delay  atomic.Int64 // ns
	credit atomic.Int64 // in requests; every of them pay for a second request
}

// New makes a Hedge that sends at most one second request for each every
// requests, and none if every is not positive.
func New(every int) *Hedge {
	h := &Hedge{every: int64(every)}
	h.delay.Store(int64(Start))
	return h
}

// On reports whether second requests are sent at all.
func (h *Hedge) On() bool { return h.every > 0 }

// After returns how long to wait for the first answer.
func (h *Hedge) After() time.Duration { return time.Duration(h.delay.Load()) }

// Took notes how long the first server took, at least: when the second one was
// quicker, until then.
func (h *Hedge) Took(d time.Duration) {
	now := h.delay.Load()
	next := float64(now) * shrink
	if int64(d) > now {
		next = float64(now) * grow
	}
	// A sample that is lost to another one of the same moment does not matter.
	h.delay.CompareAndSwap(now, min(max(int64(next), int64(Least)), int64(Most)))
}

// Earn counts a request.
func (h *Hedge) Earn() {
	if h.credit.Add(1) > burst*h.every {
		h.credit.Add(-1)
	}
}

// Spend reports whether a second request may be sent, and counts it.
func (h *Hedge) Spend() bool {
	if h.every <= 0 {
		return false
	}
	if h.credit.Add(-h.every) < 0 {
		h.credit.Add(h.every)
		return false
	}
	return true
}
