// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"sync"
)

// writesInFlight is how many chunks of a remote writer are under way at once.
const writesInFlight = 4

// pipeline turns the writes of one Writer into WriteAt requests of chunkSize,
// several outstanding. Contiguous writes are gathered; one that goes elsewhere
// first waits for all before it, so that overlapping writes land in order. Its
// calls are serialised by Writer.mu.
type pipeline struct {
	way    *chain
	ctx    context.Context // ends with the Writer
	cancel context.CancelFunc

	buf   *[chunkSize]byte // gathering; nil: empty
	n     int
	off   int64 // of buf in the file
	slots chan struct{}
	wg    sync.WaitGroup

	mu  sync.Mutex
	err error // the first failure; GUARDED_BY(mu)
}

func newPipeline(way *chain) *pipeline {
	ctx, cancel := context.WithCancel(context.Background())
	return &pipeline{way: way, ctx: ctx, cancel: cancel, slots: make(chan struct{}, writesInFlight)}
}

func (p *pipeline) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// write takes p; an error may be that of an earlier write.
func (p *pipeline) write(b []byte, off int64) (int, error) {
	if err := p.failure(); err != nil {
		return 0, err
	}
	if p.n > 0 && off != p.off+int64(p.n) || p.n == 0 && off != p.off {
		p.send()
		p.wg.Wait()
		p.off = off
	}
	done := 0
	for done < len(b) {
		if p.buf == nil {
			p.buf = buffers.Get().(*[chunkSize]byte)
		}
		m := copy(p.buf[p.n:], b[done:])
		p.n += m
		done += m
		if p.n == chunkSize {
			p.send()
		}
	}
	return done, nil
}

// send puts the gathered chunk under way.
func (p *pipeline) send() {
	if p.n == 0 {
		return
	}
	buf, n, off := p.buf, p.n, p.off
	p.buf, p.n, p.off = nil, 0, off+int64(n)
	p.slots <- struct{}{}
	p.wg.Go(func() {
		defer func() { <-p.slots }()
		defer buffers.Put(buf)
		if p.failure() != nil {
			return
		}
		if err := p.way.write(p.ctx, buf[:n], off); err != nil {
			p.mu.Lock()
			if p.err == nil {
				p.err = err
			}
			p.mu.Unlock()
		}
	})
}

// flush sends what was gathered and waits until all of it has arrived. When
// ctx ends first the pipeline is stopped: what arrived is not known.
func (p *pipeline) flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.cancel)
	defer stop()
	p.send()
	p.wg.Wait()
	if ctx.Err() != nil {
		return ctxError("client.Write", ctx)
	}
	return p.failure()
}

// stop ends the pipeline, dropping what was not sent.
func (p *pipeline) stop() {
	p.cancel()
	p.wg.Wait()
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf, p.n = nil, 0
	}
}
