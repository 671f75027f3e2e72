// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane/transport"
)

const (
	// domainRest is for how long the Unix socket of a worker is left alone
	// after it could not be used.
	domainRest = time.Second
	// refusedFor is for how long reads with the grants of a user are not tried
	// there again: the worker believes nobody there but the peer itself.
	refusedFor = 30 * time.Second
	// refusedMax bounds the users that are remembered.
	refusedMax = 1024
)

// way is one way to the block server of a worker, with its connections.
type way struct {
	small   *transport.Client // nil: there is no such way
	streams *pool
}

func (c *Client) newWay(to transport.ClientConfig, log *slog.Logger) (way, error) {
	small, err := transport.NewClient(to, log)
	if err != nil {
		return way{}, err
	}
	return way{small, newPool(&c.cfg, to, &c.metrics)}, nil
}

func (w *way) close() error {
	if w.small == nil {
		return nil
	}
	w.streams.close()
	return w.small.Close()
}

// domain is the way over the Unix socket of a worker on this host, for who may
// not hold descriptors or is refused one. The kernel tells the worker there who
// asks, and the worker serves that user's own grants only (all, to root and to
// its own user); others have to go over the network, where the claim of a grant
// is believed.
type domain struct {
	way
	rests atomic.Int64 // until then, in Unix nanoseconds, nothing is tried
	some  atomic.Bool  // refused is not empty

	mu      sync.Mutex
	refused map[uint32]time.Time // until when, by user; GUARDED_BY(mu)
}

// wayOf returns the way of a read with a grant of this user.
func (c *Client) wayOf(uid uint32) *way {
	d := &c.near
	if d.small == nil || d.rests.Load() > 0 && time.Now().UnixNano() < d.rests.Load() || d.some.Load() && d.refuses(uid) {
		return &c.far
	}
	return &d.way
}

func (d *domain) refuses(uid uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	until, ok := d.refused[uid]
	if ok && time.Now().After(until) {
		delete(d.refused, uid)
		d.some.Store(len(d.refused) > 0)
		return false
	}
	return ok
}

// turnedAway reports whether what failed over w is to be tried over the
// network, and sees to it that the next reads go there at once.
func (c *Client) turnedAway(ctx context.Context, w *way, uid uint32, err error) bool {
	d := &c.near
	if w != &d.way || ctx.Err() != nil {
		return false
	}
	switch {
	case errors.Is(err, orca.Unavailable):
		d.rests.Store(time.Now().Add(domainRest).UnixNano())
	case errors.Is(err, orca.Permission):
		d.mu.Lock()
		if d.refused == nil || len(d.refused) >= refusedMax {
			d.refused = map[uint32]time.Time{}
		}
		d.refused[uid] = time.Now().Add(refusedFor)
		d.some.Store(true)
		d.mu.Unlock()
	default:
		return false
	}
	c.metrics.DomainRefused.Add(1)
	return true
}

// brought counts a read over w.
func (c *Client) brought(w *way, n int) {
	if w != &c.near.way {
		return
	}
	c.metrics.DomainReads.Add(1)
	c.metrics.DomainBytes.Add(int64(n))
	if c.cfg.OnDomain != nil {
		c.cfg.OnDomain(n)
	}
}
