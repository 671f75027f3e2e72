// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package shortcircuit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
)

// ClientMetrics counts what a Client does.
type ClientMetrics struct {
	Hits      atomic.Int64 // of the cache
	Misses    atomic.Int64
	Partial   atomic.Int64 // answered Unsupported from memory
	Open      atomic.Int64 // gauge: descriptors held
	Evicted   atomic.Int64 // for MaxOpen
	Expired   atomic.Int64
	ReadBytes atomic.Int64
}

// Client gets descriptors from a worker on this host and caches them. It is
// safe for concurrent use.
type Client struct {
	cfg     ClientConfig
	metrics ClientMetrics
	seq     atomic.Uint64
	places  chan struct{} // one element per request outstanding
	now     func() time.Time

	mu     sync.Mutex
	free   []*net.UnixConn
	busy   map[*net.UnixConn]struct{}
	closed bool
	cache
}

// NewClient makes a client; the first request connects.
func NewClient(cfg ClientConfig, _ *slog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, places: make(chan struct{}, cfg.Conns), busy: make(map[*net.UnixConn]struct{}), now: time.Now}
	c.cache.init(&c.cfg, &c.metrics)
	return c, nil
}

// Metrics returns the counters of the client.
func (c *Client) Metrics() *ClientMetrics { return &c.metrics }

// Close closes the connections and the cached descriptors; those in use are
// closed when their users are done.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.free {
		_ = conn.Close()
	}
	c.free = nil
	for conn := range c.busy {
		_ = conn.Close()
	}
	c.cache.clearLocked()
	return nil
}

// Want names one block and the right to it.
type Want struct {
	ID    orca.BlockID
	Grant dataplane.Grant
	// Partial asks for the descriptor of a block that may not be complete.
	Partial bool
}

// Got is a descriptor, or why there is none.
type Got struct {
	File       *os.File
	Length     int64
	Generation uint64
	Err        error
}

// Fetch gets one descriptor, which the caller closes, past the cache. The
// errors are Unsupported (the block is not complete: read ranges), NotFound,
// Permission, Stale, and Unavailable.
func (c *Client) Fetch(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	return c.fetchOne(ctx, Want{ID: id, Grant: g})
}

// Share is Fetch of a block that may be partial: of the file only what the
// worker says to be present in this generation may be read.
func (c *Client) Share(ctx context.Context, id orca.BlockID, g dataplane.Grant) (*os.File, int64, uint64, error) {
	return c.fetchOne(ctx, Want{ID: id, Grant: g, Partial: true})
}

func (c *Client) fetchOne(ctx context.Context, w Want) (*os.File, int64, uint64, error) {
	got, err := c.FetchMany(ctx, []Want{w})
	if err != nil {
		return nil, 0, 0, err
	}
	return got[0].File, got[0].Length, got[0].Generation, got[0].Err
}

// FetchMany gets up to MaxBatch descriptors in one round trip, past the cache.
// Each result stands for the want of the same index.
func (c *Client) FetchMany(ctx context.Context, wants []Want) ([]Got, error) {
	if len(wants) == 0 || len(wants) > MaxBatch {
		return nil, orca.E("shortcircuit.FetchMany", orca.Invalid, "1 to 32 blocks can be asked for")
	}
	var q datapb.DescriptorsRequest
	for i := range wants {
		q.Blocks = append(q.Blocks, &datapb.StatBlockRequest{Block: datapb.FromBlock(wants[i].ID), Grant: datapb.FromGrant(&wants[i].Grant), Partial: wants[i].Partial})
	}
	meta, err := q.MarshalVT()
	if err != nil {
		return nil, orca.PathE("shortcircuit.FetchMany", "", orca.Internal, err)
	}
	reply, fds, err := c.roundTrip(ctx, frame.OpDescriptors, meta)
	if err != nil {
		return nil, err
	}
	var a datapb.DescriptorsReply
	if err := a.UnmarshalVT(reply); err != nil || len(a.Results) != len(wants) {
		closeAll(fds)
		return nil, orca.PathE("shortcircuit.FetchMany", c.cfg.Path, orca.Internal, err)
	}
	return sortOut(wants, a.Results, fds)
}

// sortOut gives each result its descriptor.
func sortOut(wants []Want, results []*datapb.DescriptorResult, fds []int) ([]Got, error) {
	good := 0
	for _, r := range results {
		if r.Status == 0 {
			good++
		}
	}
	if good != len(fds) {
		// The kernel drops descriptors when this process has too many.
		closeAll(fds)
		return nil, orca.E("shortcircuit.FetchMany", orca.Busy, "this process can hold no more descriptors")
	}
	got := make([]Got, len(results))
	for i, r := range results {
		if r.Status != 0 {
			got[i].Err = &orca.Error{Op: "shortcircuit.Fetch", Path: wants[i].ID.String(), Kind: orca.Kind(r.Status), Msg: r.Error}
			continue
		}
		got[i] = Got{File: os.NewFile(uintptr(fds[0]), wants[i].ID.String()), Length: r.Length, Generation: r.Generation}
		fds = fds[1:]
	}
	return got, nil
}

