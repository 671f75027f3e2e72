// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockfile

import (
	"io"
	"os"
	"sync"

	"orca"
)

// IndexName is the name of the index in a tier directory.
const IndexName = "index"

const (
	// maxBuffer is how much an index holds back while its disk is full before
	// it fails, in bytes.
	maxBuffer = 16 << 20
	// compactMin is the length below which an index is never compacted.
	compactMin = 1 << 20
	loadChunk  = 4 << 20
)

// Index is the append-only file that says which grains of which blocks are in
// a directory. Append only buffers: Flush writes, Sync makes durable. A crash
// loses what was not synced, which is the record of clean blocks at most.
type Index struct {
	ops  Ops
	path string
	dir  string

	mu   sync.Mutex
	f    *os.File // GUARDED_BY(mu)
	size int64    // bytes in the file; GUARDED_BY(mu)
	buf  []byte   // not yet written; GUARDED_BY(mu)
	tee  []byte   // appended since a compaction began; GUARDED_BY(mu)
	teed bool     // GUARDED_BY(mu)
	live int64    // length after the last compaction; GUARDED_BY(mu)
	err  error    // sticky; GUARDED_BY(mu)
}

// Loaded says what Open found.
type Loaded struct {
	Records int
	// Damaged counts places where bytes had to be skipped to find the next
	// valid record; a torn tail is not one.
	Damaged int
	// Torn is the number of bytes cut off the end.
	Torn int64
}

// Open opens or creates the index of folder dir and calls fn for each record
// in order; fn must not keep r.Sums. A tail that holds no valid record is cut
// off. Corrupt or Unsupported when the header is not ours: the caller takes
// the directory out rather than lose what it holds.
func Open(ops Ops, dir string, fn func(r *Record)) (*Index, Loaded, error) {
	x := &Index{ops: ops, dir: dir, path: dir + "/" + IndexName}
	var l Loaded
	_ = ops.Remove(x.path + ".new")
	f, err := ops.OpenFile(x.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, l, Fail("blockfile.Open", x.path, err)
	}
	x.f = f
	if err := x.load(fn, &l); err != nil {
		f.Close()
		return nil, l, err
	}
	x.live = x.size
	return x, l, nil
}

// load reads the whole file in chunks, keeping what is left of a record.
func (x *Index) load(fn func(*Record), l *Loaded) error {
	const op = "blockfile.Open"
	st, err := x.f.Stat()
	if err != nil {
		return Fail(op, x.path, err)
	}
	if st.Size() < headerLen {
		return x.restart()
	}
	hdr := make([]byte, headerLen)
	if _, err := x.ops.ReadAt(x.f, hdr, 0); err != nil {
		return Fail(op, x.path, err)
	}
	if err := checkHeader(x.path, hdr); err != nil {
		return err
	}
	s := scanner{fn: fn, l: l, good: headerLen, at: headerLen}
	buf := make([]byte, min(loadChunk, st.Size())+recordLen+4*maxCount)
	keep := 0
	for off := int64(headerLen); ; {
		n, err := x.ops.ReadAt(x.f, buf[keep:], off)
		if err != nil && err != io.EOF {
			return Fail(op, x.path, err)
		}
		off += int64(n)
		end := keep + n
		used := s.scan(buf[:end], err == io.EOF)
		keep = copy(buf, buf[used:end])
		if err == io.EOF {
			break
		}
	}
	x.size = s.good
	if l.Torn = st.Size() - s.good; l.Torn > 0 {
		if err := x.ops.Truncate(x.f, s.good); err != nil {
			return Fail(op, x.path, err)
		}
	}
	return nil
}

// restart writes the header of an empty index.
func (x *Index) restart() error {
	const op = "blockfile.Open"
	if err := x.ops.Truncate(x.f, 0); err != nil {
		return Fail(op, x.path, err)
	}
	if _, err := x.ops.WriteAt(x.f, appendHeader(nil), 0); err != nil {
		return Fail(op, x.path, err)
	}
	x.size = headerLen
	if err := x.ops.Datasync(x.f); err != nil {
		return Fail(op, x.path, err)
	}
	return Fail(op, x.dir, x.ops.SyncDir(x.dir))
}

// scanner finds records in a stream of bytes and resynchronises behind damage.
type scanner struct {
	fn   func(*Record)
	l    *Loaded
	rec  Record
	at   int64 // file offset of the next byte to look at
	good int64 // end of the last valid record
}

