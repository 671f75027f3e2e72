// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
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

// TestSweepNamed: of two uploads of one key whose processes died, the one is
// removed whose name was told, and only that.
func TestSweepNamed(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"named"}})
	cfg := srv.Config("named", "")
	cfg.PartSize = s3.MinPart
	f := open(t, cfg)
	part := make([]byte, s3.MinPart+1)
	begin := func() (w ufs.Writer, name string) {
		w, err := f.Create(t.Context(), "k", "1")
		require.NoError(t, err)
		w.(ufs.Hinted).Hint(ufs.WriteHint{Named: func(n string) { name = n }})
		_, err = w.Write(part[:s3.MinPart])
		require.NoError(t, err)
		require.Empty(t, name, "it may become one PUT, which leaves nothing")
		_, err = w.Write(part[s3.MinPart:])
		require.NoError(t, err)
		require.NotEmpty(t, name)
		return w, name
	}
	live, _ := begin()
	dead, name := begin()
	require.NoError(t, dead.(ufs.Preparer).Prepare(t.Context()))
	require.NoError(t, ufs.SweepUpload(t.Context(), f, "k", "1", name))
	require.NoError(t, ufs.SweepUpload(t.Context(), f, "k", "1", name), "once more does nothing")
	require.NoError(t, ufs.SweepUpload(t.Context(), f, "k", "1", ""), "nor does what had no name yet")
	_, err := dead.Commit(t.Context())
	require.ErrorIs(t, err, orca.Stale)
	in, err := live.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, len(part), in.Size)
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
