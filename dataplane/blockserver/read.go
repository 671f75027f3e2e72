// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockserver

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"orca"
	"orca/dataplane"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readRequest is a decoded request with room for its parts.
type readRequest struct {
	datapb.ReadRequest
	block datapb.Block
	grant datapb.Grant
}

var requestPool = sync.Pool{New: func() any { return new(readRequest) }}

func (q *readRequest) reset() {
	token := q.grant.Token[:0]
	q.block.Reset()
	q.grant.Reset()
	q.ReadRequest.Reset()
	q.grant.Token = token
	q.Block, q.Grant = &q.block, &q.grant
}

// read answers a range with as many frames as Blocks.Open has pieces: the
// first bytes leave while the rest is still being fetched. A piece that does
// not end on a grain boundary is the end of the block.
func (s *Server) read(ctx context.Context, r *transport.Request) transport.Reply {
	q := requestPool.Get().(*readRequest)
	q.reset()
	err := q.UnmarshalVT(r.Meta)
	req := dataplane.ReadRequest{
		ID: q.Block.ToBlock(), Off: q.Off, N: q.N,
		Type: orca.ReadType(q.Type), Sequential: q.Sequential, Grant: q.Grant.ToGrant(),
		OnlyCached: q.OnlyCached, Verify: q.Verify,
	}
	requestPool.Put(q)
	if err != nil {
		return malformed(r, err)
	}
	if req.Off < 0 || req.N <= 0 || req.N > frame.MaxBody {
		return transport.Fail(orca.PathE("blockserver.read", req.ID.String(), orca.Invalid, nil))
	}
	if err := s.grants.Read(&req.Grant, req.ID, peer(r)); err != nil {
		return s.denied(err)
	}
	s.metrics.Reads.Add(1)
	for {
		ext, err := s.blocks.Open(ctx, req)
		if err != nil {
			return transport.Fail(err)
		}
		reply, n := s.extentReply(r, &req, &ext)
		if n == 0 || n == req.N || (req.Off+n)%orca.GrainSize != 0 {
			return reply
		}
		if err := r.Send(reply); err != nil {
			return transport.Fail(err)
		}
		req.Off += n
		req.N -= n
	}
}

// extentReply makes the frame that carries ext, of which it takes care, and
// says how many bytes that are.
func (s *Server) extentReply(r *transport.Request, req *dataplane.ReadRequest, ext *dataplane.Extent) (transport.Reply, int64) {
	n := min(ext.N, req.N)
	if n <= 0 {
		release(ext)
		return transport.Reply{}, 0
	}
	sums, err := s.sums(r, req.Off, ext, n)
	if err != nil {
		release(ext)
		return transport.Fail(err), 0
	}
	s.metrics.Extents.Add(1)
	s.metrics.ReadBytes.Add(n)
	return transport.Reply{Meta: sums, File: ext.File, Off: ext.Off, N: n, Release: ext.Release}, n
}

func release(ext *dataplane.Extent) {
	if ext.Release != nil {
		ext.Release()
	}
}

// sums encodes the checksums of the grains that block bytes [off, off+n)
// touch.
func (s *Server) sums(r *transport.Request, off int64, ext *dataplane.Extent, n int64) ([]byte, error) {
	grains := int((off%orca.GrainSize + n + orca.GrainSize - 1) / orca.GrainSize)
	b := r.Scratch(4 * grains)
	if len(ext.Sums) == 0 {
		s.metrics.Summed.Add(1)
		return computeSums(b, ext, off, n)
	}
	first := (ext.Off - ext.SumOff) / orca.GrainSize
	if ext.Off < ext.SumOff || first+int64(grains) > int64(len(ext.Sums)) {
		return nil, orca.E("blockserver.read", orca.Internal, "BUG: an extent without the checksums of its grains")
	}
	for _, c := range ext.Sums[first : first+int64(grains)] {
		b = binary.BigEndian.AppendUint32(b, c)
	}
	return b, nil
}

var grainPool = sync.Pool{New: func() any { return new([orca.GrainSize]byte) }}

// computeSums reads what is about to be sent. Only whole grains can be
// verified by the receiver, so the sum of a grain that the range only touches
// is over the part that is sent.
func computeSums(b []byte, ext *dataplane.Extent, off, n int64) ([]byte, error) {
	buf := grainPool.Get().(*[orca.GrainSize]byte)
	defer grainPool.Put(buf)
	for pos := int64(0); pos < n; {
		k := min(orca.GrainSize-(off+pos)%orca.GrainSize, n-pos)
		if _, err := ext.File.ReadAt(buf[:k], ext.Off+pos); err != nil && err != io.EOF {
			return nil, orca.PathE("blockserver.read", ext.File.Name(), orca.Internal, err)
		}
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(buf[:k], castagnoli))
		pos += k
	}
	return b, nil
}
