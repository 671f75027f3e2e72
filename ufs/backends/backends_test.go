// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package backends_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/ufs"
	"orca/ufs/backends"
	"orca/ufs/ufstest"
	"orca/ufs/ufstest/minio"
	"orca/ufs/wrap"
)

var quiet = slog.New(slog.DiscardHandler)

func open(ctx context.Context, t *testing.T, uri string, o map[string]string) ufs.FS {
	t.Helper()
	fs, err := backends.Open(ctx, uri, o, quiet)
	require.NoError(t, err, uri)
	t.Cleanup(func() { require.NoError(t, fs.Close()) })
	return fs
}

// TestConformance runs the suite on what a mount gets: the decorated store.
func TestConformance(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"mounts"}})
	s3 := srv.Options()
	s3["limit.concurrent"] = "64"
	t.Run("s3", func(t *testing.T) {
		ufstest.Run(t, ufstest.Suite{FS: open(t.Context(), t, "s3://mounts/a/b", s3), NoSweep: true, Many: 50, Large: 20 << 20})
	})
	t.Run("local", func(t *testing.T) {
		ufstest.Run(t, ufstest.Suite{FS: open(t.Context(), t, t.TempDir(), nil), Many: 50, Large: 1 << 20})
	})
	t.Run("mem", func(t *testing.T) {
		ufstest.Run(t, ufstest.Suite{FS: open(t.Context(), t, "mem://backends-test", map[string]string{"mem.objects": "true"}), Many: 50, Large: 1 << 20})
	})
}

func TestURIs(t *testing.T) {
	dir := t.TempDir()
	for _, uri := range []string{dir, "file://" + dir, "file://localhost" + dir, dir + "/"} {
		require.Equal(t, dir, open(t.Context(), t, uri, nil).Caps().Local)
	}
	for uri, k := range map[string]orca.Kind{
		"gopher://x/y": orca.Unsupported, "relative/path": orca.Invalid, "": orca.Invalid, "file://host/x": orca.Invalid,
		"s3://": orca.Invalid, "/no/such/folder": orca.NotFound, "://": orca.Invalid,
	} {
		_, err := backends.Open(t.Context(), uri, nil, quiet)
		require.Equal(t, k, orca.KindOf(err), "%q: %v", uri, err)
	}
	_, err := backends.Open(t.Context(), "gopher://x/y", nil, quiet)
	require.ErrorContains(t, err, "s3://")
}

func TestOptions(t *testing.T) {
	got, err := backends.Validate("s3://b/p", map[string]string{
		"alluxio.underfs.s3.endpoint": "http://h:1", "aws.accessKeyId": "k", "aws.secretKey": "s", "s3.region": "r", "retry.attempts": "2",
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"s3.endpoint": "http://h:1", "s3.access_key": "k", "s3.secret_key": "s", "s3.region": "r", "retry.attempts": "2",
	}, got)
	for opt, hint := range map[string]string{
		"s3.endpont": `did you mean "s3.endpoint"?`, "aws.accesskeyid": `"aws.accessKeyId"`, "S3.REGION": `"s3.region"`,
		"completely-different": "known are",
	} {
		_, err := backends.Validate("s3://b", map[string]string{opt: "v"})
		require.ErrorIs(t, err, orca.Invalid)
		require.ErrorContains(t, err, hint)
	}
	for _, c := range [][3]string{
		{"retry.attempts", "many", "want a number that is not negative"}, {"limit.read_rate", "fast", "want bytes per second"}, {"limit.concurrent", "-1", "not negative"},
		{"limit.write_rate", "100", "at least 64KiB"}, {"limit.read_rate", "-5MB", "want bytes per second"}, {"limit.iops", "1.5", "want a number that is not negative"},
		{"limit.iops", "-2", "negative"}, {"limit.iop", "5", `did you mean "limit.iops"?`},
	} {
		_, err := backends.Validate("/tmp", map[string]string{c[0]: c[1]})
		require.ErrorIs(t, err, orca.Invalid, c[0])
		require.ErrorContains(t, err, c[0])
		require.ErrorContains(t, err, c[2])
	}
	_, err = backends.Validate("/tmp", map[string]string{"limit.read_rate": "100MB/s", "limit.write_rate": "1GiB", "limit.iops": "500"})
	require.NoError(t, err)
	_, err = backends.Validate("/tmp", map[string]string{"s3.endpoint": "x"})
	require.ErrorIs(t, err, orca.Invalid, "not an option of a folder")
	_, err = backends.Validate("s3://b", map[string]string{"aws.secretKey": "a", "s3.secret_key": "b"})
	require.ErrorIs(t, err, orca.Invalid, "one option twice")
}

func TestSame(t *testing.T) {
	for _, c := range [][2]string{{"/a/b/", "file:///a/b"}, {"/a/./b", "file://localhost/a/b"}, {"s3a://b/p/", "s3://b/p"}, {"s3://b", "s3n://b/"}, {"mem://x", "mem://x/"}} {
		require.True(t, backends.Same(c[0], c[1]), "%q %q", c[0], c[1])
	}
	for _, c := range [][2]string{{"/a", "/b"}, {"s3://b/p", "s3://b/q"}, {"/x", "mem://x"}, {"s3://b", "s3://c"}} {
		require.False(t, backends.Same(c[0], c[1]), "%q %q", c[0], c[1])
	}
}

func TestMasks(t *testing.T) {
	got := backends.MaskOptions("s3://b", map[string]string{"aws.secretKey": "s", "s3.access_key": "a", "s3.endpoint": "http://h"})
	require.Equal(t, map[string]string{"aws.secretKey": backends.Mask, "s3.access_key": backends.Mask, "s3.endpoint": "http://h"}, got)
	require.Contains(t, backends.Secrets("s3://b"), "s3.secret_key")
	require.NotContains(t, backends.Masked("s3://user:pw@b/x"), "pw")
}

// TestStats: the counters of a mount count attempts.
func TestStats(t *testing.T) {
	fs, stats, err := backends.New().Open(t.Context(), "mem://stats-test", nil, quiet)
	require.NoError(t, err)
	_, err = ufstest.Put(t.Context(), fs, "k", make([]byte, 99))
	require.NoError(t, err)
	require.EqualValues(t, 99, stats.WriteBytes.Load())
	require.EqualValues(t, 1, stats.Ops[wrap.Commit].Calls.Load())
}
