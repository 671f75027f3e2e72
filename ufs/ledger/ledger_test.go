// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/local"
	"orca/ufs/wrap"
)

var quiet = slog.New(slog.DiscardHandler)

// folder is a store in a directory of the host, and a ledger over it.
type folder struct {
	t     *testing.T
	root  string
	path  string
	fs    ufs.FS // as stores finds it
	l     *Ledger
	finds int
}

func newFolder(t *testing.T) *folder {
	f := &folder{t: t, root: t.TempDir(), path: filepath.Join(t.TempDir(), "uploads")}
	fs, err := local.Open(t.Context(), local.Config{Root: f.root}, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	f.fs = fs
	f.start()
	return f
}

// start is a process that begins: the one before was killed.
func (f *folder) start() {
	var err error
	f.l, err = Open(f.path, quiet)
	require.NoError(f.t, err)
	l := f.l
	f.t.Cleanup(func() { require.NoError(f.t, l.Close()) })
}

func (f *folder) create(key, token string) ufs.Writer {
	f.t.Helper()
	w, err := f.l.Over(1, f.fs).Create(f.t.Context(), key, token)
	require.NoError(f.t, err)
	_, err = io.WriteString(w, "content")
	require.NoError(f.t, err)
	return w
}

func (f *folder) store(_ context.Context, mount uint32) (ufs.FS, error) {
	f.finds++
	if mount != 1 {
		return nil, orca.E("test", orca.NotFound, "")
	}
	return f.fs, nil
}

func (f *folder) files() (names []string) {
	f.t.Helper()
	require.NoError(f.t, filepath.WalkDir(f.root, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, filepath.Base(p))
		}
		return err
	}))
	return names
}

// TestKilledInMidUpload: a process dies in the middle of an upload whose session
// nobody sweeps any more. The next one removes what it left, and nothing else.
func TestKilledInMidUpload(t *testing.T) {
	f := newFolder(t)
	w := f.create("d/done", "1")
	_, err := w.Commit(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.Abort(t.Context()))
	require.NoError(t, f.create("d/given up", "2").Abort(t.Context()))
	f.create("d/dead \"\n\xff", "3")
	require.Len(t, f.files(), 2, "one is there, one is under way")

	f.start()
	require.Equal(t, 1, f.l.Left())
	f.create("d/live", "4")
	require.Len(t, f.files(), 3)
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	require.Len(t, f.files(), 2)
	require.Contains(t, f.files(), "done")
	require.Zero(t, f.l.Left())
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	require.Equal(t, 1, f.finds, "once is enough")

	f.start()
	require.Equal(t, 1, f.l.Left(), "what was live then")
}

// TestAbortFails: the store does not answer an abort, nor the first attempt to
// clean up, after another start.
func TestAbortFails(t *testing.T) {
	f := newFolder(t)
	inner, away := f.fs, true
	f.fs = wrap.Intercept(inner, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
		if away && (c.Op == wrap.Abort || c.Op == wrap.Sweep) {
			return orca.E("test", orca.Unavailable, "")
		}
		return do(ctx)
	})
	w := f.create("f", "1")
	require.ErrorIs(t, w.Abort(t.Context()), orca.Unavailable)
	require.Equal(t, 1, f.l.Left())
	f.start()
	require.ErrorIs(t, f.l.Clean(t.Context(), f.store), orca.Unavailable)
	require.Len(t, f.files(), 1)
	away = false
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	require.Empty(t, f.files())
	require.Zero(t, f.l.Left())
}

// TestSameUploadAgain: what is left of an upload is not swept while the same one
// is under way again.
func TestSameUploadAgain(t *testing.T) {
	f := newFolder(t)
	f.create("f", "1")
	f.start()
	require.NoError(t, f.fs.Sweep(t.Context(), "f", "1"))
	w := f.create("f", "1")
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	_, err := w.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, f.files())
}

// TestMountGone: with the mount its remains are not Orca's any more.
func TestMountGone(t *testing.T) {
	f := newFolder(t)
	_, err := f.l.Over(2, f.fs).Create(t.Context(), "f", "1")
	require.NoError(t, err)
	_, err = f.l.Over(2, f.fs).Create(t.Context(), "", "1")
	require.Error(t, err, "which leaves nothing")
	f.start()
	require.Equal(t, 1, f.l.Left())
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	require.Zero(t, f.l.Left())
}

// namer is an object store that names its uploads, of which it has none.
type namer struct {
	ufs.FS
	swept []string
}

func (n *namer) Copy(context.Context, string, string, string) (ufs.Info, error) {
	return ufs.Info{}, nil
}

