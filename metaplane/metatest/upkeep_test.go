// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/backup"
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
