// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package scrub

import (
	"context"
	"sync/atomic"
	"time"
)

// pace spaces reads out: never more than rate, and none while the store is
// busy, for a while. It belongs to Run's goroutine.
type pace struct {
	rate, busy int64
	traffic    func() int64
	waits      *atomic.Int64

	free time.Time // when the next read may begin
	seen int64     // traffic when it was last looked at
	at   time.Time
}

// wait waits for the turn of the next read of up to n bytes; late leaves the
// readers out of account. False when ctx has ended.
func (p *pace) wait(ctx context.Context, n int64, late bool) bool {
	if !sleep(ctx, time.Until(p.free)) {
		return false
	}
	for waited := time.Duration(0); !late && waited < busyMost && p.isBusy(); waited += busyWait {
		p.waits.Add(1)
		if !sleep(ctx, busyWait) {
			return false
		}
	}
	return ctx.Err() == nil
}

// spent accounts for a read.
func (p *pace) spent(n int64) {
	from := p.free
	if now := time.Now(); from.Before(now) {
		from = now
	}
	p.free = from.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
}

// isBusy reports whether the store has moved bytes since it was last asked, at
// a rate that counts as busy.
func (p *pace) isBusy() bool {
	now, t := time.Now(), p.traffic()
	since := now.Sub(p.at)
	moved := t - p.seen
	p.seen, p.at = t, now
	// What moved long ago says nothing; less than a wait is too short to say.
	since = max(since, busyWait)
	return float64(moved) >= float64(p.busy)*since.Seconds() && moved > 0
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
