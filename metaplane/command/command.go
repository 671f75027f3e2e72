// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package command is the codec of what a metaplane group keeps in its Raft
// journal: commands in, results out. docs/format/command.md is its format,
// testdata/ its goldens.
//
// The flow: metaserver builds a Command, raftgroup packs many into one
// journal entry (Entry), fsm takes them apart, applies them in order and packs
// the results the same way.
//
// It is pure, starts no goroutine, holds no lock. It refuses an envelope of
// another format version, a truncated or over-long one, and more commands than
// MaxOps in one entry.
package command

import (
	"encoding/binary"

	"orca"
	"orca/metaplane/metapb"
)

// Command and the rest are the messages of metapb/command.proto, by the names
// that the metaplane uses.
type (
	// Command is one mutation.
	Command = metapb.Command
	// Result is what one command came to.
	Result = metapb.Result
	// Session is one write session.
	Session = metapb.SessionRecord
	// Intent is a durable promise to a UFS.
	Intent = metapb.UFSIntent
	// Mount is a row of the mount table.
	Mount = metapb.MountRecord
	// Trashed is something deleted that is kept.
	Trashed = metapb.TrashRecord
	// Worker is the identity of a worker.
	Worker = metapb.WorkerRecord
)

const (
	// Version is the format version, the first byte of each encoded command
	// and result.
	Version = 1
	// entryMagic is the first byte of a journal entry, taggedMagic that of one
	// which says who proposed it.
	entryMagic  = 0xC0
	taggedMagic = 0xC1
	// tagLen is the length of the first byte and the tag.
	tagLen = 1 + 8 + 8
	// MaxOps is the most commands in one journal entry.
	MaxOps = 4096
	// MaxBytes is the longest encoded command.
	MaxBytes = 8 << 20
)

// Append appends the encoding of c to dst.
func Append(dst []byte, c *Command) ([]byte, error) {
	return appendMessage(dst, c)
}

// Decode decodes what Append wrote into c, which must be empty.
func Decode(b []byte, c *Command) error {
	return decodeMessage("command.Decode", b, c)
}

// AppendResult appends the encoding of r to dst.
func AppendResult(dst []byte, r *Result) ([]byte, error) {
	return appendMessage(dst, r)
}

// DecodeResult decodes what AppendResult wrote into r, which must be empty.
func DecodeResult(b []byte, r *Result) error {
	return decodeMessage("command.DecodeResult", b, r)
}

// message is what vtprotobuf generates.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT(b []byte) (int, error)
	UnmarshalVT(b []byte) error
}

func appendMessage(dst []byte, m message) ([]byte, error) {
	const op = "command.Append"
	n := m.SizeVT()
	if n > MaxBytes {
		return dst, orca.E(op, orca.TooLarge, "command over the limit of one journal entry")
	}
	off := len(dst)
	dst = append(dst, Version)
	for cap(dst) < off+1+n {
		dst = append(dst[:cap(dst)], 0)
	}
	dst = dst[:off+1+n]
	if _, err := m.MarshalToSizedBufferVT(dst[off+1:]); err != nil {
		return dst[:off], orca.PathE(op, "", orca.Internal, err)
	}
	return dst, nil
}

func decodeMessage(op string, b []byte, m message) error {
	if len(b) == 0 || b[0] != Version {
		return orca.E(op, orca.Corrupt, "unknown format version")
	}
	if len(b) > MaxBytes+1 {
		return orca.E(op, orca.TooLarge, "message over the limit")
	}
	if err := m.UnmarshalVT(b[1:]); err != nil {
		return orca.PathE(op, "", orca.Corrupt, err)
	}
	return nil
}

// An Entry is the payload of one journal entry or of its result: a sequence of
// encoded commands or results. Its zero value is empty and ready.
type Entry struct {
	buf []byte
	n   int
}

// Tag marks an empty entry: flight of proposer. Both are for the proposer's own
// use, who finds its entry again when it is applied; they change no result.
func (e *Entry) Tag(proposer, flight uint64) {
	e.buf = append(e.buf[:0], taggedMagic)
	e.buf = binary.BigEndian.AppendUint64(e.buf, proposer)
	e.buf = binary.BigEndian.AppendUint64(e.buf, flight)
}

// TagOf returns the tag of an encoded entry; not ok: it has none.
func TagOf(b []byte) (proposer, flight uint64, ok bool) {
	if len(b) < tagLen || b[0] != taggedMagic {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:]), true
}

// Add appends one encoded item.
func (e *Entry) Add(item []byte) {
	if len(e.buf) == 0 {
		e.buf = append(e.buf, entryMagic)
	}
	e.buf = binary.AppendUvarint(e.buf, uint64(len(item)))
	e.buf = append(e.buf, item...)
	e.n++
}

// Len returns the number of items.
func (e *Entry) Len() int { return e.n }

// Size returns the encoded length in bytes.
func (e *Entry) Size() int { return len(e.buf) }

// Bytes returns the encoding; it is the Entry's own memory.
func (e *Entry) Bytes() []byte { return e.buf }

// Reset empties the entry; keep says whether its memory may be used again.
func (e *Entry) Reset(keep bool) {
	if keep {
		e.buf = e.buf[:0]
	} else {
		e.buf = nil
	}
	e.n = 0
}

// Split calls fn for each item of an encoded entry, in order, and stops at the
// first error. The items alias b.
func Split(b []byte, fn func(i int, item []byte) error) error {
	const op = "command.Split"
	switch {
	case len(b) > 0 && b[0] == entryMagic:
		b = b[1:]
	case len(b) >= tagLen && b[0] == taggedMagic:
		b = b[tagLen:]
	default:
		return orca.E(op, orca.Corrupt, "not a journal entry of this format")
	}
	for i := 0; len(b) > 0; i++ {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) || i >= MaxOps {
			return orca.E(op, orca.Corrupt, "truncated journal entry")
		}
		if err := fn(i, b[w:w+int(n)]); err != nil {
			return err
		}
		b = b[w+int(n):]
	}
	return nil
}

// Err returns the orca.Error that a result stands for, nil for OK.
func Err(op string, r *Result) error {
	if orca.Kind(r.Kind) == orca.OK {
		return nil
	}
	return &orca.Error{Op: op, Path: r.Path, Kind: orca.Kind(r.Kind), Msg: r.Msg}
}

// Waiter is told what a command that was proposed came to.
type Waiter interface {
	// Done is called once, on a goroutine that must not be held up: it does
	// not block, and does not propose and wait. A refused command has both res
	// and err. res is only valid during the call.
	Done(res *Result, err error)
}
