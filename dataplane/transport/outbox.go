// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

// outbox writes frames to one non-blocking socket, whose descriptor it owns.
// Small frames are appended to a queue; whoever gets the turn writes all that
// is queued at once, so that under load many replies share a system call. A
// frame whose body is in a file may be queued as well, and leaves in its order,
// sent by a goroutine that exists while there is something to send. A bulk
// frame takes the turn, writes what was queued, then its own header, meta and
// body.
//
// A write goes straight to the descriptor; only when the socket is full is the
// descriptor registered with Go's poller, and the goroutine parks there.
type outbox struct {
	fd       int
	timeout  time.Duration
	bytes    *atomic.Int64 // written
	sends    *atomic.Int64 // may be nil
	slowPeer *atomic.Int64 // may be nil
	onFail   func()        // called once, when a write has failed; may be called with the turn held
	full     atomic.Bool   // a writer waits for the peer to read

	turn    sync.Mutex // the right to write to the socket; guards the five below
	file    *os.File   // of fd, once it has been registered with Go's poller
	rc      syscall.RawConn
	out     []byte   // what is being written
	leaving []parcel // within out
	head    [frame.Size + headMeta]byte

	mu      sync.Mutex
	queue   []byte
	parcels []parcel // within queue
	frames  int      // in queue
	err     error    // sticky
	closed  bool
}

// parcel is the body of a queued frame: n bytes of file from off.
type parcel struct {
	at     int // where it belongs within the queue: its header and meta end there
	file   *os.File
	off, n int64
	sender sender
}

// sender is told, once, that its parcel is in the socket, or why it never will
// be. It must not block.
type sender interface{ left(n int64, err error) }

const (
	// headMeta is the longest meta of a bulk frame that is copied next to its
	// header, in bytes.
	headMeta = 1024
	// maxIdleQueue is how much of an empty queue's memory is kept, in bytes.
	maxIdleQueue = 256 << 10
	// maxQueue is how much may be queued, in bytes, before frames wait for
	// their turn.
	maxQueue = 4 << 20
)

// send writes one frame, by whichever way is cheaper. It blocks when the peer
// is slow, unless mayBlock is false: then the frame is queued and a goroutine
// writes what the socket does not take at once.
func (o *outbox) send(h *frame.Header, meta, body []byte, mayBlock bool) error {
	if mayBlock && len(meta)+len(body) > copyBody {
		return o.bulk(h, meta, body, nil, 0, 0)
	}
	if mayBlock && o.heavy() {
		return o.bulk(h, meta, body, nil, 0, 0)
	}
	if _, _, err := o.add(h, meta, body); err != nil {
		return err
	}
	return o.flush(mayBlock)
}

// heavy reports whether so much is queued that who may wait should.
func (o *outbox) heavy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) > maxQueue
}

// add queues a frame, for flush, and returns how many bytes and frames are
// queued.
func (o *outbox) add(h *frame.Header, meta, body []byte) (bytes, frames int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, 0, o.err
	}
	o.queue = h.AppendTo(o.queue)
	o.queue = append(o.queue, meta...)
	o.queue = append(o.queue, body...)
	o.frames++
	return len(o.queue), o.frames, nil
}

// addFile queues a frame whose body is in a file, for flush. Unless it fails,
// p.sender.left is called, perhaps before it returns.
func (o *outbox) addFile(h *frame.Header, meta []byte, p parcel) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	o.queue = h.AppendTo(o.queue)
	o.queue = append(o.queue, meta...)
	p.at = len(o.queue)
	o.parcels = append(o.parcels, p)
	o.frames++
	return nil
}

// queued returns how many frames wait.
func (o *outbox) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.frames
}

// waiting returns how many frames wait that are in memory.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.frames - len(o.parcels)
}

