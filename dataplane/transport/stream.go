// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

// Stream is a connection for one user at a time, for bulk data: the user sends
// requests and receives replies on its own goroutine, and bodies go from the
// socket straight into its buffer. Pulling a range per request, with a few
// outstanding, is the flow control. After any error but those of a reply's
// status the stream must be closed.
type Stream struct {
	nc   net.Conn
	seq  uint64
	out  []byte // requests not yet flushed
	in   []byte // storage of what was read beyond a header
	r, w int    // in[r:w] is unread
	body int    // bytes of the current reply's body that are still to be read
	fail error
}

// streamIn is the storage of a Stream for headers and metas, in bytes; a
// longer meta gets storage of its own.
const streamIn = 4 << 10

// DialStream connects: Unavailable, Timeout, Canceled.
func DialStream(ctx context.Context, cfg ClientConfig) (*Stream, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	nc, err := dial(ctx, &cfg)
	if err != nil {
		return nil, err
	}
	if cfg.RecvBuffer > 0 {
		if b, ok := nc.(interface{ SetReadBuffer(int) error }); ok {
			_ = b.SetReadBuffer(cfg.RecvBuffer) // a hint
		}
	}
	return &Stream{nc: nc, in: make([]byte, streamIn)}, nil
}

// Queue adds a request without a body to what Flush sends, and returns its
// seq.
func (s *Stream) Queue(op frame.Op, timeout time.Duration, meta []byte) uint64 {
	s.seq++
	h := frame.Header{Op: op, Seq: s.seq, Meta: uint32(len(meta)), Timeout: uint32(max(timeout.Milliseconds(), 0))}
	s.out = append(h.AppendTo(s.out), meta...)
	return s.seq
}

// Flush sends what was queued.
func (s *Stream) Flush() error {
	if len(s.out) == 0 {
		return nil
	}
	_, err := s.nc.Write(s.out)
	s.out = s.out[:0]
	return s.failed(err)
}

// Send sends a request with a body, after what was queued.
func (s *Stream) Send(op frame.Op, timeout time.Duration, meta, body []byte) (seq uint64, err error) {
	s.seq++
	h := frame.Header{
		Op: op, Seq: s.seq, Meta: uint32(len(meta)), Body: uint32(len(body)),
		Timeout: uint32(max(timeout.Milliseconds(), 0)),
	}
	if err := h.Check(); err != nil {
		return 0, err
	}
	s.out = append(h.AppendTo(s.out), meta...)
	bufs := net.Buffers{s.out, body}
	_, err = bufs.WriteTo(s.nc)
	s.out = s.out[:0]
	return s.seq, s.failed(err)
}

// Recv reads the header and the meta of the next frame, whichever request it
// answers; metaHint is the length of the meta that is expected, so that one
// system call reads both. The meta is valid until the next Recv. The body must
// be read by ReadBody before.
func (s *Stream) Recv(metaHint int) (frame.Header, []byte, error) {
	if s.body > 0 {
		return frame.Header{}, nil, orca.E("transport.Recv", orca.Internal, "BUG: the last body was not read")
	}
	if err := s.fill(frame.Size, frame.Size+metaHint); err != nil {
		return frame.Header{}, nil, err
	}
	h, err := frame.Decode(s.in[s.r:s.w])
	if err == nil && h.Flags&frame.FlagReply == 0 {
		err = orca.E("transport.Recv", orca.Corrupt, "server sent a request")
	}
	if err != nil {
		return h, nil, s.failed(err)
	}
	s.r += frame.Size
	n := int(h.Meta)
	if err := s.fill(n, n); err != nil {
		return h, nil, err
	}
	meta := s.in[s.r : s.r+n : s.r+n]
	s.r += n
	s.body = int(h.Body)
	return h, meta, nil
}

// fill sees to it that need bytes are unread in s.in, reading at most want.
func (s *Stream) fill(need, want int) error {
	if s.w-s.r >= need {
		return nil
	}
	want = max(want, need)
	if s.r > 0 {
		s.w = copy(s.in, s.in[s.r:s.w])
		s.r = 0
	}
	if want > len(s.in) {
		if need <= len(s.in) {
			want = len(s.in)
		} else {
			s.in = append(make([]byte, 0, want), s.in[:s.w]...)[:want]
		}
	}
	for s.w < need {
		n, err := s.nc.Read(s.in[s.w:want])
		s.w += n
		if err != nil && s.w < need {
			return s.failed(err)
		}
	}
	return nil
}

// Left returns how many bytes of the current body are still to be read.
func (s *Stream) Left() int { return s.body }

// ReadBody fills p, which is not longer than Left, from the current body.
func (s *Stream) ReadBody(p []byte) error {
	if len(p) > s.body {
		return orca.E("transport.ReadBody", orca.Internal, "BUG: read beyond the body")
	}
	s.body -= len(p)
	if n := copy(p, s.in[s.r:s.w]); n > 0 {
		s.r += n
		p = p[n:]
	}
	for len(p) > 0 {
		n, err := s.nc.Read(p)
		if p = p[n:]; err != nil && len(p) > 0 {
			return s.failed(err)
		}
	}
	return nil
}

// Err returns the first error of the connection itself, if any.
func (s *Stream) Err() error { return s.fail }

// Seq returns the seq of the last request.
func (s *Stream) Seq() uint64 { return s.seq }

// SetDeadline bounds all that follows; the zero time means no bound. It may be
// called while another goroutine uses the stream, to interrupt it.
func (s *Stream) SetDeadline(t time.Time) { _ = s.nc.SetDeadline(t) }

// Alive reports whether the server still holds its end of an idle stream, as
// far as this host knows.
func (s *Stream) Alive() bool {
	if s.fail != nil || s.r != s.w || s.body > 0 {
		return false
	}
	rc, err := s.nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = err == unix.EAGAIN // readable now means an end, an error or a stray reply
	})
	return err == nil && alive
}

// Close closes the connection; the server stops working on what is
// outstanding.
func (s *Stream) Close() error { return s.nc.Close() }

// failed makes the first error sticky for Alive and gives it a Kind.
func (s *Stream) failed(err error) error {
	if err == nil {
		return nil
	}
	k := orca.Unavailable
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		k = orca.Timeout
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an end is never expected here
	}
	e := orca.PathE("transport.Stream", s.nc.RemoteAddr().String(), k, err)
	if s.fail == nil {
		s.fail = e
	}
	return e
}
