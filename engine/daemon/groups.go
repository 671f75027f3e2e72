// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/fsm"
	"orca/metaplane/members"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
)

// groupRole is this member's part in a group beside the first: mounts live there.
type groupRole struct {
	group   *raftgroup.Group
	service *metaserver.Service
	jobs    *jobsRole
}

// groupSet are the groups beside the first that run in this process.
type groupSet struct {
	wake   chan struct{} // has a token when there may be new ones
	list   atomic.Pointer[[]uint32]
	client atomic.Pointer[metaclient.Client] // to who leads them, in a cluster
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu sync.Mutex
	by map[uint16]*groupRole // GUARDED_BY(mu)
}

func (s *groupSet) init() {
	s.wake, s.by = make(chan struct{}, 1), map[uint16]*groupRole{}
	s.list.Store(&[]uint32{1})
	s.cancel = func() {}
}

// numbers are those of the groups that there are, the first among them.
func (s *groupSet) numbers() []uint32 { return *s.list.Load() }

// changed has new groups looked for.
func (s *groupSet) changed() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *groupSet) get(n uint16) *groupRole {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[n]
}

func (s *groupSet) all() []*groupRole {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*groupRole, 0, len(s.by))
	for _, n := range slices.Sorted(maps.Keys(s.by)) {
		out = append(out, s.by[n])
	}
	return out
}

func (s *groupSet) add(n uint16, g *groupRole) {
	s.mu.Lock()
	s.by[n] = g
	list := []uint32{1}
	for _, n := range slices.Sorted(maps.Keys(s.by)) {
		list = append(list, uint32(n))
	}
	s.mu.Unlock()
	s.list.Store(&list)
}

// dial makes the way to the groups that another member leads.
func (s *groupSet) dial(alone bool, socket string, log *slog.Logger) error {
	if alone {
		return nil
	}
	c, err := metaclient.New(metaclient.Config{Addrs: []string{"unix:" + socket}}, log)
	if err == nil {
		s.client.Store(c)
	}
	return err
}

// close ends what follows the groups, and then their services; the host closes
// the groups themselves.
func (s *groupSet) close(step func(what string, err error)) {
	s.cancel()
	s.wg.Wait()
	for _, g := range s.all() {
		g.jobs.close()
		step("service of a group", g.service.Close())
	}
	if c := s.client.Load(); c != nil {
		step("connections to other groups", c.Close())
	}
}

// serveGroup finds the service of a group for requests from outside.
func (m *metaRole) serveGroup(n uint16) metaplane.Namespace {
	if g := m.groups.get(n); g != nil {
		return g.service
	}
	return nil
}

// groupHere is the service of a group in this process, nil while there is none.
func (m *metaRole) groupHere(n uint16) *metaserver.Service {
	if g := m.groups.get(n); g != nil {
		return g.service
	}
	return nil
}

// openGroup is the way to a group within this process.
func (m *metaRole) openGroup(n uint16) (*metaclient.Session, error) {
	if g := m.groups.get(n); g != nil {
		return metaclient.NewSession(g.service, metaclient.SessionConfig{Group: n}), nil
	}
	return nil, noGroup(n)
}

func noGroup(n uint16) error {
	return &orca.Error{Op: "daemon.group", Path: orca.NewIno(n, 0).String(), Kind: orca.Unavailable, Msg: "the group does not run here yet"}
}

// otherGroup is the way to who leads a group. Services ask for it as soon as they
// run.
func (m *metaRole) otherGroup(n uint16) (metaplane.Namespace, error) {
	select {
	case <-m.made:
	default:
		return nil, noGroup(n)
	}
	if m.alone() {
		return m.session.In(n)
	}
	c := m.groups.client.Load()
	if c == nil {
		return nil, noGroup(n)
	}
	return c.In(n)
}

// startGroups starts the groups that are on record, here or in the first group,
// and do not run yet.
func (m *metaRole) startGroups(ctx context.Context) error {
	want := map[uint16]map[uint64]string{}
	for n, list := range m.service.GroupFacts() {
		first, err := raftgroup.ParseMembers(list)
		if err != nil {
			return err
		}
		want[n] = first
	}
	for n, first := range m.host.Known() {
		if want[n] == nil && len(first) > 0 {
			want[n] = first // the first group is behind
		}
	}
	for _, n := range slices.Sorted(maps.Keys(want)) {
		if m.groups.get(n) != nil {
			continue
		}
		g, err := m.startGroup(ctx, n, want[n])
		if err != nil {
			return err
		}
		m.groups.add(n, g)
		m.log.Info("a group runs here", "group", n)
	}
	return nil
}

func (m *metaRole) startGroup(ctx context.Context, n uint16, first map[uint64]string) (*groupRole, error) {
	g := &groupRole{}
	var err error
	if g.jobs, err = newJobsRole(m.cfg, n, m.log); err != nil {
		return nil, err
	}
	g.group, err = m.host.StartGroup(raftgroup.GroupConfig{Number: n, Members: first, Machine: fsm.Config{Group: n}, Hosted: g.jobs.hosted()})
	if err != nil {
		return nil, err
	}
	sc := m.serviceConfig()
	sc.Group, sc.Home = n, m.service
	g.jobs.attach(&sc)
	g.service, err = metaserver.New(ctx, sc, g.group, m.stores.open, m.log.With("group", n))
	if err != nil {
		return nil, err
	}
	g.jobs.start(g.service)
	return g, nil
}

