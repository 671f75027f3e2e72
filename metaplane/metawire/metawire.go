// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metawire is the one table of the metaplane's RPCs: the opcode of
// each method of metaplane.Namespace, and how its messages are decoded and
// dispatched. metaserver serves the table, metaclient calls by it, and both
// carry a message as the meta part of a dataplane frame; errors travel as the
// frame codec defines.
//
// Goroutines and locks: none; everything here is pure. It refuses bytes that
// are not the method's message and requests without a header.
package metawire

import (
	"context"

	"orca"
	"orca/dataplane/frame"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Op is the opcode of a method. Numbers are on the wire: append only, from
// frame.OpMetaFirst up.
type Op = frame.Op

// The opcodes.
const (
	OpStat           Op = 0x0201
	OpList           Op = 0x0202
	OpOpen           Op = 0x0203
	OpLocations      Op = 0x0204
	OpWatch          Op = 0x0205
	OpMkdir          Op = 0x0210
	OpRename         Op = 0x0211
	OpDelete         Op = 0x0212
	OpSetAttr        Op = 0x0213
	OpFree           Op = 0x0214
	OpSync           Op = 0x0215
	OpLink           Op = 0x0216
	OpCreate         Op = 0x0220
	OpComplete       Op = 0x0221
	OpAbandon        Op = 0x0222
	OpRenew          Op = 0x0223
	OpSetXattr       Op = 0x0230
	OpGetXattr       Op = 0x0231
	OpListXattr      Op = 0x0232
	OpRemoveXattr    Op = 0x0233
	OpMount          Op = 0x0240
	OpUnmount        Op = 0x0241
	OpListMounts     Op = 0x0242
	OpRegister       Op = 0x0250
	OpHeartbeat      Op = 0x0251
	OpListWorkers    Op = 0x0252
	OpResolve        Op = 0x0253
	OpStaleUFS       Op = 0x0254
	OpPersistPrepare Op = 0x0255
	OpPersistCommit  Op = 0x0256
	OpReport         Op = 0x0260
	OpConf           Op = 0x0261
	OpHosted         Op = 0x0262
	OpQuorum         Op = 0x0263
	OpUsage          Op = 0x0270
	OpSetQuota       Op = 0x0271
	OpQuotas         Op = 0x0272
	OpUpkeep         Op = 0x0290
	OpTrash          Op = 0x02A8
	OpRestoreTrash   Op = 0x02A9
	OpPurgeTrash     Op = 0x02AA
	OpTransfer       Op = 0x02B0
	OpRegroup        Op = 0x02C0
	OpStage          Op = 0x02C1
	OpDepart         Op = 0x02C2
	OpHold           Op = 0x02D0
)

// Message is what vtprotobuf generates for every message.
type Message interface {
	MarshalToSizedBufferVT(dst []byte) (int, error)
	SizeVT() int
	UnmarshalVT(b []byte) error
}

// Request is a message that carries a header, as every request does.
type Request interface {
	Message
	GetH() *metapb.Header
}

// Method is one row of the table.
type Method struct {
	Op   Op
	Name string
	// Decode parses a request; the message does not alias b.
	Decode func(b []byte) (Request, error)
	// Call dispatches a request that Decode returned.
	Call func(ctx context.Context, ns metaplane.Namespace, r Request) (Message, error)
}

func row[Q, R any, PQ interface {
	*Q
	Request
}, PR interface {
	*R
	Message
}](op Op, name string, call func(metaplane.Namespace, context.Context, *Q) (*R, error)) Method {
	return Method{
		Op:   op,
		Name: name,
		Decode: func(b []byte) (Request, error) {
			q := PQ(new(Q))
			if err := q.UnmarshalVT(b); err != nil {
				return nil, &orca.Error{Op: "metawire." + name, Kind: orca.Invalid, Msg: "undecodable request", Err: err}
			}
			if q.GetH() == nil {
				return nil, &orca.Error{Op: "metawire." + name, Kind: orca.Invalid, Msg: "request without a header"}
			}
			return q, nil
		},
		Call: func(ctx context.Context, ns metaplane.Namespace, r Request) (Message, error) {
			p, err := call(ns, ctx, (*Q)(r.(PQ)))
			if err != nil {
				return nil, err
			}
			return PR(p), nil
		},
	}
}

// Methods returns the table by opcode.
func Methods() map[Op]*Method {
	rows := []Method{
		row(OpStat, "Stat", metaplane.Namespace.Stat),
		row(OpList, "List", metaplane.Namespace.List),
		row(OpOpen, "Open", metaplane.Namespace.Open),
		row(OpLocations, "Locations", metaplane.Namespace.Locations),
		row(OpWatch, "Watch", metaplane.Namespace.Watch),
		row(OpMkdir, "Mkdir", metaplane.Namespace.Mkdir),
		row(OpRename, "Rename", metaplane.Namespace.Rename),
		row(OpLink, "Link", metaplane.Namespace.Link),
		row(OpDelete, "Delete", metaplane.Namespace.Delete),
		row(OpSetAttr, "SetAttr", metaplane.Namespace.SetAttr),
		row(OpFree, "Free", metaplane.Namespace.Free),
		row(OpSync, "Sync", metaplane.Namespace.Sync),
		row(OpCreate, "Create", metaplane.Namespace.Create),
		row(OpComplete, "Complete", metaplane.Namespace.Complete),
		row(OpAbandon, "Abandon", metaplane.Namespace.Abandon),
		row(OpRenew, "Renew", metaplane.Namespace.Renew),
		row(OpSetXattr, "SetXattr", metaplane.Namespace.SetXattr),
		row(OpGetXattr, "GetXattr", metaplane.Namespace.GetXattr),
		row(OpListXattr, "ListXattr", metaplane.Namespace.ListXattr),
		row(OpRemoveXattr, "RemoveXattr", metaplane.Namespace.RemoveXattr),
		row(OpMount, "Mount", metaplane.Namespace.Mount),
		row(OpUnmount, "Unmount", metaplane.Namespace.Unmount),
		row(OpListMounts, "ListMounts", metaplane.Namespace.ListMounts),
		row(OpRegister, "Register", metaplane.Namespace.Register),
		row(OpHeartbeat, "Heartbeat", metaplane.Namespace.Heartbeat),
		row(OpListWorkers, "ListWorkers", metaplane.Namespace.ListWorkers),
		row(OpResolve, "Resolve", metaplane.Namespace.Resolve),
		row(OpStaleUFS, "StaleUFS", metaplane.Namespace.StaleUFS),
		row(OpPersistPrepare, "PersistPrepare", metaplane.Namespace.PersistPrepare),
		row(OpPersistCommit, "PersistCommit", metaplane.Namespace.PersistCommit),
		row(OpReport, "Report", metaplane.Namespace.Report),
		row(OpConf, "Conf", metaplane.Namespace.Conf),
		row(OpHosted, "Hosted", metaplane.Namespace.Hosted),
		row(OpQuorum, "Quorum", metaplane.Namespace.Quorum),
		row(OpUsage, "Usage", metaplane.Namespace.Usage),
		row(OpSetQuota, "SetQuota", metaplane.Namespace.SetQuota),
		row(OpQuotas, "Quotas", metaplane.Namespace.Quotas),
		row(OpUpkeep, "Upkeep", metaplane.Namespace.Upkeep),
		row(OpTrash, "Trash", metaplane.Namespace.Trash),
		row(OpRestoreTrash, "RestoreTrash", metaplane.Namespace.RestoreTrash),
		row(OpPurgeTrash, "PurgeTrash", metaplane.Namespace.PurgeTrash),
		row(OpTransfer, "Transfer", metaplane.Namespace.Transfer),
		row(OpRegroup, "Regroup", metaplane.Namespace.Regroup),
		row(OpStage, "Stage", metaplane.Namespace.Stage),
		row(OpDepart, "Depart", metaplane.Namespace.Depart),
		row(OpHold, "Hold", metaplane.Namespace.Hold),
	}
	out := make(map[Op]*Method, len(rows))
	for i := range rows {
		out[rows[i].Op] = &rows[i]
	}
	return out
}

// Marshal encodes a message.
func Marshal(m Message) ([]byte, error) {
	b := make([]byte, m.SizeVT())
	n, err := m.MarshalToSizedBufferVT(b)
	if err != nil {
		return nil, &orca.Error{Op: "metawire.Marshal", Kind: orca.Internal, Err: err}
	}
	return b[len(b)-n:], nil
}
