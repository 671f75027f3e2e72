// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package scrub reads every cached block of a worker again, from its medium,
// once in a period, and compares it with its checksums: paths that do not
// verify (descriptors, mappings, sendfile) can only be as good as the disk.
//
//	round    folder 0 … 65535 of all tier directories, spread evenly over
//	         four fifths of Config.Period
//	folder ─► Store.BlocksIn ─► Store.Check ─► Next, 1 MiB at a time
//	                                            └► bad grain: the store quarantines
//	                                               (clean), or refuses it (dirty)
//
// It reads at most Config.Rate bytes per second, and waits while the store is
// busy with its readers, as long as the round is on time; the rate holds
// always. Where a round stands is kept in a small file, so that a restart goes
// on with it. Start makes a round now, at Config.Rate.
//
// Goroutines: none of its own; Run is one. mu guards the state of the round
// and is a leaf; no I/O happens under it. It mends nothing: a block that was
// quarantined is read again from its source by the next reader.
package scrub

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers"
	"orca/tiers/blockfile"
)

// Defaults of Config.
const (
	DefaultPeriod = 24 * time.Hour
	DefaultRate   = 32 << 20
)

const (
	// step is how much is read at a time.
	step = 1 << 20
	// busyWait is how long the scrubber waits at a time while the store is
	// busy, and busyMost how long for one step.
	busyWait, busyMost = 20 * time.Millisecond, time.Second
	// saveEvery is how often the place of a round is written down.
	saveEvery = 10 * time.Second
)

// Config of a Scrubber. Zero fields have the stated defaults.
type Config struct {
	// Period within which every block is read. Default 24 h; negative: only
	// when Start is called.
	Period time.Duration
	// Rate is the most bytes read per second. Default 32 MiB/s.
	Rate int64
	// Busy is from how many bytes per second on the store counts as busy with
	// its readers. Default 16 MiB/s.
	Busy int64
	// State is the file that a round's place is kept in; "": a restart begins
	// anew.
	State string
}

