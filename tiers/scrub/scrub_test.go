// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package scrub_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers/dir"
	"orca/tiers/scrub"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func store(t *testing.T, root string) *tiered.Store {
	t.Helper()
	s, err := tiered.Open(tiered.Config{Dirs: []dir.Config{{Path: filepath.Join(root, "ssd"), Tier: orca.SSD, Capacity: 256 << 20}}}, discard())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// run starts a scrubber that ends with the test.
func run(t *testing.T, cfg scrub.Config, s scrub.Store) *scrub.Scrubber {
	t.Helper()
	x, err := scrub.New(cfg, s, discard())
	require.NoError(t, err)
	start(t, x)
	return x
}

func start(t *testing.T, x *scrub.Scrubber) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); x.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// rot flips a bit of a block file behind the store's back.
func rot(t *testing.T, root string, id orca.BlockID, off int64) {
	t.Helper()
	path := ""
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == id.String() {
			path = p
		}
		return nil
	})
	require.NotEmpty(t, path)
	require.NoError(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// now makes a round and waits for its end.
func now(t *testing.T, x *scrub.Scrubber) scrub.Round {
	t.Helper()
	x.Start()
	tiertest.Eventually(t, "the round ends", func() bool { st := x.Status(); return !st.Running || !st.Round.Forced })
	last := x.Status().Last
	require.NotNil(t, last)
	require.True(t, last.Forced)
	require.EqualValues(t, 1, last.Done)
	return *last
}

func TestRoundReadsEverything(t *testing.T) {
	root := t.TempDir()
	s := store(t, root)
	want := int64(0)
	for i := range uint64(40) {
		n := 1000 + int64(i)*90_001
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, n))
		want += n
	}
	part, err := s.Begin(t.Context(), tiertest.ID(100), 4<<20) // grains 3, 4 and 20
	require.NoError(t, err)
	p := tiertest.Bytes(100, 4<<20)
	for _, r := range [][2]int64{{3, 5}, {20, 21}} {
		require.NoError(t, part.WriteGrains(t.Context(), p[r[0]*orca.GrainSize:r[1]*orca.GrainSize], r[0]*orca.GrainSize))
	}
	x := run(t, scrub.Config{Period: -1, Rate: 1 << 40}, s)
	last := now(t, x)
	require.EqualValues(t, 41, last.Blocks)
	require.Equal(t, want+3*orca.GrainSize, last.Bytes)
	require.Zero(t, last.Bad+x.Metrics.Unreadable.Load())
	require.Zero(t, s.Metrics.Quarantined.Load())
	require.NoError(t, part.Close())
}

// TestRotIsFound: flipped bits below trusted, exported and mapped blocks.
func TestRotIsFound(t *testing.T) {
	root := t.TempDir()
	s := store(t, root)
	const n = 1<<20 + 17
	clean, dirty, good := tiertest.ID(1), tiertest.ID(2), tiertest.ID(3)
	content := func(id orca.BlockID) []byte { return tiertest.Bytes(uint64(id.File), n) }
	tiertest.Fill(t, s, clean, content(clean))
	require.NoError(t, tiertest.Adopt(s, dirty, content(dirty), true))
	tiertest.Fill(t, s, good, content(good))

	// Readers hold descriptors and a mapping of the file that will rot.
	f, length, gen, err := s.Descriptor(t.Context(), clean)
	require.NoError(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, int(length), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(m)) }()
	require.True(t, bytes.Equal(content(clean), m))

	rot(t, root, clean, 9*orca.GrainSize+5)
	rot(t, root, dirty, n-1)
	x := run(t, scrub.Config{Period: -1, Rate: 1 << 40}, s)
	last := now(t, x)
	require.EqualValues(t, 2, last.Bad)
	require.EqualValues(t, 1, last.BadDirty)
	require.EqualValues(t, 2, x.Metrics.BadGrains.Load())
	require.EqualValues(t, 2, s.Metrics.CorruptGrains.Load())

	// The clean one has left; its old file can still be read and not be hurt.
	_, err = s.Get(clean, 0, n)
	require.ErrorIs(t, err, orca.NotFound)
	_, _, _, err = s.Descriptor(t.Context(), clean)
	require.ErrorIs(t, err, orca.Corrupt, "who renews a descriptor must hear of it")
	require.Equal(t, content(clean)[:9*orca.GrainSize], m[:9*orca.GrainSize])
	// Filled again from its source, it is another file.
	tiertest.Fill(t, s, clean, content(clean))
	got, err := tiertest.ReadAll(s, clean, n)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content(clean), got))
	g, _, gen2, err := s.Descriptor(t.Context(), clean)
	require.NoError(t, err)
	defer g.Close()
	require.NotEqual(t, gen, gen2)

	// The dirty one is kept: the bad grain is refused, the rest served.
	meta, err := s.Stat(dirty)
	require.NoError(t, err)
	require.True(t, meta.Dirty)
	_, err = s.Get(dirty, n-1, 1)
	require.ErrorIs(t, err, orca.Corrupt)
	_, _, _, err = s.Descriptor(t.Context(), dirty)
	require.Error(t, err)
	e, err := s.Get(dirty, 0, n)
	require.NoError(t, err)
	rest, err := tiertest.ReadExtent(e)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content(dirty)[:16*orca.GrainSize], rest))

	// Nothing more to find, and the good one was left alone.
	require.Zero(t, now(t, x).Bad)
	got, err = tiertest.ReadAll(s, good, n)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content(good), got))
}

