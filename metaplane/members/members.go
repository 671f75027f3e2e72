// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package members is the membership of a Raft group as a value: who is in it
// at one moment, who votes, and who was. raftgroup fills it in, metaserver
// decides on it. It has no goroutines and refuses nothing.
package members

import "slices"

// Member is one replica of the group.
type Member struct {
	Replica uint64
	Address string // Raft address
	Voter   bool   // false: it learns, and does not count
	Leader  bool
}

// Members is the membership at one moment. Version orders changes: one that
// was decided on an older version is refused.
type Members struct {
	Version uint64
	List    []Member // by replica
	Removed []uint64 // replicas that were members; their numbers are never used again
}

// Find returns the member with a number; nil if there is none.
func (m *Members) Find(replica uint64) *Member {
	i := slices.IndexFunc(m.List, func(x Member) bool { return x.Replica == replica })
	if i < 0 {
		return nil
	}
	return &m.List[i]
}

// At returns the member with a Raft address; nil if there is none.
func (m *Members) At(address string) *Member {
	i := slices.IndexFunc(m.List, func(x Member) bool { return x.Address == address })
	if i < 0 {
		return nil
	}
	return &m.List[i]
}

// Voters counts those that vote.
func (m *Members) Voters() (n int) {
	for i := range m.List {
		if m.List[i].Voter {
			n++
		}
	}
	return n
}

// Next is a number that no member has or had.
func (m *Members) Next() uint64 {
	n := uint64(0)
	for i := range m.List {
		n = max(n, m.List[i].Replica)
	}
	for _, id := range m.Removed {
		n = max(n, id)
	}
	return n + 1
}
