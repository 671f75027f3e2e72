// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metapb_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca/metaplane/metapb"
)

// What StatScratch decodes is what UnmarshalVT decodes, in whatever order it
// meets requests, and of damaged ones it knows no more.
func TestStatScratchAgreesWithUnmarshal(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	one := func(in int) bool { return r.IntN(in) == 0 }
	n := func() uint64 { return r.Uint64() >> r.IntN(64) }
	var s metapb.StatScratch
	taken := 0
	for range 20_000 {
		q := &metapb.StatRequest{}
		if !one(4) {
			q.H = &metapb.Header{Client: n(), Seq: n(), AckedBelow: n()}
			if one(2) {
				q.H.Caller = &metapb.Caller{Uid: uint32(n()), Gid: uint32(n())}
			}
		}
		if !one(4) {
			q.Target = &metapb.Target{Ino: n(), Path: "/a/b"[:r.IntN(5)]}
		}
		if one(2) {
			q.Sync = &metapb.SyncOption{Mode: uint32(n()), IntervalMs: int64(n())}
		}
		b, err := q.MarshalVT()
		require.NoError(t, err)
		if len(b) > 0 && r.IntN(4) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		got, ok := s.Decode(b)
		if !ok {
			continue
		}
		taken++
		want := &metapb.StatRequest{}
		require.NoError(t, want.UnmarshalVT(b), "% x", b)
		require.NotNil(t, want.H)
		require.True(t, proto.Equal(want, got), "want %v\ngot  %v", want, got)
		require.True(t, proto.Equal(&metapb.StatReply{Attr: &metapb.Attr{}}, &s.Reply))
		s.Reply.Parent, s.Reply.Attr.Ino, s.Reply.Attr.UfsPath = 1, 2, "x"
		s.Reply.Attr.Runs = append(s.Reply.Attr.Runs, &metapb.Run{First: 3})
	}
	require.Greater(t, taken, 4000)
}

// TestStatScratchAllocs: decoding a stat costs no allocation.
func TestStatScratchAllocs(t *testing.T) {
	q := &metapb.StatRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: 7}}, Target: &metapb.Target{Path: "/some/path"}}
	b, err := q.MarshalVT()
	require.NoError(t, err)
	var s metapb.StatScratch
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if got, ok := s.Decode(b); !ok || got.Target.Path != "/some/path" {
			t.Error("not taken")
		}
	}))
}

// What CreateScratch decodes is what UnmarshalVT decodes, in whatever order it
// meets requests, and of damaged ones it knows no more.
func TestCreateScratchAgreesWithUnmarshal(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	one := func(in int) bool { return r.IntN(in) == 0 }
	n := func() uint64 { return r.Uint64() >> r.IntN(64) }
	var s metapb.CreateScratch
	taken := 0
	for range 20_000 {
		q := &metapb.CreateRequest{Mode: uint32(n()), Parents: one(2), Exclusive: one(2), Overwrite: one(2), WriteType: uint32(n()),
			BlockSize: int64(n()), Replicas: uint32(n()), Complete: one(2), Steal: one(2), ExpectLength: int64(n())}
		if !one(8) {
			q.H = &metapb.Header{Client: n(), Seq: n(), AckedBelow: n()}
			if one(2) {
				q.H.Caller = &metapb.Caller{Uid: uint32(n()), Gid: uint32(n())}
			}
			if one(8) {
				q.H.Group = 2
			}
		}
		if !one(8) {
			q.Target = &metapb.Target{Ino: n(), Path: "/a/b"[:r.IntN(5)]}
		}
		if one(8) {
			q.Symlink = "x"
		}
		b, err := q.MarshalVT()
		require.NoError(t, err)
		if r.IntN(4) == 0 {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		got, ok := s.Decode(b)
		if !ok {
			continue
		}
		taken++
		want := &metapb.CreateRequest{}
		require.NoError(t, want.UnmarshalVT(b), "% x", b)
		require.NotNil(t, want.H)
		require.NotNil(t, want.Target)
		require.True(t, proto.Equal(want, got), "want %v\ngot  %v", want, got)
	}
	require.Greater(t, taken, 4000)
}

// TestCreateScratchAllocs: decoding a create costs no allocation.
func TestCreateScratchAllocs(t *testing.T) {
	q := &metapb.CreateRequest{H: &metapb.Header{Client: 1, Seq: 2, Caller: &metapb.Caller{Uid: 7}}, Target: &metapb.Target{Path: "/some/path"}, Complete: true}
	b, err := q.MarshalVT()
	require.NoError(t, err)
	var s metapb.CreateScratch
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if got, ok := s.Decode(b); !ok || got.Target.Path != "/some/path" || !got.Complete {
			t.Error("not taken")
		}
	}))
}
