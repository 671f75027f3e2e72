// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/bench/workload"
	"orca/metaplane/command"
)

// testStage is a stage without servers.
func testStage(t *testing.T) *stage {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	o := Options{Pairs: 1, Tiny: true, Self: self, Clients: 3, Pipeline: 2, Sample: 20 * time.Millisecond, Temp: t.TempDir()}
	require.NoError(t, o.setDefaults())
	s, err := newStage(t.Context(), o)
	require.NoError(t, err)
	m := facts.Read(time.Now(), "test")
	s.facts = &m
	t.Cleanup(func() { require.NoError(t, s.close()) })
	return s
}

// TestEchoSide runs the echo process over both networks.
func TestEchoSide(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s := testStage(t)
			s.opt.Network = network
			sd, done, err := s.echoSide(t.Context(), []byte("how are you"), 300)
			require.NoError(t, err)
			m, err := sample(t.Context(), sd, true)
			require.NoError(t, err)
			require.GreaterOrEqual(t, m.work, 6.0, "each lane had an answer")
			require.Positive(t, m.cpu)
			require.NoError(t, done())
		})
	}
}

func TestScanSide(t *testing.T) {
	s := testStage(t)
	sd, done, err := s.scanSide(workload.Names("entry", 2500))
	require.NoError(t, err)
	m, err := sample(t.Context(), sd, true)
	require.NoError(t, err)
	require.EqualValues(t, 2500, m.work)
	require.NoError(t, done())
}

// TestCreatePayload: the payload of the raw proposals is a command that the
// metaplane would accept as one of its own.
func TestCreatePayload(t *testing.T) {
	b, err := createPayload()
	require.NoError(t, err)
	var c command.Command
	require.NoError(t, command.Decode(b, &c))
	require.True(t, c.Create.Complete)
	require.Greater(t, len(b), 60)
	require.Less(t, len(b), 256)
}

// TestNative: the native folder is a tmpfs, is compared by type, and vanishes.
func TestNative(t *testing.T) {
	s := testStage(t)
	dir, err := s.native()
	require.NoError(t, err)
	again, err := s.native()
	require.NoError(t, err)
	require.Equal(t, dir, again)
	fsType, _, err := facts.Mount(dir)
	require.NoError(t, err)
	require.Equal(t, "tmpfs", fsType)
	require.NoError(t, s.sameTier(dir))
	require.ErrorContains(t, s.sameTier("/proc"), "not comparable")
	require.NoError(t, baseline.WriteFile(filepath.Join(dir, "f"), 1, 3<<20))
	require.NoError(t, baseline.Verify(filepath.Join(dir, "f"), 1, 3<<20))
	require.NoError(t, s.close())
	if fsType, _, err := facts.Mount(dir); err == nil {
		require.NotEqual(t, "tmpfs", fsType, "the mount is gone")
	}
	s.last, s.nativeDir = nil, ""
}

// TestSides: the mount's side drops the caches before each of its passes, the
// native side reads once before each of its own.
func TestSides(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("dropping the kernel's caches needs root")
	}
	s := testStage(t)
	a, b := filepath.Join(s.temp, "a"), filepath.Join(s.temp, "b")
	for _, p := range []string{a, b} {
		require.NoError(t, baseline.WriteFile(p, 1, 4096))
	}
	f := &fuseStage{s: s, tier: "ext4"}
	var log []string
	tr := f.sides(os.Getpid(), []pair{{mount: a, native: b}}, func(paths []string) (measure, error) {
		log = append(log, filepath.Base(paths[0]))
		return measure{work: 1, took: time.Second}, nil
	})
	_, err := sample(context.Background(), tr.system, false)
	require.NoError(t, err)
	_, err = sample(context.Background(), tr.baselines[0], false)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "b"}, log)
	require.ErrorContains(t, f.drop([]string{filepath.Join(s.temp, "missing")}), "missing")
}
