// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package readthrough is the read half of dataplane.Blocks: what is cached is
// handed out by the store; what is not is fetched, once, from a worker that
// has it or from the UFS, and handed out while it arrives.
//
//	Open ─ hit ──────────────────────────────────────────► store extent
//	     └ miss ─► fill of the block ─► stream (claims a range, one open GET)
//	                  every waiter ◄─ tick ─ WriteGrains ◄─┘
//	     └ no cache wanted, or no room ─► pass: a sealed-off memory file per range
//
// A fill exists while somebody waits for a block or a stream of it runs. Its
// streams claim disjoint ranges, so a grain has one flight whoever asks. A
// reader that goes on in order (it says so, or is seen to) lets its stream run
// ahead of it by a window that doubles up to ReadAhead, on one open-ended GET;
// a stream that reaches its limit parks with the GET open, and goes when nobody
// wants more for Idle. A reader that jumps gets just the grains it asks for.
//
// What no worker holds is fetched by the home of its file, for all workers. A
// home that is busy enough hands new blocks on to the next one (home.go).
//
// When the store of a mount is far (its GETs take farAfter to answer), what is
// fetched ahead of a reader in order is split into streams of farPart: one
// connection carries no more than its window in a round trip. A store that is
// near gets one GET per block, for there a second one only costs.
//
// Every read of a UFS carries the fingerprint of the version, so versions are
// never mixed: a mismatch is Stale, after one look at whether the file only
// moved.
//
// Goroutines: one per stream and one per fill being set
// up. A fill outlives the request that began it, but not Close. Lock order:
// fill.mu → Service.mu; the store is never called with Service.mu held.
package readthrough

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane"
	"orca/tiers"
	"orca/ufs"
)

// Peer is another worker that holds a file, at least in part.
type Peer struct {
	Worker uint64
	Addr   string
}

// Source says where the content of a file is.
type Source struct {
	// Attr of the file now: Length, BlockSize, Version and Runs, MountID,
	// Fingerprint and Persist are used.
	Attr orca.Attr
	// Key within the FS of the mount.
	Key string
	// Peers hold blocks of it, best first.
	Peers []Peer
	// Homes are the other workers that may fetch what no worker holds, for all
	// others, so that the store is asked once: the first that takes it on does.
	// The first Before of them come before this worker.
	Homes  []Peer
	Before int
}

// Resolver finds the source of a file; the worker asks the metaplane.
type Resolver interface {
	// Resolve returns the source of a file. NotFound when it is gone.
	Resolve(ctx context.Context, file orca.Ino) (Source, error)
}

// Mounts opens the store below a mount.
type Mounts interface {
	FS(ctx context.Context, mountID uint32) (ufs.FS, error)
}

// Peers reads from other workers.
type Peers interface {
	// Open returns the bytes that req asks for, verified against their sums;
	// fewer than req.N make the reader end early. req.OnlyCached is set, or
	// req.Direct for the home of a file.
	Open(ctx context.Context, p Peer, req dataplane.ReadRequest) (io.ReadCloser, error)
}

// Config bounds a Service.
type Config struct {
	// Page is the first step of read-ahead, and the size up to which a block
	// is fetched whole at its first miss (default 1 MiB).
	Page int64
	// ReadAhead is the largest distance that a stream runs ahead of its
	// sequential reader, in bytes (default 32 MiB).
	ReadAhead int64
	// Jump is how far behind its position a stream may be for a reader out of
	// order to wait for it rather than fetch its own grains (default 2 MiB).
	Jump int64
	// Idle is how long a parked stream keeps its GET open (default 3 s).
	Idle time.Duration
	// Stall ends a source that delivers nothing for so long (default 30 s).
	Stall time.Duration
	// RoomWait bounds how long a fill waits for room in the tiers before its
	// bytes are passed through uncached (default 250 ms).
	RoomWait time.Duration
	// MaxStreams bounds the streams that fill blocks (default 64); half as many
	// more may run for what other workers wait for.
	MaxStreams int
	// MaxPass bounds the ranges (of at most 1 MiB) held in memory for readers
	// that bypass the cache (default 64).
	MaxPass int
	// ResolveFor is how long a source is remembered (default 10 s).
	ResolveFor time.Duration
	// FillRest goes on in the background until the block is complete.
	FillRest bool
}

