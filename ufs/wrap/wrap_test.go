// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/ufstest"
	"orca/ufs/wrap"
)

var flavours = map[string]memufs.Config{"files": {}, "objects": {Objects: true}}

// TestConformance: each decorator, and all of them stacked, keep the contract.
func TestConformance(t *testing.T) {
	decorators := map[string]func(ufs.FS) ufs.FS{
		"retry": func(fs ufs.FS) ufs.FS { return wrap.Retry(fs, wrap.RetryConfig{}) },
		"limit": func(fs ufs.FS) ufs.FS {
			return wrap.Limit(fs, wrap.LimitConfig{Concurrent: 8, IOPS: 1 << 20, ReadRate: 1 << 32, WriteRate: 1 << 32}, new(wrap.Stats))
		},
		"metrics": func(fs ufs.FS) ufs.FS { return wrap.Metrics(fs, new(wrap.Stats)) },
		"faults":  func(fs ufs.FS) ufs.FS { return wrap.NewFaults(fs).FS() },
		"all": func(fs ufs.FS) ufs.FS {
			fs = wrap.Limit(wrap.Metrics(wrap.NewFaults(fs).FS(), new(wrap.Stats)), wrap.LimitConfig{Concurrent: 16}, new(wrap.Stats))
			return wrap.Retry(fs, wrap.RetryConfig{})
		},
	}
	for flavour, cfg := range flavours {
		for name, d := range decorators {
			t.Run(flavour+"/"+name, func(t *testing.T) {
				ufstest.Run(t, ufstest.Suite{FS: d(memufs.New(cfg).FS()), Large: 1 << 20, Many: 1100})
			})
		}
		t.Run(flavour+"/read-only", func(t *testing.T) {
			ufstest.Run(t, ufstest.Suite{FS: wrap.ReadOnly(memufs.New(cfg).FS()), ReadOnly: true})
		})
	}
}

// TestRetryHealsEveryCall fails the nth call of each method once, for every
// method and n: under Retry the whole suite still passes, but for what Retry
// says that it leaves alone (uploads).
func TestRetryHealsEveryCall(t *testing.T) {
	down := orca.E("test", orca.Unavailable, "down")
	for _, op := range []wrap.Op{wrap.Stat, wrap.List, wrap.Open, wrap.Read, wrap.Create, wrap.Mkdir, wrap.Remove, wrap.Sweep, wrap.Rename, wrap.Copy, wrap.Walk} {
		for _, lose := range []bool{false, true} {
			if lose && (op == wrap.Rename || op == wrap.Read) {
				continue // a lost answer of a rename cannot be told from a missing source
			}
			t.Run(op.String(), func(t *testing.T) {
				f := wrap.NewFaults(memufs.New(memufs.Config{Objects: op == wrap.Copy || op == wrap.Walk}).FS())
				fs := wrap.Retry(f.FS(), wrap.RetryConfig{Base: time.Microsecond})
				for nth := 1; nth < 60; nth += 3 {
					r := wrap.Rule{Op: op, Nth: nth}
					if lose {
						r.Lose = down
					} else {
						r.Err = down
					}
					f.Add(r)
				}
				round(t, fs)
			})
		}
	}
}

// round does one of everything.
func round(t *testing.T, fs ufs.FS) {
	t.Helper()
	ctx := t.Context()
	for i := range 20 {
		dir := string(rune('a' + i))
		require.NoError(t, fs.Mkdir(ctx, dir, 0o755))
		in, err := ufstest.Put(ctx, fs, dir+"/f", bytes.Repeat([]byte("data"), 1000))
		require.NoError(t, err)
		b, err := ufstest.Get(ctx, fs, dir+"/f", 0, -1, in.Fingerprint)
		require.NoError(t, err)
		require.Len(t, b, 4000)
		_, err = fs.Stat(ctx, dir+"/f")
		require.NoError(t, err)
		n := 0
		require.NoError(t, fs.List(ctx, dir, func(ufs.Info) error { n++; return nil }))
		require.Equal(t, 1, n)
		require.NoError(t, fs.Sweep(ctx, dir+"/f", "x"))
		if r, ok := fs.(ufs.Renamer); ok {
			require.NoError(t, r.Rename(ctx, dir+"/f", dir+"/g"))
			require.NoError(t, fs.Remove(ctx, dir+"/g"))
			continue
		}
		_, err = fs.(ufs.Copier).Copy(ctx, dir+"/f", dir+"/g", in.Fingerprint)
		require.NoError(t, err)
		n = 0
		require.NoError(t, fs.(ufs.Lister).Walk(ctx, dir, func(ufs.Info) error { n++; return nil }))
		require.Equal(t, 2, n)
	}
}

