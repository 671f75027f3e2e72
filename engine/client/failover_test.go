// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// fault says what happens to the replies of a worker after `after` bytes of
// them, counted over all connections.
type fault int

const (
	healthy  fault = iota
	cut            // the connection ends: a killed process
	halfShut       // the sending half ends, the other stays open
	silent         // nothing more comes, nothing ends
	garbage        // bytes that are no frames
	flipped        // one bit of each 64 KiB
)

// link forwards to a block server, with faults.
type link struct {
	t     *testing.T
	ln    net.Listener
	to    string
	fault atomic.Int32
	after atomic.Int64
	seen  atomic.Int64
	hit   atomic.Int64 // times that the fault has struck
	wg    sync.WaitGroup
	stop  chan struct{}
	mu    sync.Mutex
	conns []net.Conn
}

func newLink(t *testing.T, to string) *link {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{t: t, ln: ln, to: to, stop: make(chan struct{})}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		close(l.stop)
		_ = ln.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l
}

func (l *link) set(f fault, after int64) {
	l.seen.Store(0)
	l.after.Store(after)
	l.fault.Store(int32(f))
}

func (l *link) accept() {
	for {
		c, err := l.ln.Accept()
		if err != nil {
			return
		}
		if fault(l.fault.Load()) == cut && l.seen.Load() > l.after.Load() {
			_ = c.Close() // a killed process stays dead
			continue
		}
		s, err := net.Dial("tcp", l.to)
		if err != nil {
			_ = c.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, c, s)
		l.mu.Unlock()
		l.wg.Go(func() { _, _ = io.Copy(s, c); _ = s.Close() })
		l.wg.Go(func() { l.back(c.(*net.TCPConn), s) })
	}
}

func (l *link) back(c *net.TCPConn, s net.Conn) {
	defer s.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := s.Read(buf)
		if err != nil {
			_ = c.Close()
			return
		}
		p := buf[:n]
		f := fault(l.fault.Load())
		if over := l.seen.Add(int64(n)) - l.after.Load(); f != healthy && over > 0 {
			l.hit.Add(1)
			keep := max(int64(n)-over, 0)
			switch f {
			case cut:
				_, _ = c.Write(p[:keep])
				_ = c.Close()
				return
			case halfShut:
				_, _ = c.Write(p[:keep])
				_ = c.CloseWrite()
				return
			case silent:
				_, _ = c.Write(p[:keep])
				<-l.stop
				return
			case garbage:
				for i := range p[keep:] {
					p[keep+int64(i)] = byte(i * 7)
				}
			case flipped:
				p[min(keep, int64(n)-1)] ^= 4
			}
		}
		if _, err := c.Write(p); err != nil {
			return
		}
	}
}

// signed is the way to a worker behind a link; the workers of memorca issue no
// grants, so it makes its own.
type signed struct{ *blockclient.Client }

func (s signed) ReadAt(ctx context.Context, r dataplane.ReadRequest, p []byte) (int, error) {
	r.Grant = grant.Make(datatest.Key, dataplane.Grant{File: r.ID.File, Version: r.ID.Version, Expiry: time.Now().Add(time.Hour)})
	return s.Client.ReadAt(ctx, r, p)
}

// wired serves the workers of an Orca by real block servers on loopback, each
// behind a link, and returns a client of another node.
func wired(t *testing.T, o *memorca.Orca, cfg client.Config) (*client.FS, []*link) {
	t.Helper()
	var links []*link
	for _, w := range o.Workers() {
		srv, err := blockserver.New(blockserver.Config{}, w, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
		require.NoError(t, err)
		a, err := srv.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = srv.Shutdown(ctx)
		})
		links = append(links, newLink(t, a.String()))
	}
	cfg.Meta, cfg.Node = o, "elsewhere"
	cfg.Dial = func(_ context.Context, w *client.Worker) (dataplane.Access, error) {
		c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{
			Addr: links[w.Id-1].ln.Addr().String(), BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond,
		}}, nil)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		return signed{c}, nil
	}
	fs, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs, links
}

