// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ufstest is the conformance suite of package ufs. Every store and
// every decorator runs it; a Suite declares what the store can do, and may
// never excuse a deviation from the contract.
//
// The subtests of one Run share a store and work below folders of their own,
// so that a suite against a real server needs one bucket. No goroutine of the
// suite outlives its subtest.
package ufstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
)

// Suite says what is tested.
type Suite struct {
	// FS is an empty store; the caller closes it.
	FS ufs.FS
	// Large is the size of the multipart test in bytes; 0: 40 MiB.
	Large int
	// Many is the number of keys of the paging test; 0: 2300.
	Many int
	// ReadOnly: the store refuses every change; only that is tested.
	ReadOnly bool
	// NoSweep: single-part uploads leave no remains, so a swept upload may
	// still commit (object stores).
	NoSweep bool
	// LongNames is the longest last name the store takes in bytes; 0: 255.
	LongNames int
}

// timeout bounds each subtest.
const timeout = 2 * time.Minute

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	if s.Large == 0 {
		s.Large = 40 << 20
	}
	if s.Many == 0 {
		s.Many = 2300
	}
	if s.LongNames == 0 {
		s.LongNames = orca.MaxName
	}
	e := &env{Suite: s}
	if s.ReadOnly {
		t.Run("read-only", e.run(testReadOnly))
		return
	}
	for _, c := range []struct {
		name string
		fn   func(*T)
	}{
		{"shape", testShape},
		{"put-stat-read", testPutStatRead},
		{"ranges", testRanges},
		{"odd-names", testOddNames},
		{"stale", testStale},
		{"fingerprints", testFingerprints},
		{"missing", testMissing},
		{"directories", testDirectories},
		{"list-order", testListOrder},
		{"list-stops", testListStops},
		{"paging", testPaging},
		{"remove", testRemove},
		{"abort", testAbort},
		{"overwrite-is-atomic", testOverwriteAtomic},
		{"concurrent-commits", testConcurrentCommits},
		{"expect", testExpect},
		{"sweep", testSweep},
		{"large", testLarge},
		{"prepare", testPrepare},
		{"cancel", testCancel},
		{"rename", testRename},
		{"exchange", testExchange},
		{"owner", testOwner},
		{"copy", testCopy},
		{"walk", testWalk},
		{"remove-many", testRemoveMany},
		{"remove-if", testRemoveIf},
		{"space", testSpace},
	} {
		t.Run(c.name, e.run(c.fn))
	}
}

type env struct {
	Suite
	next int
}

// T is one subtest: a testing.T, a folder of its own and a context.
type T struct {
	*testing.T
	Suite
	ctx context.Context //nolint:containedctx // of the subtest
	dir string
}

func (e *env) run(fn func(*T)) func(*testing.T) {
	return func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		e.next++
		fn(&T{T: t, Suite: e.Suite, ctx: ctx, dir: fmt.Sprintf("t%02d", e.next)})
	}
}

// key places a name in the folder of the subtest.
func (t *T) key(name string) string { return t.dir + "/" + name }

// put writes an object.
func (t *T) put(key, data string) ufs.Info {
	t.Helper()
	in, err := Put(t.ctx, t.FS, key, []byte(data))
	require.NoError(t, err, "put %q", key)
	return in
}

// Put writes one object.
func Put(ctx context.Context, fs ufs.FS, key string, data []byte) (ufs.Info, error) {
	w, err := fs.Create(ctx, key, "")
	if err != nil {
		return ufs.Info{}, err
	}
	if _, err := w.Write(data); err != nil {
		return ufs.Info{}, errors.Join(err, w.Abort(ctx))
	}
	in, err := w.Commit(ctx)
	if err != nil {
		return ufs.Info{}, errors.Join(err, w.Abort(ctx))
	}
	return in, nil
}

