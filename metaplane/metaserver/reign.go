// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/command"
)

// leadership is which part this member plays in its cluster. Only the leader
// serves; it begins when its reign is on record, it has applied everything that
// was committed before, holds the grant key and the mount table, and OnLead is
// done. What runs behind (ufsexec, the job master) follows Group, and so does
// not begin earlier.
//
// A member that does not lead keeps up by applying, and by what workers report
// to every member, so that it can serve at once when it is elected. What it
// has not been told meanwhile is asked for anew: workers send full reports to
// a new leader, and until one has, nothing that it held is called lost.
type leadership struct {
	term  atomic.Uint64 // that is served; 0: this member does not serve
	reign atomic.Uint64 // term that commands are proposed under; 0: none are
	addr  atomic.Pointer[string]

	mu      sync.Mutex
	changed chan struct{} // closed when term changes; GUARDED_BY(mu)
	proven  time.Time     // when this member last led for certain; GUARDED_BY(mu)
}

// serve notes that a term is served; 0: none.
func (l *leadership) serve(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term.Swap(term) != term {
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// reigned is the group of a cluster as what works for its leader sees it: it is
// led while this member serves, and what is proposed is applied only if no
// other member has begun to serve since.
type reigned struct {
	Group
	lead *leadership
}

func (r *reigned) sign(c *command.Command) error {
	if c.Reign != 0 {
		return nil
	}
	if c.Reign = r.lead.reign.Load(); c.Reign == 0 {
		return errDeposed
	}
	return nil
}

var errDeposed = orca.E("metaserver", orca.NotLeader, "this member does not lead any more")

// Propose implements Group.
func (r *reigned) Propose(ctx context.Context, c *command.Command) (*command.Result, error) {
	if err := r.sign(c); err != nil {
		return nil, err
	}
	return r.Group.Propose(ctx, c)
}

// Start implements Group.
func (r *reigned) Start(c *command.Command, until time.Time, w command.Waiter) error {
	if err := r.sign(c); err != nil {
		return err
	}
	return r.Group.Start(c, until, w)
}

// ReadReady implements Group. Reads take soft state, too, which only the
// leader's is good for.
func (r *reigned) ReadReady(ctx context.Context) error {
	if leads, _ := r.Group.Leader(); !leads {
		return errDeposed // it would wait until there is a leader
	}
	if err := r.Group.ReadReady(ctx); err != nil {
		return err
	}
	if r.lead.reign.Load() == 0 {
		return errDeposed
	}
	return nil
}

// Leader implements Group.
func (r *reigned) Leader() (leading bool, term uint64) {
	term = r.lead.term.Load()
	return term != 0, term
}

// LeaderChanged implements Group.
func (r *reigned) LeaderChanged() <-chan struct{} {
	r.lead.mu.Lock()
	defer r.lead.mu.Unlock()
	return r.lead.changed
}

// Reigned returns the group as what works for the leader is to see it.
func (s *Service) Reigned() Group { return s.group }

// provenFor is how long a proof that this member leads is good for. It is less
// than the shortest election: who granted the proof follows nobody else for
// longer.
const provenFor = 100 * time.Millisecond

// stillLeads is asked before each change of a store: a member that was stopped
// for a while must not go on with what another one has finished since. One that
// hands over waits until that is over, for its heir may lead before any proof is
// old.
func (s *Service) stillLeads(ctx context.Context) error {
	l := &s.lead
	if _, over := s.raw.Heir(); over != nil {
		select {
		case <-over:
		case <-ctx.Done():
			return orca.PathE("metaserver", "", orca.Canceled, ctx.Err())
		}
	}
	l.mu.Lock()
	at := l.proven
	l.mu.Unlock()
	reign := l.reign.Load()
	if reign == 0 {
		return errDeposed
	}
	began := time.Now()
	if leads, term := s.raw.Leader(); !leads || term != reign {
		return errDeposed
	}
	if began.Sub(at) < provenFor {
		return nil
	}
	if err := s.raw.ReadReady(ctx); err != nil {
		return err
	}
	if leads, term := s.raw.Leader(); !leads || term != reign || s.raw.Machine().Reign() != reign {
		return errDeposed
	}
	l.mu.Lock()
	if l.proven.Before(began) {
		l.proven = began
	}
	l.mu.Unlock()
	return nil
}

// mayPropose reports whether what is proposed now is refused if what it was
// decided on, the state of this moment, is out of date.
func (s *Service) mayPropose() bool {
	return s.raw.ReadProven() || s.lead.reign.Load() != 0
}
