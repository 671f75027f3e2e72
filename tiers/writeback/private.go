// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
	"orca/tiers/cryptfile"
)

// private is a private file: as its writer wrote it, or encrypted, in a
// directory that is.
type private struct {
	f   *os.File
	ops blockfile.Ops
	enc *cryptfile.Private // nil: in the clear
}

// private makes a private file in a room.
func (s *Service) private(ctx context.Context, r tiers.Room) (p *private, path string, err error) {
	path = filepath.Join(r.Dir(), fmt.Sprintf("w-%016x", newID()))
	p = &private{ops: s.cfg.Ops}
	err = r.WithSpace(ctx, orca.GrainSize, func() (err error) {
		p.f, err = s.cfg.Ops.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return blockfile.Fail("writeback.create", path, err)
	})
	if err != nil {
		return nil, "", err
	}
	if k := r.Key(); k != nil {
		p.enc = k.NewPrivate(s.cfg.Ops, p.f)
	}
	return p, path, nil
}

// ReadAt implements io.ReaderAt.
func (p *private) ReadAt(b []byte, off int64) (int, error) {
	if p.enc != nil {
		return p.enc.ReadAt(b, off)
	}
	return p.ops.ReadAt(p.f, b, off)
}

// WriteAt implements io.WriterAt.
func (p *private) WriteAt(b []byte, off int64) (int, error) {
	if p.enc != nil {
		return p.enc.WriteAt(b, off)
	}
	return p.ops.WriteAt(p.f, b, off)
}

func (p *private) truncate(n int64) error {
	if p.enc != nil {
		return p.enc.Truncate(n)
	}
	return p.ops.Truncate(p.f, n)
}

func (p *private) sync() error {
	if p.enc != nil {
		return p.enc.Datasync()
	}
	return p.ops.Datasync(p.f)
}

// finish makes an encrypted file that of a block; the store takes no other.
func (p *private) finish(ctx context.Context, r tiers.Room, id orca.BlockID) error {
	if p.enc == nil {
		return nil
	}
	return r.WithSpace(ctx, orca.GrainSize, func() error { return p.enc.Finish(id) })
}

func (p *private) close() error { return p.f.Close() }

// stored returns how many bytes a file occupies, and its length.
func (p *private) stored() (alloc, length int64) {
	switch {
	case p == nil:
		return 0, 0
	case p.enc != nil:
		return p.enc.Stored()
	}
	return stored(p.f)
}

func stored(f *os.File) (alloc, length int64) {
	var st unix.Stat_t
	if f == nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return 0, 0
	}
	return st.Blocks * 512, st.Size
}

// sums computes the sums of all of a file, and its CRC32C.
func (p *private) sums(length int64) (sums []uint32, whole uint32, err error) {
	if p.enc == nil {
		return blockfile.SumFile(p.ops, p.f, length)
	}
	sums = make([]uint32, 0, blockfile.Grains(length))
	buf := make([]byte, min(uploadBuf, max(length, 1)))
	for off := int64(0); off < length; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), length-off)]
		if _, err := p.ReadAt(b, off); err != nil {
			return nil, 0, err
		}
		sums = blockfile.AppendSums(sums, b)
		whole = crc32.Update(whole, blockfile.Castagnoli, b)
	}
	return sums, whole, nil
}

// copyRange copies [off, off+n) of src (n < 0: all) to dst, from its beginning
// on, which is empty, or has what an earlier attempt wrote: inside the kernel
// where it can. It returns how many bytes there were.
func copyRange(dst, src *private, off, n int64) (int64, error) {
	const op = "writeback.copy"
	_, length := src.stored()
	if n < 0 || n > length-off {
		n = max(0, length-off)
	}
	if dst.enc != nil || src.enc != nil {
		return copyBytes(dst, src, off, n)
	}
	if copyHuge(dst.f, src.f, off, n) {
		return n, nil
	}
	if _, err := dst.f.Seek(0, io.SeekStart); err != nil {
		return 0, blockfile.Fail(op, dst.f.Name(), err)
	}
	// A descriptor of its own: src may be in use at another offset.
	r, err := os.Open("/proc/self/fd/" + itoa(src.f.Fd()))
	if err != nil {
		return 0, blockfile.Fail(op, src.f.Name(), err)
	}
	defer r.Close()
	if _, err := r.Seek(off, io.SeekStart); err != nil {
		return 0, blockfile.Fail(op, src.f.Name(), err)
	}
	got, err := dst.f.ReadFrom(&io.LimitedReader{R: r, N: n})
	if err != nil && !errors.Is(err, io.EOF) {
		return got, blockfile.Fail(op, dst.f.Name(), err)
	}
	return got, nil
}

// copyBytes is copyRange of what has to be decrypted or encrypted on the way.
func copyBytes(dst, src *private, off, n int64) (int64, error) {
	buf := pushBuffers.Get().(*[pushPiece]byte)
	defer pushBuffers.Put(buf)
	for done := int64(0); done < n; {
		b := buf[:min(pushPiece, n-done)]
		k, err := src.ReadAt(b, off+done)
		if err != nil && err != io.EOF {
			return done, blockfile.Fail("writeback.copy", src.f.Name(), err)
		}
		if k == 0 {
			return done, nil
		}
		if _, err := dst.WriteAt(b[:k], done); err != nil {
			return done, blockfile.Fail("writeback.copy", dst.f.Name(), err)
		}
		done += int64(k)
	}
	return n, nil
}
