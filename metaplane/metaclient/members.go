// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

const (
	// maxHops is how many members one attempt follows from one to the next.
	maxHops = 4
	// suspectAfter is how long a call may go unanswered before the other
	// members are asked whether they have another leader, and askEvery how
	// often they are.
	suspectAfter = 400 * time.Millisecond
	askEvery     = 250 * time.Millisecond
	// trustFor is how long a member that says that it leads is believed: a
	// watch, or a call that a slow store holds up, costs one question in so
	// long, however many members there are.
	trustFor = time.Second
	// reconnectAfter caps the pause before a member that could not be reached
	// is tried again.
	reconnectAfter = 200 * time.Millisecond
	// lostFor is for how long a member that could not be reached is not gone to
	// when another one says that it leads: that one has not noticed yet.
	lostFor = reconnectAfter
	// maxKnown caps the members that are known: addresses are only ever added.
	maxKnown = 64
)

// peer is one member of the metaplane.
type peer struct {
	addr    string
	replica atomic.Uint64 // 0: not known yet
	rests   atomic.Int64  // until when reads pass it over, since the stub was made
	lost    atomic.Int64  // until when nobody is sent to it, since the stub was made
	c       *transport.Client
}

// stub makes one attempt per call.
type stub struct {
	only *peer // calls go to it alone; it is another stub's
	// group is what is asked who leads; whole has the connections of a stub for
	// another group than the first.
	group uint32
	whole *stub
	cfg   transport.ClientConfig
	log   *slog.Logger
	at    atomic.Pointer[peer]
	term  atomic.Uint64 // the highest heard of
	// several says that there is more than one member.
	several atomic.Bool
	spread  *spread   // nil: reads go to the leader
	born    time.Time // peers rest until a time since then
	learn   sync.Once
	ctx     context.Context //nolint:containedctx // ends with close
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	peers  []*peer // GUARDED_BY(mu)
	closed bool    // GUARDED_BY(mu)
}

var _ metaplane.Namespace = (*stub)(nil)

func newStub(cfg transport.ClientConfig, log *slog.Logger) *stub {
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, reconnectAfter)
	s := &stub{cfg: cfg, log: log, born: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// add returns the member with an address, making it if it is new. replica 0
// is not known.
func (s *stub) add(addr string, replica uint64) (*peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.addr == addr || replica != 0 && p.replica.Load() == replica {
			return p, nil
		}
	}
	if s.whole != nil && !s.closed {
		p, err := s.whole.add(addr, replica)
		if err == nil {
			s.peers = append(s.peers, p)
			s.at.CompareAndSwap(nil, p)
			s.several.Store(len(s.peers) > 1)
		}
		return p, err
	}
	if s.closed || len(s.peers) >= maxKnown {
		return nil, orca.E("metaclient", orca.Unavailable, "the client is closed, or knows too many members")
	}
	t := s.cfg
	t.Network, t.Addr = "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		t.Network, t.Addr = "unix", path
	}
	c, err := transport.NewClient(t, s.log)
	if err != nil {
		return nil, err
	}
	p := &peer{addr: addr, c: c}
	p.replica.Store(replica)
	s.peers = append(s.peers, p)
	s.at.CompareAndSwap(nil, p)
	s.several.Store(len(s.peers) > 1)
	return p, nil
}

func (s *stub) current() *peer {
	if s.only != nil {
		return s.only
	}
	return s.at.Load()
}

func (s *stub) all() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.peers)
}

func (s *stub) addrs() []string {
	var out []string
	for _, p := range s.all() {
		if !strings.HasPrefix(p.addr, "unix:") || p.replica.Load() == 0 {
			out = append(out, p.addr)
		}
	}
	return out
}

// next moves on from a member that does not serve.
func (s *stub) next(from *peer) {
	all := s.all()
	if i := slices.Index(all, from); i >= 0 && len(all) > 1 {
		s.at.CompareAndSwap(from, all[(i+1)%len(all)])
	}
}

// pointTo makes calls go to the member with an address.
func (s *stub) pointTo(addr string) *peer {
	p, err := s.add(addr, 0)
	if err != nil {
		return nil
	}
	s.at.Store(p)
	return p
}

func (s *stub) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	peers := s.peers
	s.mu.Unlock()
	s.cancel()
	var errs []error
	for _, p := range peers {
		if s.whole == nil {
			errs = append(errs, p.c.Close())
		}
	}
	s.wg.Wait()
	return errors.Join(errs...)
}

// invoke sends one request and decodes its reply into p. A member that does
// not serve is left for the one that does.
func invoke[P metawire.Message](ctx context.Context, s *stub, op metawire.Op, q metawire.Message, p P) (P, error) {
	var zero P
	b, err := metawire.Marshal(q)
	if err != nil {
		return zero, err
	}
	r, err := s.call(ctx, op, b)
	if err != nil {
		return zero, err
	}
	defer r.Release()
	if err := p.UnmarshalVT(r.Meta); err != nil {
		return zero, &orca.Error{Op: "metaclient.invoke", Kind: orca.Corrupt, Msg: "undecodable reply", Err: err}
	}
	return p, nil
}

