// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/dataplane/frame"
)

// TestSlowReadersDoNotStarveOthers: of eight places, connections that read
// nothing may have four. As long as they have no more they are left alone; when
// four of them have all eight, two make room for one that reads, and the other
// two get what they asked for once they read, too.
func TestSlowReadersDoNotStarveOthers(t *testing.T) {
	const size, each, small = frame.MaxBody, 16, 64 << 10
	body := make([]byte, size)
	ts := newTestServer(t, ServerConfig{MaxBodies: 2, MaxBodiesAll: 8, SlowBody: 500 * time.Millisecond, WriteTimeout: time.Hour})
	ts.handler = func(ctx context.Context, r *Request) Reply {
		if err := r.Place(ctx, false); err != nil {
			return Fail(err)
		}
		n := size
		if len(r.Meta) > 0 {
			n = small
		}
		return Reply{Body: body[:n], Release: r.Leave()}
	}
	bodies := func(c net.Conn, n int) {
		t.Helper()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		for range n {
			head := make([]byte, frame.Size)
			_, err := io.ReadFull(c, head)
			require.NoError(t, err)
			h, err := frame.Decode(head)
			require.NoError(t, err)
			require.Zero(t, h.Status)
			_, err = io.CopyN(io.Discard, c, int64(h.Len()))
			require.NoError(t, err)
		}
	}
	reader := raw(t, ts)
	read := func() {
		t.Helper()
		for seq := range uint64(20) {
			_, err := reader.Write(request(opFile, seq+1, "small"))
			require.NoError(t, err)
		}
		bodies(reader, 20)
	}
	var slow []net.Conn
	for i := range 4 {
		c := raw(t, ts)
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
		slow = append(slow, c)
		for seq := range uint64(each) {
			_, err := c.Write(request(opFile, seq+1, ""))
			require.NoError(t, err)
		}
		eventually(t, "its places", func() bool { return ts.metrics.Bodies.Load() == int64(2*i+2) })
		eventually(t, "its peer is waited for", func() bool {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			n := 0
			for c := range ts.conns {
				if c.out.full.Load() {
					n++
				}
			}
			return n == i+1
		})
		if i == 1 {
			eventually(t, "they are slow", func() bool {
				ts.bodies.mu.Lock()
				defer ts.bodies.mu.Unlock()
				for _, s := range ts.bodies.held {
					if time.Since(s.since) < ts.bodies.slow {
						return false
					}
				}
				return true
			})
			read()
			require.Zero(t, ts.metrics.SlowBody.Load(), "they have their half and no more")
		}
	}
	read()
	require.EqualValues(t, 2, ts.metrics.SlowBody.Load())
	for _, c := range slow[:2] {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err := io.Copy(io.Discard, c)
		if err != nil {
			require.NotErrorIs(t, err, context.DeadlineExceeded, "the slowest are closed")
		}
	}
	for _, c := range slow[2:] {
		bodies(c, each)
	}
	eventually(t, "all places are free", func() bool { return ts.metrics.Bodies.Load() == 0 })
	read()
}
