// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inode_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/inode"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the goldens")

func sampleFile() *inode.File {
	return &inode.File{
		Ino: orca.NewIno(3, 77), Type: orca.TypeFile, Mode: 0o640, UID: 1000, GID: 100,
		Length: 5 << 30, BlockSize: 64 << 20, Version: 4, LastVersion: 5,
		Runs:  []orca.Run{{First: 0, Version: 3}, {First: 9, Version: 4}},
		Mtime: 1_700_000_000_123456789, Ctime: 1_700_000_001_000000000, Atime: 1_600_000_000_000000000,
		Persist: orca.ToBePersisted, Flags: inode.Pinned | inode.Durable, WriteType: orca.AsyncThrough,
		Replicas: 2, CRC: 0xdeadbeef, Change: 991, Fingerprint: "etag-1",
		Override: inode.Override{By: 12, Key: "old/name"}, Workers: []uint64{5, 6},
	}
}

func linkedFile() *inode.File {
	f := sampleFile()
	f.Flags |= inode.Linked
	f.Links = 3
	return f
}

func sampleDir() *inode.Dir {
	return &inode.Dir{
		Ino: orca.NewIno(0, 9), Parent: orca.RootIno, Name: "d", Mode: 0o2775, UID: 1, GID: 2,
		Mtime: 1_700_000_000_000000000, Ctime: 1_700_000_000_000000001, Atime: 5, Change: 3,
		Entries: 7, Subdirs: 2, Flags: inode.Loaded | inode.HasSync, Mount: 2,
		LoadedAt: 1_700_000_000_000000002, SyncMS: -1, Override: inode.Override{By: 1, Key: "x"}, Bytes: 5 << 30,
	}
}

