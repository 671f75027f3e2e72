// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufstest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"orca"
	"orca/ufs"
)

func testDirectories(t *T) {
	t.put(t.key("file"), "x")
	d := t.key("d")
	require.NoError(t, t.FS.Mkdir(t.ctx, d, 0o750))
	in, err := t.FS.Stat(t.ctx, d)
	require.NoError(t, err)
	require.True(t, in.Dir)
	require.Equal(t, d, in.Key)
	if t.FS.Caps().Owners {
		require.EqualValues(t, 0o750, in.Mode)
	}
	require.Equal(t, []string{}, t.list(d), "a new directory is empty")
	require.Equal(t, []string{"d/", "file"}, t.list(t.dir))
	t.refused(t.FS.Mkdir(t.ctx, d, 0o755), orca.Exists, "mkdir again")
	t.refused(t.FS.Mkdir(t.ctx, t.key("file"), 0o755), orca.Exists, "mkdir over a file")
	if t.FS.Caps().Directories {
		t.refused(t.FS.Mkdir(t.ctx, t.key("no/parent"), 0o755), orca.NotFound, "mkdir without a parent")
		t.refused(t.FS.Mkdir(t.ctx, t.key("file/below"), 0o755), orca.NotDir, "mkdir below a file")
		w, err := t.FS.Create(t.ctx, d, "")
		if err == nil {
			_, err = w.Commit(t.ctx)
			_ = w.Abort(t.ctx)
		}
		t.refused(err, orca.IsDir, "create over a directory")
	}
	t.put(d+"/x", "1")
	require.Equal(t, []string{"x"}, t.list(d))
}

// testListOrder has names around the slash, where a directory's order differs
// from that of its bare name, and a prefix that is no directory.
func testListOrder(t *T) {
	want := []string{"a", "a b", "a-b", "a.txt", "a0", "aa/", "ab", "b!", "b-", "b/", "b0", "c/", "é"}
	for _, n := range slices.Backward(want) {
		if name, isDir := strings.CutSuffix(n, "/"); isDir {
			t.put(t.key(name)+"/child", "x")
		} else {
			t.put(t.key(n), "x")
		}
	}
	require.Equal(t, want, t.list(t.dir))
	var infos []ufs.Info
	require.NoError(t, t.FS.List(t.ctx, t.dir, func(in ufs.Info) error {
		infos = append(infos, in)
		return nil
	}))
	require.True(t, slices.IsSortedFunc(infos, ufs.Compare))
	require.Equal(t, []string{"child"}, t.list(t.key("b")), "b, not b! or b-")
}

func testListStops(t *T) {
	for i := range 5 {
		t.put(t.key(fmt.Sprint("f", i)), "x")
	}
	mine := errors.New("enough")
	n := 0
	err := t.FS.List(t.ctx, t.dir, func(ufs.Info) error {
		if n++; n == 3 {
			return mine
		}
		return nil
	})
	require.Same(t, mine, err, "the error of fn comes back itself") //nolint:testifylint // identity is meant
	require.Equal(t, 3, n)
}

func testPaging(t *T) {
	var g errgroup.Group
	g.SetLimit(8)
	var want []string
	for i := range t.Many {
		name := fmt.Sprintf("k%05d", i)
		key := t.key("many/" + name)
		if i%10 == 0 { // a directory now and then
			key += "/in"
			name += "/"
		}
		want = append(want, name)
		g.Go(func() error {
			_, err := Put(t.ctx, t.FS, key, []byte("x"))
			return err
		})
	}
	require.NoError(t, g.Wait())
	require.Equal(t, want, t.list(t.key("many")))
}

func testRemove(t *T) {
	t.put(t.key("f"), "x")
	require.NoError(t, t.FS.Remove(t.ctx, t.key("f")))
	_, err := t.FS.Stat(t.ctx, t.key("f"))
	t.refused(err, orca.NotFound, "stat after remove")
	t.refused(t.FS.Remove(t.ctx, t.key("f")), orca.NotFound, "remove again")

	d := t.key("d")
	require.NoError(t, t.FS.Mkdir(t.ctx, d, 0o755))
	t.put(d+"/x", "1")
	t.refused(t.FS.Remove(t.ctx, d), orca.NotEmpty, "remove a full directory")
	require.Equal(t, "1", t.get(d+"/x"))
	require.NoError(t, t.FS.Remove(t.ctx, d+"/x"))
	require.Equal(t, []string{}, t.list(d), "the directory outlives its last file")
	require.NoError(t, t.FS.Remove(t.ctx, d))
	_, err = t.FS.Stat(t.ctx, d)
	t.refused(err, orca.NotFound, "stat of a removed directory")
	require.Error(t, t.FS.Remove(t.ctx, ""), "remove the root")
}

