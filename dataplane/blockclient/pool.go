// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"errors"
	"sync"
	"time"

	"orca"
	"orca/dataplane/transport"
)

// pool keeps the bulk connections of a Client: at most MaxStreams, the last
// used first, closed when idle.
type pool struct {
	cfg     *Config
	metrics *Metrics
	places  chan struct{} // one element per stream in use

	mu     sync.Mutex
	idle   []idleStream // oldest first
	timer  *time.Timer  // runs while idle is not empty
	busy   map[*transport.Stream]struct{}
	closed bool
}

type idleStream struct {
	s     *transport.Stream
	since time.Time
}

var errAllBusy = orca.E("blockclient", orca.Busy, "all bulk connections to the worker stay in use")

var errClosed = orca.E("blockclient", orca.Unavailable, "client is closed")

func newPool(cfg *Config, m *Metrics) *pool {
	return &pool{
		cfg: cfg, metrics: m,
		places: make(chan struct{}, cfg.MaxStreams),
		busy:   make(map[*transport.Stream]struct{}),
	}
}

// get returns a stream for this user alone; used says that it has been used
// before, so that the server may have closed it meanwhile. Busy when all places
// stay taken for StallTimeout.
func (p *pool) get(ctx context.Context) (s *transport.Stream, used bool, err error) {
	select {
	case p.places <- struct{}{}:
	default:
		late := time.NewTimer(p.cfg.StallTimeout)
		defer late.Stop()
		select {
		case p.places <- struct{}{}:
		case <-ctx.Done():
			return nil, false, ctxError(ctx)
		case <-late.C:
			return nil, false, errAllBusy
		}
	}
	p.mu.Lock()
	for len(p.idle) > 0 {
		s := p.idle[len(p.idle)-1].s
		p.idle = p.idle[:len(p.idle)-1]
		if s.Alive() {
			p.busy[s] = struct{}{}
			p.mu.Unlock()
			return s, true, nil
		}
		p.metrics.Redials.Add(1)
		p.discardLocked(s)
	}
	closed := p.closed
	p.mu.Unlock()
	if closed {
		<-p.places
		return nil, false, errClosed
	}
	if s, err = transport.DialStream(ctx, p.cfg.Transport); err != nil {
		<-p.places
		return nil, false, err
	}
	p.metrics.Streams.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.discardLocked(s)
		<-p.places
		return nil, false, errClosed
	}
	p.busy[s] = struct{}{}
	return s, false, nil
}

// put gives a stream back; a stream that is not clean (something is still to
// come on it) is closed.
func (p *pool) put(s *transport.Stream, clean bool) {
	p.mu.Lock()
	delete(p.busy, s)
	if clean && !p.closed {
		p.idle = append(p.idle, idleStream{s, time.Now()})
		if p.timer == nil {
			p.timer = time.AfterFunc(p.cfg.IdleTimeout, p.prune)
		}
	} else {
		p.discardLocked(s)
	}
	p.mu.Unlock()
	<-p.places
}

// prune closes what has been idle for too long.
func (p *pool) prune() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	n := 0
	for n < len(p.idle) && time.Since(p.idle[n].since) >= p.cfg.IdleTimeout {
		p.discardLocked(p.idle[n].s)
		n++
	}
	p.idle = append(p.idle[:0], p.idle[n:]...)
	if len(p.idle) > 0 {
		p.timer = time.AfterFunc(time.Until(p.idle[0].since.Add(p.cfg.IdleTimeout)), p.prune)
	}
}

func (p *pool) discardLocked(s *transport.Stream) {
	p.metrics.Streams.Add(-1)
	_ = s.Close()
}

// close closes the idle streams and interrupts the users of the others.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	for _, i := range p.idle {
		p.discardLocked(i.s)
	}
	p.idle = nil
	for s := range p.busy {
		_ = s.Close() // its user sees Unavailable
	}
}

// ctxError turns the end of a context into a Timeout or Canceled.
func ctxError(ctx context.Context) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return &orca.Error{Op: "blockclient", Kind: k, Err: ctx.Err()}
}
