// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package blockclient reads and writes blocks of one worker: of another
// process by Client, of this one by Local; both are a dataplane.Access.
//
//	ReadAt ─┬─ small: transport.Client, multiplexed, one round trip
//	        ├─ large, worker on this host: it says what is present (filling the
//	        │  block if need be), and one pread from the block's file copies it
//	        └─ large: a Stream of the pool; ranges of Config.Range bytes are
//	           pulled, Config.Depth outstanding, into the caller's buffer,
//	           each grain checked as it arrives, 256 KiB behind the socket
//	        ├─ large, of a reader that goes on (ReadRequest.Ahead): its lane, a
//	        │  Stream on which the ranges behind are outstanding between reads
//	WriteAt, Seal, … ─ transport.Client, long data over a Stream, pipelined
//	Descriptor, WriteFile ─ shortcircuit, when Config.Descriptors names its socket
//
// Reads that take no descriptor go over the worker's Unix socket when
// Config.Domain names it, and over Transport when that cannot be had (domain.go).
// Writes go over Transport.
//
// A read starts no goroutine: the caller's receives and verifies. Sequential
// prefetches with a few goroutines. Locks: the pool's mutex, and the mutex of
// the table of write handles; neither is held across I/O.
//
// It refuses to hide a failed worker: Unavailable is for the caller, who knows
// other workers. Only a stream that the server had closed while it lay in the
// pool is replaced in silence.
package blockclient

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/shortcircuit"
	"orca/dataplane/transport"
)

// Config says which worker, and bounds what is used of it.
type Config struct {
	// Transport is the worker's address, and the limits of a connection.
	Transport transport.ClientConfig
	// Descriptors is the path of the worker's descriptor socket, for a worker
	// on the same host; "" when descriptors cannot be had.
	Descriptors string
	// Domain is the path of the Unix socket on which the worker serves the same
	// protocol as at Transport's address; "" when it cannot be seen from here.
	Domain string
	// OnDomain is told of each read over that socket, and how many bytes it
	// brought. It must not block. Nil: nobody.
	OnDomain func(n int)
	// Range is how many bytes one bulk request asks for; a multiple of the
	// grain, at most frame.MaxBody. Default 1 MiB.
	Range int
	// Depth is how many ranges of one read are outstanding. Default: 2, to hide
	// the round trip; 1 when the worker is on this host, where there is none
	// and sender and receiver would only fight for the socket.
	Depth int
	// WriteDepth is how many pieces of one write are outstanding. Default 4.
	WriteDepth int
	// SmallRead is the longest read, in bytes, that shares a connection with
	// others instead of taking a stream. Default 64 KiB.
	SmallRead int
	// MaxStreams is how many bulk connections are open; more readers wait.
	// Default 16.
	MaxStreams int
	// IdleTimeout closes a bulk connection that nobody used for this long.
	// Default 60 s.
	IdleTimeout time.Duration
	// StallTimeout ends a read or write that gets no further for this long.
	// Default 30 s.
	StallTimeout time.Duration
	// KnownFor is how long the word of a worker on this host, that a range is
	// present, is good for: a block that was evicted meanwhile is still read
	// from its file. Default 100 ms.
	KnownFor time.Duration
	// NoVerify leaves the checksums of what is read unchecked. Default off.
	NoVerify bool
}

// Validate fills in the defaults: Invalid for a wrong value.
func (c *Config) Validate() error {
	const op = "blockclient.Config"
	if err := c.Transport.Validate(); err != nil {
		return err
	}
	if c.Range < 0 || c.Range%orca.GrainSize != 0 || c.Range > frame.MaxBody {
		return orca.E(op, orca.Invalid, "range must be a multiple of the grain and fit a frame")
	}
	if c.Depth < 0 || c.WriteDepth < 0 || c.SmallRead < 0 || c.SmallRead > 1<<20 || c.MaxStreams < 0 || c.IdleTimeout < 0 || c.StallTimeout < 0 || c.KnownFor < 0 {
		return orca.E(op, orca.Invalid, "a limit is negative or too large")
	}
	setDefault(&c.Range, 1<<20)
	setDefault(&c.WriteDepth, 4)
	setDefault(&c.SmallRead, 64<<10)
	setDefault(&c.MaxStreams, 16)
	setDefault(&c.IdleTimeout, time.Minute)
	setDefault(&c.StallTimeout, 30*time.Second)
	setDefault(&c.KnownFor, 100*time.Millisecond)
	return nil
}

