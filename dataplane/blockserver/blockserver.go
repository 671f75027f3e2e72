// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package blockserver serves dataplane.Blocks to other hosts and processes.
//
//	blockclient ─ frames ─► transport.Server ─► Server.handle ─► Blocks
//	            ◄─ header + grain sums, then sendfile from the extent's file ─┘
//
// It decodes, checks the grant, calls Blocks, and answers. Data of a read
// never enters user space here, but for an extent without checksums, whose
// sums are computed. It starts no goroutines of its own: each request runs on
// a goroutine of transport, and there are no locks.
//
// It refuses requests without a valid grant, ranges longer than a frame, and
// to keep any state: what a write handle means is known to Blocks, whose it is
// to grant.Checker.
package blockserver

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
	"orca/dataplane/timing"
	"orca/dataplane/transport"
)

// Config bounds a Server.
type Config struct {
	// Transport bounds connections and requests in flight.
	Transport transport.ServerConfig
	// Linger is how long a reader in place waits for more than the first 1 MiB
	// that it asks for. Default 5 ms.
	Linger time.Duration
}

// Validate fills in the defaults.
func (c *Config) Validate() error {
	if c.Linger < 0 {
		return orca.E("blockserver.Config", orca.Invalid, "linger is negative")
	}
	if c.Linger == 0 {
		c.Linger = 5 * time.Millisecond
	}
	return c.Transport.Validate()
}

// Metrics counts what a Server serves.
type Metrics struct {
	Reads     atomic.Int64
	ReadBytes atomic.Int64
	// DomainBytes are those of ReadBytes that went to readers on this host over a
	// Unix socket.
	DomainBytes atomic.Int64
	Presents    atomic.Int64 // ranges made present for readers in place
	Extents     atomic.Int64 // pieces that reads were answered in
	Grains      atomic.Int64 // read as a whole for exact reads
	Summed      atomic.Int64 // extents that came without checksums
	Writes      atomic.Int64
	WriteBytes  atomic.Int64
	Seals       atomic.Int64
	Denied      atomic.Int64 // requests without a valid grant

	// From the arrival of a request to its answer, which the connection may
	// still have to send.
	ReadTime, PresentTime, WriteTime, SealTime timing.Histogram
}

// Server answers the block operations of package frame.
type Server struct {
	blocks  dataplane.Blocks
	holder  dataplane.Holder // of blocks, if it is one
	maker   dataplane.Maker  // of blocks, if it is one
	grants  *grant.Checker
	tr      *transport.Server
	linger  time.Duration
	metrics Metrics
	pages   pageSums
}

