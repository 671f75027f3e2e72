// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import "sync/atomic"

// ServerMetrics counts what a Server does. Gauges go up and down, the rest
// only up.
type ServerMetrics struct {
	Conns     atomic.Int64 // gauge: open connections
	InFlight  atomic.Int64 // gauge: requests in work
	Handlers  atomic.Int64 // gauge: handler goroutines
	Bodies    atomic.Int64 // gauge: places of replies with bodies in memory (Request.Place)
	Accepted  atomic.Int64
	Refused   atomic.Int64 // connections over MaxConns or while shutting down
	Requests  atomic.Int64
	Errors    atomic.Int64 // replies with a status other than OK
	Busy      atomic.Int64 // requests refused for a cap
	Canceled  atomic.Int64 // cancels that found their request
	Garbage   atomic.Int64 // connections closed for bytes that are no frame
	Violation atomic.Int64 // connections closed for breaking the protocol
	SlowRead  atomic.Int64 // connections closed: a frame did not arrive in time
	SlowPeer  atomic.Int64 // connections closed: the peer did not read in time
	SlowBody  atomic.Int64 // connections closed: they kept too many of those places and did not read
	ShortFile atomic.Int64 // connections closed: a file was shorter than announced
	BytesIn   atomic.Int64 // with headers
	BytesOut  atomic.Int64 // with headers
	BytesFile atomic.Int64 // of BytesOut, those that sendfile moved
	Sends     atomic.Int64 // send(2) calls, sendfile not among them
	Panics    atomic.Int64 // handlers that panicked
}

// ClientMetrics counts what a Client does.
type ClientMetrics struct {
	Conns    atomic.Int64 // gauge
	InFlight atomic.Int64 // gauge
	Calls    atomic.Int64
	Errors   atomic.Int64
	Dials    atomic.Int64
	DialFail atomic.Int64
	Lost     atomic.Int64 // connections lost while in use
	Orphans  atomic.Int64 // replies that came after their caller had left
	BytesIn  atomic.Int64
	BytesOut atomic.Int64
	Sends    atomic.Int64 // send(2) calls
}
