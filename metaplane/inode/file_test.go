// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inode_test

import (
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/inode"
)

// TestOldFile decodes what builds before 2026-11-30 wrote.
func TestOldFile(t *testing.T) {
	const plain = "0101000300000000004d01010305a003e80764808080801480808020040502deadbeef17979cfe3d85cd15d6f3f7c306a9b4aece8cdea2e302df07020003090406657461672d31000c086f6c642f6e616d650200000000000000050000000000000006"
	const linked = "0101000300000000004d0101038520a003e80764808080801480808020040502deadbeef17979cfe3d85cd15d6f3f7c306a9b4aece8cdea2e302df07020003090406657461672d31000c086f6c642f6e616d65020000000000000005000000000000000603"
	const symlink = "0101000000000000000503000000ff03000000000100000000000000000000000000000000000000042e2e2f780000"
	for text, want := range map[string]*inode.File{
		plain: sampleFile(), linked: linkedFile(),
		symlink: {Ino: 5, Type: orca.TypeSymlink, Mode: 0o777, Version: 1, Target: "../x"},
	} {
		old, err := hex.DecodeString(text)
		require.NoError(t, err)
		d, err := inode.DecodeDentry(old)
		require.NoError(t, err)
		require.Equal(t, want, d.File)
		var f inode.File
		_, _, _, err = inode.DecodeDentryTo(old, &f)
		require.NoError(t, err)
		require.Equal(t, want, &f)
		for i := range old {
			_, err := inode.DecodeDentry(old[:i])
			require.ErrorIs(t, err, orca.Corrupt, "cut at %d", i)
		}
	}
}

// usualFile is a file as a listing of a local store brings it in.
func usualFile() *inode.File {
	return &inode.File{
		Ino: orca.NewIno(1, 5_000_000), Type: orca.TypeFile, Mode: 0o644, Length: 1 << 20, BlockSize: orca.MaxWholeBlock,
		Version: 1, LastVersion: 1, Runs: []orca.Run{{Version: 1}}, Persist: orca.Persisted, Change: 600_000,
		Mtime: 1_600_000_000_123456789, Ctime: 1_700_000_000_123456789, Atime: 1_600_000_000_123456789,
		Fingerprint: "lfls-mh34-" + strconv.FormatInt(1_600_000_000_123456789, 36),
	}
}

// TestUsualFilesAreSmall holds what most of a namespace is made of to its bytes.
func TestUsualFilesAreSmall(t *testing.T) {
	listed := usualFile()
	object := usualFile()
	object.Mtime, object.Atime = 1_600_000_000e9, 1_600_000_000e9
	object.Fingerprint = "d41d8cd98f00b204e9800998ecf8427e-12"
	made := usualFile()
	made.WriteType, made.CRC, made.Mtime, made.Atime = orca.CacheThrough, 1, made.Ctime-3e6, made.Ctime
	for _, c := range []struct {
		name string
		f    *inode.File
		max  int
	}{{"of a local store", listed, 36}, {"of an object store", object, 48}, {"written", made, 55}} {
		require.LessOrEqual(t, len(inode.AppendFile(nil, c.f)), c.max, c.name)
	}
}

// TestFingerprintsStayAsTheyAre: what looks like numbers or a hash and is not
// written as one would be keeps every byte.
func TestFingerprintsStayAsTheyAre(t *testing.T) {
	hash := "d41d8cd98f00b204e9800998ecf8427e"
	for _, s := range []string{
		"", "-", "--", "---", "0-0-0", "1-2-3", "01-2-3", "1-02-3", "1-2-3-", "1-2-3-4", "1--3", "-2-3", "1-2-", "1-2", "z", "A-B-C", "1-2-Z", "+1-2-3",
		"3w5e11264sgsf-3w5e11264sgsf-3w5e11264sgsf", "3w5e11264sgsg-0-0", "zzzzzzzzzzzzzz-1-1", // 2^64-1, one more, far more
		hash, strings.ToUpper(hash), hash[1:], hash[:16], hash[:14], hash + "-1", hash + "-0", hash + "-01", hash + "-", hash + "-999999",
		hash + "-1000000", hash + "-1a", hash + "-1-1", hash + hash + hash + hash, hash + hash + hash + hash + "ab", "W/" + hash, hash + " ", "ü",
	} {
		f := usualFile()
		f.Fingerprint = s
		requireSame(t, f)
	}
}