func (c Config) withDefaults() Config {
	size := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	size(&c.Page, orca.PageSize)
	size(&c.ReadAhead, 32<<20)
	size(&c.Jump, 2<<20)
	wait(&c.Idle, 3*time.Second)
	wait(&c.Stall, 30*time.Second)
	wait(&c.RoomWait, 250*time.Millisecond)
	wait(&c.ResolveFor, 10*time.Second)
	if c.MaxStreams == 0 {
		c.MaxStreams = 64
	}
	if c.MaxPass == 0 {
		c.MaxPass = 64
	}
	return c
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.Page < orca.GrainSize || c.Page%orca.GrainSize != 0 || c.ReadAhead < c.Page || c.Jump < 0 || c.MaxStreams < 1 || c.MaxPass < 1 ||
		c.Idle < 0 || c.Stall < 0 || c.RoomWait < 0 || c.ResolveFor < 0 {
		return orca.E("readthrough.Config", orca.Invalid, "a size or limit is out of range (page: a multiple of 64 KiB; read-ahead: at least a page)")
	}
	return nil
}

// Metrics are counters that only grow, but for the gauges named so.
type Metrics struct {
	Hits       atomic.Int64 // requests served from the store at once
	Misses     atomic.Int64 // requests that had to wait for a fill
	Joins      atomic.Int64 // of these, those that joined a flight
	Passed     atomic.Int64 // requests that bypassed the cache
	Fills      atomic.Int64 // blocks that began to fill
	UFSReads   atomic.Int64 // GETs opened
	PeerReads  atomic.Int64
	HomeReads  atomic.Int64 // asked of the home of a file
	HomeBusy   atomic.Int64 // refused as the home of a file, for load
	UFSBytes   atomic.Int64
	PeerBytes  atomic.Int64
	CacheBytes atomic.Int64 // handed out from the store at once
	PassBytes  atomic.Int64
	PeerErrors atomic.Int64
	UFSErrors  atomic.Int64 // after the retries of the UFS layer
	Stale      atomic.Int64
	NoRoom     atomic.Int64 // fills given up for lack of room
	Resolves   atomic.Int64
	Streams    atomic.Int64 // gauge: running or parked
	Queued     atomic.Int64 // gauge: streams that wait for one of MaxStreams
	Active     atomic.Int64 // gauge: fills
}

// Service serves reads. It is safe for concurrent use.
type Service struct {
	Metrics Metrics

	cfg     Config
	store   tiers.Store
	resolve Resolver
	mounts  Mounts
	peers   Peers
	onStale func(orca.Ino, uint32)
	log     *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{} // one per stream
	lent   chan struct{} // further ones, for streams that ask no other worker to fetch
	passes chan struct{} // one per range in memory
	room   noRoom
	track  tracker
	known  sources
	bodies bodies
	lat    latencies

	mu     sync.Mutex
	fills  map[orca.BlockID]*fill // GUARDED_BY(mu)
	handed handedOn               // GUARDED_BY(mu)
	parked map[*stream]struct{}   // GUARDED_BY(mu)
	closed bool                   // GUARDED_BY(mu)
}

// Deps are what a Service is composed of.
type Deps struct {
	Store    tiers.Store
	Resolver Resolver
	Mounts   Mounts
	Peers    Peers // nil: none
	// OnStale is told that the UFS content under a version has changed or
	// gone; it must not block. nil: nobody.
	OnStale func(file orca.Ino, version uint32)
}

