// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/local"
	"orca/ufs/memufs"
)

// TestRemovalSparesWhatIsNewer: an intent that comes from a backup removes what
// was there then, and nothing that was written since.
func TestRemovalSparesWhatIsNewer(t *testing.T) {
	root := t.TempDir()
	disk, err := local.Open(t.Context(), local.Config{Root: root}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	objects := memufs.New(memufs.Config{Objects: true})
	for name, tc := range map[string]struct {
		fs  ufs.FS
		put func(key string)
	}{
		"folder": {disk, func(key string) {
			p := filepath.Join(root, key)
			require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
			require.NoError(t, os.WriteFile(p, []byte(key), 0o644))
		}},
		"objects": {objects.FS(), func(key string) { objects.Put(key, key) }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, k := range []string{"d/old", "d/sub/old", "d/gone/old"} {
				tc.put(k)
			}
			info, err := tc.fs.Stat(t.Context(), "d/gone/old")
			require.NoError(t, err)
			backup := info.Mtime.Add(2 * time.Millisecond)
			require.Eventually(t, func() bool { // file systems tell time coarsely
				tc.put("tick")
				info, err := tc.fs.Stat(t.Context(), "tick")
				return err == nil && info.Mtime.After(backup)
			}, time.Minute, time.Millisecond)
			for _, k := range []string{"d/new", "d/sub/new"} {
				tc.put(k)
			}
			e := &Executor{}
			require.NoError(t, e.removeTree(t.Context(), tc.fs, "d", spare(backup)))
			for k, kept := range map[string]bool{"d/old": false, "d/sub/old": false, "d/gone/old": false, "d/new": true, "d/sub/new": true} {
				_, err := tc.fs.Stat(t.Context(), k)
				if kept {
					require.NoError(t, err, k)
				} else {
					require.ErrorIs(t, err, orca.NotFound, k)
				}
			}
			require.NoError(t, e.removeTree(t.Context(), tc.fs, "d", spare{}))
			_, err = tc.fs.Stat(t.Context(), "d")
			require.ErrorIs(t, err, orca.NotFound)
		})
	}
}
