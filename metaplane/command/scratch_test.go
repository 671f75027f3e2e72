// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package command

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca/metaplane/metapb"
)

// randomCreate draws a create with any of its fields set.
func randomCreate(r *rand.Rand) *Command {
	one := func(in int) bool { return r.IntN(in) == 0 }
	n := func() uint64 { return r.Uint64() >> r.IntN(64) }
	c := &Command{Client: n(), Seq: n(), AckedBelow: n(), Now: int64(n()), Checks: uint32(n()), Reign: n(), Create: &metapb.CreateOp{
		Mode: uint32(n()), Exclusive: one(2), Overwrite: one(2), Steal: one(2), Complete: !one(4),
		Parents: one(4), WriteType: uint32(n()), BlockSize: int64(n()), WholeMax: int64(n()),
		Replicas: uint32(n()), Ttl: int64(n()), ParentMode: uint32(n()),
	}}
	if one(2) {
		c.Create.Target = &metapb.Target{Ino: n(), Path: "/a/b"[:r.IntN(5)]}
	}
	if one(2) {
		c.Caller = &metapb.Caller{Uid: uint32(n()), Gid: uint32(n())}
	}
	if one(8) {
		c.Absent = []*metapb.AbsentName{{Dir: 1, Name: "x"}}
	}
	if one(4) {
		c.Create.Symlink = "to"
	}
	return c
}

// What Scratch decodes is what Decode decodes, in whatever order it meets
// commands, and of damaged ones it knows no more.
func TestScratchAgreesWithDecode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var s Scratch
	taken := 0
	for range 20_000 {
		c := randomCreate(r)
		b, err := Append(nil, c)
		require.NoError(t, err)
		if r.IntN(4) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		got, ok := s.Create(b)
		if !ok {
			continue
		}
		taken++
		want := &Command{}
		require.NoError(t, Decode(b, want), "% x", b)
		require.True(t, proto.Equal(want, got), "want %v\ngot  %v", want, got)
		require.True(t, got.Create.Complete && !got.Create.Parents && got.Create.Symlink == "")
	}
	require.Greater(t, taken, 4000)
}

func TestScratchLeavesOthersToDecode(t *testing.T) {
	var s Scratch
	for _, c := range []*Command{
		{}, {Noop: &metapb.NoopOp{}}, {Create: &metapb.CreateOp{}},
		{Create: &metapb.CreateOp{Complete: true, Parents: true}},
		{Create: &metapb.CreateOp{Complete: true, Symlink: "x"}},
		{Create: &metapb.CreateOp{Complete: true}, Absent: []*metapb.AbsentName{{}}},
		{Create: &metapb.CreateOp{Complete: true}, Delete: &metapb.DeleteOp{}},
		{Create: &metapb.CreateOp{Complete: true}, Caller: &metapb.Caller{Groups: []uint32{1}}},
	} {
		b, err := Append(nil, c)
		require.NoError(t, err)
		_, ok := s.Create(b)
		require.False(t, ok, "%v", c)
	}
	_, ok := s.Create(nil)
	require.False(t, ok)
}

// TestScratchAllocs: decoding a create costs no allocation.
func TestScratchAllocs(t *testing.T) {
	b, err := Append(nil, &Command{Client: 1, Seq: 2, AckedBelow: 1, Now: 3, Caller: &metapb.Caller{Uid: 1},
		Create: &metapb.CreateOp{Target: &metapb.Target{Path: "/some/path"}, Mode: 0o644, Complete: true}})
	require.NoError(t, err)
	var s Scratch
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if _, ok := s.Create(b); !ok {
			t.Error("not taken")
		}
	}))
}
