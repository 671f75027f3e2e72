// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"sync"

	"golang.org/x/sys/unix"
)

// syncs share the syncs of directories. A sync that began before a change may not have
// it, the next one has: so while one is under way, all who have changed the directory
// meanwhile wait for one more.
type syncs struct {
	do func(fd int) error // syncDir; tests have another

	mu   sync.Mutex
	dirs map[dirID]*dirSync // of which one is under way; GUARDED_BY(mu)
}

type dirID struct{ dev, ino uint64 }

// dirSync is a directory that is being synced.
type dirSync struct {
	next *syncRound // nil: nobody waits; GUARDED_BY(syncs.mu)
}

// waits counts those who wait for the next one.
func (d *dirSync) waits() int {
	if d.next == nil {
		return 0
	}
	return d.next.waiting
}

// syncRound is a sync that has not begun yet. The first who waits for it makes it.
type syncRound struct {
	turn, done chan struct{}
	waiting    int   // GUARDED_BY(syncs.mu)
	err        error // before turn is closed: of the one before; then of this one
}

// dir makes the entries of a directory durable, as they are when it is called.
func (s *syncs) dir(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	id := dirID{st.Dev, st.Ino}
	s.mu.Lock()
	d := s.dirs[id]
	if d == nil {
		if s.dirs == nil {
			s.dirs = map[dirID]*dirSync{}
		}
		s.dirs[id] = &dirSync{}
		s.mu.Unlock()
		err := s.do(fd)
		s.over(id, err)
		return err
	}
	r := d.next
	if r != nil {
		r.waiting++
		s.mu.Unlock()
		<-r.done
		return r.err
	}
	r = &syncRound{turn: make(chan struct{}), done: make(chan struct{}), waiting: 1}
	d.next = r
	s.mu.Unlock()
	<-r.turn
	if r.err == nil {
		r.err = s.do(fd)
	}
	close(r.done)
	s.over(id, r.err)
	return r.err
}

// over lets the next sync of a directory begin. The kernel reports the failure of a
// write to who syncs first, and takes what was written for clean: so who waits has
// failed as well.
func (s *syncs) over(id dirID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dirs[id]
	if d.next == nil {
		delete(s.dirs, id)
		return
	}
	d.next.err = err
	close(d.next.turn)
	d.next = nil
}
