// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"orca"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// Server serves a Namespace to other processes, on any number of addresses.
// Over a Unix socket a caller is who the kernel says; uid 0 and the server's
// own user may speak for others.
type Server struct {
	ns      metaplane.Namespace
	quick   quickReader                            // nil: ns has none
	starter starter                                // nil: ns has none
	lister  lister                                 // nil: ns has none
	gate    gatekeeper                             // nil: ns serves everything always
	others  func(group uint16) metaplane.Namespace // nil: there are none
	methods map[metawire.Op]*metawire.Method
	uid     uint32
	tr      *transport.Server
}

// NewServer makes a server; nothing listens yet.
func NewServer(ns metaplane.Namespace, cfg transport.ServerConfig, log *slog.Logger) (*Server, error) {
	s := &Server{ns: ns, methods: metawire.Methods(), uid: uint32(os.Geteuid())}
	s.quick, _ = ns.(quickReader)
	s.starter, _ = ns.(starter)
	s.lister, _ = ns.(lister)
	if g, ok := ns.(gatekeeper); ok && g.Serves() {
		s.quick, s.gate = nil, g // each read there takes a round
	}
	tr, err := transport.NewServer(cfg, s.serve, s.inline, log)
	if err != nil {
		return nil, err
	}
	s.tr = tr
	return s, nil
}

// ServeGroups has requests for other groups than the first served by what find
// returns; nil: that group does not run here. It is called before Listen.
func (s *Server) ServeGroups(find func(group uint16) metaplane.Namespace) { s.others = find }

// Listen serves "host:port" or "unix:PATH" and returns the address in use.
func (s *Server) Listen(addr string) (net.Addr, error) {
	if p, ok := strings.CutPrefix(addr, "unix:"); ok {
		return s.tr.Listen("unix", p)
	}
	return s.tr.Listen("tcp", addr)
}

// Metrics returns the transport's counters.
func (s *Server) Metrics() *transport.ServerMetrics { return s.tr.Metrics() }

// Shutdown stops serving: requests in work are answered until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.tr.Shutdown(ctx) }

func (s *Server) serve(ctx context.Context, r *transport.Request) transport.Reply {
	m := s.methods[r.Op]
	if m == nil {
		return transport.Fail(&orca.Error{Op: "metaserver.serve", Path: r.Op.String(), Kind: orca.Unsupported, Msg: "no such operation"})
	}
	if r.Inline {
		switch r.Op {
		case metawire.OpStat:
			return s.stat(m, r)
		case metawire.OpCreate:
			if reply, ok := s.create(m, r); ok {
				return reply
			}
		}
	}
	q, err := m.Decode(r.Meta)
	if err != nil {
		return transport.Fail(err)
	}
	if g := q.GetH().GetGroup(); g > 1 {
		return s.serveOther(ctx, m, r, q, g)
	}
	if err := s.admit(r, q); err != nil {
		if unsettled(err) {
			if r.Inline {
				return transport.Reply{Later: true}
			}
			err = settled(ctx, s.gate, r.Op, q)
		}
		if err != nil {
			return transport.Fail(err)
		}
	}
	if r.Inline {
		return s.park(m, r, q)
	}
	if l, ok := q.(*metapb.ListRequest); ok && s.lister != nil {
		return list(ctx, s.lister, s.gate, l)
	}
	return call(ctx, s.ns, s.gate, m, r, q)
}

// listener is optional on the Namespace of a Server: it is told over which
// connection a worker has just reported.
type listener interface {
	heardOver(worker uint64, p *transport.Peer)
}

// call has ns answer a request; g, nil for none, is its gatekeeper.
func call(ctx context.Context, ns metaplane.Namespace, g gatekeeper, m *metawire.Method, r *transport.Request, q metawire.Request) transport.Reply {
	p, err := m.Call(ctx, ns, q)
	if err != nil {
		return refuse(g, err)
	}
	if h, ok := q.(*metapb.HeartbeatRequest); ok {
		if l, ok := ns.(listener); ok {
			l.heardOver(h.Worker.GetId(), r.Peer)
		}
	}
	return encode(m, r, p)
}

// serveOther serves a request for another group than the first.
func (s *Server) serveOther(ctx context.Context, m *metawire.Method, r *transport.Request, q metawire.Request, group uint32) transport.Reply {
	if r.Inline {
		return transport.Reply{Later: true}
	}
	var ns metaplane.Namespace
	if s.others != nil && group <= maxGroups {
		ns = s.others(uint16(group))
	}
	if ns == nil {
		return transport.Fail(orca.E("metaserver.serve", orca.Unavailable, fmt.Sprintf("group %d does not run here", group)))
	}
	s.identify(q.GetH(), r.Peer)
	g, _ := ns.(gatekeeper)
	if g != nil && g.Serves() {
		err := g.Admit(r.Op, q)
		if unsettled(err) {
			err = settled(ctx, g, r.Op, q)
		}
		if err != nil {
			return transport.Fail(err)
		}
	}
	if l, ok := q.(*metapb.ListRequest); ok {
		if ls, ok := ns.(lister); ok {
			return list(ctx, ls, g, l)
		}
	}
	return call(ctx, ns, g, m, r, q)
}

