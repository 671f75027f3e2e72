// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metaclient is the namespace from another process, and the exactly
// once that every caller needs, from whatever process.
//
// Flow: Client = Router over a Session per group over a stub. The stub turns each method into one frame
// (metawire) and back; the Session numbers mutations and repeats them with the
// same number until the answer is final. In one process with the service, a
// Session over metaserver.Service does the same without a wire.
//
// Of several members one serves; the others answer some reads (spread.go). A call goes to the one that did last; another
// member's answer is where to go instead, an unavailable one is passed over,
// and one that says nothing for a while is left when the others agree on a new
// leader (members.go). The Session repeats what was not answered.
//
// Goroutines: those of transport.Client, one that asks for the other members
// once, and one per call that waits for long. Locks: Session.mu guards the
// numbers in flight, stub.mu the members; neither is held across a call. It
// refuses nothing by itself; a reply that does not parse is Corrupt.
package metaclient

import (
	"errors"
	"log/slog"
	"sync"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane"
)

// Config says where the metaplane is.
type Config struct {
	// Addrs are host:port, or unix:PATH. At least one; the others are learnt.
	Addrs []string
	// ReadFrom says which members are asked reads that any may answer.
	ReadFrom ReadFrom
	// Session bounds retries and names the caller.
	Session SessionConfig
	// Transport sets limits of connections; Network and Addr are ignored.
	Transport transport.ClientConfig
}

// Client is the namespace over the wire.
type Client struct {
	*Router
	stub *stub
	cfg  Config
	log  *slog.Logger

	mu    sync.Mutex
	stubs []*stub // of other groups; GUARDED_BY(mu)
}

var _ metaplane.Namespace = (*Client)(nil)

// New makes a client; the first call connects.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	const op = "metaclient.New"
	if len(cfg.Addrs) == 0 {
		return nil, orca.E(op, orca.Invalid, "no address of the metaplane")
	}
	s := newStub(cfg.Transport, log)
	if cfg.ReadFrom == AnyMember {
		s.spread = newSpread()
	}
	for _, a := range cfg.Addrs {
		if _, err := s.add(a, 0); err != nil {
			_ = s.close()
			return nil, err
		}
	}
	c := &Client{stub: s, cfg: cfg, log: log}
	c.Router = NewRouter(NewSession(s, cfg.Session), c.openGroup)
	return c, nil
}

// openGroup is the way to another group than the first: the same connections,
// but its own leader.
func (c *Client) openGroup(group uint16) (*Session, error) {
	s := newStub(c.cfg.Transport, c.log)
	s.group, s.whole, s.spread, s.born = uint32(group), c.stub, c.stub.spread, c.stub.born
	for _, p := range c.stub.all() {
		if _, err := s.add(p.addr, p.replica.Load()); err != nil {
			return nil, err
		}
	}
	s.at.Store(c.stub.current())
	c.mu.Lock()
	c.stubs = append(c.stubs, s)
	c.mu.Unlock()
	cfg := c.cfg.Session
	cfg.Group = group
	return NewSession(s, cfg), nil
}

// Addr returns the address that calls go to now.
func (c *Client) Addr() string { return c.stub.current().addr }

// Members returns the addresses of the members that are known by now.
func (c *Client) Members() []string { return c.stub.addrs() }

// At returns one member by its address, as one of a group (0: the first),
// whether it leads that or not, tried once per call: for reports that every
// member wants. It is closed with the client.
func (c *Client) At(addr string, group uint16) (metaplane.Workers, error) {
	return c.session(addr, group)
}

// Member returns what operators ask of one member by its address, as one of a
// group (0: the first), whether it leads that or not. It is closed with the
// client.
func (c *Client) Member(addr string, group uint16) (metaplane.Admin, error) {
	return c.session(addr, group)
}

// session is one with one member alone.
func (c *Client) session(addr string, group uint16) (*Session, error) {
	p, err := c.stub.add(addr, 0)
	if err != nil {
		return nil, err
	}
	cfg := c.cfg.Session
	cfg.Group = group
	return NewSession(&stub{only: p}, cfg), nil
}

// Close closes the connections.
func (c *Client) Close() error {
	c.mu.Lock()
	others := c.stubs
	c.mu.Unlock()
	var errs []error
	for _, s := range others {
		errs = append(errs, s.close())
	}
	return errors.Join(append(errs, c.stub.close())...)
}
