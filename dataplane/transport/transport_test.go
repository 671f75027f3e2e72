// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane/frame"
)

func TestMain(m *testing.M) {
	// netpoll's pollers live as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

const (
	opEcho frame.Op = 0x7000 + iota // meta and body come back
	opQuick
	opFail
	opWait // until its context ends
	opFile
	opMore
	opPanic
	opBig
	opLater  // says Later on the parser, and waits for a moment elsewhere
	opParked // parked: answered elsewhere, or at once, or resumed, as its meta says
)

// testServer is a server with the operations above.
type testServer struct {
	*Server
	file    *os.File
	entered chan struct{} // opWait has begun
	left    chan error    // opWait has ended
	kept    chan *Request // of opParked
}

func newTestServer(t testing.TB, cfg ServerConfig) *testServer {
	t.Helper()
	ts := &testServer{entered: make(chan struct{}, 4096), left: make(chan error, 4096), kept: make(chan *Request, 16)}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(8<<20))
	ts.file = f
	ts.Server, err = NewServer(cfg, ts.handle, func(op frame.Op) bool { return op == opQuick || op == opLater || op == opParked }, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = ts.Shutdown(ctx)
		_ = f.Close()
	})
	return ts
}

func (ts *testServer) handle(ctx context.Context, r *Request) Reply {
	switch r.Op {
	case opEcho, opQuick:
		return Reply{Meta: append(r.Scratch(len(r.Meta)), r.Meta...), Body: append([]byte(nil), r.Body...)}
	case opFail:
		return Fail(orca.PathE("test.Fail", "/x", orca.NotEmpty, errors.New("cause")))
	case opWait:
		ts.entered <- struct{}{}
		<-ctx.Done()
		ts.left <- ctx.Err()
		return Fail(ctx.Err())
	case opFile:
		return Reply{Meta: []byte("sums"), File: ts.file, Off: 0, N: 1 << 20}
	case opMore:
		for i := range 3 {
			if err := r.Send(Reply{Meta: []byte{byte(i)}, Body: []byte(fmt.Sprint(i))}); err != nil {
				return Fail(err)
			}
		}
		return Reply{Meta: []byte{3}, Body: []byte("end")}
	case opPanic:
		panic("on purpose")
	case opLater:
		if r.Inline {
			return Reply{Later: true}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return Reply{Meta: append(r.Scratch(len(r.Meta)), r.Meta...), Body: append([]byte(nil), r.Body...), Later: len(r.Meta) == 0}
	case opParked:
		echo := func(_ context.Context, r *Request) Reply {
			return Reply{Meta: append(r.Scratch(len(r.Meta)), r.Meta...), Body: append([]byte(nil), r.Body...)}
		}
		switch string(r.Meta) {
		case "at once":
			r.Answer(echo(ctx, r))
		case "resume":
			go r.Resume(echo)
		case "never":
			ts.kept <- r
		default:
			go func() { r.Answer(echo(ctx, r)) }()
		}
		return Reply{Parked: true}
	case opBig:
		return Reply{Body: make([]byte, 4<<20)}
	}
	return Fail(orca.E("test", orca.Unsupported, "unknown operation"))
}

func (ts *testServer) client(t testing.TB, network string) *Client {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	a, err := ts.Listen(network, addr)
	require.NoError(t, err)
	c, err := NewClient(ClientConfig{Network: network, Addr: a.String()}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestCall(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			ts := newTestServer(t, ServerConfig{})
			c := ts.client(t, network)
			ctx := t.Context()
			for _, op := range []frame.Op{opEcho, opQuick, opLater, opParked} {
				for _, n := range []int{0, 1, 100, copyBody - 1, copyBody, copyBody + 1, 3 << 20} {
					body := bytes.Repeat([]byte{byte(n)}, n)
					r, err := c.Call(ctx, op, []byte("meta"), body)
					require.NoError(t, err)
					require.Equal(t, "meta", string(r.Meta))
					require.True(t, bytes.Equal(body, r.Body), "body of %d", n)
					r.Release()
				}
			}
			for _, how := range []string{"at once", "resume"} {
				r, err := c.Call(ctx, opParked, []byte(how), []byte("body"))
				require.NoError(t, err)
				require.Equal(t, how+"body", string(r.Meta)+string(r.Body))
			}
			_, err := c.Call(ctx, opLater, nil, nil)
			require.ErrorIs(t, err, orca.Internal, "put off twice")
			_, err = c.Call(ctx, opFail, nil, nil)
			require.ErrorIs(t, err, orca.NotEmpty)
			require.Equal(t, "test.Fail '/x': not empty: cause", err.Error())
			r, err := c.Call(ctx, opFile, nil, nil)
			require.NoError(t, err)
			require.Equal(t, "sums", string(r.Meta))
			require.Len(t, r.Body, 1<<20)
			r, err = c.Call(ctx, opMore, nil, nil)
			require.NoError(t, err)
			require.Equal(t, "\x00\x01\x02\x03", string(r.Meta))
			require.Equal(t, "012end", string(r.Body))
			_, err = c.Call(ctx, opPanic, nil, nil)
			require.ErrorIs(t, err, orca.Internal)
			require.NoError(t, c.Ping(ctx))
			_, err = c.Call(ctx, 0x7fff, nil, nil)
			require.ErrorIs(t, err, orca.Unsupported)
			require.EqualValues(t, 1, ts.metrics.Accepted.Load())
		})
	}
}

