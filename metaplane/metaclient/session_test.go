// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// flaky answers the first attempts of each mutation with an error.
type flaky struct {
	metaplane.Namespace
	mu     sync.Mutex
	fails  int
	expire int // which call is told that the session has expired
	kind   orca.Kind
	seen   []*metapb.Header
	tries  map[uint64]int
}

func (f *flaky) Mkdir(_ context.Context, r *metapb.MkdirRequest) (*metapb.MkdirReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r.H)
	if len(f.seen) == f.expire {
		return nil, orca.E("flaky", orca.SessionExpired, "")
	}
	if f.tries == nil {
		f.tries = map[uint64]int{}
	}
	f.tries[r.H.Seq]++
	if f.tries[r.H.Seq] <= f.fails {
		return nil, orca.E("flaky", f.kind, "")
	}
	return &metapb.MkdirReply{}, nil
}

func (f *flaky) Stat(_ context.Context, r *metapb.StatRequest) (*metapb.StatReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r.H)
	if len(f.seen) <= f.fails {
		return nil, orca.E("flaky", f.kind, "")
	}
	return &metapb.StatReply{}, nil
}

func TestMutationIsRepeatedWithTheSameNumber(t *testing.T) {
	for _, kind := range []orca.Kind{orca.Busy, orca.Unavailable, orca.Timeout} {
		ns := &flaky{fails: 3, kind: kind}
		s := NewSession(ns, SessionConfig{})
		_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{H: &metapb.Header{Client: 99, Seq: 99, Caller: &metapb.Caller{Uid: 7}}})
		require.NoError(t, err)
		require.Len(t, ns.seen, 4)
		for _, h := range ns.seen {
			require.Equal(t, ns.seen[0].Client, h.Client)
			require.NotEqualValues(t, 99, h.Client, "the caller's numbers are not used")
			require.EqualValues(t, 1, h.Seq)
			require.EqualValues(t, 7, h.Caller.Uid)
		}
		require.EqualValues(t, 3, s.Retries.Load())
	}
}

func TestFinalErrorsAreNotRepeated(t *testing.T) {
	ns := &flaky{fails: 1, kind: orca.Exists}
	s := NewSession(ns, SessionConfig{})
	_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.ErrorIs(t, err, orca.Exists)
	require.Len(t, ns.seen, 1)
}

