// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"golang.org/x/sys/unix"

	"orca"
)

// The wire between members; docs/format/raftwire.md. A connection begins with
// a hello of each side; then its dialer sends records of 9 bytes of header
// (length, CRC32C, type) and a protobuf message of dragonboat.
const (
	wireVersion  = 1
	recordHeader = 9
	maxHello     = 4 << 10
	maxRecord    = 80 << 20 // over dragonboat's largest batch
	recordBatch  = 1
	recordChunk  = 2

	dialTimeout  = 2 * time.Second
	helloTimeout = 2 * time.Second
	writeTimeout = 5 * time.Second
	// unackedTimeout ends a connection whose bytes nobody acknowledges, so
	// that a link that was cut is made anew soon after it is mended.
	unackedTimeout = 2 * time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hello is what both sides of a connection say of themselves first, as one
// length-prefixed JSON object.
type hello struct {
	Version     int    `json:"version"`
	Cluster     string `json:"cluster"`
	Replica     uint64 `json:"replica"`
	Incarnation string `json:"incarnation"`
	Address     string `json:"address"`
	// Refused says in the answer why the dialer is not let in.
	Refused string `json:"refused,omitempty"`
	// Removed says in the answer that the dialer was removed from the cluster.
	Removed bool `json:"removed,omitempty"`
}

func validAddress(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// network makes the transport of a member of a cluster.
type network struct{ h *Host }

// Create makes the transport.
func (n network) Create(c config.NodeHostConfig, msgs raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	t := &transport{h: n.h, listen: c.GetListenAddress(), msgs: msgs, chunks: chunks, conns: map[net.Conn]uint64{}}
	n.h.net.Store(t)
	return t
}

// Validate accepts host:port.
func (network) Validate(addr string) bool { return validAddress(addr) }

// transport carries dragonboat's messages over TCP.
type transport struct {
	h      *Host
	listen string
	msgs   raftio.MessageHandler
	chunks raftio.ChunkHandler
	cut    sync.Map // address → true: tests cut links here
	// When the last warning was, in seconds, of what was dialed and accepted.
	warned, warnedIn atomic.Int64
	revivals         atomic.Int64 // of links

	l  net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]uint64 // accepted → replica, 0 until it has said so; GUARDED_BY(mu)
	closed bool                // GUARDED_BY(mu)
}

// Name is for dragonboat's log.
func (*transport) Name() string { return "orca" }

// Start begins to listen.
func (t *transport) Start() error {
	l, err := net.Listen("tcp", t.listen)
	if err != nil {
		return fmt.Errorf("listen on the Raft address: %w", err)
	}
	t.l = l
	t.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of descriptors: others go first
				time.Sleep(10 * time.Millisecond)
				continue
			}
			t.serve(c)
		}
	})
	return nil
}

// Close ends all connections.
func (t *transport) Close() error {
	t.mu.Lock()
	t.closed = true
	for c := range t.conns {
		_ = c.Close()
	}
	t.mu.Unlock()
	var err error
	if t.l != nil { // nil: it could not listen
		err = t.l.Close()
	}
	t.wg.Wait()
	return err
}

// serve runs one accepted connection.
func (t *transport) serve(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		_ = c.Close()
		return
	}
	t.conns[c] = 0
	t.wg.Go(func() {
		switch err := t.receive(c); {
		case errors.Is(err, io.EOF):
		case orca.KindOf(err) == orca.Unauthenticated:
			t.warn(&t.warnedIn, "who dials the Raft address is not let in", c.RemoteAddr().String(), err)
		default:
			t.h.log.Debug("raft connection ended", "peer", c.RemoteAddr().String(), "err", err)
		}
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
		_ = c.Close()
	})
}

