// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane/frame"
)

const patience = 10 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond, what)
}

// raw dials without the client's manners.
func raw(t *testing.T, ts *testServer) net.Conn {
	t.Helper()
	if len(ts.Addrs()) == 0 {
		_, err := ts.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
	}
	c, err := net.Dial("tcp", ts.Addrs()[0].String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func request(op frame.Op, seq uint64, meta string) []byte {
	h := frame.Header{Op: op, Seq: seq, Meta: uint32(len(meta))}
	return append(h.AppendTo(nil), meta...)
}

// closedByServer waits until the server has closed c.
func closedByServer(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, c)
	require.False(t, os.IsTimeout(err), "the server kept the connection")
}

func TestCancelFreesTheFarEnd(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-ts.entered; cancel() }()
	_, err := c.Call(ctx, opWait, nil, nil)
	require.ErrorIs(t, err, orca.Canceled)
	require.ErrorIs(t, <-ts.left, context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = c.Call(ctx, opWait, nil, nil)
	require.ErrorIs(t, err, orca.Timeout)
	require.Error(t, <-ts.left)
	require.NoError(t, c.Ping(t.Context()), "the connection goes on")
	require.EqualValues(t, 1, ts.metrics.Accepted.Load())
	eventually(t, "requests in flight", func() bool { return ts.metrics.InFlight.Load() == 0 })
}

func TestTimeoutInHeaderEndsTheRequest(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := raw(t, ts)
	h := frame.Header{Op: opWait, Seq: 1, Timeout: 10}
	_, err := c.Write(h.AppendTo(nil))
	require.NoError(t, err)
	require.ErrorIs(t, <-ts.left, context.DeadlineExceeded)
}

func TestLostServerIsUnavailable(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	addr := ts.Addrs()[0].String()
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() { _, err := c.Call(t.Context(), opWait, nil, nil); errs <- err }()
	}
	for range cap(errs) {
		<-ts.entered
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, ts.Shutdown(ctx), orca.Timeout)
	for range cap(errs) {
		require.ErrorIs(t, <-errs, orca.Unavailable)
	}
	_, err := c.Call(t.Context(), opEcho, nil, nil)
	require.ErrorIs(t, err, orca.Unavailable)

	// A server that comes back on the port is found again.
	again := newTestServer(t, ServerConfig{})
	_, err = again.Listen("tcp", addr)
	require.NoError(t, err)
	eventually(t, "reconnect", func() bool { return c.Ping(t.Context()) == nil })
}

// A server that listens where another has just stopped is served: the poller's
// removal of the old listener must not hit the new one, whose descriptor has
// the same number.
func TestListenWhereAnotherStopped(t *testing.T) {
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	defer load.Wait()
	defer close(stop)
	dir := t.TempDir()
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(dir, "s")
		}
		for i := range 100 {
			s, err := NewServer(ServerConfig{}, func(context.Context, *Request) Reply { return Reply{} }, nil, nil)
			require.NoError(t, err)
			a, err := s.Listen(network, addr)
			require.NoError(t, err)
			addr = a.String()
			c, err := NewClient(ClientConfig{Network: network, Addr: addr, CallTimeout: 10 * time.Second}, nil)
			require.NoError(t, err)
			require.NoError(t, c.Ping(t.Context()), "%s, round %d", network, i)
			require.NoError(t, c.Close())
			require.NoError(t, s.Shutdown(t.Context()))
		}
	}
}

// The second Shutdown of a server touches nothing that has come since.
func TestShutdownTwice(t *testing.T) {
	listen := func() (*Server, string) {
		s, err := NewServer(ServerConfig{}, func(context.Context, *Request) Reply { return Reply{} }, nil, nil)
		require.NoError(t, err)
		a, err := s.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return s, a.String()
	}
	ping := func(addr string) {
		c, err := NewClient(ClientConfig{Addr: addr}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Ping(t.Context()))
		require.NoError(t, c.Close())
	}
	for range 40 {
		first, addr := listen()
		ping(addr)
		require.NoError(t, first.Shutdown(t.Context()))
		next, addr := listen() // as a rule with the descriptor that is free again
		require.NoError(t, first.Shutdown(t.Context()))
		ping(addr)
		require.NoError(t, next.Shutdown(t.Context()))
	}
}

