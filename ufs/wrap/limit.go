// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/ufs"
)

// LimitConfig bounds what one store is asked for; zero fields do not bound.
type LimitConfig struct {
	// Concurrent calls, opened readers included until they are closed.
	Concurrent int
	// IOPS are calls begun per second. An opened range, an upload, a listing
	// and a Stat are one each, whatever they move.
	IOPS int64
	// ReadRate and WriteRate are bytes per second, at least MinRate.
	ReadRate, WriteRate int64
}

// MinRate is the smallest bandwidth that may be asked for: at less, one grain
// would take seconds, and its reader would take the store for dead.
const MinRate = orca.GrainSize

// Validate checks the bounds.
func (c LimitConfig) Validate() error {
	const op = "wrap.LimitConfig"
	if c.Concurrent < 0 || c.IOPS < 0 || c.ReadRate < 0 || c.WriteRate < 0 {
		return orca.E(op, orca.Invalid, "a limit is negative")
	}
	if c.ReadRate > 0 && c.ReadRate < MinRate || c.WriteRate > 0 && c.WriteRate < MinRate {
		return orca.E(op, orca.Invalid, "a bandwidth is below 64KiB per second")
	}
	return nil
}

// Bound names one bound of a LimitConfig in metrics.
type Bound uint8

// The bounds.
const (
	BoundConcurrent Bound = iota
	BoundIOPS
	BoundRead
	BoundWrite
	NumBounds // how many there are
)

var boundNames = [NumBounds]string{"concurrent", "iops", "read_rate", "write_rate"}

// String returns the name of the bound's option, without its prefix.
func (b Bound) String() string {
	if b < NumBounds {
		return boundNames[b]
	}
	return "unknown"
}

// BoundStats counts who had to wait for a bound.
type BoundStats struct {
	Waits   atomic.Int64 // calls, and pieces of data, that had to
	Nanos   atomic.Int64 // in sum
	Waiting atomic.Int64 // now
}

func (s *BoundStats) begin() (end func()) {
	s.Waits.Add(1)
	s.Waiting.Add(1)
	at := time.Now()
	return func() {
		s.Waiting.Add(-1)
		s.Nanos.Add(int64(time.Since(at)))
	}
}

// Limit makes callers wait, within their context, until the store may be
// asked; waits are counted in s. Who waits is served in the order of arrival,
// and data in small pieces, so that a long transfer leaves room to others. An
// upload waits within the context of its Create.
func Limit(inner ufs.FS, cfg LimitConfig, s *Stats) ufs.FS {
	if cfg == (LimitConfig{}) {
		return inner
	}
	m := &limiter{
		in: inner, s: &s.Bounds[BoundConcurrent], ops: newBucket(cfg.IOPS, &s.Bounds[BoundIOPS]),
		read: newBucket(cfg.ReadRate, &s.Bounds[BoundRead]), write: newBucket(cfg.WriteRate, &s.Bounds[BoundWrite]),
	}
	if cfg.Concurrent > 0 {
		m.slots = make(chan struct{}, cfg.Concurrent)
	}
	return shape(&layer{in: inner, around: m.around, open: m.open, data: true, writePiece: m.write.piece(), bound: true})
}

type limiter struct {
	in    ufs.FS
	slots chan struct{} // nil: no bound
	s     *BoundStats   // of slots
	// nil: no bound
	ops, read, write *bucket
}

func (m *limiter) acquire(ctx context.Context, c Call) error {
	if begins(c.Op) {
		if err := m.ops.wait(ctx, 1, true); err != nil {
			return ended(ctx, c)
		}
	}
	if m.slots == nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	default:
	}
	defer m.s.begin()()
	select {
	case m.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, c)
	}
}

// begins reports whether a call counts as one of IOPS. An upload has paid when
// it was begun; holding back its end would only hold its memory.
func begins(op Op) bool {
	switch op {
	case Read, Write, Prepare, Commit, Abort:
		return false
	}
	return true
}