// admit settles who a request comes from, and whether it is served here.
func (s *Server) admit(r *transport.Request, q metawire.Request) error {
	s.identify(q.GetH(), r.Peer)
	if s.gate == nil {
		return nil
	}
	return s.gate.Admit(r.Op, q)
}

// statScratches are the memory of stats that are answered at once.
var statScratches = sync.Pool{New: func() any { return new(metapb.StatScratch) }}

// stat answers a stat that memory can answer at once. What it is about stays
// within the call, so that it costs little memory.
func (s *Server) stat(m *metawire.Method, r *transport.Request) transport.Reply {
	c := statScratches.Get().(*metapb.StatScratch)
	defer statScratches.Put(c)
	q, ok := c.Decode(r.Meta)
	if !ok {
		return transport.Reply{Later: true}
	}
	if err := s.admit(r, q); err != nil {
		return transport.Fail(err)
	}
	if !s.quick.StatQuick(q, &c.Reply) {
		return transport.Reply{Later: true}
	}
	return encode(m, r, &c.Reply)
}

// createScratches are the memory of creates that are begun on the parser.
var createScratches = sync.Pool{New: func() any { return new(metapb.CreateScratch) }}

// create begins a create that is plainly encoded. What is decoded of it stays within
// the call, but for its path, which is the request's.
func (s *Server) create(m *metawire.Method, r *transport.Request) (_ transport.Reply, plain bool) {
	c := createScratches.Get().(*metapb.CreateScratch)
	defer createScratches.Put(c)
	q, ok := c.Decode(r.Meta)
	if !ok {
		return transport.Reply{}, false
	}
	if err := s.admit(r, q); err != nil {
		if unsettled(err) {
			return transport.Reply{Later: true}, true
		}
		return transport.Fail(err), true
	}
	return s.park(m, r, q), true
}

// park begins a mutation, and keeps the request until it is answered.
func (s *Server) park(m *metawire.Method, r *transport.Request, q metawire.Request) transport.Reply {
	p := parkedPool.Get().(*parked)
	*p = parked{m, r, s.gate}
	if s.starter.start(q, r.Deadline(), p) {
		return transport.Reply{Parked: true}
	}
	p.free()
	return transport.Reply{Later: true}
}

// lister is optional on the Namespace of a Server: it answers a List encoded.
type lister interface {
	appendList(ctx context.Context, r *metapb.ListRequest, dst []byte) ([]byte, error)
}

// listBuffers are those of encoded listings.
var listBuffers = sync.Pool{New: func() any { return new([]byte) }}

func list(ctx context.Context, l lister, g gatekeeper, q *metapb.ListRequest) transport.Reply {
	buf := listBuffers.Get().(*[]byte)
	b, err := l.appendList(ctx, q, (*buf)[:0])
	if err == nil && len(b) > frame.MaxMeta {
		err = &orca.Error{Op: "metaserver.List", Kind: orca.TooLarge, Msg: "reply over the limit of a frame"}
	}
	if err != nil {
		listBuffers.Put(buf)
		return refuse(g, err)
	}
	*buf = b
	return transport.Reply{Meta: b, Release: func() { listBuffers.Put(buf) }}
}

// encode makes the reply that carries a message.
func encode(m *metawire.Method, r *transport.Request, p metawire.Message) transport.Reply {
	n := p.SizeVT()
	if n > frame.MaxMeta {
		return transport.Fail(&orca.Error{Op: "metaserver." + m.Name, Kind: orca.TooLarge, Msg: "reply over the limit of a frame"})
	}
	b := r.Scratch(n)[:n]
	if _, err := p.MarshalToSizedBufferVT(b); err != nil {
		return transport.Fail(&orca.Error{Op: "metaserver." + m.Name, Kind: orca.Internal, Err: err})
	}
	return transport.Reply{Meta: b}
}

// identify replaces a claim that the peer may not make.
func (s *Server) identify(h *metapb.Header, p *transport.Peer) {
	if h.Caller != nil && !p.Unix {
		return // believed
	}
	claim := callerOf(h)
	if h.Caller == nil && p.Unix {
		claim = orca.Caller{UID: p.Cred.UID, GID: p.Cred.GID}
	}
	c := p.Caller(claim, s.uid)
	h.Caller = &metapb.Caller{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}
