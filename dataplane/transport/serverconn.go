// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"
	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

// serverConn is one connection of a Server: its parser runs on the goroutine
// that netpoll starts when input arrives.
type serverConn struct {
	srv    *Server
	nc     netpoll.Connection
	peer   Peer
	out    outbox
	ctx    context.Context
	cancel context.CancelFunc

	inFlight atomic.Int64
	bytes    atomic.Int64  // of requests in flight
	places   chan struct{} // one element for each place taken (Request.Place)
	last     atomic.Int64  // unix ns of the last request
	closed   atomic.Bool
	gone     chan struct{} // closed when netpoll has let go of the descriptor
	// held says that what is answered inline stays in the outbox until the
	// parser has no more input, so that many answers share a system call. The
	// parser's alone.
	held bool

	mu    sync.Mutex
	calls map[uint64]context.CancelFunc // requests handed off, by seq
}

// connCtx is how a serverConn travels through netpoll's callbacks.
type connCtx struct {
	context.Context
	c *serverConn
}

// unixSend is the send buffer of a Unix socket, in bytes: a range and more. The
// kernel's own (208 KiB) has sender and receiver wake each other five times for
// it; that of TCP grows by itself to 4 MiB.
const unixSend = 2 << 20

// widen applies unixSend; without the right to, as far as everybody may.
func widen(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, unixSend) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, unixSend)
	}
}

// onPrepare meets a new connection on the poller's goroutine: it must be quick.
func (s *Server) onPrepare(nc netpoll.Connection) context.Context {
	if s.drain.Load() || s.metrics.Conns.Load() >= int64(s.cfg.MaxConns) {
		s.metrics.Refused.Add(1)
		_ = nc.Close()
		return context.Background()
	}
	fd := nc.(netpoll.Conn).Fd()
	// The duplicate stays valid for handlers after netpoll has closed its own.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		s.metrics.Refused.Add(1)
		_ = nc.Close()
		return context.Background()
	}
	c := &serverConn{srv: s, nc: nc, gone: make(chan struct{}), places: make(chan struct{}, s.cfg.MaxBodies), calls: make(map[uint64]context.CancelFunc)}
	c.peer.Addr = nc.RemoteAddr()
	if nc.LocalAddr().Network() == "unix" {
		if u, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			c.peer.Unix, c.peer.Cred = true, Cred{PID: u.Pid, UID: u.Uid, GID: u.Gid}
		}
		widen(fd)
	}
	c.out = outbox{fd: dup, timeout: s.cfg.WriteTimeout, bytes: &s.metrics.BytesOut, sends: &s.metrics.Sends, slowPeer: &s.metrics.SlowPeer}
	c.out.onFail = func() { c.close(errPeerGone) }
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.peer.conn = c.ctx
	c.last.Store(time.Now().UnixNano())
	s.metrics.Conns.Add(1)
	s.metrics.Accepted.Add(1)
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	_ = nc.AddCloseCallback(func(netpoll.Connection) error {
		c.close(errPeerGone)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		close(c.gone)
		return nil
	})
	return connCtx{c.ctx, c}
}

// onDisconnect: the peer hung up. Requests in work need not go on, although
// the parser may still run.
func onDisconnect(ctx context.Context, _ netpoll.Connection) {
	if cc, ok := ctx.(connCtx); ok {
		cc.c.cancel()
	}
}

// close ends the connection from either side; it does not block. The socket is
// only shut down: netpoll's poller meets its end, and closes it. Closed from
// here, its number could be in use again, by another connection or a listener,
// when the poller comes to an event that it has of the old one. A build with the
// race detector finds who an event is for by the number: it would hang up the
// new one, or wait for ever for input of it.
func (c *serverConn) close(err error) {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	c.out.close(err) // first: a request that is cut off has no answer
	c.cancel()
	c.srv.metrics.Conns.Add(-1)
}

// discard drops the input of a closed connection: netpoll calls the parser again
// while there is any.
func (c *serverConn) discard() error {
	in := c.nc.Reader()
	if err := in.Skip(in.Len()); err != nil {
		return err
	}
	return in.Release()
}

// onRequest parses what has arrived. It returns when there is no more input;
// netpoll calls it again when there is.
func (s *Server) onRequest(ctx context.Context, nc netpoll.Connection) error {
	cc, ok := ctx.(connCtx)
	if !ok {
		return nc.Close()
	}
	c := cc.c
	for nc.Reader().Len() > 0 {
		if c.closed.Load() {
			return c.discard()
		}
		if !c.next() {
			c.close(errPeerGone)
			return c.discard()
		}
	}
	c.letGo()
	return nil
}

// letGo sends what is held.
func (c *serverConn) letGo() {
	if c.held {
		c.held = false
		_ = c.out.flush(false) // its error is sticky
	}
}

