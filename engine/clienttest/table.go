// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package clienttest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// row is one thing a file system must do.
type row struct {
	name string
	need func(Caps) bool
	run  func(t *testing.T, d *door)
}

var rows = []row{
	{"write-read", nil, writeRead},
	{"empty", nil, emptyFile},
	{"overwrite", nil, overwrite},
	{"exclusive", nil, exclusive},
	{"append", nil, appendTo},
	{"random-write", nil, randomWrite},
	{"holes", nil, holes},
	{"truncate", nil, truncate},
	{"missing", nil, missing},
	{"kinds", nil, wrongKinds},
	{"list", nil, list},
	{"rename-file", nil, renameFile},
	{"rename-dir", nil, renameDir},
	{"rename-into-itself", nil, renameIntoItself},
	{"remove", nil, remove},
	{"remove-tree", nil, removeTree},
	{"names", nil, names},
	{"long-name", nil, longName},
	{"seek", nil, seek},
	{"large", nil, large},
	{"old-reader", nil, oldReader},
	{"sync-then-close", nil, syncThenClose},
	{"concurrent-readers", nil, concurrentReaders},
	{"concurrent-creates", nil, concurrentCreates},
	{"concurrent-exclusive", nil, concurrentExclusive},
	{"invisible-until-close", func(c Caps) bool { return c.AtomicPublish }, invisibleUntilClose},
	{"symlink", func(c Caps) bool { return c.Symlinks }, symlink},
	{"chmod", func(c Caps) bool { return c.Modes }, chmod},
	{"chtimes", func(c Caps) bool { return c.Times }, chtimes},
}

// door adds the folder of a row and the shorthands of the rows.
type door struct {
	Door
	t   *testing.T
	dir string
}

func (d *door) p(name string) string { return d.dir + "/" + name }

func (d *door) put(name string, content []byte) {
	d.t.Helper()
	w, err := d.OpenFile(d.p(name), os.O_CREATE|os.O_TRUNC, 0o644)
	require.NoError(d.t, err)
	_, err = w.Write(content)
	require.NoError(d.t, err)
	require.NoError(d.t, w.Close())
}

func (d *door) get(name string) []byte {
	d.t.Helper()
	f, err := d.Open(d.p(name))
	require.NoError(d.t, err)
	b, err := io.ReadAll(f)
	require.NoError(d.t, err)
	require.NoError(d.t, f.Close())
	return b
}

func (d *door) want(e syscall.Errno, err error) {
	d.t.Helper()
	require.Error(d.t, err)
	require.Equal(d.t, e, d.Errno(err), "%v", err)
}