// New makes a service; Close ends it.
func New(cfg Config, d Deps, log *slog.Logger) *Service {
	cfg = cfg.withDefaults()
	s := &Service{
		cfg: cfg, store: d.Store, resolve: d.Resolver, mounts: d.Mounts, peers: d.Peers, onStale: d.OnStale, log: log,
		slots: make(chan struct{}, cfg.MaxStreams), lent: make(chan struct{}, (cfg.MaxStreams+1)/2), passes: make(chan struct{}, cfg.MaxPass),
		fills: map[orca.BlockID]*fill{}, parked: map[*stream]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.known.ttl = cfg.ResolveFor
	s.bodies.idle = cfg.Idle
	return s
}

// Close ends every stream and waits for them. Requests that wait fail with
// Unavailable.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.bodies.closeAll()
	s.wg.Wait()
	return nil
}

// Open implements dataplane.Blocks.
func (s *Service) Open(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	if req.Off < 0 || req.N <= 0 {
		return dataplane.Extent{}, &orca.Error{Op: "readthrough.Open", Path: req.ID.String(), Kind: orca.Invalid, Msg: "range out of bounds"}
	}
	req.N = min(req.N, 1<<30)
	if req.Verify {
		_ = s.store.Recheck(req.ID)
	}
	e, err := s.store.Get(req.ID, req.Off, req.N)
	if err == nil {
		s.Metrics.Hits.Add(1)
		s.Metrics.CacheBytes.Add(e.N)
		if s.Metrics.Active.Load() > 0 {
			s.extend(req, e.N)
		}
		return e, nil
	}
	if m, serr := s.store.Stat(req.ID); serr == nil && req.Off >= m.Length {
		return nothing(), nil
	}
	if orca.KindOf(err) != orca.NotFound || req.OnlyCached {
		return e, err
	}
	s.Metrics.Misses.Add(1)
	return s.miss(ctx, req)
}

// Held implements dataplane.Holder.
func (s *Service) Held(req dataplane.ReadRequest) (dataplane.Extent, bool) {
	if req.Off < 0 || req.N <= 0 || req.Verify || s.filling(req.ID) { // which may have to go on for it
		return dataplane.Extent{}, false
	}
	e, ok := s.store.Held(req.ID, req.Off, min(req.N, 1<<30))
	if ok {
		s.Metrics.Hits.Add(1)
		s.Metrics.CacheBytes.Add(e.N)
	}
	return e, ok
}

func (s *Service) filling(id orca.BlockID) bool {
	if s.Metrics.Active.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fills[id] != nil
}

// nothing is the extent at and after the end of a block.
func nothing() dataplane.Extent { return dataplane.Extent{Release: func() {}} }

// maxRestarts bounds how often one request starts over because its block was
// removed or quarantined under it.
const maxRestarts = 4

// miss fetches what a request asks for.
func (s *Service) miss(ctx context.Context, req dataplane.ReadRequest) (dataplane.Extent, error) {
	seq, window := s.track.note(req, s.cfg)
	if req.Type == orca.ReadNoCache {
		return s.pass(ctx, req, seq)
	}
	if s.room.lacking() {
		src, err := s.source(ctx, req.ID, false)
		if err != nil {
			return dataplane.Extent{}, err
		}
		if s.room.lacks(src.Attr.BlockLength(req.ID.Index)) {
			return s.pass(ctx, req, seq)
		}
	}
	for range maxRestarts {
		f, joined, err := s.join(req)
		if err != nil {
			return dataplane.Extent{}, err
		}
		if joined {
			s.Metrics.Joins.Add(1)
		}
		e, err := f.wait(ctx, req, seq, window)
		s.leave(f)
		switch {
		case err == errRestart: //nolint:errorlint // this very error, not its kind
			continue
		case orca.KindOf(err) == orca.NoSpace:
			s.Metrics.NoRoom.Add(1)
			s.room.refused(f.size, s.cfg.RoomWait)
			return s.pass(ctx, req, seq)
		}
		return e, err
	}
	return dataplane.Extent{}, &orca.Error{Op: "readthrough.Open", Path: req.ID.String(), Kind: orca.Busy, Msg: "block was removed again and again while it was filled"}
}

