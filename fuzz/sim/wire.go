// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// wire is the way of a client's messages to the service that leads.
type wire struct {
	metaplane.Namespace // nil: what is not overridden is not called here
	w                   *world
	g                   *group // that is asked
	from                *life  // of a coordinator's: that it ends with; nil: a client's
	client              string
	turn                int // of the members, for reads
}

// message is a request.
type message interface {
	proto.Message
	GetH() *metapb.Header
}

// send carries a request to the service and its reply back.
func send[Q message, R interface{ GetAttr() *metapb.Attr }](ctx context.Context, n *wire, what string, r Q, call func(metaplane.Namespace, context.Context, Q) (R, error)) (R, error) {
	var none R
	w := n.w
	label := n.client + ": " + what
	v := w.wait(ctx, &gate{kind: gateSend, label: label, life: n.from})
	switch v {
	case gone:
		return none, n.lost()
	case fail:
		return none, down("send")
	case repeat:
		w.join()
		copied := proto.Clone(r).(Q)
		again := w.stats.Repeats
		ctx := context.WithValue(context.WithoutCancel(ctx), againKey{}, again)
		go func() {
			defer w.leave()
			if n.from != nil && !w.plan.Apart {
				time.Sleep(time.Duration(again%4) * 2 * time.Second) // what it was about may be forgotten by then
			}
			if w.wait(ctx, &gate{kind: gateRepeat, label: label + " (again)"}) == pass {
				_, _, _ = serve(ctx, n, what+" (again)", copied, call)
			}
		}()
	}
	p, err, alive := apart(ctx, n, what, proto.Clone(r).(Q), call)
	if !alive || w.wait(ctx, &gate{kind: gateReply, label: label + " answers " + orca.KindOf(err).String(), life: n.from}) != pass {
		return none, n.lost()
	}
	return p, err
}

// lost is what is known when no answer comes: nothing, and to a coordinator that
// is over nothing matters any more.
func (n *wire) lost() error {
	if l := n.from; l != nil {
		select {
		case <-l.dead:
			return orca.E("sim.send", orca.Canceled, "its coordinator is over")
		default:
		}
	}
	return orca.E("sim.send", orca.Unavailable, "connection lost")
}

// apart is serve, for a coordinator in a goroutine that goes on without it.
func apart[Q message, R interface{ GetAttr() *metapb.Attr }](ctx context.Context, n *wire, what string, r Q, call func(metaplane.Namespace, context.Context, Q) (R, error)) (p R, err error, alive bool) { //nolint:revive // the error is the service's
	if n.from == nil {
		return serve(ctx, n, what, r, call)
	}
	done := make(chan struct{})
	var (
		q    R
		qerr error
		ok   bool
	)
	n.w.join()
	go func() {
		defer n.w.leave()
		q, qerr, ok = serve(context.WithoutCancel(ctx), n, what, r, call)
		close(done)
	}()
	select {
	case <-done:
		return q, qerr, ok
	case <-ctx.Done():
	case <-n.from.dead:
	}
	return p, nil, false
}

// serve has the present service answer a request; alive is false when it ended
// meanwhile.
func serve[Q message, R interface{ GetAttr() *metapb.Attr }](ctx context.Context, n *wire, what string, r Q, call func(metaplane.Namespace, context.Context, Q) (R, error)) (p R, err error, alive bool) { //nolint:revive // the error is the service's
	w := n.w
	l := n.g.serving()
	if l == nil {
		return p, down("serve"), false
	}
	h := r.GetH()
	client, seq := h.GetClient(), h.GetSeq()
	p, err = call(l.svc, ctx, r)
	w.mu.Lock()
	over := l.over
	w.mu.Unlock()
	if over {
		return p, err, false
	}
	if client != 0 {
		w.outcomeOf(fmt.Sprintf("%x#%d", client, seq), what, p.GetAttr(), err)
	}
	return p, err, true
}

// outcomeOf holds the outcome of a request against the one it had before.
// Advice to try again is no outcome, nor is what a service that could not ask
// its store says, nor that the request is too old to be told.
func (w *world) outcomeOf(id, what string, a *metapb.Attr, err error) {
	k := orca.KindOf(err)
	if k.Retryable() || k == orca.UFSFailure || k == orca.Internal || k == orca.SessionExpired || k == orca.Canceled {
		return
	}
	if k == orca.NotEmpty && w.plan.Groups > 0 && strings.HasPrefix(what, "delete ") {
		return // a part was not empty; the removal of what is above it goes on where it was
	}
	if k == orca.Stale && strings.HasPrefix(what, "mount ") {
		return // it is gone again; of a mount in another group nothing tells any more what became of it before
	}
	out := k.String()
	if err != nil && !w.plan.Apart && w.plan.Groups > 0 && strings.HasPrefix(what, "rename ") {
		// Where the target is is asked for anew each time, so that it may be
		// refused for another reason.
		out = "refused"
	}
	// Of a directory in another group the number is that of its root there, and
	// when it has been given back by the time that the request is repeated, that
	// of the directory.
	if err == nil && a != nil && (w.plan.Groups == 0 || a.Type != uint32(orca.TypeDir)) {
		out = fmt.Sprintf("%s ino=%x version=%d length=%d", k, a.Ino, a.Version, a.Length)
	}
	w.mu.Lock()
	old, known := w.outcome[id]
	if !known {
		w.outcome[id] = first{what, out}
	}
	w.mu.Unlock()
	if known && old.outcome != out {
		w.broken("exactly once", "request %s (%s) came to %q, and before (%s) to %q: %v", id, what, out, old.what, old.outcome, err)
	}
}

