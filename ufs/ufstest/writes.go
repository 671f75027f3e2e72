// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufstest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"orca"
	"orca/ufs"
)

// create opens an upload and writes data to it.
func (t *T) create(key, token, data string) ufs.Writer {
	t.Helper()
	w, err := t.FS.Create(t.ctx, key, token)
	require.NoError(t, err)
	_, err = io.WriteString(w, data)
	require.NoError(t, err)
	return w
}

func testAbort(t *T) {
	require.NoError(t, t.FS.Mkdir(t.ctx, t.dir, 0o755))
	w := t.create(t.key("new/deep/f"), "tok1", "never seen")
	require.NoError(t, w.Abort(t.ctx))
	require.Equal(t, []string{}, t.list(t.dir), "an aborted upload leaves nothing, no directory either")

	t.put(t.key("f"), "old")
	w = t.create(t.key("f"), "tok2", "new")
	require.Equal(t, "old", t.get(t.key("f")), "invisible before Commit")
	require.Equal(t, []string{"f"}, t.list(t.dir), "no temporary name is listed")
	require.NoError(t, w.Abort(t.ctx))
	require.Equal(t, "old", t.get(t.key("f")))

	w = t.create(t.key("g"), "tok3", "kept")
	_, err := w.Commit(t.ctx)
	require.NoError(t, err)
	require.NoError(t, w.Abort(t.ctx), "Abort after Commit does nothing")
	require.Equal(t, "kept", t.get(t.key("g")))
}

// testOverwriteAtomic reads a key while it is replaced: every read sees one
// whole version, or says Stale.
func testOverwriteAtomic(t *T) {
	const size = 256 << 10
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, size) }
	t.put(t.key("f"), string(version(0)))
	g, ctx := errgroup.WithContext(t.ctx)
	done := make(chan struct{})
	g.Go(func() error {
		defer close(done)
		for i := 1; i < 12; i++ {
			if _, err := Put(ctx, t.FS, t.key("f"), version(i)); err != nil {
				return err
			}
		}
		return nil
	})
	for range 2 {
		g.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				in, err := t.FS.Stat(ctx, t.key("f"))
				if err != nil {
					return err
				}
				b, err := Get(ctx, t.FS, t.key("f"), 0, -1, in.Fingerprint)
				if orca.KindOf(err) == orca.Stale {
					continue
				}
				if err != nil {
					return err
				}
				if len(b) != size || !bytes.Equal(b, bytes.Repeat(b[:1], size)) {
					return fmt.Errorf("a mixed read: %d bytes, starting %q, ending %q", len(b), b[0], b[len(b)-1])
				}
			}
		})
	}
	require.NoError(t, g.Wait())
}

func testConcurrentCommits(t *T) {
	var g errgroup.Group
	infos := make([]ufs.Info, 8)
	for i := range infos {
		g.Go(func() (err error) {
			infos[i], err = Put(t.ctx, t.FS, t.key("new/dir/f"), bytes.Repeat([]byte{byte('0' + i)}, 1000+i))
			return err
		})
	}
	require.NoError(t, g.Wait())
	st, err := t.FS.Stat(t.ctx, t.key("new/dir/f"))
	require.NoError(t, err)
	got := t.get(t.key("new/dir/f"))
	i := int(got[0] - '0')
	require.Equal(t, string(bytes.Repeat([]byte{byte('0' + i)}, 1000+i)), got, "one of them, whole")
	require.Equal(t, infos[i].Fingerprint, st.Fingerprint)
	require.Equal(t, []string{"f"}, t.list(t.key("new/dir")))
}

// testExpect commits under a condition.
func testExpect(t *T) {
	commit := func(key, expect, data string) error {
		w, err := t.FS.Create(t.ctx, key, "")
		require.NoError(t, err)
		h, ok := w.(ufs.Hinted)
		require.True(t, ok, "every writer of ours takes hints")
		h.Hint(ufs.WriteHint{Length: int64(len(data)), Expect: expect})
		_, err = io.WriteString(w, data)
		require.NoError(t, err)
		if _, err = w.Commit(t.ctx); err != nil {
			require.NoError(t, w.Abort(t.ctx))
		}
		return err
	}
	key := t.key("f")
	require.NoError(t, commit(key, ufs.Absent, "1"))
	t.refused(commit(key, ufs.Absent, "2"), orca.Conflict, "absent, but there")
	in, err := t.FS.Stat(t.ctx, key)
	require.NoError(t, err)
	require.NoError(t, commit(key, in.Fingerprint, "3"))
	t.refused(commit(key, in.Fingerprint, "4"), orca.Conflict, "changed since")
	require.Equal(t, "3", t.get(key))
	require.NoError(t, t.FS.Remove(t.ctx, key))
	t.refused(commit(key, in.Fingerprint, "5"), orca.Conflict, "gone since")
	require.Error(t, t.FS.Remove(t.ctx, key), "nothing was written")
}

