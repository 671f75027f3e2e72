// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inode

import (
	"encoding/binary"

	"orca"
)

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendTimes writes mtime in full and the others as their distance from it.
func appendTimes(dst []byte, mtime, ctime, atime int64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(mtime))
	dst = binary.AppendVarint(dst, ctime-mtime)
	return binary.AppendVarint(dst, atime-mtime)
}

func appendOverride(dst []byte, o Override) []byte {
	dst = binary.AppendUvarint(dst, o.By)
	if o.By == 0 {
		return dst
	}
	return appendString(dst, o.Key)
}

// reader takes fields off b; after a truncation all reads return zero.
type reader struct {
	b    []byte
	bad  bool
	keep func([]byte) string // makes strings; nil: each in memory of its own
}

func (r *reader) err(op string) error {
	if r.bad {
		return r.fail(op)
	}
	return nil
}

func (r *reader) fail(op string) error {
	return orca.E(op, orca.Corrupt, "bad record")
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) u32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return ""
	}
	p := r.take(int(n))
	if r.keep != nil {
		return r.keep(p)
	}
	return string(p)
}

// count reads the length of a list whose items take at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) times() (mtime, ctime, atime int64) {
	mtime = int64(r.u64())
	ctime = mtime + r.varint()
	atime = mtime + r.varint()
	return mtime, ctime, atime
}

func (r *reader) override() Override {
	o := Override{By: r.uvarint()}
	if o.By != 0 {
		o.Key = r.string()
	}
	return o
}
