// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

// Client calls one server. Calls share a few connections, which are made when
// needed and made again, with a pause, when lost. It is safe for concurrent
// use.
type Client struct {
	cfg     ClientConfig
	log     *slog.Logger
	metrics ClientMetrics
	slots   []slot
	turn    atomic.Uint32
	closed  atomic.Bool
	wg      sync.WaitGroup // readers
}

// slot is the place of one connection.
type slot struct {
	// lock is a mutex that can be waited for with a context; it guards what
	// follows and is held while connecting.
	lock    chan struct{}
	conn    atomic.Pointer[clientConn]
	retryAt time.Time
	backoff time.Duration
	lastErr error
}

// Response is what a call brought back.
type Response struct {
	Meta []byte
	Body []byte
	buf  *bytebufferpool.ByteBuffer
}

// Release gives the memory of Meta and Body back, which must not be used any
// more. Not calling it leaves them to the garbage collector.
func (r *Response) Release() {
	if r.buf != nil {
		bytebufferpool.Put(r.buf)
		r.buf, r.Meta, r.Body = nil, nil, nil
	}
}

// NewClient makes a client; the first call connects. Invalid when cfg is
// wrong.
func NewClient(cfg ClientConfig, log *slog.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, log: log, slots: make([]slot, cfg.Conns)}
	for i := range c.slots {
		c.slots[i].lock = make(chan struct{}, 1)
	}
	return c, nil
}

// Metrics returns the counters of the client.
func (c *Client) Metrics() *ClientMetrics { return &c.metrics }

// Addr returns the address of the server.
func (c *Client) Addr() string { return c.cfg.Addr }

var errClientClosed = orca.E("transport.Call", orca.Unavailable, "client is closed")

// Call sends one request and waits for its reply. meta and body may be reused
// after the return. A reply with a status other than OK is returned as an
// *orca.Error of that Kind. Other errors: Unavailable (cannot connect, or the
// connection was lost: whether the request was executed is unknown), Timeout
// and Canceled (ctx; the server is told to stop), TooLarge.
func (c *Client) Call(ctx context.Context, op frame.Op, meta, body []byte) (Response, error) {
	return c.CallWithin(ctx, 0, op, meta, body)
}

// CallWithin is Call that also gives up, with Timeout, after d; 0 means
// CallTimeout where ctx has no deadline. It allocates no context for it.
func (c *Client) CallWithin(ctx context.Context, d time.Duration, op frame.Op, meta, body []byte) (Response, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline); d <= 0 || left < d {
			d = max(left, time.Millisecond)
		}
	} else if d <= 0 {
		d = c.cfg.CallTimeout
	}
	c.metrics.Calls.Add(1)
	c.metrics.InFlight.Add(1)
	defer c.metrics.InFlight.Add(-1)
	r, err := c.call(ctx, d, op, meta, body)
	if err != nil {
		c.metrics.Errors.Add(1)
	}
	return r, err
}

func (c *Client) call(ctx context.Context, d time.Duration, op frame.Op, meta, body []byte) (Response, error) {
	if len(meta) > frame.MaxMeta || len(body) > frame.MaxBody {
		return Response{}, orca.E("transport.Call", orca.TooLarge, "request over the limits of a frame")
	}
	cc, err := c.conn(ctx)
	if err != nil {
		return Response{}, err
	}
	cl := callPool.Get().(*call)
	cl.timer.Reset(d)
	select {
	case cc.window <- struct{}{}:
	default:
		err = nil
		select {
		case cc.window <- struct{}{}:
		case <-ctx.Done():
			err = ctxError(ctx)
		case <-cl.timer.C:
			err = errLate
		case <-cc.gone:
			err = cc.lost()
		}
		if err != nil {
			cl.recycle()
			return Response{}, err
		}
	}
	resp, err := cc.roundTrip(ctx, d, cl, op, meta, body)
	<-cc.window
	cl.recycle()
	return resp, err
}

var errLate = orca.E("transport.Call", orca.Timeout, "no answer in time")

// Ping makes a round trip that costs the server nothing.
func (c *Client) Ping(ctx context.Context) error {
	r, err := c.Call(ctx, frame.OpPing, nil, nil)
	r.Release()
	return err
}

// Close closes the connections: outstanding calls fail with Unavailable.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	for i := range c.slots {
		s := &c.slots[i]
		s.lock <- struct{}{} // no connection is made any more
		if cc := s.conn.Load(); cc != nil {
			cc.close(errClientClosed)
		}
		<-s.lock
	}
	c.wg.Wait()
	return nil
}

// conn returns a live connection, making one if there is none.
func (c *Client) conn(ctx context.Context) (*clientConn, error) {
	s := &c.slots[int(c.turn.Add(1))%len(c.slots)]
	if cc := s.conn.Load(); cc != nil && !cc.dead.Load() {
		return cc, nil
	}
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, ctxError(ctx)
	}
	defer func() { <-s.lock }()
	if c.closed.Load() {
		return nil, errClientClosed
	}
	if cc := s.conn.Load(); cc != nil && !cc.dead.Load() {
		return cc, nil
	}
	if time.Now().Before(s.retryAt) {
		return nil, s.lastErr
	}
	cc, err := c.connect(ctx)
	if err != nil {
		c.metrics.DialFail.Add(1)
		if ctx.Err() == nil { // else the attempt was cut short: it says nothing of the server
			s.backoff = min(max(2*s.backoff, c.cfg.BackoffMin), c.cfg.BackoffMax)
			s.retryAt, s.lastErr = time.Now().Add(s.backoff), err
		}
		return nil, err
	}
	s.backoff, s.lastErr = 0, nil
	s.conn.Store(cc)
	return cc, nil
}

func (c *Client) connect(ctx context.Context) (*clientConn, error) {
	c.metrics.Dials.Add(1)
	nc, err := dial(ctx, &c.cfg)
	if err != nil {
		return nil, err
	}
	cc, err := newClientConn(c, nc)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	c.wg.Add(1)
	c.metrics.Conns.Add(1)
	go cc.readLoop()
	return cc, nil
}

// dial connects within cfg.DialTimeout and ctx.
func dial(ctx context.Context, cfg *ClientConfig) (net.Conn, error) {
	d := net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 10 * time.Second}
	nc, err := d.DialContext(ctx, cfg.Network, cfg.Addr)
	if err == nil {
		dropUnacked(nc)
		return nc, nil
	}
	if ctx.Err() != nil {
		return nil, ctxError(ctx)
	}
	return nil, orca.PathE("transport.Dial", cfg.Network+" "+cfg.Addr, orca.Unavailable, err)
}

// ctxError turns the end of a context into a Timeout or Canceled.
func ctxError(ctx context.Context) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return &orca.Error{Op: "transport.Call", Kind: k, Err: ctx.Err()}
}

// timeoutMillis is d for Header.Timeout.
func timeoutMillis(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 1), math.MaxUint32))
}

// noAck is for how long the kernel sends again, or asks, what a peer does not
// acknowledge (a host without power sends no reset) before the connection is
// lost, in milliseconds. A peer whose process is stuck does acknowledge.
const noAck = 20_000

// dropUnacked applies noAck; where the kernel does not, it takes longer.
func dropUnacked(nc net.Conn) {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if rc, err := tc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, noAck)
		})
	}
}