// Get reads one object, or a range of it.
func Get(ctx context.Context, fs ufs.FS, key string, off, n int64, want string) ([]byte, error) {
	r, err := fs.Open(ctx, key, off, n, want)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

func (t *T) get(key string) string {
	t.Helper()
	b, err := Get(t.ctx, t.FS, key, 0, -1, "")
	require.NoError(t, err, "get %q", key)
	return string(b)
}

// list returns the children of dir, "name" or "name/", relative to dir.
func (t *T) list(dir string) []string {
	t.Helper()
	out := []string{}
	err := t.FS.List(t.ctx, dir, func(in ufs.Info) error {
		require.True(t, dir == "" || strings.HasPrefix(in.Key, dir+"/"), "key %q in list of %q", in.Key, dir)
		name := strings.TrimPrefix(in.Key, dir+"/")
		if in.Dir {
			name += "/"
		} else {
			require.NotEmpty(t, in.Fingerprint, "fingerprint of %q", in.Key)
		}
		out = append(out, name)
		return nil
	})
	require.NoError(t, err, "list %q", dir)
	return out
}

// refused checks the kind of an error.
func (t *T) refused(err error, k orca.Kind, what string) {
	t.Helper()
	require.Error(t, err, what)
	require.Equal(t, k, orca.KindOf(err), "%s: %v", what, err)
}

// random returns n reproducible bytes.
func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

func testShape(t *T) {
	c := t.FS.Caps()
	_, renamer := t.FS.(ufs.Renamer)
	require.Equal(t, c.AtomicRename, renamer, "AtomicRename and Renamer")
	_, exchanger := t.FS.(ufs.Exchanger)
	require.True(t, exchanger || !c.Exchange, "Exchange and Exchanger")
	_, owner := t.FS.(ufs.Owner)
	require.Equal(t, c.Owners, owner, "Owners and Owner")
	root, err := t.FS.Stat(t.ctx, "")
	require.NoError(t, err, "stat of the root")
	require.True(t, root.Dir, "the root is a directory")
	require.Equal(t, []string{}, t.list(""), "a new store is empty")
}

func testPutStatRead(t *T) {
	for _, n := range []int{0, 1, 4096, 70000, 1<<20 + 7} {
		key := t.key(fmt.Sprintf("deep/er/f%d", n))
		data := random(n, uint64(n))
		before := time.Now().Add(-2 * time.Minute)
		in, err := Put(t.ctx, t.FS, key, data)
		require.NoError(t, err)
		got, err := t.FS.Stat(t.ctx, key)
		require.NoError(t, err)
		require.Equal(t, in.Fingerprint, got.Fingerprint, "Commit and Stat agree")
		require.Equal(t, key, got.Key)
		require.EqualValues(t, n, got.Size)
		require.EqualValues(t, n, in.Size)
		require.False(t, got.Dir)
		require.NotEmpty(t, got.Fingerprint)
		require.True(t, got.Mtime.After(before) && got.Mtime.Before(time.Now().Add(2*time.Minute)), "mtime %v", got.Mtime)
		require.WithinDuration(t, got.Mtime, in.Mtime, 2*time.Second, "mtime of Commit")
		b, err := Get(t.ctx, t.FS, key, 0, -1, got.Fingerprint)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, b), "content of %d bytes", n)
	}
	d, err := t.FS.Stat(t.ctx, t.key("deep"))
	require.NoError(t, err)
	require.True(t, d.Dir)
	require.Equal(t, []string{"er/"}, t.list(t.key("deep")))
}

func testRanges(t *T) {
	data := random(300_000, 3)
	in := t.put(t.key("f"), string(data))
	size := int64(len(data))
	for _, want := range []string{"", in.Fingerprint} {
		for _, c := range [][2]int64{{0, 0}, {0, 1}, {0, size}, {0, size + 10}, {1, 65536}, {size - 1, 1}, {size - 1, 100}, {size, 1}, {size, -1}, {size + 5, 10}, {70000, -1}, {123, 0}} {
			off, n := c[0], c[1]
			exp := data[min(off, size):]
			if n >= 0 && n < int64(len(exp)) {
				exp = exp[:n]
			}
			b, err := Get(t.ctx, t.FS, t.key("f"), off, n, want)
			require.NoError(t, err, "range %v", c)
			require.True(t, bytes.Equal(exp, b), "range %v: %d bytes, want %d", c, len(b), len(exp))
		}
	}
	t.put(t.key("empty"), "")
	b, err := Get(t.ctx, t.FS, t.key("empty"), 0, 10, "")
	require.NoError(t, err)
	require.Empty(t, b)
	_, err = t.FS.Open(t.ctx, t.key("f"), -1, 10, "")
	t.refused(err, orca.Invalid, "negative offset")
}

