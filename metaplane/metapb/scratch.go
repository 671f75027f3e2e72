// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metapb

import (
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// EachField calls fn for the fields of an encoded message, with the number of a
// varint or the bytes, not nil, of what has a length, until it returns false.
// false: it did, or the message has fields of other kinds or is damaged.
func EachField(b []byte, fn func(num protowire.Number, v uint64, p []byte) bool) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var v uint64
		var p []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			if p, n = protowire.ConsumeBytes(b); p == nil {
				p = b[:0]
			}
		default:
			return false
		}
		if n < 0 || !fn(num, v, p) {
			return false
		}
		b = b[n:]
	}
	return true
}

// DecodeOnto fills in c, which is empty, without allocating; false: it is not
// plainly encoded, and c must not be used.
func (c *Caller) DecodeOnto(b []byte) bool {
	return EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch num {
		case 1:
			c.Uid = uint32(v)
		case 2:
			c.Gid = uint32(v)
		default: // groups
			return false
		}
		return p == nil
	})
}

// DecodeOnto fills in t, which is empty, without allocating: its path is a part
// of b. false: it is not plainly encoded, and t must not be used.
func (t *Target) DecodeOnto(b []byte) bool {
	return EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch {
		case num == 1 && p == nil:
			t.Ino = v
		case num == 2 && p != nil:
			t.Path = unsafe.String(unsafe.SliceData(p), len(p))
		default:
			return false
		}
		return true
	})
}

// StatScratch is the memory of one stat, used again for the next. The zero value
// is ready; it is for one goroutine.
type StatScratch struct {
	// Reply is for the answer; Reply.Attr is empty but for memory of runs.
	Reply StatReply

	attr   Attr
	q      StatRequest
	h      Header
	caller Caller
	target Target
	sync   SyncOption
}

// Decode decodes a request without allocating, and empties Reply: what it
// returns is valid until the next call, and its path is a part of b. false: it
// is not plainly encoded, or lacks a header.
func (s *StatScratch) Decode(b []byte) (*StatRequest, bool) {
	runs := s.attr.Runs
	s.attr.Reset()
	s.attr.Runs = runs[:0]
	s.Reply.Reset()
	s.Reply.Attr = &s.attr
	s.q.Reset()
	q := &s.q
	ok := EachField(b, func(num protowire.Number, _ uint64, p []byte) bool {
		switch {
		case num == 1 && p != nil && q.H == nil:
			q.H = &s.h
			return s.decodeHeader(p)
		case num == 2 && p != nil && q.Target == nil:
			s.target.Reset()
			q.Target = &s.target
			return q.Target.DecodeOnto(p)
		case num == 3 && p != nil && q.Sync == nil:
			q.Sync = &s.sync
			return s.decodeSync(p)
		}
		return false
	})
	return q, ok && q.H != nil
}

func (s *StatScratch) decodeHeader(b []byte) bool {
	s.h.Reset()
	return s.h.decodeOnto(b, &s.caller)
}

// decodeOnto fills in h, which is empty, without allocating; c is the memory of
// its caller.
func (h *Header) decodeOnto(b []byte, c *Caller) bool {
	return EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch {
		case num == 1 && p == nil:
			h.Client = v
		case num == 2 && p == nil:
			h.Seq = v
		case num == 3 && p == nil:
			h.AckedBelow = v
		case num == 4 && p != nil && h.Caller == nil:
			c.Reset()
			h.Caller = c
			return h.Caller.DecodeOnto(p)
		default:
			return false
		}
		return true
	})
}

func (s *StatScratch) decodeSync(b []byte) bool {
	s.sync.Reset()
	o := &s.sync
	return EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch num {
		case 1:
			o.Mode = uint32(v)
		case 2:
			o.IntervalMs = int64(v)
		default:
			return false
		}
		return p == nil
	})
}

// CreateScratch is the memory of one request to create, used again for the next.
// The zero value is ready; it is for one goroutine.
type CreateScratch struct {
	q      CreateRequest
	h      Header
	caller Caller
	target Target
}

// Decode decodes a request without allocating: what it returns is valid until the
// next call, and its path is a part of b. false: it is not plainly encoded, makes a
// link, or lacks a header or a target.
func (s *CreateScratch) Decode(b []byte) (*CreateRequest, bool) {
	s.q.Reset()
	q := &s.q
	ok := EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch {
		case num == 1 && p != nil && q.H == nil:
			s.h.Reset()
			q.H = &s.h
			return q.H.decodeOnto(p, &s.caller)
		case num == 2 && p != nil && q.Target == nil:
			s.target.Reset()
			q.Target = &s.target
			return q.Target.DecodeOnto(p)
		case p != nil:
			return false
		}
		return q.decodeNumber(num, v)
	})
	return q, ok && q.H != nil && q.Target != nil
}

func (q *CreateRequest) decodeNumber(num protowire.Number, v uint64) bool {
	switch num {
	case 3:
		q.Mode = uint32(v)
	case 4:
		q.Parents = v != 0
	case 5:
		q.Exclusive = v != 0
	case 6:
		q.Overwrite = v != 0
	case 7:
		q.WriteType = uint32(v)
	case 8:
		q.BlockSize = int64(v)
	case 9:
		q.Replicas = uint32(v)
	case 10:
		q.Complete = v != 0
	case 11:
		q.Steal = v != 0
	case 50:
		q.ExpectLength = int64(v)
	default:
		return false
	}
	return true
}