// flush writes the queue unless another goroutine has the turn: that one looks
// again after it has given the turn back, so nothing is left behind.
func (o *outbox) flush(mayBlock bool) error {
	for o.turn.TryLock() {
		handedOn, err := o.drain(mayBlock)
		if handedOn {
			return nil
		}
		o.turn.Unlock()
		if err != nil {
			return err
		}
		if o.queued() == 0 {
			return nil
		}
	}
	return nil
}

// drain writes what is queued; the caller has the turn. handedOn means that a
// new goroutine has it now.
func (o *outbox) drain(mayBlock bool) (handedOn bool, err error) {
	o.mu.Lock()
	if o.frames == 0 || o.err != nil {
		err = o.err
		o.mu.Unlock()
		return false, err
	}
	o.out, o.queue = o.queue, o.out[:0]
	o.leaving, o.parcels = o.parcels, o.leaving[:0]
	o.frames = 0
	o.mu.Unlock()

	if mayBlock {
		return false, o.drained(o.writeOut(0))
	}
	sent := 0
	if len(o.leaving) == 0 {
		sent, err = o.sendNow(o.out, 0)
		o.bytes.Add(int64(sent))
		if err != nil && err != unix.EAGAIN || sent == len(o.out) {
			return false, o.drained(err)
		}
	}
	go o.finish(sent)
	return true, nil
}

// writeOut writes what is left of out after the first sent bytes, and the
// parcels within.
func (o *outbox) writeOut(sent int) (err error) {
	for i := range o.leaving {
		p := &o.leaving[i]
		if err == nil {
			err = o.writeAll(o.out[sent:p.at], unix.MSG_MORE)
		}
		if err == nil {
			err = o.sendFile(p.file, p.off, p.n)
		}
		sent = p.at
		p.sender.left(p.n, err)
	}
	clear(o.leaving)
	if err != nil {
		return err
	}
	return o.writeAll(o.out[sent:], 0)
}

// finish writes the rest of a drain on a goroutine of its own, which has the
// turn.
func (o *outbox) finish(sent int) {
	err := o.drained(o.writeOut(sent))
	o.turn.Unlock()
	if err == nil && o.queued() > 0 {
		_ = o.flush(true) // its error is sticky
	}
}

// drained ends a drain; the caller has the turn.
func (o *outbox) drained(err error) error {
	if cap(o.out) > maxIdleQueue {
		o.out = nil
	}
	if err == nil {
		return nil
	}
	return o.fail(err)
}

// bulk writes one frame whose body is long: from memory, or n bytes of file
// from off by sendfile. It blocks until all of it is in the socket.
func (o *outbox) bulk(h *frame.Header, meta, body []byte, file *os.File, off, n int64) error {
	o.turn.Lock()
	err := o.bulkTurn(h, meta, body, file, off, n)
	o.turn.Unlock()
	if err == nil && o.queued() > 0 {
		_ = o.flush(true) // its error is sticky
	}
	return err
}

func (o *outbox) bulkTurn(h *frame.Header, meta, body []byte, file *os.File, off, n int64) error {
	if _, err := o.drain(true); err != nil {
		return err
	}
	flags := 0
	if n > 0 || len(body) > 0 {
		flags = unix.MSG_MORE // header and data share a segment and a wake-up
	}
	h.Put(o.head[:])
	var err error
	if len(meta) <= headMeta {
		copy(o.head[frame.Size:], meta)
		err = o.writeAll(o.head[:frame.Size+len(meta)], flags)
	} else if err = o.writeAll(o.head[:frame.Size], unix.MSG_MORE); err == nil {
		err = o.writeAll(meta, flags)
	}
	if err == nil && len(body) > 0 {
		err = o.writeAll(body, 0)
	}
	if err == nil && n > 0 {
		err = o.sendFile(file, off, n)
	}
	if err != nil {
		return o.fail(err)
	}
	return nil
}

