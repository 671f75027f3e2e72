// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metapb_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca/metaplane/metapb"
)

// TestAppendEntry: what is appended decodes as the entries of a listing, in
// order, whatever the lengths of the lengths.
func TestAppendEntry(t *testing.T) {
	var b []byte
	var want []*metapb.Entry
	for _, n := range []int{1, 127, 128, 255, 20_000} {
		e := &metapb.Entry{Name: strings.Repeat("n", n), Attr: &metapb.Attr{
			Ino: uint64(n), UfsPath: strings.Repeat("p", n), Runs: []*metapb.Run{{Version: 3}}, CachedBytes: -1,
		}}
		var err error
		b, err = metapb.AppendEntry(b, []byte(e.Name), e.Attr)
		require.NoError(t, err)
		want = append(want, e)
	}
	var got metapb.ListReply
	require.NoError(t, got.UnmarshalVT(b))
	require.True(t, proto.Equal(&metapb.ListReply{Entries: want}, &got))
}
