// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/backup"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/inspect"
	"orca/metaplane/metapb"
)

// TestUpkeep: a backup goes on where its caller is, a reply that was lost is
// given again, and nobody but root gets anything.
func TestUpkeep(t *testing.T) {
	e := newEnv(t, quick(t))
	e.write("/p/f", orca.CacheThrough, "f")
	ask := func(e *Env, r *metapb.UpkeepRequest) (*metapb.UpkeepReply, error) {
		r.H = e.h()
		return e.NS.Upkeep(e.ctx(), r)
	}
	for kind := range metapb.UpkeepRequest_Kind_name {
		_, err := ask(e.As(1000, 1000), &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_Kind(kind)})
		require.ErrorIs(t, err, orca.Permission)
	}
	_, err := ask(e, &metapb.UpkeepRequest{Kind: 99})
	require.ErrorIs(t, err, orca.Unsupported)

	r, err := ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP})
	require.NoError(t, err)
	stream, file := r.Stream, bytes.Clone(r.Data)
	again, err := ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: stream})
	require.NoError(t, err)
	require.Equal(t, r.Data, again.Data, "the reply was lost")
	for !r.End {
		at := int64(len(file))
		r, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: stream, Offset: at})
		require.NoError(t, err)
		again, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: stream, Offset: at})
		require.NoError(t, err)
		require.Equal(t, r.Data, again.Data)
		file = append(file, r.Data...)
	}
	_, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: stream, Offset: 3})
	require.ErrorIs(t, err, orca.Invalid)
	b, err := backup.Verify(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, r.Applied, b.Header.Groups[0].Applied)
	require.Equal(t, r.Done, b.Trailer.Total)
	_, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_END_BACKUP, Stream: stream})
	require.NoError(t, err)
	_, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: stream, Offset: int64(len(file))})
	require.ErrorIs(t, err, orca.Stale)

	// Each holds on to something: there are not any number of them.
	for range 4 {
		_, err = ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP})
		require.NoError(t, err)
	}
	_, err = e.H.Service.Upkeep(e.ctx(), &metapb.UpkeepRequest{H: e.h(), Kind: metapb.UpkeepRequest_BACKUP})
	require.ErrorIs(t, err, orca.Busy)

	j, err := ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_JOURNAL})
	require.NoError(t, err)
	ops := map[string]bool{}
	for _, x := range j.Entries {
		for _, c := range inspect.Entry(x) {
			ops[c.Op] = true
		}
	}
	require.True(t, ops["mount"] && ops["complete"], "%v", ops)
	c, err := ask(e, &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_CHECKPOINT})
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.Applied, r.Applied)
	require.GreaterOrEqual(t, c.Last, c.First)
	// What is on its way ends with the service: Stop waits for nothing.
}

// backup takes a backup of both groups, and returns their mounts.
func (p *pair) backup() (first, second map[uint32]*metapb.Mount) {
	t := p.t
	t.Helper()
	var file []byte
	r := &metapb.UpkeepReply{}
	for !r.End {
		var err error
		r, err = p.one.Upkeep(t.Context(), &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP, Stream: r.Stream, Offset: int64(len(file))})
		require.NoError(t, err)
		file = append(file, r.Data...)
	}
	_, err := p.one.Upkeep(t.Context(), &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_END_BACKUP, Stream: r.Stream})
	require.NoError(t, err)
	b, err := backup.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	require.Len(t, b.Header.Groups, 2)
	mounts := map[uint16]map[uint32]*metapb.Mount{1: {}, 2: {}}
	for {
		g, k, v, err := b.Next()
		if errors.Is(err, io.EOF) {
			return mounts[1], mounts[2]
		}
		require.NoError(t, err)
		if k[0] == inode.SpaceMount {
			row := &command.Mount{}
			require.NoError(t, row.UnmarshalVT(v[1:]))
			mounts[g][row.Mount.Id] = row.Mount
		}
	}
}

// TestBackupOfGroupsIsOfOneMoment: however mounts come and go behind junctions
// while a backup is taken, each junction in it that is active has its mount in
// the group behind it, and each mount there its junction: else a restored
// namespace would have mounts that nobody finds and names that lead nowhere.
func TestBackupOfGroupsIsOfOneMoment(t *testing.T) {
	p := newPair(t)
	p.mount("/stays", "mem://obj-"+t.Name()+"-stays", 2)
	require.NoError(t, p.touch("/stays/f"))
	_, err := p.two.Upkeep(t.Context(), &metapb.UpkeepRequest{Kind: metapb.UpkeepRequest_BACKUP})
	require.ErrorIs(t, err, orca.Invalid, "one group alone is no backup")
	stop, changes := make(chan struct{}), 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; ; changes++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := p.tryMount("/goes", "mem://obj-"+t.Name()+"-goes", 2); err != nil {
				continue
			}
			for p.unmount("/goes") != nil {
			}
		}
	})
	seen := map[metapb.JunctionState]int{}
	for range 60 {
		first, second := p.backup()
		for id, m := range first {
			if m.Group != 2 {
				continue
			}
			seen[m.Junction]++
			if m.Junction == metapb.JunctionState_JUNCTION_ACTIVE {
				require.Contains(t, second, id, "a junction that leads nowhere")
			}
		}
		for id := range second {
			require.Contains(t, first, id, "a mount that nobody finds")
		}
	}
	close(stop)
	wg.Wait()
	require.Greater(t, changes, 5)
	require.Equal(t, 60, min(60, seen[metapb.JunctionState_JUNCTION_ACTIVE]))
	t.Logf("%d changes, junctions seen: %v", changes, seen)
}