// next reads one frame and sees to it; false means that the connection is of
// no more use.
func (c *serverConn) next() bool {
	m := &c.srv.metrics
	in := c.nc.Reader()
	if in.Len() < frame.Size {
		c.letGo()
		_ = c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.ReadTimeout))
	}
	head, err := in.Next(frame.Size)
	if err != nil {
		c.countReadError(err)
		return false
	}
	h, err := frame.Decode(head)
	if err != nil {
		m.Garbage.Add(1)
		return false
	}
	if h.Flags != 0 || h.Status != orca.OK {
		m.Violation.Add(1)
		return false
	}
	buf := bytebufferpool.Get()
	if err := c.readRest(buf, h.Len()); err != nil {
		bytebufferpool.Put(buf)
		c.countReadError(err)
		return false
	}
	m.BytesIn.Add(int64(frame.Size + h.Len()))
	return c.dispatch(&h, buf)
}

// readRest copies n bytes of input into buf, giving netpoll's memory back.
func (c *serverConn) readRest(buf *bytebufferpool.ByteBuffer, n int) error {
	in := c.nc.Reader()
	if n == 0 {
		buf.B = buf.B[:0]
		return in.Release()
	}
	if cap(buf.B) < n {
		buf.B = make([]byte, n)
	}
	buf.B = buf.B[:n]
	if in.Len() < n {
		c.letGo()
		_ = c.nc.SetReadDeadline(time.Now().Add(c.srv.cfg.ReadTimeout + time.Duration(n>>20)*time.Second))
	}
	_, err := io.ReadFull(c.nc, buf.B)
	_ = c.nc.SetReadDeadline(time.Time{})
	return err
}

func (c *serverConn) countReadError(err error) {
	if errors.Is(err, netpoll.ErrReadTimeout) {
		c.srv.metrics.SlowRead.Add(1)
	}
}

// dispatch answers, hands off or refuses one request.
func (c *serverConn) dispatch(h *frame.Header, buf *bytebufferpool.ByteBuffer) bool {
	s := c.srv
	switch h.Op {
	case frame.OpCancel:
		bytebufferpool.Put(buf)
		c.cancelCall(h.Seq)
		return true
	case frame.OpPing:
		r := Request{Op: h.Op, conn: c, seq: h.Seq}
		err := r.send(&Reply{Meta: buf.B[:h.Meta]}, frame.FlagReply, false)
		bytebufferpool.Put(buf)
		return err == nil && c.tolerable()
	}
	s.metrics.Requests.Add(1)
	c.last.Store(time.Now().UnixNano())
	r := requests.Get().(*Request)
	*r = Request{
		Op: h.Op, Meta: buf.B[:h.Meta:h.Meta], Body: buf.B[h.Meta:], Peer: &c.peer,
		conn: c, seq: h.Seq, timeout: h.Timeout, buf: buf, scratch: r.scratch,
	}
	if err := c.admit(r); err != nil {
		s.metrics.Busy.Add(1)
		bytebufferpool.Put(buf)
		return r.send(&Reply{Err: err}, frame.FlagReply, false) == nil && c.tolerable()
	}
	if s.inline(h.Op) && c.quick(r) {
		return true
	}
	return c.handOff(r, s.handler)
}

// tolerable reports whether the peer keeps within twice its cap of refused or
// quick requests whose answers it does not read.
func (c *serverConn) tolerable() bool {
	if c.out.queued() <= 2*c.srv.cfg.MaxInFlight {
		return true
	}
	c.srv.metrics.Violation.Add(1)
	return false
}

// admit counts a request in, or says why not.
func (c *serverConn) admit(r *Request) error {
	s := c.srv
	switch {
	case s.drain.Load():
		return errShutdown
	case c.inFlight.Load()+int64(c.out.waiting()) >= int64(s.cfg.MaxInFlight),
		c.bytes.Load() > s.cfg.MaxInFlightBytes:
		return errBusyConn
	case s.metrics.Handlers.Load() >= int64(s.cfg.MaxHandlers):
		return errBusyAll
	}
	c.inFlight.Add(1)
	c.bytes.Add(int64(len(r.buf.B)))
	s.metrics.InFlight.Add(1)
	return nil
}

// leave counts a request out and gives its memory back.
func (c *serverConn) leave(r *Request) {
	c.inFlight.Add(-1)
	c.bytes.Add(-int64(len(r.buf.B)))
	c.srv.metrics.InFlight.Add(-1)
	bytebufferpool.Put(r.buf)
	r.buf, r.Meta, r.Body = nil, nil, nil
}

