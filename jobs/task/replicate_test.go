// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
)

const self = 1

// files is a metaplane that has one file, 7, or none.
type files struct {
	names
	rep *metapb.OpenReply
}

func (f *files) Open(context.Context, *metapb.OpenRequest) (*metapb.OpenReply, error) {
	if f.rep == nil {
		return nil, orca.E("files.Open", orca.NotFound, "")
	}
	return f.rep, nil
}

// cupboard notes what it is told to keep, drop and read.
type cupboard struct {
	asked []string
	err   error
	needs bool // a source to copy from
}

func (c *cupboard) note(format string, args ...any) {
	c.asked = append(c.asked, fmt.Sprintf(format, args...))
}

func (c *cupboard) Open(_ context.Context, r dataplane.ReadRequest) (dataplane.Extent, error) {
	if c.note("read %d+%d of %d", r.Off, r.N, r.ID.Index); !r.Own {
		return dataplane.Extent{}, orca.E("open", orca.Internal, "another worker may get a copy, too")
	}
	return dataplane.Extent{N: r.N}, c.err
}

func (c *cupboard) Keep(_ context.Context, id orca.BlockID, length int64, durable bool, from []string, moved func(int64) error) error {
	c.note("keep %d.%d:%d durable=%v from %s", id.Version, id.Index, length, durable, strings.Join(from, ","))
	if c.needs && len(from) == 0 {
		return orca.E("keep", orca.Unavailable, "")
	}
	if c.err != nil {
		return c.err
	}
	return moved(length)
}

func (c *cupboard) Drop(file orca.Ino, version uint32) { c.note("drop %d.%d", file, version) }

// reader has no Keeper.
type reader struct{ Blocks }

// held is a copy of 25 bytes in blocks of 10, complete but for those missing.
func held(worker uint64, complete ...uint32) *metapb.Location {
	n := int64(0)
	for _, b := range complete {
		n += []int64{10, 10, 5}[b]
	}
	return &metapb.Location{Worker: worker, Cached: n, Complete: complete}
}

func file(p orca.PersistState, locs ...*metapb.Location) *metapb.OpenReply {
	r := &metapb.OpenReply{
		Attr: &metapb.Attr{Ino: 7, Type: uint32(orca.TypeFile), Version: 3, Length: 25, BlockSize: 10, Persist: uint32(p)},
		// Worker 4 is not among the live ones.
		Workers: []*metapb.Worker{{Id: self, Addr: "w1"}, {Id: 2, Addr: "w2"}, {Id: 3, Addr: "w3"}},
	}
	r.Locations = locs
	return r
}

// outcome is what became of a task of one item.
func outcome(d *jobpb.Done) string {
	s := fmt.Sprintf("files %d skipped %d bytes %d", d.Files, d.Skipped, d.Bytes)
	for _, f := range d.Failures {
		s += "; failed " + f.Path
	}
	return s
}

const kept, skipped, failed = "files 1 skipped 0 bytes 25", "files 1 skipped 1 bytes 25", "files 0 skipped 0 bytes 0; failed /f"

// TestReplicate: what is in no store is copied from workers that have it, and
// kept; what is in a store by now is read like any other; what is not the
// version asked for is left alone.
func TestReplicate(t *testing.T) {
	all := []uint32{0, 1, 2}
	for _, c := range []struct {
		name  string
		rep   *metapb.OpenReply
		item  *jobpb.Item
		err   error
		asked []string
		out   string
		moved int64
	}{
		{name: "copied", rep: file(orca.NotPersisted, held(self, 0), held(2, all...), held(3, 1), held(4, all...)), out: kept, moved: 25, asked: []string{
			"keep 3.0:10 durable=false from w2", "keep 3.1:10 durable=false from w2,w3", "keep 3.2:5 durable=false from w2",
		}},
		{name: "durable when that was promised", rep: file(orca.ToBePersisted, held(2, all...)), out: kept, moved: 25, asked: []string{
			"keep 3.0:10 durable=true from w2", "keep 3.1:10 durable=true from w2", "keep 3.2:5 durable=true from w2",
		}},
		{name: "a part", rep: file(orca.NotPersisted, held(2, all...)), item: &jobpb.Item{FirstBlock: 1, Blocks: 9},
			out: "files 0 skipped 0 bytes 25", moved: 15, asked: []string{"keep 3.1:10 durable=false from w2", "keep 3.2:5 durable=false from w2"}},
		{name: "persisted meanwhile", rep: file(orca.Persisted, held(2, all...)), out: kept, moved: 25,
			asked: []string{"read 0+10 of 0", "read 0+10 of 1", "read 0+5 of 2"}},
		{name: "removed", out: skipped},
		{name: "another version", rep: file(orca.NotPersisted), item: &jobpb.Item{Version: 2}, out: skipped},
		{name: "lost", rep: file(orca.Lost), out: failed},
		{name: "cannot be copied", rep: file(orca.NotPersisted, held(2, all...)), err: orca.E("keep", orca.Unavailable, ""), out: failed,
			asked: []string{"keep 3.0:10 durable=false from w2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := &jobpb.Item{Version: 3}
			if c.item != nil {
				i = c.item
			}
			i.File, i.Path, i.Bytes, i.Unpersisted = 7, "/f", 25, true
			if i.Version == 0 {
				i.Version = 3
			}
			b := &cupboard{err: c.err}
			var moved int64
			e := &Env{NS: &files{rep: c.rep}, Blocks: b, Self: self, Progress: func(n int64) { moved += n }}
			d, err := Replicate(t.Context(), e, &jobpb.Task{Items: []*jobpb.Item{i}})
			require.NoError(t, err)
			require.Equal(t, c.out, outcome(d))
			require.Equal(t, c.asked, b.asked)
			require.Equal(t, c.moved, moved)
		})
	}
}

