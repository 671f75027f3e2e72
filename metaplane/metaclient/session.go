// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// SessionConfig bounds retries. The zero value means the defaults.
type SessionConfig struct {
	// Caller is the identity of requests that name none. Default: root.
	Caller *metapb.Caller
	// Group is the group of the metaplane that requests are for. 0: the first.
	Group uint16
	// MutationPatience is how long a mutation is repeated when its context has
	// no earlier deadline. Default 2 min.
	MutationPatience time.Duration
	// BusyPatience is how long Busy is repeated: the metaplane has waited
	// already for what it expects to pass soon. Default 2 s.
	BusyPatience time.Duration
	// ReadPatience is the same for reads. Default 10 s.
	ReadPatience time.Duration
	// MaxOutstanding caps mutations in flight; more wait. Default and most:
	// 512 (the metaplane keeps 1,024 results of a client).
	MaxOutstanding int
	// FirstPause and LongestPause bound the backoff. Defaults 2 ms and 500 ms.
	FirstPause, LongestPause time.Duration
	// Chance returns a number below n: client ids and the spread of pauses are
	// drawn from it. It must be safe for concurrent use. Default:
	// math/rand/v2.
	Chance func(n uint64) uint64
}

func (c *SessionConfig) setDefaults() {
	if c.Caller == nil {
		c.Caller = &metapb.Caller{}
	}
	c.MutationPatience = cmp.Or(c.MutationPatience, 2*time.Minute)
	c.BusyPatience = cmp.Or(c.BusyPatience, 2*time.Second)
	c.ReadPatience = cmp.Or(c.ReadPatience, 10*time.Second)
	c.MaxOutstanding = min(cmp.Or(c.MaxOutstanding, 512), 512)
	c.FirstPause = cmp.Or(c.FirstPause, 2*time.Millisecond)
	c.LongestPause = cmp.Or(c.LongestPause, 500*time.Millisecond)
	if c.Chance == nil {
		c.Chance = rand.Uint64N
	}
}

// Session makes the mutations of a Namespace exactly once: it numbers them,
// and repeats one with the same number while the answer is retryable, until
// the context ends. It works the same over a remote stub and over the service
// in this process. Requests are the caller's, but for their header: only its
// Caller is kept. Safe for concurrent use; one request value must not be used
// by two calls at once.
type Session struct {
	ns    metaplane.Namespace
	cfg   SessionConfig
	slots chan struct{}
	// Retries counts repeated attempts, for telemetry.
	Retries atomic.Int64

	mu     sync.Mutex
	client uint64
	next   uint64
	flying map[uint64]struct{}
	low    uint64        // every seq below is answered
	moved  chan struct{} // closed when low rises, if somebody waits for that
	waited bool          // somebody does
	known  bool          // a mutation of this client has been applied
}

// maxAhead is how far the newest number may be ahead of the oldest that has no
// answer: less than the results that the metaplane remembers of a client.
const maxAhead = 1000

var _ metaplane.Namespace = (*Session)(nil)

// NewSession wraps ns with a fresh random client id.
func NewSession(ns metaplane.Namespace, cfg SessionConfig) *Session {
	cfg.setDefaults()
	s := &Session{ns: ns, cfg: cfg, slots: make(chan struct{}, cfg.MaxOutstanding)}
	s.renewLocked()
	return s
}

func (s *Session) renewLocked() {
	s.client, s.next, s.low = s.cfg.Chance(math.MaxUint64)|1, 1, 1
	s.flying, s.known = map[uint64]struct{}{}, false
	if s.moved != nil {
		close(s.moved)
	}
	s.moved, s.waited = make(chan struct{}), false
}

// ticket is one numbered mutation.
type ticket struct{ client, seq uint64 }

// begin takes the next number, waiting while the oldest one in flight is too
// far behind.
func (s *Session) begin(ctx context.Context) (ticket, error) {
	for {
		s.mu.Lock()
		if s.next-s.low < maxAhead {
			t := ticket{s.client, s.next}
			s.next++
			s.flying[t.seq] = struct{}{}
			s.mu.Unlock()
			return t, nil
		}
		moved := s.moved
		s.waited = true
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ticket{}, ended("metaclient.begin", ctx)
		}
	}
}

