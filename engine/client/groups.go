// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"orca/metaplane/metapb"
)

// grouped is optional on a namespace: it has Raft groups beside the first, which
// mounts live in. *metaclient.Router is one.
type grouped interface {
	Groups(ctx context.Context) ([]uint16, error)
	GroupOf(ctx context.Context, path string) (uint16, error)
	Junctions(ctx context.Context, h *metapb.Header, path string) ([]string, error)
}

// groups returns the numbers of the groups that there are, the first first.
func (fs *FS) groups(ctx context.Context) ([]uint16, error) {
	if g, ok := fs.meta.(grouped); ok {
		return g.Groups(ctx)
	}
	return []uint16{1}, nil
}

// Group is one Raft group of the metaplane.
type Group struct {
	Number uint16
	Leader *Member // nil: none is known
	Term   uint64
	Mounts []string // paths of the mounts that live in it
	// Dirs are the paths of the directories that live in it, of mounts that do not.
	Dirs []string
}

// Groups returns the groups of the metaplane, who leads them and what is in
// them. A group that does not answer has no leader.
func (fs *FS) Groups(ctx context.Context) ([]Group, error) {
	numbers, err := fs.groups(ctx)
	if err != nil {
		return nil, err
	}
	mounts, err := fs.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Group, len(numbers))
	for i, n := range numbers {
		g := Group{Number: n}
		for _, m := range mounts {
			switch {
			case max(m.Group, 1) != uint32(n):
			case m.Part != nil:
				g.Dirs = append(g.Dirs, m.Path)
			default:
				g.Mounts = append(g.Mounts, m.Path)
			}
		}
		if q, err := fs.QuorumIn(ctx, n); err == nil {
			g.Term = q.Term
			for _, m := range q.Members {
				if m.Leader {
					g.Leader = m
				}
			}
		} else if ctx.Err() != nil {
			return nil, err
		}
		out[i] = g
	}
	return out, nil
}

// QuorumIn returns the members of one group: the same in all, but each has its
// own leader.
func (fs *FS) QuorumIn(ctx context.Context, group uint16) (*Quorum, error) {
	return fs.meta.Quorum(ctx, &metapb.QuorumRequest{H: fs.headerIn(group)})
}

// AddGroup adds a group to the metaplane, over all its members, and returns its
// number. number 0 means the next one that is free; one that is there already is
// no error. Groups stay.
func (fs *FS) AddGroup(ctx context.Context, number uint16) (uint16, error) {
	q, err := fs.meta.Quorum(ctx, &metapb.QuorumRequest{H: fs.header(), Change: metapb.QuorumRequest_ADD_GROUP, Group: uint32(number)})
	if err != nil {
		return 0, err
	}
	return uint16(q.Group), nil
}

// TransferGroup is TransferLeader of one group.
func (fs *FS) TransferGroup(ctx context.Context, group uint16, replica uint64) (*Member, error) {
	h := fs.header()
	h.Group = uint32(group)
	return fs.changeMember(ctx, &metapb.QuorumRequest{H: h, Change: metapb.QuorumRequest_TRANSFER, Replica: replica})
}
