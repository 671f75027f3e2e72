// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package frame

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// goldens are frames whose bytes testdata/header.txt pins. Old lines are kept
// and must still decode.
var goldens = map[string]Header{
	"zero":      {},
	"ping":      {Op: OpPing, Seq: 1, Timeout: 5000},
	"read":      {Op: OpRead, Seq: 0x0102030405060708, Meta: 71, Timeout: 60000},
	"read-data": {Flags: FlagReply | FlagMore, Op: OpRead, Seq: 2, Meta: 64, Body: 1 << 20},
	"not-found": {Flags: FlagReply, Op: OpMetaFirst, Status: orca.NotFound, Seq: 3, Meta: 20},
	"largest":   {Flags: FlagReply, Op: 0xffff, Status: 0xffff, Seq: 1<<64 - 1, Meta: MaxMeta, Body: MaxBody, Timeout: 1<<32 - 1},
}

func TestGoldens(t *testing.T) {
	f, err := os.Open("testdata/header.txt")
	require.NoError(t, err)
	defer f.Close()
	seen := 0
	for sc := bufio.NewScanner(f); sc.Scan(); {
		name, text, ok := strings.Cut(sc.Text(), " ")
		if !ok || name == "#" {
			continue
		}
		want, known := goldens[name]
		require.True(t, known, name)
		seen++
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		require.NoError(t, err)
		got, err := Decode(b)
		require.NoError(t, err, name)
		require.Equal(t, want, got, name)
		require.Equal(t, hex.EncodeToString(b), hex.EncodeToString(want.AppendTo(nil)), name)
	}
	require.Equal(t, len(goldens), seen)
}

func TestDecodeRefuses(t *testing.T) {
	good := (&Header{Op: OpRead, Seq: 9}).AppendTo(nil)
	for i := range good { // every single byte is covered by magic or sum
		for bit := range 8 {
			b := append([]byte(nil), good...)
			b[i] ^= 1 << bit
			_, err := Decode(b)
			require.ErrorIs(t, err, orca.Corrupt, "bit %d of byte %d", bit, i)
		}
		_, err := Decode(good[:i])
		require.ErrorIs(t, err, orca.Corrupt)
	}
	over := map[string]struct {
		h    Header
		kind orca.Kind
	}{
		"meta":  {Header{Meta: MaxMeta + 1}, orca.TooLarge},
		"body":  {Header{Body: MaxBody + 1}, orca.TooLarge},
		"flags": {Header{Flags: 0x80}, orca.Corrupt},
	}
	for name, c := range over {
		_, err := Decode(c.h.AppendTo(nil))
		require.ErrorIs(t, err, c.kind, name)
	}
	require.ErrorIs(t, (&Header{Meta: MaxMeta + 1}).Check(), orca.TooLarge)
}

func TestAllocations(t *testing.T) {
	h := Header{Op: OpRead, Seq: 7, Meta: 64, Body: 1 << 20}
	var b [Size]byte
	dst := make([]byte, 0, 64)
	require.Zero(t, testing.AllocsPerRun(1000, func() { h.Put(b[:]); dst = h.AppendTo(dst[:0]) }))
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = Decode(b[:]) }))
	b[0] = 0
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = Decode(b[:]) }), "garbage allocates nothing")
}

func TestErrorsOnTheWire(t *testing.T) {
	cause := errors.New("cause")
	for _, c := range []struct {
		in   error
		kind orca.Kind
		text string
	}{
		{orca.E("a.B", orca.Busy, "later"), orca.Busy, "a.B: later"},
		{orca.PathE("a.B", "/p", orca.NotFound, nil), orca.NotFound, "a.B '/p': not found"},
		{orca.PathE("a.B", "/p", orca.NotFound, cause), orca.NotFound, "a.B '/p': not found: cause"},
		{fmt.Errorf("more: %w", orca.E("a.B", orca.Stale, "old")), orca.Stale, "more: a.B: old"},
		{fmt.Errorf("more: %w", orca.Exists), orca.Exists, "more: exists"},
		{cause, orca.Internal, "internal: cause"},
		{context.Canceled, orca.Canceled, "context canceled"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), orca.Timeout, "x: context deadline exceeded"},
		{orca.E("a", orca.Invalid, strings.Repeat("x", 3*maxErrText)), orca.Invalid, "a: " + strings.Repeat("x", maxErrText)},
	} {
		out := DecodeError(StatusOf(c.in), AppendError(nil, c.in))
		require.ErrorIs(t, out, c.kind)
		require.Equal(t, c.text, out.Error())
	}
	require.NoError(t, DecodeError(orca.OK, []byte("x")))
	for _, bad := range []string{"", "\x00", "\x00\x05ab", "\xff\xff"} {
		require.ErrorIs(t, DecodeError(orca.Busy, []byte(bad)), orca.Busy)
	}
}

func FuzzDecode(f *testing.F) {
	for _, h := range goldens {
		f.Add(h.AppendTo(nil))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Decode(b)
		if err != nil {
			return
		}
		if h.Meta > MaxMeta || h.Body > MaxBody || h.Flags&^flagsKnown != 0 {
			t.Fatalf("accepted %+v", h)
		}
		if got := string(h.AppendTo(nil)); got != string(b[:Size]) {
			t.Fatalf("encodes to other bytes: %x, was %x", got, b[:Size])
		}
	})
}

func FuzzDecodeError(f *testing.F) {
	f.Add(uint16(3), AppendError(nil, orca.E("a.B", orca.NotFound, "msg")))
	f.Fuzz(func(t *testing.T, status uint16, meta []byte) {
		err := DecodeError(orca.Kind(status), meta)
		if (err == nil) != (status == 0) {
			t.Fatalf("status %d gave %v", status, err)
		}
	})
}
