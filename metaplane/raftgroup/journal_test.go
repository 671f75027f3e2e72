// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"math"
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// shelf has a journal in memory, read as the engine's are.
type shelf struct {
	raftio.ILogDB
	entries []pb.Entry
	most    uint64 // bytes that were read in one go
}

func (s *shelf) IterateEntries(ents []pb.Entry, size, _, _, low, high, atMost uint64) ([]pb.Entry, uint64, error) {
	for i := low; i < high && size <= atMost; i++ {
		ents = append(ents, s.entries[i])
		size += uint64(s.entries[i].SizeUpperLimit())
	}
	s.most = max(s.most, size)
	return ents, size, nil
}

// TestJournalIsReadInParts: what the engine asks for in one go it gets in parts, as
// if each had been all that is let in a message, and nothing is left out.
func TestJournalIsReadInParts(t *testing.T) {
	const n = 5000
	s := &shelf{}
	for i := range uint64(n) {
		e := pb.Entry{Index: i, Cmd: make([]byte, 500)}
		if i == 7 {
			e.Cmd = make([]byte, 2*readAtMost) // more than a part
		}
		s.entries = append(s.entries, e)
	}
	j := &lockedTan{ILogDB: s}
	const atMost = 64 << 20
	next := uint64(0)
	for next < n {
		ents, size, err := j.IterateEntries(nil, 0, 1, 1, next, n, atMost)
		require.NoError(t, err)
		require.NotEmpty(t, ents)
		// As the engine does: what is over the limit says that there are more.
		require.True(t, uint64(len(ents)) == n-next || size > atMost, "the engine takes it for a gap")
		if size > atMost && len(ents) > 1 {
			ents = ents[:len(ents)-1]
		}
		for _, e := range ents {
			require.Equal(t, next, e.Index)
			next++
		}
	}
	require.Less(t, s.most, uint64(4*readAtMost))

	for _, all := range []uint64{0, readAtMost, math.MaxUint64} { // one, few, and all that there are
		want, wantSize, err := s.IterateEntries(nil, 0, 1, 1, 0, n, all)
		require.NoError(t, err)
		have, haveSize, err := j.IterateEntries(nil, 0, 1, 1, 0, n, all)
		require.NoError(t, err)
		require.Len(t, have, len(want))
		require.Equal(t, wantSize, haveSize)
	}
}