func (m *limiter) release() {
	if m.slots != nil {
		<-m.slots
	}
}

// ended is the error of a context that ended while waiting.
func ended(ctx context.Context, c Call) error {
	k := orca.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		k = orca.Timeout
	}
	return &orca.Error{Op: "wrap." + c.Op.String(), Path: c.Key, Kind: k, Err: ctx.Err()}
}

func (m *limiter) around(ctx context.Context, c Call, do func(context.Context) error) error {
	if c.Op == Write {
		if err := m.write.wait(ctx, c.N, true); err != nil {
			return ended(ctx, c)
		}
	}
	if err := m.acquire(ctx, c); err != nil {
		return err
	}
	defer m.release()
	return do(ctx)
}

func (m *limiter) open(ctx context.Context, key string, off, n int64, want string) (io.ReadCloser, error) {
	if err := m.acquire(ctx, Call{Op: Open, Key: key}); err != nil {
		return nil, err
	}
	r, err := m.in.Open(ctx, key, off, n, want)
	if err != nil {
		m.release()
		return nil, err
	}
	return &limitedReader{rc: r, m: m, ctx: ctx, key: key}, nil
}

// limitedReader pays for what it read, and gives its slot back when closed.
type limitedReader struct {
	rc   io.ReadCloser
	m    *limiter
	ctx  context.Context //nolint:containedctx // a reader's life is one call of its opener
	key  string
	owed int // read and not paid: less than a piece
	once sync.Once
}

// Read pays by the piece, so that a reader with a small buffer gets as many
// bytes as one with a large one.
func (r *limitedReader) Read(p []byte) (int, error) {
	piece := r.m.read.piece()
	if piece == 0 {
		return r.rc.Read(p)
	}
	n, err := r.rc.Read(p[:min(len(p), piece-r.owed)])
	if r.owed += n; r.owed < piece {
		return n, err
	}
	r.owed = 0
	if werr := r.m.read.wait(r.ctx, piece, false); werr != nil && err == nil {
		err = ended(r.ctx, Call{Op: Read, Key: r.key})
	}
	return n, err
}

func (r *limitedReader) Close() error {
	err := r.rc.Close()
	r.once.Do(func() {
		r.m.read.take(r.owed)
		r.m.release()
	})
	return err
}

// bucket is a token bucket of a quarter of a second's worth. A debt is
// allowed: who takes more than is there waits until it is paid, and later ones
// behind him. A nil bucket has no bound.
type bucket struct {
	rate  int64
	stats *BoundStats

	mu    sync.Mutex
	left  float64   // may be negative; GUARDED_BY(mu)
	since time.Time // of left; GUARDED_BY(mu)
}

func newBucket(rate int64, s *BoundStats) *bucket {
	if rate <= 0 {
		return nil
	}
	b := &bucket{rate: rate, stats: s, since: time.Now()}
	b.left = b.depth()
	return b
}

// depth is what an idle bucket holds: at least one call.
func (b *bucket) depth() float64 { return max(1, float64(b.rate)/4) }

// piece is how many bytes may move at once; 0: any number.
func (b *bucket) piece() int {
	if b == nil {
		return 0
	}
	return int(max(b.rate/16, 4<<10))
}

// take takes n tokens and returns the debt, if more than 0.
func (b *bucket) take(n int) (debt float64) {
	if b == nil || n == 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.left = min(b.depth(), b.left+now.Sub(b.since).Seconds()*float64(b.rate)) - float64(n)
	b.since = now
	return -b.left
}

// wait takes n tokens, waiting for the debt to be paid. When ctx ends first
// they are given back if refund, for what was to be done is not; those who
// wait behind keep the time that they were told.
func (b *bucket) wait(ctx context.Context, n int, refund bool) error {
	debt := b.take(n)
	if debt <= 0 {
		return nil
	}
	defer b.stats.begin()()
	t := time.NewTimer(time.Duration(debt / float64(b.rate) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		if refund {
			b.mu.Lock()
			b.left += float64(n)
			b.mu.Unlock()
		}
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