// writeAll writes p, waiting for the socket; the caller has the turn.
func (o *outbox) writeAll(p []byte, flags int) error {
	total := len(p)
	armed := false
	for len(p) > 0 {
		n, err := o.sendNow(p, flags)
		switch {
		case n > 0:
			p = p[n:]
		case err == unix.EAGAIN:
			if err := o.waitWritable(&armed, len(p)); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	o.bytes.Add(int64(total))
	return nil
}

// errShortFile: a file ended before the bytes that its frame announced.
var errShortFile = orca.E("transport.sendFile", orca.Internal, "file is shorter than its extent")

// sendFile moves n bytes of file from off to the socket. The count given to
// the kernel never reaches beyond what is announced; a file that ends before
// is an error, after which the connection cannot be used.
func (o *outbox) sendFile(file *os.File, off, n int64) error {
	src := int(file.Fd())
	defer runtime.KeepAlive(file)
	o.bytes.Add(n)
	armed := false
	for n > 0 {
		sent, err := unix.Sendfile(o.fd, src, &off, int(n))
		switch {
		case sent > 0:
			n -= int64(sent)
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := o.waitWritable(&armed, int(n)); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			return errShortFile
		}
	}
	return nil
}

// waitWritable parks until the socket takes bytes again. The deadline is set
// once per frame (armed), so that a peer that reads a byte now and then is
// closed, too.
func (o *outbox) waitWritable(armed *bool, left int) error {
	if o.file == nil {
		o.file = os.NewFile(uintptr(o.fd), "socket")
		rc, err := o.file.SyscallConn()
		if err != nil {
			return err
		}
		o.rc = rc
	}
	if !*armed {
		*armed = true
		d := o.timeout + time.Duration(left>>20)*time.Second
		if err := o.file.SetWriteDeadline(time.Now().Add(d)); err != nil {
			return err
		}
	}
	o.full.Store(true)
	defer o.full.Store(false)
	asked := false
	err := o.rc.Write(func(uintptr) bool {
		if asked {
			return true
		}
		asked = true
		return writable(o.fd)
	})
	if os.IsTimeout(err) && o.slowPeer != nil {
		o.slowPeer.Add(1)
	}
	return err
}

// writable asks the kernel without waiting: the socket may have drained
// between EAGAIN and its registration.
func writable(fd int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p[:], 0)
	return n > 0 || (err != nil && err != unix.EINTR)
}

// sendNow is one send(2) of p, which is not empty.
func (o *outbox) sendNow(p []byte, flags int) (int, error) {
	for {
		if o.sends != nil {
			o.sends.Add(1)
		}
		n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(o.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), uintptr(flags|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, unix.EAGAIN
		default:
			return 0, errno
		}
	}
}

// fail makes err sticky and drops what is queued.
func (o *outbox) fail(err error) error {
	o.mu.Lock()
	first := o.err == nil
	if first {
		o.err = orca.PathE("transport.send", "", orca.Unavailable, err)
	}
	stuck := o.parcels
	o.queue, o.parcels, o.frames = nil, nil, 0
	err = o.err
	o.mu.Unlock()
	for _, p := range stuck {
		p.sender.left(p.n, err)
	}
	if first && o.onFail != nil {
		o.onFail()
	}
	return err
}

// close ends the outbox: writers fail with err, the peer sees the end, and the
// descriptor is closed when the last writer has left. It does not block.
func (o *outbox) close(err error) {
	o.mu.Lock()
	again := o.closed
	o.closed = true
	o.mu.Unlock()
	if again {
		return
	}
	_ = o.fail(err)
	_ = unix.Shutdown(o.fd, unix.SHUT_RDWR) // wakes who is parked
	if o.turn.TryLock() {
		o.closeFD()
		return
	}
	go func() {
		o.turn.Lock()
		o.closeFD()
	}()
}

// closeFD gives up the descriptor and the turn, which the caller has.
func (o *outbox) closeFD() {
	defer o.turn.Unlock()
	if o.file != nil {
		_ = o.file.Close()
		return
	}
	_ = unix.Close(o.fd)
}
