// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package workers

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newRegistry(t *testing.T, cfg Config) (*Registry, *clock) {
	t.Helper()
	c := &clock{t: time.Unix(1_700_000_000, 0)}
	cfg.Now = c.now
	return New(cfg, slog.New(slog.DiscardHandler)), c
}

func pb(id, boot uint64) *metapb.Worker {
	return &metapb.Worker{Id: id, Node: fmt.Sprintf("n%d", id), Boot: boot,
		Tiers: []*metapb.TierUsage{{Capacity: 100 * int64(id), Healthy: true}}}
}

func report(file uint64, cached int64) *metapb.FileReport {
	return &metapb.FileReport{File: file, Version: 1, Cached: cached, Complete: []uint32{0}}
}

func TestRegisterAllocatesAndKeepsIDs(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	id, err := r.Register(&metapb.RegisterRequest{Worker: pb(0, 1)})
	require.NoError(t, err)
	require.NotZero(t, id)
	again, err := r.Register(&metapb.RegisterRequest{Worker: &metapb.Worker{Id: id, Node: "n0", Boot: 2}})
	require.NoError(t, err)
	require.Equal(t, id, again)
	_, err = r.Register(&metapb.RegisterRequest{Worker: &metapb.Worker{Id: id, Node: "other", Boot: 3}})
	require.ErrorIs(t, err, orca.Conflict)
}

func TestHeartbeatOfStrangerOrNewBootAsksForReport(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(7, 1)})
	require.NoError(t, err)
	require.True(t, rep.Register)
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(7, 1)})
	require.NoError(t, err)
	rep, err = r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(7, 1)})
	require.NoError(t, err)
	require.False(t, rep.Register)
	rep, err = r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(7, 2)})
	require.NoError(t, err)
	require.True(t, rep.Register)
}

func TestFullReportReplacesOnlyWhenWhole(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	reg := func(boot uint64, more bool, files ...*metapb.FileReport) {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, boot), Files: files, More: more})
		require.NoError(t, err)
	}
	reg(1, false, report(10, 5), report(11, 5))
	reg(2, true, report(11, 6))
	require.Len(t, r.Locations(10, 1), 1, "old holdings stay until the last page")
	require.EqualValues(t, 6, r.Cached(11, 1))
	reg(2, false, report(12, 1))
	require.Empty(t, r.Locations(10, 1))
	require.Len(t, r.Locations(11, 1), 1)
	require.Len(t, r.Locations(12, 1), 1)
	require.EqualValues(t, 2, r.Stats.Files.Load())
}

func TestLocationsAreLiveAndBestFirst(t *testing.T) {
	r, c := newRegistry(t, Config{})
	for id := uint64(1); id <= 3; id++ {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(id, 1), Files: []*metapb.FileReport{report(10, int64(id))}})
		require.NoError(t, err)
	}
	require.EqualValues(t, 3, r.Locations(10, 1)[0].Worker)
	require.EqualValues(t, 3, r.Live()[0].Id, "most free space first")
	require.Empty(t, r.Locations(10, 2), "another version is not a location")
	c.t = c.t.Add(9 * time.Second)
	_, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	c.t = c.t.Add(2 * time.Second)
	locs := r.Locations(10, 1)
	require.Len(t, locs, 1)
	require.EqualValues(t, 1, locs[0].Worker)
	require.Len(t, r.Live(), 1)
	require.Len(t, r.List(), 3)
	c.t = c.t.Add(25 * time.Hour)
	r.Expire()
	require.Empty(t, r.List())
	require.Zero(t, r.Stats.Files.Load())
}

func TestAvailability(t *testing.T) {
	r, c := newRegistry(t, Config{})
	holders := []uint64{1, 2}
	require.Equal(t, Unavailable, r.Availability(10, 1, holders), "nobody has reported since the start")
	_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	require.Equal(t, Unavailable, r.Availability(10, 1, holders), "worker 2 may still come")
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(2, 1), Files: []*metapb.FileReport{report(10, 4)}})
	require.NoError(t, err)
	require.Equal(t, Available, r.Availability(10, 1, holders))
	c.t = c.t.Add(time.Minute)
	require.Equal(t, Unavailable, r.Availability(10, 1, holders), "a dead holder may come back")
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(2, 2)})
	require.NoError(t, err)
	require.Equal(t, Gone, r.Availability(10, 1, holders))
}

func TestAnnounceOutlivesAReportThatBeganBefore(t *testing.T) {
	r, c := newRegistry(t, Config{})
	_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 1), More: true})
	require.NoError(t, err)
	r.Announce(10, 1, 99, []uint64{1}, true)
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	require.EqualValues(t, 99, r.Cached(10, 1))
	c.t = c.t.Add(time.Minute)
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	require.Zero(t, r.Cached(10, 1), "a later full report without it wins")
}

