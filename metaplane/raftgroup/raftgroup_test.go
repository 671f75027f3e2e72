// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
)

// childDir, when set, makes this process the victim of TestKill.
const childDir = "ORCA_RAFTGROUP_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func open(t testing.TB, cfg Config) *Host {
	t.Helper()
	h, err := Open(cfg, quiet())
	require.NoError(t, err)
	return h
}

// crash ends a host as a kill would: what was not flushed is lost.
func (h *Host) crash() error {
	for _, g := range h.all() {
		g.stop()
	}
	h.nh.Close()
	var errs []error
	for _, g := range h.all() {
		errs = append(errs, g.closeStore(false))
	}
	return errors.Join(append(errs, h.lock.Close())...)
}

func mkdir(path string) *command.Command {
	return &command.Command{Mkdir: &metapb.MkdirOp{Target: &metapb.Target{Path: path}, Mode: 0o755}}
}

func create(path string) *command.Command {
	return &command.Command{Create: &metapb.CreateOp{
		Target: &metapb.Target{Path: path}, Mode: 0o644, Complete: true, WriteType: uint32(orca.MustCache),
	}}
}

func propose(t testing.TB, g *Group, c *command.Command) *command.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := g.Propose(ctx, c)
	require.NoError(t, err)
	return r
}

func exists(t testing.TB, g *Group, path string) bool {
	t.Helper()
	w, err := g.Machine().Walk(orca.Caller{}, 0, path)
	require.NoError(t, err)
	return w.Found
}

func TestFirstProposalAndCleanRestart(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	began := time.Now()
	h := open(t, Config{Dir: dir})
	propose(t, h.Group(), mkdir("/a"))
	first := time.Since(began)
	t.Logf("first proposal after %v", first)
	require.Less(t, first, time.Minute)
	require.NoError(t, h.Group().ReadReady(t.Context()))
	leading, term := h.Group().Leader()
	require.True(t, leading)
	require.NotZero(t, term)
	cluster := h.Cluster()
	require.NoError(t, h.Close())
	_, err := h.Group().Machine().Walk(orca.Caller{}, 0, "/a")
	require.ErrorIs(t, err, orca.Unavailable, "a reader that comes late is told so")
	_, err = h.Group().Propose(t.Context(), mkdir("/late"))
	require.Error(t, err)

	h = open(t, Config{Dir: dir})
	require.NoError(t, h.Group().ReadReady(t.Context()))
	require.True(t, exists(t, h.Group(), "/a"))
	require.Equal(t, cluster, h.Cluster())
	require.NoError(t, h.Close())
}

func TestRefusalIsAnError(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir()})
	defer func() { require.NoError(t, h.Close()) }()
	r, err := h.Group().Propose(t.Context(), mkdir("/no/parent"))
	require.ErrorIs(t, err, orca.NotFound)
	require.Equal(t, uint32(orca.NotFound), r.Kind)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.Group().Propose(ctx, mkdir("/x"))
	require.ErrorIs(t, err, orca.Canceled)
}

// TestCrashReplays loses what the store had not flushed, many times over.
func TestCrashReplays(t *testing.T) {
	for _, journal := range []string{journalTan, journalPebble} {
		t.Run(journal, func(t *testing.T) {
			dir := t.TempDir()
			cfg := Config{Dir: dir, Journal: journal, FlushEvery: time.Hour, SnapshotEntries: 16}
			for life := range 4 {
				h := open(t, cfg)
				require.NoError(t, h.Group().ReadReady(t.Context()))
				for old := range life * 20 {
					require.True(t, exists(t, h.Group(), fmt.Sprintf("/f%d", old)), "file %d in life %d", old, life)
				}
				for i := range 20 {
					propose(t, h.Group(), create(fmt.Sprintf("/f%d", life*20+i)))
				}
				require.Equal(t, int64(life*20+20), h.Group().Machine().Counts().Files)
				require.NoError(t, h.crash())
			}
		})
	}
}

func TestOneProposalPerCallEvenIfRetried(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Config{Dir: dir, FlushEvery: time.Hour})
	c := mkdir("/once")
	c.Client, c.Seq = 77, 1
	first := propose(t, h.Group(), c)
	require.Equal(t, first.Attr.Ino, propose(t, h.Group(), c).Attr.Ino)
	require.NoError(t, h.crash())
	h = open(t, Config{Dir: dir})
	require.Equal(t, first.Attr.Ino, propose(t, h.Group(), c).Attr.Ino)
	require.NoError(t, h.Close())
}

