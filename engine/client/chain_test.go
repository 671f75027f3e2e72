// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"hash/crc32"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
)

// station is a worker of a chain: it keeps a piece and passes it on to the next
// one, which it leaves out from then on when that fails.
type station struct {
	dataplane.Access // nil: nothing else is asked of it
	next             *station

	fails   error            // of every call from now on
	before  func()           // run once, when the next call arrives
	got     map[int64]string // pieces by offset
	sums    []uint32         // of the last piece
	length  int64            // of the last truncate
	resumed []uint64         // handles, in order
	grant   dataplane.Grant  // of the last of them
	handle  uint64           // that calls must carry
	cut     bool             // next is left out
}

func (s *station) arrive(handle uint64) error {
	if f := s.before; f != nil {
		s.before = nil
		f()
	}
	if s.fails == nil && handle != s.handle {
		return orca.E("station", orca.Invalid, "another one's handle")
	}
	return s.fails
}

func (s *station) WriteChain(ctx context.Context, id uint64, p []byte, off int64, sums []uint32) (int, error) {
	if err := s.arrive(id); err != nil {
		return 0, err
	}
	if len(p) > 0 {
		s.got[off], s.sums = string(p), sums
	}
	return 1 + s.pass(func(n *station) (int, error) { return n.WriteChain(ctx, n.handle, p, off, sums) }), nil
}

func (s *station) pass(call func(n *station) (int, error)) int {
	if s.next == nil || s.cut {
		return 0
	}
	copies, err := call(s.next)
	s.cut = err != nil
	return copies
}

func (s *station) Truncate(ctx context.Context, id uint64, length int64) error {
	if err := s.arrive(id); err != nil {
		return err
	}
	s.length = length
	s.pass(func(n *station) (int, error) { return 0, n.Truncate(ctx, n.handle, length) })
	return nil
}

func (s *station) WriteAt(_ context.Context, id uint64, p []byte, off int64) error {
	s.got[off] = string(p)
	return s.arrive(id)
}

func (s *station) CreateChain(context.Context, dataplane.WriteTarget) (uint64, []dataplane.Link, error) {
	return 0, nil, orca.E("station.CreateChain", orca.Unsupported, "")
}

func (s *station) Resume(id uint64, g dataplane.Grant) { s.resumed, s.grant = append(s.resumed, id), g }

// stations makes a chain of three: workers 1, 2, 3 with handles 11, 12, 13.
func stations(t *testing.T) (*chain, []*station) {
	t.Helper()
	var ss []*station
	var ws []*Worker
	for i := range 3 {
		ss = append(ss, &station{got: map[int64]string{}, handle: uint64(11 + i)})
		if i > 0 {
			ss[i-1].next = ss[i]
		}
		ws = append(ws, &metapb.Worker{Id: uint64(i + 1), Live: true})
	}
	c := &core{log: slog.New(slog.DiscardHandler)}
	c.cfg.WorkersTTL = time.Hour
	c.cfg.Dial = func(_ context.Context, w *Worker) (dataplane.Access, error) { return ss[w.Id-1], nil }
	c.peers.init(c)
	c.peers.learn(ws)
	fs := &FS{core: c}
	first := head{peer: &peer{id: 1, blocks: ss[0]}, handle: 11, chain: ss[0]}
	return newChain(fs, dataplane.Grant{Version: 1}, first, []dataplane.Link{{Worker: 2, Handle: 12}, {Worker: 3, Handle: 13}}), ss
}

var (
	errDead  = orca.E("station", orca.Unavailable, "dead")
	errHangs = orca.E("station", orca.Timeout, "hangs")
)

func send(t *testing.T, c *chain, piece string, off int64) error {
	t.Helper()
	return c.write(t.Context(), []byte(piece), off)
}

// A middle that dies or hangs, and who is behind it, do not count from then on:
// when the head fails as well nobody has everything, and the writer is told.
func TestChainMiddleFails(t *testing.T) {
	for name, fault := range map[string]error{"dies": errDead, "hangs": errHangs} {
		t.Run(name, func(t *testing.T) {
			c, s := stations(t)
			require.NoError(t, send(t, c, "one", 0))
			require.Equal(t, []uint64{1, 2, 3}, c.workers())
			s[1].fails = fault
			require.NoError(t, send(t, c, "two", 3))
			require.Equal(t, []uint64{1}, c.workers(), "the others lack a piece")
			s[1].fails, s[0].fails = nil, errDead
			require.ErrorIs(t, send(t, c, "three", 6), orca.Unavailable)
			require.Empty(t, s[1].resumed)
			require.Empty(t, s[2].resumed)
			require.Equal(t, map[int64]string{0: "one"}, s[2].got)
		})
	}
}

