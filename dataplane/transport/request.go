// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"os"
	"time"

	"github.com/valyala/bytebufferpool"

	"orca"
	"orca/dataplane/frame"
)

// Handler serves requests. It may be called for many requests of one
// connection at once. ctx ends when the caller cancels, its deadline passes,
// or its connection is lost. The Request and what it holds must not be used
// after the return.
type Handler func(ctx context.Context, r *Request) Reply

// Request is one request in work.
type Request struct {
	Op   frame.Op
	Meta []byte // valid until the handler returns
	Body []byte // valid until the handler returns
	Peer *Peer
	// Inline says that the handler runs on the connection's parser and must
	// not wait: it answers, or says Reply.Later.
	Inline bool

	conn    *serverConn
	seq     uint64
	timeout uint32
	cancel  context.CancelFunc
	buf     *bytebufferpool.ByteBuffer // holds Meta and Body
	scratch []byte
	release func() // of a reply that waits in the outbox
}

// Reply is the answer to a request. The zero value says OK and nothing else.
type Reply struct {
	// Err, when not nil, is all that is sent: its Kind and its texts.
	Err error
	// Meta must stay as it is until Release is called; it may be
	// Request.Scratch.
	Meta []byte
	// Body is sent from memory when File is nil.
	Body []byte
	// File sends N bytes from Off by sendfile instead. The file must have
	// them: the connection of a shorter one is closed.
	File *os.File
	Off  int64
	N    int64
	// Release, when not nil, is called once, when the reply has left or
	// cannot.
	Release func()
	// Later says, of an inline operation, that answering would have to wait:
	// nothing is sent, and the handler is called again where it may.
	Later bool
	// Parked says, of an inline operation, that the handler has kept the
	// Request: it and what it holds stay valid until Request.Answer or
	// Request.Resume, one of which must be called once, whenever, from whatever
	// goroutine, even before the handler returns. Meanwhile it counts as a
	// request in work.
	Parked bool
}

// Fail makes the reply that says err.
func Fail(err error) Reply { return Reply{Err: err} }

// Scratch returns an empty buffer of at least n bytes capacity for Reply.Meta,
// valid until the reply has left. A second call invalidates the first.
func (r *Request) Scratch(n int) []byte {
	if cap(r.scratch) < n {
		r.scratch = make([]byte, 0, n)
	}
	return r.scratch[:0]
}

// Send sends one frame of the reply and says that more follow; the last is
// what the handler returns. An error means that the connection is lost: the
// handler stops. Send must not be used by inline operations.
func (r *Request) Send(p Reply) error {
	return r.send(&p, frame.FlagReply|frame.FlagMore, true)
}

// Place takes one of the ServerConfig.MaxBodies places that the connection has
// for replies whose bodies are in memory that others wait for, too: a peer that
// asks for much and reads nothing has no more than those. All connections
// together have MaxBodiesAll, which slow ones cannot use up. Unless now is set it
// waits for one; Canceled when ctx ends before, Busy when there is none now.
// Leave gives it back, at the latest when the reply has left.
func (r *Request) Place(ctx context.Context, now bool) error {
	c := r.conn
	if now {
		select {
		case c.places <- struct{}{}:
		default:
			return errNoPlace
		}
	} else {
		select {
		case c.places <- struct{}{}:
		case <-ctx.Done():
			return orca.PathE("transport.Place", r.Op.String(), orca.Canceled, ctx.Err())
		}
	}
	err := c.srv.bodies.take(ctx, c, now)
	if err != nil {
		<-c.places
	}
	return err
}

// errNoPlace is made once: it is no failure.
var errNoPlace error = orca.E("transport.Place", orca.Busy, "the replies of this connection do not leave")

// Leave returns what gives a place back. It may be called after the handler has
// returned.
func (r *Request) Leave() func() {
	c := r.conn
	return func() {
		c.srv.bodies.leave(c)
		<-c.places
	}
}

// Deadline is when the caller's time will be over, for a request that has just
// come; zero if it has not said.
func (r *Request) Deadline() time.Time {
	if r.timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(r.timeout) * time.Millisecond)
}

// Answer sends the one and last frame of a parked request, which must not be used
// any more. It does not block: what the socket does not take at once leaves later.
func (r *Request) Answer(p Reply) {
	if !r.conn.answer(r, &p, false) {
		r.reuse()
	}
}

// Resume hands a parked request to h on a goroutine of its own, where it may
// wait, as if it had never been parked.
func (r *Request) Resume(h Handler) {
	if !r.conn.handOff(r, h) {
		r.conn.close(errPeerGone)
	}
}

func (r *Request) send(p *Reply, flags uint8, mayBlock bool) error {
	if p.Release != nil {
		defer p.Release()
	}
	h := frame.Header{Flags: flags, Op: r.Op, Seq: r.seq}
	if p.Err != nil {
		return r.sendError(&h, p.Err, mayBlock)
	}
	h.Meta, h.Body = uint32(len(p.Meta)), uint32(len(p.Body))
	if p.File != nil {
		h.Body = uint32(p.N)
	}
	if len(p.Meta) > frame.MaxMeta || len(p.Body) > frame.MaxBody || p.N < 0 || p.N > frame.MaxBody {
		return r.sendError(&h, orca.E("transport.Reply", orca.TooLarge, "reply over the limits of a frame"), mayBlock)
	}
	if p.File == nil {
		return r.conn.out.send(&h, p.Meta, p.Body, mayBlock)
	}
	err := r.conn.out.bulk(&h, p.Meta, nil, p.File, p.Off, p.N)
	if err == nil {
		r.conn.srv.metrics.BytesFile.Add(p.N)
	}
	return err
}

// sendLater queues a reply whose body is in a file: the request is counted out
// when it has left. false: it is none that can be, or the connection is gone.
func (r *Request) sendLater(p *Reply) bool {
	if p.Err != nil || p.File == nil || len(p.Meta) > headMeta || p.N <= 0 || p.N > frame.MaxBody {
		return false
	}
	h := frame.Header{Flags: frame.FlagReply, Op: r.Op, Seq: r.seq, Meta: uint32(len(p.Meta)), Body: uint32(p.N)}
	r.release = p.Release
	if err := r.conn.out.addFile(&h, p.Meta, parcel{file: p.File, off: p.Off, n: p.N, sender: r}); err != nil {
		return false
	}
	return true
}

// left implements sender.
func (r *Request) left(n int64, err error) {
	c := r.conn
	if r.release != nil {
		r.release()
	}
	if err == nil {
		c.srv.metrics.BytesFile.Add(n)
	} else {
		c.unsent(r, err)
	}
	c.leave(r)
}

func (r *Request) sendError(h *frame.Header, err error, mayBlock bool) error {
	r.conn.srv.metrics.Errors.Add(1)
	h.Flags = frame.FlagReply // an error ends a reply
	h.Status = frame.StatusOf(err)
	if h.Status == orca.OK {
		h.Status = orca.Internal
	}
	meta := frame.AppendError(nil, err)
	h.Meta, h.Body = uint32(len(meta)), 0
	return r.conn.out.send(h, meta, nil, mayBlock)
}