// join and leave count those that go on by themselves.
func (w *world) join() {
	w.mu.Lock()
	w.active++
	w.mu.Unlock()
}

func (w *world) leave() {
	w.mu.Lock()
	w.active--
	w.mu.Unlock()
}

// bare gives a reply without attributes the shape that send wants.
type bare[T any] struct{ is *T }

func (bare[T]) GetAttr() *metapb.Attr { return nil }

func sendBare[Q message, T any](ctx context.Context, n *wire, what string, r Q, call func(metaplane.Namespace, context.Context, Q) (*T, error)) (*T, error) {
	b, err := send(ctx, n, what, r, func(ns metaplane.Namespace, ctx context.Context, r Q) (bare[T], error) {
		p, err := call(ns, ctx, r)
		return bare[T]{p}, err
	})
	return b.is, err
}

// Stat implements metaplane.Reader.
func (n *wire) Stat(ctx context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	what := "stat " + r.Target.GetPath()
	p, err, ok := readAny(ctx, n, metawire.OpStat, what, r, r.Sync, metaplane.Namespace.Stat)
	if !ok {
		p, err = send(ctx, n, what, r, metaplane.Namespace.Stat)
	}
	return p, err
}

// List implements metaplane.Reader.
func (n *wire) List(ctx context.Context, r *metapb.ListRequest) (*metapb.ListReply, error) {
	what := "list " + r.Target.GetPath()
	p, err, ok := readAny(ctx, n, metawire.OpList, what, r, r.Sync, metaplane.Namespace.List)
	if !ok {
		p, err = sendBare(ctx, n, what, r, metaplane.Namespace.List)
	}
	return p, err
}

// Mkdir implements metaplane.Writer.
func (n *wire) Mkdir(ctx context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	return send(ctx, n, "mkdir "+r.Target.GetPath(), r, metaplane.Namespace.Mkdir)
}

// Rename implements metaplane.Writer.
func (n *wire) Rename(ctx context.Context, r *metapb.RenameRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, "rename "+r.Src.GetPath()+" "+r.Dst.GetPath(), r, metaplane.Namespace.Rename)
}

// Link implements metaplane.Writer.
func (n *wire) Link(ctx context.Context, r *metapb.LinkRequest) (*metapb.LinkReply, error) {
	return send(ctx, n, "link "+r.Src.GetPath()+" "+r.Dst.GetPath(), r, metaplane.Namespace.Link)
}

// Delete implements metaplane.Writer.
func (n *wire) Delete(ctx context.Context, r *metapb.DeleteRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, "delete "+r.Target.GetPath(), r, metaplane.Namespace.Delete)
}

// SetAttr implements metaplane.Writer.
func (n *wire) SetAttr(ctx context.Context, r *metapb.SetAttrRequest) (*metapb.SetAttrReply, error) {
	return send(ctx, n, "chmod "+r.Target.GetPath(), r, metaplane.Namespace.SetAttr)
}

// SetQuota implements metaplane.Quotas.
func (n *wire) SetQuota(ctx context.Context, r *metapb.SetQuotaRequest) (*metapb.SetQuotaReply, error) {
	return sendBare(ctx, n, "quota "+r.Target.GetPath(), r, metaplane.Namespace.SetQuota)
}

// Trash implements metaplane.Trash.
func (n *wire) Trash(ctx context.Context, r *metapb.TrashRequest) (*metapb.TrashReply, error) {
	return sendBare(ctx, n, "trash "+r.Path, r, metaplane.Namespace.Trash)
}

// RestoreTrash implements metaplane.Trash.
func (n *wire) RestoreTrash(ctx context.Context, r *metapb.RestoreTrashRequest) (*metapb.RestoreTrashReply, error) {
	return send(ctx, n, fmt.Sprintf("undelete %d %s", r.Ino&0xffff, r.Dst.GetPath()), r, metaplane.Namespace.RestoreTrash)
}