func TestRetryIsBounded(t *testing.T) {
	f := wrap.NewFaults(memufs.New(memufs.Config{}).FS())
	fs := wrap.Retry(f.FS(), wrap.RetryConfig{Attempts: 4, Base: time.Microsecond})
	f.Add(wrap.Rule{Op: wrap.Stat, Err: orca.E("test", orca.Busy, "")})
	_, err := fs.Stat(t.Context(), "x")
	require.ErrorIs(t, err, orca.Busy)
	require.Equal(t, 4, f.Calls(wrap.Stat))

	f.Clear()
	f.Add(wrap.Rule{Op: wrap.Mkdir, Err: orca.E("test", orca.Permission, "")})
	require.ErrorIs(t, fs.Mkdir(t.Context(), "x", 0), orca.Permission)
	require.Equal(t, 1, f.Calls(wrap.Mkdir), "what will not heal is not repeated")

	slow := wrap.Retry(f.FS(), wrap.RetryConfig{Attempts: 4, Base: time.Hour, Max: time.Hour})
	f.Add(wrap.Rule{Op: wrap.List, Err: orca.E("test", orca.Unavailable, "")})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, slow.List(ctx, "", nil), orca.Unavailable, "the pause obeys the context")
}

// TestListResumes breaks a listing in its middle: nothing comes twice.
func TestListResumes(t *testing.T) {
	s := memufs.New(memufs.Config{Objects: true})
	for _, k := range []string{"a", "b-", "b/x", "c", "d", "e"} {
		s.Put(k, "x")
	}
	broken := 0
	flaky := flakyList{s.FS(), &broken}
	fs := wrap.Retry(flaky, wrap.RetryConfig{Attempts: 9, Base: time.Microsecond})
	var got []string
	require.NoError(t, fs.List(t.Context(), "", func(in ufs.Info) error {
		got = append(got, in.Key)
		return nil
	}))
	require.Equal(t, []string{"a", "b-", "b", "c", "d", "e"}, got)
	require.Equal(t, 2, broken)
	mine := orca.E("mine", orca.Unavailable, "of the caller")
	err := fs.List(t.Context(), "", func(ufs.Info) error { return mine })
	require.Same(t, error(mine), err, "an error of fn is not retried") //nolint:testifylint // identity is meant
}

// flakyList breaks its listings after two, then four, then six entries.
type flakyList struct {
	ufs.FS
	broken *int
}

func (f flakyList) List(ctx context.Context, dir string, fn func(ufs.Info) error) error {
	n, most := 0, 2*(*f.broken+1)
	return f.FS.List(ctx, dir, func(in ufs.Info) error {
		if n++; n > most && *f.broken < 3 {
			*f.broken++
			return orca.E("flaky", orca.Unavailable, "page lost")
		}
		return fn(in)
	})
}

// TestReaderResumes breaks a reader several times; with a fingerprint it goes
// on, without one it fails, and over a changed object it says Stale.
func TestReaderResumes(t *testing.T) {
	s := memufs.New(memufs.Config{})
	f := wrap.NewFaults(s.FS())
	fs := wrap.Retry(f.FS(), wrap.RetryConfig{Base: time.Microsecond})
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	in := s.Put("k", string(data))
	down := orca.E("test", orca.Unavailable, "reset")
	for _, nth := range []int{2, 3, 7} {
		f.Add(wrap.Rule{Op: wrap.Read, Nth: nth, Err: down})
	}
	got, err := ufstest.Get(t.Context(), fs, "k", 5, 400_000, in.Fingerprint)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data[5:400_005], got))

	f.Clear()
	f.Add(wrap.Rule{Op: wrap.Read, Nth: 2, Err: down})
	_, err = ufstest.Get(t.Context(), fs, "k", 0, -1, "")
	require.ErrorIs(t, err, orca.Unavailable)

	f.Clear()
	f.Add(wrap.Rule{Op: wrap.Read, Nth: 2, Err: down, Before: func(wrap.Call) { s.Put("k", "new") }})
	r, err := fs.Open(t.Context(), "k", 0, -1, in.Fingerprint)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
	require.ErrorIs(t, err, orca.Stale)
	require.NoError(t, r.Close())
}

