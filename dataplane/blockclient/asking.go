// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient

import (
	"orca/dataplane"
	"orca/dataplane/datapb"
)

// asking encodes the requests of a read, one range after the other, into memory
// of its own.
type asking struct {
	msg   datapb.ReadRequest
	block datapb.Block
	grant datapb.Grant
	meta  []byte
}

// about sets all of the request but the range. The grant's token is shared.
func (a *asking) about(req *dataplane.ReadRequest) {
	a.block.File, a.block.Version, a.block.Index = uint64(req.ID.File), req.ID.Version, req.ID.Index
	g := &req.Grant
	a.grant.File, a.grant.Version, a.grant.Uid, a.grant.Write = uint64(g.File), g.Version, g.UID, g.Write
	a.grant.Expiry, a.grant.Token = 0, g.Token
	if !g.Expiry.IsZero() {
		a.grant.Expiry = g.Expiry.UnixNano()
	}
	a.msg.Block, a.msg.Grant = &a.block, &a.grant
	a.msg.Type, a.msg.Sequential = uint32(req.Type), req.Sequential
	a.msg.OnlyCached, a.msg.Verify, a.msg.Whole, a.msg.Direct = req.OnlyCached, req.Verify, req.Whole, req.Direct
}

// request encodes the request for [off, off+n), valid until the next.
func (a *asking) request(off, n int64) []byte {
	a.msg.Off, a.msg.N = off, n
	size := a.msg.SizeVT()
	if cap(a.meta) < size {
		a.meta = make([]byte, size+64)
	}
	a.meta = a.meta[:size]
	if _, err := a.msg.MarshalToSizedBufferVT(a.meta); err != nil {
		panic("BUG: a read request does not encode: " + err.Error()) // sizes are computed by the same code
	}
	return a.meta
}