func TestOrdersAreCoalescedCappedAndDelivered(t *testing.T) {
	r, _ := newRegistry(t, Config{MaxOrders: 3, OrdersPerReply: 2})
	_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 1), Files: []*metapb.FileReport{report(10, 1)}})
	require.NoError(t, err)
	r.OrderHolders(metapb.WorkerOrder_FREE_OLD, 10, 2)
	r.OrderHolders(metapb.WorkerOrder_FREE_OLD, 10, 3)
	r.OrderHolders(metapb.WorkerOrder_FREE_OLD, 99, 3) // nobody holds it
	for ino := orca.Ino(20); ino < 23; ino++ {
		r.OrderAll(metapb.WorkerOrder_PIN, ino, 0)
	}
	require.EqualValues(t, 1, r.Stats.OrdersDropped.Load())
	var got []*metapb.WorkerOrder
	for range 3 {
		rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(1, 1)})
		require.NoError(t, err)
		got = append(got, rep.Orders...)
	}
	require.Len(t, got, 3)
	require.EqualValues(t, 3, got[0].Version)
	require.EqualValues(t, 20, got[1].File)
	require.EqualValues(t, 21, got[2].File)
}

// TestLastPinHolds: of orders to pin and to unpin the last one is what a worker
// obeys, and keeping a copy while there is room is another matter.
func TestLastPinHolds(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	for _, kind := range []metapb.WorkerOrder_Kind{metapb.WorkerOrder_PIN, metapb.WorkerOrder_UNPIN, metapb.WorkerOrder_PIN} {
		r.OrderAll(kind, 10, 0)
	}
	r.OrderAll(metapb.WorkerOrder_PIN, 10, 1)
	r.OrderAll(metapb.WorkerOrder_UNPIN, 10, 1)
	rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(1, 1)})
	require.NoError(t, err)
	require.Len(t, rep.Orders, 2)
	require.Equal(t, metapb.WorkerOrder_PIN, rep.Orders[0].Kind)
	require.Zero(t, rep.Orders[0].Version)
	require.Equal(t, metapb.WorkerOrder_UNPIN, rep.Orders[1].Kind)
	require.EqualValues(t, 1, rep.Orders[1].Version)
}

// What was announced of an earlier life of a worker does not protect a file
// that its next life does not have.
func TestAnnouncedToAnEarlierLife(t *testing.T) {
	r, c := newRegistry(t, Config{})
	reg := func(boot uint64) {
		c.t = c.t.Add(time.Millisecond)
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, boot)})
		require.NoError(t, err)
		c.t = c.t.Add(time.Millisecond)
	}
	reg(1)
	r.Announce(10, 1, 5, []uint64{1}, true)
	reg(1)
	require.Equal(t, Available, r.Availability(10, 1, []uint64{1}), "the report may have begun before")
	reg(2)
	require.Equal(t, Gone, r.Availability(10, 1, []uint64{1}))
}

// TestDoubt has a node take over: what a worker held is served at once, but it
// is not called gone by a report that was made before.
func TestDoubt(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	reg := func(epoch uint64, more bool, files ...*metapb.FileReport) {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 1), Files: files, More: more, Epoch: epoch})
		require.NoError(t, err)
	}
	beat := func() *metapb.HeartbeatReply {
		rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(1, 1)})
		require.NoError(t, err)
		return rep
	}
	reg(0, false, report(10, 5))
	require.False(t, beat().Register)
	require.Equal(t, Gone, r.Availability(11, 1, []uint64{1}))
	reg(0, true, report(10, 5)) // half a report
	r.Order([]uint64{1}, metapb.WorkerOrder_FREE_OLD, 10, 3)
	r.Doubt()
	require.Len(t, r.Locations(10, 1), 1)
	require.Equal(t, Unavailable, r.Availability(11, 1, []uint64{1}))
	r.DropOrders()
	rep := beat()
	require.Empty(t, rep.Orders)
	require.False(t, rep.Register, "a report is on its way")
	reg(rep.Epoch, false) // its second half: it was made before
	require.Equal(t, Unavailable, r.Availability(11, 1, []uint64{1}))
	rep = beat()
	require.True(t, rep.Register)
	reg(rep.Epoch, false, report(10, 5))
	require.False(t, beat().Register)
	require.Equal(t, Gone, r.Availability(11, 1, []uint64{1}))
}