func testRename(t *T) {
	r, ok := t.FS.(ufs.Renamer)
	if !ok {
		t.Skip("no rename")
	}
	a := t.put(t.key("a"), "content")
	require.NoError(t, r.Rename(t.ctx, t.key("a"), t.key("b")))
	b, err := t.FS.Stat(t.ctx, t.key("b"))
	require.NoError(t, err)
	require.Equal(t, a.Fingerprint, b.Fingerprint, "a rename keeps the fingerprint")
	t.put(t.key("c"), "old")
	require.NoError(t, r.Rename(t.ctx, t.key("b"), t.key("c")))
	require.Equal(t, "content", t.get(t.key("c")), "it replaces a file")
	t.refused(r.Rename(t.ctx, t.key("b"), t.key("x")), orca.NotFound, "a missing source")
	t.refused(r.Rename(t.ctx, t.key("c"), t.key("no/parent")), orca.NotFound, "a missing parent")

	t.put(t.key("d1/x"), "1")
	t.put(t.key("d1/sub/y"), "2")
	require.NoError(t, r.Rename(t.ctx, t.key("d1"), t.key("d2")))
	require.Equal(t, []string{"sub/", "x"}, t.list(t.key("d2")))
	require.Equal(t, "2", t.get(t.key("d2/sub/y")))
	_, err = t.FS.Stat(t.ctx, t.key("d1"))
	t.refused(err, orca.NotFound, "the old directory")
	require.NoError(t, t.FS.Mkdir(t.ctx, t.key("empty"), 0o755))
	require.NoError(t, r.Rename(t.ctx, t.key("d2"), t.key("empty")), "over an empty directory")
	t.put(t.key("full/z"), "3")
	t.refused(r.Rename(t.ctx, t.key("empty"), t.key("full")), orca.NotEmpty, "over a full directory")
	t.refused(r.Rename(t.ctx, t.key("c"), t.key("full")), orca.IsDir, "a file over a directory")
	t.refused(r.Rename(t.ctx, t.key("full"), t.key("c")), orca.NotDir, "a directory over a file")
	t.refused(r.Rename(t.ctx, t.key("full"), t.key("full/in/it")), orca.NotFound, "into a missing folder of itself")
	require.NoError(t, t.FS.Mkdir(t.ctx, t.key("full/in"), 0o755))
	t.refused(r.Rename(t.ctx, t.key("full"), t.key("full/in/it")), orca.Invalid, "into itself")
	require.Equal(t, []string{"c", "empty/", "full/"}, t.list(t.dir))
}

func testExchange(t *T) {
	x, ok := t.FS.(ufs.Exchanger)
	if !ok || !t.FS.Caps().Exchange {
		t.Skip("no exchange")
	}
	a, d := t.key("a"), t.key("to/d")
	was := t.put(a, "file")
	t.put(d+"/in", "below")
	for range 2 { // again with the same token: nothing more
		require.NoError(t, x.Exchange(t.ctx, a, d, "t1"))
		require.Equal(t, "below", t.get(a+"/in"))
		now, err := t.FS.Stat(t.ctx, d)
		require.NoError(t, err)
		require.Equal(t, was.Fingerprint, now.Fingerprint, "the fingerprint goes along")
	}
	require.Equal(t, []string{"a/", "to/"}, t.list(t.dir), "what remembers the exchange is in no listing")
	require.NoError(t, t.FS.Sweep(t.ctx, a, "t1"))
	require.NoError(t, x.Exchange(t.ctx, a, d, "t2"))
	require.Equal(t, "file", t.get(a))
	require.NoError(t, t.FS.Sweep(t.ctx, a, "t2"))
	t.refused(x.Exchange(t.ctx, a, t.key("no"), "t3"), orca.NotFound, "a missing partner")
	t.refused(x.Exchange(t.ctx, t.key("no"), a, "t3"), orca.NotFound, "a missing file")
	t.refused(x.Exchange(t.ctx, d, d+"/in", "t4"), orca.Invalid, "a directory with what is in it")
	require.NoError(t, t.FS.Remove(t.ctx, d+"/in"))
	require.NoError(t, t.FS.Remove(t.ctx, d))
	require.NoError(t, t.FS.Remove(t.ctx, t.key("to")), "nothing is left behind")
}

