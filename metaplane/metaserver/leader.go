// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/members"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// gatekeeper is optional on the Namespace of a Server: it refuses what this
// member does not serve.
type gatekeeper interface {
	// Serves reports whether there is anything to refuse, ever.
	Serves() bool
	Admit(op metawire.Op, q metawire.Request) error
	// Settle waits a little until it is known who serves.
	Settle(ctx context.Context)
	// Refer adds to an error that says that another member serves, which one, if
	// that is known.
	Refer(err error) error
}

// Serves implements gatekeeper.
func (s *Service) Serves() bool { return !s.raw.Alone() }

// Admit implements gatekeeper: every member takes reports of workers, says
// what it knows of the others and is looked after, and looks at reads whose
// callers leave the choice; all else is for the leader.
func (s *Service) Admit(op metawire.Op, q metawire.Request) error {
	switch op {
	case metawire.OpHeartbeat, metawire.OpConf, metawire.OpUpkeep:
		return nil
	case metawire.OpRegister:
		if r, ok := q.(*metapb.RegisterRequest); ok && r.GetWorker().GetId() != 0 {
			return nil
		}
	case metawire.OpQuorum:
		if r, ok := q.(*metapb.QuorumRequest); ok && r.Change == metapb.QuorumRequest_WHO {
			return nil
		}
	case metawire.OpStat, metawire.OpList, metawire.OpGetXattr, metawire.OpListXattr, metawire.OpUsage:
		if s.follows(q.GetH()) {
			return nil
		}
	}
	return s.Serving()
}

// Serving returns nil while this member serves, else NotLeader with the
// address of the one that does, if it is known.
func (s *Service) Serving() error {
	if s.raw.Alone() || s.lead.term.Load() != 0 {
		return nil
	}
	e := &orca.Error{Op: "metaserver", Kind: orca.NotLeader, Msg: "another member of the metaplane leads"}
	switch replica, _ := s.raw.LeaderReplica(); replica {
	case 0:
		e.Msg = "no member of the metaplane leads now"
		e.Path = s.nextAddr()
	case s.raw.Replica():
		e.Msg = "this member is about to lead"
	default:
		e.Path = s.memberAddr(replica)
	}
	return e
}

// follow follows the leadership until Close.
func (s *Service) follow() {
	defer s.wg.Done()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		changed := s.raw.LeaderChanged()
		leads, term := s.raw.Leader()
		if now := s.lead.reign.Load(); now != 0 && (!leads || now != term) {
			s.lead.reign.Store(0)
			s.lead.serve(0)
			s.Workers.DropOrders()
			s.log.Info("this member does not lead any more", "term", now)
		}
		retry := false
		if leads && s.lead.term.Load() == 0 {
			if err := s.takeOver(term, changed); err != nil && s.ctx.Err() == nil {
				s.log.Warn("taking over", "term", term, "err", err)
				retry = true
			}
		}
		retry = s.tellAddress() || retry
		var tick <-chan time.Time
		if retry {
			tick = again.C
		}
		select {
		case <-s.ctx.Done():
			return
		case <-changed:
		case <-tick:
		}
	}
}

