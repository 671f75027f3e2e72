// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/ufstest"
	"orca/ufs/wrap"
)

// limited is a store of one object "k" of this many bytes, with limits.
func limited(size int, cfg wrap.LimitConfig) (ufs.FS, *wrap.Stats) {
	s := memufs.New(memufs.Config{})
	s.Put("k", string(make([]byte, size)))
	st := new(wrap.Stats)
	return wrap.Limit(s.FS(), cfg, st), st
}

func TestLimitConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, st := limited(1, wrap.LimitConfig{Concurrent: 2})
		a, err := fs.Open(t.Context(), "k", 0, -1, "")
		require.NoError(t, err)
		b, err := fs.Open(t.Context(), "k", 0, -1, "")
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = fs.Stat(ctx, "k")
		require.ErrorIs(t, err, orca.Timeout, "both slots are taken by open readers")
		w := &st.Bounds[wrap.BoundConcurrent]
		require.EqualValues(t, 1, w.Waits.Load())
		require.EqualValues(t, 3*time.Second, w.Nanos.Load())
		require.Zero(t, w.Waiting.Load())
		require.NoError(t, a.Close())
		require.NoError(t, a.Close(), "a second Close gives no second slot back")
		_, err = fs.Stat(t.Context(), "k")
		require.NoError(t, err)
		require.NoError(t, b.Close())
	})
}

// TestLimitBandwidth: what goes through is the rate, but for the first quarter
// of a second's worth, in both directions and for all users together.
func TestLimitBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		fs, st := limited(4*rate, wrap.LimitConfig{ReadRate: rate, WriteRate: 2 * rate})
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				b, err := ufstest.Get(t.Context(), fs, "k", 0, -1, "")
				if err != nil || len(b) != 4*rate {
					t.Error(len(b), err)
				}
			})
		}
		wg.Go(func() {
			if _, err := ufstest.Put(t.Context(), fs, "w", make([]byte, 8*rate)); err != nil {
				t.Error(err)
			}
			// Reads wait for reads only.
			require.InDelta(t, (3750 * time.Millisecond).Seconds(), time.Since(start).Seconds(), 0.001)
		})
		wg.Wait()
		require.InDelta(t, (11750 * time.Millisecond).Seconds(), time.Since(start).Seconds(), 0.001)
		require.Positive(t, st.Bounds[wrap.BoundRead].Waits.Load())
		require.Positive(t, st.Bounds[wrap.BoundWrite].Waits.Load())
		require.Zero(t, st.Bounds[wrap.BoundRead].Waiting.Load())
	})
}

// TestLimitIsFair: a short transfer beside long ones takes its share of the
// rate, and not its turn after them.
func TestLimitIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		fs, _ := limited(16*rate, wrap.LimitConfig{ReadRate: rate, WriteRate: rate})
		long, end := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := ufstest.Get(long, fs, "k", 0, -1, ""); err == nil {
					t.Error("the long reader was not held back")
				}
			})
			wg.Go(func() {
				if _, err := ufstest.Put(long, fs, "w", make([]byte, 16*rate)); err == nil {
					t.Error("the long writer was not held back")
				}
			})
		}
		time.Sleep(time.Second) // of the test's own clock
		start := time.Now()
		_, err := ufstest.Get(t.Context(), fs, "k", 0, rate/4, "")
		require.NoError(t, err)
		// Four of them share: a quarter of the bytes takes a second, and who
		// comes first a piece more.
		require.LessOrEqual(t, time.Since(start), 1300*time.Millisecond)
		start = time.Now()
		_, err = ufstest.Put(t.Context(), fs, "short", make([]byte, rate/4))
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), 1300*time.Millisecond)
		end()
		wg.Wait()
	})
}

// TestLimitIOPS: calls are counted, data and the end of an upload are not.
func TestLimitIOPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, st := limited(4<<20, wrap.LimitConfig{IOPS: 8})
		start := time.Now()
		for range 2 {
			_, err := fs.Stat(t.Context(), "k")
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(start), "a quarter of a second's worth at once")
		_, err := ufstest.Put(t.Context(), fs, "w", make([]byte, 4<<20))
		require.NoError(t, err)
		_, err = ufstest.Get(t.Context(), fs, "w", 0, -1, "")
		require.NoError(t, err)
		require.NoError(t, fs.List(t.Context(), "", func(ufs.Info) error { return nil }))
		_, err = fs.Stat(t.Context(), "k")
		require.NoError(t, err)
		require.InDelta(t, 0.5, time.Since(start).Seconds(), 0.001, "four more calls")
		w := &st.Bounds[wrap.BoundIOPS]
		require.EqualValues(t, 4, w.Waits.Load())
		require.InDelta(t, 0.5, time.Duration(w.Nanos.Load()).Seconds(), 0.001)
	})
}

// TestLimitCanceled: who gives up waiting takes nothing with him, and an
// upload ends with the context that began it.
func TestLimitCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		fs, st := limited(rate, wrap.LimitConfig{IOPS: 4, WriteRate: rate, ReadRate: rate})
		_, err := fs.Stat(t.Context(), "k") // the only one at once
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				if _, err := fs.Stat(ctx, "k"); orca.KindOf(err) != orca.Timeout {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Zero(t, st.Bounds[wrap.BoundIOPS].Waiting.Load())
		start := time.Now()
		_, err = fs.Stat(t.Context(), "k")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), 250*time.Millisecond, "the hundred were not served and cost nothing")

		time.Sleep(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		w, err := fs.Create(ctx, "w", "")
		require.NoError(t, err)
		time.AfterFunc(time.Second, cancel)
		start = time.Now()
		n, err := w.Write(make([]byte, 100*rate))
		require.ErrorIs(t, err, orca.Canceled)
		require.Less(t, n, 2*rate)
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, w.Abort(t.Context()))

		time.Sleep(time.Second)
		ctx, cancel = context.WithCancel(t.Context())
		r, err := fs.Open(ctx, "k", 0, -1, "")
		require.NoError(t, err)
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
		require.ErrorIs(t, err, orca.Canceled)
		require.NoError(t, r.Close())
	})
}

func TestLimitConfig(t *testing.T) {
	for _, c := range []wrap.LimitConfig{{Concurrent: -1}, {IOPS: -1}, {ReadRate: -1}, {WriteRate: -1}, {ReadRate: 100}, {WriteRate: wrap.MinRate - 1}} {
		require.ErrorIs(t, c.Validate(), orca.Invalid, "%+v", c)
	}
	require.NoError(t, wrap.LimitConfig{Concurrent: 1, IOPS: 1, ReadRate: wrap.MinRate, WriteRate: wrap.MinRate}.Validate())
	s := memufs.New(memufs.Config{}).FS()
	require.Equal(t, s, wrap.Limit(s, wrap.LimitConfig{}, new(wrap.Stats)), "no limits, no layer")
	for b := range wrap.NumBounds {
		require.NotEqual(t, "unknown", b.String())
	}
}