// A file that is freed right after it was read is on no record yet: the worker
// hears of it with its next report, and only with that one.
func TestFreeReachesWhatIsReportedLate(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	for _, w := range []uint64{1, 2} {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(w, 1)})
		require.NoError(t, err)
	}
	beat := func(w uint64, files ...*metapb.FileReport) []*metapb.WorkerOrder {
		rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(w, 1), Files: files})
		require.NoError(t, err)
		return rep.Orders
	}
	r.Free(10, 3)
	orders := beat(1, report(10, 5), report(11, 5))
	require.Len(t, orders, 1)
	require.Equal(t, metapb.WorkerOrder_FREE_FILE, orders[0].Kind)
	require.EqualValues(t, 10, orders[0].File)
	require.EqualValues(t, 3, orders[0].Version, "the order leaves what is dirty alone")
	require.Empty(t, beat(1, report(10, 5)), "read again since")
	require.Empty(t, beat(2, report(10, 0)), "nothing to drop")
	require.Empty(t, beat(2, report(10, 5)))
	// A full report in pages is one report; what comes new knows of no earlier free.
	r.Free(12, 1)
	_, err := r.Register(&metapb.RegisterRequest{Worker: pb(1, 2), Files: []*metapb.FileReport{report(1, 5)}, More: true})
	require.NoError(t, err)
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(1, 2), Files: []*metapb.FileReport{report(12, 5)}})
	require.NoError(t, err)
	rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(1, 2)})
	require.NoError(t, err)
	require.Len(t, rep.Orders, 1)
	_, err = r.Register(&metapb.RegisterRequest{Worker: pb(3, 1), Files: []*metapb.FileReport{report(12, 5)}})
	require.NoError(t, err)
	require.Empty(t, beat(3))
	// An order to drop all of a deleted file is not weakened.
	r.Order([]uint64{3}, metapb.WorkerOrder_FREE_FILE, 12, 0)
	r.Order([]uint64{3}, metapb.WorkerOrder_FREE_FILE, 12, 4)
	orders = beat(3)
	require.Len(t, orders, 1)
	require.Zero(t, orders[0].Version)
	for i := range uint64(2 * freedCap) {
		r.Free(orca.Ino(100+i), 1)
	}
	require.LessOrEqual(t, len(r.freed.of), freedCap)
}

// TestFreedWaitsForAllWorkers: when Freed returns, no order is on its way that
// would drop what is read from then on.
func TestFreedWaitsForAllWorkers(t *testing.T) {
	r, c := newRegistry(t, Config{OrdersPerReply: 2})
	for _, w := range []uint64{1, 2, 3} {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(w, 1)})
		require.NoError(t, err)
	}
	beat := func(w uint64, files ...*metapb.FileReport) int {
		rep, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(w, 1), Files: files})
		require.NoError(t, err)
		return len(rep.Orders)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	pending := func() bool { return r.Freed(over) != nil }
	require.False(t, pending(), "nothing was freed")
	for f := range orca.Ino(3) {
		r.Free(10+f, 1)
	}
	require.True(t, pending())
	done := make(chan error)
	go func() { done <- r.Freed(t.Context()) }()
	require.Zero(t, beat(2))
	require.Equal(t, 2, beat(1, report(10, 5), report(11, 5), report(12, 5)))
	require.True(t, pending(), "they are sent")
	require.Equal(t, 1, beat(1))
	require.True(t, pending(), "so is the third")
	require.Zero(t, beat(1))
	require.True(t, pending(), "the third worker has not reported")
	c.t = c.t.Add(time.Hour)
	beat(1)
	beat(2)
	require.False(t, pending(), "but it lives no more")
	r.Free(20, 1)
	beat(1)
	beat(2)
	require.NoError(t, <-done)
	require.False(t, pending())
	require.Zero(t, beat(1, report(20, 5)), "read again since")
}

// line is a Link that is lost when the test says so.
type line struct{ ctx context.Context } //nolint:containedctx // the link's life

func (l *line) Lost(f func()) (stop func() bool) { return context.AfterFunc(l.ctx, f) }

// TestFreedWaitsForNoneThatHasDied: the link of a worker is lost before it has
// dropped what was freed. It is waited for again once it is heard of, over a new
// link, and what becomes of the old one does not matter any more.
func TestFreedWaitsForNoneThatHasDied(t *testing.T) {
	r, _ := newRegistry(t, Config{})
	for _, w := range []uint64{1, 2} {
		_, err := r.Register(&metapb.RegisterRequest{Worker: pb(w, 1)})
		require.NoError(t, err)
	}
	beat := func(w uint64, l *line, files ...*metapb.FileReport) {
		_, err := r.Heartbeat(&metapb.HeartbeatRequest{Worker: pb(w, 1), Files: files})
		require.NoError(t, err)
		r.HeardOver(w, l)
	}
	link := func() (*line, func()) {
		ctx, cut := context.WithCancel(t.Context())
		return &line{ctx}, cut
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	pending := func() bool { return r.Freed(over) != nil }
	sound, _ := link()
	first, cut := link()
	beat(1, sound)
	beat(2, first)
	beat(2, first)
	r.Free(10, 1)
	beat(1, sound)
	beat(1, sound)
	done := make(chan error)
	go func() { done <- r.Freed(t.Context()) }()
	require.True(t, pending(), "the second worker has not reported")
	cut()
	require.NoError(t, <-done)
	require.False(t, pending())

	second, cut := link()
	beat(2, second, report(10, 5))
	require.True(t, pending(), "it is back, and was given the order")
	third, _ := link()
	r.HeardOver(2, third)
	cut()
	require.True(t, pending())
	beat(2, third)
	require.False(t, pending())
	r.HeardOver(3, third) // unknown
}
