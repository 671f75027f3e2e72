// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/lni/vfs"
	"github.com/stretchr/testify/require"
)

func aheadDisk(t *testing.T) *watchedDisk {
	return &watchedDisk{FS: vfs.Default, log: slog.New(slog.DiscardHandler), die: func(reason string) { t.Error(reason) }}
}

func read(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	require.NoError(t, err)
	b, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return b
}

func TestLogIsWrittenAhead(t *testing.T) {
	d := aheadDisk(t)
	path := filepath.Join(t.TempDir(), "000001.log")
	f, err := d.Create(path)
	require.NoError(t, err)
	var want []byte
	for i, n := range []int{1, 100, aheadBytes, 3*aheadBytes + 5, 7, 0, aheadBytes - 1} {
		b := bytes.Repeat([]byte{byte(i + 1)}, n)
		_, err := f.Write(b)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		want = append(want, b...)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.GreaterOrEqual(t, st.Size(), int64(len(want)))
		require.LessOrEqual(t, st.Size(), int64(len(want)+aheadBytes))
		require.True(t, bytes.Equal(want, read(t, d, path)), "a reader sees the records, and nothing else")
		onDisk, err := os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, onDisk[:len(want)]))
		require.Empty(t, strings.Trim(string(onDisk[len(want):]), "\x00"))
	}
	old, err := d.Open(path)
	require.NoError(t, err)
	_, err = f.Write([]byte("later"))
	require.NoError(t, err)
	_, err = old.Seek(int64(len(want)-2), io.SeekStart)
	require.NoError(t, err)
	b, err := io.ReadAll(old)
	require.NoError(t, err)
	require.Equal(t, want[len(want)-2:], b)
	require.NoError(t, old.Close())

	require.NoError(t, f.Close())
	require.Empty(t, d.logs)
	onDisk, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(append(want, "later"...), onDisk), "a log that is closed is cut")
	require.True(t, bytes.Equal(onDisk, read(t, d, path)))
}

func TestOtherFilesAreNotWrittenAhead(t *testing.T) {
	d := aheadDisk(t)
	path := filepath.Join(t.TempDir(), "MANIFEST-000001")
	f, err := d.Create(path)
	require.NoError(t, err)
	_, err = f.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Size())
	require.NoError(t, f.Close())
}

// chunks returns a log of chunks with so many bytes.
func chunks(sizes ...int) []byte {
	var out []byte
	for _, n := range sizes {
		if left := logBlock - len(out)%logBlock; left < logHeader {
			out = append(out, make([]byte, left)...)
		}
		at := len(out)
		out = append(out, 0, 0, 0, 0, byte(n), byte(n>>8), chunkWhole)
		out = append(out, bytes.Repeat([]byte{7, 0}, n)[:n]...)
		binary.LittleEndian.PutUint32(out[at:], uint32(xxhash.Sum64(out[at+6:])))
	}
	return out
}

func TestLogsAreCutToTheirRecords(t *testing.T) {
	const room = logBlock - logHeader
	for name, log := range map[string][]byte{
		"empty":                      nil,
		"one":                        chunks(10),
		"many":                       chunks(1, 2, 3, 4000, 0),
		"a whole block":              chunks(room),
		"a whole block and more":     chunks(room, 5),
		"room for a header":          chunks(room-logHeader, 0),
		"room for less":              chunks(room-logHeader+1, 9),
		"room for less at the end":   chunks(room - 3),
		"room for ten bytes and no":  chunks(room - 10),
		"blocks":                     chunks(room, room, room, 77),
		"blocks, and room for three": chunks(room, room, room-3),
	} {
		for _, tail := range []int{0, 1, 6, 7, 11, 500, logBlock, aheadBytes} {
			dir := t.TempDir()
			path := filepath.Join(dir, "000001.log")
			require.NoError(t, os.WriteFile(path, append(bytes.Clone(log), make([]byte, tail)...), 0o600))
			require.NoError(t, cutLogs(dir))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			want := len(log)
			if tail < 2*logHeader { // no room for a chunk, perhaps
				want = max(want, len(got))
			}
			require.Equal(t, want, len(got), "%s with %d zeros", name, tail)
		}
		for what, tail := range map[string][]byte{
			"half a header":          {9, 9, 9},
			"a chunk that is longer": {1, 2, 3, 4, 200, 0, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7},
			"another record":         append(make([]byte, 2*logBlock-len(log)%logBlock), chunks(100)...),
			"a damaged one":          append(chunks(10)[:16], 99, 1),
		} {
			dir := t.TempDir()
			path := filepath.Join(dir, "000001.log")
			have := append(bytes.Clone(log), tail...)
			require.NoError(t, os.WriteFile(path, have, 0o600))
			require.NoError(t, cutLogs(dir))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(have, got), "%s and %s is the engine's", name, what)
		}
	}
	require.NoError(t, cutLogs(filepath.Join(t.TempDir(), "none")))
}

// TestStartsFromLogWithZeros starts from what a process that is killed leaves: its
// log has zeros behind the records, or what there is of another one.
func TestStartsFromLogWithZeros(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Config{Dir: dir, FlushEvery: time.Hour})
	for i := range 20 {
		propose(t, h.Group(), create(fmt.Sprintf("/f%d", i)))
	}
	for _, lost := range [][2]int{{0, 3000}, {0, 2000}, {1024, 1536}, {2048, 3000}, {512, 3000}} {
		image := t.TempDir()
		require.NoError(t, os.CopyFS(image, os.DirFS(dir)))
		logs, err := filepath.Glob(filepath.Join(image, journalDir, "*", "*", "*", "*", "*"+logSuffix))
		require.NoError(t, err)
		require.Len(t, logs, 1)
		f, err := os.OpenFile(logs[0], os.O_RDWR, 0)
		require.NoError(t, err)
		end, torn, err := recordsEnd(f)
		require.NoError(t, err)
		require.True(t, torn)
		st, err := f.Stat()
		require.NoError(t, err)
		require.Greater(t, st.Size(), end+aheadBytes/2, "the log was not written ahead")
		// A record, of which these sectors were not written.
		rec := chunks(3000)
		for i := range rec {
			if at := int(end)%logSector + i; at/logSector*logSector >= lost[0] && at < max(lost[1], 0) {
				rec[i] = 0
			}
		}
		_, err = f.WriteAt(rec, end)
		require.NoError(t, errors.Join(err, f.Close()))

		before, err := os.ReadFile(logs[0])
		require.NoError(t, err)
		x, err := Inspect(image, 0, quiet())
		require.NoError(t, err)
		require.GreaterOrEqual(t, x.last, uint64(20))
		require.NoError(t, x.Close())
		after, err := os.ReadFile(logs[0])
		require.NoError(t, err)
		require.True(t, bytes.Equal(before, after), "who looks into a folder changes nothing")

		for range 2 {
			again := open(t, Config{Dir: image})
			require.NoError(t, again.Group().ReadReady(t.Context()))
			for i := range 20 {
				require.True(t, exists(t, again.Group(), fmt.Sprintf("/f%d", i)))
			}
			propose(t, again.Group(), create(fmt.Sprintf("/later%d", again.Group().Machine().Counts().Files)))
			require.NoError(t, again.Close())
		}
	}
	require.NoError(t, h.Close())
}
