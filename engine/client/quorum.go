// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
)

// Member is a member of the metaplane.
type Member = metapb.Member

// Quorum are the members of the metaplane.
type Quorum = metapb.QuorumReply

// Quorum returns the members of the metaplane.
func (fs *FS) Quorum(ctx context.Context) (*Quorum, error) {
	return fs.meta.Quorum(ctx, &metapb.QuorumRequest{H: fs.header()})
}

// AddMember lets a host at a Raft address become a member; it learns until it
// has caught up, and then votes. The same again is done already.
func (fs *FS) AddMember(ctx context.Context, raftAddr string) (*Member, error) {
	return fs.changeMember(ctx, &metapb.QuorumRequest{H: fs.header(), Change: metapb.QuorumRequest_ADD, RaftAddr: raftAddr})
}

// RemoveMember ends a membership for ever: a host that comes back comes as a
// new member.
func (fs *FS) RemoveMember(ctx context.Context, replica uint64) error {
	_, err := fs.meta.Quorum(ctx, &metapb.QuorumRequest{H: fs.header(), Change: metapb.QuorumRequest_REMOVE, Replica: replica})
	return err
}

// TransferLeader hands the leadership to a member (0: any other) and returns
// who leads then.
func (fs *FS) TransferLeader(ctx context.Context, replica uint64) (*Member, error) {
	return fs.changeMember(ctx, &metapb.QuorumRequest{H: fs.header(), Change: metapb.QuorumRequest_TRANSFER, Replica: replica})
}

func (fs *FS) changeMember(ctx context.Context, r *metapb.QuorumRequest) (*Member, error) {
	q, err := fs.meta.Quorum(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, m := range q.Members {
		if m.Replica == q.Replica {
			return m, nil
		}
	}
	return nil, orca.E("client.Quorum", orca.Internal, "the member is not among the members")
}
