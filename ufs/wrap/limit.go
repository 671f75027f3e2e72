// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"
	"io"
	"sync"
	"time"

	"orca"
	"orca/ufs"
)

// LimitConfig bounds what one store is asked for; zero fields do not bound.
type LimitConfig struct {
	// Concurrent calls, opened readers included until they are closed.
	Concurrent int
	// ReadRate and WriteRate are bytes per second.
	ReadRate, WriteRate int64
}

// Validate checks the bounds.
func (c LimitConfig) Validate() error {
	if c.Concurrent < 0 || c.ReadRate < 0 || c.WriteRate < 0 {
		return orca.E("wrap.LimitConfig", orca.Invalid, "a limit is negative")
	}
	return nil
}

// Limit makes callers wait, within their context, until the store may be asked.
func Limit(inner ufs.FS, cfg LimitConfig) ufs.FS {
	if cfg == (LimitConfig{}) {
		return inner
	}
	m := &limiter{in: inner, read: newBucket(cfg.ReadRate), write: newBucket(cfg.WriteRate)}
	if cfg.Concurrent > 0 {
		m.slots = make(chan struct{}, cfg.Concurrent)
	}
	return shape(&layer{in: inner, around: m.around, open: m.open, data: true})
}

type limiter struct {
	in          ufs.FS
	slots       chan struct{} // nil: no bound
	read, write *bucket       // nil: no bound
}

func (m *limiter) acquire(ctx context.Context, c Call) error {
	if m.slots == nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ended(ctx, c)
	}
}

func (m *limiter) release() {
	if m.slots != nil {
		<-m.slots
	}
}

// ended is the error of a context that ended while waiting.
func ended(ctx context.Context, c Call) error {
	k := orca.Canceled
	if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // Err returns it bare
		k = orca.Timeout
	}
	return &orca.Error{Op: "wrap." + c.Op.String(), Path: c.Key, Kind: k, Err: ctx.Err()}
}

func (m *limiter) around(ctx context.Context, c Call, do func(context.Context) error) error {
	if c.Op == Write {
		if err := m.write.wait(ctx, c.N); err != nil {
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
	once sync.Once
}

func (r *limitedReader) Read(p []byte) (int, error) {
	if r.m.read != nil && int64(len(p)) > r.m.read.rate {
		p = p[:r.m.read.rate]
	}
	n, err := r.rc.Read(p)
	if werr := r.m.read.wait(r.ctx, n); werr != nil && err == nil {
		err = ended(r.ctx, Call{Op: Read, Key: r.key})
	}
	return n, err
}

func (r *limitedReader) Close() error {
	err := r.rc.Close()
	r.once.Do(r.m.release)
	return err
}

// bucket is a token bucket of one second's worth of bytes. A debt is allowed,
// so that a request larger than the bucket passes and later ones wait.
type bucket struct {
	rate int64

	mu    sync.Mutex
	left  float64   // may be negative; GUARDED_BY(mu)
	since time.Time // of left; GUARDED_BY(mu)
}

func newBucket(rate int64) *bucket {
	if rate <= 0 {
		return nil
	}
	return &bucket{rate: rate, left: float64(rate) / 4, since: time.Now()}
}

// wait takes n bytes, waiting for the debt to be paid; a nil bucket never waits.
func (b *bucket) wait(ctx context.Context, n int) error {
	if b == nil || n == 0 {
		return nil
	}
	b.mu.Lock()
	now := time.Now()
	b.left = min(float64(b.rate)/4, b.left+now.Sub(b.since).Seconds()*float64(b.rate)) - float64(n)
	b.since = now
	debt := -b.left
	b.mu.Unlock()
	if debt <= 0 {
		return nil
	}
	t := time.NewTimer(time.Duration(debt / float64(b.rate) * float64(time.Second)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
