// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/memufs"
)

type oneStore struct{ fs ufs.FS }

func (s oneStore) FS(context.Context, uint32) (ufs.FS, error) { return s.fs, nil }

func (s oneStore) At(context.Context, uint32, string) (ufs.FS, error) { return s.fs, nil }

// TestFence: who may not change a store any more may still look at it, and all
// that it can do otherwise is there.
func TestFence(t *testing.T) {
	for _, objects := range []bool{false, true} {
		store := memufs.New(memufs.Config{Objects: objects})
		var deposed error
		asked := 0
		fs, err := fenced{oneStore{store.FS()}, func(context.Context) error { asked++; return deposed }}.FS(t.Context(), 1)
		require.NoError(t, err)
		write := func(key string) error {
			w, err := fs.Create(t.Context(), key, "token")
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, "data"); err != nil {
				return err
			}
			_, err = w.Commit(t.Context())
			return err
		}
		require.NoError(t, write("kept"))
		require.Positive(t, asked)
		_, renames := store.FS().(ufs.Renamer)
		r, ok := fs.(ufs.Renamer)
		require.Equal(t, renames, ok)

		deposed = errTestDeposed
		require.ErrorIs(t, write("late"), orca.NotLeader)
		require.ErrorIs(t, fs.Remove(t.Context(), "kept"), orca.NotLeader)
		require.ErrorIs(t, fs.Mkdir(t.Context(), "dir", 0o755), orca.NotLeader)
		require.ErrorIs(t, fs.Sweep(t.Context(), "kept", "token"), orca.NotLeader)
		if ok {
			require.ErrorIs(t, r.Rename(t.Context(), "kept", "moved"), orca.NotLeader)
		}
		if b, ok := fs.(ufs.BulkRemover); ok {
			require.ErrorIs(t, b.RemoveMany(t.Context(), []ufs.Info{{Key: "kept"}}), orca.NotLeader)
		}
		i, err := fs.Stat(t.Context(), "kept")
		require.NoError(t, err)
		require.EqualValues(t, 4, i.Size)
		_, err = fs.Stat(t.Context(), "late")
		require.ErrorIs(t, err, orca.NotFound)
	}
}

var errTestDeposed = orca.E("test", orca.NotLeader, "")
