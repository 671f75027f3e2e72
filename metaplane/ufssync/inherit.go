// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufssync

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// What a coordinator removed it remembers by key (Syncer.removed), and the next
// one does not. What the next one inherits is a time by mount, a fact of the
// state machine that is written before the first removal and then at most once
// per removalStep: for as long after it as listings may be late, it believes no
// name that a listing alone has, and asks for each.

// removalStep is how exactly the time of the last removal is kept.
const removalStep = time.Minute

func removalFact(mountID uint32) string { return fmt.Sprintf("removal/%d", mountID) }

// removals are the times of the last removals, in unix ns by mount.
type removals struct {
	mu        sync.Mutex
	inherited map[uint32]int64 // of earlier coordinators, as found first; GUARDED_BY(mu)
	noted     map[uint32]int64 // of this one, as noted last; GUARDED_BY(mu)
}

// Lead begins a time of coordinating: another member may have removed what it
// liked since the last one.
func (s *Syncer) Lead() {
	r := &s.removals
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.inherited)
	clear(r.noted)
}

// Inherit is called before what is in a mount whose listings may be late, or in a
// directory of it, comes here from another group: that has removed what it liked
// until now, and what it remembers of that stays there. What that has made lately
// is not known here either: where a listing that is late lacks it, it is missing
// until the next one, which under an interval of -1 somebody has to ask for.
func (s *Syncer) Inherit(ctx context.Context, mountID uint32) error {
	now := s.cfg.Now().UnixNano()
	if err := s.note(ctx, mountID, now); err != nil {
		return err
	}
	r := &s.removals
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inherited[mountID] = max(r.inherited[mountID], now)
	return nil
}

// note has whoever leads next know that something may have been removed.
func (s *Syncer) note(ctx context.Context, mountID uint32, now int64) error {
	_, err := s.group.Propose(ctx, &command.Command{Now: now, SetFact: &metapb.SetFactOp{
		Key: removalFact(mountID), Value: binary.BigEndian.AppendUint64(nil, uint64(now)),
	}})
	return err
}

// Removing is called before Orca removes anything from the store of a mount
// whose listings may be late. It makes sure that whoever leads next knows of it.
func (s *Syncer) Removing(ctx context.Context, mountID uint32) error {
	s.inherits(mountID)
	now := s.cfg.Now().UnixNano()
	r := &s.removals
	r.mu.Lock()
	at := r.noted[mountID]
	r.mu.Unlock()
	if at != 0 && now-at < int64(removalStep) {
		return nil
	}
	if err := s.note(ctx, mountID, now); err != nil {
		return err
	}
	r.mu.Lock()
	r.noted[mountID] = max(r.noted[mountID], now)
	r.mu.Unlock()
	return nil
}

// inherits reports whether an earlier coordinator removed something from the
// store of a mount so lately that a listing may still show it.
func (s *Syncer) inherits(mountID uint32) bool {
	r := &s.removals
	r.mu.Lock()
	at, known := r.inherited[mountID]
	r.mu.Unlock()
	if !known {
		if b := s.group.Machine().Fact(removalFact(mountID)); len(b) == 8 {
			at = int64(binary.BigEndian.Uint64(b))
		}
		r.mu.Lock()
		if first, known := r.inherited[mountID]; known {
			at = first // it may be this coordinator's own that was found
		}
		r.inherited[mountID] = at
		r.mu.Unlock()
	}
	return at != 0 && s.cfg.Now().UnixNano()-at < int64(s.cfg.Settle+removalStep)
}