// A server that is shut down before it has begun to accept gives its
// descriptor and its socket file back.
func TestShutdownAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 50 {
		s, err := NewServer(ServerConfig{}, func(context.Context, *Request) Reply { return Reply{} }, nil, nil)
		require.NoError(t, err)
		_, err = s.Listen("unix", path)
		require.NoError(t, err)
		require.NoError(t, s.Shutdown(t.Context()))
		require.NoFileExists(t, path)
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	ctx, cancel := context.WithCancel(t.Context())
	res := make(chan error, 1)
	go func() { _, err := c.Call(ctx, opWait, nil, nil); res <- err }()
	<-ts.entered
	done := make(chan error, 1)
	go func() { done <- ts.Shutdown(t.Context()) }()
	eventually(t, "refusal", func() bool {
		_, err := net.DialTimeout("tcp", ts.Addrs()[0].String(), time.Second)
		return err != nil
	})
	_, err := c.Call(t.Context(), opEcho, nil, nil)
	require.ErrorIs(t, err, orca.Unavailable, "on the old connection")
	select {
	case err := <-done:
		t.Fatal("shut down with a request in work", err)
	default:
	}
	cancel()
	require.NoError(t, <-done)
	require.Error(t, <-res)
	require.Zero(t, ts.metrics.Conns.Load())
}

func TestGarbageCostsOneConnection(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	require.NoError(t, c.Ping(t.Context()))
	bad := func(h frame.Header) string { return string(h.AppendTo(nil)) }
	for name, bytes := range map[string]string{
		"http":    "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"zeros":   strings.Repeat("\x00", 100),
		"reply":   bad(frame.Header{Flags: frame.FlagReply, Op: opEcho}),
		"status":  bad(frame.Header{Op: opEcho, Status: orca.Busy}),
		"length":  bad(frame.Header{Op: opEcho, Body: frame.MaxBody + 1}),
		"version": "or\x02" + bad(frame.Header{})[3:],
		"twice":   string(request(opWait, 5, "")) + string(request(opWait, 5, "")),
	} {
		g := raw(t, ts)
		_, err := g.Write([]byte(bytes))
		require.NoError(t, err, name)
		closedByServer(t, g)
	}
	require.NoError(t, c.Ping(t.Context()))
	require.EqualValues(t, 4, ts.metrics.Garbage.Load())
	require.EqualValues(t, 3, ts.metrics.Violation.Load())
	eventually(t, "connections", func() bool { return ts.metrics.Conns.Load() == 1 })
}

func TestHalfCloseEndsTheConnection(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := raw(t, ts)
	_, err := c.Write(request(opWait, 1, ""))
	require.NoError(t, err)
	<-ts.entered
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	require.Error(t, <-ts.left, "its request is canceled")
	closedByServer(t, c)
	eventually(t, "connections", func() bool { return ts.metrics.Conns.Load() == 0 })
}

func TestUnfinishedFrameIsCutOff(t *testing.T) {
	ts := newTestServer(t, ServerConfig{ReadTimeout: 50 * time.Millisecond})
	whole := request(opEcho, 1, "0123456789")
	for _, n := range []int{1, 31, 32, 40} {
		c := raw(t, ts)
		_, err := c.Write(whole[:n])
		require.NoError(t, err)
		closedByServer(t, c)
	}
	require.EqualValues(t, 4, ts.metrics.SlowRead.Load())
}

// A peer that asks for much and reads nothing is closed after the write
// timeout; what waits for it meanwhile is bounded.
func TestSlowReaderIsClosed(t *testing.T) {
	ts := newTestServer(t, ServerConfig{WriteTimeout: 300 * time.Millisecond, MaxInFlight: 16})
	c := raw(t, ts)
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for seq := range uint64(200) {
		if _, err := c.Write(request(opFile, seq+1, "")); err != nil {
			break
		}
	}
	eventually(t, "handlers at their cap", func() bool { return ts.metrics.Busy.Load() > 0 || ts.metrics.SlowPeer.Load() > 0 })
	require.LessOrEqual(t, ts.metrics.InFlight.Load(), int64(16))
	runtime.ReadMemStats(&during)
	require.Less(t, int64(during.HeapAlloc)-int64(before.HeapAlloc), int64(32<<20))
	eventually(t, "the slow peer is closed", func() bool { return ts.metrics.Conns.Load() == 0 })
	eventually(t, "handlers", func() bool { return ts.metrics.Handlers.Load() == 0 })
}

// Answers to what has come at once leave at once.
func TestInlineAnswersShareACall(t *testing.T) {
	const n = 64
	ts := newTestServer(t, ServerConfig{})
	c := raw(t, ts)
	var all []byte
	for seq := range uint64(n) {
		all = append(all, request(opQuick, seq+1, "abc")...)
	}
	_, err := c.Write(all)
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = io.ReadFull(c, make([]byte, n*(frame.Size+3)))
	require.NoError(t, err)
	require.LessOrEqual(t, ts.metrics.Sends.Load(), int64(n/4))
}

