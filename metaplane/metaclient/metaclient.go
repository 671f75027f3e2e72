// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metaclient is the namespace from another process, and the exactly
// once that every caller needs, from whatever process.
//
// Flow: Client = Session over stub. The stub turns each method into one frame
// (metawire) and back; the Session numbers mutations and repeats them with the
// same number until the answer is final. In one process with the service, a
// Session over metaserver.Service does the same without a wire.
//
// Several addresses may be given: a call goes to the one that answered last,
// and moves on to the next when that is unavailable.
//
// Goroutines: those of transport.Client. Locks: Session.mu guards the numbers
// in flight, stub.mu the connections; neither is held across a call. It
// refuses nothing by itself; a reply that does not parse is Corrupt.
package metaclient

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane"
	"orca/metaplane/metawire"
)

// Config says where the metaplane is.
type Config struct {
	// Addrs are host:port, or unix:PATH. At least one.
	Addrs []string
	// Session bounds retries and names the caller.
	Session SessionConfig
	// Transport sets limits of connections; Network and Addr are ignored.
	Transport transport.ClientConfig
}

// Client is the namespace over the wire.
type Client struct {
	*Session
	stub *stub
}

var _ metaplane.Namespace = (*Client)(nil)

// New makes a client; the first call connects.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	const op = "metaclient.New"
	if len(cfg.Addrs) == 0 {
		return nil, orca.E(op, orca.Invalid, "no address of the metaplane")
	}
	s := &stub{}
	for _, a := range cfg.Addrs {
		t := cfg.Transport
		t.Network, t.Addr = "tcp", a
		if p, ok := strings.CutPrefix(a, "unix:"); ok {
			t.Network, t.Addr = "unix", p
		}
		c, err := transport.NewClient(t, log)
		if err != nil {
			_ = s.close()
			return nil, err
		}
		s.conns = append(s.conns, c)
	}
	return &Client{Session: NewSession(s, cfg.Session), stub: s}, nil
}

// Addr returns the address that calls go to now.
func (c *Client) Addr() string { return c.stub.conns[c.stub.index()].Addr() }

// Close closes the connections.
func (c *Client) Close() error { return c.stub.close() }

// stub makes one attempt per call.
type stub struct {
	conns []*transport.Client
	at    atomic.Uint32

	mu     sync.Mutex
	closed bool
}

var _ metaplane.Namespace = (*stub)(nil)

func (s *stub) index() int { return int(s.at.Load()) % len(s.conns) }

func (s *stub) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var first error
	for _, c := range s.conns {
		if err := c.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// invoke sends one request and decodes its reply into p.
func invoke[P metawire.Message](ctx context.Context, s *stub, op metawire.Op, q metawire.Message, p P) (P, error) {
	var zero P
	b, err := metawire.Marshal(q)
	if err != nil {
		return zero, err
	}
	i := s.index()
	r, err := s.conns[i].Call(ctx, op, b, nil)
	if err != nil {
		if len(s.conns) > 1 && orca.KindOf(err) == orca.Unavailable {
			s.at.CompareAndSwap(uint32(i), uint32(i+1)%uint32(len(s.conns)))
		}
		return zero, err
	}
	defer r.Release()
	if err := p.UnmarshalVT(r.Meta); err != nil {
		return zero, &orca.Error{Op: "metaclient.invoke", Kind: orca.Corrupt, Msg: "undecodable reply", Err: err}
	}
	return p, nil
}