func TestMetrics(t *testing.T) {
	var s wrap.Stats
	fs := wrap.Metrics(memufs.New(memufs.Config{}).FS(), &s)
	_, err := ufstest.Put(t.Context(), fs, "k", make([]byte, 1234))
	require.NoError(t, err)
	_, err = ufstest.Get(t.Context(), fs, "k", 0, 1000, "")
	require.NoError(t, err)
	_, err = fs.Stat(t.Context(), "none")
	require.Error(t, err)
	require.ErrorIs(t, fs.Mkdir(t.Context(), "no/parent", 0), orca.NotFound)
	require.EqualValues(t, 1234, s.WriteBytes.Load())
	require.EqualValues(t, 1000, s.ReadBytes.Load())
	require.EqualValues(t, 1, s.Ops[wrap.Commit].Calls.Load())
	require.EqualValues(t, 0, s.Ops[wrap.Stat].Errors.Load(), "a missing name is an answer")
	require.EqualValues(t, 1, s.Ops[wrap.Mkdir].Errors.Load())
	require.Zero(t, s.Inflight.Load())
	n := int64(0)
	for i := range s.Ops[wrap.Stat].Latency {
		n += s.Ops[wrap.Stat].Latency[i].Load()
	}
	require.EqualValues(t, 1, n)
	require.Equal(t, 128*time.Microsecond, wrap.BucketBound(1))
}

func TestFaults(t *testing.T) {
	s := memufs.New(memufs.Config{})
	f := wrap.NewFaults(s.FS())
	fs := f.FS()
	ctx := t.Context()
	mine := errors.New("disk on fire")

	nth := f.Add(wrap.Rule{Op: wrap.Commit, Key: "d/*", Nth: 2, Err: mine})
	for i, want := range []error{nil, mine, nil} {
		_, err := ufstest.Put(ctx, fs, "d/f", []byte{byte(i)})
		require.ErrorIs(t, err, want)
	}
	require.Equal(t, 1, f.Hits(nth))

	f.Add(wrap.Rule{Op: wrap.Remove, Lose: mine})
	require.ErrorIs(t, fs.Remove(ctx, "d/f"), mine)
	_, err := fs.Stat(ctx, "d/f")
	require.ErrorIs(t, err, orca.NotFound, "it was done all the same")

	gate, reached := make(chan struct{}), make(chan struct{})
	f.Add(wrap.Rule{Op: wrap.Mkdir, Block: gate, Before: func(wrap.Call) { close(reached) }})
	done := make(chan error, 1)
	go func() { done <- fs.Mkdir(ctx, "blocked", 0o755) }()
	<-reached
	_, ok := s.Data("blocked/")
	require.False(t, ok)
	close(gate)
	require.NoError(t, <-done)
	f.Clear()
	never := make(chan struct{})
	f.Add(wrap.Rule{Op: wrap.AnyOp, Block: never})
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err = fs.Stat(short, "x")
	require.ErrorIs(t, err, orca.Timeout)
}

// TestStaleViews: hidden and ghost objects, and listings that lag.
func TestStaleViews(t *testing.T) {
	s := memufs.New(memufs.Config{Objects: true})
	f := wrap.NewFaults(s.FS())
	fs := f.FS()
	ctx := t.Context()
	names := func() (out []string) {
		require.NoError(t, fs.List(ctx, "", func(in ufs.Info) error {
			out = append(out, in.Key)
			return nil
		}))
		return out
	}
	a, _ := s.Put("a", "1"), s.Put("c", "3")
	f.Hide("a", false)
	require.Equal(t, []string{"c"}, names())
	_, err := fs.Stat(ctx, "a")
	require.NoError(t, err)
	f.Hide("a", true)
	_, err = fs.Open(ctx, "a", 0, -1, "")
	require.ErrorIs(t, err, orca.NotFound)
	f.Show("a")
	f.Ghost(ufs.Info{Key: "b", Fingerprint: "old"})
	f.Ghost(a)
	require.Equal(t, []string{"a", "b", "c"}, names(), "merged in order, none twice")
	f.Clear()

	f.Lag(time.Hour)
	require.NoError(t, fs.Remove(ctx, "c"))
	_, err = ufstest.Put(ctx, fs, "new", []byte("x"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "c"}, names(), "the listing of an hour ago")
	_, err = fs.Stat(ctx, "c")
	require.ErrorIs(t, err, orca.NotFound, "stats are exact")
	f.Clear()
	require.Equal(t, []string{"a", "new"}, names())
}
