// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/lni/vfs"
	"golang.org/x/sys/unix"
)

// A log of the journal is written ahead: the file is filled with zeros before its
// records come. A record then goes to blocks that the file has already, and its
// fsync waits for nothing but the record: no new length, and nothing in the file
// system's own journal. What the file is longer than its records is seen by
// nobody: who reads a log that is being written finds its end there, a log that
// is closed is cut there, and what a crash leaves is cut before the engine looks.
//
//	│ records … │ zeros │
//	0          size    ready

const (
	// logSuffix is that of the journal's logs.
	logSuffix = ".log"
	// aheadBytes is how much is filled at a time, which one fsync pays for.
	aheadBytes = 1 << 20
)

// aheadLog is a log that is being written, at its end and by one goroutine.
type aheadLog struct {
	*os.File
	zeros []byte
	ready int64 // the length of the file
	size  atomic.Int64
	gone  func() // called by Close
}

func newAheadLog(f *os.File, gone func()) *aheadLog {
	return &aheadLog{File: f, zeros: make([]byte, 64<<10), gone: gone}
}

// Write writes at the end of the records.
func (l *aheadLog) Write(b []byte) (int, error) {
	end := l.size.Load() + int64(len(b))
	if end > l.ready {
		l.fill(end)
	}
	n, err := l.File.Write(b)
	l.ready = max(l.ready, l.size.Add(int64(n)))
	return n, err
}

// fill makes the file longer than the records will be then. It need not succeed.
func (l *aheadLog) fill(end int64) {
	for l.ready = end; l.ready < end+aheadBytes; {
		n, err := l.File.WriteAt(l.zeros, l.ready)
		l.ready += int64(n)
		if err != nil {
			return
		}
	}
}

// Sync waits for the disk to have the records.
func (l *aheadLog) Sync() error {
	for {
		err := unix.Fdatasync(int(l.File.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// Close cuts the file to its records.
func (l *aheadLog) Close() error {
	l.gone()
	return errors.Join(l.File.Truncate(l.size.Load()), l.File.Close())
}

// logView reads a log that is being written, to the end that it had.
type logView struct {
	vfs.File
	to *io.SectionReader
}

func newLogView(f vfs.File, size int64) *logView {
	return &logView{f, io.NewSectionReader(f, 0, size)}
}

// Read reads on.
func (v *logView) Read(b []byte) (int, error) { return v.to.Read(b) }

// ReadAt reads somewhere.
func (v *logView) ReadAt(b []byte, off int64) (int, error) { return v.to.ReadAt(b, off) }

// Seek says where Read goes on.
func (v *logView) Seek(off int64, whence int) (int64, error) { return v.to.Seek(off, whence) }

// cutLogs cuts the logs that a crash has left in a folder to their records.
func cutLogs(dir string) error {
	var logs []string // in order, those of one folder together
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == dir:
			return fs.SkipAll
		case err != nil:
			return err
		case d.Type().IsRegular() && strings.HasSuffix(path, logSuffix):
			logs = append(logs, path)
		}
		return nil
	})
	for i, path := range logs {
		last := i+1 == len(logs) || filepath.Dir(logs[i+1]) != filepath.Dir(path)
		err = errors.Join(err, cutLog(path, last))
	}
	return err
}

// cutLog cuts off what is behind the records of a log: zeros, or a record that
// was being written when the power failed, some sectors of which are zeros still.
// One that ends otherwise is left to the engine as it is; so is one that is not
// the last, which was complete, when it does not end with zeros.
func cutLog(path string, last bool) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cut the journal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !last {
		var end [logHeader]byte
		_, err := f.Seek(-logHeader, io.SeekEnd)
		if err == nil {
			_, err = io.ReadFull(f, end[:])
		}
		if err != nil || end != [logHeader]byte{} {
			return nil //nolint:nilerr // it is shorter
		}
	}
	end, torn, err := recordsEnd(f)
	if err != nil || !torn {
		return err
	}
	return errors.Join(f.Truncate(end), f.Sync())
}

// A log is made of blocks, and a block of chunks, each with a checksum (4 bytes),
// its length (2) and its kind before it. One that does not fit into its block any
// more is in the next one. A record is one chunk, or a first, some middle ones and
// a last.
const (
	logBlock  = 32 << 10
	logHeader = 7
	logSector = 512

	chunkWhole, chunkFirst, chunkLast = 1, 2, 4
)

// chunk returns the length of the chunk at the beginning of b, with what is before
// it; 0: there is none. good: it is as it was written.
func chunk(b []byte) (n int, good bool) {
	if len(b) < logHeader || b[6] < chunkWhole || b[6] > chunkLast {
		return 0, false
	}
	n = logHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if n > len(b) {
		return 0, false
	}
	return n, binary.LittleEndian.Uint32(b) == uint32(xxhash.Sum64(b[6:n]))
}

// recordsEnd returns where the good chunks at the beginning of a log end. torn: what
// is there was not written, or not to its end, and no good record begins behind it.
func recordsEnd(r io.ReaderAt) (end int64, torn bool, err error) {
	block := make([]byte, logBlock)
	found := false // what is no good chunk
	for at := int64(0); ; at += logBlock {
		n, err := r.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, false, fmt.Errorf("cut the journal: %w", err)
		}
		for i := 0; i+logHeader <= n; {
			size, good := chunk(block[i:n])
			switch {
			case good && found && block[i+6] <= chunkFirst:
				return end, false, nil
			case good && !found:
				end = at + int64(i+size)
			case !good && !found:
				found, torn = true, unwritten(block[i:min(n, i+max(size, logHeader))], i)
			}
			if size == 0 {
				break
			}
			i += size
		}
		if n < logBlock || found && !torn {
			return end, torn, nil
		}
	}
}

// unwritten reports whether a sector, or the part of one, of what is in a block
// from a place on has nothing but zeros.
func unwritten(b []byte, from int) bool {
	for len(b) > 0 {
		n := min(len(b), logSector-from%logSector)
		if len(bytes.Trim(b[:n], "\x00")) == 0 {
			return true
		}
		b, from = b[n:], from+n
	}
	return false
}