func (c Config) withDefaults() Config {
	if c.Period == 0 {
		c.Period = DefaultPeriod
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.Busy == 0 {
		c.Busy = 16 << 20
	}
	return c
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	if c.Rate < 0 || c.Busy < 0 {
		return orca.E("scrub.Config", orca.Invalid, "a rate is negative")
	}
	return nil
}

// Store is what is scrubbed; tiered.Store is one.
type Store interface {
	// BlocksIn returns the blocks in the nth of blockfile.Folders.
	BlocksIn(folder int) []orca.BlockID
	// Check begins to verify a block. NotFound when it has left.
	Check(id orca.BlockID) (tiers.Check, error)
	// Traffic counts the bytes served and stored so far.
	Traffic() int64
	Usage() []tiers.Usage
}

// Metrics only grow.
type Metrics struct {
	Rounds         atomic.Int64 // completed
	Blocks         atomic.Int64 // read
	Bytes          atomic.Int64 // read
	BadGrains      atomic.Int64
	BadBlocks      atomic.Int64 // blocks with a bad grain: quarantined
	BadDirtyBlocks atomic.Int64 // of those, the only copy: kept, the bad grains never served
	Unreadable     atomic.Int64 // blocks that could not be read
	Waits          atomic.Int64 // times it gave way to readers
	Late           atomic.Int64 // rounds that took longer than the period
}

// Round is what one pass over all blocks found.
type Round struct {
	Forced  bool      `json:"forced"` // asked for, not by schedule
	Started time.Time `json:"started"`
	// Done is the part of the folders that is done, 0 to 1.
	Done     float64   `json:"done"`
	Blocks   int64     `json:"blocks"` // read
	Bytes    int64     `json:"bytes"`
	Bad      int64     `json:"bad_blocks"`
	BadDirty int64     `json:"bad_dirty_blocks"`
	Finished time.Time `json:"finished,omitzero"`
}

// Status says what a scrubber does and has found last.
type Status struct {
	Running bool   `json:"running"`
	Round   Round  `json:"round"` // the one under way
	Last    *Round `json:"last,omitempty"`
	Rounds  int64  `json:"rounds"` // completed since the worker started
	// PeriodSeconds is the time of a scheduled round; 0: none is scheduled.
	PeriodSeconds float64 `json:"period_seconds"`
	RateBytes     int64   `json:"rate_bytes_per_second"`
}

// Scrubber verifies one store. It is safe for concurrent use.
type Scrubber struct {
	Metrics Metrics

	cfg   Config
	store Store
	log   *slog.Logger
	kick  chan struct{}
	buf   []byte
	pace  pace

	mu     sync.Mutex
	status Status // GUARDED_BY(mu)
	again  bool   // a round was asked for; GUARDED_BY(mu)
}

// New makes a scrubber; Run makes it work.
func New(cfg Config, store Store, log *slog.Logger) (*Scrubber, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scrubber{cfg: cfg, store: store, log: log, kick: make(chan struct{}, 1)}
	s.pace = pace{rate: cfg.Rate, busy: cfg.Busy, traffic: store.Traffic, waits: &s.Metrics.Waits}
	s.status.RateBytes = cfg.Rate
	if cfg.Period > 0 {
		s.status.PeriodSeconds = cfg.Period.Seconds()
	}
	return s, nil
}

// Status returns where the round stands.
func (s *Scrubber) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Start begins a round now that reads every block that is here, unless one
// that was asked for is under way; a scheduled one gives way to it.
func (s *Scrubber) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Running && s.status.Round.Forced {
		return
	}
	s.again = true
	// Said at once, so that who asks next does not take the last round for it.
	s.status.Running, s.status.Round = true, Round{Forced: true, Started: time.Now()}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run scrubs until ctx ends.
func (s *Scrubber) Run(ctx context.Context) {
	buf, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		s.log.Error("scrub: no memory", "err", err)
		return
	}
	defer func() { _ = unix.Munmap(buf) }()
	s.buf = buf
	r := s.restore(time.Now())
	for ctx.Err() == nil {
		forced := s.asked()
		if forced {
			r = round{start: time.Now(), forced: true}
		} else if s.cfg.Period < 0 {
			select {
			case <-ctx.Done():
			case <-s.kick:
			}
			continue
		}
		if done := s.round(ctx, &r); !done {
			continue // ended, or something else was asked for
		}
		s.finish(&r)
		next := r.start.Add(s.cfg.Period)
		if now := time.Now(); next.Before(now) || forced {
			next = now // a round that was asked for counts: the next one is spread anew
		}
		r = round{start: next}
		s.save(&r)
	}
}

// asked reports whether a round was asked for, and takes the wish.
func (s *Scrubber) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.again
	s.again = false
	return a
}

// round is one pass over all folders.
type round struct {
	start  time.Time
	next   int // folder
	forced bool
}

// due is when a folder's turn is.
func (r *round) due(period time.Duration) time.Time {
	if r.forced {
		return r.start
	}
	return r.start.Add(time.Duration(float64(period) * 0.8 * float64(r.next) / blockfile.Folders))
}

// round goes on with a round; false when ctx ended or another was asked for.
func (s *Scrubber) round(ctx context.Context, r *round) bool {
	if !s.sleepUntil(ctx, r.start) {
		return false
	}
	s.begin(r)
	saved := time.Now()
	for ; r.next < blockfile.Folders; r.next++ {
		if due := r.due(s.cfg.Period); time.Until(due) > 0 && !s.sleepUntil(ctx, due) {
			return false
		}
		for _, id := range s.store.BlocksIn(r.next) {
			s.block(ctx, r, id)
			if ctx.Err() != nil || s.wanted(r) {
				return false
			}
		}
		if ctx.Err() != nil || s.wanted(r) {
			return false
		}
		s.mu.Lock()
		if !s.again || r.forced {
			s.status.Round.Done = float64(r.next+1) / blockfile.Folders
		}
		s.mu.Unlock()
		if time.Since(saved) > saveEvery {
			saved = time.Now()
			s.save(r)
		}
	}
	return true
}

// wanted reports whether a round was asked for that this one gives way to.
func (s *Scrubber) wanted(r *round) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again && !r.forced
}

// sleepUntil waits; false when ctx ended or a round was asked for.
func (s *Scrubber) sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-s.kick:
		return false
	case <-timer.C:
		return true
	}
}

