// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"
	"io"
	"math/bits"
	"sync/atomic"
	"time"

	"orca"
	"orca/ufs"
)

// latencyBuckets is the number of latency classes: class i holds calls under
// 2^i times 64 µs, the last one all others (over 34 s).
const latencyBuckets = 20

// BucketBound returns the upper bound of latency class i; 0 for the last.
func BucketBound(i int) time.Duration {
	if i >= latencyBuckets-1 {
		return 0
	}
	return 64 * time.Microsecond << i
}

// OpStats counts one method.
type OpStats struct {
	Calls   atomic.Int64
	Errors  atomic.Int64 // without NotFound of Stat, Open and Remove, which is an answer
	Nanos   atomic.Int64 // in sum
	Latency [latencyBuckets]atomic.Int64
}

// Stats counts what a store was asked for, attempts of Retry one by one.
type Stats struct {
	Ops       [NumOps]OpStats
	ReadBytes atomic.Int64
	// WriteBytes counts bytes given to uploads, committed or not.
	WriteBytes atomic.Int64
	// Inflight is the number of calls and open readers now.
	Inflight atomic.Int64
	// Bounds are the waits of Limit.
	Bounds [NumBounds]BoundStats
}

// Metrics counts every call of inner in s.
func Metrics(inner ufs.FS, s *Stats) ufs.FS {
	m := &metrics{in: inner, s: s}
	return shape(&layer{in: inner, around: m.around, open: m.open, data: true})
}

type metrics struct {
	in ufs.FS
	s  *Stats
}

func (m *metrics) around(ctx context.Context, c Call, do func(context.Context) error) error {
	if c.Op == Write {
		err := do(ctx)
		m.s.WriteBytes.Add(int64(c.N))
		return err
	}
	m.s.Inflight.Add(1)
	start := time.Now()
	err := do(ctx)
	m.s.Inflight.Add(-1)
	m.s.Ops[c.Op].done(c.Op, time.Since(start), err)
	return err
}

func (o *OpStats) done(op Op, d time.Duration, err error) {
	o.Calls.Add(1)
	o.Nanos.Add(int64(d))
	o.Latency[min(bits.Len64(uint64(d/(64*time.Microsecond))), latencyBuckets-1)].Add(1)
	if err == nil {
		return
	}
	if k := orca.KindOf(err); k == orca.NotFound && (op == Stat || op == Open || op == Remove) {
		return
	}
	o.Errors.Add(1)
}

func (m *metrics) open(ctx context.Context, key string, off, n int64, want string) (r io.ReadCloser, err error) {
	err = m.around(ctx, Call{Op: Open, Key: key}, func(ctx context.Context) error {
		r, err = m.in.Open(ctx, key, off, n, want)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.s.Inflight.Add(1)
	return &countedReader{ReadCloser: r, s: m.s}, nil
}

// countedReader counts bytes; it adds one atomic to a Read.
type countedReader struct {
	io.ReadCloser
	s      *Stats
	closed bool
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.s.ReadBytes.Add(int64(n))
	return n, err
}

func (r *countedReader) Close() error {
	if !r.closed {
		r.closed = true
		r.s.Inflight.Add(-1)
	}
	return r.ReadCloser.Close()
}

// ReadOnly refuses every call that changes the store with orca.ReadOnly.
func ReadOnly(inner ufs.FS) ufs.FS {
	return Intercept(inner, func(ctx context.Context, c Call, do func(context.Context) error) error {
		if c.Op.Mutates() || c.Op == Sweep {
			return &orca.Error{Op: "wrap." + c.Op.String(), Path: c.Key, Kind: orca.ReadOnly, Msg: "the mount is read-only"}
		}
		return do(ctx)
	})
}