func testSweep(t *T) {
	key := t.key("dir/f")
	t.put(key, "old")
	t.put(t.key("dir/f2"), "other")
	w := t.create(key, "dead1", string(random(64<<10, 5)))
	require.NoError(t, t.FS.Sweep(t.ctx, key, "dead1"))
	require.Equal(t, "old", t.get(key))
	require.Equal(t, []string{"f", "f2"}, t.list(t.key("dir")))
	if !t.NoSweep {
		_, err := w.Commit(t.ctx)
		t.refused(err, orca.Stale, "commit of a swept upload")
		require.Equal(t, "old", t.get(key))
	}
	require.NoError(t, w.Abort(t.ctx))
	require.NoError(t, t.FS.Sweep(t.ctx, key, "never-was"))
	require.NoError(t, t.FS.Sweep(t.ctx, t.key("no/such"), "x"))
	w = t.create(key, "live", "new")
	require.NoError(t, t.FS.Sweep(t.ctx, t.key("dir/f2"), "live"), "another key")
	_, err := w.Commit(t.ctx)
	require.NoError(t, err)
	require.Equal(t, "new", t.get(key))
}

// testLarge uploads in uneven pieces and reads back in ranges.
func testLarge(t *T) {
	data := random(t.Large, 42)
	w, err := t.FS.Create(t.ctx, t.key("big"), "big1")
	require.NoError(t, err)
	for off, step := 0, 1; off < len(data); step = step*3%(3<<20) + 777 {
		end := min(off+step, len(data))
		n, err := w.Write(data[off:end])
		require.NoError(t, err)
		require.Equal(t, end-off, n)
		off = end
	}
	_, err = t.FS.Stat(t.ctx, t.key("big"))
	t.refused(err, orca.NotFound, "invisible before Commit")
	in, err := w.Commit(t.ctx)
	require.NoError(t, err)
	require.EqualValues(t, len(data), in.Size)
	st, err := t.FS.Stat(t.ctx, t.key("big"))
	require.NoError(t, err)
	require.Equal(t, in.Fingerprint, st.Fingerprint)
	got, err := Get(t.ctx, t.FS, t.key("big"), 0, -1, in.Fingerprint)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got), "whole content")
	var g errgroup.Group
	const ranges = 8
	for i := range ranges {
		g.Go(func() error {
			off, n := i*len(data)/ranges, len(data)/ranges/2
			b, err := Get(t.ctx, t.FS, t.key("big"), int64(off), int64(n), in.Fingerprint)
			if err == nil && !bytes.Equal(b, data[off:off+n]) {
				err = fmt.Errorf("range %d differs", i)
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	require.NoError(t, t.FS.Remove(t.ctx, t.key("big")))
}

func testPrepare(t *T) {
	t.put(t.key("f"), "old")
	data := random(100_000, 77)
	w := t.create(t.key("f"), "prep", string(data))
	p, ok := w.(ufs.Preparer)
	if !ok {
		require.NoError(t, w.Abort(t.ctx))
		t.Skip("no Prepare")
	}
	require.NoError(t, p.Prepare(t.ctx))
	require.NoError(t, p.Prepare(t.ctx), "twice is once")
	require.Equal(t, "old", t.get(t.key("f")), "Prepare shows nothing")
	_, err := w.Commit(t.ctx)
	require.NoError(t, err)
	require.Equal(t, string(data), t.get(t.key("f")))
	w = t.create(t.key("g"), "prep2", "x")
	require.NoError(t, w.(ufs.Preparer).Prepare(t.ctx))
	require.NoError(t, w.Abort(t.ctx))
	require.Equal(t, []string{"f"}, t.list(t.dir))
}

func testCancel(t *T) {
	t.put(t.key("f"), string(random(2<<20, 1)))
	dead, cancel := context.WithCancel(t.ctx)
	cancel()
	calls := map[string]func() error{
		"stat":   func() error { _, err := t.FS.Stat(dead, t.key("f")); return err },
		"list":   func() error { return t.FS.List(dead, t.dir, func(ufs.Info) error { return nil }) },
		"open":   func() error { _, err := Get(dead, t.FS, t.key("f"), 0, -1, ""); return err },
		"create": func() error { _, err := Put(dead, t.FS, t.key("g"), []byte("x")); return err },
		"mkdir":  func() error { return t.FS.Mkdir(dead, t.key("d"), 0o755) },
		"remove": func() error { return t.FS.Remove(dead, t.key("f")) },
	}
	for name, call := range calls {
		t.refused(call(), orca.Canceled, name)
	}
	late, stop := context.WithDeadline(t.ctx, time.Now().Add(-time.Second))
	defer stop()
	_, err := t.FS.Stat(late, t.key("f"))
	t.refused(err, orca.Timeout, "a passed deadline")

	mid, cancel := context.WithCancel(t.ctx)
	r, err := t.FS.Open(mid, t.key("f"), 0, -1, "")
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 1000))
	require.NoError(t, err)
	cancel()
	_, err = io.Copy(io.Discard, r)
	t.refused(err, orca.Canceled, "canceled in the middle of a read")
	require.NoError(t, r.Close())
	require.Equal(t, []string{"f"}, t.list(t.dir), "nothing was made or removed")
}

func testOwner(t *T) {
	o, ok := t.FS.(ufs.Owner)
	if !ok {
		t.Skip("no owners")
	}
	in := t.put(t.key("f"), "x")
	require.EqualValues(t, 0o644, in.Mode, "the default mode")
	require.NoError(t, o.Chmod(t.ctx, t.key("f"), 0o4751))
	st, err := t.FS.Stat(t.ctx, t.key("f"))
	require.NoError(t, err)
	require.EqualValues(t, 0o4751, st.Mode)
	require.Equal(t, in.Fingerprint, st.Fingerprint, "chmod keeps the fingerprint")
	when := time.Unix(1_700_000_000, 123456789)
	require.NoError(t, o.Utimens(t.ctx, t.key("f"), when, when))
	st, err = t.FS.Stat(t.ctx, t.key("f"))
	require.NoError(t, err)
	require.True(t, when.Equal(st.Mtime), "mtime %v", st.Mtime)
	require.NoError(t, o.Chown(t.ctx, t.key("f"), st.UID, st.GID))
	require.NoError(t, o.Chmod(t.ctx, t.key("f"), 0o600))
	t.put(t.key("f"), "y")
	st, err = t.FS.Stat(t.ctx, t.key("f"))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, st.Mode, "an overwrite keeps the mode")
	w := t.create(t.key("g"), "", "")
	w.(ufs.Hinted).Hint(ufs.WriteHint{Owned: true, Mode: 0o640, UID: st.UID, GID: st.GID})
	g, err := w.Commit(t.ctx)
	require.NoError(t, err)
	require.EqualValues(t, 0o640, g.Mode, "the mode of the hint")
	t.refused(o.Chmod(t.ctx, t.key("none"), 0o600), orca.NotFound, "chmod of nothing")
}

// testReadOnly runs on a store that refuses changes.
func testReadOnly(t *T) {
	_, err := Put(t.ctx, t.FS, "x", []byte("y"))
	t.refused(err, orca.ReadOnly, "create")
	t.refused(t.FS.Mkdir(t.ctx, "d", 0o755), orca.ReadOnly, "mkdir")
	t.refused(t.FS.Remove(t.ctx, "d"), orca.ReadOnly, "remove")
	if r, ok := t.FS.(ufs.Renamer); ok {
		t.refused(r.Rename(t.ctx, "a", "b"), orca.ReadOnly, "rename")
	}
	if c, ok := t.FS.(ufs.Copier); ok {
		_, err := c.Copy(t.ctx, "a", "b", "")
		t.refused(err, orca.ReadOnly, "copy")
	}
	_, err = t.FS.Stat(t.ctx, "")
	require.NoError(t, err)
	require.NoError(t, t.FS.List(t.ctx, "", func(ufs.Info) error { return nil }))
}