// end takes note of an answer. What a server refuses by itself never reaches
// the state machine, which forgets nobody that it has not met: until a success
// proves that it knows this client, nothing is acknowledged.
func (s *Session) end(t ticket, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.client != s.client {
		return
	}
	s.known = s.known || err == nil
	if orca.KindOf(err) == orca.SessionExpired {
		s.renewLocked() // later mutations get a new identity
		return
	}
	delete(s.flying, t.seq)
	before := s.low
	for s.low < s.next {
		if _, ok := s.flying[s.low]; ok {
			break
		}
		s.low++
	}
	if s.low != before && s.waited {
		close(s.moved)
		s.moved, s.waited = make(chan struct{}), false
	}
}

func (s *Session) header(old *metapb.Header, t ticket) *metapb.Header {
	h := &metapb.Header{Client: t.client, Seq: t.seq, Caller: old.GetCaller(), Group: uint32(s.cfg.Group)}
	if h.Caller == nil {
		h.Caller = s.cfg.Caller
	}
	if t.client != 0 {
		s.mu.Lock()
		if t.client == s.client && s.known {
			h.AckedBelow = s.low
		}
		s.mu.Unlock()
	}
	return h
}

// mutate runs one mutation to its end.
func mutate[R any](ctx context.Context, s *Session, h **metapb.Header, call func(context.Context) (R, error)) (R, error) {
	return numbered(ctx, s, s.cfg.MutationPatience, h, call)
}

func numbered[R any](ctx context.Context, s *Session, patience time.Duration, h **metapb.Header, call func(context.Context) (R, error)) (R, error) {
	var zero R
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return zero, ended("metaclient.mutate", ctx)
	}
	defer func() { <-s.slots }()
	caller := *h
	for renewed := false; ; renewed = true {
		t, err := s.begin(ctx)
		if err != nil {
			return zero, err
		}
		attempts := 0
		r, err := repeat(ctx, s, patience, func(ctx context.Context) (R, error) {
			attempts++
			*h = s.header(caller, t)
			return call(ctx)
		})
		s.end(t, err)
		// Refused at its first attempt it was never executed: the metaplane has
		// forgotten this client, and it may come as another one.
		if orca.KindOf(err) != orca.SessionExpired || attempts > 1 || renewed {
			return r, err
		}
	}
}

// read runs one read, repeated while the server cannot be reached.
func read[R any](ctx context.Context, s *Session, h **metapb.Header, call func(context.Context) (R, error)) (R, error) {
	*h = s.header(*h, ticket{})
	r, err := call(ctx)
	if err == nil || !orca.KindOf(err).Retryable() {
		return r, err
	}
	return repeat(ctx, s, s.cfg.ReadPatience, call)
}

// electionPause is the longest pause while no member leads.
const electionPause = 40 * time.Millisecond

func repeat[R any](ctx context.Context, s *Session, patience time.Duration, call func(context.Context) (R, error)) (R, error) {
	began := time.Now()
	pause := s.cfg.FirstPause
	for {
		r, err := call(ctx)
		kind := orca.KindOf(err)
		if err == nil || !kind.Retryable() || ctx.Err() != nil {
			return r, err
		}
		limit := patience
		switch kind {
		case orca.Busy:
			limit = min(limit, s.cfg.BusyPatience)
		case orca.NotLeader: // an election takes less than a second
			pause = min(pause, electionPause)
		}
		if time.Since(began)+pause > limit {
			return r, err
		}
		timer := time.NewTimer(pause/2 + time.Duration(s.cfg.Chance(uint64(pause/2+1))))
		select {
		case <-ctx.Done():
			timer.Stop()
			return r, err
		case <-timer.C:
		}
		s.Retries.Add(1)
		pause = min(2*pause, s.cfg.LongestPause)
	}
}

func ended(op string, ctx context.Context) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return &orca.Error{Op: op, Kind: orca.Timeout, Err: ctx.Err()}
	}
	return &orca.Error{Op: op, Kind: orca.Canceled, Err: ctx.Err()}
}
