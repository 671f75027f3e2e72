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
// blocks need as much, by holding their unlinked files open. The file let go
// just before a block is filled is where the kernel finds the pages for it. In
// a virtual machine that reports its free memory (free page reporting of the
// balloon), pages that lie free for two seconds are gone: touching them again
// is a fault of the host each, measured at ten times the price of clearing.
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
}

// pin opens the file of a block that is about to be unlinked; nil when it has
// no memory worth keeping.
func pin(path string) *spare {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Blocks*512 < HugeStep/2 {
		_ = unix.Close(fd)
		return nil
	}
	return &spare{file: os.NewFile(uintptr(fd), path), bytes: st.Blocks * 512, since: time.Now()}
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

// feed lets go of as much as is about to be needed.
func (s *spares) feed(n int64) {
	if s.bytes.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.due += n; s.due > 0 && len(s.files) > 0; {
		s.dropLocked()
	}
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
	for len(s.files) > 0 && s.bytes.Load() > room {
		s.dropLocked()
	}
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
