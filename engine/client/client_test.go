// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

func open(t *testing.T, node string, nodes ...string) (*client.FS, *memorca.Orca) {
	t.Helper()
	o, err := memorca.New(t.TempDir(), nodes...)
	require.NoError(t, err)
	return openWith(t, o, client.Config{Node: node}), o
}

// openWith opens a client of o that must hold nothing in the end.
func openWith(t *testing.T, o *memorca.Orca, cfg client.Config) *client.FS {
	t.Helper()
	cfg.Meta, cfg.Dial, cfg.WorkersTTL = o, o.Dial, time.Millisecond
	fs, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, fs.Close())
		require.Zero(t, fs.Held(), "leaked")
	})
	return fs
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func put(t *testing.T, fs *client.FS, path string, b []byte, o client.CreateOptions) {
	t.Helper()
	o.Overwrite = true
	w, err := fs.Create(t.Context(), client.Path(path), o)
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

func get(t *testing.T, fs *client.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(t.Context(), client.Path(path), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	return b
}

func TestIOFS(t *testing.T) {
	fs, _ := open(t, "a", "a")
	for _, d := range []string{"/d/e", "/d/empty"} {
		_, err := fs.MkdirAll(t.Context(), client.Path(d), 0o755)
		require.NoError(t, err)
	}
	want := []string{"top", "d/e/f", "d/g"}
	for i, p := range want {
		put(t, fs, "/"+p, noise(byte(i), 1000*i), client.CreateOptions{})
	}
	x, err := fs.IOFS(t.Context(), "/")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(x, want...))
	sub, err := x.Sub("d")
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(sub, "e/f", "g", "empty"))
}

// A hot local read is one pread: no allocation, no message to anybody.
func TestHotLocalReadAllocatesNothing(t *testing.T) {
	fs, o := open(t, "a", "a")
	want := noise(1, 1<<20)
	put(t, fs, "/f", want, client.CreateOptions{})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	p := make([]byte, 64<<10)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	asked := o.Workers()[0].Calls("Descriptor") + o.Workers()[0].Calls("Open")
	off := int64(0)
	got := testing.AllocsPerRun(200, func() {
		off = (off + 4096) % (1 << 19)
		if _, err := f.ReadAt(p, off); err != nil {
			t.Fatal(err)
		}
	})
	require.Zero(t, got)
	require.Equal(t, asked, o.Workers()[0].Calls("Descriptor")+o.Workers()[0].Calls("Open"))
	require.True(t, bytes.Equal(want[off:off+int64(len(p))], p))
}

// Opening a file again asks for no descriptor again.
func TestDescriptorsAreShared(t *testing.T) {
	fs, o := open(t, "a", "a")
	put(t, fs, "/f", noise(1, 1000), client.CreateOptions{})
	for range 5 {
		require.Len(t, get(t, fs, "/f"), 1000)
	}
	require.Equal(t, 1, o.Workers()[0].Calls("Descriptor"))
	require.EqualValues(t, 4, fs.Stats().DescriptorHits.Load())
}

func TestBacking(t *testing.T) {
	fs, o := open(t, "a", "a")
	want := noise(1, 300_000)
	put(t, fs, "/one", want, client.CreateOptions{})
	put(t, fs, "/many", noise(2, memorca.WholeMax+1), client.CreateOptions{})
	put(t, fs, "/empty", nil, client.CreateOptions{})
	for name, whole := range map[string]bool{"/one": true, "/many": false, "/empty": false} {
		f, err := fs.Open(t.Context(), client.Path(name), client.ReadOptions{})
		require.NoError(t, err)
		b, ok := f.Backing(t.Context())
		require.Equal(t, whole, ok, name)
		if ok {
			got, err := io.ReadAll(io.NewSectionReader(b, 0, 1<<30))
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got))
		}
		require.NoError(t, f.Close())
		_, ok = f.Backing(t.Context())
		require.False(t, ok, "closed")
	}
	remote, err := client.Open(t.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "b"})
	require.NoError(t, err)
	defer remote.Close()
	f, err := remote.Open(t.Context(), client.Path("/one"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	_, ok := f.Backing(t.Context())
	require.False(t, ok, "on another host")
}

// A file that is being filled is read by range first and by descriptor as soon
// as its block is complete.
func TestRangesTurnIntoDescriptors(t *testing.T) {
	fs, o := open(t, "a", "a")
	want := noise(3, 2<<20)
	put(t, fs, "/f", want, client.CreateOptions{})
	require.NoError(t, fs.Free(t.Context(), client.Path("/f"), client.FreeOptions{}))
	o.Workers()[0].RefuseDescriptors(true)
	f, err := fs.As(orca.Caller{UID: 7}).Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	var buf bytes.Buffer
	_, err = f.WriteTo(&buf)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, buf.Bytes()))
	require.Zero(t, fs.Stats().LocalReads.Load())
	o.Workers()[0].RefuseDescriptors(false)
	_, err = f.ReadAt(make([]byte, 10), 5)
	require.NoError(t, err)
	require.EqualValues(t, 1, fs.Stats().LocalReads.Load())
}

