// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package jobmaster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca"
	"orca/jobs/machine"
	"orca/metaplane/metapb"
)

func keys(ws []*work) (out []uint64) {
	for _, w := range ws {
		out = append(out, w.key.File)
	}
	return out
}

func promise(file uint64, version uint32, holders ...uint64) *work {
	return &work{key: machine.Key{File: file}, version: version, holders: holders}
}

func TestQueueHolders(t *testing.T) {
	now := time.Unix(1000, 0)
	later := now.Add(time.Minute)
	q := newQueue()
	q.add(promise(1, 1, 5, 6), now)
	q.add(promise(2, 1, 6), now)
	q.add(promise(3, 1), now)
	require.Equal(t, []uint64{3}, keys(q.take(7, 10, later)), "a worker that holds nothing gets only what anyone may do")
	require.Equal(t, []uint64{1}, keys(q.take(5, 10, later)))
	require.Equal(t, []uint64{2}, keys(q.take(6, 10, later)), "what another one took is passed over")
	require.Empty(t, q.take(6, 10, later))
}

func TestQueueLeases(t *testing.T) {
	now := time.Unix(1000, 0)
	q := newQueue()
	q.add(promise(1, 1), now)
	w := q.take(5, 1, now.Add(time.Second))[0]
	require.False(t, q.renew(w.key, 1, 6, 0, now), "the lease is another worker's")
	require.False(t, q.renew(w.key, 2, 5, 0, now), "of another version")
	require.True(t, q.renew(w.key, 1, 5, 77, now.Add(2*time.Second)))
	require.Zero(t, q.expire(now.Add(time.Second)))
	require.Equal(t, 1, q.expire(now.Add(3*time.Second)))
	require.True(t, q.renew(w.key, 1, 5, 0, now.Add(9*time.Second)), "who still runs it gets its lease back")
	require.Empty(t, q.take(6, 1, now), "and no one else gets it")

	q.pause(w, now.Add(20*time.Second))
	require.Empty(t, q.take(5, 1, now))
	q.release(now.Add(19 * time.Second))
	require.Empty(t, q.take(5, 1, now))
	q.release(now.Add(21 * time.Second))
	require.Len(t, q.take(5, 1, now), 1)
}

func TestQueueNewVersion(t *testing.T) {
	now := time.Unix(1000, 0)
	q := newQueue()
	q.add(promise(1, 1), now)
	old := q.take(5, 1, now)[0]
	q.add(promise(1, 1), now)
	require.Empty(t, q.take(5, 1, now), "the same again is nothing new")
	q.add(promise(1, 2), now)
	require.False(t, q.renew(old.key, 1, 5, 0, now), "the old version is to be dropped")
	got := q.take(5, 1, now)
	require.Len(t, got, 1)
	require.EqualValues(t, 2, got[0].version)
	q.remove(got[0])
	require.Empty(t, q.works)
	require.Empty(t, q.leased)
}

func TestQueueLonely(t *testing.T) {
	now := time.Unix(1000, 0)
	q := newQueue()
	w := promise(1, 1, 5)
	q.add(w, now)
	require.Empty(t, q.lonely(now.Add(time.Second), 10*time.Second))
	require.Len(t, q.lonely(now.Add(11*time.Second), 10*time.Second), 1)
	q.alsoFor(w, []uint64{5, 6})
	require.Equal(t, []uint64{1}, keys(q.take(6, 1, now)))
}

// tree is a namespace of paths; directories end with a slash.
type tree []string

func (tr tree) Stat(_ context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	for _, p := range tr {
		if p == r.Target.Path {
			return &metapb.StatReply{Attr: &metapb.Attr{Type: uint32(orca.TypeFile)}}, nil
		}
	}
	return &metapb.StatReply{Attr: &metapb.Attr{Type: uint32(orca.TypeDir)}}, nil
}

func (tr tree) List(_ context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	const page = 2
	dir := strings.TrimSuffix(r.Target.Path, "/") + "/"
	var names []string
	for _, p := range tr {
		rest, ok := strings.CutPrefix(p, dir)
		if !ok {
			continue
		}
		if name, _, deep := strings.Cut(rest, "/"); deep {
			rest = name + "/"
		}
		if !slices.Contains(names, rest) {
			names = append(names, rest)
		}
	}
	if names == nil {
		return nil, orca.E("tree", orca.NotFound, "")
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/")) })
	rep := &metapb.ListReply{}
	for _, n := range names {
		name, isDir := strings.CutSuffix(n, "/")
		if name <= r.After {
			continue
		}
		if len(rep.Entries) == page {
			rep.More = true
			break
		}
		typ := orca.TypeFile
		if isDir {
			typ = orca.TypeDir
		}
		rep.Entries = append(rep.Entries, &metapb.Entry{Name: name, Attr: &metapb.Attr{Type: uint32(typ)}})
	}
	return rep, nil
}

func (tr tree) Locations(context.Context, *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	return &metapb.LocationsReply{}, nil
}

func (tr tree) Report(context.Context, *metapb.ReportRequest) (*metapb.ReportReply, error) {
	return &metapb.ReportReply{}, nil
}

// TestWalkResumes: a walk in lots of any size, each from the cursor of the one
// before, meets every file once, whatever the tree.
func TestWalkResumes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		files := map[string]bool{}
		dirs := map[string]bool{}
		for range rapid.IntRange(0, 25).Draw(t, "n") {
			p := "/r"
			for range rapid.IntRange(0, 3).Draw(t, "depth") {
				p += "/" + rapid.SampledFrom([]string{"a", "a-b", "b", "c"}).Draw(t, "dir") + "d"
				dirs[p] = true
			}
			files[p+"/"+rapid.SampledFrom([]string{"a", "a-", "b.txt", "z"}).Draw(t, "file")] = true
		}
		var tr tree
		for p := range files {
			tr = append(tr, p)
		}
		slices.Sort(tr)
		if len(tr) == 0 {
			return
		}
		limit := rapid.IntRange(1, 7).Draw(t, "limit")
		var got []string
		cursor := ""
		for i := 0; ; i++ {
			require.Less(t, i, 200, "it does not end")
			w := &walker{ns: tr, root: "/r", recursive: true}
			es, next, last, err := w.next(t.Context(), cursor, limit)
			require.NoError(t, err)
			for _, e := range es {
				got = append(got, e.path)
			}
			if last {
				break
			}
			require.Len(t, es, limit)
			cursor = next
		}
		slices.Sort(got)
		require.Equal(t, []string(tr), got)
	})
}

func TestWalkOfAFileAndADirectory(t *testing.T) {
	tr := tree{"/f", "/d/x"}
	es, cursor, last, err := (&walker{ns: tr, root: "/f"}).next(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, "1 /f true", fmt.Sprint(len(es), " ", cursor, " ", last))
	_, _, _, err = (&walker{ns: tr, root: "/d"}).next(t.Context(), "", 10)
	require.ErrorIs(t, err, orca.IsDir)
	// The directory that the cursor is in was removed meanwhile.
	es, _, last, err = (&walker{ns: tr, root: "/", recursive: true}).next(t.Context(), "/c/gone/y", 10)
	require.NoError(t, err)
	require.True(t, last)
	require.Len(t, es, 2)
}