// What is answered from a file inline takes no handler, leaves in order, and is
// let go of when the peer hangs up instead of reading it.
func TestInlineFiles(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	var released atomic.Int64
	ts.handler = func(context.Context, *Request) Reply {
		return Reply{File: ts.file, N: 1 << 20, Release: func() { released.Add(1) }}
	}
	ts.inline = func(frame.Op) bool { return true }
	c := raw(t, ts)
	const n = 64
	for seq := range uint64(n) {
		_, err := c.Write(request(opFile, seq+1, ""))
		require.NoError(t, err)
	}
	head := make([]byte, frame.Size)
	for seq := range uint64(4) {
		_, err := io.ReadFull(c, head)
		require.NoError(t, err)
		h, err := frame.Decode(head)
		require.NoError(t, err)
		require.Equal(t, seq+1, h.Seq)
		_, err = io.CopyN(io.Discard, c, int64(h.Body))
		require.NoError(t, err)
	}
	eventually(t, "all have come", func() bool { return ts.metrics.Requests.Load() == n })
	require.Zero(t, ts.metrics.Handlers.Load())
	require.Positive(t, ts.metrics.InFlight.Load(), "nobody waits: this tests nothing")
	require.NoError(t, c.Close())
	eventually(t, "all are let go of", func() bool { return released.Load() == n && ts.metrics.InFlight.Load() == 0 })
}

func TestFloodIsRefusedThenCut(t *testing.T) {
	ts := newTestServer(t, ServerConfig{MaxInFlight: 8, WriteTimeout: time.Minute})
	c := raw(t, ts)
	var sent atomic.Int64
	go func() { // never reads
		meta := strings.Repeat("x", 60<<10)
		for seq := uint64(1); ; seq++ {
			if _, err := c.Write(request(opQuick, seq, meta)); err != nil {
				return
			}
			sent.Add(1)
		}
	}()
	eventually(t, "the flood is cut", func() bool { return ts.metrics.Violation.Load() == 1 })
	eventually(t, "connections", func() bool { return ts.metrics.Conns.Load() == 0 })
	require.Positive(t, ts.metrics.Busy.Load())
}

func TestCapIsBusy(t *testing.T) {
	ts := newTestServer(t, ServerConfig{MaxInFlight: 4})
	c := ts.client(t, "tcp")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		go func() { _, _ = c.Call(ctx, opWait, nil, nil) }()
		<-ts.entered
	}
	_, err := c.Call(t.Context(), opEcho, nil, nil)
	require.ErrorIs(t, err, orca.Busy)
	cancel()
	eventually(t, "room", func() bool { _, err := c.Call(t.Context(), opEcho, nil, nil); return err == nil })
}

func TestConnectionCap(t *testing.T) {
	ts := newTestServer(t, ServerConfig{MaxConns: 2})
	a, b := raw(t, ts), raw(t, ts)
	eventually(t, "two", func() bool { return ts.metrics.Conns.Load() == 2 })
	closedByServer(t, raw(t, ts))
	require.EqualValues(t, 1, ts.metrics.Refused.Load())
	_, _ = a, b
}

func TestIdleConnectionIsClosed(t *testing.T) {
	ts := newTestServer(t, ServerConfig{IdleTimeout: 80 * time.Millisecond})
	closedByServer(t, raw(t, ts))
	c := ts.client(t, "tcp")
	answers := func() bool { return c.Ping(t.Context()) == nil } // or it took longer than that
	eventually(t, "a connection is made", answers)
	eventually(t, "closed", func() bool { return ts.metrics.Conns.Load() == 0 })
	eventually(t, "a new connection is made", answers)
}

// TestNumbersOfClosedConnectionsAreUsedAgain: what takes the number of a
// connection that both ends close at once, another connection or a listener, is
// not taken for it.
func TestNumbersOfClosedConnectionsAreUsedAgain(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	const many = 8
	for range 40 {
		ends := make(chan struct{})
		var wg sync.WaitGroup
		for range many {
			c := raw(t, ts)
			_, err := c.Write(request(opWait, 1, ""))
			require.NoError(t, err)
			<-ts.entered
			wg.Go(func() {
				<-ends
				_ = c.Close()
			})
		}
		for _, c := range ts.snapshot() {
			wg.Go(func() {
				<-ends
				c.close(errPeerGone)
			})
		}
		close(ends)
		a, err := ts.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		c, err := NewClient(ClientConfig{Network: "tcp", Addr: a.String()}, nil)
		require.NoError(t, err)
		require.NoError(t, c.Ping(ctx))
		wg.Wait()
		for range many {
			<-ts.left
		}
		require.NoError(t, c.Close())
	}
}