func TestSequentialRemoteReaderPrefetches(t *testing.T) {
	for _, size := range []int{memorca.WholeMax + 3<<20, memorca.WholeMax - 5} { // several blocks; one that is no whole number of chunks
		fs, _ := open(t, "far", "a")
		want := noise(4, size)
		put(t, fs, "/f", want, client.CreateOptions{})
		f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
		require.NoError(t, err)
		var got []byte
		p := make([]byte, 100_000)
		for {
			n, err := f.Read(p)
			got = append(got, p[:n]...)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		require.True(t, bytes.Equal(want, got))
		ahead := fs.Stats().PrefetchedBytes.Load()
		require.Greater(t, ahead, int64(len(want)*3/4))
		// A reader that jumps about gets nothing ahead.
		for i := range 20 {
			_, err := f.ReadAt(p, int64(i*7919*97)%int64(len(want)-len(p)))
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		require.LessOrEqual(t, fs.Stats().PrefetchedBytes.Load(), ahead+5<<20)
	}
}

func TestFailover(t *testing.T) {
	fs, o := open(t, "a", "a", "b", "c")
	want := noise(5, 500_000)
	put(t, fs, "/f", want, client.CreateOptions{})
	ws := o.Workers()
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	ws[0].SetDown(true)
	p := make([]byte, 1000)
	_, err = f.ReadAt(p, 0) // from b or c, which fetch it from the store
	require.NoError(t, err)
	require.Equal(t, want[:1000], p)
	ws[1].SetDown(true)
	_, err = f.ReadAt(p, 1000)
	require.NoError(t, err)
	require.Equal(t, want[1000:2000], p)
	ws[2].SetDown(true)
	_, err = f.ReadAt(p, 0)
	require.ErrorIs(t, err, orca.Unavailable)
	ws[0].SetDown(false)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
}

// Each failure of a worker is either passed over or surfaces with its kind.
func TestFailureKinds(t *testing.T) {
	for k := orca.Internal; k <= orca.NoData; k++ {
		fs, o := open(t, "x", "a", "b")
		put(t, fs, "/f", noise(5, 1000), client.CreateOptions{})
		asked := map[bool]int{}
		var mu sync.Mutex
		for i, w := range o.Workers() {
			w.Fail(func(op string) error {
				mu.Lock()
				defer mu.Unlock()
				asked[i == 0]++
				return orca.E("memorca."+op, k, "")
			})
		}
		f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
		require.NoError(t, err)
		_, err = f.ReadAt(make([]byte, 10), 0)
		require.ErrorIs(t, err, k)
		switch k {
		case orca.Stale, orca.Invalid, orca.Conflict, orca.Canceled, orca.Unauthenticated:
			require.Equal(t, 1, asked[true]+asked[false], k.String())
		case orca.Permission:
			require.Equal(t, 2, asked[true]+asked[false], "once more with a new grant")
		default:
			require.Equal(t, map[bool]int{true: 2, false: 2}, asked, k.String())
		}
		require.NoError(t, f.Close())
	}
}

// A version that is gone is Stale; bytes of two versions are never mixed.
func TestStaleNotMixed(t *testing.T) {
	fs, o := open(t, "x", "a")
	old := bytes.Repeat([]byte("old!"), 1<<20)
	put(t, fs, "/f", old, client.CreateOptions{WriteType: orca.Through}) // nothing cached
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	put(t, fs, "/f", bytes.Repeat([]byte("new!"), 1<<20), client.CreateOptions{WriteType: orca.Through})
	p := make([]byte, 10)
	_, err = f.ReadAt(p, 0)
	require.ErrorIs(t, err, orca.Stale)
	require.Equal(t, "new!", string(get(t, fs, "/f")[:4]))
	// Old blocks that are cached go on to be served.
	put(t, fs, "/g", old, client.CreateOptions{})
	g, err := fs.Open(t.Context(), client.Path("/g"), client.ReadOptions{})
	require.NoError(t, err)
	defer g.Close()
	put(t, fs, "/g", bytes.Repeat([]byte("new!"), 1<<20), client.CreateOptions{})
	_, err = g.ReadAt(p[:4], 4096)
	require.NoError(t, err)
	require.Equal(t, "old!", string(p[:4]))
	// The object changes in the store, behind Orca: SetStore keeps the key.
	require.NoError(t, fs.Free(t.Context(), client.Path("/g"), client.FreeOptions{}))
	h, err := fs.Open(t.Context(), client.Path("/g"), client.ReadOptions{})
	require.NoError(t, err)
	defer h.Close()
	require.NoError(t, o.SetStore(h.Info().Ino, h.Info().Version+1, []byte("behind")))
	_, err = h.ReadAt(p, 0)
	require.ErrorIs(t, err, orca.Stale)
	// Removed while open and never cached.
	put(t, fs, "/r", old, client.CreateOptions{WriteType: orca.MustCache})
	r, err := fs.Open(t.Context(), client.Path("/r"), client.ReadOptions{})
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, fs.Unlink(t.Context(), client.Path("/r")))
	o.Workers()[0].Fail(func(op string) error { return orca.E(op, orca.NotFound, "") })
	_, err = r.ReadAt(p, 0)
	require.ErrorIs(t, err, orca.Stale)
}

func TestGrantIsRenewed(t *testing.T) {
	fs, o := open(t, "x", "a")
	put(t, fs, "/f", noise(5, 1000), client.CreateOptions{})
	o.SetGrantTTL(time.Second) // always within the renewal margin
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	p := make([]byte, 10)
	for range 3 {
		_, err = f.ReadAt(p, 0)
		require.NoError(t, err)
	}
	require.EqualValues(t, 3, fs.Stats().Refreshes.Load())
	// A grant that still holds outlives an unreachable metaplane.
	o.Fail(func(op string) error { return orca.E(op, orca.Unavailable, "") })
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
}

func TestReadCanBeCanceled(t *testing.T) {
	fs, o := open(t, "x", "a", "b")
	put(t, fs, "/f", noise(5, 1000), client.CreateOptions{})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, w := range o.Workers() {
		w.Fail(func(op string) error { cancel(); return orca.E(op, orca.Unavailable, "") })
	}
	_, err = f.ReadAtContext(ctx, make([]byte, 10), 0)
	require.ErrorIs(t, err, orca.Canceled)
	require.True(t, errors.Is(err, context.Canceled))
}

func TestClosedFile(t *testing.T) {
	fs, _ := open(t, "a", "a")
	put(t, fs, "/f", []byte("x"), client.CreateOptions{})
	f, err := fs.Open(t.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), os.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, os.ErrClosed)
	_, err = f.Seek(0, 0)
	require.ErrorIs(t, err, os.ErrClosed)
}

