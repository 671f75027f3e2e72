// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"orca"
)

// A member that was removed is not told so by Raft when it was away, or when
// the entry that removed it has not reached it: the others do not speak with it
// any more, and it would ask for votes for ever. So each member keeps the list
// of the removed, ends their connections, and says in its hello that they are
// members no more. Who hears that, or applies its own removal, notes it in
// FORMAT and ends.

// learnRemoved is how long a member waits before it asks again who was removed.
const learnRemoved = time.Second

// removalLoop follows, in the first group, who is removed; the further groups
// have the same members.
func (g *Group) removalLoop() {
	for {
		var again <-chan time.Time
		if !g.noteRemoved() {
			again = time.After(learnRemoved)
		}
		select {
		case <-g.changes:
		case <-again:
		case <-g.quit:
			return
		}
	}
}

// noteRemoved asks who was removed, and ends their connections. false: nobody
// knew.
func (g *Group) noteRemoved() bool {
	ctx, cancel := context.WithTimeout(context.Background(), changeTimeout)
	defer cancel()
	go func() {
		select {
		case <-g.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	m, err := g.Members(ctx)
	if err != nil {
		return false
	}
	g.removed.Store(&m.Removed)
	if t := g.host.net.Load(); t != nil {
		t.evict(m.Removed)
	}
	return true
}

// isRemoved reports whether a replica was a member and is none any more, as far
// as this one knows: nobody is let in again.
func (g *Group) isRemoved(replica uint64) bool {
	p := g.removed.Load()
	return p != nil && slices.Contains(*p, replica)
}

// removed is told that this member is none any more.
func (h *Host) removed(by string) {
	h.gone.Do(func() {
		msg := removedMessage(h.f.Replica)
		h.log.Error("this member was removed from its cluster and ends", "replica", h.f.Replica, "told_by", by)
		if err := h.f.update(h.cfg.Dir, func() { h.f.Removed = true }); err != nil {
			h.log.Warn("the removal could not be noted: the next start will ask for it again", "err", err)
		}
		if h.cfg.OnRemoved != nil {
			h.cfg.OnRemoved(orca.E("raftgroup", orca.Removed, msg))
		}
	})
}

func removedMessage(replica uint64) string {
	return fmt.Sprintf("member %d was removed from its cluster, for ever. To use this host again make it a new member: "+
		"orca admin quorum add HOST:PORT, then orca start --role meta --raft-addr HOST:PORT --join ... with an empty data folder", replica)
}

// removal is why a replica that was removed is not let in; nil when it was not.
func (h *Host) removal(replica uint64) error {
	if h.group == nil || !h.group.isRemoved(replica) {
		return nil
	}
	return orca.E("raftgroup.meet", orca.Removed, "member "+strconv.FormatUint(replica, 10)+" was removed from the cluster")
}

// evict ends the connections that the removed have opened.
func (t *transport) evict(removed []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c, replica := range t.conns {
		if replica != 0 && slices.Contains(removed, replica) {
			_ = c.Close()
		}
	}
}