func (t *transport) receive(raw net.Conn) error {
	tune(raw)
	_ = raw.SetDeadline(time.Now().Add(helloTimeout))
	c, err := t.h.armor.accept(context.Background(), raw)
	if err != nil {
		return err
	}
	var theirs hello
	if err := readHello(c, &theirs); err != nil {
		return err
	}
	mine := t.h.f.hello()
	refusal := vouches(c, &theirs)
	if refusal == nil {
		refusal = t.admit(raw, &theirs)
	}
	if refusal != nil {
		mine.Refused, mine.Removed = refusal.Error(), orca.KindOf(refusal) == orca.Removed
		t.h.log.Warn("a member is refused", "replica", theirs.Replica, "address", theirs.Address, "reason", refusal.Error())
	}
	if err := errors.Join(writeHello(c, &mine), refusal); err != nil {
		return err
	}
	_ = raw.SetDeadline(time.Time{})
	r := bufio.NewReaderSize(c, 64<<10)
	var buf []byte
	for {
		kind, b, err := readRecord(r, buf)
		if err != nil {
			return err
		}
		if _, cut := t.cut.Load(theirs.Address); cut {
			continue
		}
		buf = b
		switch kind {
		case recordBatch:
			var m pb.MessageBatch
			if err := m.Unmarshal(b); err != nil {
				return fmt.Errorf("message batch: %w", err)
			}
			t.asked(&m)
			t.msgs(m)
			t.summoned(&m)
		case recordChunk:
			var m pb.Chunk
			if err := m.Unmarshal(b); err != nil {
				return fmt.Errorf("snapshot chunk: %w", err)
			}
			if !t.chunks(m) {
				return orca.E("raftgroup.transport", orca.Conflict, "snapshot chunk is not wanted")
			}
		default:
			return orca.E("raftgroup.transport", orca.Corrupt, "unknown record")
		}
	}
}

// admit lets a member in that has dialed, or says why not.
func (t *transport) admit(c net.Conn, theirs *hello) error {
	if err := t.h.f.meet(theirs, t.h.cfg.Dir); err != nil {
		return err
	}
	t.mu.Lock()
	t.conns[c] = theirs.Replica
	t.mu.Unlock()
	return t.h.removal(theirs.Replica) // after it can be evicted
}

// GetConnection connects for messages.
func (t *transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	l := &link{t: t, target: target, redial: func() (net.Conn, error) { return t.dial(ctx, target) }}
	return l, l.connect()
}

// GetSnapshotConnection connects for chunks.
func (t *transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	c, err := t.dial(ctx, target)
	return &link{t: t, target: target, c: c}, err
}

func (t *transport) dial(ctx context.Context, target string) (net.Conn, error) {
	if _, cut := t.cut.Load(target); cut {
		return nil, errCut
	}
	c, theirs, err := t.h.greet(ctx, target)
	if err != nil {
		switch orca.KindOf(err) {
		case orca.Conflict:
			t.refused(target, err)
		case orca.Unauthenticated:
			t.warn(&t.warned, "a member does not let this one in", target, err)
		case orca.Removed:
			t.h.removed(target)
		}
		return nil, err
	}
	if err := t.h.f.meet(theirs, t.h.cfg.Dir); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// refused is told that a member does not let this one in. One that has just
// begun was a member before, then, and has lost its folder: probe could not
// reach who knows that.
func (t *transport) refused(target string, err error) {
	if t.h.fresh {
		t.h.fatal(err.Error())
		return
	}
	t.warn(&t.warned, "a member does not let this one in", target, err)
}

// warn logs what is tried again and again, but not each time.
func (t *transport) warn(last *atomic.Int64, msg, addr string, err error) {
	now := time.Now().Unix()
	if at := last.Load(); now-at >= warnEvery && last.CompareAndSwap(at, now) {
		t.h.log.Warn(msg, "addr", addr, "err", err)
	}
}

// warnEvery is how many seconds pass between two warnings of that.
const warnEvery = 30

var errCut = orca.E("raftgroup.transport", orca.Unavailable, "the link is cut")

// greet connects to a member and exchanges hellos. Conflict: it refuses us;
// Removed: because we are no member any more; Unauthenticated: one of the
// certificates does not do.
func (h *Host) greet(ctx context.Context, target string) (net.Conn, *hello, error) {
	const op = "raftgroup.greet"
	mine := h.f.hello()
	d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	raw, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, nil, orca.PathE(op, target, orca.Unavailable, err)
	}
	tune(raw)
	_ = raw.SetDeadline(time.Now().Add(helloTimeout))
	c, err := h.armor.dial(ctx, raw, target)
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	theirs := &hello{}
	if err = errors.Join(writeHello(c, &mine), readHello(c, theirs)); err == nil && theirs.Refused != "" {
		kind := orca.Conflict
		if theirs.Removed && theirs.Cluster == mine.Cluster {
			kind = orca.Removed
		}
		err = &orca.Error{Op: op, Path: target, Kind: kind, Msg: theirs.Refused}
	}
	if err != nil {
		_ = raw.Close()
		switch {
		case refusedByPeer(err):
			err = tlsError(target, err)
		case orca.KindOf(err) == orca.Internal:
			err = orca.PathE(op, target, orca.Unavailable, err)
		}
		return nil, nil, err
	}
	_ = raw.SetDeadline(time.Time{})
	return c, theirs, nil
}