func (n *namer) SweepNamed(_ context.Context, key, name string) error {
	n.swept = append(n.swept, key+" "+name)
	return nil
}

func (n *namer) Sweep(context.Context, string, string) error {
	panic("BUG: it would hit the uploads of others")
}

func (n *namer) Create(context.Context, string, string) (ufs.Writer, error) {
	return new(namedWriter), nil
}

type namedWriter struct{ ufs.WriteHint }

func (w *namedWriter) Hint(h ufs.WriteHint) { w.WriteHint = h }
func (w *namedWriter) Write(p []byte) (int, error) {
	w.Named("the " + string(p))
	return len(p), nil
}
func (w *namedWriter) Commit(context.Context) (ufs.Info, error) { return ufs.Info{}, nil }
func (w *namedWriter) Abort(context.Context) error              { return nil }

// TestNamedUploads: a store that names its uploads is asked by that name, through
// decorators and hints, and not at all about one that it had not named.
func TestNamedUploads(t *testing.T) {
	f, n := newFolder(t), &namer{}
	f.fs = wrap.Intercept(n, func(ctx context.Context, _ wrap.Call, do func(context.Context) error) error { return do(ctx) })
	f.create("a", "1")
	w, err := f.l.Over(1, f.fs).Create(t.Context(), "b", "2")
	require.NoError(t, err)
	w.(ufs.Hinted).Hint(ufs.WriteHint{Length: 7})
	_, err = io.WriteString(w, "other")
	require.NoError(t, err)
	_, err = f.l.Over(1, f.fs).Create(t.Context(), "c", "3")
	require.NoError(t, err)
	f.start()
	require.Equal(t, 3, f.l.Left())
	require.NoError(t, f.l.Clean(t.Context(), f.store))
	require.ElementsMatch(t, []string{"a the content", "b the other"}, n.swept)
}

// TestFile: what the file may look like.
func TestFile(t *testing.T) {
	for name, tc := range map[string]struct {
		content string
		left    int
	}{
		"golden":      {content: "orca uploads 1\nbegun 1 7 \"d/f\" \"3a\"\nnamed 1 \"x y\"\nbegun 2 7 \"g\" \"\"\nended 1\n", left: 1},
		"empty":       {},
		"torn head":   {content: "orca up"},
		"torn line":   {content: head + "begun 1 7 \"f\" \"a\"\nended 1", left: 1},
		"unknown end": {content: head + "ended 9\nnamed 9 \"x\"\n"},
		"foreign":     {content: "hello\nworld\n"},
		"later":       {content: "orca uploads 2\nbegun 1 7 \"f\" \"a\"\n"},
		"zeros":       {content: head + "begun 1 7 \"f\" \"a\"\n" + strings.Repeat("\x00", 4096), left: 1},
		"garbage":     {content: head + "begun x\nbegun 2 7 \"f\" \"a\"\n", left: 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "uploads")
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o600))
			l, err := Open(path, quiet)
			require.NoError(t, err)
			require.Equal(t, tc.left, l.Left())
			require.NoError(t, l.Close())
			l, err = Open(path, quiet)
			require.NoError(t, err, "what it wrote itself")
			require.Equal(t, tc.left, l.Left())
			require.NoError(t, l.Close())
		})
	}
}

// TestFileStaysShort: it is written anew as it grows, with what is still under
// way.
func TestFileStaysShort(t *testing.T) {
	f, n := newFolder(t), &namer{}
	f.fs = n
	f.create("kept", "1")
	key := strings.Repeat("k", 200)
	for i := range 20_000 {
		w := f.create(key, fmt.Sprint(i))
		require.NoError(t, w.Abort(t.Context()))
	}
	st, err := os.Stat(f.path)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Size(), int64(rewriteFrom+1000))
	f.start()
	require.Equal(t, 1, f.l.Left())
}

// TestFileCannotBeWritten: uploads go on, and are written down once that can be
// done.
func TestFileCannotBeWritten(t *testing.T) {
	f := newFolder(t)
	require.NoError(t, os.Mkdir(f.path+".new", 0o700)) // in the way of each attempt
	f.create("a", "1")
	require.NoError(t, f.l.f.Close()) // and appends fail as on a full disk
	f.create("b", "2")
	require.Nil(t, f.l.f)
	w := f.create("c", "3")
	require.NoError(t, os.Remove(f.path+".new"))
	require.NoError(t, w.Abort(t.Context()))
	f.start()
	require.Equal(t, 2, f.l.Left())

	require.NoError(t, os.Mkdir(f.path+".new", 0o700))
	f.start()
	require.Equal(t, 2, f.l.Left(), "a start that cannot write knows it")
}