// TestGoldens pins every key and record: a change of them is a new format.
func TestGoldens(t *testing.T) {
	link := &inode.File{Ino: 5, Type: orca.TypeSymlink, Mode: 0o777, Version: 1, Target: "../x"}
	golden := []struct {
		name string
		b    []byte
	}{
		{"key dentry", inode.AppendDirent(nil, 9, "name")},
		{"key dir", inode.AppendKey8(nil, inode.SpaceDir, 9)},
		{"key inode", inode.AppendKey8(nil, inode.SpaceInode, uint64(orca.NewIno(3, 77)))},
		{"key session", inode.AppendKey8(nil, inode.SpaceSession, 2)},
		{"key intent", inode.AppendKey8(nil, inode.SpaceIntent, 2)},
		{"key mount", inode.AppendMount(nil, 1)},
		{"key client", inode.AppendKey8(nil, inode.SpaceClient, 0xabc)},
		{"key result", inode.AppendSlot(nil, 0xabc, 1023)},
		{"key worker", inode.AppendKey8(nil, inode.SpaceWorker, 4)},
		{"key xattr", inode.AppendXattr(nil, 9, "user.a")},
		{"key trash", inode.AppendKey8(nil, inode.SpaceTrash, 9)},
		{"key bin", inode.AppendKey8(nil, inode.SpaceBin, 9)},
		{"key quota", inode.AppendKey8(nil, inode.SpaceQuota, 9)},
		{"key removed", inode.AppendKey8(nil, inode.SpaceRemoved, 9)},
		{"key hosted", inode.AppendHosted(nil, "jobs", []byte("k"))},
		{"key fact", inode.AppendFact(nil, "cluster")},
		{"key applied", inode.AppliedKey},
		{"key counters", inode.CountersKey},
		{"file", inode.AppendFile(nil, sampleFile())},
		{"symlink", inode.AppendFile(nil, link)},
		{"subdir", inode.AppendSubdir(nil, 9)},
		{"dir", inode.AppendDir(nil, sampleDir())},
		{"quota", inode.AppendQuota(nil, inode.Quota{Bytes: 1 << 40, Inodes: 1000})},
		{"place", inode.AppendPlace(nil, 9, "name")},
		{"key linked", inode.AppendKey8(nil, inode.SpaceLinked, 9)},
		{"key name", inode.AppendName(nil, 9, 8, "name")},
		{"link", inode.AppendLink(nil, 9)},
		{"linked file", inode.AppendFile(nil, linkedFile())},
	}
	var b strings.Builder
	for _, g := range golden {
		fmt.Fprintf(&b, "%s: %s\n", g.name, hex.EncodeToString(g.b))
	}
	const file = "testdata/format.golden"
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

func TestRoundTrip(t *testing.T) {
	d, err := inode.DecodeDentry(inode.AppendFile(nil, sampleFile()))
	require.NoError(t, err)
	require.Equal(t, sampleFile(), d.File)
	dir, err := inode.DecodeDir(inode.AppendDir(nil, sampleDir()))
	require.NoError(t, err)
	require.Equal(t, *sampleDir(), dir)
	d, err = inode.DecodeDentry(inode.AppendSubdir(nil, 9))
	require.NoError(t, err)
	require.Equal(t, inode.Dentry{Dir: 9}, d)
	d, err = inode.DecodeDentry(inode.AppendLink(nil, 9))
	require.NoError(t, err)
	require.Equal(t, inode.Dentry{Link: 9}, d)
	d, err = inode.DecodeDentry(inode.AppendFile(nil, linkedFile()))
	require.NoError(t, err)
	require.Equal(t, linkedFile(), d.File)
	file, in, name, ok := inode.DecodeName(inode.AppendName(nil, 9, 8, "name"))
	require.True(t, ok)
	require.Equal(t, []any{orca.Ino(9), orca.Ino(8), "name"}, []any{file, in, name})
	_, _, _, ok = inode.DecodeName([]byte("j12345678"))
	require.False(t, ok)
}

// TestOldDirectory decodes what builds before 2026-11-29 wrote.
func TestOldDirectory(t *testing.T) {
	old, err := hex.DecodeString("0100000000000000090000000000000001016428fd0b010217979cfe362a000002f5ffcfe2c6bfce972f030702028480d0e2c6bfce972f01010178")
	require.NoError(t, err)
	want := *sampleDir()
	want.Bytes = inode.UnknownBytes
	d, err := inode.DecodeDir(old)
	require.NoError(t, err)
	require.Equal(t, want, d)
}

func TestQuota(t *testing.T) {
	want := inode.Quota{Bytes: 1 << 40, Inodes: 7}
	b := inode.AppendQuota(nil, want)
	q, err := inode.DecodeQuota(b)
	require.NoError(t, err)
	require.Equal(t, want, q)
	for i := range b {
		_, err := inode.DecodeQuota(b[:i])
		require.ErrorIs(t, err, orca.Corrupt, "cut at %d", i)
	}
}

// TestDecodeAgain decodes into memory that held other records.
func TestDecodeAgain(t *testing.T) {
	var f inode.File
	plain := &inode.File{Ino: 5, Type: orca.TypeFile, Version: 1, Runs: []orca.Run{}, Workers: []uint64{}}
	for _, want := range []*inode.File{linkedFile(), plain, sampleFile()} {
		_, _, file, err := inode.DecodeDentryTo(inode.AppendFile(nil, want), &f)
		require.NoError(t, err)
		require.True(t, file)
		require.Equal(t, want, &f)
	}
	_, link, file, err := inode.DecodeDentryTo(inode.AppendLink(nil, 7), &f)
	require.NoError(t, err)
	require.True(t, file)
	require.EqualValues(t, 7, link)
	dir, _, file, err := inode.DecodeDentryTo(inode.AppendSubdir(nil, 9), &f)
	require.NoError(t, err)
	require.False(t, file)
	require.EqualValues(t, 9, dir)
	_, _, _, err = inode.DecodeDentryTo([]byte{1, 7}, &f)
	require.ErrorIs(t, err, orca.Corrupt)
}

// TestTruncatedIsCorrupt cuts a record at each byte.
func TestTruncatedIsCorrupt(t *testing.T) {
	file, dir := inode.AppendFile(nil, sampleFile()), inode.AppendDir(nil, sampleDir())
	for i := range file {
		_, err := inode.DecodeDentry(file[:i])
		require.ErrorIs(t, err, orca.Corrupt, "file cut at %d", i)
	}
	for i := range dir {
		_, err := inode.DecodeDir(dir[:i])
		require.ErrorIs(t, err, orca.Corrupt, "dir cut at %d", i)
	}
}

// TestDecodersSurviveAnything feeds noise.
func TestDecodersSurviveAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		_, _ = inode.DecodeDentry(append([]byte{1, 1}, b...))
		_, _ = inode.DecodeDentry(append([]byte{2}, b...))
		_, _ = inode.DecodeDir(append([]byte{1}, b...))
		_, _ = inode.DecodeDir(append([]byte{2}, b...))
		_, _ = inode.DecodeQuota(append([]byte{1}, b...))
		_, _ = inode.DecodeDentry(append([]byte{1, 3}, b...))
		_, _, _ = inode.DecodePlace(b)
		_, _, _, _ = inode.DecodeName(b)
	})
}

func TestKeysSortAsTheyCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		ka, kb := string(inode.AppendDirent(nil, orca.Ino(a), "x")), string(inode.AppendDirent(nil, orca.Ino(b), "x"))
		require.Equal(t, a < b, ka < kb)
		require.Equal(t, a, inode.Number([]byte(ka)))
		require.Equal(t, "x", inode.NameOf([]byte(ka)))
	})
	require.Equal(t, []byte("b"), inode.PrefixEnd([]byte("a\xff")))
	require.Nil(t, inode.PrefixEnd([]byte{0xff}))
}