// tune asks the kernel to give up a silent peer soon.
func tune(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout.Milliseconds()))
		})
	}
}

// link is the way to a member, for one sender: one connection at a time.
type link struct {
	t      *transport
	target string
	c      net.Conn
	buf    []byte
	chunks bool
	// redial makes a new connection, and lost is closed when this one has ended;
	// of links for messages.
	redial func() (net.Conn, error)
	lost   chan struct{}
}

// connect makes a connection and watches it: the other side says nothing on it,
// so that what can be read is its end.
func (l *link) connect() error {
	c, err := l.redial()
	if err != nil {
		return err
	}
	lost := make(chan struct{})
	l.c, l.lost = c, lost
	l.t.wg.Go(func() {
		_, _ = c.Read(make([]byte, 1))
		close(lost)
	})
	return nil
}

// revived makes a new connection if the last one has ended. Members that follow
// have nothing to say to each other until they elect a leader, and one of them may
// have been started anew since: what is written to where it was before would be
// gone, and the engine would not try again for up to a second and a half.
func (l *link) revived() error {
	select {
	case <-l.lost:
		_ = l.c.Close()
		l.t.revivals.Add(1)
		return l.connect()
	default:
		return nil
	}
}

type wireMessage interface {
	Size() int
	MarshalTo([]byte) (int, error)
}

func (l *link) send(kind byte, m wireMessage) error {
	if _, cut := l.t.cut.Load(l.target); cut {
		return errCut
	}
	n := m.Size()
	if cap(l.buf) < recordHeader+n {
		l.buf = make([]byte, recordHeader+n+n/4)
	}
	b := l.buf[:recordHeader+n]
	n, err := m.MarshalTo(b[recordHeader:])
	if err != nil {
		return fmt.Errorf("encode for %s: %w", l.target, err)
	}
	b = b[:recordHeader+n]
	binary.BigEndian.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[recordHeader:], castagnoli))
	b[8] = kind
	_ = l.c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := l.c.Write(b); err != nil {
		return fmt.Errorf("send to %s: %w", l.target, err)
	}
	if cap(l.buf) > 4<<20 {
		l.buf = nil
	}
	return nil
}

// SendMessageBatch sends messages. What was written to a connection that had ended
// is sent once more: it may come twice, which Raft allows.
func (l *link) SendMessageBatch(m pb.MessageBatch) error {
	if m.Requests = l.t.due(m.Requests); len(m.Requests) == 0 {
		return nil
	}
	if err := l.revived(); err != nil {
		return err
	}
	err := l.send(recordBatch, &m)
	if err == nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	_ = l.c.Close()
	<-l.lost
	if err := l.revived(); err != nil {
		return err
	}
	return l.send(recordBatch, &m)
}

