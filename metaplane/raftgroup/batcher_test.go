// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
)

// told is a Waiter that counts what it is told.
type told struct {
	times atomic.Int64
	once  chan error
	ino   uint64
}

func newTold() *told { return &told{once: make(chan error, 16)} }

func (w *told) Done(res *command.Result, err error) {
	if w.times.Add(1) == 1 && res != nil && res.Attr != nil {
		w.ino = res.Attr.Ino
	}
	w.once <- err
}

func (w *told) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.once:
		return err
	case <-time.After(30 * time.Second):
		require.Fail(t, "a waiter was lost")
		return nil
	}
}

func TestStartTellsTheOutcome(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir()})
	g := h.Group()
	w := newTold()
	require.NoError(t, g.Start(mkdir("/a"), time.Time{}, w))
	require.NoError(t, w.wait(t))
	require.NotZero(t, w.ino)
	require.True(t, exists(t, g, "/a"), "told when it is applied")
	w = newTold()
	require.NoError(t, g.Start(mkdir("/no/parent"), time.Now().Add(time.Minute), w))
	require.ErrorIs(t, w.wait(t), orca.NotFound)
	w = newTold()
	require.NoError(t, g.Start(mkdir("/late"), time.Now().Add(-time.Second), w))
	require.ErrorIs(t, w.wait(t), orca.Timeout)
	require.False(t, exists(t, g, "/late"), "never proposed")
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	require.ErrorIs(t, (&pending{ctx: gone}).late(time.Now()), orca.Canceled)
	require.ErrorIs(t, (&pending{ctx: late}).late(time.Now()), orca.Timeout)
	require.NoError(t, h.Close())
	require.ErrorIs(t, g.Start(mkdir("/closed"), time.Time{}, newTold()), orca.Unavailable)
}

// TestEveryWaiterIsToldOnce closes the group under load, again and again: each
// command that was taken is told one outcome, and what was told to be applied
// is there in the next life.
func TestEveryWaiterIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	applied := map[string]bool{}
	for life := range 5 {
		h := open(t, Config{Dir: dir, Queue: 64})
		g := h.Group()
		require.NoError(t, g.ReadReady(t.Context()))
		for name := range applied {
			require.True(t, exists(t, g, name), name)
		}
		before := g.Machine().Counts().Files + 100
		type one struct {
			name string
			w    *told
			err  error // of Start
		}
		sent := make(chan one, 1<<16)
		go func() {
			defer close(sent)
			for i := 0; i < cap(sent); i++ {
				o := one{name: fmt.Sprintf("/l%d-%d", life, i), w: newTold()}
				o.err = g.Start(create(o.name), time.Time{}, o.w)
				sent <- o
				if orca.KindOf(o.err) == orca.Unavailable {
					return
				}
			}
		}()
		require.Eventually(t, func() bool { return g.Machine().Counts().Files > before }, 30*time.Second, time.Millisecond)
		require.NoError(t, h.Close())
		kinds := map[orca.Kind]int{}
		for o := range sent {
			if o.err != nil {
				require.Zero(t, o.w.times.Load(), "refused, and told")
				kinds[orca.KindOf(o.err)]++
				continue
			}
			err := o.w.wait(t)
			require.EqualValues(t, 1, o.w.times.Load())
			applied[o.name] = applied[o.name] || err == nil
			if err != nil {
				delete(applied, o.name)
				require.Contains(t, []orca.Kind{orca.Timeout, orca.Unavailable}, orca.KindOf(err))
			}
		}
		t.Logf("life %d: refused %v, applied so far %d", life, kinds, len(applied))
	}
	require.NotEmpty(t, applied)
}

// TestDroppedAndTimedOutProposals: what dragonboat gives up is told, once, and
// an entry that is applied after it was given up finds nobody.
func TestDroppedAndTimedOutProposals(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir()})
	defer func() { require.NoError(t, h.Close()) }()
	g := h.Group()
	var e command.Entry
	e.Tag(g.proposer, g.table.next())
	cmd, err := command.Append(nil, mkdir("/given-up"))
	require.NoError(t, err)
	e.Add(cmd)
	require.Nil(t, g.claim(e.Bytes()), "not in the table")
	rs, err := g.host.nh.Propose(g.host.nh.GetNoOPSession(firstGroup), e.Bytes(), 20*time.Second)
	require.NoError(t, err)
	r := <-rs.ResultC()
	require.True(t, r.Completed())
	require.True(t, exists(t, g, "/given-up"), "applied without a waiter")

	// A stranger's entry with the number of one of our flights is not ours.
	w := newTold()
	f := &flight{id: g.table.next(), ops: []*pending{{waiter: w}}}
	g.table.add(f)
	var stranger command.Entry
	stranger.Tag(g.proposer+1, f.id)
	require.Nil(t, g.claim(stranger.Bytes()))
	require.Equal(t, f, g.table.take(f.id))
	require.Nil(t, g.table.take(f.id), "taken twice")

	// With the engine stopped a proposal is refused for good.
	w = newTold()
	stopped := open(t, Config{Dir: t.TempDir()})
	stopped.nh.Close()
	require.NoError(t, stopped.Group().Start(mkdir("/x"), time.Time{}, w))
	require.ErrorIs(t, w.wait(t), orca.Unavailable)
	_, err = stopped.Group().Propose(context.Background(), mkdir("/y"))
	require.ErrorIs(t, err, orca.Unavailable)
	stopped.group.stop()
	require.NoError(t, stopped.group.closeStore(false))
	require.NoError(t, stopped.lock.Close())
}