func (s *stub) call(ctx context.Context, op frame.Op, b []byte) (transport.Response, error) {
	if s.only != nil {
		return s.only.c.Call(ctx, op, b, nil)
	}
	var r transport.Response
	var err error
	for range maxHops {
		p := s.current()
		r, err = s.ask(ctx, p, op, b)
		switch orca.KindOf(err) {
		case orca.OK:
			s.learn.Do(func() { s.learnFrom(p) })
			return r, nil
		case orca.NotLeader:
			switch s.follow(p, err) {
			case followed:
				continue
			case lost:
				return r, err
			}
			s.next(p)
		case orca.Unavailable:
			p.lost.Store(int64(time.Since(s.born) + lostFor))
			s.next(p)
			if s.several.Load() {
				continue
			}
		}
		return r, err
	}
	return r, err
}

// step is what has come of the word of a member that another one leads.
type step uint8

// It may not know which. Calls go to the one that it names from now on, or stay
// if that could not be reached just now.
const (
	unknown step = iota
	followed
	lost
)

// follow goes to the member that p says leads.
func (s *stub) follow(p *peer, err error) step {
	var e *orca.Error
	if !errors.As(err, &e) || e.Path == "" || e.Path == p.addr {
		return unknown
	}
	to, err := s.add(e.Path, 0)
	switch {
	case err != nil:
		return unknown
	case to.lost.Load() > int64(time.Since(s.born)):
		return lost
	}
	s.at.Store(to)
	return followed
}

// ask makes one call of one member, and leaves it when it says nothing and
// the others have a new leader: a process that is stopped, or a link that is
// cut, breaks no connection. Whether the request was executed is unknown then.
func (s *stub) ask(ctx context.Context, p *peer, op frame.Op, b []byte) (transport.Response, error) {
	if !s.several.Load() {
		return p.c.Call(ctx, op, b, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	left := make(chan struct{})
	watch := time.AfterFunc(suspectAfter, func() {
		if s.deposed(ctx, p) {
			close(left)
			cancel()
		}
	})
	defer watch.Stop()
	r, err := p.c.Call(ctx, op, b, nil)
	if err != nil {
		select {
		case <-left:
			return r, &orca.Error{Op: "metaclient.ask", Path: s.current().addr, Kind: orca.NotLeader,
				Msg: p.addr + " does not answer, and the others have another leader"}
		default:
		}
	}
	return r, err
}

// deposed asks the other members until one has another leader than p (true) or
// ctx ends.
func (s *stub) deposed(ctx context.Context, p *peer) bool {
	for ctx.Err() == nil {
		if s.othersFollow(ctx, p) {
			return true
		}
		pause := askEvery
		for s.leads(ctx, p) {
			if pause = trustFor; !rest(ctx, pause) {
				return false
			}
		}
		if pause == askEvery {
			rest(ctx, pause)
		}
	}
	return false
}

// rest waits; false: ctx has ended.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// leads asks a member whether it leads, as far as it knows itself: one that is
// cut off from the others finds out within an election.
func (s *stub) leads(ctx context.Context, p *peer) bool {
	rep, err := s.who(ctx, p)
	return err == nil && rep.Leader != 0 && rep.Leader == rep.Replica && rep.Term >= s.term.Load()
}

// othersFollow asks the other members once; true: one has another leader than p,
// to which calls go from now on.
func (s *stub) othersFollow(ctx context.Context, p *peer) bool {
	for _, o := range s.all() {
		if o == p {
			continue
		}
		rep, err := s.who(ctx, o)
		if err != nil || rep.Leader == 0 || rep.LeaderAddr == "" || rep.Term < s.term.Load() {
			continue
		}
		s.term.Store(max(s.term.Load(), rep.Term))
		if rep.Leader == p.replica.Load() || rep.LeaderAddr == p.addr || o.replica.Load() == p.replica.Load() && o.replica.Load() != 0 {
			continue
		}
		if p.replica.Load() == 0 && rep.Replica == rep.Leader && strings.HasPrefix(p.addr, "unix:") {
			continue // perhaps the same member by another name
		}
		s.pointTo(rep.LeaderAddr)
		return true
	}
	return false
}

// who asks one member who leads.
func (s *stub) who(ctx context.Context, p *peer) (*metapb.QuorumReply, error) {
	ctx, cancel := context.WithTimeout(ctx, askEvery)
	defer cancel()
	b, err := metawire.Marshal(&metapb.QuorumRequest{H: &metapb.Header{Group: s.group}, Change: metapb.QuorumRequest_WHO})
	if err != nil {
		return nil, err
	}
	r, err := p.c.Call(ctx, metawire.OpQuorum, b, nil)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	rep := &metapb.QuorumReply{}
	if err := rep.UnmarshalVT(r.Meta); err != nil {
		return nil, orca.PathE("metaclient.who", p.addr, orca.Corrupt, err)
	}
	p.replica.Store(rep.Replica)
	return rep, nil
}

// learnFrom asks, once and behind the first call, for the other members.
func (s *stub) learnFrom(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Go(func() {
		rep, err := s.who(s.ctx, p)
		if err != nil || len(rep.Members) < 2 {
			return
		}
		for _, m := range rep.Members {
			if m.Addr != "" {
				if _, err := s.add(m.Addr, m.Replica); err != nil {
					return
				}
			}
		}
	})
}
