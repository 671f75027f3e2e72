// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cryptfile

import (
	"io"
	"os"
	"sync"

	"orca"
	"orca/tiers/blockfile"
)

// batch is how many whole grains are encrypted for one write(2).
const batch = 16

// Private is the private file of a writer in an encrypted directory: it is read
// and written anywhere, and becomes the file of a block by Finish. What is in
// it reaches the disk encrypted, a grain at a time; its salt and entries are in
// memory alone until then, so that nobody can read what a crash leaves. One
// grain, the one that was written last in part, is held back in memory in the
// clear. It is safe for concurrent use.
//
// Until Finish each grain is stored in full length, zeros behind its end.
type Private struct {
	ops blockfile.Ops
	f   *os.File

	mu      sync.Mutex
	box     *Box
	length  int64  // GUARDED_BY(mu)
	entries []byte // of the grains that the file has; GUARDED_BY(mu)
	has     []bool // whether a grain was written; GUARDED_BY(mu)
	count   int64  // of has; GUARDED_BY(mu)
	cur     int    // the grain in buf; -1: none; GUARDED_BY(mu)
	dirty   bool   // buf is newer than the file; GUARDED_BY(mu)
	tail    int    // the grain that Finish has made short; -1: none; GUARDED_BY(mu)
	short   int64  // the length of it; GUARDED_BY(mu)
	buf     [orca.GrainSize + TagLen]byte
	out     []byte // made with the first batch
}

// NewPrivate makes a private file of f, which is empty and open for reading and
// writing, and its owner's to close.
func (k *Key) NewPrivate(ops blockfile.Ops, f *os.File) *Private {
	return &Private{ops: ops, f: f, box: k.NewBox(), cur: -1, tail: -1}
}

// Stored returns how many bytes the file occupies, and its length.
func (v *Private) Stored() (alloc, length int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.count
	if v.dirty && !v.written(v.cur) {
		n++
	}
	return n * orca.GrainSize, v.length
}

func (v *Private) written(g int) bool { return g < len(v.has) && v.has[g] }

// WriteAt implements io.WriterAt. After an error any part may be written.
func (v *Private) WriteAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for n < len(p) {
		at := off + int64(n)
		g, within := int(at/orca.GrainSize), int(at%orca.GrainSize)
		k := 0
		if whole := (len(p) - n) / orca.GrainSize; within == 0 && whole > 0 {
			k = min(whole, batch) * orca.GrainSize
			if g <= v.cur && v.cur < g+k/orca.GrainSize {
				v.cur, v.dirty = -1, false // written over
			}
			if err := v.store(p[n:n+k], g); err != nil {
				return n, err
			}
		} else {
			if err := v.load(g); err != nil {
				return n, err
			}
			k = copy(v.buf[within:orca.GrainSize], p[n:])
			v.dirty = true
		}
		n += k
		v.length = max(v.length, at+int64(k))
	}
	return n, nil
}

// store encrypts grains from number g on and writes them.
func (v *Private) store(p []byte, g int) error {
	if len(p) > orca.GrainSize && v.out == nil {
		v.out = make([]byte, batch*orca.GrainSize+TagLen)
	}
	out := v.out
	if out == nil {
		out = make([]byte, len(p)+TagLen)
	}
	n := blockfile.Grains(int64(len(p)))
	if grow := g + n - len(v.has); grow > 0 {
		v.has = append(v.has, make([]bool, grow)...)
		v.entries = append(v.entries, make([]byte, grow*EntryLen)...)
	}
	// The old entries hold until the new bytes are there: a write that is
	// repeated for lack of space reads nothing in between.
	entries := make([]byte, n*EntryLen)
	v.box.Seal(out[:len(p)+TagLen], p, g, entries)
	if _, err := v.ops.WriteAt(v.f, out[:len(p)], int64(g)*orca.GrainSize); err != nil {
		return blockfile.Fail("cryptfile.write", v.f.Name(), err)
	}
	copy(v.entries[g*EntryLen:], entries)
	for i := g; i < g+n; i++ {
		if !v.has[i] {
			v.has[i] = true
			v.count++
		}
		if i == v.tail {
			v.tail = -1
		}
	}
	return nil
}