// WriteFile gets the private file of a write handle, opened for writing. The
// caller closes it.
func (c *Client) WriteFile(ctx context.Context, id uint64, g dataplane.Grant) (*os.File, error) {
	meta, err := (&datapb.HandleRequest{Id: id, Grant: datapb.FromGrant(&g)}).MarshalVT()
	if err != nil {
		return nil, orca.PathE("shortcircuit.WriteFile", "", orca.Internal, err)
	}
	_, fds, err := c.roundTrip(ctx, frame.OpWriteFile, meta)
	if err != nil {
		return nil, err
	}
	if len(fds) != 1 {
		closeAll(fds)
		return nil, orca.E("shortcircuit.WriteFile", orca.Busy, "this process can hold no more descriptors")
	}
	return os.NewFile(uintptr(fds[0]), "private file"), nil
}

// roundTrip sends one packet and receives one, on a connection of its own for
// the while. A connection that the server had closed is replaced once: nothing
// here changes anything.
func (c *Client) roundTrip(ctx context.Context, op frame.Op, meta []byte) ([]byte, []int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctxError(ctx)
	}
	defer func() { <-c.places }()
	for {
		conn, used, err := c.conn(ctx)
		if err != nil {
			return nil, nil, err
		}
		reply, fds, err := c.exchange(ctx, conn, op, meta)
		c.giveBack(conn, err == nil || !errors.Is(err, errConn))
		if err == nil || !errors.Is(err, errConn) {
			return reply, fds, err
		}
		if ctx.Err() != nil {
			return nil, nil, ctxError(ctx)
		}
		if !used {
			return nil, nil, orca.PathE("shortcircuit", c.cfg.Path, orca.Unavailable, err)
		}
	}
}

// errConn marks errors after which a connection is of no more use.
var errConn = errors.New("descriptor socket")

func (c *Client) exchange(ctx context.Context, conn *net.UnixConn, op frame.Op, meta []byte) ([]byte, []int, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	h := frame.Header{Op: op, Seq: c.seq.Add(1), Meta: uint32(len(meta))}
	if _, _, err := conn.WriteMsgUnix(append(h.AppendTo(nil), meta...), nil, nil); err != nil {
		return nil, nil, errors.Join(errConn, err)
	}
	buf := make([]byte, maxPacket)
	oob := make([]byte, unix.CmsgSpace(4*MaxBatch))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	fds := rights(oob[:oobn])
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, errors.Join(errConn, err)
	}
	r, err := frame.Decode(buf[:n])
	if err != nil || r.Seq != h.Seq || r.Flags != frame.FlagReply || frame.Size+r.Len() != n {
		closeAll(fds)
		return nil, nil, errors.Join(errConn, err)
	}
	if !stop() {
		closeAll(fds)
		return nil, nil, errConn // the deadline may be set at any moment
	}
	if r.Status != orca.OK {
		closeAll(fds)
		return nil, nil, frame.DecodeError(r.Status, buf[frame.Size:n])
	}
	return buf[frame.Size:n], fds, nil
}

// rights takes the descriptors out of control data (package net receives them
// close-on-exec).
func rights(oob []byte) []int {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var fds []int
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

func (c *Client) conn(ctx context.Context) (conn *net.UnixConn, used bool, err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, false, errClientClosed
	}
	if n := len(c.free); n > 0 {
		conn, c.free = c.free[n-1], c.free[:n-1]
		c.busy[conn] = struct{}{}
		c.mu.Unlock()
		return conn, true, nil
	}
	c.mu.Unlock()
	nc, err := new(net.Dialer).DialContext(ctx, network, c.cfg.Path)
	if err != nil {
		if ctx.Err() != nil {
			return nil, false, ctxError(ctx)
		}
		return nil, false, orca.PathE("shortcircuit", c.cfg.Path, orca.Unavailable, err)
	}
	conn = nc.(*net.UnixConn)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return nil, false, errClientClosed
	}
	c.busy[conn] = struct{}{}
	return conn, false, nil
}

var errClientClosed = orca.E("shortcircuit", orca.Unavailable, "client is closed")

func (c *Client) giveBack(conn *net.UnixConn, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, conn)
	if good && !c.closed {
		c.free = append(c.free, conn)
		return
	}
	_ = conn.Close()
}

// ctxError turns the end of a context into a Timeout or Canceled.
func ctxError(ctx context.Context) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return &orca.Error{Op: "shortcircuit", Kind: k, Err: ctx.Err()}
}
