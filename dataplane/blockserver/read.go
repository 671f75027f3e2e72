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
	req, exact, reply, ok := s.request(r)
	if !ok {
		return reply
	}
	if r.Inline {
		return s.held(r, &req, exact)
	}
	s.metrics.Reads.Add(1)
	if exact {
		return s.exact(ctx, r, req)
	}
	for {
		ext, err := s.open(ctx, r, req)
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

// open is Blocks.Open. An extent in memory has a place of the connection until
// it has left: receivers that do not read keep no more memory than that from
// others. Where it is known beforehand that it will be one, nothing is made that
// would only wait; else it is made again.
func (s *Server) open(ctx context.Context, r *transport.Request, req dataplane.ReadRequest) (dataplane.Extent, error) {
	placed := false
	for {
		if !placed && s.maker != nil && s.maker.InMemory(req.ID) {
			if err := r.Place(ctx, false); err != nil {
				return dataplane.Extent{}, err
			}
			placed = true
		}
		ext, err := s.blocks.Open(ctx, req)
		switch made := err == nil && ext.File == nil && ext.Release != nil; {
		case !made && placed:
			r.Leave()()
			return ext, err
		case !made:
			return ext, err
		case placed || r.Place(ctx, true) == nil:
			free, leave := ext.Release, r.Leave()
			ext.Release = func() { free(); leave() }
			return ext, nil
		}
		release(&ext)
		if err := r.Place(ctx, false); err != nil {
			return dataplane.Extent{}, err
		}
		placed = true
	}
}

// held answers a range that is here as a whole. What has to wait is for read.
func (s *Server) held(r *transport.Request, req *dataplane.ReadRequest, exact bool) transport.Reply {
	later := transport.Reply{Later: true}
	if req.Verify {
		return later
	}
	if exact {
		reply, ok := s.exactNow(r, req)
		if !ok {
			return later
		}
		s.metrics.Reads.Add(1)
		return reply
	}
	ext, ok := s.holder.Held(*req)
	if !ok {
		return later
	}
	n := min(ext.N, req.N)
	if len(ext.Sums) == 0 || n <= 0 || n < req.N && (req.Off+n)%orca.GrainSize == 0 {
		release(&ext)
		return later
	}
	s.metrics.Reads.Add(1)
	reply, _ := s.extentReply(r, req, &ext)
	return reply
}

// present makes a range present for a reader on the same host, which reads it
// from the descriptor that Sharer gave it: its first presentLeast bytes, and of
// the rest what comes within Config.Linger. A reader in order that asks for
// several of its pieces at once is woken once for all of them, and not kept
// waiting by a slow source. Unsupported when the bytes do not stay in the
// block's file: they have to be asked for by read.
func (s *Server) present(ctx context.Context, r *transport.Request) transport.Reply {
	req, _, reply, ok := s.request(r)
	if !ok {
		return reply
	}
	s.metrics.Presents.Add(1)
	var a datapb.PresentReply
	least := min(req.N, presentLeast)
	more := req.N - least
	req.Whole, req.N = true, least
	if err := s.gather(ctx, req, &a); err != nil {
		return transport.Fail(err)
	}
	if a.N < least || more == 0 {
		return answer(r, &a)
	}
	lctx, cancel := context.WithTimeout(ctx, s.linger)
	defer cancel()
	rest := req
	rest.Off, rest.N = req.Off+a.N, more
	_ = s.gather(lctx, rest, &a) // who asks on meets the error
	if lctx.Err() != nil {
		rest.Off, rest.N = req.Off+a.N, least+more-a.N
		rest.Whole, rest.OnlyCached = false, true
		_ = s.gather(ctx, rest, &a) // what has come by now
	}
	return answer(r, &a)
}

// presentLeast is the length of a range up to which its reader gets all of it.
const presentLeast = 1 << 20

// gather adds to a what it makes present of req, as long as that is in one
// file. It fails when that is nothing.
func (s *Server) gather(ctx context.Context, req dataplane.ReadRequest, a *datapb.PresentReply) error {
	for got := int64(0); req.N > 0; {
		ext, err := s.blocks.Open(ctx, req)
		if err != nil && got > 0 {
			return nil
		}
		if err != nil {
			return err
		}
		n, gen := min(ext.N, req.N), ext.Generation
		release(&ext)
		if n > 0 && gen == 0 {
			return orca.PathE("blockserver.present", req.ID.String(), orca.Unsupported, nil)
		}
		if n <= 0 || a.N > 0 && gen != a.Generation {
			return nil
		}
		a.N, a.Generation, got = a.N+n, gen, got+n
		req.Off, req.N = req.Off+n, req.N-n
	}
	return nil
}

// request decodes and checks a ReadRequest; !ok: reply says why not.
func (s *Server) request(r *transport.Request) (req dataplane.ReadRequest, exact bool, reply transport.Reply, ok bool) {
	q := requestPool.Get().(*readRequest)
	q.reset()
	err := q.UnmarshalVT(r.Meta)
	req = dataplane.ReadRequest{
		ID: q.Block.ToBlock(), Off: q.Off, N: q.N,
		Type: orca.ReadType(q.Type), Sequential: q.Sequential, Grant: q.Grant.ToGrant(),
		OnlyCached: q.OnlyCached, Verify: q.Verify, Whole: q.Whole, Direct: q.Direct,
	}
	exact = q.Exact
	requestPool.Put(q)
	if err != nil {
		return req, exact, malformed(r, err), false
	}
	if req.Off < 0 || req.N <= 0 || req.N > frame.MaxBody || exact && req.N > maxExact {
		return req, exact, transport.Fail(orca.PathE("blockserver.read", req.ID.String(), orca.Invalid, nil)), false
	}
	if err := s.grants.Read(&req.Grant, req.ID, peer(r)); err != nil {
		return req, exact, s.denied(err), false
	}
	return req, exact, transport.Reply{}, true
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
	s.served(r, n)
	if ext.File == nil {
		return transport.Reply{Meta: sums, Body: ext.Data[:n], Release: ext.Release}, n
	}
	return transport.Reply{Meta: sums, File: ext.File, Off: ext.Off, N: n, Release: ext.Release}, n
}

// served counts n bytes of the answer to r.
func (s *Server) served(r *transport.Request, n int64) {
	s.metrics.ReadBytes.Add(n)
	if r.Peer.Unix {
		s.metrics.DomainBytes.Add(n)
	}
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

// nameOf says where an extent is from, for an error.
func nameOf(ext *dataplane.Extent) string {
	if ext.File == nil {
		return "memory"
	}
	return ext.File.Name()
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
		if _, err := ext.ReadAt(buf[:k], ext.Off+pos); err != nil && err != io.EOF {
			return nil, orca.PathE("blockserver.read", nameOf(ext), orca.Internal, err)
		}
		b = binary.BigEndian.AppendUint32(b, crc32.Checksum(buf[:k], castagnoli))
		pos += k
	}
	return b, nil
}
