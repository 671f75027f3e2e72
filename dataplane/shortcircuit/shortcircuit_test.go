// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package shortcircuit

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datatest"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

type fixture struct {
	*datatest.Store
	server *Server
	path   string
}

func newFixture(tb testing.TB, cfg ServerConfig) *fixture {
	tb.Helper()
	f := &fixture{Store: datatest.NewStore(tb), path: filepath.Join(tb.TempDir(), "fds")}
	f.start(tb, cfg)
	return f
}

func (f *fixture) start(tb testing.TB, cfg ServerConfig) {
	tb.Helper()
	var err error
	f.server, err = NewServer(cfg, f.Store, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
	require.NoError(tb, err)
	require.NoError(tb, f.server.Listen(f.path))
	s := f.server
	tb.Cleanup(func() { require.NoError(tb, s.Close()) })
}

func (f *fixture) client(tb testing.TB, cfg ClientConfig) *Client {
	tb.Helper()
	cfg.Path = f.path
	c, err := NewClient(cfg, nil)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

func blockID(file int) orca.BlockID { return orca.BlockID{File: orca.Ino(file), Version: 1} }

func rightTo(id orca.BlockID) dataplane.Grant {
	return grant.Make(datatest.Key, dataplane.Grant{File: id.File, Version: id.Version, Expiry: time.Now().Add(time.Hour)})
}

// openFDs counts the descriptors of this process.
func openFDs(tb testing.TB) int {
	tb.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	require.NoError(tb, err)
	return len(d)
}

func TestDescriptorIsReadOnly(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	id := blockID(1)
	data := datatest.Data(1, 100_000)
	f.Put(t, id, data)
	c := f.client(t, ClientConfig{})
	file, length, gen, err := c.Fetch(t.Context(), id, rightTo(id))
	require.NoError(t, err)
	defer file.Close()
	require.EqualValues(t, len(data), length)
	require.EqualValues(t, 1, gen)
	_, err = unix.Write(int(file.Fd()), []byte("x"))
	require.Equal(t, unix.EBADF, err)
	_, err = unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.Equal(t, unix.EACCES, err)
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0)
	require.NoError(t, err)
	require.NotZero(t, flags&unix.FD_CLOEXEC)
	m, err := unix.Mmap(int(file.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	require.True(t, bytes.Equal(m, data))
	require.NoError(t, unix.Munmap(m))
	f.Remove(id)
	p := make([]byte, len(data))
	_, err = file.ReadAt(p, 0)
	require.NoError(t, err, "an evicted block stays readable")
	require.True(t, bytes.Equal(p, data))
}

func TestBatch(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	c := f.client(t, ClientConfig{})
	var wants []Want
	for i := range MaxBatch {
		id := blockID(i + 1)
		if i != 3 {
			f.Put(t, id, []byte{byte(i)})
		}
		wants = append(wants, Want{ID: id, Grant: rightTo(id)})
	}
	f.SetPartial(blockID(5), true)
	wants[6].Grant.Token = nil
	before := openFDs(t)
	got, err := c.FetchMany(t.Context(), wants)
	require.NoError(t, err)
	for i, g := range got {
		if kind := map[int]orca.Kind{3: orca.NotFound, 4: orca.Unsupported, 6: orca.Permission}[i]; kind != 0 {
			require.ErrorIs(t, g.Err, kind, "%d", i)
			continue
		}
		require.NoError(t, g.Err)
		var b [1]byte
		_, err := g.File.ReadAt(b[:], 0)
		require.NoError(t, err)
		require.Equal(t, byte(i), b[0], "descriptors are in the order of the wants")
		require.NoError(t, g.File.Close())
	}
	require.Eventually(t, func() bool { return openFDs(t) <= before+2 }, patience, time.Millisecond,
		"only client and server end of one connection are left")
	_, err = c.FetchMany(t.Context(), append(wants, wants[0]))
	require.ErrorIs(t, err, orca.Invalid)
	require.EqualValues(t, 1, f.server.Metrics().Denied.Load())
}

func TestReadAtAndCache(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	c := f.client(t, ClientConfig{MaxOpen: 4})
	for i := range 6 {
		f.Put(t, blockID(i), datatest.Data(int64(i), 1000))
	}
	read := func(i int) {
		p := make([]byte, 400)
		id := blockID(i)
		n, err := c.ReadAt(t.Context(), dataplane.ReadRequest{ID: id, Off: 300, Grant: rightTo(id)}, p)
		require.NoError(t, err)
		require.True(t, bytes.Equal(p[:n], datatest.Data(int64(i), 1000)[300:700]))
	}
	for i := range 4 {
		read(i)
		read(i)
	}
	require.EqualValues(t, 4, c.Metrics().Hits.Load())
	require.EqualValues(t, 4, c.Metrics().Open.Load())
	held, err := c.Open(t.Context(), blockID(1), rightTo(blockID(1)))
	require.NoError(t, err)
	for i := range 6 {
		read(i)
	}
	require.LessOrEqual(t, c.Metrics().Open.Load(), int64(5), "the cap, and one in use")
	require.Positive(t, c.Metrics().Evicted.Load())
	p := make([]byte, 2000)
	n, err := held.ReadAt(p, 900)
	require.Equal(t, io.EOF, err)
	require.Equal(t, 100, n)
	require.NoError(t, held.Close())
	n, err = c.ReadAt(t.Context(), dataplane.ReadRequest{ID: blockID(1), Off: 5000, Grant: rightTo(blockID(1))}, p)
	require.Equal(t, io.EOF, err)
	require.Zero(t, n)
	c.Forget(1)
	require.NoError(t, c.Prefetch(t.Context(), []Want{{ID: blockID(1), Grant: rightTo(blockID(1))}, {ID: blockID(99), Grant: rightTo(blockID(99))}}))
	misses := c.Metrics().Misses.Load()
	read(1)
	require.Equal(t, misses, c.Metrics().Misses.Load(), "prefetched")
}

func TestLease(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	f.Put(t, blockID(1), []byte("x"))
	c := f.client(t, ClientConfig{MaxAge: 40 * time.Millisecond})
	b, err := c.Open(t.Context(), blockID(1), rightTo(blockID(1)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return c.Metrics().Expired.Load() == 1 }, patience, time.Millisecond)
	require.EqualValues(t, 1, c.Metrics().Open.Load(), "in use")
	require.NoError(t, b.Close())
	require.Zero(t, c.Metrics().Open.Load())
}

func TestPartialIsAskedAgainLater(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	f.Put(t, blockID(1), []byte("x"))
	f.SetPartial(blockID(1), true)
	c := f.client(t, ClientConfig{})
	now := time.Now()
	c.now = func() time.Time { return now }
	req := dataplane.ReadRequest{ID: blockID(1), Grant: rightTo(blockID(1))}
	for range 3 {
		_, err := c.ReadAt(t.Context(), req, make([]byte, 1))
		require.ErrorIs(t, err, orca.Unsupported)
	}
	require.EqualValues(t, 1, f.server.Metrics().Requests.Load())
	f.SetPartial(blockID(1), false)
	now = now.Add(time.Second)
	_, err := c.ReadAt(t.Context(), req, make([]byte, 1))
	require.NoError(t, err)
}

func TestConcurrentOpensShareOneFetch(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	f.Put(t, blockID(1), datatest.Data(1, 1000))
	c := f.client(t, ClientConfig{})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 50 {
				p := make([]byte, 1000)
				if _, err := c.ReadAt(t.Context(), dataplane.ReadRequest{ID: blockID(1), Grant: rightTo(blockID(1))}, p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, f.server.Metrics().Descriptors.Load())
}

func TestUsersDoNotShareDescriptors(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	f.Put(t, blockID(1), []byte("x"))
	c := f.client(t, ClientConfig{})
	_, err := c.ReadAt(t.Context(), dataplane.ReadRequest{ID: blockID(1), Grant: rightTo(blockID(1))}, make([]byte, 1))
	require.NoError(t, err)
	other := dataplane.ReadRequest{ID: blockID(1), Grant: dataplane.Grant{File: 1, Version: 1, UID: 77}}
	_, err = c.ReadAt(t.Context(), other, make([]byte, 1))
	require.ErrorIs(t, err, orca.Permission)
}

func TestGarbage(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	c := f.client(t, ClientConfig{})
	f.Put(t, blockID(1), []byte("x"))
	head := frame.Header{Op: frame.OpDescriptors, Seq: 1, Meta: 5}
	big := frame.Header{Op: frame.OpDescriptors, Seq: 1, Body: 3}
	for _, packet := range [][]byte{[]byte("hello"), make([]byte, 60000), head.AppendTo(nil), append(big.AppendTo(nil), 1, 2, 3)} {
		nc, err := net.Dial(network, f.path)
		require.NoError(t, err)
		// With a descriptor nobody asked for: it must not stay open there.
		_, _, err = nc.(*net.UnixConn).WriteMsgUnix(packet, unix.UnixRights(0), nil)
		require.NoError(t, err)
		require.NoError(t, nc.SetReadDeadline(time.Now().Add(patience)))
		n, err := nc.Read(make([]byte, 10))
		require.Zero(t, n)
		require.False(t, os.IsTimeout(err), "the server kept the connection")
		require.NoError(t, nc.Close())
	}
	require.EqualValues(t, 4, f.server.Metrics().Garbage.Load())

	nc, err := net.Dial(network, f.path)
	require.NoError(t, err)
	defer nc.Close()
	head = frame.Header{Op: frame.OpDescriptors, Seq: 1, Meta: 4}
	_, err = nc.Write(append(head.AppendTo(nil), 0xff, 0xff, 0xff, 0xff))
	require.NoError(t, err)
	reply := make([]byte, 1000)
	n, err := nc.Read(reply)
	require.NoError(t, err)
	h, err := frame.Decode(reply[:n])
	require.NoError(t, err)
	require.Equal(t, orca.Invalid, h.Status, "a meta that does not parse is refused, the connection goes on")
	_, _, _, err = c.Fetch(t.Context(), blockID(1), rightTo(blockID(1)))
	require.NoError(t, err)
}

func TestServerRestart(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	f.Put(t, blockID(1), []byte("x"))
	c := f.client(t, ClientConfig{})
	fetch := func() error {
		file, _, _, err := c.Fetch(t.Context(), blockID(1), rightTo(blockID(1)))
		if err == nil {
			_ = file.Close()
		}
		return err
	}
	require.NoError(t, fetch())
	require.NoError(t, f.server.Close())
	require.ErrorIs(t, fetch(), orca.Unavailable)
	f.start(t, ServerConfig{})
	require.NoError(t, fetch())
	require.NoError(t, f.server.Close())
	f.start(t, ServerConfig{})
	require.NoError(t, fetch(), "a connection of the past is replaced")
}

func TestContextEndsARequest(t *testing.T) {
	f := newFixture(t, ServerConfig{})
	c := f.client(t, ClientConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _, err := c.Fetch(ctx, blockID(1), rightTo(blockID(1)))
	require.ErrorIs(t, err, orca.Canceled)
	require.NoError(t, c.Close())
	_, err = c.Open(t.Context(), blockID(1), rightTo(blockID(1)))
	require.ErrorIs(t, err, orca.Unavailable)
}

// BenchmarkRead100K reads 100 KiB through a cached descriptor.
func BenchmarkRead100K(b *testing.B) {
	f := newFixture(b, ServerConfig{})
	f.Put(b, blockID(1), datatest.Data(1, 100<<10))
	c := f.client(b, ClientConfig{})
	req := dataplane.ReadRequest{ID: blockID(1), Grant: rightTo(blockID(1))}
	p := make([]byte, 100<<10)
	b.ReportAllocs()
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := c.ReadAt(b.Context(), req, p); err != nil {
			b.Fatal(err)
		}
	}
}