// A worker that fails in the middle of a read, in whichever way, costs the
// reader a retry: the bytes are right, and no error is seen. The file is held
// by the first two workers; the third reads it from the store.
func TestFaultsInMidRead(t *testing.T) {
	const size = 7 << 20
	o, err := memorca.New(t.TempDir(), "a", "b", "c")
	require.NoError(t, err)
	near, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "a"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	want := noise(7, size)
	put(t, near, "/f", want, client.CreateOptions{})
	replicate(t, o, "/f")

	shapes := map[string]func(f *client.File) ([]byte, error){
		"small": func(f *client.File) ([]byte, error) {
			p := make([]byte, 4096)
			for off := 0; off < size; off += 100_000 {
				n, err := f.ReadAt(p, int64(off))
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], want[off:off+n]) {
					return nil, err
				}
			}
			return want, nil
		},
		"sequential": func(f *client.File) ([]byte, error) {
			return io.ReadAll(struct{ io.Reader }{f})
		},
		"one call": func(f *client.File) ([]byte, error) {
			p := make([]byte, size)
			_, err := f.ReadAt(p, 0)
			return p, err
		},
	}
	names := map[fault]string{cut: "cut", halfShut: "half-closed", silent: "silent", garbage: "garbage", flipped: "flipped"}
	for flt, fname := range names {
		for sname, read := range shapes {
			t.Run(fname+"/"+sname, func(t *testing.T) {
				t.Parallel()
				for _, bad := range []int{1, 2} {
					for _, after := range []int64{0, 50, 200_000} {
						faultyRead(t, o, want, flt, bad, after, read)
					}
				}
			})
		}
	}
}

// faultyRead reads /f while the first workers to be asked are bad.
func faultyRead(t *testing.T, o *memorca.Orca, want []byte, flt fault, bad int, after int64, read func(f *client.File) ([]byte, error)) {
	t.Helper()
	fs, links := wired(t, o, client.Config{Attempt: 200 * time.Millisecond})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.NoError(t, err)
	if links[0].seen.Load() == 0 { // the first to be asked comes first
		links[0], links[1] = links[1], links[0]
	}
	require.Positive(t, links[0].seen.Load(), "a worker that holds the file is asked first")
	for i := range bad {
		links[i].set(flt, after)
	}
	got, err := read(f)
	require.NoError(t, err, "%d bad, after %d", bad, after)
	require.True(t, bytes.Equal(want, got), "%d bad, after %d", bad, after)
	require.Positive(t, links[0].hit.Load(), "the fault did not strike")
	require.Positive(t, fs.Stats().Failovers.Load())
}

// replicate makes the second worker hold what the first does.
func replicate(t *testing.T, o *memorca.Orca, path string) {
	t.Helper()
	fs, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "b"})
	require.NoError(t, err)
	defer fs.Close()
	get(t, fs, path)
}

// A worker that does not answer is asked last for a while, so that each read
// does not wait for it anew; once it answers, it is as good as any.
func TestSilentWorkerIsAvoided(t *testing.T) {
	o, err := memorca.New(t.TempDir(), "a", "b")
	require.NoError(t, err)
	near, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "a"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	want := noise(8, 1<<20)
	put(t, near, "/f", want, client.CreateOptions{})
	fs, links := wired(t, o, client.Config{Attempt: 200 * time.Millisecond})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	links[0].set(silent, 0) // the one that holds the file
	p := make([]byte, 1000)
	for i := range 20 {
		_, err := f.ReadAt(p, int64(i*50_000))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[i*50_000:][:1000], p))
	}
	require.EqualValues(t, 1, fs.Stats().Failovers.Load(), "one read has waited")
}

// With no source left the reader learns in bounded time which worker failed
// how; when one comes back, the same File reads on.
func TestAllSourcesFail(t *testing.T) {
	o, err := memorca.New(t.TempDir(), "a", "b")
	require.NoError(t, err)
	near, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "a"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, near.Close()) })
	want := noise(9, 3<<20)
	put(t, near, "/f", want, client.CreateOptions{})
	fs, links := wired(t, o, client.Config{})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	p := make([]byte, len(want))
	links[0].set(cut, 100)
	links[1].set(cut, 100)
	_, err = f.ReadAt(p, 0)
	require.ErrorIs(t, err, orca.Unavailable)
	links[0].set(healthy, 0)
	require.Eventually(t, func() bool { _, err = f.ReadAt(p, 0); return err == nil }, 30*time.Second, 5*time.Millisecond)
	require.True(t, bytes.Equal(want, p))
}
