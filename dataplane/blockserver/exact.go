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
	"orca/dataplane/transport"
)

// maxExact is the longest exact read, in bytes: it is answered from memory.
const maxExact = 1 << 20

// piece is the answer to an exact read under construction.
type piece struct {
	grain [orca.GrainSize]byte
	body  []byte
	crc   uint32 // of the first crcN bytes of body
	crcN  int    // 0: not known
	iov   [1][]byte
	sum   [4]byte
	give  func() // gives the piece back to the pool
}

var piecePool sync.Pool

func newPiece() *piece {
	p, ok := piecePool.Get().(*piece)
	if !ok {
		p = &piece{}
		p.give = func() { piecePool.Put(p) }
	}
	p.body, p.crcN = p.body[:0], 0
	return p
}

// exact answers with no more than the bytes asked for. The sums of a block are
// of whole grains, so they are verified here, over what is about to be sent,
// for each read, by the sums of the pages once the grain has held: a grain that does not hold is asked for once more with Verify
// set, so that the store finds out. The bytes travel under a sum of their own.
func (s *Server) exact(ctx context.Context, r *transport.Request, req dataplane.ReadRequest) transport.Reply {
	p := newPiece()
	off, end := req.Off, req.Off+req.N
	for off < end {
		n, err := s.grainOf(ctx, &req, p, off, end)
		if err != nil {
			p.give()
			return transport.Fail(err)
		}
		if n == 0 {
			break // the end of the block
		}
		off += n
	}
	return s.pieceReply(r, p)
}

func (s *Server) pieceReply(r *transport.Request, p *piece) transport.Reply {
	s.served(r, int64(len(p.body)))
	if p.crcN != len(p.body) || p.crcN == 0 {
		p.crc = crc32.Checksum(p.body, castagnoli)
	}
	binary.BigEndian.PutUint32(p.sum[:], p.crc)
	return transport.Reply{Meta: p.sum[:], Body: p.body, Release: p.give}
}

// exactNow is exact of what is held, in memory, and verified page by page; !ok:
// it has to be read by exact.
func (s *Server) exactNow(r *transport.Request, req *dataplane.ReadRequest) (reply transport.Reply, ok bool) {
	p := newPiece()
	off, end := req.Off, req.Off+req.N
	extents := int64(0)
	for off < end {
		q := *req
		q.Off, q.N = off-off%orca.GrainSize, orca.GrainSize
		ext, ok := s.holder.Held(q)
		if !ok {
			break
		}
		extents++
		n := min(ext.N, orca.GrainSize)
		var got int64
		if g := s.pages.get(keyOf(req.ID, &ext, q.Off), n); g == nil {
			ok = false
		} else {
			got, ok = p.pages(&ext, g, off-q.Off, end-q.Off, true)
		}
		release(&ext)
		if !ok || got == 0 {
			break // the end of the block is for exact
		}
		off += got
	}
	if off < end {
		p.give()
		return transport.Reply{}, false
	}
	s.metrics.Extents.Add(extents)
	return s.pieceReply(r, p), true
}

// grainOf appends what [off, end) has of its first grain to p.
func (s *Server) grainOf(ctx context.Context, req *dataplane.ReadRequest, p *piece, off, end int64) (int64, error) {
	start := off - off%orca.GrainSize
	q := *req
	for {
		q.Off, q.N = start, orca.GrainSize
		ext, err := s.blocks.Open(ctx, q)
		if err != nil {
			return 0, err
		}
		s.metrics.Extents.Add(1)
		n := min(ext.N, orca.GrainSize)
		k := keyOf(req.ID, &ext, start)
		if g := s.pages.get(k, n); g != nil && !q.Verify {
			if got, ok := p.pages(&ext, g, off-start, end-start, false); ok {
				release(&ext)
				return got, nil
			}
			s.pages.drop(k)
		}
		held := n <= 0
		if !held {
			s.metrics.Grains.Add(1)
			if held, err = p.load(&ext, n); err != nil {
				release(&ext)
				return 0, err
			}
			if held && len(ext.Sums) > 0 {
				s.pages.put(k, &ext, p.grain[:n])
			}
		}
		release(&ext)
		if held {
			n = min(n, end-start)
			if n <= off-start {
				return 0, nil
			}
			p.body = append(p.body, p.grain[off-start:n]...)
			return n - (off - start), nil
		}
		if q.Verify {
			return 0, orca.PathE("blockserver.read", req.ID.String(), orca.Corrupt, nil)
		}
		q.Verify = true
	}
}

// load reads n bytes of a grain and reports whether its sum holds. An extent
// without sums is of memory that was filled just now.
func (p *piece) load(ext *dataplane.Extent, n int64) (bool, error) {
	if got, err := ext.ReadAt(p.grain[:n], ext.Off); int64(got) < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return false, orca.PathE("blockserver.read", nameOf(ext), orca.Internal, err)
	}
	if len(ext.Sums) == 0 {
		return true, nil
	}
	i := (ext.Off - ext.SumOff) / orca.GrainSize
	if ext.Off < ext.SumOff || i >= int64(len(ext.Sums)) {
		return false, orca.E("blockserver.read", orca.Internal, "BUG: an extent without the checksums of its grains")
	}
	return crc32.Checksum(p.grain[:n], castagnoli) == ext.Sums[i], nil
}
