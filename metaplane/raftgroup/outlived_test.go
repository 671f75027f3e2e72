// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
)

// outcomes keeps what commands came to.
type outcomes chan error

func (c outcomes) Done(_ *command.Result, err error) { c <- err }

// TestWhatADeposedLeaderHoldsIsAnsweredAtOnce: signed commands that wait, and
// those in entries that a new reign makes void, do not wait until the entries
// are given up; others stay.
func TestWhatADeposedLeaderHoldsIsAnsweredAtOnce(t *testing.T) {
	c := newTrio(t, nil)
	h := c.leader()
	proposeUntil(t, h.group, "/a")
	_, term := h.group.Leader()
	id := h.f.replica()
	c.cutOff(id, true)
	// As many entries as may be on their way, and more behind them.
	const n = (inFlight + 2) * maxOps
	answers := make(outcomes, n)
	for range n {
		cmd := create("/lost")
		cmd.Reign = term
		require.NoError(t, h.group.Start(cmd, time.Time{}, answers))
	}
	began := time.Now()
	for range n {
		select {
		case err := <-answers:
			require.True(t, orca.KindOf(err).Retryable(), "%v", err)
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
	}
	// An election without heartbeats, and the grace of what is on its way.
	require.Less(t, time.Since(began), 5*time.Second)
	require.ErrorIs(t, func() error {
		cmd := create("/late")
		cmd.Reign = term
		require.NoError(t, h.group.Start(cmd, time.Time{}, answers))
		return <-answers
	}(), orca.NotLeader)
	c.cutOff(id, false)
}

func TestOutlivedFlights(t *testing.T) {
	g := &Group{}
	g.table.by = map[uint64]*flight{}
	answers := make(outcomes, 3)
	for i, reign := range []uint64{0, 4, 5} {
		p := newPending()
		p.waiter, p.reign = answers, reign
		g.table.add(&flight{id: uint64(i), reign: reign, ops: []*pending{p}, void: make(chan struct{})})
	}
	void := g.table.by[1].void
	g.reigned(5)
	require.ErrorIs(t, <-answers, orca.NotLeader)
	<-void
	require.Empty(t, answers)
	require.Nil(t, g.table.take(1))
	require.NotNil(t, g.table.take(0), "not signed: it may be applied yet")
	require.NotNil(t, g.table.take(2), "of this reign")

	q := &opQueue{wake: make(chan struct{}, 1)}
	for _, reign := range []uint64{1, 0, 2} {
		p := newPending()
		p.reign = reign
		require.NoError(t, q.put(p, 10))
	}
	require.Len(t, q.signed(), 2)
	var e command.Entry
	e.Reset(true)
	require.Len(t, q.take(&e), 1)
}