func setDefault[T ~int | ~int64](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Metrics counts what a Client does.
type Metrics struct {
	Reads     atomic.Int64
	Small     atomic.Int64 // of Reads, those over the shared connection
	ReadBytes atomic.Int64 // delivered to callers
	// Ahead are the reads whose first bytes had been asked for before.
	Ahead atomic.Int64
	// Overtook counts frames that came before their turn, and were copied.
	Overtook atomic.Int64
	// InPlaceBytes were read from the file of a block on this host.
	InPlaceBytes atomic.Int64
	// DomainReads and DomainBytes went over the worker's Unix socket;
	// DomainRefused counts the reads that it, or the worker there, turned away,
	// and that went over the network instead.
	DomainReads, DomainBytes, DomainRefused atomic.Int64
	Presents                                atomic.Int64 // questions which range is present there
	Verified                                atomic.Int64 // grains whose checksum held
	Corrupt                                 atomic.Int64 // grains whose checksum did not
	Writes                                  atomic.Int64
	Streams                                 atomic.Int64 // gauge: open bulk connections
	Redials                                 atomic.Int64 // streams found closed in the pool
}

// Client is the stub of one worker. It is safe for concurrent use.
type Client struct {
	cfg     Config
	far     way
	near    domain
	local   *shortcircuit.Client // nil without Config.Descriptors
	shared  shared
	metrics Metrics

	mu      sync.Mutex
	handles map[uint64]*datapb.Grant // of write handles made here
}

var _ dataplane.Access = (*Client)(nil)

// New makes a client; connections are made when needed. Invalid when cfg is
// wrong.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, handles: make(map[uint64]*datapb.Grant)}
	c.shared.knownFor = cfg.KnownFor
	var err error
	if c.far, err = c.newWay(cfg.Transport, log); err != nil {
		return nil, err
	}
	if cfg.Domain != "" {
		t := cfg.Transport
		t.Network, t.Addr = "unix", cfg.Domain
		if c.near.way, err = c.newWay(t, log); err != nil {
			_ = c.far.close()
			return nil, err
		}
	}
	if cfg.Descriptors != "" {
		if c.local, err = shortcircuit.NewClient(shortcircuit.ClientConfig{Path: cfg.Descriptors}, log); err != nil {
			_ = c.far.close()
			_ = c.near.close()
			return nil, err
		}
	}
	return c, nil
}

// Metrics returns the counters of the client.
func (c *Client) Metrics() *Metrics { return &c.metrics }

// Transport returns the counters of the shared connections over the network.
func (c *Client) Transport() *transport.ClientMetrics { return c.far.small.Metrics() }

// ShortCircuit returns the client of the descriptor socket, with its cache of
// descriptors; nil when there is none.
func (c *Client) ShortCircuit() *shortcircuit.Client { return c.local }

// Ping makes a round trip.
func (c *Client) Ping(ctx context.Context) error { return c.far.small.Ping(ctx) }

// Close closes all connections. Reads under way fail with Unavailable.
func (c *Client) Close() error {
	c.shared.close()
	err := errors.Join(c.far.close(), c.near.close())
	if c.local != nil {
		if e := c.local.Close(); err == nil {
			err = e
		}
	}
	return err
}

// BlockInfo implements dataplane.Informer; g is a grant to read the file.
func (c *Client) BlockInfo(ctx context.Context, id orca.BlockID, g dataplane.Grant) (dataplane.BlockInfo, error) {
	q := datapb.StatBlockRequest{Block: datapb.FromBlock(id), Grant: datapb.FromGrant(&g)}
	var a datapb.StatBlockReply
	if err := c.call(ctx, frame.OpStatBlock, &q, &a); err != nil {
		return dataplane.BlockInfo{}, err
	}
	return dataplane.BlockInfo{Length: a.Length, Cached: a.Cached, Complete: a.Complete, Tier: orca.Tier(a.Tier)}, nil
}

// Descriptor implements dataplane.Access over the descriptor socket:
// Unsupported without one. Callers that read the same block again should use
// ShortCircuit, which keeps descriptors.
func (c *Client) Descriptor(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	if c.local == nil {
		return nil, 0, 0, errRemote
	}
	return c.local.Fetch(ctx, id, g)
}

var errRemote = orca.E("blockclient", orca.Unsupported, "worker passes no descriptors to this client")

// message is what vtprotobuf generates for every message.
type message interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

// call makes a round trip of two messages on the shared connection; a may be
// nil.
func (c *Client) call(ctx context.Context, op frame.Op, q, a message) error {
	meta, err := q.MarshalVT()
	if err != nil {
		return orca.PathE("blockclient", op.String(), orca.Internal, err)
	}
	r, err := c.far.small.Call(ctx, op, meta, nil)
	if err != nil {
		return err
	}
	defer r.Release()
	if a == nil {
		return nil
	}
	if err := a.UnmarshalVT(r.Meta); err != nil {
		return orca.PathE("blockclient", op.String(), orca.Internal, err)
	}
	return nil
}