func TestManyProposersShareEntries(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir()})
	defer func() { require.NoError(t, h.Close()) }()
	g := h.Group()
	propose(t, g, mkdir("/d"))
	var wg sync.WaitGroup
	const proposers, each = 64, 40
	errs := make(chan error, proposers)
	for p := range proposers {
		wg.Go(func() {
			for i := range each {
				if _, err := g.Propose(t.Context(), create(fmt.Sprintf("/d/%d-%d", p, i))); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	require.NoError(t, <-errs)
	require.Equal(t, int64(proposers*each), g.Machine().Counts().Files)
	require.Less(t, g.Stats.Proposals.Load(), int64(proposers*each))
}

func TestQueueSheds(t *testing.T) {
	h := open(t, Config{Dir: t.TempDir(), Queue: 4})
	defer func() { require.NoError(t, h.Close()) }()
	var wg sync.WaitGroup
	var mu sync.Mutex
	kinds := map[orca.Kind]int{}
	for i := range 400 {
		wg.Go(func() {
			_, err := h.Group().Propose(t.Context(), create(fmt.Sprintf("/q%d", i)))
			mu.Lock()
			kinds[orca.KindOf(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	require.Equal(t, 400, kinds[orca.OK]+kinds[orca.Busy])
	require.Equal(t, int64(kinds[orca.OK]), h.Group().Machine().Counts().Files)
}

func TestWatchResumes(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Config{Dir: dir})
	g := h.Group()
	_, cursor, lost := g.Watch(t.Context(), 0)
	require.False(t, lost)
	propose(t, g, mkdir("/a"))
	propose(t, g, mkdir("/b"))
	events, next, lost := g.Watch(t.Context(), cursor)
	require.False(t, lost)
	require.Equal(t, "a", events[0].Name)
	if len(events) == 1 {
		events, next, _ = g.Watch(t.Context(), next)
		require.Equal(t, "b", events[0].Name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	events, same, lost := g.Watch(ctx, next)
	require.Empty(t, events)
	require.False(t, lost)
	require.Equal(t, next, same)
	got := make(chan string, 1)
	go func() {
		events, _, _ := g.Watch(t.Context(), next)
		got <- events[0].Name
	}()
	propose(t, g, mkdir("/c"))
	require.Equal(t, "c", <-got)
	require.NoError(t, h.Close())

	h = open(t, Config{Dir: dir})
	_, after, lost := h.Group().Watch(t.Context(), cursor)
	require.True(t, lost, "events of an earlier life are gone")
	require.Greater(t, after, next)
	require.NoError(t, h.Close())
}

func TestWatcherDropsTheOldest(t *testing.T) {
	var w watcher
	w.start(1)
	events := make([]fsm.Event, 1000)
	for i := range eventRing/1000 + 2 {
		w.add(uint64(2+i), events)
	}
	_, next, lost, _ := w.after(2 << seqBits)
	require.True(t, lost)
	require.Equal(t, w.last, next)
	got, _, lost, _ := w.after(w.floor)
	require.False(t, lost)
	require.Len(t, got, eventRing)
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	h := open(t, Config{Dir: dir})
	propose(t, h.Group(), mkdir("/a"))
	_, err := Open(Config{Dir: dir}, quiet())
	require.ErrorIs(t, err, orca.Busy, "a second process")
	require.NoError(t, h.Close())

	_, err = Open(Config{Dir: dir, Address: "127.0.0.1:18200"}, quiet())
	require.ErrorIs(t, err, orca.Invalid, "another address")

	// The journal follows the folder to a host of another name.
	host, err := os.Hostname()
	require.NoError(t, err)
	f, err := loadFormat(Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(dir, "journal", host), filepath.Join(dir, "journal", "elsewhere")))
	f.Host = "elsewhere"
	require.NoError(t, f.save(dir))
	h = open(t, Config{Dir: dir})
	require.True(t, exists(t, h.Group(), "/a"))
	require.NoError(t, h.Close())

	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
	_, err = Open(Config{Dir: dir}, quiet())
	require.ErrorIs(t, err, orca.Corrupt, "a lost journal")
}

func TestSettingsFilesAreRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("dragonboat-soft-settings.json", []byte("{}"), 0o600))
	_, err := Open(Config{Dir: "data"}, quiet())
	require.ErrorIs(t, err, orca.Invalid)
}

// TestSnapshotMovesTheState streams the store into another group's.
func TestSnapshotMovesTheState(t *testing.T) {
	a, b := open(t, Config{Dir: t.TempDir()}), open(t, Config{Dir: t.TempDir()})
	for i := range 300 {
		propose(t, a.Group(), create(fmt.Sprintf("/f%d", i)))
	}
	propose(t, b.Group(), mkdir("/other"))
	ra, rb := (*replica)(a.group), (*replica)(b.group)
	view, err := ra.PrepareSnapshot()
	require.NoError(t, err)
	pr, pw := io.Pipe()
	go func() { _ = pw.CloseWithError(ra.SaveSnapshot(view, pw, nil)) }()
	require.NoError(t, rb.RecoverFromSnapshot(pr, nil))
	require.True(t, exists(t, b.Group(), "/f299"))
	require.False(t, exists(t, b.Group(), "/other"))
	require.Equal(t, a.Group().Machine().Applied(), b.Group().Machine().Applied())
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
}

// victim creates files until it is killed, and says which were acknowledged.
func victim(dir string) {
	h, err := Open(Config{Dir: dir}, quiet())
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("f%d-%d", p, i)
				if _, err := h.Group().Propose(context.Background(), create("/"+name)); err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Println(name)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKill kills a process in the middle of creates: every acknowledged file
// is there afterwards, and soon.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var acked []string
	lines := bufio.NewScanner(out)
	for len(acked) < 10_000 && lines.Scan() {
		acked = append(acked, lines.Text())
	}
	require.NoError(t, cmd.Process.Kill())
	for lines.Scan() {
		acked = append(acked, lines.Text())
	}
	var exit *exec.ExitError
	require.True(t, errors.As(cmd.Wait(), &exit))
	require.GreaterOrEqual(t, len(acked), 10_000)

	began := time.Now()
	h := open(t, Config{Dir: dir})
	require.NoError(t, h.Group().ReadReady(t.Context()))
	propose(t, h.Group(), mkdir("/after"))
	t.Logf("%d acknowledged, first operation after %v", len(acked), time.Since(began))
	for _, name := range acked {
		if strings.HasPrefix(name, "f") {
			require.True(t, exists(t, h.Group(), "/"+name), name)
		}
	}
	require.NoError(t, h.Close())
}

// BenchmarkCreate is create through Propose; BenchmarkRaw is what dragonboat
// does with payloads of the same size that nothing is done with.
func BenchmarkCreate(b *testing.B) {
	for _, n := range []int{1, 16, 128} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			h := open(b, Config{Dir: b.TempDir(), Journal: os.Getenv("JOURNAL")})
			defer func() { _ = h.Close() }()
			propose(b, h.Group(), mkdir("/d"))
			b.ReportAllocs()
			parallel(b, n, func(p, i int) {
				c := create(fmt.Sprintf("/d/%d-%d", p, i))
				c.Client, c.Seq, c.AckedBelow = uint64(p+1), uint64(i+1), uint64(i+1)
				if _, err := h.Group().Propose(context.Background(), c); err != nil {
					b.Error(err)
				}
			})
			st := &h.Group().Stats
			b.ReportMetric(float64(st.Commands.Load())/float64(st.Proposals.Load()), "ops/entry")
		})
	}
}

func BenchmarkRaw(b *testing.B) {
	for _, n := range []int{1, 16, 128} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r, err := OpenRaw(Config{Dir: b.TempDir(), Journal: os.Getenv("JOURNAL")}, quiet())
			require.NoError(b, err)
			defer func() { _ = r.Close() }()
			payload, err := command.Append(nil, create("/d/100-10000"))
			require.NoError(b, err)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			parallel(b, n, func(int, int) {
				if err := r.Propose(ctx, payload); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

func parallel(b *testing.B, n int, fn func(p, i int)) {
	var wg sync.WaitGroup
	b.ResetTimer()
	for p := range n {
		wg.Go(func() {
			for i := range (b.N + n - 1 - p) / n {
				fn(p, i)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}