// TestFilesRoundTrip is every record that there can be.
func TestFilesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u32, u8 := rapid.OneOf(rapid.Just(uint32(0)), rapid.Just(uint32(1)), rapid.Uint32()), rapid.Byte()
		i64 := rapid.OneOf(rapid.Just(int64(0)), rapid.Just(int64(17e9)), rapid.Just(int64(orca.MaxWholeBlock)), rapid.Int64())
		f := &inode.File{
			Ino: orca.Ino(rapid.Uint64().Draw(t, "ino")), Type: orca.FileType(u8.Draw(t, "type")), Mode: u32.Draw(t, "mode"),
			UID: u32.Draw(t, "uid"), GID: u32.Draw(t, "gid"), Length: i64.Draw(t, "length"), BlockSize: i64.Draw(t, "block"),
			Version: u32.Draw(t, "version"), LastVersion: u32.Draw(t, "last"),
			Mtime: i64.Draw(t, "mtime"), Ctime: i64.Draw(t, "ctime"), Atime: i64.Draw(t, "atime"),
			Persist: orca.PersistState(u8.Draw(t, "persist")), Flags: inode.Flags(u32.Draw(t, "flags")), WriteType: orca.WriteType(u8.Draw(t, "write")),
			Replicas: u32.Draw(t, "replicas"), CRC: u32.Draw(t, "crc"), Change: rapid.Uint64().Draw(t, "change"),
			Fingerprint: rapid.OneOf(rapid.StringMatching("[0-9a-z]{0,9}(-[0-9a-z]{0,14}){0,3}"), rapid.StringMatching("[0-9a-f]{0,70}(-[0-9]{1,8})?"), rapid.String()).Draw(t, "print"),
			Target:      rapid.String().Draw(t, "target"),
		}
		if f.Override.By = uint64(u32.Draw(t, "by")); f.Override.By != 0 {
			f.Override.Key = rapid.String().Draw(t, "key")
		}
		for range rapid.IntRange(0, 3).Draw(t, "runs") {
			f.Runs = append(f.Runs, orca.Run{First: u32.Draw(t, "first"), Version: u32.Draw(t, "of")})
		}
		for range rapid.IntRange(0, 3).Draw(t, "workers") {
			f.Workers = append(f.Workers, rapid.Uint64().Draw(t, "worker"))
		}
		if f.Flags.Has(inode.Linked) {
			f.Links = u32.Draw(t, "links")
		}
		requireSame(t, f)
	})
}

func requireSame(t require.TestingT, f *inode.File) {
	d, err := inode.DecodeDentry(inode.AppendFile(nil, f))
	require.NoError(t, err)
	require.Equal(t, f, d.File)
}

// TestFieldsOfALaterBuildAreRefused: a record that has what is not known cannot
// be read past it.
func TestFieldsOfALaterBuildAreRefused(t *testing.T) {
	_, err := inode.DecodeDentry([]byte{2, 0x80, 0x80, 0x80, 1, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0})
	require.ErrorIs(t, err, orca.Corrupt)
}

// TestDecodeAllocates: a file that is read costs its record, run included, and
// its fingerprint.
func TestDecodeAllocates(t *testing.T) {
	b := inode.AppendFile(nil, usualFile())
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		if _, err := inode.DecodeDentry(b); err != nil {
			t.Fatal(err)
		}
	}), 2.0)
	buf, f := b[:0:0], usualFile()
	buf = inode.AppendFile(buf, f)
	require.Zero(t, testing.AllocsPerRun(100, func() { buf = inode.AppendFile(buf[:0], f) }))
}

func BenchmarkAppendFile(b *testing.B) {
	var buf []byte
	for f := usualFile(); b.Loop(); {
		buf = inode.AppendFile(buf[:0], f)
	}
	b.ReportMetric(float64(len(buf)), "B/record")
}

func BenchmarkDecodeDentry(b *testing.B) {
	buf := inode.AppendFile(nil, usualFile())
	b.ReportAllocs()
	for b.Loop() {
		_, _ = inode.DecodeDentry(buf)
	}
}
