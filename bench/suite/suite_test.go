// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/bench/baseline"
)

// TestMain lets the baselines start this very test binary in a role.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == baseline.Role {
		if err := baseline.Main(os.Args[2:], Roles()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// script is a case whose sides write down when they ran.
type script struct {
	log   []string
	fail  string        // name of the side that fails
	after int           // on its call number after
	calls int           // of that side
	took  time.Duration // of each pass
}

func (s *script) side(name string, rate float64) side {
	return side{name: name,
		before: func(context.Context) error { s.log = append(s.log, "drop "+name); return nil },
		run: func(context.Context) (measure, error) {
			s.log = append(s.log, name)
			if name == s.fail {
				if s.calls++; s.calls > s.after {
					return measure{}, errors.New("broken pipe")
				}
			}
			return measure{work: rate * s.took.Seconds(), took: s.took}, nil
		}}
}

func (s *script) testCase(baselines ...side) Case {
	return Case{Suite: "test", Name: "x", Metric: "m", Unit: unitOps, Baseline: "b",
		open: func(context.Context, *stage) (*trial, error) {
			return &trial{system: s.side("A", 90), baselines: baselines, close: func() error { s.log = append(s.log, "close"); return nil }}, nil
		}}
}

// TestInterleaving pins the order of a run: both sides are warmed up, then
// they take turns with the order reversed in every other pair, and each pass
// has its own preparation.
func TestInterleaving(t *testing.T) {
	s := &script{took: time.Second}
	rep, _, err := Run(t.Context(), []Case{s.testCase(s.side("B", 100), s.side("C", 50))}, Options{Pairs: 5}, "test")
	require.NoError(t, err)
	var runs []string
	for i, l := range s.log {
		if len(l) == 1 {
			runs = append(runs, l)
			require.Equal(t, "drop "+l, s.log[i-1])
		}
	}
	require.Equal(t, "A B C | A B C C B A A B C C B A A B C", strings.Join(runs[:3], " ")+" | "+strings.Join(runs[3:], " "))
	require.Equal(t, "close", s.log[len(s.log)-1])

	row := rep.Results[0]
	require.Empty(t, row.Error)
	require.Equal(t, "B", row.BaselineName, "the stronger baseline counts")
	require.InDelta(t, 0.9, *row.Ratio, 1e-9)
	require.Len(t, row.Samples, 5)
	require.InDelta(t, 50, row.Samples[0].Rivals["C"], 1e-9)
	require.Equal(t, "µs/op", row.Samples[0].CPUUnit)
}

// TestShortPassesAreRepeated: a sample of a millisecond is no sample.
func TestShortPassesAreRepeated(t *testing.T) {
	s := &script{took: 50 * time.Millisecond}
	m, err := sample(t.Context(), s.side("A", 90), false)
	require.NoError(t, err)
	require.Equal(t, []string{"drop A", "A", "drop A", "A", "drop A", "A", "drop A", "A"}, s.log)
	require.InDelta(t, 90, m.value(), 1e-9)
	require.GreaterOrEqual(t, m.took, enough)
}

// TestFailuresAreRows: whatever breaks, in whichever sample, the case is an
// error row without figures, it is closed, and the next case still runs.
func TestFailuresAreRows(t *testing.T) {
	for _, c := range []struct {
		name  string
		fail  string
		after int
		took  time.Duration
		want  string
	}{
		{"system in the warm-up", "A", 0, time.Second, "warm-up: A: broken pipe"},
		{"baseline in the warm-up", "B", 0, time.Second, "warm-up: B: broken pipe"},
		{"system in the last pair", "A", 5, time.Second, "A: broken pipe"},
		{"baseline in a pair", "B", 3, time.Second, "B: broken pipe"},
		{"no time passed", "", 0, 0, "did nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &script{took: c.took, fail: c.fail, after: c.after}
			good := &script{took: time.Second}
			rep, _, err := Run(t.Context(), []Case{s.testCase(s.side("B", 100)), good.testCase(good.side("B", 100))}, Options{Pairs: 5}, "test")
			require.NoError(t, err)
			require.Equal(t, 1, rep.Failed())
			require.Contains(t, rep.Results[0].Error, c.want)
			require.Nil(t, rep.Results[0].Ratio)
			require.Nil(t, rep.Results[0].Value)
			require.Equal(t, "close", s.log[len(s.log)-1])
			require.NotNil(t, rep.Results[1].Ratio)
		})
	}
}