// PurgeTrash implements metaplane.Trash.
func (n *wire) PurgeTrash(ctx context.Context, r *metapb.PurgeTrashRequest) (*metapb.PurgeTrashReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("purge %d", r.Inos), r, metaplane.Namespace.PurgeTrash)
}

// Sync implements metaplane.Writer.
func (n *wire) Sync(ctx context.Context, r *metapb.SyncRequest) (*metapb.SyncReply, error) {
	return sendBare(ctx, n, "sync "+r.Target.GetPath(), r, metaplane.Namespace.Sync)
}

// Create implements metaplane.Files.
func (n *wire) Create(ctx context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	return send(ctx, n, "create "+r.Target.GetPath(), r, metaplane.Namespace.Create)
}

// Complete implements metaplane.Files.
func (n *wire) Complete(ctx context.Context, r *metapb.CompleteRequest) (*metapb.CompleteReply, error) {
	return send(ctx, n, fmt.Sprintf("complete s%d", r.Session), r, metaplane.Namespace.Complete)
}

// Abandon implements metaplane.Files.
func (n *wire) Abandon(ctx context.Context, r *metapb.AbandonRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, fmt.Sprintf("abandon s%d", r.Session), r, metaplane.Namespace.Abandon)
}

// Renew implements metaplane.Files.
func (n *wire) Renew(ctx context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("renew %v", r.Sessions), r, metaplane.Namespace.Renew)
}

// Resolve implements metaplane.Workers.
func (n *wire) Resolve(ctx context.Context, r *metapb.ResolveRequest) (*metapb.ResolveReply, error) {
	return send(ctx, n, fmt.Sprintf("resolve %d", r.File&0xffff), r, metaplane.Namespace.Resolve)
}

// PersistPrepare implements metaplane.Workers.
func (n *wire) PersistPrepare(ctx context.Context, r *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("prepare %d", r.File&0xffff), r, metaplane.Namespace.PersistPrepare)
}

// PersistCommit implements metaplane.Workers.
func (n *wire) PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, fmt.Sprintf("persisted i%d", r.Intent), r, metaplane.Namespace.PersistCommit)
}

// Mount implements metaplane.Mounts.
func (n *wire) Mount(ctx context.Context, r *metapb.MountRequest) (*metapb.MountReply, error) {
	return sendBare(ctx, n, "mount "+r.Mount.GetPath(), r, metaplane.Namespace.Mount)
}

// Unmount implements metaplane.Mounts.
func (n *wire) Unmount(ctx context.Context, r *metapb.UnmountRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, fmt.Sprintf("unmount %s m%d", r.Path, r.Id), r, metaplane.Namespace.Unmount)
}

// Regroup implements metaplane.Mounts.
func (n *wire) Regroup(ctx context.Context, r *metapb.RegroupRequest) (*metapb.RegroupReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("regroup %s %d %v", r.Target.GetPath(), r.Group, r.Ask), r, metaplane.Namespace.Regroup)
}

// Stage implements metaplane.Mounts.
func (n *wire) Stage(ctx context.Context, r *metapb.StageRequest) (*metapb.StageReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("stage m%d self=%v pages=%d seal=%v", r.Mount, r.Self != nil, len(r.Pages), r.Seal), r, metaplane.Namespace.Stage)
}

// Depart implements metaplane.Mounts.
func (n *wire) Depart(ctx context.Context, r *metapb.DepartRequest) (*metapb.DepartReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("depart m%d for m%d %v pages=%d", r.Op.GetMount(), r.Op.GetPart(), r.Op.GetStep(), len(r.From)), r, metaplane.Namespace.Depart)
}

// Open implements metaplane.Reader.
func (n *wire) Open(ctx context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("open %d%s", r.Target.GetIno()&0xffff, r.Target.GetPath()), r, metaplane.Namespace.Open)
}

// SetXattr implements metaplane.Xattrs.
func (n *wire) SetXattr(ctx context.Context, r *metapb.XattrRequest) (*metapb.Empty, error) {
	return sendBare(ctx, n, "xattr "+r.Target.GetPath(), r, metaplane.Namespace.SetXattr)
}

// Transfer implements metaplane.Groups.
func (n *wire) Transfer(ctx context.Context, r *metapb.TransferRequest) (*metapb.TransferReply, error) {
	return sendBare(ctx, n, fmt.Sprintf("transfer %s done below %s", number(r.Op.Tx), number(r.Op.DoneBelow)), r, metaplane.Namespace.Transfer)
}

// ListMounts implements metaplane.Mounts.
func (n *wire) ListMounts(ctx context.Context, r *metapb.ListMountsRequest) (*metapb.ListMountsReply, error) {
	return sendBare(ctx, n, "mounts", r, metaplane.Namespace.ListMounts)
}
