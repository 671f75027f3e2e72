// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package transport moves frames over TCP and Unix sockets. It is the sole
// owner of netpoll and of bytebufferpool.
//
//	Client.Call ──┐                       ┌─► inline handler (quick operations; may park)
//	              ├─ frames ─► Server ────┤
//	Stream ───────┘  (netpoll poller)     └─► handler goroutine ─► Reply
//	      ◄─ header+meta (write), body (write, or sendfile from Reply.File) ─┘
//
// Server: netpoll's poller fills a connection's input; one goroutine per
// readable connection parses frames and never blocks on a handler: what may
// block is handed to a goroutine of its own, so replies may come out of order.
// Inline operations are answered in the order of their requests, those from a
// file as well: the reply waits in the outbox, and one goroutine per connection
// sends while there is something to send.
// Client multiplexes many calls over a connection. Stream is a connection for
// one user at a time that receives bodies straight into the user's buffer.
//
// Goroutines of a server: netpoll's pollers (of the process, for ever), one
// parser per connection while input is there, one per request handed off (at
// most ServerConfig.MaxHandlers), one flusher per connection whose peer is
// slow or takes files, one sweeper. Of a client: one reader per connection.
//
// Lock order: serverConn.mu, then outbox.mu; outbox.turn (the right to write
// to the socket) is taken with neither held. No lock is held across a system
// call that can block, but for outbox.turn.
//
// Memory is bounded per connection: requests in flight and their bytes have a
// cap (Busy beyond it, closed beyond twice), replies wait in the outbox only
// for requests in flight, and a peer that does not read within WriteTimeout is
// closed. netpoll itself has no receive back-pressure, which is why the parser
// never waits for anything but input.
//
// It refuses: TLS (a listener of its own), frames of another version, and to
// retry: whether a request may be sent again is known to its owner.
package transport

import (
	"context"
	"net"
	"time"

	"orca"
)

// Cred is who is at the other end of a Unix socket (SO_PEERCRED).
type Cred struct {
	PID      int32
	UID, GID uint32
}

// Peer is the other end of a connection.
type Peer struct {
	Addr net.Addr
	Unix bool // over a Unix socket: Cred is valid
	Cred Cred

	conn context.Context //nolint:containedctx // ends with the connection
}

// Lost has f called, on a goroutine of its own, once the connection is lost,
// however long after the request that came on it; stop takes that back.
func (p *Peer) Lost(f func()) (stop func() bool) { return context.AfterFunc(p.conn, f) }

// Caller applies the rule of identity: over a Unix socket uid 0 and the
// server's own uid may claim to be anybody, others are themselves; over TCP
// the claim is believed.
func (p *Peer) Caller(claim orca.Caller, serverUID uint32) orca.Caller {
	if !p.Unix || p.Cred.UID == 0 || p.Cred.UID == serverUID {
		return claim
	}
	if claim.UID == p.Cred.UID && claim.GID == p.Cred.GID {
		return orca.Caller{UID: claim.UID, GID: claim.GID}
	}
	return orca.Caller{UID: p.Cred.UID, GID: p.Cred.GID}
}

// copyBody is the largest body in bytes that is copied next to its header so
// that several replies leave in one write; longer ones are written from where
// they are.
const copyBody = 64 << 10

// ServerConfig bounds a Server. The zero value means the defaults.
type ServerConfig struct {
	// MaxConns is how many connections are open at once; more are closed on
	// arrival. Default 16384.
	MaxConns int
	// MaxInFlight is how many requests of one connection may be in work.
	// Default 1024.
	MaxInFlight int
	// MaxInFlightBytes is how many bytes of requests one connection may have
	// in work. Default 64 MiB.
	MaxInFlightBytes int64
	// MaxBodies is how many replies of one connection may have a place
	// (Request.Place) at once. Default 4.
	MaxBodies int
	// MaxBodiesAll is how many those of all connections are. Default 192.
	MaxBodiesAll int
	// SlowBody is when a connection with places is slow: it waits for its peer to
	// read, and none of its replies with a place has left for this long. Slow ones may have half of MaxBodiesAll; those
	// beyond are closed. Default 1 s.
	SlowBody time.Duration
	// MaxHandlers is how many handler goroutines run in all; requests beyond
	// it are Busy. Default 4096.
	MaxHandlers int
	// ReadTimeout is how long the rest of a frame may take to arrive once it
	// has begun. Default 30 s.
	ReadTimeout time.Duration
	// WriteTimeout is how long one frame may take to leave, on top of the time
	// of its bytes at 1 MiB/s. Default 30 s.
	WriteTimeout time.Duration
	// IdleTimeout closes a connection that had no request for this long and
	// has none in work. Default 15 min.
	IdleTimeout time.Duration
	// Pollers is netpoll's number of pollers; the first Server of the process
	// decides. Default GOMAXPROCS/4+1.
	Pollers int
}

