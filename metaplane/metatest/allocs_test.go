// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

//go:build !race

// Under the race detector a sync.Pool forgets at random, so that nothing can be
// said about allocations.

package metatest

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/metawire"
)

// maxStatAllocs is how many allocations one served stat may cost the server.
const maxStatAllocs = 4

// TestStatAllocs holds a served stat to its allocations, from the socket to the
// socket: what is counted is the whole process while a client that allocates
// nothing asks, so little more than the server's share.
func TestStatAllocs(t *testing.T) {
	h := NewHarness(t)
	h.Start(t)
	t.Cleanup(h.Stop)
	s := metaclient.NewSession(h.Service, metaclient.SessionConfig{})
	const path = "/p/a/b/c/d/e/f/g"
	_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{Target: at("/p/a/b/c/d/e/f"), Mode: 0o755, Parents: true})
	require.NoError(t, err)
	_, err = s.Create(t.Context(), &metapb.CreateRequest{Target: at(path), Complete: true, WriteType: 1})
	require.NoError(t, err)
	srv, err := metaserver.NewServer(h.Service, transport.ServerConfig{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	addr, err := srv.Listen("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Shutdown(context.Background())) })

	body, err := metawire.Marshal(&metapb.StatRequest{H: &metapb.Header{Caller: &metapb.Caller{}}, Target: at(path)})
	require.NoError(t, err)
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	head := frame.Header{Op: metawire.OpStat, Meta: uint32(len(body))}
	buf := make([]byte, 0, 4096)
	in := make([]byte, 4096)
	stat := func() {
		head.Seq++
		buf = append(head.AppendTo(buf[:0]), body...)
		if _, err := conn.Write(buf); err != nil {
			t.Fatal(err)
		}
		got, want := 0, frame.Size
		for got < want {
			n, err := conn.Read(in[got:])
			if err != nil {
				t.Fatal(err)
			}
			if got += n; got >= frame.Size && want == frame.Size {
				r, err := frame.Decode(in[:frame.Size])
				if err != nil || r.Status != 0 || r.Meta == 0 {
					t.Fatalf("%+v %v", r, err)
				}
				want += r.Len()
			}
		}
	}
	const n = 2000
	for range n {
		stat()
	}
	// The fewest of some rounds: the rest of the process allocates, too.
	least := float64(n)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			stat()
		}
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/n)
	}
	t.Logf("%.2f allocations per served stat", least)
	require.LessOrEqual(t, least, float64(maxStatAllocs))
	require.NoError(t, conn.Close())
}