func TestShortFileClosesTheConnection(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	require.NoError(t, ts.file.Truncate(1000))
	_, err := c.Call(t.Context(), opFile, nil, nil)
	require.ErrorIs(t, err, orca.Unavailable)
	eventually(t, "counter", func() bool { return ts.metrics.ShortFile.Load() == 1 })
}

func TestTakenAddress(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	a, err := ts.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, err = ts.Listen("tcp", a.String())
	require.ErrorIs(t, err, orca.Busy)
	require.Contains(t, err.Error(), a.String())
	require.Contains(t, err.Error(), fmt.Sprintf("pid %d", os.Getpid()))

	path := filepath.Join(t.TempDir(), "s")
	_, err = ts.Listen("unix", path)
	require.NoError(t, err)
	_, err = ts.Listen("unix", path)
	require.ErrorIs(t, err, orca.Busy)
	require.Contains(t, err.Error(), fmt.Sprintf("pid %d", os.Getpid()))

	stale := filepath.Join(t.TempDir(), "stale")
	ln, err := net.Listen("unix", stale)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	_, err = ts.Listen("unix", stale)
	require.NoError(t, err, "the socket of a server that is gone is replaced")
}

func TestPeerCredentials(t *testing.T) {
	got := make(chan Peer, 1)
	s, err := NewServer(ServerConfig{}, func(_ context.Context, r *Request) Reply { got <- *r.Peer; return Reply{} }, nil, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Shutdown(context.Background())) }()
	for _, network := range []string{"unix", "tcp"} {
		addr := filepath.Join(t.TempDir(), "s")
		if network == "tcp" {
			addr = "127.0.0.1:0"
		}
		a, err := s.Listen(network, addr)
		require.NoError(t, err)
		c, err := NewClient(ClientConfig{Network: network, Addr: a.String()}, nil)
		require.NoError(t, err)
		_, err = c.Call(t.Context(), opEcho, nil, nil)
		require.NoError(t, err)
		p := <-got
		require.Equal(t, network == "unix", p.Unix)
		if p.Unix {
			require.Equal(t, Cred{int32(os.Getpid()), uint32(os.Getuid()), uint32(os.Getgid())}, p.Cred)
		}
		require.NoError(t, c.Close())
	}
}

func TestCallerRule(t *testing.T) {
	claim := orca.Caller{UID: 7, GID: 8, Groups: []uint32{9}}
	for _, c := range []struct {
		peer Peer
		want orca.Caller
	}{
		{Peer{}, claim},
		{Peer{Unix: true, Cred: Cred{UID: 0}}, claim},
		{Peer{Unix: true, Cred: Cred{UID: 500}}, claim}, // the server's own
		{Peer{Unix: true, Cred: Cred{UID: 7, GID: 8}}, orca.Caller{UID: 7, GID: 8}},
		{Peer{Unix: true, Cred: Cred{UID: 66, GID: 67}}, orca.Caller{UID: 66, GID: 67}},
	} {
		require.Equal(t, c.want, c.peer.Caller(claim, 500), "%+v", c.peer)
	}
}

func TestClientLimits(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	_, err := c.Call(t.Context(), opEcho, nil, make([]byte, frame.MaxBody+1))
	require.ErrorIs(t, err, orca.TooLarge)
	_, err = NewClient(ClientConfig{Network: "udp", Addr: "x"}, nil)
	require.ErrorIs(t, err, orca.Invalid)
	require.NoError(t, c.Close())
	_, err = c.Call(t.Context(), opEcho, nil, nil)
	require.ErrorIs(t, err, orca.Unavailable)
}

// BenchmarkCall measures small round trips: one caller, and many on one
// connection.
func BenchmarkCall(b *testing.B) {
	ts := newTestServer(b, ServerConfig{})
	c := ts.client(b, "tcp")
	meta := make([]byte, 100)
	for _, op := range []frame.Op{opQuick, opEcho} {
		b.Run(map[frame.Op]string{opQuick: "inline", opEcho: "handoff"}[op], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := c.Call(b.Context(), op, meta, nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Release()
			}
		})
		b.Run(map[frame.Op]string{opQuick: "inline-64", opEcho: "handoff-64"}[op], func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := c.Call(b.Context(), op, meta, nil)
					if err != nil {
						b.Error(err)
						return
					}
					r.Release()
				}
			})
		})
	}
}
