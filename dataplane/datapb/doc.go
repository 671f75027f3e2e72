// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package datapb is the messages of the block service on the wire, and their
// translation from and to the vocabulary of package dataplane. It is pure: no
// goroutines, no I/O. Lengths are bounded by the frame that carries them.
package datapb

import (
	"time"

	"orca"
	"orca/dataplane"
)

// FromGrant translates a grant for the wire.
func FromGrant(g *dataplane.Grant) *Grant {
	return &Grant{
		File: uint64(g.File), Version: g.Version, Uid: g.UID, Write: g.Write,
		Expiry: nanos(g.Expiry), Token: g.Token,
	}
}

// ToGrant translates a grant from the wire; nil is the zero grant. The token
// is copied.
func (x *Grant) ToGrant() dataplane.Grant {
	if x == nil {
		return dataplane.Grant{}
	}
	return dataplane.Grant{
		File: orca.Ino(x.File), Version: x.Version, UID: x.Uid, Write: x.Write,
		Expiry: when(x.Expiry), Token: append([]byte(nil), x.Token...),
	}
}

// FromBlock translates a block id for the wire.
func FromBlock(id orca.BlockID) *Block {
	return &Block{File: uint64(id.File), Version: id.Version, Index: id.Index}
}

// ToBlock translates a block id from the wire; nil is the zero id.
func (x *Block) ToBlock() orca.BlockID {
	if x == nil {
		return orca.BlockID{}
	}
	return orca.BlockID{File: orca.Ino(x.File), Version: x.Version, Index: x.Index}
}

// FromTarget translates a write target for the wire.
func FromTarget(t *dataplane.WriteTarget) *Target {
	return &Target{
		Session: t.Session, Fence: t.Fence, File: uint64(t.File), Version: t.Version,
		Type: uint32(t.Type), MountId: t.MountID, UfsKey: t.UFSKey, Mode: t.Mode,
		Uid: t.UID, Gid: t.GID, BlockSize: t.BlockSize, WholeMax: t.WholeMax, Expect: t.Expect,
		Replicas: t.Replicas, Grant: FromGrant(&t.Grant),
		Chain: FromLinks(t.Chain), Linked: t.Linked, Takeover: t.Takeover, WantCrc32C: t.WantCRC, WantLength: t.WantLength,
	}
}

// FromLinks translates the workers of a chain for the wire.
func FromLinks(ls []dataplane.Link) []*Link {
	if len(ls) == 0 {
		return nil
	}
	out := make([]*Link, len(ls))
	for i, l := range ls {
		out[i] = &Link{Worker: l.Worker, Addr: l.Addr, Handle: l.Handle}
	}
	return out
}

// ToLinks translates the workers of a chain from the wire.
func ToLinks(ls []*Link) []dataplane.Link {
	if len(ls) == 0 {
		return nil
	}
	out := make([]dataplane.Link, 0, len(ls))
	for _, l := range ls {
		if l != nil {
			out = append(out, dataplane.Link{Worker: l.Worker, Addr: l.Addr, Handle: l.Handle})
		}
	}
	return out
}

// ToTarget translates a write target from the wire; nil is the zero target.
func (x *Target) ToTarget() dataplane.WriteTarget {
	if x == nil {
		return dataplane.WriteTarget{}
	}
	return dataplane.WriteTarget{
		Session: x.Session, Fence: x.Fence, File: orca.Ino(x.File), Version: x.Version,
		Type: orca.WriteType(x.Type), MountID: x.MountId, UFSKey: x.UfsKey, Mode: x.Mode,
		UID: x.Uid, GID: x.Gid, BlockSize: x.BlockSize, WholeMax: x.WholeMax, Expect: x.Expect,
		Replicas: x.Replicas, Grant: x.Grant.ToGrant(),
		Chain: ToLinks(x.Chain), Linked: x.Linked, Takeover: x.Takeover, WantCRC: x.WantCrc32C, WantLength: x.WantLength,
	}
}

// FromSeal translates the result of a seal for the wire.
func FromSeal(r *dataplane.SealResult) *SealReply {
	return &SealReply{
		Length: r.Length, BlockSize: r.BlockSize, Fingerprint: r.Fingerprint,
		UfsMtime: nanos(r.UFSMtime), Copies: int32(r.Copies), Durable: r.Durable, Crc32C: r.CRC32C,
		Holders: r.Holders,
	}
}

// ToSeal translates the result of a seal from the wire.
func (x *SealReply) ToSeal() dataplane.SealResult {
	return dataplane.SealResult{
		Length: x.Length, BlockSize: x.BlockSize, Fingerprint: x.Fingerprint,
		UFSMtime: when(x.UfsMtime), Copies: int(x.Copies), Durable: x.Durable, CRC32C: x.Crc32C,
		Holders: x.Holders,
	}
}

// nanos is the time on the wire; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func when(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
