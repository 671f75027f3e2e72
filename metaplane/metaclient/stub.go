// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"

	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

func (s *stub) Mkdir(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	return invoke(ctx, s, metawire.OpMkdir, r, new(metapb.MkdirReply))
}

func (s *stub) Rename(ctx context.Context, r *metapb.RenameRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpRename, r, new(metapb.Empty))
}

func (s *stub) Link(ctx context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error) {
	return invoke(ctx, s, metawire.OpLink, r, new(metapb.LinkReply))
}

func (s *stub) Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpDelete, r, new(metapb.Empty))
}

func (s *stub) SetAttr(ctx context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	return invoke(ctx, s, metawire.OpSetAttr, r, new(metapb.SetAttrReply))
}

func (s *stub) Free(ctx context.Context, r *metapb.FreeRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpFree, r, new(metapb.Empty))
}

func (s *stub) Create(ctx context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	return invoke(ctx, s, metawire.OpCreate, r, new(metapb.CreateReply))
}

func (s *stub) Complete(ctx context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	return invoke(ctx, s, metawire.OpComplete, r, new(metapb.CompleteReply))
}

func (s *stub) Abandon(ctx context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpAbandon, r, new(metapb.Empty))
}

func (s *stub) SetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpSetXattr, r, new(metapb.Empty))
}

func (s *stub) RemoveXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpRemoveXattr, r, new(metapb.Empty))
}

func (s *stub) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	return invoke(ctx, s, metawire.OpMount, r, new(metapb.MountReply))
}

func (s *stub) Regroup(ctx context.Context, r *metapb.RegroupRequest) (*metapb.RegroupReply, error) {
	return invoke(ctx, s, metawire.OpRegroup, r, new(metapb.RegroupReply))
}

func (s *stub) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	return invoke(ctx, s, metawire.OpStage, r, new(metapb.StageReply))
}

func (s *stub) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	return invoke(ctx, s, metawire.OpDepart, r, new(metapb.DepartReply))
}

func (s *stub) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpUnmount, r, new(metapb.Empty))
}

func (s *stub) PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	return invoke(ctx, s, metawire.OpPersistPrepare, r, new(metapb.PersistPrepareReply))
}

func (s *stub) PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpPersistCommit, r, new(metapb.Empty))
}

func (s *stub) Hosted(ctx context.Context, r *metapb.HostedRequest) (*metapb.HostedReply, error) {
	return invoke(ctx, s, metawire.OpHosted, r, new(metapb.HostedReply))
}

func (s *stub) Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return invoke(ctx, s, metawire.OpOpen, r, new(metapb.OpenReply))
}

func (s *stub) Locations(ctx context.Context, r *metapb.LocationsRequest) (*metapb.LocationsReply, error) {
	return invoke(ctx, s, metawire.OpLocations, r, new(metapb.LocationsReply))
}

func (s *stub) Sync(ctx context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error) {
	return invoke(ctx, s, metawire.OpSync, r, new(metapb.SyncReply))
}

func (s *stub) Renew(ctx context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	return invoke(ctx, s, metawire.OpRenew, r, new(metapb.RenewReply))
}

func (s *stub) ListMounts(ctx context.Context, r *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	return invoke(ctx, s, metawire.OpListMounts, r, new(metapb.ListMountsReply))
}

func (s *stub) ListWorkers(ctx context.Context, r *metapb.ListWorkersRequest) (*metapb.ListWorkersReply, error) {
	return invoke(ctx, s, metawire.OpListWorkers, r, new(metapb.ListWorkersReply))
}

func (s *stub) Resolve(ctx context.Context, r *metapb.ResolveRequest) (*metapb.ResolveReply, error) {
	return invoke(ctx, s, metawire.OpResolve, r, new(metapb.ResolveReply))
}

func (s *stub) StaleUFS(ctx context.Context, r *metapb.StaleUFSRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpStaleUFS, r, new(metapb.Empty))
}

func (s *stub) Report(ctx context.Context, r *metapb.ReportRequest) (*metapb.ReportReply, error) {
	return invoke(ctx, s, metawire.OpReport, r, new(metapb.ReportReply))
}

func (s *stub) Conf(ctx context.Context, r *metapb.ConfRequest) (*metapb.ConfReply, error) {
	return invoke(ctx, s, metawire.OpConf, r, new(metapb.ConfReply))
}

func (s *stub) Upkeep(ctx context.Context, r *metapb.UpkeepRequest) (*metapb.UpkeepReply, error) {
	return invoke(ctx, s, metawire.OpUpkeep, r, new(metapb.UpkeepReply))
}

func (s *stub) Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	return invoke(ctx, s, metawire.OpQuorum, r, new(metapb.QuorumReply))
}

func (s *stub) SetQuota(ctx context.Context, r *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error) {
	return invoke(ctx, s, metawire.OpSetQuota, r, new(metapb.SetQuotaReply))
}

func (s *stub) Quotas(ctx context.Context, r *metapb.QuotasRequest) (*metapb.QuotasReply, error) {
	return invoke(ctx, s, metawire.OpQuotas, r, new(metapb.QuotasReply))
}

func (s *stub) Watch(ctx context.Context, r *metapb.WatchRequest) (*metapb.WatchReply, error) {
	return invoke(ctx, s, metawire.OpWatch, r, new(metapb.WatchReply))
}

func (s *stub) Register(ctx context.Context, r *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	return invoke(ctx, s, metawire.OpRegister, r, new(metapb.RegisterReply))
}

func (s *stub) Heartbeat(ctx context.Context, r *metapb.HeartbeatRequest) (*metapb.HeartbeatReply, error) {
	return invoke(ctx, s, metawire.OpHeartbeat, r, new(metapb.HeartbeatReply))
}

func (s *stub) Trash(ctx context.Context, r *metapb.TrashRequest) (*metapb.TrashReply, error) {
	return invoke(ctx, s, metawire.OpTrash, r, new(metapb.TrashReply))
}

func (s *stub) RestoreTrash(ctx context.Context, r *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error) {
	return invoke(ctx, s, metawire.OpRestoreTrash, r, new(metapb.RestoreTrashReply))
}

func (s *stub) PurgeTrash(ctx context.Context, r *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error) {
	return invoke(ctx, s, metawire.OpPurgeTrash, r, new(metapb.PurgeTrashReply))
}

func (s *stub) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	return invoke(ctx, s, metawire.OpTransfer, r, new(metapb.TransferReply))
}

func (s *stub) Hold(ctx context.Context, r *metapb.HoldRequest) (*metapb.Empty, error) {
	return invoke(ctx, s, metawire.OpHold, r, new(metapb.Empty))
}