// TestParkedRequestsAreCounted: a parked request is in work until it is
// answered, whether its caller still waits, has left, or is cut off.
func TestParkedRequestsAreCounted(t *testing.T) {
	ts := newTestServer(t, ServerConfig{MaxInFlight: 2})
	c := ts.client(t, "tcp")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range cap(ended) {
		go func() { _, err := c.Call(ctx, opParked, []byte("never"), nil); ended <- err }()
	}
	kept := []*Request{<-ts.kept, <-ts.kept}
	require.EqualValues(t, 2, ts.metrics.InFlight.Load())
	_, err := c.Call(t.Context(), opEcho, nil, nil)
	require.ErrorIs(t, err, orca.Busy)
	cancel()
	for range kept {
		require.ErrorIs(t, <-ended, orca.Canceled)
	}
	for _, r := range kept {
		r.Answer(Reply{})
	}
	require.Zero(t, ts.metrics.InFlight.Load())
	require.NoError(t, c.Ping(t.Context()), "answers that nobody waits for do no harm")

	go func() { _, err := c.Call(t.Context(), opParked, []byte("never"), nil); ended <- err }()
	r := <-ts.kept
	sctx, scancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer scancel()
	require.ErrorIs(t, ts.Shutdown(sctx), orca.Timeout)
	require.ErrorIs(t, <-ended, orca.Unavailable)
	r.Answer(Reply{Meta: []byte("too late")})
	require.Zero(t, ts.metrics.InFlight.Load())
}

// TestRequestsShareACall lets callers that were woken together ask again.
func TestRequestsShareACall(t *testing.T) {
	const n = 32
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, errors.Join(unix.Close(fds[0]), unix.Close(fds[1]))) }()
	var m ClientMetrics
	cc := &clientConn{out: outbox{fd: fds[0], bytes: &m.BytesOut, sends: &m.Sends}}

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // each runs until it lets others
	cc.waking.Store(n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, _ = cc.woken(&call{})
			cc.send(&frame.Header{Op: opEcho, Seq: uint64(i), Meta: 4}, []byte("meta"), nil)
		})
	}
	wg.Wait()
	require.EqualValues(t, n*(frame.Size+4), m.BytesOut.Load(), "nothing is left behind")
	require.LessOrEqual(t, m.Sends.Load(), int64(n/4))
	require.Zero(t, cc.waking.Load())
}

// TestWakingIsCounted: however calls end, nobody is thought to be waking after.
func TestWakingIsCounted(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	ctx := context.Background()
	_, err := c.Call(ctx, opEcho, []byte("m"), nil)
	require.NoError(t, err)
	cc := c.slots[0].conn.Load()
	_, err = c.Call(ctx, opFail, nil, nil)
	require.ErrorIs(t, err, orca.NotEmpty)
	_, err = c.CallWithin(ctx, time.Millisecond, opWait, nil, nil)
	require.ErrorIs(t, err, orca.Timeout)
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := c.Call(ctx, opWait, nil, nil)
			errs <- err
		}()
	}
	for range 9 {
		<-ts.entered
	}
	require.NoError(t, c.Close())
	for range 8 {
		require.ErrorIs(t, <-errs, orca.Unavailable)
	}
	require.Zero(t, cc.waking.Load())
}

func TestConcurrentCalls(t *testing.T) {
	ts := newTestServer(t, ServerConfig{})
	c := ts.client(t, "tcp")
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 50 {
				op := opEcho + frame.Op(i%2)
				meta := []byte(fmt.Sprintf("%d/%d", g, i))
				body := bytes.Repeat(meta, 1+i*200)
				r, err := c.Call(t.Context(), op, meta, body)
				if err != nil || !bytes.Equal(r.Meta, meta) || !bytes.Equal(r.Body, body) {
					t.Errorf("call %s: %v", meta, err)
					return
				}
				r.Release()
			}
		})
	}
	wg.Wait()
}