// late is a metaplane that knows who has a file only when it is asked again, so
// many times.
type late struct {
	files
	asked, times int
}

func (l *late) Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	if l.asked++; l.asked <= l.times {
		return file(orca.NotPersisted), nil
	}
	return l.files.Open(ctx, r)
}

// TestReplicatePatiently: workers that are not known yet are waited for, but not
// for ever.
func TestReplicatePatiently(t *testing.T) {
	for times, want := range map[int]string{0: kept, 3: kept, 4: failed} {
		synctest.Test(t, func(t *testing.T) {
			ns := &late{files: files{rep: file(orca.NotPersisted, held(2, 0, 1, 2))}, times: times}
			e := &Env{NS: ns, Blocks: &cupboard{needs: true}, Self: self, Patience: 3 * lookAgain}
			d, err := Replicate(t.Context(), e, &jobpb.Task{Items: []*jobpb.Item{{File: 7, Version: 3, Path: "/f", Bytes: 25, Unpersisted: true}}})
			require.NoError(t, err)
			require.Equal(t, want, outcome(d), "%d times", times)
		})
	}
}

// TestEvict: a copy goes only when the store has the file, in this version, and
// enough others have all of it.
func TestEvict(t *testing.T) {
	all := []uint32{0, 1, 2}
	for _, c := range []struct {
		name    string
		rep     *metapb.OpenReply
		version uint32
		out     string
		drops   bool
	}{
		{name: "too many", rep: file(orca.Persisted, held(self, all...), held(2, all...), held(3, all...)), out: kept, drops: true},
		{name: "one short", rep: file(orca.Persisted, held(self, all...), held(2, all...)), out: skipped},
		{name: "a part is no copy", rep: file(orca.Persisted, held(self, all...), held(2, all...), held(3, 0, 1)), out: skipped},
		{name: "not in the store", rep: file(orca.NotPersisted, held(self, all...), held(2, all...), held(3, all...)), out: skipped},
		{name: "not yet in the store", rep: file(orca.ToBePersisted, held(self, all...), held(2, all...), held(3, all...)), out: skipped},
		{name: "another version", rep: file(orca.Persisted, held(2, all...), held(3, all...)), version: 2, out: skipped},
		{name: "removed", out: skipped},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &cupboard{}
			i := &jobpb.Item{File: 7, Version: c.version, Path: "/f", Bytes: 25, Others: 2}
			if i.Version == 0 {
				i.Version = 3
			}
			d, err := Evict(t.Context(), &Env{NS: &files{rep: c.rep}, Blocks: b, Self: self}, &jobpb.Task{Items: []*jobpb.Item{i}})
			require.NoError(t, err)
			require.Equal(t, c.out, outcome(d))
			if c.drops {
				require.Equal(t, []string{"drop 7.3"}, b.asked)
			} else {
				require.Empty(t, b.asked)
			}
		})
	}
}

// Items are apart: one that fails is told of, and the others are done; the end
// of the context ends the task.
func TestReplicateGoesOn(t *testing.T) {
	item := func(path string) *jobpb.Item {
		return &jobpb.Item{File: 7, Version: 3, Path: path, Bytes: 25, Unpersisted: true}
	}
	tk := &jobpb.Task{Job: 5, Id: 6, Items: []*jobpb.Item{item("/a"), item("/b")}}
	e := &Env{NS: &files{rep: file(orca.NotPersisted, held(2, 0, 1, 2))}, Blocks: reader{&cupboard{}}, Self: self}
	d, err := Replicate(t.Context(), e, tk)
	require.NoError(t, err)
	require.Equal(t, "files 0 skipped 0 bytes 0; failed /a; failed /b", outcome(d))
	require.EqualValues(t, 5, d.Job)
	require.EqualValues(t, 6, d.Task)

	ctx, cancel := context.WithCancel(t.Context())
	e.Blocks, e.Progress = &cupboard{}, func(int64) { cancel() }
	_, err = Replicate(ctx, e, tk)
	require.ErrorIs(t, err, orca.Canceled)
}