func TestRetryEndsWithItsContextOrPatience(t *testing.T) {
	ns := &flaky{fails: 1 << 30, kind: orca.Unavailable}
	s := NewSession(ns, SessionConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Mkdir(ctx, &metapb.MkdirRequest{})
	require.ErrorIs(t, err, orca.Unavailable)

	ns.kind = orca.Busy
	s = NewSession(ns, SessionConfig{BusyPatience: 20 * time.Millisecond})
	begun := time.Now()
	_, err = s.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.ErrorIs(t, err, orca.Busy)
	require.Less(t, time.Since(begun), time.Minute)
}

func TestAckedBelowFollowsTheOldestInFlight(t *testing.T) {
	s := NewSession(&flaky{}, SessionConfig{})
	begin := func() ticket {
		k, err := s.begin(t.Context())
		require.NoError(t, err)
		return k
	}
	a, b, c := begin(), begin(), begin()
	s.end(b, nil)
	require.EqualValues(t, 1, s.header(nil, c).AckedBelow, "a is in flight")
	s.end(a, nil)
	require.EqualValues(t, 3, s.header(nil, c).AckedBelow)
	s.end(c, nil)
	require.EqualValues(t, 4, s.header(nil, begin()).AckedBelow)
}

func TestExpiredSessionGetsANewIdentity(t *testing.T) {
	ns := &flaky{expire: 1}
	s := NewSession(ns, SessionConfig{})
	_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.NoError(t, err, "refused at its first attempt, it was never executed")
	require.Len(t, ns.seen, 2)
	require.NotEqual(t, ns.seen[0].Client, ns.seen[1].Client)

	ns = &flaky{fails: 1, kind: orca.Timeout, expire: 2}
	s = NewSession(ns, SessionConfig{})
	_, err = s.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.ErrorIs(t, err, orca.SessionExpired, "its first attempt may have been executed")
	require.Len(t, ns.seen, 2)
}

func TestNumbersDoNotRunAheadOfTheOldestInFlight(t *testing.T) {
	s := NewSession(&flaky{}, SessionConfig{})
	slow, err := s.begin(t.Context())
	require.NoError(t, err)
	for range maxAhead - 1 {
		k, err := s.begin(t.Context())
		require.NoError(t, err)
		s.end(k, nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = s.begin(ctx)
	require.ErrorIs(t, err, orca.Timeout)
	got := make(chan error)
	go func() { _, err := s.begin(t.Context()); got <- err }()
	s.end(slow, nil)
	require.NoError(t, <-got)
}

func TestReadsCarryNoNumberAndARepeatedWhileAway(t *testing.T) {
	ns := &flaky{fails: 2, kind: orca.Unavailable}
	s := NewSession(ns, SessionConfig{Caller: &metapb.Caller{Uid: 5}})
	_, err := s.Stat(t.Context(), &metapb.StatRequest{})
	require.NoError(t, err)
	require.Len(t, ns.seen, 3)
	require.Zero(t, ns.seen[0].Client)
	require.EqualValues(t, 5, ns.seen[0].Caller.Uid)
}

// TestRefusedByServerFirst: what the server refuses by itself does not make the
// client known to the state machine, so nothing may count as acknowledged.
func TestRefusedByServerFirst(t *testing.T) {
	s := NewSession(&flaky{fails: 1, kind: orca.Invalid}, SessionConfig{})
	_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{})
	require.ErrorIs(t, err, orca.Invalid)
	ns := &flaky{}
	s.ns = ns
	for _, acked := range []uint64{0, 3} {
		_, err := s.Mkdir(t.Context(), &metapb.MkdirRequest{})
		require.NoError(t, err)
		require.Equal(t, acked, ns.seen[len(ns.seen)-1].AckedBelow)
	}
}

// opener opens write sessions; the answer to the first takes some time.
type opener struct {
	metaplane.Namespace
	late   time.Duration // of the first answer
	ends   uint64        // sessions up to this one are over when asked for
	opened []uint64      // numbers of the requests
}

func (o *opener) Create(_ context.Context, r *metapb.CreateRequest) (*metapb.CreateReply, error) {
	if o.opened = append(o.opened, r.H.Seq); len(o.opened) == 1 {
		time.Sleep(o.late)
	}
	return &metapb.CreateReply{Session: &metapb.WriteSession{Id: uint64(len(o.opened)), TtlMs: 15_000}}, nil
}

func (o *opener) Renew(_ context.Context, r *metapb.RenewRequest) (*metapb.RenewReply, error) {
	rep := &metapb.RenewReply{}
	for _, id := range r.Sessions {
		if id <= o.ends {
			rep.Expired = append(rep.Expired, id)
		}
	}
	return rep, nil
}

// TestWriteSessionThatWasOverWhenItsClientHeardOfIt: nobody is given a session
// that may have expired, found by sim seed 3819 of the plans with links.
func TestWriteSessionThatWasOverWhenItsClientHeardOfIt(t *testing.T) {
	for name, tc := range map[string]struct {
		opener
		session uint64
		opened  []uint64
	}{
		"in time":                {opener{late: 14 * time.Second, ends: 1}, 1, []uint64{1}},
		"late, and it lives yet": {opener{late: 15 * time.Second}, 1, []uint64{1}},
		"late, and it is over":   {opener{late: 15 * time.Second, ends: 1}, 2, []uint64{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewSession(&tc.opener, SessionConfig{})
				rep, err := s.Create(t.Context(), &metapb.CreateRequest{})
				require.NoError(t, err)
				require.Equal(t, tc.session, rep.Session.Id)
				require.Equal(t, tc.opened, tc.opener.opened)
			})
		})
	}
}
