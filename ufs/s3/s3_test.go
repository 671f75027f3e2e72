// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/ufs/s3"
	"orca/ufs/ufstest"
	"orca/ufs/ufstest/minio"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, cfg s3.Config) *s3.FS {
	t.Helper()
	f, err := s3.Open(t.Context(), cfg, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func TestConformance(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"suite"}, Count: true})
	f := open(t, srv.Config("suite", "root/of it"))
	ufstest.Run(t, ufstest.Suite{FS: f, NoSweep: true, Many: 1100})
}

// TestCopyInParts copies an object that is too large for one CopyObject.
func TestCopyInParts(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"copies"}})
	cfg := srv.Config("copies", "")
	cfg.CopyPart = s3.MinPart
	f := open(t, cfg)
	data := bytes.Repeat([]byte("0123456789abcdef"), 13<<20/16)
	in, err := ufstest.Put(t.Context(), f, "a b", data)
	require.NoError(t, err)
	out, err := f.Copy(t.Context(), "a b", "c", in.Fingerprint)
	require.NoError(t, err)
	st, err := f.Stat(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, out.Fingerprint, st.Fingerprint)
	got, err := ufstest.Get(t.Context(), f, "c", 0, -1, out.Fingerprint)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}