// New makes a server of blocks; Listen makes it serve. Every request is
// checked by grants.
func New(cfg Config, blocks dataplane.Blocks, grants *grant.Checker, log *slog.Logger) (*Server, error) {
	if blocks == nil || grants == nil {
		return nil, orca.E("blockserver.New", orca.Invalid, "no blocks or no checker of grants")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{blocks: blocks, grants: grants, linger: cfg.Linger}
	s.holder, _ = blocks.(dataplane.Holder)
	s.maker, _ = blocks.(dataplane.Maker)
	tr, err := transport.NewServer(cfg.Transport, s.handle, s.prompt, log)
	if err != nil {
		return nil, err
	}
	s.tr = tr
	return s, nil
}

// Listen serves on "tcp" host:port or on a "unix" socket as well, and returns
// the address in use.
func (s *Server) Listen(network, addr string) (net.Addr, error) { return s.tr.Listen(network, addr) }

// Metrics returns the counters of the block operations.
func (s *Server) Metrics() *Metrics { return &s.metrics }

// Transport returns the counters of the connections.
func (s *Server) Transport() *transport.ServerMetrics { return s.tr.Metrics() }

// Shutdown waits for requests in work until ctx ends, then closes everything.
func (s *Server) Shutdown(ctx context.Context) error { return s.tr.Shutdown(ctx) }

// prompt says which operations are tried on the parser first, so that hits
// cost no goroutine and leave in the order in which they were asked for.
func (s *Server) prompt(op frame.Op) bool { return op == frame.OpRead && s.holder != nil }

func (s *Server) handle(ctx context.Context, r *transport.Request) transport.Reply {
	if h := s.timed(r.Op); h != nil {
		defer func(begin time.Time) { h.Observe(time.Since(begin)) }(time.Now())
	}
	switch r.Op {
	case frame.OpRead:
		return s.read(ctx, r)
	case frame.OpPresent:
		return s.present(ctx, r)
	case frame.OpWriteAt, frame.OpTruncate, frame.OpSync, frame.OpAbort:
		return s.onHandle(ctx, r)
	case frame.OpCreateWrite:
		return s.createWrite(ctx, r)
	case frame.OpSeal:
		return s.seal(ctx, r)
	case frame.OpStatBlock:
		return s.statBlock(ctx, r)
	}
	return transport.Fail(orca.E("blockserver", orca.Unsupported, "unknown operation "+r.Op.String()))
}

// timed returns where the time of an operation is counted; nil: nowhere.
func (s *Server) timed(op frame.Op) *timing.Histogram {
	switch op {
	case frame.OpRead:
		return &s.metrics.ReadTime
	case frame.OpPresent:
		return &s.metrics.PresentTime
	case frame.OpWriteAt:
		return &s.metrics.WriteTime
	case frame.OpSeal:
		return &s.metrics.SealTime
	}
	return nil
}

func peer(r *transport.Request) grant.Peer {
	return grant.Peer{Unix: r.Peer.Unix, UID: r.Peer.Cred.UID}
}

// malformed is the answer to a meta that does not parse.
func malformed(r *transport.Request, err error) transport.Reply {
	return transport.Fail(orca.PathE("blockserver", r.Op.String(), orca.Invalid, err))
}

func (s *Server) denied(err error) transport.Reply {
	s.metrics.Denied.Add(1)
	return transport.Fail(err)
}

func (s *Server) createWrite(ctx context.Context, r *transport.Request) transport.Reply {
	var q datapb.CreateWriteRequest
	if err := q.UnmarshalVT(r.Meta); err != nil {
		return malformed(r, err)
	}
	t := q.Target.ToTarget()
	if err := s.grants.Write(&t, peer(r)); err != nil {
		return s.denied(err)
	}
	var id uint64
	var links []dataplane.Link
	var err error
	if c, ok := s.blocks.(dataplane.Chains); ok && len(t.Chain) > 0 {
		id, links, err = c.CreateChain(ctx, t)
	} else {
		id, err = s.blocks.CreateWrite(ctx, t)
	}
	if err != nil {
		return transport.Fail(err)
	}
	s.grants.Opened(id, &t)
	return answer(r, &datapb.CreateWriteReply{Id: id, Links: datapb.FromLinks(links)})
}

// onHandle serves what names a write handle only.
func (s *Server) onHandle(ctx context.Context, r *transport.Request) transport.Reply {
	var q datapb.HandleRequest
	if err := q.UnmarshalVT(r.Meta); err != nil {
		return malformed(r, err)
	}
	g := q.Grant.ToGrant()
	if err := s.grants.Handle(q.Id, &g, peer(r)); err != nil {
		return s.denied(err)
	}
	if q.Off < 0 {
		return transport.Fail(orca.E("blockserver", orca.Invalid, "negative offset or length"))
	}
	var err error
	switch r.Op {
	case frame.OpWriteAt:
		s.metrics.Writes.Add(1)
		s.metrics.WriteBytes.Add(int64(len(r.Body)))
		if q.Chained {
			return s.chained(ctx, r, &q)
		}
		err = s.blocks.WriteAt(ctx, q.Id, r.Body, q.Off)
	case frame.OpTruncate:
		err = s.blocks.Truncate(ctx, q.Id, q.Off)
	case frame.OpSync:
		err = s.blocks.Sync(ctx, q.Id)
	case frame.OpAbort:
		if err = s.blocks.Abort(ctx, q.Id); err == nil {
			s.grants.Closed(q.Id)
		}
	}
	return transport.Reply{Err: err}
}

// chained serves the WRITE_AT of a chain.
func (s *Server) chained(ctx context.Context, r *transport.Request, q *datapb.HandleRequest) transport.Reply {
	c, ok := s.blocks.(dataplane.Chains)
	if !ok {
		return transport.Fail(orca.E("blockserver", orca.Unsupported, "this worker takes no part in chains"))
	}
	var sums []uint32
	if len(q.Sums) > 0 {
		if len(q.Sums) != 4*((len(r.Body)+orca.GrainSize-1)/orca.GrainSize) {
			return transport.Fail(orca.E("blockserver", orca.Invalid, "the checksums do not belong to the data"))
		}
		sums = make([]uint32, len(q.Sums)/4)
		for i := range sums {
			sums[i] = binary.BigEndian.Uint32(q.Sums[4*i:])
		}
	}
	copies, err := c.WriteChain(ctx, q.Id, r.Body, q.Off, sums)
	if err != nil {
		return transport.Fail(err)
	}
	return answer(r, &datapb.HandleReply{Copies: uint32(copies)})
}

func (s *Server) seal(ctx context.Context, r *transport.Request) transport.Reply {
	var q datapb.SealRequest
	if err := q.UnmarshalVT(r.Meta); err != nil {
		return malformed(r, err)
	}
	t := q.Target.ToTarget()
	if err := s.grants.Write(&t, peer(r)); err != nil {
		return s.denied(err)
	}
	// The handle may have been made for an earlier version of the same file
	// (keep): the grant that is checked is the target's.
	if err := s.grants.Reseal(q.Id, &t); err != nil {
		return s.denied(err)
	}
	res, err := s.blocks.Seal(ctx, q.Id, t, q.Keep)
	if err != nil {
		return transport.Fail(err)
	}
	s.metrics.Seals.Add(1)
	if !q.Keep {
		s.grants.Closed(q.Id)
	}
	return answer(r, datapb.FromSeal(&res))
}

func (s *Server) statBlock(ctx context.Context, r *transport.Request) transport.Reply {
	var q datapb.StatBlockRequest
	if err := q.UnmarshalVT(r.Meta); err != nil {
		return malformed(r, err)
	}
	id, g := q.Block.ToBlock(), q.Grant.ToGrant()
	if err := s.grants.Read(&g, id, peer(r)); err != nil {
		return s.denied(err)
	}
	in, ok := s.blocks.(dataplane.Informer)
	if !ok {
		return transport.Fail(orca.E("blockserver", orca.Unsupported, "this worker does not describe blocks"))
	}
	b, err := in.BlockInfo(ctx, id)
	if err != nil {
		return transport.Fail(err)
	}
	return answer(r, &datapb.StatBlockReply{Length: b.Length, Cached: b.Cached, Complete: b.Complete, Tier: uint32(b.Tier)})
}

// message is what vtprotobuf generates for every message.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// answer encodes a reply into the request's own buffer.
func answer(r *transport.Request, m message) transport.Reply {
	n := m.SizeVT()
	b := r.Scratch(n)[:n]
	if _, err := m.MarshalToSizedBufferVT(b); err != nil {
		return transport.Fail(orca.PathE("blockserver", r.Op.String(), orca.Internal, err))
	}
	return transport.Reply{Meta: b}
}
