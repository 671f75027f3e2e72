// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barAfter is how long a copy must take before a bar is worth showing.
const barAfter = 500 * time.Millisecond

// progress is a bar on stderr while a person is looking; otherwise nothing.
type progress struct {
	mu      sync.Mutex
	started time.Time
	name    string
	unit    string // of what is counted; "": bytes
	total   int64  // expected so far; GUARDED_BY(mu)
	done    int64
	show    bool
	pool    *mpb.Progress
	bar     *mpb.Bar
	e       *env
}

func (e *env) progress(name string) *progress {
	return &progress{e: e, name: name, show: e.ErrTTY && !e.json, started: time.Now()}
}

// expect adds bytes that are still to come.
func (p *progress) expect(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += n
	if p.bar != nil {
		p.bar.SetTotal(p.total, false)
	}
}

// add counts bytes done.
func (p *progress) add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += int64(n)
	p.drawLocked()
}

// set says how far a job is.
func (p *progress) set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = done, total
	p.drawLocked()
	if p.bar != nil {
		p.bar.SetTotal(total, false)
	}
}

func (p *progress) drawLocked() {
	if p.bar == nil {
		if !p.show || time.Since(p.started) < barAfter {
			return
		}
		p.pool = mpb.New(mpb.WithOutput(p.e.Err), mpb.WithWidth(60), mpb.WithRefreshRate(150*time.Millisecond))
		count, speed := decor.CountersKibiByte("% .1f / % .1f"), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")
		if p.unit != "" {
			count, speed = decor.CountersNoUnit("%d / %d "+p.unit), decor.AverageSpeed(0, "%.0f/s")
		}
		p.bar = p.pool.AddBar(p.total,
			mpb.PrependDecorators(decor.Name(p.name+" "), count),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), speed, decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)),
			mpb.BarRemoveOnComplete(),
		)
	}
	p.bar.SetCurrent(p.done)
}

// stop takes the bar away.
func (p *progress) stop() {
	p.mu.Lock()
	bar, pool := p.bar, p.pool
	p.bar, p.show = nil, false
	p.mu.Unlock()
	if bar != nil {
		bar.Abort(true)
		pool.Wait()
	}
}
