// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// Two files of different groups change places by the transaction that takes one to
// the other's group (transfer.go, ADR 0029). Both records go with it: that of the
// source's file with the question, that of the target's with the decision, which
// puts the one in the place of the other. The source's group does the same with
// what comes back, in the apply that ends its intent. Until then its name is read by
// nobody, so that the target's old file is nowhere for a moment, but not missed.

// roomBack refuses an exchange for whose other file quotas have no room where it
// goes; else the intent holds that.
func (m *Machine) roomBack(it *metapb.UFSIntent, o *metapb.RenameOp, src *spot) *refusal {
	if !o.Exchange {
		return nil
	}
	v := move{want: room{bytes: max(0, o.AwayBytes-src.file.Length)}, to: src.dir}
	v.holdBy(it)
	return m.fits(src.dir, nil, v.want, src.path)
}

// checkTrade is checkReceive for an exchange.
func (m *Machine) checkTrade(o *metapb.TransferOp, by *orca.Caller, dst *spot) *refusal {
	mt, e := m.mountOf(dst.dir), dst.file
	switch {
	case dst.dentry.dir != nil:
		return refuse(orca.CrossMount, dst.path, "a directory stays in its group")
	case e == nil:
		return refuse(orca.NotFound, dst.path, "")
	case mt == nil || family(mt) != o.Mount:
		return refuse(orca.CrossMount, dst.path, "")
	case e.Flags.Has(inode.Linked):
		return refuse(orca.CrossMount, dst.path, "a file with several names stays in its group")
	}
	if r := firstRefusal(writable(mt, dst.path), m.idle(dst.dir, dst.name, nil, dst.path), mayCut(by, dst)); r != nil {
		return r
	}
	f, err := transferred(o)
	switch {
	case err != nil:
		return refuse(orca.KindOf(err), dst.path, "")
	case e.Type == orca.TypeFile && e.Persist != orca.Persisted:
		return refuse(orca.CrossMount, dst.path, "only what its store has goes to another group: it is not persisted")
	case f.Fingerprint != "" && e.Fingerprint != "" && !mt.Exchange:
		return refuse(orca.Unsupported, dst.path, "the store cannot exchange two names in one call")
	case e.Length > o.Room:
		return refuse(orca.Busy, dst.path, "it has grown since the other group was asked for room")
	}
	return copied(mt, e, dst.path)
}

// arrive is the effect of a transfer where it goes.
func (m *Machine) arrive(c *call, o *metapb.TransferOp, dst *spot) *refusal {
	if !o.Exchange {
		return m.install(c, o, dst)
	}
	e := dst.file
	if e == nil {
		return refuse(orca.Internal, dst.path, "what it was to change places with is gone")
	}
	f, err := transferred(o)
	if err != nil {
		return refuse(orca.KindOf(err), dst.path, "")
	}
	goes := clone(e)
	if fp := c.decide.GetFingerprint(); fp != "" && f.Fingerprint == "" && e.Fingerprint != "" {
		goes.Fingerprint = fp // the store has moved this one
	}
	back := m.parcel(goes)
	if f.Fingerprint == "" {
		m.leaveObject(c, dst)
	}
	if r := m.install(c, o, dst); r != nil {
		return r
	}
	c.res.Transfer = &metapb.TransferRecord{Back: back}
	return nil
}

// sent is the effect of a transfer where it comes from.
func (m *Machine) sent(c *call, o *metapb.RenameOp, src *spot) *refusal {
	m.leaveObject(c, src)
	if !o.Exchange {
		m.erase(src)
		return nil
	}
	back := c.decide.GetBack()
	if back == nil {
		return refuse(orca.Internal, src.path, "the other group has given nothing for it")
	}
	return m.install(c, back, src)
}
