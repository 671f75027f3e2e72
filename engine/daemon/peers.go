// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
	"orca/tiers/readthrough"
	"orca/tiers/writeback"
)

const (
	// peerPatience is how long another worker may deliver nothing of what it
	// holds, plus a second for each MiB of a segment. It is far below the
	// patience of the stream that asks (30 s) and of the reader behind it (10 s
	// before it asks another worker): the stream goes on at the next source.
	peerPatience = 3 * time.Second
	// homePatience is the same for a worker that fetches for others: it waits
	// for the store, perhaps in a crowd, and who gives it up makes the store
	// give the same bytes again. It is still below that of the reader.
	homePatience = 8 * time.Second
	// peerRest is how long a worker that failed so is not asked again.
	peerRest = 5 * time.Second
	// peerIdle closes the connections to a worker that was not asked for so
	// long; it may have left for good.
	peerIdle = 10 * time.Minute
)

// peers reads from other workers, and writes to those that keep further copies. Connections are kept per address.
type peers struct {
	key func() []byte // of grants: a worker may read what it is asked for
	log *slog.Logger

	mu      sync.Mutex
	clients map[string]*peerClient // GUARDED_BY(mu)
	closed  bool                   // GUARDED_BY(mu)
}

// peerClient is the way to one worker.
type peerClient struct {
	*blockclient.Client
	users int       // open readers; GUARDED_BY(peers.mu)
	used  time.Time // GUARDED_BY(peers.mu)
	rests time.Time // not asked until then; GUARDED_BY(peers.mu)
}

func newPeers(key func() []byte, log *slog.Logger) *peers {
	return &peers{key: key, log: log, clients: map[string]*peerClient{}}
}

// Open implements readthrough.Peers.
func (p *peers) Open(ctx context.Context, peer readthrough.Peer, req dataplane.ReadRequest) (io.ReadCloser, error) {
	c, err := p.take(peer.Addr)
	if err != nil {
		return nil, err
	}
	req.Grant = grant.Make(p.key(), dataplane.Grant{File: req.ID.File, Version: req.ID.Version, Expiry: time.Now().Add(time.Hour)})
	req.Patience = peerPatience
	if req.Direct {
		req.Patience = homePatience
	}
	s, err := blockclient.NewSequential(ctx, c, req, blockclient.SequentialConfig{})
	if err != nil {
		p.give(c, nil)
		return nil, err
	}
	return &peerReader{Sequential: s, p: p, c: c}, nil
}

// Forward implements writeback.Peers.
func (p *peers) Forward(addr string) (writeback.Forward, func(error), error) {
	c, err := p.take(addr)
	if err != nil {
		return nil, nil, err
	}
	return c.Client, func(err error) { p.give(c, err) }, nil
}

// peerReader watches what comes of a read from a peer.
type peerReader struct {
	*blockclient.Sequential
	p   *peers
	c   *peerClient
	err error
}

func (r *peerReader) Read(b []byte) (int, error) {
	n, err := r.Sequential.Read(b)
	if err != nil {
		r.err = err
	}
	return n, err
}

func (r *peerReader) Close() error {
	if r.c == nil {
		return nil
	}
	err := r.Sequential.Close()
	r.p.give(r.c, r.err)
	r.c = nil
	return err
}

// take returns the way to the worker at addr, in use until give. Unavailable
// while that worker rests.
func (p *peers) take(addr string) (*peerClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, orca.E("daemon.peers", orca.Unavailable, "the worker stops")
	}
	now := time.Now()
	c := p.clients[addr]
	if c == nil {
		p.pruneLocked(now)
		b, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr}}, p.log)
		if err != nil {
			return nil, err
		}
		c = &peerClient{Client: b}
		p.clients[addr] = c
	}
	if now.Before(c.rests) {
		return nil, orca.PathE("daemon.peers", addr, orca.Unavailable, errPeerRests)
	}
	c.users++
	c.used = now
	return c, nil
}

var errPeerRests = errors.New("the worker has just failed")

// give ends a use; err is what went wrong with it.
func (p *peers) give(c *peerClient, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.users--
	if k := orca.KindOf(err); err != nil && (k == orca.Unavailable || k == orca.Timeout) {
		c.rests = time.Now().Add(peerRest)
	}
}

// pruneLocked closes what was not used for long.
func (p *peers) pruneLocked(now time.Time) {
	for addr, c := range p.clients {
		if c.users == 0 && now.Sub(c.used) > peerIdle {
			delete(p.clients, addr)
			if err := c.Client.Close(); err != nil {
				p.log.Debug("close a worker's connection", "addr", addr, "err", err)
			}
		}
	}
}

func (p *peers) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for _, c := range p.clients {
		errs = append(errs, c.Client.Close())
	}
	return errors.Join(errs...)
}