func TestWatch(t *testing.T) {
	fs, o := open(t, "a", "a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan struct{})
	type call struct {
		es   []client.Event
		lost bool
	}
	calls := make(chan call, 100)
	done := make(chan error, 1)
	go func() {
		done <- fs.Watch(ctx, func() { close(ready) }, func(es []client.Event, lost bool) error {
			calls <- call{es, lost}
			return nil
		})
	}()
	<-ready
	d, err := fs.Mkdir(t.Context(), client.Path("/d"), 0o755)
	require.NoError(t, err)
	c := <-calls
	require.False(t, c.lost)
	require.Equal(t, []client.Event{{Kind: client.EventEntry, Ino: d.Ino, Parent: orca.RootIno, Name: "d"}}, c.es)
	// A cut stream says so once, and goes on where it was.
	o.Fail(func(op string) error {
		if op == "Watch" {
			return orca.E(op, orca.Unavailable, "")
		}
		return nil
	})
	put(t, fs, "/d/f", []byte("x"), client.CreateOptions{})
	c = <-calls
	if !c.lost { // the poll under way may still have got the event
		c = <-calls
	}
	require.True(t, c.lost)
	o.Fail(nil)
	_, err = fs.Mkdir(t.Context(), client.Path("/e"), 0o755)
	require.NoError(t, err)
	for name := ""; name != "e"; {
		for _, e := range (<-calls).es {
			name = e.Name
		}
	}
	cancel()
	require.ErrorIs(t, <-done, orca.Canceled)
}

func TestTargets(t *testing.T) {
	fs, _ := open(t, "a", "a")
	d, err := fs.MkdirAll(t.Context(), client.Path("/x//y/../z/"), 0o755)
	require.NoError(t, err)
	i, err := fs.Stat(t.Context(), client.Path("/x/z"), client.Sync{})
	require.NoError(t, err)
	require.Equal(t, d.Ino, i.Ino)
	_, err = fs.Mkdir(t.Context(), client.At(d.Ino, "sub"), 0o700)
	require.NoError(t, err)
	i, err = fs.Stat(t.Context(), client.Path("/x/z/sub"), client.Sync{})
	require.NoError(t, err)
	require.Equal(t, d.Ino, i.Parent)
	j, err := fs.Stat(t.Context(), client.ByIno(i.Ino), client.Sync{})
	require.NoError(t, err)
	require.Equal(t, i.Ino, j.Ino)
	for _, bad := range []client.Target{client.Path("rel"), client.Path(""), client.At(d.Ino, ".."), client.At(d.Ino, "a\x00b")} {
		_, err := fs.Stat(t.Context(), bad, client.Sync{})
		require.ErrorIs(t, err, orca.Invalid, "%v", bad)
	}
}