// scan consumes records from b and returns how many bytes it is done with. It
// leaves a tail that could still become a record, unless this is the end.
func (s *scanner) scan(b []byte, last bool) int {
	p := 0
	for p < len(b) {
		if !last && len(b)-p < recordLen+4*maxCount {
			break
		}
		n := s.rec.Decode(b[p:])
		if n == 0 {
			p += 4
			s.at += 4
			continue
		}
		if s.at != s.good {
			s.l.Damaged++
		}
		s.fn(&s.rec)
		s.l.Records++
		p += n
		s.at += int64(n)
		s.good = s.at
	}
	return min(p, len(b))
}

// Append buffers the record (several when it has more sums than fit one).
func (x *Index) Append(r Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	at := len(x.buf)
	x.buf = appendState(x.buf, r)
	if x.teed {
		x.tee = append(x.tee, x.buf[at:]...)
	}
}

// Buffered returns the number of bytes not yet written.
func (x *Index) Buffered() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.buf)
}

// Flush writes what is buffered. When the disk is full it keeps the buffer and
// returns NoSpace; any other failure is for ever.
func (x *Index) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flushLocked()
}

func (x *Index) flushLocked() error {
	if x.err != nil || len(x.buf) == 0 {
		return x.err
	}
	n, err := x.ops.WriteAt(x.f, x.buf, x.size)
	if err != nil {
		// A short write is written over by the next attempt: size stays.
		err = Fail("blockfile.Flush", x.path, err)
		if orca.KindOf(err) != orca.NoSpace || len(x.buf) > maxBuffer {
			x.err = err
		}
		return err
	}
	x.size += int64(n)
	x.buf = x.buf[:0]
	if cap(x.buf) > 4<<20 {
		x.buf = nil
	}
	return nil
}

// Sync flushes and makes the index durable.
func (x *Index) Sync() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.flushLocked(); err != nil {
		return err
	}
	if err := x.ops.Datasync(x.f); err != nil {
		// After a failed fsync nothing about the page cache is known.
		x.err = Fail("blockfile.Sync", x.path, err)
	}
	return x.err
}

// Wasteful reports whether a compaction would free at least half of the file.
// live is the caller's estimate of the length that is still needed.
func (x *Index) Wasteful(live int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.size > compactMin && x.size > 2*live && x.err == nil
}

// StateLen returns the bytes that one state record with n sums takes.
func StateLen(n int) int64 { return recordLen + 4*int64(n) }

// Compact rewrites the index from the records that each emits, plus whatever
// is appended while it runs, into a new file that replaces the old one
// durably. each must emit, for every block, a state that was true at some
// moment after Compact was called. Only one Compact may run at a time.
func (x *Index) Compact(each func(emit func(Record))) error {
	const op = "blockfile.Compact"
	x.mu.Lock()
	x.teed, x.tee = true, nil
	x.mu.Unlock()
	tmp := x.path + ".new"
	f, size, err := x.rewrite(tmp, each)
	x.mu.Lock()
	defer x.mu.Unlock()
	tail := x.tee
	x.teed, x.tee = false, nil
	if err == nil {
		var n int
		n, err = x.ops.WriteAt(f, tail, size)
		size += int64(n)
	}
	if err == nil {
		err = x.ops.Datasync(f)
	}
	if err == nil {
		err = x.ops.Rename(tmp, x.path)
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		_ = x.ops.Remove(tmp)
		return Fail(op, x.path, err)
	}
	x.f.Close()
	x.f, x.size, x.live = f, size, size
	x.buf = x.buf[:0] // the tail holds all of it
	if err := x.ops.SyncDir(x.dir); err != nil {
		x.err = Fail(op, x.dir, err)
	}
	return x.err
}

// rewrite writes header and emitted records to a new file.
func (x *Index) rewrite(tmp string, each func(emit func(Record))) (*os.File, int64, error) {
	f, err := x.ops.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, 0, err
	}
	buf := appendHeader(nil)
	size := int64(0)
	put := func() {
		if err == nil {
			var n int
			n, err = x.ops.WriteAt(f, buf, size)
			size += int64(n)
		}
		buf = buf[:0]
	}
	each(func(r Record) {
		if buf = appendState(buf, r); len(buf) >= 1<<20 {
			put()
		}
	})
	put()
	return f, size, err
}

// Close flushes and closes; it does not sync.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	err := x.flushLocked()
	if cerr := x.f.Close(); err == nil && cerr != nil {
		err = Fail("blockfile.Close", x.path, cerr)
	}
	if x.err == nil {
		x.err = orca.PathE("blockfile.Append", x.path, orca.Unavailable, os.ErrClosed)
	}
	return err
}
