// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufs_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"orca/ufs"
)

// TestCompare: the order is that of the keys with a slash behind directories.
func TestCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.Custom(func(t *rapid.T) ufs.Info {
			return ufs.Info{Key: rapid.StringMatching(`[ab\-.0](/?[ab\-.0]){0,4}`).Draw(t, "key"), Dir: rapid.Bool().Draw(t, "dir")}
		})
		raw := func(i ufs.Info) string {
			if i.Dir {
				return i.Key + "/"
			}
			return i.Key
		}
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		want := slices.Compare([]byte(raw(a)), []byte(raw(b)))
		got := ufs.Compare(a, b)
		require.Equal(t, want < 0, got < 0, "%q %q", raw(a), raw(b))
		if a != b && raw(a) != raw(b) {
			require.NotZero(t, got, "%q %q", raw(a), raw(b))
		}
	})
}

func TestIsTemp(t *testing.T) {
	require.True(t, ufs.IsTemp("a/b/"+ufs.TempPrefix+"x"))
	require.False(t, ufs.IsTemp(ufs.TempPrefix+"x/a"))
	require.False(t, ufs.IsTemp("a"))
}