// TestRotIsFoundWithinThePeriod: nobody asks for a round.
func TestRotIsFoundWithinThePeriod(t *testing.T) {
	root := t.TempDir()
	s := store(t, root)
	for i := range uint64(20) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 200_000))
	}
	x := run(t, scrub.Config{Period: 300 * time.Millisecond}, s)
	tiertest.Eventually(t, "a round of schedule", func() bool { return x.Metrics.Rounds.Load() >= 1 })
	require.False(t, x.Status().Last.Forced)
	require.Zero(t, x.Metrics.BadBlocks.Load())
	rot(t, root, tiertest.ID(7), 70_000)
	seen := x.Metrics.Rounds.Load()
	tiertest.Eventually(t, "two more rounds", func() bool { return x.Metrics.Rounds.Load() >= seen+2 })
	require.EqualValues(t, 1, x.Metrics.BadBlocks.Load())
	_, err := s.Stat(tiertest.ID(7))
	require.ErrorIs(t, err, orca.NotFound)
}

// TestRateHolds: what a round takes is at least its bytes by the rate.
func TestRateHolds(t *testing.T) {
	s := store(t, t.TempDir())
	tiertest.Fill(t, s, tiertest.ID(1), tiertest.Bytes(1, 8<<20))
	x := run(t, scrub.Config{Period: -1, Rate: 32 << 20}, s)
	last := now(t, x)
	require.GreaterOrEqual(t, last.Finished.Sub(last.Started), 200*time.Millisecond, "8 MiB less one step at 32 MiB/s")
}

// busyStore is always busy.
type busyStore struct {
	*tiered.Store
	n int64
}

func (b *busyStore) Traffic() int64 { b.n += 1 << 30; return b.n }

func TestGivesWayToReaders(t *testing.T) {
	s := store(t, t.TempDir())
	tiertest.Fill(t, s, tiertest.ID(1), tiertest.Bytes(1, 100_000))
	x := run(t, scrub.Config{Period: -1}, &busyStore{Store: s})
	require.EqualValues(t, 1, now(t, x).Blocks, "but not for ever")
	require.Positive(t, x.Metrics.Waits.Load())

	idle := run(t, scrub.Config{Period: -1}, s)
	now(t, idle)
	require.Zero(t, idle.Metrics.Waits.Load())
}

// TestRoundGoesOnAfterRestart: a worker that restarts often reaches the end.
func TestRoundGoesOnAfterRestart(t *testing.T) {
	s := store(t, t.TempDir())
	for i := range uint64(64) {
		tiertest.Fill(t, s, tiertest.ID(i), tiertest.Bytes(i, 1000))
	}
	state := filepath.Join(t.TempDir(), "scrub")
	// A round that began an hour ago and is half done.
	began := time.Now().Add(-time.Hour)
	require.NoError(t, os.WriteFile(state, []byte("x"), 0o600))
	x := run(t, scrub.Config{Period: time.Hour, State: state}, s)
	tiertest.Eventually(t, "it runs", func() bool { return x.Status().Running })
	require.Less(t, x.Status().Round.Done, 0.1, "a state that makes no sense begins anew")

	line := []byte(strconv.FormatInt(began.UnixNano(), 10) + " 32768\n")
	require.NoError(t, os.WriteFile(state, line, 0o600))
	y := run(t, scrub.Config{Period: time.Hour, State: state}, s)
	tiertest.Eventually(t, "the rest is read", func() bool { return y.Metrics.Rounds.Load() == 1 })
	last := y.Status().Last
	require.True(t, last.Started.Equal(time.Unix(0, began.UnixNano())))
	require.Positive(t, last.Blocks)
	require.Less(t, last.Blocks, int64(64), "the first half was read by the last process")
	tiertest.Eventually(t, "the next round is written down", func() bool {
		b, err := os.ReadFile(state)
		return err == nil && !bytes.Equal(b, line)
	})
}
