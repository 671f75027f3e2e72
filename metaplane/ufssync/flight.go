// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufssync

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
)

// flight is one listing that several callers wait for.
type flight struct {
	done chan struct{}
	res  *metapb.SyncResult
	err  error
}

// flightPair is the listing that runs, and the one that begins after it: who
// must see what happened before his call joins the second.
type flightPair struct {
	running, next *flight
}

// share runs or joins a listing of dir. fresh callers do not join one that
// runs already. The listing goes on when the caller leaves: others wait for
// it, and it is wanted soon.
func (s *Syncer) share(ctx context.Context, dir orca.Ino, fresh bool) (*metapb.SyncResult, error) {
	const op = "ufssync.Dir"
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, orca.E(op, orca.Unavailable, "shutting down")
	}
	p := s.flights[dir]
	var f *flight
	switch {
	case p == nil:
		f = &flight{done: make(chan struct{})}
		s.flights[dir] = &flightPair{running: f}
		s.wg.Add(1)
		go s.fly(dir, f)
	case !fresh:
		f = p.running
	default:
		if p.next == nil {
			p.next = &flight{done: make(chan struct{})}
		}
		f = p.next
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.res, f.err
	case <-ctx.Done():
		return nil, &orca.Error{Op: op, Kind: orca.EndKind(ctx.Err()), Msg: "while a directory was listed from its UFS", Err: ctx.Err()}
	}
}

// fly runs a listing, and then the one that waits for its end, if any.
func (s *Syncer) fly(dir orca.Ino, f *flight) {
	defer s.wg.Done()
	for f != nil {
		for range findTries {
			if f.res, f.err = s.list(s.ctx, dir); f.err != errMoved { //nolint:errorlint // this very error, not its kind
				break
			}
		}
		s.mu.Lock()
		p := s.flights[dir]
		close(f.done)
		f, p.running, p.next = p.next, p.next, nil
		if f == nil {
			delete(s.flights, dir)
		}
		s.mu.Unlock()
	}
}

// loadBehind lists a directory in the background, unless too many are being
// listed.
func (s *Syncer) loadBehind(dir orca.Ino) {
	select {
	case s.slots <- struct{}{}:
	default:
		return
	}
	s.mu.Lock()
	if s.closed || s.flights[dir] != nil {
		s.mu.Unlock()
		<-s.slots
		return
	}
	f := &flight{done: make(chan struct{})}
	s.flights[dir] = &flightPair{running: f}
	s.wg.Add(2)
	s.mu.Unlock()
	go s.fly(dir, f)
	go func() {
		defer s.wg.Done()
		<-f.done
		<-s.slots
		if f.err != nil {
			s.log.Debug("background load", "ino", dir, "err", f.err)
		}
	}()
}
