// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the goldens")

// fill sets every field of a message, nested ones up to a depth, to values
// that differ.
func fill(m protoreflect.Message, depth int, n *int) {
	fs := m.Descriptor().Fields()
	for i := range fs.Len() {
		f := fs.Get(i)
		*n++
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.Kind() == protoreflect.MessageKind && depth == 0:
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			v := m.Mutable(f).List().AppendMutable()
			fill(v.Message(), depth-1, n)
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), depth-1, n)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f, *n))
		default:
			m.Set(f, scalar(f, *n))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(fmt.Append(nil, n))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	default:
		return protoreflect.ValueOfString(fmt.Sprint(n))
	}
}

// commands returns one command per operation, every field set.
func commands() (names []string, cs []*command.Command) {
	fs := (&command.Command{}).ProtoReflect().Descriptor().Fields()
	for i := range fs.Len() {
		f := fs.Get(i)
		if f.Kind() != protoreflect.MessageKind || f.Name() == "caller" || f.Name() == "absent" {
			continue
		}
		c := &command.Command{Client: 7, Seq: 8, AckedBelow: 6, Caller: &metapb.Caller{Uid: 1, Gid: 2, Groups: []uint32{3}}, Now: 1_700_000_000_000_000_000}
		n := 0
		fill(c.ProtoReflect().Mutable(f).Message(), 1, &n)
		names, cs = append(names, string(f.Name())), append(cs, c)
	}
	names = append(names, "checked")
	cs = append(cs, &command.Command{Checks: 3, Absent: []*metapb.AbsentName{{Dir: 9, Name: "n"}},
		Mkdir: &metapb.MkdirOp{Target: &metapb.Target{Path: "/n"}}})
	return names, cs
}

// TestGoldens pins the journal's format: old journals must replay for ever.
func TestGoldens(t *testing.T) {
	var b strings.Builder
	names, cs := commands()
	var e, tagged command.Entry
	tagged.Tag(0x0102030405060708, 9)
	for i, c := range cs {
		enc, err := command.Append(nil, c)
		require.NoError(t, err)
		fmt.Fprintf(&b, "%s: %s\n", names[i], hex.EncodeToString(enc))
		if i < 2 {
			e.Add(enc)
			tagged.Add(enc)
		}
	}
	reigned := proto.Clone(cs[0]).(*command.Command)
	reigned.Reign = 5
	enc, err := command.Append(nil, reigned)
	require.NoError(t, err)
	fmt.Fprintf(&b, "%s under a reign: %s\n", names[0], hex.EncodeToString(enc))
	res := &command.Result{}
	n := 0
	fill(res.ProtoReflect(), 2, &n)
	enc, err = command.AppendResult(nil, res)
	require.NoError(t, err)
	fmt.Fprintf(&b, "result: %s\n", hex.EncodeToString(enc))
	fmt.Fprintf(&b, "entry of the first two: %s\n", hex.EncodeToString(e.Bytes()))
	fmt.Fprintf(&b, "tagged entry of the first two: %s\n", hex.EncodeToString(tagged.Bytes()))
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
	names, cs := commands()
	require.Greater(t, len(cs), 20)
	for i, c := range cs {
		enc, err := command.Append([]byte("prefix"), c)
		require.NoError(t, err)
		var got command.Command
		require.NoError(t, command.Decode(enc[len("prefix"):], &got))
		require.True(t, proto.Equal(c, &got), names[i])
	}
}

func TestEntry(t *testing.T) {
	var e command.Entry
	var want []string
	for i := range 300 {
		want = append(want, strings.Repeat("x", i))
		e.Add([]byte(want[i]))
	}
	require.Equal(t, 300, e.Len())
	require.Equal(t, len(e.Bytes()), e.Size())
	var got []string
	require.NoError(t, command.Split(e.Bytes(), func(i int, item []byte) error {
		require.Equal(t, len(got), i)
		got = append(got, string(item))
		return nil
	}))
	require.Equal(t, want, got)
	stop := orca.E("test", orca.Canceled, "")
	require.ErrorIs(t, command.Split(e.Bytes(), func(int, []byte) error { return stop }), orca.Canceled)
	_, _, ok := command.TagOf(e.Bytes())
	require.False(t, ok)
	e.Reset(true)
	require.Zero(t, e.Len())

	e.Tag(7, 1<<63)
	e.Add([]byte("item"))
	proposer, flight, ok := command.TagOf(e.Bytes())
	require.True(t, ok)
	require.Equal(t, []uint64{7, 1 << 63}, []uint64{proposer, flight})
	require.NoError(t, command.Split(e.Bytes(), func(i int, item []byte) error {
		require.Zero(t, i)
		require.Equal(t, "item", string(item))
		return nil
	}))
}

func TestRefusals(t *testing.T) {
	nothing := func(int, []byte) error { return nil }
	require.ErrorIs(t, command.Split(nil, nothing), orca.Corrupt)
	require.ErrorIs(t, command.Split([]byte{0xC1, 0}, nothing), orca.Corrupt)
	require.ErrorIs(t, command.Split([]byte{0xC0, 5, 1}, nothing), orca.Corrupt)
	require.ErrorIs(t, command.Split(append([]byte{0xC0}, make([]byte, command.MaxOps+1)...), nothing), orca.Corrupt)
	var c command.Command
	require.ErrorIs(t, command.Decode(nil, &c), orca.Corrupt)
	require.ErrorIs(t, command.Decode([]byte{2}, &c), orca.Corrupt)
	require.ErrorIs(t, command.Decode([]byte{1, 0xff}, &c), orca.Corrupt)
	_, err := command.Append(nil, &command.Command{Hosted: &metapb.HostedOp{Body: make([]byte, command.MaxBytes+1)}})
	require.ErrorIs(t, err, orca.TooLarge)
	require.NoError(t, command.Err("x", &command.Result{}))
	require.ErrorIs(t, command.Err("x", &command.Result{Kind: uint32(orca.Busy)}), orca.Busy)
}

func TestDecodersSurviveAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		_ = command.Decode(append([]byte{1}, b...), &command.Command{})
		_ = command.DecodeResult(append([]byte{1}, b...), &command.Result{})
		_ = command.Split(append([]byte{0xC0}, b...), func(int, []byte) error { return nil })
		_ = command.Split(append([]byte{0xC1}, b...), func(int, []byte) error { return nil })
		_, _, _ = command.TagOf(append([]byte{0xC1}, b...))
	})
}