const (
	// groupsEvery is how often the records are looked at for new groups that no
	// effect told of (a snapshot has none), and members and leaders compared.
	groupsEvery = time.Second
	// balanceAfter is how long the leaders must have been unevenly spread.
	balanceAfter = 3 * time.Second
)

// followGroups starts groups as they come up, and in a cluster keeps their
// members those of the first group and their leaders spread, until close.
func (m *metaRole) followGroups(fatal func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	m.groups.cancel = cancel
	m.groups.wg.Go(func() {
		tick := time.NewTicker(groupsEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-m.groups.wake:
			case <-tick.C:
			}
			if err := m.startGroups(ctx); err != nil && ctx.Err() == nil {
				if orca.KindOf(err).Retryable() {
					m.log.Warn("a group does not start yet", "err", err)
					continue
				}
				fatal(err)
				return
			}
		}
	})
	if m.alone() {
		return
	}
	m.groups.wg.Go(func() {
		tick := time.NewTicker(groupsEvery)
		defer tick.Stop()
		var uneven time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, g := range m.groups.all() {
				if err := m.align(ctx, g); err != nil && ctx.Err() == nil {
					m.log.Warn("the members of a group are not those of the first yet", "group", g.group.Number(), "err", err)
				}
			}
			uneven = m.balance(ctx, uneven)
		}
	})
}

// align makes the members of a group those of the first one: its leader lets
// new ones in, and ends memberships that are over; one that learns asks for its
// vote. The first group is asked who its members are, for one that lags behind
// must end no membership.
func (m *metaRole) align(ctx context.Context, g *groupRole) error {
	if g.group.Learns() {
		return m.voteIn(ctx, g)
	}
	if leads, _ := g.group.Leader(); !leads || maps.Equal(g.group.Voters(), m.host.Group().Voters()) {
		return nil
	}
	home, err := m.host.Group().Members(ctx)
	if err != nil {
		return err
	}
	have, err := g.group.Members(ctx)
	if err != nil {
		return err
	}
	for i := range home.List {
		if x := &home.List[i]; x.Voter && have.Find(x.Replica) == nil {
			if err := g.group.AddLearner(ctx, x.Replica, x.Address); err != nil {
				return err
			}
		}
	}
	return m.end(ctx, g, home, have)
}

// end ends memberships that are over in the first group.
func (m *metaRole) end(ctx context.Context, g *groupRole, home, have *members.Members) error {
	for i := range have.List {
		x := &have.List[i]
		if !slices.Contains(home.Removed, x.Replica) {
			continue
		}
		if x.Replica == g.group.Replica() {
			if err := g.group.Transfer(ctx, 0); err != nil {
				return err
			}
			return nil // who leads now goes on
		}
		if err := g.group.Remove(ctx, x.Replica); err != nil {
			return err
		}
	}
	return nil
}

// voteIn asks for this member's vote in a group, once it has caught up.
func (m *metaRole) voteIn(ctx context.Context, g *groupRole) error {
	ns, err := m.otherGroup(g.group.Number())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if leader, _ := g.group.LeaderReplica(); leader == 0 {
		return nil // nobody has let it in yet
	}
	if err := g.group.ReadReady(ctx); err != nil {
		return err
	}
	_, err = ns.Quorum(ctx, &metapb.QuorumRequest{H: &metapb.Header{}, Change: metapb.QuorumRequest_PROMOTE, Replica: g.group.Replica()})
	return err
}

// balance hands a group over when this member leads two more than another one,
// and has for a while; since is when that began. The first group stays where it
// is: its place is the operators' to choose.
func (m *metaRole) balance(ctx context.Context, since time.Time) time.Time {
	load := map[uint64]int{}
	for id := range m.host.Group().Voters() {
		load[id] = 0
	}
	me := m.host.Group().Replica()
	count := func(g *raftgroup.Group) {
		if leader, _ := g.LeaderReplica(); leader != 0 {
			load[leader]++
		}
	}
	count(m.host.Group())
	var mine *groupRole
	for _, g := range m.groups.all() {
		count(g.group)
		if leads, _ := g.group.Leader(); leads {
			mine = g
		}
	}
	least := me
	for _, id := range slices.Sorted(maps.Keys(load)) {
		if load[id] < load[least] {
			least = id
		}
	}
	if mine == nil || load[me]-load[least] < 2 {
		return time.Time{}
	}
	if since.IsZero() {
		return time.Now()
	}
	if time.Since(since) < balanceAfter {
		return since
	}
	if err := mine.group.Spread(ctx, load); err != nil && ctx.Err() == nil && !errors.Is(err, orca.Unavailable) {
		m.log.Warn("handing a group to another member", "group", mine.group.Number(), "err", err)
	}
	return time.Time{}
}
