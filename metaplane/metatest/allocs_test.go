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

// maxCreateAllocs is how many one served create may cost it, of those that share an
// entry of the journal by dozens: of what an entry costs it has little.
const maxCreateAllocs = 4

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
	c := rawDial(t, addr)
	least := c.allocs(t, metawire.OpStat, 2000, 1, func(uint64) []byte { return body })
	t.Logf("%.2f allocations per served stat", least)
	require.LessOrEqual(t, least, float64(maxStatAllocs))
}

// TestCreateAllocs is the same of creates, which are answered where they are applied.
func TestCreateAllocs(t *testing.T) {
	h := NewHarness(t)
	h.Start(t)
	t.Cleanup(h.Stop)
	srv, err := metaserver.NewServer(h.Service, transport.ServerConfig{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	addr, err := srv.Listen("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Shutdown(context.Background())) })

	// The client allocates nothing: only these of its bytes change.
	const seqs = 1 << 40
	q := &metapb.CreateRequest{H: &metapb.Header{Client: 7, Caller: &metapb.Caller{}}, Target: at("/f-00000000"), Complete: true, WriteType: 1, Mode: 0o644}
	number := func(seq uint64) []byte {
		name := []byte(q.Target.Path)
		for i := len(name) - 1; name[i] != '-'; i-- {
			name[i] = '0' + byte(seq%10)
			seq /= 10
		}
		return name
	}
	bodies := map[uint64][]byte{}
	c := rawDial(t, addr)
	const n, rounds, together = 1024, 7, 64
	for seq := uint64(1); seq <= n*rounds; seq++ {
		q.H.Seq, q.H.AckedBelow = seqs+seq, 0
		if seq > 2*together {
			q.H.AckedBelow = seqs + seq - 2*together
		}
		q.Target.Path = string(number(seq))
		bodies[seq], err = metawire.Marshal(q)
		require.NoError(t, err)
	}
	least := c.allocs(t, metawire.OpCreate, n, together, func(seq uint64) []byte { return bodies[seq] })
	t.Logf("%.2f allocations per served create", least)
	require.LessOrEqual(t, least, float64(maxCreateAllocs))
}

// rawClient is a connection of a client that allocates nothing.
type rawClient struct {
	conn net.Conn
	seq  uint64
	buf  []byte
	in   []byte
}

func rawDial(t *testing.T, addr net.Addr) *rawClient {
	conn, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &rawClient{conn: conn, buf: make([]byte, 0, 64<<10), in: make([]byte, 64<<10)}
}

// allocs makes n calls, so many at once, a few times, and returns the allocations
// that one costs this process, the fewest of the times: it does other things, too.
func (c *rawClient) allocs(t *testing.T, op frame.Op, n, together int, body func(seq uint64) []byte) float64 {
	calls := func() {
		for range n / together {
			c.calls(t, op, together, body)
		}
	}
	calls()
	calls()
	least := float64(n)
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		calls()
		runtime.ReadMemStats(&after)
		least = min(least, float64(after.Mallocs-before.Mallocs)/float64(n))
	}
	return least
}

// calls makes calls at once, and waits for the answers.
func (c *rawClient) calls(t *testing.T, op frame.Op, n int, body func(seq uint64) []byte) {
	c.buf = c.buf[:0]
	for range n {
		c.seq++
		b := body(c.seq)
		head := frame.Header{Op: op, Seq: c.seq, Meta: uint32(len(b))}
		c.buf = append(head.AppendTo(c.buf), b...)
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		t.Fatal(err)
	}
	for have := 0; n > 0; {
		got, err := c.conn.Read(c.in[have:])
		if err != nil {
			t.Fatal(err)
		}
		have += got
		at := 0
		for n > 0 && have-at >= frame.Size {
			r, err := frame.Decode(c.in[at : at+frame.Size])
			if err != nil || r.Status != 0 || r.Meta == 0 {
				t.Fatalf("%+v %v", r, err)
			}
			if have-at < frame.Size+r.Len() {
				break
			}
			at += frame.Size + r.Len()
			n--
		}
		have = copy(c.in, c.in[at:have])
	}
}
