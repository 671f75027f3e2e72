// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSmoke runs every suite that needs a server end to end, with sizes that
// mean nothing: it proves that each case starts what it needs, gets a figure,
// and leaves nothing behind.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("builds orca and starts servers")
	}
	bin := filepath.Join(t.TempDir(), "orca")
	out, err := exec.Command("go", "build", "-o", bin, "orca/engine/cmd/orca").CombinedOutput()
	require.NoError(t, err, "%s", out)
	self, err := os.Executable()
	require.NoError(t, err)
	for _, name := range []string{"io", "worker", "slowpeer", "meta", "fuse", "restart"} {
		t.Run(name, func(t *testing.T) {
			if name == "fuse" && os.Geteuid() != 0 {
				t.Skip("the mount's kernel cache can only be dropped by root")
			}
			cases, err := Select(name, nil)
			require.NoError(t, err)
			for _, c := range Cases() {
				if c.Suite == name && c.Named {
					cases = append(cases, c)
				}
			}
			var progress strings.Builder
			temp := t.TempDir()
			rep, _, err := Run(t.Context(), cases, Options{
				Pairs: 1, Size: 2 << 20, Files: 20, Blocks: 1000, Clients: 4, Sample: 50 * time.Millisecond,
				Self: self, Orca: bin, Temp: temp, Progress: &progress, Tiny: true,
			}, "test")
			require.NoError(t, err, progress.String())
			for _, row := range rep.Results {
				require.Empty(t, row.Error, "%s/%s", row.Suite, row.Case)
				require.Positive(t, *row.Ratio)
			}
			require.Len(t, rep.Results, len(cases))
			require.NoError(t, rep.WriteTable(&progress))
			t.Log(progress.String())
			mounts, err := os.ReadFile("/proc/self/mounts")
			require.NoError(t, err)
			require.NotContains(t, string(mounts), temp, "a mount was left behind")
		})
	}
	t.Run("footprint", func(t *testing.T) {
		var text strings.Builder
		r, err := MeasureFootprint(t.Context(), Options{Self: self, Orca: bin, Temp: t.TempDir(), Progress: &text, Tiny: true}, 2000, 200, "test")
		require.NoError(t, err, text.String())
		require.Len(t, r.Sizes, 2)
		for i, n := range []int64{200, 2000} {
			s := r.Sizes[i]
			require.GreaterOrEqual(t, s.Inodes, n)
			for _, v := range []float64{s.GrowRate, s.DiskPerInode, s.Start, s.StartClean, float64(s.RSSStart), float64(s.RSSServed), float64(s.RSSCached), s.Stats} {
				require.Positive(t, v)
			}
		}
		require.NoError(t, r.WriteTable(&text))
		require.NoError(t, r.WriteJSON(&text))
		t.Log(text.String())
	})
	t.Run("failover", func(t *testing.T) {
		var text strings.Builder
		r, err := MeasureFailover(t.Context(), Options{Clients: 2, Self: self, Orca: bin, Temp: t.TempDir(), Progress: &text}, 1, "test")
		require.NoError(t, err, text.String())
		for _, o := range slices.Concat(r.Kills, r.Transfers, r.Alone) {
			require.Positive(t, o.Gap)
			require.NotEqual(t, make([]int, len(o.Creates)), o.Creates)
		}
		require.Len(t, r.Kills, 1)
		require.Len(t, r.Transfers, 1)
		require.Len(t, r.Alone, 1)
		require.Positive(t, r.Kills[0].Terms)
		require.Positive(t, r.Transfers[0].Terms)
		require.NoError(t, r.WriteTable(&text))
		require.NoError(t, r.WriteJSON(&text))
		t.Log(text.String())
	})
}