// oddNames are last names that something between here and a disk may mangle.
func (t *T) oddNames() []string {
	names := []string{
		"a b", " lead", "trail ", "a+b", "a%20b", "100%", "q?x=1&y", "#frag", "a#b", "semi;colon",
		"quo\"te", "apo'strophe", "back\\slash", "star*", "br[ack]et", "{curly}", "pipe|", "less<more>",
		"tilde~", "grüße", "日本語", "😀", "e\u0301", "...", "..a", "-dash", "=eq=", "a,b", "a:b", "a@b", "$var", "^", "`",
	}
	return append(names, strings.Repeat("n", t.LongNames))
}

func testOddNames(t *T) {
	names := t.oddNames()
	for i, n := range names {
		t.put(t.key(n), fmt.Sprint("content ", i))
		t.put(t.key("d"+n[:min(len(n), 200)])+"/"+n, "inner")
	}
	var want []string
	for i, n := range names {
		require.Equal(t, fmt.Sprint("content ", i), t.get(t.key(n)))
		in, err := t.FS.Stat(t.ctx, t.key(n))
		require.NoError(t, err, "stat %q", n)
		require.Equal(t, t.key(n), in.Key)
		dir := "d" + n[:min(len(n), 200)]
		require.Equal(t, []string{n}, t.list(t.key(dir)), "list %q", dir)
		want = append(want, n, dir+"/")
	}
	slices.Sort(want)
	require.Equal(t, want, t.list(t.dir))
	for _, n := range names {
		require.NoError(t, t.FS.Remove(t.ctx, t.key(n)), "remove %q", n)
	}
}

func testStale(t *T) {
	key := t.key("f")
	a := t.put(key, "first content")
	b := t.put(key, "other content")
	_, err := Get(t.ctx, t.FS, key, 0, -1, a.Fingerprint)
	t.refused(err, orca.Stale, "the old fingerprint")
	_, err = Get(t.ctx, t.FS, key, 3, 4, a.Fingerprint)
	t.refused(err, orca.Stale, "the old fingerprint, in a range")
	_, err = Get(t.ctx, t.FS, key, 0, 0, a.Fingerprint)
	t.refused(err, orca.Stale, "the old fingerprint, of no bytes")
	_, err = Get(t.ctx, t.FS, key, 1000, 4, a.Fingerprint)
	t.refused(err, orca.Stale, "the old fingerprint, behind the end")
	got, err := Get(t.ctx, t.FS, key, 0, -1, b.Fingerprint)
	require.NoError(t, err)
	require.Equal(t, "other content", string(got))
}

// testFingerprints rewrites one key with contents of one length, quickly: every
// version must have a fingerprint of its own.
func testFingerprints(t *T) {
	seen := map[string]int{}
	for i := range 30 {
		in := t.put(t.key("f"), fmt.Sprintf("%04d", i))
		old, dup := seen[in.Fingerprint]
		require.False(t, dup, "versions %d and %d share fingerprint %s", old, i, in.Fingerprint)
		seen[in.Fingerprint] = i
		st, err := t.FS.Stat(t.ctx, t.key("f"))
		require.NoError(t, err)
		require.Equal(t, in.Fingerprint, st.Fingerprint)
	}
}

func testMissing(t *T) {
	t.put(t.key("file"), "x")
	for _, k := range []string{t.key("none"), t.key("no/such/dir"), t.key("fil"), t.key("file/below")} {
		_, err := t.FS.Stat(t.ctx, k)
		t.refused(err, orca.NotFound, "stat "+k)
		_, err = t.FS.Open(t.ctx, k, 0, -1, "")
		t.refused(err, orca.NotFound, "open "+k)
		t.refused(t.FS.Remove(t.ctx, k), orca.NotFound, "remove "+k)
		err = t.FS.List(t.ctx, k, func(ufs.Info) error { return nil })
		if k != t.key("file/below") { // NotDir where directories exist
			t.refused(err, orca.NotFound, "list "+k)
		}
		require.Error(t, err)
	}
	_, err := t.FS.Open(t.ctx, t.dir, 0, -1, "")
	t.refused(err, orca.IsDir, "open a directory")
	t.refused(t.FS.List(t.ctx, t.key("file"), func(ufs.Info) error { return nil }), orca.NotDir, "list a file")
	w, err := t.FS.Create(t.ctx, "", "")
	if err == nil {
		_, err = w.Commit(t.ctx)
	}
	t.refused(err, orca.IsDir, "create the root")
	_, err = t.FS.Stat(t.ctx, t.key(strings.Repeat("x", orca.MaxName+1)))
	t.refused(err, orca.NameTooLong, "a name of 256 bytes")
}