func (d *door) list(name string) []string {
	d.t.Helper()
	es, err := d.ReadDir(d.p(name))
	require.NoError(d.t, err)
	out := make([]string, 0, len(es))
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

// noise is reproducible content.
func noise(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func writeRead(t *testing.T, d *door) {
	for _, n := range []int{1, 4095, 65536, 65537, 1<<20 + 3} {
		want := noise(uint64(n), n)
		d.put("f", want)
		st, err := d.Stat(d.p("f"))
		require.NoError(t, err)
		require.EqualValues(t, n, st.Size())
		require.True(t, st.Mode().IsRegular())
		require.True(t, bytes.Equal(want, d.get("f")), "%d bytes", n)
	}
}

func emptyFile(t *testing.T, d *door) {
	d.put("e", nil)
	st, err := d.Stat(d.p("e"))
	require.NoError(t, err)
	require.Zero(t, st.Size())
	require.Empty(t, d.get("e"))
}

func overwrite(t *testing.T, d *door) {
	d.put("f", noise(1, 100_000))
	d.put("f", []byte("short"))
	require.Equal(t, "short", string(d.get("f")))
	d.put("f", nil)
	require.Empty(t, d.get("f"))
}

func exclusive(t *testing.T, d *door) {
	w, err := d.OpenFile(d.p("x"), os.O_CREATE|os.O_EXCL, 0o600)
	require.NoError(t, err)
	_, err = w.Write([]byte("mine"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	_, err = d.OpenFile(d.p("x"), os.O_CREATE|os.O_EXCL, 0o600)
	d.want(syscall.EEXIST, err)
	require.Equal(t, "mine", string(d.get("x")))
}

func appendTo(t *testing.T, d *door) {
	for i := range 3 {
		w, err := d.OpenFile(d.p("log"), os.O_CREATE|os.O_APPEND, 0o644)
		require.NoError(t, err)
		_, err = fmt.Fprintf(w, "line %d\n", i)
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	require.Equal(t, "line 0\nline 1\nline 2\n", string(d.get("log")))
}

func randomWrite(t *testing.T, d *door) {
	want := noise(2, 300_000)
	d.put("f", want)
	w, err := d.OpenFile(d.p("f"), 0, 0)
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		off, n := r.IntN(290_000), r.IntN(9_000)
		p := noise(r.Uint64(), n)
		copy(want[off:], p)
		_, err := w.WriteAt(p, int64(off))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.True(t, bytes.Equal(want, d.get("f")))
}

func holes(t *testing.T, d *door) {
	w, err := d.OpenFile(d.p("h"), os.O_CREATE, 0o644)
	require.NoError(t, err)
	_, err = w.WriteAt([]byte("end"), 200_000)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.True(t, bytes.Equal(append(make([]byte, 200_000), "end"...), d.get("h")))
}

func truncate(t *testing.T, d *door) {
	d.put("f", []byte("0123456789"))
	w, err := d.OpenFile(d.p("f"), 0, 0)
	require.NoError(t, err)
	require.NoError(t, w.Truncate(4))
	require.NoError(t, w.Close())
	require.Equal(t, "0123", string(d.get("f")))
	w, err = d.OpenFile(d.p("f"), 0, 0)
	require.NoError(t, err)
	require.NoError(t, w.Truncate(6))
	require.NoError(t, w.Close())
	require.Equal(t, "0123\x00\x00", string(d.get("f")))
}

func missing(t *testing.T, d *door) {
	_, err := d.Stat(d.p("no"))
	d.want(syscall.ENOENT, err)
	_, err = d.Open(d.p("no"))
	d.want(syscall.ENOENT, err)
	_, err = d.ReadDir(d.p("no"))
	d.want(syscall.ENOENT, err)
	_, err = d.OpenFile(d.p("no/f"), os.O_CREATE, 0o644)
	d.want(syscall.ENOENT, err)
	_, err = d.OpenFile(d.p("no"), 0, 0)
	d.want(syscall.ENOENT, err)
	d.want(syscall.ENOENT, d.Mkdir(d.p("no/d"), 0o755))
	d.want(syscall.ENOENT, d.Remove(d.p("no")))
	d.want(syscall.ENOENT, d.Rename(d.p("no"), d.p("x")))
	require.NoError(t, d.RemoveAll(d.p("no")))
}

func wrongKinds(t *testing.T, d *door) {
	d.put("f", []byte("x"))
	require.NoError(t, d.Mkdir(d.p("d"), 0o755))
	_, err := d.Stat(d.p("f/x"))
	d.want(syscall.ENOTDIR, err)
	_, err = d.Open(d.p("d"))
	d.want(syscall.EISDIR, err)
	_, err = d.ReadDir(d.p("f"))
	d.want(syscall.ENOTDIR, err)
	_, err = d.OpenFile(d.p("d"), os.O_CREATE|os.O_TRUNC, 0o644)
	d.want(syscall.EISDIR, err)
	_, err = d.OpenFile(d.p("f/x"), os.O_CREATE, 0o644)
	d.want(syscall.ENOTDIR, err)
	d.want(syscall.EEXIST, d.Mkdir(d.p("d"), 0o755))
	d.want(syscall.EEXIST, d.Mkdir(d.p("f"), 0o755))
	d.want(syscall.ENOTDIR, d.Mkdir(d.p("f/x"), 0o755))
}

func list(t *testing.T, d *door) {
	require.Empty(t, d.list(""))
	var want []string
	for i := range 30 {
		name := fmt.Sprintf("n%02d", i)
		want = append(want, name)
		if i%3 == 0 {
			require.NoError(t, d.Mkdir(d.p(name), 0o755))
		} else {
			d.put(name, noise(uint64(i), i))
		}
	}
	require.Equal(t, want, d.list(""))
	es, err := d.ReadDir(d.dir)
	require.NoError(t, err)
	for i, e := range es {
		require.Equal(t, i%3 == 0, e.IsDir(), e.Name())
		info, err := e.Info()
		require.NoError(t, err)
		if !e.IsDir() {
			require.EqualValues(t, i, info.Size())
		}
	}
	require.NoError(t, d.Remove(d.p("n01")))
	require.Equal(t, append([]string{"n00"}, want[2:]...), d.list(""))
}

func renameFile(t *testing.T, d *door) {
	d.put("a", []byte("a"))
	require.NoError(t, d.Rename(d.p("a"), d.p("b")))
	require.Equal(t, []string{"b"}, d.list(""))
	d.put("c", []byte("c"))
	require.NoError(t, d.Rename(d.p("b"), d.p("c")))
	require.Equal(t, "a", string(d.get("c")))
	require.Equal(t, []string{"c"}, d.list(""))
	require.NoError(t, d.Rename(d.p("c"), d.p("c")))
	require.Equal(t, "a", string(d.get("c")))
	require.NoError(t, d.Mkdir(d.p("d"), 0o755))
	d.want(syscall.EISDIR, d.Rename(d.p("c"), d.p("d")))
	d.want(syscall.ENOTDIR, d.Rename(d.p("d"), d.p("c")))
	require.NoError(t, d.Rename(d.p("c"), d.p("d/c")))
	require.Equal(t, "a", string(d.get("d/c")))
}

func renameDir(t *testing.T, d *door) {
	require.NoError(t, d.Mkdir(d.p("a"), 0o755))
	require.NoError(t, d.Mkdir(d.p("a/b"), 0o755))
	d.put("a/b/f", []byte("deep"))
	require.NoError(t, d.Rename(d.p("a"), d.p("z")))
	require.Equal(t, "deep", string(d.get("z/b/f")))
	_, err := d.Stat(d.p("a/b/f"))
	d.want(syscall.ENOENT, err)
	require.NoError(t, d.Mkdir(d.p("empty"), 0o755))
	require.NoError(t, d.Rename(d.p("z"), d.p("empty")))
	require.Equal(t, "deep", string(d.get("empty/b/f")))
	require.NoError(t, d.Mkdir(d.p("y"), 0o755))
	d.want(syscall.ENOTEMPTY, d.Rename(d.p("y"), d.p("empty")))
}

func renameIntoItself(t *testing.T, d *door) {
	require.NoError(t, d.Mkdir(d.p("a"), 0o755))
	require.NoError(t, d.Mkdir(d.p("a/b"), 0o755))
	d.want(syscall.EINVAL, d.Rename(d.p("a"), d.p("a/b/c")))
	require.Equal(t, []string{"b"}, d.list("a"))
}

func remove(t *testing.T, d *door) {
	d.put("f", []byte("x"))
	require.NoError(t, d.Remove(d.p("f")))
	_, err := d.Stat(d.p("f"))
	d.want(syscall.ENOENT, err)
	require.NoError(t, d.Mkdir(d.p("d"), 0o755))
	d.put("d/f", []byte("x"))
	d.want(syscall.ENOTEMPTY, d.Remove(d.p("d")))
	require.NoError(t, d.Remove(d.p("d/f")))
	require.NoError(t, d.Remove(d.p("d")))
	require.Empty(t, d.list(""))
	d.put("f", []byte("again"))
	require.Equal(t, "again", string(d.get("f")))
}

func removeTree(t *testing.T, d *door) {
	for _, p := range []string{"a", "a/b", "a/b/c"} {
		require.NoError(t, d.Mkdir(d.p(p), 0o755))
		d.put(p+"/f", []byte(p))
	}
	require.NoError(t, d.RemoveAll(d.p("a")))
	require.Empty(t, d.list(""))
	require.NoError(t, d.Mkdir(d.p("a"), 0o755))
	require.Empty(t, d.list("a"))
}

func names(t *testing.T, d *door) {
	for _, n := range []string{" ", "a b", "ü-日本", "new\nline", "*?[x]", "%41", "back\\slash", "...", "-rf", "a:b;c", strings.Repeat("n", 255)} {
		d.put(n, []byte(n))
		require.Equal(t, n, string(d.get(n)))
		require.Equal(t, []string{n}, d.list(""))
		require.NoError(t, d.Remove(d.p(n)))
	}
}

func longName(t *testing.T, d *door) {
	n := strings.Repeat("n", 256)
	_, err := d.OpenFile(d.p(n), os.O_CREATE, 0o644)
	d.want(syscall.ENAMETOOLONG, err)
	d.want(syscall.ENAMETOOLONG, d.Mkdir(d.p(n), 0o755))
}

func seek(t *testing.T, d *door) {
	want := noise(9, 200_000)
	d.put("f", want)
	f, err := d.Open(d.p("f"))
	require.NoError(t, err)
	defer f.Close()
	at, err := f.Seek(-10, io.SeekEnd)
	require.NoError(t, err)
	require.EqualValues(t, len(want)-10, at)
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, want[len(want)-10:], b)
	_, err = f.Seek(100_000, io.SeekStart)
	require.NoError(t, err)
	b = make([]byte, 10)
	_, err = io.ReadFull(f, b)
	require.NoError(t, err)
	require.Equal(t, want[100_000:100_010], b)
	n, err := f.ReadAt(make([]byte, 100), int64(len(want))-50)
	require.Equal(t, 50, n)
	require.Equal(t, io.EOF, err)
	n, err = f.ReadAt(make([]byte, 1), int64(len(want)))
	require.Zero(t, n)
	require.Equal(t, io.EOF, err)
}

// large is a file of several blocks for every block size in use by tests.
func large(t *testing.T, d *door) {
	want := noise(77, 20<<20+12345)
	d.put("big", want)
	require.True(t, bytes.Equal(want, d.get("big")))
	f, err := d.Open(d.p("big"))
	require.NoError(t, err)
	defer f.Close()
	r := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		off, p := r.IntN(len(want)-100_000), make([]byte, r.IntN(100_000))
		_, err := f.ReadAt(p, int64(off))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want[off:off+len(p)], p), "at %d", off)
	}
}

// oldReader: an open file never mixes the bytes of two versions. A door may go
// on with the old one, show the new one from the next open, or say ESTALE.
func oldReader(t *testing.T, d *door) {
	d.put("f", bytes.Repeat([]byte("old"), 50_000))
	f, err := d.Open(d.p("f"))
	require.NoError(t, err)
	defer f.Close()
	head := make([]byte, 3)
	_, err = io.ReadFull(f, head)
	require.NoError(t, err)
	d.put("g", bytes.Repeat([]byte("new"), 50_000))
	require.NoError(t, d.Rename(d.p("g"), d.p("f")))
	rest, err := io.ReadAll(f)
	if err != nil {
		d.want(syscall.ESTALE, err)
	} else {
		require.True(t, bytes.Equal(bytes.Repeat([]byte("old"), 49_999), rest))
	}
	require.Equal(t, "new", string(d.get("f")[:3]))
}

func syncThenClose(t *testing.T, d *door) {
	w, err := d.OpenFile(d.p("f"), os.O_CREATE, 0o644)
	require.NoError(t, err)
	_, err = w.Write([]byte("one"))
	require.NoError(t, err)
	require.NoError(t, w.Sync())
	_, err = w.Write([]byte("two"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.Error(t, w.Close())
	require.Equal(t, "onetwo", string(d.get("f")))
}

func concurrentReaders(t *testing.T, d *door) {
	want := noise(5, 3<<20)
	d.put("f", want)
	f, err := d.Open(d.p("f"))
	require.NoError(t, err)
	defer f.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			p := make([]byte, 40_000)
			for range 50 {
				off := r.IntN(len(want) - len(p))
				if _, err := f.ReadAt(p, int64(off)); err != nil || !bytes.Equal(want[off:off+len(p)], p) {
					t.Errorf("at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func concurrentCreates(t *testing.T, d *door) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				name := d.p(fmt.Sprintf("g%d-%02d", g, i))
				w, err := d.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o644)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := w.Write([]byte(name)); err != nil {
					t.Error(err)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l := d.list("")
	require.Len(t, l, 80)
	for _, n := range l {
		require.Equal(t, d.p(n), string(d.get(n)))
	}
}

// concurrentExclusive: of many O_EXCL creators of one name, one wins.
func concurrentExclusive(t *testing.T, d *door) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			w, err := d.OpenFile(d.p("x"), os.O_CREATE|os.O_EXCL, 0o644)
			if err == nil {
				_, err = w.Write([]byte("w"))
				if cerr := w.Close(); err == nil {
					err = cerr
				}
			}
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, won)
	require.Equal(t, "w", string(d.get("x")))
}

func invisibleUntilClose(t *testing.T, d *door) {
	w, err := d.OpenFile(d.p("f"), os.O_CREATE, 0o644)
	require.NoError(t, err)
	_, err = w.Write([]byte("first"))
	require.NoError(t, err)
	_, err = d.Stat(d.p("f"))
	d.want(syscall.ENOENT, err)
	require.Empty(t, d.list(""))
	require.NoError(t, w.Close())
	w, err = d.OpenFile(d.p("f"), os.O_TRUNC, 0o644)
	require.NoError(t, err)
	_, err = w.Write([]byte("second"))
	require.NoError(t, err)
	require.Equal(t, "first", string(d.get("f")))
	require.NoError(t, w.Close())
	require.Equal(t, "second", string(d.get("f")))
}

func symlink(t *testing.T, d *door) {
	require.NoError(t, d.Symlink("target/with space", d.p("l")))
	text, err := d.Readlink(d.p("l"))
	require.NoError(t, err)
	require.Equal(t, "target/with space", text)
	st, err := d.Stat(d.p("l"))
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, st.Mode().Type())
	d.want(syscall.EEXIST, d.Symlink("x", d.p("l")))
	d.put("f", nil)
	_, err = d.Readlink(d.p("f"))
	d.want(syscall.EINVAL, err)
	require.NoError(t, d.Remove(d.p("l")))
}

func chmod(t *testing.T, d *door) {
	d.put("f", nil)
	for _, m := range []fs.FileMode{0o600, 0o755, 0o444, 0} {
		require.NoError(t, d.Chmod(d.p("f"), m))
		st, err := d.Stat(d.p("f"))
		require.NoError(t, err)
		require.Equal(t, m, st.Mode().Perm())
	}
	require.NoError(t, d.Chmod(d.p("f"), 0o644))
}

func chtimes(t *testing.T, d *door) {
	d.put("f", []byte("x"))
	want := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	require.NoError(t, d.Chtimes(d.p("f"), want, want))
	st, err := d.Stat(d.p("f"))
	require.NoError(t, err)
	require.True(t, st.ModTime().Equal(want), st.ModTime())
}
