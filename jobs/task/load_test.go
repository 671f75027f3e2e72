// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

// desk notes of each block that is read whether no other worker may keep it. It
// has what was read, as far as there is room.
type desk struct {
	own  map[uint32]bool
	room int
}

func (d *desk) Open(_ context.Context, r dataplane.ReadRequest) (dataplane.Extent, error) {
	d.own[r.ID.Index] = r.Own
	return dataplane.Extent{N: r.N}, nil
}

func (d *desk) BlockInfo(_ context.Context, id orca.BlockID) (dataplane.BlockInfo, error) {
	_, read := d.own[id.Index]
	return dataplane.BlockInfo{Complete: read && int(id.Index) < d.room}, nil
}

// TestLoadLeavesNoFurtherCopy: as long as one copy is missing, the worker that
// loads is to have it, and no other one may get it on the way.
func TestLoadLeavesNoFurtherCopy(t *testing.T) {
	all := []uint32{0, 1, 2}
	for _, c := range []struct {
		name     string
		replicas uint32
		at       []*metapb.Location
		own      map[uint32]bool
	}{
		{"nowhere", 0, nil, map[uint32]bool{0: true, 1: true, 2: true}},
		{"a part is elsewhere", 1, []*metapb.Location{held(2, 1)}, map[uint32]bool{0: true, 2: true}},
		{"elsewhere", 1, []*metapb.Location{held(2, all...)}, map[uint32]bool{}},
		{"one of two is missing", 2, []*metapb.Location{held(2, all...)}, map[uint32]bool{0: true, 1: true, 2: true}},
		{"two are missing", 2, []*metapb.Location{held(2, 1)}, map[uint32]bool{0: false, 1: true, 2: false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &desk{own: map[uint32]bool{}}
			e := &Env{NS: &files{rep: file(orca.Persisted, c.at...)}, Blocks: d, Self: self}
			done, err := Load(t.Context(), e, &jobpb.Task{Items: []*jobpb.Item{{File: 7, Version: 3, Path: "/f", Bytes: 25}}}, c.replicas)
			require.NoError(t, err)
			require.Empty(t, done.Failures)
			require.Equal(t, c.own, d.own)
		})
	}
}

// TestCopyThatIsNotKept: a copy by order is made only where it is kept; a load
// that finds no room has passed over the file.
func TestCopyThatIsNotKept(t *testing.T) {
	tk := &jobpb.Task{Items: []*jobpb.Item{{File: 7, Version: 3, Path: "/f", Bytes: 25}}}
	for _, c := range []struct {
		room, read int
		out        string
	}{{0, 1, failed}, {2, 3, failed}, {3, 3, kept}} {
		d := &desk{own: map[uint32]bool{}, room: c.room}
		e := &Env{NS: &files{rep: file(orca.Persisted, held(2, 0, 1, 2))}, Blocks: d, Self: self}
		done, err := Replicate(t.Context(), e, tk)
		require.NoError(t, err)
		require.Equal(t, c.out, outcome(done), "room for %d blocks", c.room)
		require.Len(t, d.own, c.read, "no more is read than up to what is not kept")
		e.NS = &files{rep: file(orca.Persisted)}
		done, err = Load(t.Context(), e, tk, 1)
		require.NoError(t, err)
		require.Empty(t, done.Failures, "room for %d blocks", c.room)
	}
}