// Validate fills in the defaults: Invalid for a negative value.
func (c *ServerConfig) Validate() error {
	if c.MaxConns < 0 || c.MaxInFlight < 0 || c.MaxInFlightBytes < 0 || c.MaxBodies < 0 || c.MaxBodiesAll < 0 || c.SlowBody < 0 || c.MaxHandlers < 0 ||
		c.ReadTimeout < 0 || c.WriteTimeout < 0 || c.IdleTimeout < 0 || c.Pollers < 0 {
		return orca.E("transport.ServerConfig", orca.Invalid, "a limit is negative")
	}
	setDefault(&c.MaxConns, 16384)
	setDefault(&c.MaxInFlight, 1024)
	setDefault(&c.MaxInFlightBytes, 64<<20)
	setDefault(&c.MaxBodies, 4)
	setDefault(&c.MaxBodiesAll, 192)
	setDefault(&c.SlowBody, time.Second)
	setDefault(&c.MaxHandlers, 4096)
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, 15*time.Minute)
	return nil
}

// ClientConfig says whom a Client or a Stream connects to, and its limits.
type ClientConfig struct {
	Network string // "tcp" (default) or "unix"
	Addr    string // host:port or the path of the socket
	// Conns is how many connections share the calls of a Client. Default 1.
	Conns int
	// MaxInFlight is how many calls are outstanding per connection; more wait.
	// Default 256.
	MaxInFlight int
	// CallTimeout bounds a call whose context has no deadline. Default 60 s.
	CallTimeout time.Duration
	// DialTimeout bounds one attempt to connect. Default 5 s.
	DialTimeout time.Duration
	// WriteTimeout is how long the peer may refuse to take a request before
	// the connection is given up. Default 30 s.
	WriteTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause after a failed attempt to
	// connect, during which calls fail at once with Unavailable. Defaults 20 ms
	// and 2 s.
	BackoffMin, BackoffMax time.Duration
	// RecvBuffer sets SO_RCVBUF of a Stream in bytes; 0 leaves the kernel's
	// auto-tuning.
	RecvBuffer int
}

// Validate fills in the defaults: Invalid for a wrong value.
func (c *ClientConfig) Validate() error {
	const op = "transport.ClientConfig"
	switch c.Network {
	case "":
		c.Network = "tcp"
	case "tcp", "unix":
	default:
		return orca.E(op, orca.Invalid, "network must be tcp or unix, not "+c.Network)
	}
	if c.Addr == "" {
		return orca.E(op, orca.Invalid, "no address")
	}
	if c.Conns < 0 || c.MaxInFlight < 0 || c.CallTimeout < 0 || c.DialTimeout < 0 || c.WriteTimeout < 0 ||
		c.BackoffMin < 0 || c.BackoffMax < 0 || c.RecvBuffer < 0 {
		return orca.E(op, orca.Invalid, "a limit is negative")
	}
	setDefault(&c.Conns, 1)
	setDefault(&c.MaxInFlight, 256)
	setDefault(&c.CallTimeout, 60*time.Second)
	setDefault(&c.DialTimeout, 5*time.Second)
	setDefault(&c.WriteTimeout, 30*time.Second)
	setDefault(&c.BackoffMin, 20*time.Millisecond)
	setDefault(&c.BackoffMax, 2*time.Second)
	return nil
}

func setDefault[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}
