// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"

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

	rc    syscall.RawConn
	probe func(fd uintptr)      // look, made once
	take  func(fd uintptr) bool // receive on the descriptor, made once; nil: not TCP
	await func(fd uintptr)      // waitBulk on the descriptor, made once; nil: not TCP
	alive bool
	peek  [1]byte
	dst   []byte // where receive puts what it gets
	got   int    // what receive got
	errno syscall.Errno
	low   int // SO_RCVLOWAT
	want  int // bytes that await waits for
	skip  int // waits that are left out, after a miss
	miss  int // the last value of skip
	fail  error
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
	s := &Stream{nc: nc, in: make([]byte, streamIn)}
	if s.rc, err = nc.(syscall.Conn).SyscallConn(); err != nil {
		_ = nc.Close()
		return nil, orca.PathE("transport.Dial", cfg.Addr, orca.Internal, err)
	}
	s.probe = s.look
	if _, ok := nc.(*net.TCPConn); ok {
		s.prepareAwait()
	}
	return s, nil
}

const (
	// awaitMin is the shortest body worth waiting for as a whole, in bytes.
	awaitMin = 256 << 10
	// awaitMillis bounds the wait: replies that are late anyway (a miss) or
	// shorter than hoped for (an error, the end of a block) cost this once.
	awaitMillis = 2
	// awaitMax is the most that is waited for at once, in bytes.
	awaitMax = 2 << 20
	// awaitClamp opens the receive window of a new connection, in bytes.
	awaitClamp = 8 << 20
	// recvMax is the longest copy of one recv(2), in bytes.
	recvMax = 256 << 10
	// awaitStep is the shortest rest of a body worth waiting for, in bytes.
	awaitStep = 64 << 10
)

// prepareAwait sets up the wait for whole bodies. A receiver that wakes up at
// the first segment copies while the sender still queues: both fight for the
// lock of the socket, and throughput halves. SO_RCVLOWAT lets it sleep until
// half of the range is there (of 25, 50, 75 and 95 %, 50 was the fastest). What that costs in memory is the same: the range
// was asked for, and the window admits it.
func (s *Stream) prepareAwait() {
	err := s.rc.Control(func(fd uintptr) {
		// Raises the buffer and the window to what the kernel allows.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, awaitClamp)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
	})
	if err != nil {
		return
	}
	s.low = 1
	s.await = func(fd uintptr) { s.waitBulk(int(fd), s.want) }
	s.take = s.receive
}

// setLow sets SO_RCVLOWAT. Whoever parks in Go's poller needs 1: it is told of
// the arrival of bytes, not of their number.
func (s *Stream) setLow(fd, n int) bool {
	if s.low == n {
		return true
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) != nil {
		return false
	}
	s.low = n
	return true
}

// waitBulk sleeps until want bytes, which have been asked for, can be read, or
// not much longer, and reports whether they can. It changes nothing but the
// time of the wake-up.
func (s *Stream) waitBulk(fd, want int) bool {
	if s.skip > 0 {
		s.skip--
		return false
	}
	if !s.setLow(fd, want) {
		return false
	}
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p[:], awaitMillis)
	switch {
	case n > 0:
		s.miss = 0
	case err == nil: // too late or too short: the next ones may be as well
		s.miss = min(2*s.miss+1, 63)
		s.skip = s.miss
	}
	return n > 0
}

// receive is one recv(2) into s.dst; false: nothing is there, and it is to be
// called again when there is. The call does not wait, and is short enough not to
// be announced to the scheduler as one that may: a copy of 40 µs that is
// announced has its processor taken away, and another thread woken up for it.
func (s *Stream) receive(fd uintptr) bool {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(s.dst))),
			uintptr(min(len(s.dst), recvMax)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if s.want >= awaitStep && s.waitBulk(int(fd), s.want) {
				continue
			}
			s.setLow(int(fd), 1)
			s.want = 0
			return false
		}
		s.got, s.errno = int(n), errno
		return true
	}
}

// read reads at least a byte into p, with one copy as long as want when that
// is worth waiting for.
func (s *Stream) read(p []byte, want int) (int, error) {
	if s.take == nil {
		return s.nc.Read(p)
	}
	s.dst, s.want = p, min(want, recvMax)
	err := s.rc.Read(s.take)
	s.dst = nil
	switch {
	case err != nil:
		return 0, err
	case s.errno != 0:
		return 0, s.errno
	case s.got == 0:
		return 0, io.EOF
	}
	return s.got, nil
}

// OnHost reports whether the server is on this host: no latency to hide.
func (s *Stream) OnHost() bool {
	l, lok := s.nc.LocalAddr().(*net.TCPAddr)
	r, rok := s.nc.RemoteAddr().(*net.TCPAddr)
	return !lok || !rok || r.IP.IsLoopback() || r.IP.Equal(l.IP)
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
// answers; metaHint and bodyHint are the lengths that are expected, so that
// one system call reads header and meta, and one wake-up serves for all. The
// meta is valid until the next Recv. The body must be read by ReadBody before.
func (s *Stream) Recv(metaHint, bodyHint int) (frame.Header, []byte, error) {
	if s.body > 0 {
		return frame.Header{}, nil, orca.E("transport.Recv", orca.Internal, "BUG: the last body was not read")
	}
	if bodyHint >= awaitMin && s.await != nil && s.r == s.w {
		s.want = min(bodyHint/2, awaitMax)
		_ = s.rc.Control(s.await) // the read that follows sees the error
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
		n, err := s.read(s.in[s.w:want], 0)
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
		n, err := s.read(p, len(p))
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
	s.alive = false
	return s.rc.Control(s.probe) == nil && s.alive
}

// look sets s.alive: readable now means an end, an error or a stray reply.
func (s *Stream) look(fd uintptr) {
	// unix.Recvfrom makes room for an address on the heap.
	_, _, err := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&s.peek[0])), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	s.alive = err == unix.EAGAIN
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
