// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

// clientConn is one connection of a Client, with its reader.
type clientConn struct {
	c      *Client
	nc     net.Conn
	out    outbox
	window chan struct{} // one element per call in flight
	gone   chan struct{} // closed when the connection is lost
	dead   atomic.Bool
	waking atomic.Int32 // callers whose call has ended and who have not run since

	mu    sync.Mutex
	seq   uint64
	calls map[uint64]*call
	err   error
}

// call is one outstanding request.
type call struct {
	done  chan struct{} // receives one element when the fields below are set
	timer *time.Timer   // the caller's
	parts int           // frames so far
	resp  Response
	err   error
}

var callPool = sync.Pool{New: func() any {
	return &call{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
}}

// recycle gives a call back that nobody can end any more.
func (cl *call) recycle() {
	cl.timer.Stop()
	*cl = call{done: cl.done, timer: cl.timer}
	callPool.Put(cl)
}

func newClientConn(c *Client, nc net.Conn) (*clientConn, error) {
	fd, err := dupFD(nc)
	if err != nil {
		return nil, err
	}
	cc := &clientConn{
		c: c, nc: nc,
		window: make(chan struct{}, c.cfg.MaxInFlight),
		gone:   make(chan struct{}),
		calls:  make(map[uint64]*call),
	}
	cc.out = outbox{fd: fd, timeout: c.cfg.WriteTimeout, bytes: &c.metrics.BytesOut, sends: &c.metrics.Sends}
	cc.out.onFail = func() { cc.close(errPeerGone) }
	return cc, nil
}

// dupFD duplicates the (non-blocking) socket of nc for an outbox.
func dupFD(nc net.Conn) (int, error) {
	rc, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, orca.PathE("transport.Dial", "", orca.Internal, err)
	}
	dup, derr := -1, error(nil)
	err = rc.Control(func(fd uintptr) { dup, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err == nil {
		err = derr
	}
	if err != nil {
		return -1, orca.PathE("transport.Dial", "", orca.Unavailable, err)
	}
	return dup, nil
}

// roundTrip sends a request and waits until cl, ctx or the timer of cl ends;
// then cl is the caller's alone.
func (cc *clientConn) roundTrip(ctx context.Context, d time.Duration, cl *call, op frame.Op, meta, body []byte) (Response, error) {
	cc.mu.Lock()
	if cc.err != nil {
		cc.mu.Unlock()
		return Response{}, cc.lost()
	}
	cc.seq++
	seq := cc.seq
	cc.calls[seq] = cl
	cc.mu.Unlock()

	h := frame.Header{Op: op, Seq: seq, Meta: uint32(len(meta)), Body: uint32(len(body)), Timeout: timeoutMillis(d)}
	cc.send(&h, meta, body)

	var err error
	select {
	case <-cl.done:
		return cc.woken(cl)
	case <-ctx.Done():
		err = ctxError(ctx)
	case <-cl.timer.C:
		err = errLate
	}
	if cc.take(seq) == nil {
		<-cl.done // the reply came at the same moment
		return cc.woken(cl)
	}
	cl.resp.Release()
	cancel := frame.Header{Op: frame.OpCancel, Seq: seq}
	_ = cc.out.send(&cancel, nil, nil, false)
	return Response{}, err
}

// send sends a request; an error closes the connection, which ends the call. Only
// long bodies wait for the socket here: the others do not, so that ctx counts.
//
// Replies that came together wake their callers together, and each is likely to
// ask again. Who comes first lets the others run: the requests of all leave in
// one system call, which wakes the server once, whose answers come together.
func (cc *clientConn) send(h *frame.Header, meta, body []byte) {
	if len(meta)+len(body) > copyBody {
		_ = cc.out.send(h, meta, body, true)
		return
	}
	if _, _, err := cc.out.add(h, meta, body); err != nil {
		return
	}
	if cc.waking.Load() > 0 {
		runtime.Gosched()
		if cc.out.queued() == 0 {
			return
		}
	}
	_ = cc.out.flush(false) // its error is sticky
}

// end wakes the caller of a call that has been removed.
func (cc *clientConn) end(cl *call) {
	cc.waking.Add(1)
	cl.done <- struct{}{}
}

// woken returns what a call brought to its caller, which runs again.
func (cc *clientConn) woken(cl *call) (Response, error) {
	cc.waking.Add(-1)
	return cl.resp, cl.err
}

// take removes a call; whoever gets it ends it.
func (cc *clientConn) take(seq uint64) *call {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	cl := cc.calls[seq]
	delete(cc.calls, seq)
	return cl
}

// readLoop delivers replies until the connection is lost.
func (cc *clientConn) readLoop() {
	defer cc.c.wg.Done()
	br := bufio.NewReaderSize(cc.nc, 64<<10)
	var err error
	for err == nil {
		err = cc.readFrame(br)
	}
	// Whatever it was, garbage included, it says nothing of the calls.
	cc.close(orca.PathE("transport.Call", cc.c.cfg.Addr, orca.Unavailable, err))
	cc.c.metrics.Conns.Add(-1)
}

func (cc *clientConn) readFrame(br *bufio.Reader) error {
	head, err := br.Peek(frame.Size)
	if err != nil {
		return err
	}
	h, err := frame.Decode(head)
	if err != nil {
		return err
	}
	_, _ = br.Discard(frame.Size)
	if h.Flags&frame.FlagReply == 0 {
		return orca.E("transport.Call", orca.Corrupt, "server sent a request")
	}
	cc.c.metrics.BytesIn.Add(int64(frame.Size + h.Len()))
	buf := bytebufferpool.Get()
	if cap(buf.B) < h.Len() {
		buf.B = make([]byte, h.Len())
	}
	buf.B = buf.B[:h.Len()]
	if _, err := io.ReadFull(br, buf.B); err != nil {
		bytebufferpool.Put(buf)
		return err
	}
	return cc.deliver(&h, buf)
}

// deliver gives one frame of a reply to its call.
func (cc *clientConn) deliver(h *frame.Header, buf *bytebufferpool.ByteBuffer) error {
	resp := Response{Meta: buf.B[:h.Meta:h.Meta], Body: buf.B[h.Meta:], buf: buf}
	last := h.Flags&frame.FlagMore == 0
	cc.mu.Lock()
	cl := cc.calls[h.Seq]
	if cl == nil {
		cc.mu.Unlock()
		cc.c.metrics.Orphans.Add(1)
		resp.Release()
		return nil
	}
	// Under the lock, so that a caller that leaves finds all or nothing.
	err := cl.add(resp, h.Status)
	if last || err != nil || h.Status != orca.OK {
		delete(cc.calls, h.Seq)
		cc.end(cl)
	}
	cc.mu.Unlock()
	return err
}

// add appends a frame to the reply. The bodies and metas of several frames are
// joined; together they keep the limits of one.
func (cl *call) add(resp Response, status orca.Kind) error {
	cl.parts++
	if status != orca.OK {
		cl.err = frame.DecodeError(status, resp.Meta)
		resp.Release()
		cl.resp.Release()
		return nil
	}
	if cl.parts == 1 {
		cl.resp = resp
		return nil
	}
	if len(cl.resp.Meta)+len(resp.Meta) > frame.MaxMeta || len(cl.resp.Body)+len(resp.Body) > frame.MaxBody {
		cl.err = orca.E("transport.Call", orca.TooLarge, "reply over the limits of a call")
		resp.Release()
		cl.resp.Release()
		return cl.err
	}
	joined := Response{
		Meta: append(append([]byte(nil), cl.resp.Meta...), resp.Meta...),
		Body: append(append([]byte(nil), cl.resp.Body...), resp.Body...),
	}
	resp.Release()
	cl.resp.Release()
	cl.resp = joined
	return nil
}

// lost is the error of a call on a connection that is gone.
func (cc *clientConn) lost() error {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	return cc.err
}

// close ends the connection and every call on it. It does not block.
func (cc *clientConn) close(err error) {
	cc.mu.Lock()
	if cc.err != nil {
		cc.mu.Unlock()
		return
	}
	cc.err = err
	cc.dead.Store(true)
	calls := cc.calls
	cc.calls = make(map[uint64]*call)
	if len(calls) > 0 {
		cc.c.metrics.Lost.Add(1)
	}
	for _, cl := range calls {
		cl.resp.Release()
		cl.err = err
		cc.end(cl)
	}
	cc.mu.Unlock()
	close(cc.gone)
	cc.out.close(err)
	_ = cc.nc.Close()
}