func testCopy(t *T) {
	c, ok := t.FS.(ufs.Copier)
	if !ok {
		t.Skip("no server-side copy")
	}
	data := random(200_000, 9)
	a := t.put(t.key("a b+%"), string(data))
	in, err := c.Copy(t.ctx, t.key("a b+%"), t.key("to/ç?#"), a.Fingerprint)
	require.NoError(t, err)
	require.EqualValues(t, len(data), in.Size)
	st, err := t.FS.Stat(t.ctx, t.key("to/ç?#"))
	require.NoError(t, err)
	require.Equal(t, in.Fingerprint, st.Fingerprint)
	require.Equal(t, string(data), t.get(t.key("to/ç?#")))
	require.Equal(t, string(data), t.get(t.key("a b+%")), "the source stays")
	t.put(t.key("a b+%"), "changed")
	_, err = c.Copy(t.ctx, t.key("a b+%"), t.key("to/2"), a.Fingerprint)
	t.refused(err, orca.Stale, "a changed source")
	_, err = t.FS.Stat(t.ctx, t.key("to/2"))
	t.refused(err, orca.NotFound, "nothing was copied")
	_, err = c.Copy(t.ctx, t.key("none"), t.key("to/3"), "")
	t.refused(err, orca.NotFound, "a missing source")
}

func testWalk(t *T) {
	l, ok := t.FS.(ufs.Lister)
	if !ok {
		t.Skip("no subtree listing")
	}
	for _, k := range []string{"w/a", "w/a-b", "w/d/x", "w/d/e/y", "w2/no", "w/z"} {
		t.put(t.key(k), "x")
	}
	require.NoError(t, t.FS.Mkdir(t.ctx, t.key("w/marked"), 0o755))
	require.NoError(t, t.FS.Mkdir(t.ctx, t.key("w/d/marked"), 0o755))
	var got []string
	require.NoError(t, l.Walk(t.ctx, t.key("w"), func(in ufs.Info) error {
		name := strings.TrimPrefix(in.Key, t.key("w/"))
		if in.Dir {
			name += "/"
		}
		got = append(got, name)
		return nil
	}))
	require.Equal(t, []string{"a", "a-b", "d/e/y", "d/marked/", "d/x", "marked/", "z"}, got)
	t.refused(l.Walk(t.ctx, t.key("none"), func(ufs.Info) error { return nil }), orca.NotFound, "walk of nothing")
}

func testRemoveIf(t *T) {
	a := t.put(t.key("a"), "first")
	b := t.put(t.key("a"), "second")
	t.refused(ufs.RemoveIf(t.ctx, t.FS, t.key("a"), a.Fingerprint), orca.Stale, "a changed object")
	require.Equal(t, "second", t.get(t.key("a")))
	require.NoError(t, ufs.RemoveIf(t.ctx, t.FS, t.key("a"), b.Fingerprint))
	t.refused(ufs.RemoveIf(t.ctx, t.FS, t.key("a"), b.Fingerprint), orca.NotFound, "a removed object")
}

func testRemoveMany(t *T) {
	b, ok := t.FS.(ufs.BulkRemover)
	if !ok {
		t.Skip("no bulk removal")
	}
	var objects []ufs.Info
	for i := range 25 {
		objects = append(objects, t.put(t.key(fmt.Sprintf("m %d&<%%>", i)), "x"))
	}
	require.NoError(t, t.FS.Mkdir(t.ctx, t.key("marker"), 0o755))
	t.put(t.key("keep"), "x")
	objects = append(objects, ufs.Info{Key: t.key("marker"), Dir: true}, ufs.Info{Key: t.key("never was")})
	require.NoError(t, b.RemoveMany(t.ctx, objects))
	require.Equal(t, []string{"keep"}, t.list(t.dir))
	require.NoError(t, b.RemoveMany(t.ctx, nil))
}

func testSpace(t *T) {
	s, ok := t.FS.(ufs.Spacer)
	if !ok {
		t.Skip("no capacity")
	}
	total, free, err := s.Space(t.ctx)
	require.NoError(t, err)
	require.Positive(t, total)
	require.LessOrEqual(t, free, total)
}
