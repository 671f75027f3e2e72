// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/netpoll"

	"orca"
	"orca/dataplane/frame"
)

// Server answers frames with a Handler on any number of listeners.
type Server struct {
	cfg     ServerConfig
	handler Handler
	inline  func(frame.Op) bool
	log     *slog.Logger
	metrics ServerMetrics
	bodies  *bodies
	drain   atomic.Bool

	wg    sync.WaitGroup // accept loops and the sweeper
	stop  chan struct{}  // closed by Shutdown
	once  sync.Once
	mu    sync.Mutex
	loops []serving
	conns map[*serverConn]struct{}
}

type serving struct {
	loop netpoll.EventLoop
	ln   *listener
	gone chan struct{} // closed when netpoll's poller has let go of ln
}

// pollers guards the one configuration of netpoll in this process.
var pollers sync.Once

// parsers runs all parsers of this process.
var parsers crew

// NewServer makes a server; nothing listens yet. inline says which operations
// are so quick that they run on the connection's parser (they must not block,
// nor use Request.Send; what would have to wait says Reply.Later and is called
// again elsewhere, or is parked, see Reply.Parked); nil means none. Invalid when cfg is wrong.
func NewServer(cfg ServerConfig, handler Handler, inline func(frame.Op) bool, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if handler == nil {
		return nil, orca.E("transport.NewServer", orca.Invalid, "no handler")
	}
	if inline == nil {
		inline = func(frame.Op) bool { return false }
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	pollers.Do(func() {
		n := cfg.Pollers
		if n == 0 {
			n = runtime.GOMAXPROCS(0)/4 + 1
		}
		err := netpoll.Configure(netpoll.Config{
			PollerNum:    n,
			Runner:       func(_ context.Context, f func()) { parsers.run(f) },
			LoggerOutput: logWriter{log},
		})
		if err != nil {
			log.Warn("netpoll keeps its own configuration", "err", err)
		}
	})
	s := &Server{
		cfg: cfg, handler: handler, inline: inline, log: log,
		stop: make(chan struct{}), conns: make(map[*serverConn]struct{}),
	}
	s.bodies = newBodies(&s.cfg, &s.metrics)
	s.wg.Add(1)
	go s.sweep()
	return s, nil
}

// logWriter passes netpoll's own messages to the log.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn("netpoll", "msg", string(bytes.TrimSpace(p)))
	return len(p), nil
}

// Metrics returns the counters of the server.
func (s *Server) Metrics() *ServerMetrics { return &s.metrics }

// Listen opens a listening socket and serves it: "tcp" with host:port (port 0
// chooses one), or "unix" with a path. It returns the address in use. The
// errors are those of the function Listen, and Unavailable after Shutdown.
func (s *Server) Listen(network, addr string) (net.Addr, error) {
	ln, err := Listen(network, addr)
	if err != nil {
		return nil, err
	}
	if err := s.Serve(ln); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln.Addr(), nil
}

// Serve serves a listener, which it owns from now on, and returns at once.
func (s *Server) Serve(ln net.Listener) error {
	l, err := newListener(ln)
	if err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(s.onRequest,
		netpoll.WithOnPrepare(s.onPrepare),
		netpoll.WithOnDisconnect(onDisconnect),
		netpoll.WithReadTimeout(s.cfg.ReadTimeout))
	if err != nil {
		return orca.PathE("transport.Serve", ln.Addr().String(), orca.Internal, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain.Load() {
		return orca.E("transport.Serve", orca.Unavailable, "server is shutting down")
	}
	gone := make(chan struct{})
	s.loops = append(s.loops, serving{loop, l, gone})
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer close(gone)
		if err := loop.Serve(l); err != nil && !s.drain.Load() {
			s.log.Error("listener stopped", "addr", ln.Addr().String(), "err", err)
		}
	}()
	return nil
}

// Addrs returns the addresses listened on.
func (s *Server) Addrs() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := make([]net.Addr, len(s.loops))
	for i, l := range s.loops {
		a[i] = l.ln.Addr()
	}
	return a
}

// Shutdown refuses new connections and requests (Unavailable), waits until the
// requests in work are answered or ctx ends, and closes everything. Timeout
// when requests had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.drain.Store(true)
	loops := s.loops
	s.mu.Unlock()
	s.once.Do(func() { close(s.stop) })
	for _, l := range loops {
		l.ln.stopAccepting()
	}
	s.waitGone(loops)
	err := s.waitIdle(ctx)
	s.closeAll()
	for _, l := range loops {
		// Every connection is closed: what is left is a parser on its way out.
		sctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if e := l.loop.Shutdown(sctx); e != nil {
			s.log.Warn("a connection is still in work", "addr", l.ln.Addr().String(), "err", e)
		}
		cancel()
	}
	s.wg.Wait()
	// Handlers saw their context end; give them the time to return.
	for t := time.Now(); s.metrics.Handlers.Load() > 0 && time.Since(t) < 5*time.Second; {
		time.Sleep(time.Millisecond)
	}
	return err
}

var (
	errShutdown = orca.E("transport", orca.Unavailable, "server is shutting down")
	errPeerGone = orca.E("transport", orca.Unavailable, "connection lost")
	errBusyConn = orca.E("transport", orca.Busy, "too many requests in flight on this connection")
	errBusyAll  = orca.E("transport", orca.Busy, "too many requests in work")
)

// waitGone waits until netpoll's poller has let go of the listeners, which is
// what stopAccepting makes it do. EventLoop.Shutdown closes a descriptor
// although the poller may be about to remove that number from its epoll set
// (of the two detachments of an operator the second does nothing, and does not
// wait for the first). If the number is then in use again, by a listener of
// the next Server, that one is removed: it takes connections and never serves
// them. When the loop has ended by itself, the removal is done. This also
// means that every connection that was accepted is among s.conns.
func (s *Server) waitGone(loops []serving) {
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	for _, l := range loops {
		select {
		case <-l.gone:
		case <-late.C:
			s.log.Warn("the poller does not let go of a listener", "addr", l.ln.Addr().String())
			return
		}
	}
}

// closeAll closes all connections and waits until netpoll's poller has let go of
// them: EventLoop.Shutdown would close those that it finds.
func (s *Server) closeAll() {
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	all := s.snapshot()
	for _, c := range all {
		c.close(errShutdown)
	}
	for _, c := range all {
		select {
		case <-c.gone:
		case <-late.C:
			return
		}
	}
}

// waitIdle polls, because requests end on the hot path.
func (s *Server) waitIdle(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.metrics.InFlight.Load() > 0 || s.unsent() {
		select {
		case <-ctx.Done():
			return &orca.Error{Op: "transport.Shutdown", Kind: orca.Timeout, Msg: "requests were cut off", Err: ctx.Err()}
		case <-tick.C:
		}
	}
	return nil
}

func (s *Server) unsent() bool {
	for _, c := range s.snapshot() {
		if c.out.queued() > 0 {
			return true
		}
	}
	return false
}

func (s *Server) snapshot() []*serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		cs = append(cs, c)
	}
	return cs
}

// sweep closes connections that are idle for too long.
func (s *Server) sweep() {
	defer s.wg.Done()
	tick := time.NewTicker(max(s.cfg.IdleTimeout/8, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			for _, c := range s.snapshot() {
				if c.inFlight.Load() == 0 && now.Sub(time.Unix(0, c.last.Load())) > s.cfg.IdleTimeout {
					c.close(errPeerGone)
				}
			}
		}
	}
}
