// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memufs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs/memufs"
	"orca/ufs/ufstest"
)

func TestConformance(t *testing.T) {
	for name, cfg := range map[string]memufs.Config{"files": {}, "objects": {Objects: true}} {
		t.Run(name, func(t *testing.T) {
			s := memufs.New(cfg)
			ufstest.Run(t, ufstest.Suite{FS: s.FS(), Large: 8 << 20})
			require.Zero(t, s.Uploads(), "an upload was left open")
		})
	}
}

func TestCapacity(t *testing.T) {
	fs := memufs.New(memufs.Config{Capacity: 10}).FS()
	_, err := ufstest.Put(t.Context(), fs, "a", make([]byte, 8))
	require.NoError(t, err)
	_, err = ufstest.Put(t.Context(), fs, "b", make([]byte, 8))
	require.ErrorIs(t, err, orca.NoSpace)
	_, err = ufstest.Put(t.Context(), fs, "a", make([]byte, 10))
	require.NoError(t, err, "a replacement pays only the difference")
}

func TestSharedByName(t *testing.T) {
	a, b := memufs.Shared("x", memufs.Config{}), memufs.Shared("x", memufs.Config{})
	require.Same(t, a, b)
	h := a.FS()
	require.NoError(t, h.Close())
	_, err := h.Stat(t.Context(), "")
	require.ErrorIs(t, err, orca.Unavailable)
	_, err = b.FS().Stat(t.Context(), "")
	require.NoError(t, err, "other handles live on")
}

func TestBehindOurBack(t *testing.T) {
	s := memufs.New(memufs.Config{})
	in := s.Put("d/f", "one")
	require.Equal(t, []string{"d/", "d/f"}, s.Keys())
	require.NotEqual(t, in.Fingerprint, s.Put("d/f", "two").Fingerprint)
	require.True(t, s.Drop("d"))
	require.Empty(t, s.Keys())
}