func (s *Scrubber) begin(r *round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again && !r.forced {
		return // what the status says is of the round to come
	}
	s.status.Running = true
	if !s.status.Round.Started.Equal(r.start) { // else it goes on
		s.status.Round = Round{Forced: r.forced, Started: r.start}
	}
	s.status.Round.Done = float64(r.next) / blockfile.Folders
}

func (s *Scrubber) finish(r *round) {
	s.Metrics.Rounds.Add(1)
	took := time.Since(r.start)
	s.mu.Lock()
	last := s.status.Round
	if !s.again || r.forced {
		s.status.Running = s.again
	} else {
		last = Round{Started: r.start} // its figures gave way to the round to come
	}
	last.Done, last.Finished = 1, time.Now()
	s.status.Last = &last
	s.status.Rounds++
	s.mu.Unlock()
	level, msg := slog.LevelInfo, "scrubbed all blocks"
	if s.cfg.Period > 0 && took > s.cfg.Period {
		s.Metrics.Late.Add(1)
		level, msg = slog.LevelWarn, "scrubbed all blocks, in more than the period: raise --scrub-rate or --scrub-period"
	}
	s.log.Log(context.Background(), level, msg, "blocks", last.Blocks, "bytes", last.Bytes, "bad", last.Bad, "bad_dirty", last.BadDirty, "took", took.Round(time.Millisecond))
}

// block verifies one block.
func (s *Scrubber) block(ctx context.Context, r *round, id orca.BlockID) {
	c, err := s.store.Check(id)
	if err != nil {
		s.unreadable(id, err)
		return
	}
	defer c.Close()
	var bytes int64
	grains := 0
	for {
		if !s.pace.wait(ctx, step, s.behind(r)) {
			return
		}
		n, bad, err := c.Next(s.buf)
		bytes += n
		grains += bad
		s.Metrics.Bytes.Add(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			s.unreadable(id, err)
			break
		}
		s.pace.spent(n)
	}
	s.Metrics.Blocks.Add(1)
	dirty := grains > 0 && c.Dirty()
	if grains > 0 {
		s.Metrics.BadGrains.Add(int64(grains))
		s.Metrics.BadBlocks.Add(1)
		if dirty {
			s.Metrics.BadDirtyBlocks.Add(1)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.again && !r.forced {
		return
	}
	st := &s.status.Round
	st.Blocks++
	st.Bytes += bytes
	if grains > 0 {
		st.Bad++
		if dirty {
			st.BadDirty++
		}
	}
}

// unreadable notes a block that could not be read; one that left is none.
func (s *Scrubber) unreadable(id orca.BlockID, err error) {
	if errors.Is(err, orca.NotFound) {
		return
	}
	s.Metrics.Unreadable.Add(1)
	s.log.Warn("scrub: block cannot be read", "block", id.String(), "err", err)
}

// behind reports whether the round is so late that readers must share.
func (s *Scrubber) behind(r *round) bool {
	return !r.forced && time.Since(r.due(s.cfg.Period)) > s.cfg.Period/20
}

// The state of a round is one line: its start in nanoseconds since 1970, and
// its next folder.
func (s *Scrubber) save(r *round) {
	if s.cfg.State == "" || r.forced {
		return
	}
	line := strconv.FormatInt(r.start.UnixNano(), 10) + " " + strconv.Itoa(r.next) + "\n"
	err := os.WriteFile(s.cfg.State+".new", []byte(line), 0o600)
	if err == nil {
		err = os.Rename(s.cfg.State+".new", s.cfg.State)
	}
	if err != nil {
		s.log.Warn("scrub: the place of the round is not kept", "err", err)
	}
}

// restore finds where the last process was. A state that makes no sense, or is
// of a round long past, begins anew.
func (s *Scrubber) restore(now time.Time) round {
	fresh := round{start: now}
	if s.cfg.State == "" || s.cfg.Period < 0 {
		return fresh
	}
	b, err := os.ReadFile(s.cfg.State)
	if err != nil {
		return fresh
	}
	f := strings.Fields(string(b))
	if len(f) != 2 {
		return fresh
	}
	ns, err1 := strconv.ParseInt(f[0], 10, 64)
	next, err2 := strconv.Atoi(f[1])
	start := time.Unix(0, ns)
	if err1 != nil || err2 != nil || next < 0 || next >= blockfile.Folders || start.After(now.Add(s.cfg.Period)) {
		return fresh
	}
	return round{start: start, next: next}
}
