// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
)

// bodies are the places of all connections of a Server (Request.Place). Those
// that are slow, which is to say that their peer is waited for and none of their
// replies with a place has left for a while, have at most half of them: of more,
// the ones that have been so for the longest are closed when others need places.
//
//	0            half                all
//	├─ slow ones ─┼─ for who reads ───┤
type bodies struct {
	slots  chan struct{} // one element for each place taken
	slow   time.Duration
	taken  *atomic.Int64 // gauge
	closed *atomic.Int64

	mu   sync.Mutex
	held map[*serverConn]*stock
}

// stock are the places that one connection has.
type stock struct {
	n      int
	since  time.Time // when its last one left, or its first was taken
	closed bool
}

func newBodies(cfg *ServerConfig, m *ServerMetrics) *bodies {
	return &bodies{slots: make(chan struct{}, cfg.MaxBodiesAll), slow: cfg.SlowBody,
		taken: &m.Bodies, closed: &m.SlowBody, held: map[*serverConn]*stock{}}
}

// take takes a place for a connection; it waits for one unless now is set.
func (b *bodies) take(ctx context.Context, c *serverConn, now bool) error {
	select {
	case b.slots <- struct{}{}:
		b.note(c)
		if len(b.slots) > cap(b.slots)/2 {
			b.shed()
		}
		return nil
	default:
	}
	if now {
		return errNoPlace
	}
	again := time.NewTicker(b.slow / 2)
	defer again.Stop()
	for {
		b.shed()
		select {
		case b.slots <- struct{}{}:
			b.note(c)
			return nil
		case <-again.C: // others are slow by now
		case <-ctx.Done():
			return orca.PathE("transport.Place", "", orca.Canceled, ctx.Err())
		}
	}
}

func (b *bodies) note(c *serverConn) {
	b.taken.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.held[c]
	if s == nil {
		s = &stock{since: time.Now()}
		b.held[c] = s
	}
	s.n++
}

// leave gives a place back.
func (b *bodies) leave(c *serverConn) {
	b.mu.Lock()
	s := b.held[c]
	s.n--
	s.since = time.Now()
	if s.n == 0 {
		delete(b.held, c)
	}
	b.mu.Unlock()
	b.taken.Add(-1)
	<-b.slots
}

// shed closes slow connections, the slowest first, until the others have no more
// than their half.
func (b *bodies) shed() {
	type slowOne struct {
		*stock
		c *serverConn
	}
	var list []slowOne
	n := 0
	b.mu.Lock()
	for c, s := range b.held {
		if !s.closed && c.out.full.Load() && time.Since(s.since) >= b.slow {
			list = append(list, slowOne{s, c})
			n += s.n
		}
	}
	slices.SortFunc(list, func(x, y slowOne) int { return cmp.Compare(x.since.UnixNano(), y.since.UnixNano()) })
	at := 0
	for ; at < len(list) && n > cap(b.slots)/2; at++ {
		list[at].closed = true
		n -= list[at].n
	}
	b.mu.Unlock()
	for _, x := range list[:at] {
		b.closed.Add(1)
		x.c.close(errPeerGone)
	}
}
