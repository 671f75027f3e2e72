// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metaplane is the contract of the namespace. Its rooms, in reading
// order: metapb (messages), inode (records and keys), command (Raft entries),
// inodekv (the store; owner of pebble), fsm (pure apply), raftgroup (groups on
// a host; owner of dragonboat), mount, workers (soft state), ufssync (UFS →
// namespace), ufsexec (namespace → UFS: intents), metawire (the table of
// RPCs), metaserver (the service), metaclient (its stub, and the session that
// makes mutations exactly once) and metatest (the suite of both).
//
// Service and stub satisfy the same interfaces, so that a gateway in the same
// process calls the service directly.
package metaplane

import (
	"context"

	"orca/metaplane/metapb"
)

// Reader is the read half of the namespace; all of it is linearizable.
type Reader interface {
	Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error)
	List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error)
	Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error)
	Locations(ctx context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error)
	Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error)
}

// Holder is what who has files open tells, so that their content does not go
// before he has a copy of it. Open and Watch take part in it.
type Holder interface {
	Hold(ctx context.Context, r *metapb.HoldRequest) (*metapb.Empty, error)
}

// Writer changes names and attributes. Every call is exactly once by
// (Header.client, Header.seq); metaclient and Session fill them in.
type Writer interface {
	Mkdir(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error)
	Rename(ctx context.Context, r *metapb.RenameRequest) (*metapb.Empty, error)
	Link(ctx context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error)
	Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error)
	SetAttr(ctx context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error)
	Free(ctx context.Context, r *metapb.FreeRequest) (*metapb.Empty, error)
	Sync(ctx context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error)
}

// Files opens and ends write sessions.
type Files interface {
	Create(ctx context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error)
	Complete(ctx context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error)
	Abandon(ctx context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error)
	Renew(ctx context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error)
}

// Xattrs keeps extended attributes.
type Xattrs interface {
	SetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error)
	GetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error)
	ListXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.XattrReply, error)
	RemoveXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error)
}

// Quotas tells what is below directories, and limits it.
type Quotas interface {
	Usage(ctx context.Context, r *metapb.UsageRequest) (*metapb.UsageReply, error)
	SetQuota(ctx context.Context, r *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error)
	Quotas(ctx context.Context, r *metapb.QuotasRequest) (*metapb.QuotasReply, error)
}

// Trash is what was deleted and is kept for a while.
type Trash interface {
	Trash(ctx context.Context, r *metapb.TrashRequest) (*metapb.TrashReply, error)
	RestoreTrash(ctx context.Context, r *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error)
	PurgeTrash(ctx context.Context, r *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error)
}

// Mounts is the mount table.
type Mounts interface {
	Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error)
	Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error)
	ListMounts(ctx context.Context, r *metapb.ListMountsRequest) (*metapb.ListMountsReply, error)
	// Regroup moves a directory of a mount to another group. What is done
	// already is not done again.
	Regroup(ctx context.Context, r *metapb.RegroupRequest) (*metapb.RegroupReply, error)
	// Stage is how the content of a directory gets to another group; groups call it.
	Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error)
	// Depart is how another group than the first gives up a part; the first calls
	// it.
	Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error)
}

// Workers is what block workers call.
type Workers interface {
	Register(ctx context.Context, r *metapb.RegisterRequest) (*metapb.RegisterReply, error)
	Heartbeat(ctx context.Context, r *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error)
	ListWorkers(ctx context.Context, r *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error)
	Resolve(ctx context.Context, r *metapb.ResolveRequest) (*metapb.ResolveReply, error)
	StaleUFS(ctx context.Context, r *metapb.StaleUFSRequest) (*metapb.Empty, error)
	PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error)
	PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error)
}

// Admin is what operators ask.
type Admin interface {
	Report(ctx context.Context, r *metapb.ReportRequest) (*metapb.ReportReply, error)
	Conf(ctx context.Context, r *metapb.ConfRequest) (*metapb.ConfReply, error)
	// Quorum tells of the members of the metaplane, or changes them.
	Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error)
	// Upkeep backs up a member's state, cuts its journal or shows it. A request
	// goes to the member that it reaches, whether that leads or not.
	Upkeep(ctx context.Context, r *metapb.UpkeepRequest) (*metapb.UpkeepReply, error)
	// Hosted passes a request to a hosted machine (jobs).
	Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error)
}

// Groups is what the groups of a metaplane ask of each other.
type Groups interface {
	// Transfer takes over a file or directory of another group, and answers with
	// what was decided; an error says that nothing is decided yet.
	Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error)
}

// Namespace is the whole.
type Namespace interface {
	Reader
	Holder
	Writer
	Files
	Xattrs
	Quotas
	Trash
	Mounts
	Workers
	Admin
	Groups
}
