// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package dir

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spareFor is how long the memory of a block that has left is kept.
	spareFor = 10 * time.Second
	// spareFiles bounds the descriptors that keep it.
	spareFiles = 256
)

// spares keeps the memory of blocks that have left a huge tmpfs until new
// blocks need as much, by holding their unlinked files open. What is let go
// just before a block is filled is where the kernel finds the pages for it. In
// a virtual machine that reports its free memory (free page reporting of the
// balloon), pages that lie free for two seconds, or for less when they are
// many, are gone: touching them again is a fault of the host each, measured at
// ten times the price of clearing. So a file that nobody else has open is let
// go piece by piece, no faster than its memory is needed, by cutting its end
// off; one that somebody reads still is closed as a whole.
//
// Nobody reads these files through Orca any more, and their pages come back
// through the kernel, cleared: readers that still hold one keep what they see.
// The sum of what is in use and spare never exceeds the quota.
type spares struct {
	bytes atomic.Int64 // of files; changed with mu held

	mu     sync.Mutex
	files  []spare     // oldest first; GUARDED_BY(mu)
	due    int64       // asked for and not yet let go; GUARDED_BY(mu)
	timer  *time.Timer // runs while there are files; GUARDED_BY(mu)
	closed bool        // GUARDED_BY(mu)
}

type spare struct {
	file  *os.File
	bytes int64
	since time.Time
	alone bool // nobody else has it open, nor ever will: it has no name
}

// pin opens the file of a block that is about to be unlinked; nil when it has
// no memory worth keeping.
func pin(path string) *spare {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil { // read only by its mode: it cannot be cut, but kept
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil
	}
	n, err := memory(fd)
	if err != nil || n < HugeStep/2 {
		_ = unix.Close(fd)
		return nil
	}
	return &spare{file: os.NewFile(uintptr(fd), path), bytes: n, since: time.Now()}
}

// memory returns how many bytes of a file exist.
func memory(fd int) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Blocks * 512, err
}

// private finds out whether this descriptor is the last way to an unlinked
// file. The kernel grants a write lease to no file that is open or mapped
// elsewhere, in this process or another.
func (f *spare) private() bool {
	if !f.alone {
		fd := f.file.Fd()
		if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			return false
		}
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		f.alone = err == nil
	}
	return f.alone
}

// cut lets go of the last n bytes of a private file or more, in whole steps,
// and returns how much memory that was; 0 when it could not.
func (f *spare) cut(n int64) int64 {
	fd := int(f.file.Fd())
	was := f.bytes
	for n > was-f.bytes {
		end, err := unix.Seek(fd, 0, unix.SEEK_END)
		if err != nil || end == 0 || unix.Ftruncate(fd, max(0, end-1)/HugeStep*HugeStep) != nil {
			break
		}
		if f.bytes, err = memory(fd); err != nil {
			f.bytes = was
			return 0
		}
	}
	return was - f.bytes
}

// keep takes a file that has been unlinked.
func (s *spares) keep(f *spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = f.file.Close()
		return
	}
	if len(s.files) >= spareFiles {
		s.dropLocked()
	}
	s.files = append(s.files, *f)
	s.bytes.Add(f.bytes)
	if s.timer == nil {
		s.timer = time.AfterFunc(spareFor, s.expire)
	}
}

// dropLocked lets the oldest file go.
func (s *spares) dropLocked() {
	f := s.files[0]
	s.files = append(s.files[:0], s.files[1:]...)
	s.bytes.Add(-f.bytes)
	s.due -= f.bytes
	_ = f.file.Close()
}

// freeLocked lets go of n bytes, the oldest first, and of no more than it can
// help.
func (s *spares) freeLocked(n int64) {
	for n > 0 && len(s.files) > 0 {
		f := &s.files[0]
		if f.bytes <= n || !f.private() {
			n -= f.bytes
			s.dropLocked()
			continue
		}
		got := f.cut(n)
		s.bytes.Add(-got)
		s.due -= got
		if n -= got; n > 0 { // it cannot be cut after all
			n -= f.bytes
			s.dropLocked()
		}
	}
}

// feed lets go of as much as is about to be needed.
func (s *spares) feed(n int64) {
	if s.bytes.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due += n
	s.freeLocked(s.due)
	if len(s.files) == 0 {
		s.due = 0
	}
}

// fit lets go of what exceeds room.
func (s *spares) fit(room int64) {
	if n := s.bytes.Load(); n == 0 || n <= room {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freeLocked(s.bytes.Load() - max(room, 0))
}

// expire lets go of what nobody needed for spareFor.
func (s *spares) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	for len(s.files) > 0 && time.Since(s.files[0].since) >= spareFor {
		s.dropLocked()
	}
	if len(s.files) > 0 {
		s.timer = time.AfterFunc(spareFor-time.Since(s.files[0].since), s.expire)
	} else {
		s.due = 0
	}
}

// close lets go of everything for good.
func (s *spares) close() {
	s.fit(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// Spare returns the bytes that are kept for the next blocks.
func (d *Dir) Spare() int64 { return d.spare.bytes.Load() }