// handOff calls a handler where it may wait; false, with the request counted
// out, when its seq is in use.
func (c *serverConn) handOff(r *Request, h Handler) bool {
	var ctx context.Context
	if r.timeout > 0 {
		ctx, r.cancel = context.WithTimeout(c.ctx, time.Duration(r.timeout)*time.Millisecond)
	} else {
		ctx, r.cancel = context.WithCancel(c.ctx)
	}
	if !c.addCall(r) {
		r.cancel()
		c.leave(r)
		c.srv.metrics.Violation.Add(1)
		return false
	}
	c.srv.metrics.Handlers.Add(1)
	go c.work(ctx, r, h)
	return true
}

func (c *serverConn) work(ctx context.Context, r *Request, h Handler) {
	defer c.srv.metrics.Handlers.Add(-1)
	c.run(ctx, r, h)
	c.mu.Lock()
	delete(c.calls, r.seq)
	c.mu.Unlock()
	r.cancel()
}

// quick calls the handler on the parser; false when the handler would have to
// wait, and nothing was sent. A parked request may be answered by the time that
// the handler returns: it is not touched any more.
func (c *serverConn) quick(r *Request) bool {
	r.Inline = true
	reply := c.call(c.ctx, r, c.srv.handler)
	if reply.Parked {
		return true
	}
	r.Inline = false
	if reply.Later {
		return false
	}
	held, waits := c.answerHeld(r, &reply)
	c.held = held || c.held
	if !waits {
		r.reuse()
	}
	return true
}

// maxHeld is how many bytes of answers are held at most.
const maxHeld = 256 << 10

// answerHeld is answer of a small inline answer that leaves with others, if
// more input is there; held false: it has been sent, or is on its way.
func (c *serverConn) answerHeld(r *Request, reply *Reply) (held, waits bool) {
	if reply.File != nil || reply.Err != nil || len(reply.Meta)+len(reply.Body) > copyBody || c.nc.Reader().Len() < frame.Size {
		return false, c.answer(r, reply, false)
	}
	h := frame.Header{Flags: frame.FlagReply, Op: r.Op, Seq: r.seq, Meta: uint32(len(reply.Meta)), Body: uint32(len(reply.Body))}
	bytes, frames, err := c.out.add(&h, reply.Meta, reply.Body)
	if reply.Release != nil {
		reply.Release()
	}
	c.leave(r)
	if err != nil {
		c.close(errPeerGone)
		return false, false
	}
	if bytes > maxHeld || frames > c.srv.cfg.MaxInFlight/2 {
		_ = c.out.flush(false)
		return false, false
	}
	return true, false
}

// requests are those that were answered on the parser: nobody has them any more.
var requests = sync.Pool{New: func() any { return new(Request) }}

// reuse gives back a request that nobody has any more.
func (r *Request) reuse() {
	if cap(r.scratch) > maxIdleScratch {
		r.scratch = nil
	}
	requests.Put(r)
}

// maxIdleScratch is how much memory an idle request keeps for a reply, in bytes.
const maxIdleScratch = 16 << 10

// run calls the handler where it may wait, and sends what it returns.
func (c *serverConn) run(ctx context.Context, r *Request, h Handler) {
	r.Inline = false
	reply := c.call(ctx, r, h)
	if reply.Later || reply.Parked {
		reply = Fail(orca.E("transport", orca.Internal, "a handler that may wait put its answer off"))
	}
	c.answer(r, &reply, true)
}

// answer sends the last frame of a reply and counts the request out, at once or,
// as waits says, when what may not block has left: until then it has the request.
func (c *serverConn) answer(r *Request, reply *Reply, mayBlock bool) (waits bool) {
	if !mayBlock && r.sendLater(reply) {
		_ = c.out.flush(false) // its error is sticky
		return true
	}
	err := r.send(reply, frame.FlagReply, mayBlock)
	if err != nil {
		c.unsent(r, err)
	}
	c.leave(r)
	if err != nil {
		c.close(errPeerGone)
	}
	return false
}

// unsent counts a reply that did not leave.
func (c *serverConn) unsent(r *Request, err error) {
	if errors.Is(err, errShortFile) {
		c.srv.metrics.ShortFile.Add(1)
		c.srv.log.Error("a file is shorter than its extent", "op", r.Op.String())
	}
}

func (c *serverConn) call(ctx context.Context, r *Request, h Handler) (reply Reply) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.metrics.Panics.Add(1)
			c.srv.log.Error("handler panicked", "op", r.Op.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			reply = Fail(orca.E("transport", orca.Internal, "handler panicked"))
		}
	}()
	return h(ctx, r)
}

// addCall makes the request cancellable; false when its seq is in use.
func (c *serverConn) addCall(r *Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, dup := c.calls[r.seq]; dup {
		return false
	}
	c.calls[r.seq] = r.cancel
	return true
}

func (c *serverConn) cancelCall(seq uint64) {
	c.mu.Lock()
	cancel := c.calls[seq]
	c.mu.Unlock()
	if cancel != nil {
		c.srv.metrics.Canceled.Add(1)
		cancel()
	}
}
