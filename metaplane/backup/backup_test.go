// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
)

var rewrite = flag.Bool("rewrite", false, "write the golden of the present format anew")

type kv struct{ k, v string }

// list is a Source.
type list struct {
	kvs []kv
	err error // at the end
}

func (l *list) Next() ([]byte, []byte, error) {
	if len(l.kvs) == 0 {
		return nil, nil, l.err
	}
	x := l.kvs[0]
	l.kvs = l.kvs[1:]
	return []byte(x.k), []byte(x.v), nil
}

var header = Header{
	Cluster: "00112233445566778899aabbccddeeff", Version: "1.2.3", Node: "a",
	Created: time.Date(2026, 11, 29, 5, 0, 0, 0, time.UTC), Groups: []Group{{ID: 1, Applied: 42}, {ID: 2, Applied: 7}},
}

// records are those of two groups; that of space '~' no Orca has.
func records() [][]kv {
	return [][]kv{
		{{"a", "\x00\x00\x00\x00\x00\x00\x00\x2a"}, {"d\x00\x00\x00\x00\x00\x00\x00\x01name", "dentry"}, {"~new", "what this build does not know"}},
		{{"n\x00\x00\x00\x00\x00\x00\x00\x01", ""}},
	}
}

func write(t testing.TB, all [][]kv) []byte {
	t.Helper()
	var sources []Source
	for _, kvs := range all {
		sources = append(sources, &list{kvs: kvs})
	}
	h := header
	h.Groups = h.Groups[:len(all)]
	s, err := NewStream(h, sources)
	require.NoError(t, err)
	var out bytes.Buffer
	for {
		b, err := s.Next()
		if errors.Is(err, io.EOF) {
			return out.Bytes()
		}
		require.NoError(t, err)
		out.Write(b)
	}
}

func read(r io.Reader) (got [][]kv, b *Reader, err error) {
	if b, err = NewReader(r); err != nil {
		return nil, nil, err
	}
	got = make([][]kv, len(b.Header.Groups))
	for {
		g, k, v, err := b.Next()
		if errors.Is(err, io.EOF) {
			return got, b, nil
		}
		if err != nil {
			return nil, b, err
		}
		got[g-1] = append(got[g-1], kv{string(k), string(v)})
	}
}

func TestRoundTrip(t *testing.T) {
	got, b, err := read(bytes.NewReader(write(t, records())))
	require.NoError(t, err)
	require.Equal(t, records(), got)
	want := header
	want.Format = Format
	require.Equal(t, want, b.Header)
	require.EqualValues(t, 4, b.Trailer.Total)
	require.Equal(t, map[uint16]map[string]int64{1: {"a": 1, "d": 1, "~": 1}, 2: {"n": 1}}, b.Trailer.Records)
}

// TestManyFrames: more than fits a frame, a value longer than one, an empty group.
func TestManyFrames(t *testing.T) {
	var big []kv
	for i := range 40_000 {
		big = append(big, kv{fmt.Sprintf("d%08d", i), strings.Repeat("v", i%200)})
	}
	big = append(big, kv{"x", strings.Repeat("long", 1<<20)})
	all := [][]kv{nil, big}
	file := write(t, all)
	got, b, err := read(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, all, got)
	require.Greater(t, b.Trailer.Frames, int64(3))
	require.Less(t, len(file), 1<<20, "it is compressed")
}

// TestEveryBitAndEveryLength: whatever bit is flipped and wherever the file is
// cut off, it is refused, and a cut as Corrupt.
func TestEveryBitAndEveryLength(t *testing.T) {
	file := write(t, records())
	for at := range file {
		_, err := Verify(bytes.NewReader(file[:at]))
		require.Equal(t, orca.Corrupt, orca.KindOf(err), "cut after %d bytes: %v", at, err)
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[at] ^= 1 << bit
			_, err := Verify(bytes.NewReader(bad))
			require.Error(t, err, "bit %d of byte %d", bit, at)
			require.Contains(t, []orca.Kind{orca.Corrupt, orca.Invalid, orca.Unsupported}, orca.KindOf(err), "%v", err)
		}
	}
	_, err := Verify(bytes.NewReader(append(bytes.Clone(file), 'H')))
	require.ErrorIs(t, err, orca.Corrupt)
}

// TestFramesCannotBeExchanged: each frame holds, but they are not those that the
// trailer counts.
func TestFramesCannotBeExchanged(t *testing.T) {
	file := write(t, records())
	other := write(t, [][]kv{{{"a", "\x00\x00\x00\x00\x00\x00\x00\x2a"}, {"d\x00\x00\x00\x00\x00\x00\x00\x01name", "DENTRY"}, {"~new", "what this build does not know"}}, records()[1]})
	require.Len(t, other, len(file))
	at := bytes.LastIndexByte(file[:len(file)-1], 'T')
	for ; file[at+1] != 0 || file[at+2] != 0; at = bytes.LastIndexByte(file[:at], 'T') {
	}
	_, err := Verify(bytes.NewReader(append(bytes.Clone(other[:at]), file[at:]...)))
	require.ErrorIs(t, err, orca.Corrupt)
	require.ErrorContains(t, err, "counts other records")
}

func TestSourceFails(t *testing.T) {
	s, err := NewStream(Header{Groups: []Group{{ID: 1}}}, []Source{&list{err: orca.E("x", orca.Unavailable, "the store was closed")}})
	require.NoError(t, err)
	_, err = s.Next()
	require.NoError(t, err)
	_, err = s.Next()
	require.ErrorIs(t, err, orca.Unavailable)
}

// TestGoldens: a file of each format version is readable for ever.
func TestGoldens(t *testing.T) {
	name := filepath.Join("testdata", fmt.Sprintf("format-%d.golden", Format))
	if *rewrite {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(name, []byte(hex.Dump(write(t, records()))), 0o644))
	}
	files, err := filepath.Glob("testdata/format-*.golden")
	require.NoError(t, err)
	require.Contains(t, files, name)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		var file []byte
		for line := range strings.Lines(string(text)) {
			if len(line) < 60 {
				continue // the last one: the length
			}
			b, err := hex.DecodeString(strings.ReplaceAll(line[10:59], " ", ""))
			require.NoError(t, err)
			file = append(file, b...)
		}
		got, _, err := read(bytes.NewReader(file))
		require.NoError(t, err, f)
		require.Equal(t, records(), got, f)
	}
}
