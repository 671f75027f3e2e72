// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/inode"
)

// TestOldStore opens a store whose directories have records without a sum, as
// builds before 2026-11-29 wrote them: the sums are made once, and kept.
func TestOldStore(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	st := &story{world: w}
	for _, line := range []string{
		"mkdir /a/b -p", "mkdir /c", "create /a/x", "complete s=1 len=5", "create /a/b/y", "complete s=2 len=7",
		"create /a/b/z", "complete s=3 len=1", "create /l link=abc", "mkdir /a/gone", "create /a/gone/f", "complete s=4 len=100",
		"rm /a/gone -r", "quota /a inodes=9",
	} {
		st.run(line)
	}
	want := []string{st.run("usage /"), st.run("usage /a"), st.run("usage /a/b"), st.run("usage /c")}
	require.Equal(t, "bytes 16 files 4 dirs 3\n", want[0])
	tx := w.db.NewTx()
	var old int
	records := func(each func(k, v []byte)) {
		require.NoError(t, w.db.Scan([]byte{inode.SpaceDir}, []byte{inode.SpaceDir + 1}, func(k, v []byte) bool {
			each(k, v)
			return true
		}))
	}
	records(func(k, v []byte) {
		d, err := inode.DecodeDir(v)
		require.NoError(t, err)
		was := append([]byte{1}, v[1:len(v)-len(binary.AppendUvarint(nil, uint64(d.Bytes)))]...)
		d, err = inode.DecodeDir(was)
		require.NoError(t, err)
		require.EqualValues(t, inode.UnknownBytes, d.Bytes)
		tx.Set(k, was)
		old++
	})
	require.Equal(t, 5, old)
	require.NoError(t, tx.Commit(w.db.Applied(), 0))
	for range 2 {
		w.reopen()
		require.NoError(t, w.m.Check())
		require.Equal(t, want, []string{st.run("usage /"), st.run("usage /a"), st.run("usage /a/b"), st.run("usage /c")})
		records(func(_, v []byte) { require.EqualValues(t, 2, v[0]) })
	}
}

// TestUsageOf asks for what is not a directory of the tree.
func TestUsageOf(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	st := &story{world: w}
	for _, line := range []string{"mkdir /d", "create /d/f", "complete s=1 len=5", "mkdir /gone", "create /gone/f -done"} {
		st.run(line)
	}
	f, err := w.m.Walk(orca.Caller{}, 0, "/d/f")
	require.NoError(t, err)
	u, err := w.m.Usage(orca.Ino(f.Attr.Ino))
	require.NoError(t, err)
	require.Equal(t, Usage{Bytes: 5, Files: 1}, u.Usage)
	require.Equal(t, f.Dir.Attr.Ino, uint64(u.Dir))
	gone, err := w.m.Walk(orca.Caller{}, 0, "/gone")
	require.NoError(t, err)
	st.run("rm /gone -r")
	_, err = w.m.Usage(orca.Ino(gone.Attr.Ino))
	require.ErrorIs(t, err, orca.NotFound)
	_, err = w.m.Usage(4711)
	require.ErrorIs(t, err, orca.NotFound)
}

// TestQuotasShown shows a caller the quotas of the directories that it can
// reach.
func TestQuotasShown(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	st := &story{world: w}
	for _, line := range []string{
		"mkdir /open/b -p", "mkdir /open/a", "mkdir /closed/c -p", "mkdir /gone/d -p", "chmod /closed mode=0700",
		"quota /open/b bytes=5", "quota /open/a inodes=5", "quota /closed/c bytes=5", "quota /gone/d bytes=5", "rm /gone -r",
	} {
		require.NotContains(t, st.run(line), "denied", line)
	}
	paths := func(c orca.Caller) string {
		var s []string
		for _, q := range w.m.Quotas(c) {
			s = append(s, q.Path)
		}
		return fmt.Sprint(s)
	}
	require.Equal(t, "[/closed/c /open/a /open/b]", paths(orca.Caller{}))
	require.Equal(t, "[/open/a /open/b]", paths(orca.Caller{UID: 5, GID: 5}))
	require.EqualValues(t, 4, w.m.Counts().Quotas)
	st.run("sweep")
	require.EqualValues(t, 3, w.m.Counts().Quotas)
	require.NoError(t, w.m.Check())
}

// BenchmarkUsage is Usage of a directory high above many files.
func BenchmarkUsage(b *testing.B) {
	w := quietWorld(b)
	for _, e := range w.creates(64, 64) {
		w.index++
		_, err := w.m.Apply([]Entry{{Index: w.index, Data: e, Want: WantNone}})
		require.NoError(b, err)
	}
	for b.Loop() {
		if u, err := w.m.Usage(orca.RootIno); err != nil || u.Files != 64*64 {
			b.Fatal(u, err)
		}
	}
}
