// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package frame is the header of every message between Orca's processes: 32
// bytes, big endian, then at most MaxMeta bytes of meta and at most MaxBody
// bytes of body. docs/format/frame.md draws the bytes and testdata pins them.
//
// Meta is what user space reads (protobuf of a request or reply, the checksums
// of a data reply, the text of an error); body is what the kernel moves (file
// data), and is never parsed.
//
// The package is pure: no socket, no clock, no goroutine, no allocation on the
// paths without an error. It refuses to look at meta and body; only
// dataplane/transport and dataplane/shortcircuit read and write frames.
package frame

import (
	"encoding/binary"
	"hash/crc32"

	"orca"
)

const (
	// Size is the length of an encoded Header in bytes.
	Size = 32
	// Version is the version of the format that this build speaks. A peer of
	// another version is refused with Unsupported.
	Version = 1
	// MaxMeta bounds the meta of one frame in bytes: a listing is paged below
	// it.
	MaxMeta = 4 << 20
	// MaxBody bounds the body of one frame in bytes, so that a slow peer holds
	// at most this much of a connection. Callers split larger reads and writes.
	MaxBody = 8 << 20

	magic = 0x6f72 // "or"
)

// Flags of a frame.
const (
	// FlagReply marks a frame that answers the request of the same Seq.
	FlagReply uint8 = 1 << iota
	// FlagMore says that another frame of the same reply follows. Bodies (and
	// metas) of the frames of one reply follow one another.
	FlagMore

	flagsKnown = FlagReply | FlagMore
)

// Header precedes meta and body. Fields lie on the wire in this order.
type Header struct {
	Flags  uint8
	Op     Op
	Status orca.Kind // OK in a request
	Seq    uint64    // pairs reply with request; chosen by the client, unique among the requests in flight of a connection
	Meta   uint32    // bytes of meta that follow
	Body   uint32    // bytes of body after the meta
	// Timeout is the time that the caller goes on waiting, in ms (0: not
	// said); always 0 in a reply. The server gives up after it.
	Timeout uint32
}

// Len returns how many bytes of meta and body follow the header.
func (h *Header) Len() int { return int(h.Meta) + int(h.Body) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The errors of Decode, made once so that hostile input allocates nothing.
var (
	errShort   = orca.E("frame.Decode", orca.Corrupt, "short header")
	errMagic   = orca.E("frame.Decode", orca.Corrupt, "not an orca frame")
	errSum     = orca.E("frame.Decode", orca.Corrupt, "header checksum does not hold")
	errVersion = orca.E("frame.Decode", orca.Unsupported, "peer speaks another frame version")
	errFlags   = orca.E("frame.Decode", orca.Corrupt, "unknown flags")
	errMeta    = orca.E("frame.Decode", orca.TooLarge, "meta over its limit")
	errBody    = orca.E("frame.Decode", orca.TooLarge, "body over its limit")
)

// Put encodes h into the first Size bytes of b, which must be that long.
func (h *Header) Put(b []byte) {
	_ = b[Size-1]
	be := binary.BigEndian
	be.PutUint16(b, magic)
	b[2], b[3] = Version, h.Flags
	be.PutUint16(b[4:], uint16(h.Op))
	be.PutUint16(b[6:], uint16(h.Status))
	be.PutUint64(b[8:], h.Seq)
	be.PutUint32(b[16:], h.Meta)
	be.PutUint32(b[20:], h.Body)
	be.PutUint32(b[24:], h.Timeout)
	be.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
}

// AppendTo appends the encoded header to dst.
func (h *Header) AppendTo(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, room...)
	h.Put(dst[n:]) // in place: an array on the stack would escape to the checksum
	return dst
}

const room = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// Check reports whether the lengths of h are within the limits: TooLarge if
// not. A sender calls it before it writes.
func (h *Header) Check() error {
	if h.Meta > MaxMeta {
		return errMeta
	}
	if h.Body > MaxBody {
		return errBody
	}
	return nil
}

// Decode reads a Header from the first Size bytes of b and does not keep b.
// After any error (Corrupt, Unsupported, TooLarge) framing is lost and the
// connection must be closed.
func Decode(b []byte) (Header, error) {
	if len(b) < Size {
		return Header{}, errShort
	}
	be := binary.BigEndian
	if be.Uint16(b) != magic {
		return Header{}, errMagic
	}
	if be.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return Header{}, errSum
	}
	if b[2] != Version {
		return Header{}, errVersion
	}
	h := Header{
		Flags:   b[3],
		Op:      Op(be.Uint16(b[4:])),
		Status:  orca.Kind(be.Uint16(b[6:])),
		Seq:     be.Uint64(b[8:]),
		Meta:    be.Uint32(b[16:]),
		Body:    be.Uint32(b[20:]),
		Timeout: be.Uint32(b[24:]),
	}
	if h.Flags&^flagsKnown != 0 {
		return Header{}, errFlags
	}
	return h, h.Check()
}