// untilDeposed calls cancel when this member serves no more, unless ctx ends
// first.
func (s *Service) untilDeposed(ctx context.Context, cancel func()) {
	changed := s.group.LeaderChanged()
	if s.Serving() == nil {
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	cancel()
}

// takeOver begins to serve a term; it ends early when the leadership changes.
func (s *Service) takeOver(term uint64, changed <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(s.ctx, 30*time.Second)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	// When this is applied, so is all of before, and nothing of earlier leaders
	// comes after it.
	if _, err := s.raw.Propose(ctx, &command.Command{Now: now(), Reign: term, Noop: &metapb.NoopOp{}}); err != nil {
		return err
	}
	s.lead.reign.Store(term)
	if err := s.raw.ReadReady(ctx); err != nil {
		return err
	}
	if err := s.grantKey(ctx); err != nil {
		return err
	}
	s.refreshMounts()
	s.wakeJoints()
	s.Syncer.Lead()
	s.Workers.Doubt()
	if s.cfg.OnLead != nil {
		if err := s.cfg.OnLead(ctx); err != nil {
			return err
		}
	}
	if leads, now := s.raw.Leader(); !leads || now != term {
		return nil // the next turn of follow sees to it
	}
	s.lead.serve(term)
	s.Exec.Wake()
	s.log.Info("this member leads", "term", term, "after", time.Since(began))
	return nil
}

// memberFact is where a member keeps the address that clients reach it at, and
// after a space its node.
const memberFact = "member."

func (s *Service) member(replica uint64) (addr, node string) {
	if s.cfg.Home != nil {
		return s.cfg.Home.member(replica)
	}
	addr, node, _ = strings.Cut(string(s.raw.Machine().Fact(memberFact+strconv.FormatUint(replica, 10))), " ")
	return addr, node
}

func (s *Service) memberAddr(replica uint64) string {
	addr, _ := s.member(replica)
	return addr
}

// Announce tells the other members, durably, where clients reach this one, and
// the name of its node.
func (s *Service) Announce(addr, node string) {
	addr += " " + node
	s.lead.addr.Store(&addr)
	if s.raw.Alone() {
		return
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for s.tellAddress() {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
}

// tellAddress records this member's address if it is another one than before;
// again: it could not yet.
func (s *Service) tellAddress() (again bool) {
	p := s.lead.addr.Load()
	key := memberFact + strconv.FormatUint(s.raw.Replica(), 10)
	if p == nil || string(s.raw.Machine().Fact(key)) == *p {
		return false
	}
	if leader, _ := s.raw.LeaderReplica(); leader == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	_, err := s.raw.Propose(ctx, &command.Command{Now: now(), SetFact: &metapb.SetFactOp{
		Key: key, Value: []byte(*p)}})
	return err != nil && s.ctx.Err() == nil
}

// maxMembers bounds the numbers whose addresses are looked up.
const maxMembers = 64

// addresses returns the addresses of all members that are known, without a
// round.
func (s *Service) addresses() []string {
	var out []string
	for _, id := range s.raw.Known() {
		if a := s.memberAddr(id); a != "" && len(out) < maxMembers {
			out = append(out, a)
		}
	}
	return out
}

// Quorum implements metaplane.Admin.
func (s *Service) Quorum(ctx context.Context, r *metapb.QuorumRequest) (*metapb.QuorumReply, error) {
	const op = "metaserver.Quorum"
	if r.Change > metapb.QuorumRequest_JOIN && r.Change != metapb.QuorumRequest_ADD_GROUP {
		return nil, orca.E(op, orca.Unsupported, "unknown change")
	}
	if r.Change > metapb.QuorumRequest_WHO && r.Change != metapb.QuorumRequest_JOIN && callerOf(r.H).UID != 0 {
		return nil, orca.E(op, orca.Permission, "only root may change the members")
	}
	rep := &metapb.QuorumReply{Cluster: s.cfg.Cluster, Replica: s.raw.Replica()}
	rep.Leader, rep.Term = s.raw.LeaderReplica()
	if rep.Leader != 0 {
		rep.LeaderAddr = s.memberAddr(rep.Leader)
	}
	if r.Change == metapb.QuorumRequest_WHO {
		for _, id := range s.raw.Known() {
			rep.Members = append(rep.Members, &metapb.Member{Replica: id, Addr: s.memberAddr(id)})
		}
		return rep, nil
	}
	m, err := s.raw.Members(ctx)
	if err != nil {
		return nil, err
	}
	if r.Change == metapb.QuorumRequest_ADD_GROUP {
		err = s.addGroup(ctx, r, m, rep)
	} else {
		err = s.changeQuorum(ctx, r, m, rep)
	}
	if err != nil {
		return nil, err
	}
	rep.Groups = s.groups()
	if m, err = s.raw.Members(ctx); err != nil {
		return nil, err
	}
	rep.Removed = m.Removed
	for i := range m.List {
		x := &m.List[i]
		addr, node := s.member(x.Replica)
		rep.Members = append(rep.Members, &metapb.Member{Replica: x.Replica, RaftAddr: x.Address,
			Addr: addr, Node: node, Voter: x.Voter, Leader: x.Leader})
	}
	return rep, nil
}

// changeQuorum makes the change of a request.
func (s *Service) changeQuorum(ctx context.Context, r *metapb.QuorumRequest, m *members.Members, rep *metapb.QuorumReply) error {
	const op = "metaserver.Quorum"
	if s.cfg.Home != nil && (r.Change == metapb.QuorumRequest_ADD || r.Change == metapb.QuorumRequest_REMOVE || r.Change == metapb.QuorumRequest_JOIN) {
		return orca.E(op, orca.Invalid, "the members of all groups are those of the first: ask that one")
	}
	if r.Change != metapb.QuorumRequest_NONE && s.raw.Alone() {
		return orca.E(op, orca.Unsupported, "this Orca has one member and stays so: start a cluster in new folders")
	}
	switch r.Change {
	case metapb.QuorumRequest_ADD:
		rep.Replica = r.Replica
		if x := m.At(r.RaftAddr); x != nil && r.Replica == 0 {
			rep.Replica = x.Replica // the same again
			return nil
		}
		if rep.Replica == 0 {
			rep.Replica = m.Next()
		}
		return s.raw.AddLearner(ctx, rep.Replica, r.RaftAddr)
	case metapb.QuorumRequest_PROMOTE:
		rep.Replica = r.Replica
		return s.promote(ctx, r.Replica)
	case metapb.QuorumRequest_REMOVE:
		rep.Replica = r.Replica
		if r.Replica == s.raw.Replica() && m.Voters() > 1 {
			if err := s.raw.Spare(ctx, r.Replica); err != nil {
				return err
			}
			// Else nobody would serve until the others have noticed.
			if err := s.raw.Transfer(ctx, 0); err != nil {
				return err
			}
		}
		return s.raw.Remove(ctx, r.Replica)
	case metapb.QuorumRequest_TRANSFER:
		return s.transfer(ctx, r.Replica, rep)
	case metapb.QuorumRequest_JOIN:
		x := m.At(r.RaftAddr)
		if x == nil {
			return &orca.Error{Op: op, Path: r.RaftAddr, Kind: orca.NotFound, Msg: "no member has this Raft address: orca admin quorum add " + r.RaftAddr + " first"}
		}
		rep.Replica = x.Replica
	}
	return nil
}

// promote gives a learner its vote once it has announced itself, which it does
// when it has caught up: a voter that is not there would only count against
// the others.
func (s *Service) promote(ctx context.Context, replica uint64) error {
	if s.memberAddr(replica) == "" {
		return orca.E("metaserver.Quorum", orca.Busy, "the new member has not started and caught up yet")
	}
	return s.raw.Promote(ctx, replica)
}

func (s *Service) transfer(ctx context.Context, replica uint64, rep *metapb.QuorumReply) error {
	if err := s.raw.Transfer(ctx, replica); err != nil {
		return err
	}
	rep.Leader, rep.Term = s.raw.LeaderReplica()
	rep.LeaderAddr, rep.Replica = s.memberAddr(rep.Leader), rep.Leader
	return nil
}

// AwaitMember waits until this member takes part: it leads and serves, or
// another one leads and it has caught up once.
func (s *Service) AwaitMember(ctx context.Context) error {
	for {
		changed := s.raw.LeaderChanged()
		leader, _ := s.raw.LeaderReplica()
		switch {
		case leader == s.raw.Replica():
			if s.Serving() == nil {
				return nil
			}
		case leader != 0:
			if err := s.raw.ReadReady(ctx); err == nil && s.GrantKey() != nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(orca.E("metaserver.AwaitMember", orca.Timeout, "no leader, or not caught up with it"), ctx.Err())
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		}
	}
}