// flush writes the grain that was held back.
func (v *Private) flush() error {
	if !v.dirty {
		return nil
	}
	if err := v.store(v.buf[:orca.GrainSize], v.cur); err != nil {
		return err
	}
	v.dirty = false
	return nil
}

// load brings a grain into buf, and what was there to the file.
func (v *Private) load(g int) error {
	if v.cur == g {
		return nil
	}
	if err := v.flush(); err != nil {
		return err
	}
	v.cur = -1
	p := v.buf[:orca.GrainSize]
	clear(p)
	if v.written(g) {
		if g == v.tail {
			p = p[:v.short]
		}
		n, err := v.ops.ReadAt(v.f, p, int64(g)*orca.GrainSize)
		if n < len(p) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return blockfile.Fail("cryptfile.read", v.f.Name(), err)
		}
		if bad := v.box.Unseal(p, g, v.entries[g*EntryLen:(g+1)*EntryLen]); len(bad) > 0 {
			return &orca.Error{Op: "cryptfile.read", Path: v.f.Name(), Kind: orca.Corrupt, Msg: "an encrypted grain is not what was written"}
		}
	}
	v.cur = g
	return nil
}

// ReadAt implements io.ReaderAt.
func (v *Private) ReadAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for n < len(p) && off+int64(n) < v.length {
		at := off + int64(n)
		if err := v.load(int(at / orca.GrainSize)); err != nil {
			return n, err
		}
		end := min(orca.GrainSize, v.length-at+at%orca.GrainSize)
		n += copy(p[n:], v.buf[at%orca.GrainSize:end])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Truncate sets the length.
func (v *Private) Truncate(n int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n < v.length {
		if within := n % orca.GrainSize; within > 0 {
			if err := v.load(int(n / orca.GrainSize)); err != nil {
				return err
			}
			clear(v.buf[within:orca.GrainSize])
			v.dirty = true
		}
		keep := blockfile.Grains(n)
		for i := keep; i < len(v.has); i++ {
			if v.has[i] {
				v.has[i] = false
				v.count--
			}
		}
		if v.cur >= keep {
			v.cur, v.dirty = -1, false
		}
		if v.tail >= keep {
			v.tail = -1
		}
		if err := v.ops.Truncate(v.f, int64(keep)*orca.GrainSize); err != nil {
			return blockfile.Fail("cryptfile.truncate", v.f.Name(), err)
		}
	}
	v.length = n
	return nil
}

// Datasync makes what was written durable; it cannot be read after a restart
// all the same, as private files cannot.
func (v *Private) Datasync() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.flush(); err != nil {
		return err
	}
	return blockfile.Fail("cryptfile.sync", v.f.Name(), v.ops.Datasync(v.f))
}

// endGrain stores the last grain in its length (0: it is a whole one), and one
// that was the last before as a whole.
func (v *Private) endGrain(last int, length int64) error {
	if v.tail >= 0 && (v.tail != last || v.short != length) {
		if err := v.load(v.tail); err != nil {
			return err
		}
		if err := v.store(v.buf[:orca.GrainSize], v.tail); err != nil {
			return err
		}
		v.dirty = false
	}
	if length == 0 || v.tail == last && !(v.dirty && v.cur == last) {
		return nil
	}
	if err := v.load(last); err != nil {
		return err
	}
	if err := v.store(v.buf[:length], last); err != nil {
		return err
	}
	v.dirty, v.tail, v.short = false, last, length
	return nil
}

// Finish makes the file that of a block, of the length that it has. It may be
// called again, and the file be read on.
func (v *Private) Finish(id orca.BlockID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := blockfile.Grains(v.length)
	zeros := make([]byte, orca.GrainSize)
	for g := range n {
		if v.written(g) || v.dirty && v.cur == g {
			continue
		}
		if err := v.store(zeros, g); err != nil { // nobody wrote there
			return err
		}
	}
	if err := v.endGrain(n-1, v.length%orca.GrainSize); err != nil {
		return err
	}
	if err := v.flush(); err != nil {
		return err
	}
	trailer := append(v.box.Head(id, v.length), v.entries[:n*EntryLen]...)
	err := v.ops.Truncate(v.f, FileLen(v.length))
	if err == nil {
		_, err = v.ops.WriteAt(v.f, trailer, TrailerOff(v.length))
	}
	return blockfile.Fail("cryptfile.finish", v.f.Name(), err)
}