// A last one that fails leaves two; the second goes on when the head fails.
func TestChainLastThenHeadFails(t *testing.T) {
	c, s := stations(t)
	s[2].fails = errDead
	require.NoError(t, send(t, c, "one", 0))
	require.Equal(t, []uint64{1, 2}, c.workers())
	s[0].fails = errDead
	require.NoError(t, send(t, c, "two", 3))
	require.Equal(t, []uint64{2}, c.workers())
	require.Equal(t, map[int64]string{0: "one", 3: "two"}, s[1].got)
	s[1].fails = errDead
	require.ErrorIs(t, send(t, c, "three", 6), orca.Unavailable)
}

// When the head dies or hangs, the next one gets the piece again, under the
// handle that is its own and the grant of the files as they are.
func TestChainHeadFails(t *testing.T) {
	for name, fault := range map[string]error{"dies": errDead, "hangs": errHangs} {
		t.Run(name, func(t *testing.T) {
			c, s := stations(t)
			require.NoError(t, send(t, c, "one", 0))
			c.sealed(dataplane.Grant{Version: 2})
			s[0].fails = fault
			require.NoError(t, send(t, c, "two", 3))
			require.Equal(t, []uint64{2, 3}, c.workers())
			for _, w := range s[1:] {
				require.Equal(t, map[int64]string{0: "one", 3: "two"}, w.got)
			}
			require.Equal(t, []uint64{12}, s[1].resumed)
			require.EqualValues(t, 2, s[1].grant.Version)
			require.EqualValues(t, 1, c.fs.stats.WriteFailovers.Load())
			require.True(t, c.fs.peers.isDown(1))

			s[1].fails = fault
			require.NoError(t, send(t, c, "three", 6))
			require.Equal(t, []uint64{3}, c.workers())
			require.Equal(t, []uint64{13}, s[2].resumed)
			require.Equal(t, "three", s[2].got[6])
		})
	}
}

// Two at once: who is next is passed over when it is gone too.
func TestChainTwoFail(t *testing.T) {
	c, s := stations(t)
	require.NoError(t, send(t, c, "one", 0))
	s[0].fails, s[1].fails = errDead, errDead
	require.NoError(t, send(t, c, "two", 3))
	require.Equal(t, []uint64{3}, c.workers())
	require.Equal(t, map[int64]string{0: "one", 3: "two"}, s[2].got)
}

// A worker that refuses has not failed, and a caller that gives up says nothing
// of the worker.
func TestChainRefusalIsNoFailure(t *testing.T) {
	for _, k := range []orca.Kind{orca.NoSpace, orca.Corrupt, orca.Permission, orca.Stale, orca.Canceled} {
		c, s := stations(t)
		s[0].fails = orca.E("station", k, "")
		require.Equal(t, k, orca.KindOf(send(t, c, "one", 0)))
		require.Equal(t, []uint64{1, 2, 3}, c.workers())
		require.False(t, c.fs.peers.isDown(1))
	}
	c, s := stations(t)
	s[0].fails = errDead
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.write(ctx, []byte("one"), 0), orca.Unavailable)
	require.Equal(t, []uint64{1, 2, 3}, c.workers())
}

// A head that answers after another call has left it is not believed: the piece
// goes to the new head. Both calls together are one failover.
func TestChainLateAnswer(t *testing.T) {
	c, s := stations(t)
	s[0].next = nil // who is cut off from the others
	s[0].before = func() {
		require.True(t, c.turn(t.Context(), 0, errDead))
		require.True(t, c.turn(t.Context(), 0, errDead), "another call's failure of the same worker")
	}
	require.NoError(t, send(t, c, "one", 0))
	require.Equal(t, "one", s[0].got[0])
	require.Equal(t, "one", s[1].got[0])
	require.Equal(t, []uint64{2}, c.workers(), "that it is alone is believed of those behind the new head")
	require.EqualValues(t, 1, c.fs.stats.WriteFailovers.Load())
}

// A length counts where it has arrived, and is set again at the next head.
func TestChainTruncate(t *testing.T) {
	c, s := stations(t)
	require.NoError(t, c.truncate(t.Context(), 5))
	require.Equal(t, []int64{5, 5, 5}, []int64{s[0].length, s[1].length, s[2].length})
	require.Equal(t, []uint64{1, 2, 3}, c.workers())
	s[0].fails = errDead
	require.NoError(t, c.truncate(t.Context(), 6))
	require.Equal(t, []int64{5, 6, 6}, []int64{s[0].length, s[1].length, s[2].length})
	s[2].fails = errHangs
	require.NoError(t, c.truncate(t.Context(), 7))
	require.Equal(t, []uint64{2}, c.workers())
}

// Each grain of a piece has its sum, from where the piece begins.
func TestChainSums(t *testing.T) {
	c, s := stations(t)
	p := make([]byte, 2*orca.GrainSize+100)
	for i := range p {
		p[i] = byte(i >> 7)
	}
	require.NoError(t, c.write(t.Context(), p, 12345))
	var want []uint32
	for _, g := range [][]byte{p[:orca.GrainSize], p[orca.GrainSize : 2*orca.GrainSize], p[2*orca.GrainSize:]} {
		want = append(want, crc32.Checksum(g, crc32.MakeTable(crc32.Castagnoli)))
	}
	require.Equal(t, want, s[2].sums)
}