// errRestart says that the block of a fill is gone: begin another.
var errRestart error = orca.E("readthrough.fill", orca.Busy, "block was removed while it was filled")

// join returns the fill of a block, beginning it if there is none.
func (s *Service) join(req dataplane.ReadRequest) (f *fill, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, orca.E("readthrough.Open", orca.Unavailable, "worker is stopping")
	}
	f = s.fills[req.ID]
	if f != nil && f.dead.Load() {
		f = nil
	}
	away := s.handed.has(req.ID, time.Now())
	if req.Direct && s.refusesLocked(req.ID, f, away) {
		s.Metrics.HomeBusy.Add(1)
		return nil, false, &orca.Error{Op: "readthrough.Open", Path: req.ID.String(), Kind: orca.Busy, Msg: "this worker fetches enough for others"}
	}
	direct := req.Direct || req.Own
	if f != nil {
		f.users++
		if direct {
			f.direct.Store(true)
		}
		return f, true, nil
	}
	f = &fill{s: s, id: req.ID, away: away, ready: make(chan struct{}), tick: make(chan struct{}), users: 2}
	f.grant.Store(&req.Grant)
	f.direct.Store(direct)
	s.fills[req.ID] = f
	s.Metrics.Fills.Add(1)
	s.Metrics.Active.Add(1)
	s.wg.Go(func() {
		f.setUp()
		s.leave(f)
	})
	return f, false, nil
}

// leave ends one use of a fill; the last one closes it.
func (s *Service) leave(f *fill) {
	s.mu.Lock()
	f.users--
	last := f.users == 0
	if last && s.fills[f.id] == f {
		delete(s.fills, f.id)
	}
	s.mu.Unlock()
	if last {
		s.Metrics.Active.Add(-1)
		if f.w != nil {
			_ = f.w.Close()
		}
	}
}

// extend moves the limit of a stream on when its reader, served from the
// store, goes on in order.
func (s *Service) extend(req dataplane.ReadRequest, got int64) {
	s.mu.Lock()
	f := s.fills[req.ID]
	if f == nil || f.dead.Load() {
		s.mu.Unlock()
		return
	}
	f.users++
	s.mu.Unlock()
	req.N = got
	if seq, window := s.track.note(req, s.cfg); seq {
		f.ahead(req.Off+got, window)
	}
	s.leave(f)
}

// acquire takes a slot for a stream of a fill, ending a parked one if there is
// none.
func (s *Service) acquire(ctx context.Context, f *fill) (slot chan struct{}, err error) {
	if slot = s.free(f); slot != nil {
		return slot, nil
	}
	s.Metrics.Queued.Add(1)
	defer s.Metrics.Queued.Add(-1)
	for {
		s.mu.Lock()
		for st := range s.parked {
			delete(s.parked, st)
			st.end() // its slot comes free
			break
		}
		s.mu.Unlock()
		select {
		case s.slots <- struct{}{}:
			s.Metrics.Streams.Add(1)
			return s.slots, nil
		case <-ctx.Done():
			return nil, orca.PathE("readthrough.Open", "", orca.Canceled, ctx.Err())
		case <-time.After(50 * time.Millisecond): // others may have parked by now, or wait for this one
		}
		if slot = s.free(f); slot != nil {
			return slot, nil
		}
	}
}

// free takes a slot if there is one, nil if not.
func (s *Service) free(f *fill) chan struct{} {
	take := func(slots chan struct{}) bool {
		select {
		case slots <- struct{}{}:
			s.Metrics.Streams.Add(1)
			return true
		default:
			return false
		}
	}
	switch {
	case take(s.slots):
		return s.slots
	case f.direct.Load() && take(s.lent):
		return s.lent
	}
	return nil
}

func (s *Service) release(slot chan struct{}) {
	s.Metrics.Streams.Add(-1)
	<-slot
}