func TestOpenAndCloseFailures(t *testing.T) {
	s := &script{took: time.Second}
	bad := Case{Suite: "test", Name: "open", open: func(context.Context, *stage) (*trial, error) { return nil, errors.New("no disk") }}
	leaky := s.testCase(s.side("B", 1))
	open := leaky.open
	leaky.open = func(ctx context.Context, st *stage) (*trial, error) {
		tr, err := open(ctx, st)
		tr.close = func() error { return errors.New("cannot unmount") }
		return tr, err
	}
	rep, _, err := Run(t.Context(), []Case{bad, leaky}, Options{Pairs: 5}, "test")
	require.NoError(t, err)
	require.Equal(t, "no disk", rep.Results[0].Error)
	require.Contains(t, rep.Results[1].Error, "cannot unmount")
	require.Nil(t, rep.Results[1].Ratio)
}

// TestCancelled: Ctrl-C ends the run, and what was not measured has no figure.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &script{took: time.Second}
	c := s.testCase(side{name: "B", run: func(context.Context) (measure, error) {
		cancel()
		return measure{work: 1, took: time.Second}, nil
	}})
	rep, _, err := Run(ctx, []Case{c, c}, Options{Pairs: 5}, "test")
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, rep.Results, 1)
	require.NotEmpty(t, rep.Results[0].Error)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Pairs: 4}, {Pairs: -1}, {Size: 64 << 20}, {Size: 100<<20 + 1}, {Files: -1}, {Clients: -1}, {Pipeline: -1},
		{Clients: 1000, Pipeline: 1000}, {Network: "ipx"}, {Sample: time.Microsecond},
	} {
		_, _, err := Run(t.Context(), nil, o, "test")
		require.Error(t, err, "%+v", o)
	}
	o := Options{Pairs: 1, Size: 1 << 20, Tiny: true}
	require.NoError(t, o.setDefaults())
}

func TestTempIsRemovedUnlessGiven(t *testing.T) {
	var dir string
	c := Case{open: func(_ context.Context, s *stage) (*trial, error) { dir = s.temp; return nil, errors.New("x") }}
	_, _, err := Run(t.Context(), []Case{c}, Options{}, "test")
	require.NoError(t, err)
	require.NoDirExists(t, dir)
	own := t.TempDir()
	_, _, err = Run(t.Context(), []Case{c}, Options{Temp: own}, "test")
	require.NoError(t, err)
	require.DirExists(t, own)
}

func TestSelect(t *testing.T) {
	all, err := Select("fuse", nil)
	require.NoError(t, err)
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
		require.NotEmpty(t, c.About)
		require.NotEmpty(t, c.Baseline)
	}
	require.Equal(t, []string{"seq-1m", "rand-4k", "open-read-close-100k", "stat", "ls-l"}, names)
	some, err := Select("io", []string{"cold", "remote"})
	require.NoError(t, err)
	require.Equal(t, "cold", some[0].Name)
	_, err = Select("io", []string{"nope"})
	require.Error(t, err)
	_, err = Select("nope", nil)
	require.Error(t, err)
}

// TestRace: all lanes work, and a lane's error is the sample's.
func TestRace(t *testing.T) {
	m, err := counted(t.Context(), 4, 10, func(context.Context, int, int) error { return nil })
	require.NoError(t, err)
	require.EqualValues(t, 40, m.work)
	require.EqualValues(t, 40, m.lat.Count())

	m, err = timed(t.Context(), 3, 30*time.Millisecond, func(context.Context, int, int) error { <-time.After(time.Millisecond); return nil })
	require.NoError(t, err)
	require.GreaterOrEqual(t, m.took, 30*time.Millisecond)
	require.Less(t, m.work, 120.0)

	_, err = counted(t.Context(), 2, 5, func(_ context.Context, lane, i int) error {
		if lane == 1 && i == 3 {
			return errors.New("lane broke")
		}
		return nil
	})
	require.ErrorContains(t, err, "lane broke")
}

// TestEnv runs the one suite that needs nothing but the machine.
func TestEnv(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cases, err := Select("env", nil)
	require.NoError(t, err)
	var out strings.Builder
	profiles := t.TempDir()
	rep, taken, err := Run(t.Context(), cases, Options{Pairs: 1, Size: 2 << 20, Tiny: true, Self: self, Progress: &out, Profile: profiles}, "test")
	require.NoError(t, err)
	for _, row := range rep.Results {
		require.Empty(t, row.Error, row.Case)
		require.Positive(t, *row.Ratio, row.Case)
	}
	require.Contains(t, rep.Machine.Config["tiny"], "mean nothing")
	require.NotEmpty(t, rep.Machine.Filesystems["temp"])
	require.Len(t, taken, len(cases))
	files, err := filepath.Glob(profiles + "/env-*.orcabench.*.pb.gz")
	require.NoError(t, err)
	require.Len(t, files, 2*len(cases))
	require.NoError(t, rep.WriteTable(&out))
	t.Log(out.String())
}