// SendChunk sends a part of a snapshot.
func (l *link) SendChunk(m pb.Chunk) error {
	l.chunks = true
	return l.send(recordChunk, &m)
}

// Close closes; after chunks it waits until the other side has taken them.
func (l *link) Close() {
	if half, ok := l.c.(interface{ CloseWrite() error }); ok && l.chunks && half.CloseWrite() == nil {
		_ = l.c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, l.c)
	}
	_ = l.c.Close()
}

func writeHello(w io.Writer, h *hello) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readHello(r io.Reader, h *hello) error {
	const op = "raftgroup.hello"
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxHello {
		return notTLS(head)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	if err := json.Unmarshal(b, h); err != nil {
		return orca.PathE(op, "", orca.Corrupt, err)
	}
	return nil
}

// readRecord reads one record into buf, which it may replace. What the length
// promises is believed only as it arrives.
func readRecord(r io.Reader, buf []byte) (kind byte, b []byte, err error) {
	const op, step = "raftgroup.readRecord", 1 << 20
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, buf, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxRecord {
		return 0, buf, orca.E(op, orca.TooLarge, "record over the limit")
	}
	b = buf[:0]
	for len(b) < n {
		part := min(n-len(b), step)
		if cap(b) < len(b)+part {
			b = append(make([]byte, 0, min(n, 2*cap(b)+part)), b...)
		}
		at := len(b)
		b = b[:at+part]
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return 0, b, err
		}
	}
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return 0, b, orca.E(op, orca.Corrupt, "checksum of a record")
	}
	return head[8], b, nil
}

// hello is what this member says of itself.
func (f *format) hello() hello {
	return hello{Version: wireVersion, Cluster: f.Cluster, Replica: f.replica(), Incarnation: f.Incarnation, Address: f.Address}
}

// meet takes note of a member the first time, durably, and afterwards lets
// only the same incarnation in: a replica whose folder is another one has
// forgotten what it voted for and acknowledged.
func (f *format) meet(h *hello, dir string) error {
	const op = "raftgroup.meet"
	switch {
	case h.Version != wireVersion:
		return orca.E(op, orca.Unsupported, fmt.Sprintf("version %d of the wire between members", h.Version))
	case h.Cluster != f.Cluster:
		return orca.E(op, orca.Conflict, "member of another cluster, "+h.Cluster)
	case h.Replica == 0 || h.Incarnation == "":
		return orca.E(op, orca.Invalid, "a member without identity")
	case h.Replica == f.Replica && h.Incarnation != f.Incarnation:
		return orca.E(op, orca.Conflict, "two members are replica "+strconv.FormatUint(h.Replica, 10))
	case h.Replica == f.Replica:
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.Peers[h.Replica] {
	case h.Incarnation:
		return nil
	case "":
		if f.Peers == nil {
			f.Peers = map[uint64]string{}
		}
		f.Peers[h.Replica] = h.Incarnation
		return f.saveLocked(dir)
	}
	id := strconv.FormatUint(h.Replica, 10)
	return orca.E(op, orca.Conflict, "member "+id+" has lost its data folder: what it acknowledged is gone with it. "+
		"Restore the folder, or replace the member: orca admin quorum remove "+id+", then add a new one")
}

// probe asks the other first members, before the first start of this one,
// whether it was a member before: then it must not vote again.
func (h *Host) probe() error {
	var wg sync.WaitGroup
	var refused atomic.Pointer[error]
	for id, addr := range h.f.Members {
		if id == h.f.Replica {
			continue
		}
		wg.Go(func() {
			c, _, err := h.greet(context.Background(), addr)
			if err == nil {
				_ = c.Close()
			} else if k := orca.KindOf(err); k == orca.Conflict || k == orca.Removed {
				refused.Store(&err)
			}
		})
	}
	wg.Wait()
	if p := refused.Load(); p != nil {
		return *p
	}
	return nil
}
