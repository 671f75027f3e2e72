// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/transport"
)

// pool keeps the bulk connections of a way to a worker: at most MaxStreams in use, the
// last used first, closed when idle. Lanes whose readers are away are not in
// use, and nobody else's: there are at most MaxStreams of them.
type pool struct {
	cfg     *Config
	to      transport.ClientConfig
	metrics *Metrics
	places  chan struct{} // one element per stream in use

	mu     sync.Mutex
	idle   []idleStream // oldest first
	timer  *time.Timer  // runs while idle is not empty
	lanes  []*lane      // whose readers are away, the longest away first; at most MaxStreams
	sweep  *time.Timer  // runs while lanes is not empty
	busy   map[*transport.Stream]struct{}
	closed bool
}

type idleStream struct {
	s     *transport.Stream
	since time.Time
}

var errAllBusy = orca.E("blockclient", orca.Busy, "all bulk connections to the worker stay in use")

var errClosed = orca.E("blockclient", orca.Unavailable, "client is closed")

func newPool(cfg *Config, to transport.ClientConfig, m *Metrics) *pool {
	return &pool{
		cfg: cfg, to: to, metrics: m,
		places: make(chan struct{}, cfg.MaxStreams),
		busy:   make(map[*transport.Stream]struct{}),
	}
}

// place waits for the right to use a bulk connection. Busy when all stay taken
// for StallTimeout.
func (p *pool) place(ctx context.Context) error {
	select {
	case p.places <- struct{}{}:
		return nil
	default:
	}
	late := time.NewTimer(p.cfg.StallTimeout)
	defer late.Stop()
	select {
	case p.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctxError(ctx)
	case <-late.C:
		return errAllBusy
	}
}

// get returns a stream for this user alone; used says that it has been used
// before, so that the server may have closed it meanwhile.
func (p *pool) get(ctx context.Context) (s *transport.Stream, used bool, err error) {
	if err := p.place(ctx); err != nil {
		return nil, false, err
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
	if s, err = transport.DialStream(ctx, p.to); err != nil {
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
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, l := range p.lanes {
		p.endLocked(l)
	}
	p.lanes = nil
	for s := range p.busy {
		_ = s.Close() // its user sees Unavailable
	}
}

// lane returns the lane on which a read goes on, for this user alone; nil when
// there is none.
func (p *pool) lane(ctx context.Context, req *dataplane.ReadRequest) (*lane, error) {
	l := p.takeLane(func(l *lane) bool { return l.fits(req) })
	if l == nil {
		return nil, nil
	}
	if err := p.place(ctx); err != nil {
		p.mu.Lock()
		p.endLocked(l)
		p.mu.Unlock()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.endLocked(l)
		<-p.places
		return nil, errClosed
	}
	p.busy[l.s] = struct{}{}
	return l, nil
}

func (p *pool) takeLane(fits func(*lane) bool) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, l := range p.lanes {
		if fits(l) {
			p.lanes = slices.Delete(p.lanes, i, i+1)
			return l
		}
	}
	return nil
}

// leave takes a lane back: to be gone on with, as a mere stream when nothing is
// outstanding, or, when it is not intact, to be closed.
func (p *pool) leave(l *lane, intact bool) {
	if !intact || l.empty() {
		l.drop()
		p.put(l.s, intact)
		return
	}
	p.mu.Lock()
	delete(p.busy, l.s)
	l.since = time.Now()
	if p.closed {
		p.endLocked(l)
	} else {
		if len(p.lanes) >= p.cfg.MaxStreams {
			p.endLocked(p.lanes[0])
			p.lanes = slices.Delete(p.lanes, 0, 1)
		}
		p.lanes = append(p.lanes, l)
		if p.sweep == nil {
			p.sweep = time.AfterFunc(p.laneIdle(), p.sweepLanes)
		}
	}
	p.mu.Unlock()
	<-p.places
}

func (p *pool) laneIdle() time.Duration { return min(laneIdle, p.cfg.IdleTimeout) }

// sweepLanes ends the lanes whose readers have been away for too long.
func (p *pool) sweepLanes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweep = nil
	n := 0
	for n < len(p.lanes) && time.Since(p.lanes[n].since) >= p.laneIdle() {
		p.endLocked(p.lanes[n])
		n++
	}
	p.lanes = slices.Delete(p.lanes, 0, n)
	if len(p.lanes) > 0 && !p.closed {
		p.sweep = time.AfterFunc(time.Until(p.lanes[0].since.Add(p.laneIdle())), p.sweepLanes)
	}
}

// endLocked closes the stream of a lane: what is outstanding is cancelled.
func (p *pool) endLocked(l *lane) {
	l.drop()
	p.discardLocked(l.s)
}

// ctxError turns the end of a context into a Timeout or Canceled.
func ctxError(ctx context.Context) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return &orca.Error{Op: "blockclient", Kind: k, Err: ctx.Err()}
}
