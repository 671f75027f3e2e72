// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/ufs"
	"orca/ufs/s3"
	"orca/ufs/ufstest"
	"orca/ufs/ufstest/minio"
	"orca/ufs/wrap"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// TestOpenFails: what is wrong fails at Open, quickly, with a kind and the
// request in the message.
func TestOpenFails(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"there"}})
	good := srv.Config("there", "")
	hole, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	require.NoError(t, err)
	defer hole.Close()
	for _, c := range []struct {
		name   string
		change func(*s3.Config)
		kind   orca.Kind
		says   []string
	}{
		{"refused", func(c *s3.Config) { c.Endpoint = "http://127.0.0.1:1" }, orca.Unavailable, []string{"ListObjectsV2", "http://127.0.0.1:1", "refused"}},
		{"unknown host", func(c *s3.Config) { c.Endpoint = "http://no-such-host.invalid" }, orca.Unavailable, []string{"ListObjectsV2", "no-such-host.invalid"}},
		{"silent", func(c *s3.Config) {
			c.Endpoint, c.OpenTimeout = "http://"+hole.Addr().String(), 300*time.Millisecond
		}, orca.Timeout, []string{"ListObjectsV2", hole.Addr().String()}},
		{"wrong secret", func(c *s3.Config) { c.SecretKey = "wrong-secret" }, orca.Unauthenticated, []string{"ListObjectsV2", "HTTP 403", "SignatureDoesNotMatch"}},
		{"wrong key", func(c *s3.Config) { c.AccessKey = "nobody" }, orca.Unauthenticated, []string{"HTTP 403", "InvalidAccessKeyId"}},
		{"anonymous", func(c *s3.Config) { c.AccessKey, c.SecretKey, c.Anonymous = "", "", true }, orca.Permission, []string{"HTTP 403", "AccessDenied"}},
		{"no bucket", func(c *s3.Config) { c.Bucket = "not-there" }, orca.UFSFailure, []string{"bucket not-there", "HTTP 404", "NoSuchBucket"}},
		{"no credentials", func(c *s3.Config) { c.AccessKey, c.SecretKey = "", "" }, orca.Unauthenticated, []string{"no credentials"}},
		{"half credentials", func(c *s3.Config) { c.SecretKey = "" }, orca.Invalid, []string{"together"}},
		{"not a URL", func(c *s3.Config) { c.Endpoint = "localhost:9000" }, orca.Invalid, []string{"localhost:9000"}},
		{"no name", func(c *s3.Config) { c.Bucket = "" }, orca.Invalid, []string{"bucket"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, e := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
				t.Setenv(e, "")
			}
			t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
			t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
			cfg := good
			c.change(&cfg)
			start := time.Now()
			_, err := s3.Open(t.Context(), cfg, quiet)
			require.Equal(t, c.kind, orca.KindOf(err), "%v", err)
			for _, s := range c.says {
				require.ErrorContains(t, err, s)
			}
			require.NotContains(t, err.Error(), good.SecretKey)
			require.Less(t, time.Since(start), time.Minute)
		})
	}
}

// TestEnvironment: without keys in the options, the AWS environment counts.
func TestEnvironment(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"env"}})
	t.Setenv("AWS_ACCESS_KEY_ID", srv.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", srv.SecretKey)
	t.Setenv("AWS_ENDPOINT_URL", srv.Endpoint)
	f := open(t, s3.Config{Bucket: "env", PathStyle: true})
	_, err := f.Stat(t.Context(), "none")
	require.ErrorIs(t, err, orca.NotFound)
	require.ErrorContains(t, err, srv.Endpoint)
}

// uploads counts the unfinished multipart uploads that MinIO keeps on its disk.
func uploads(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	root := filepath.Join(dir, "data", ".minio.sys", "multipart")
	_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "xl.meta" {
			n++
		}
		return nil
	})
	return n
}

// start uploads n parts of 5 MiB of key and returns the open writer.
func start(t *testing.T, f *s3.FS, key string, n int) ufs.Writer {
	t.Helper()
	w, err := f.Create(t.Context(), key, "")
	require.NoError(t, err)
	_, err = w.Write(bytes.Repeat([]byte("x"), n*s3.MinPart+1))
	require.NoError(t, err)
	return w
}

// TestNoRemains: aborted and swept multipart uploads are gone from the server,
// those of other keys are not.
func TestNoRemains(t *testing.T) {
	dir := t.TempDir()
	srv := ufstest.StartMinIO(t, minio.Config{Dir: dir, Buckets: []string{"remains"}})
	cfg := srv.Config("remains", "")
	cfg.PartSize = s3.MinPart
	f := open(t, cfg)
	w := start(t, f, "d/aborted", 3)
	require.Equal(t, 1, uploads(t, dir))
	require.NoError(t, w.Abort(t.Context()))
	require.Zero(t, uploads(t, dir))

	dead := start(t, f, "d/key", 2)
	other := start(t, f, "d/key2", 2)
	require.NoError(t, f.Sweep(t.Context(), "d/key", "any"))
	require.Equal(t, 1, uploads(t, dir))
	_, err := dead.Commit(t.Context())
	require.Error(t, err)
	require.NoError(t, dead.Abort(t.Context()))
	_, err = f.Stat(t.Context(), "d/key")
	require.ErrorIs(t, err, orca.NotFound)
	_, err = other.Commit(t.Context())
	require.NoError(t, err)
	require.Zero(t, uploads(t, dir))

	late := start(t, f, "late", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = late.Commit(ctx)
	require.ErrorIs(t, err, orca.Canceled)
	require.NoError(t, late.Abort(ctx), "Abort works under a dead context")
	require.Zero(t, uploads(t, dir))
}

// TestSmallMemory uploads many parts with memory for none in flight.
func TestSmallMemory(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"small"}})
	cfg := srv.Config("small", "")
	cfg.PartSize, cfg.UploadMemory, cfg.Parallel = s3.MinPart, 1, 1
	f := open(t, cfg)
	data := bytes.Repeat([]byte("abcdefgh"), (4*s3.MinPart+123456)/8)
	in, err := ufstest.Put(t.Context(), f, "k", data)
	require.NoError(t, err)
	got, err := ufstest.Get(t.Context(), f, "k", 0, -1, in.Fingerprint)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

// TestServerDies: calls fail with a retryable kind while the server is down,
// and a reader under Retry goes on where it was when the server is back.
func TestServerDies(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"dies"}})
	f := open(t, srv.Config("dies", ""))
	data := bytes.Repeat([]byte("0123456789abcdef"), 32<<20/16)
	in, err := ufstest.Put(t.Context(), f, "k", data)
	require.NoError(t, err)

	fs := wrap.Retry(f, wrap.RetryConfig{Attempts: 10, Base: 100 * time.Millisecond, Max: time.Minute})
	r, err := fs.Open(t.Context(), "k", 0, -1, in.Fingerprint)
	require.NoError(t, err)
	defer r.Close()
	head := make([]byte, 100_000)
	_, err = io.ReadFull(r, head)
	require.NoError(t, err)
	srv.Kill()
	_, err = f.Stat(t.Context(), "k")
	require.ErrorIs(t, err, orca.Unavailable)
	require.True(t, orca.KindOf(err).Retryable())
	back := make(chan error, 1)
	go func() { back <- srv.Restart(t.Context()) }()
	rest, err := io.ReadAll(r)
	require.NoError(t, <-back)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, append(head, rest...)), "the same bytes across the crash")
}

// TestBucketVanishes: no object may look deleted because its bucket is gone.
func TestBucketVanishes(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"gone"}})
	f := open(t, srv.Config("gone", ""))
	require.NoError(t, f.DeleteBucket(t.Context()))
	_, err := f.Stat(t.Context(), "k")
	require.ErrorIs(t, err, orca.UFSFailure)
	_, err = f.Open(t.Context(), "k", 0, -1, "")
	require.ErrorIs(t, err, orca.UFSFailure)
	require.ErrorIs(t, f.List(t.Context(), "", func(ufs.Info) error { return nil }), orca.UFSFailure)
	require.ErrorIs(t, f.Remove(t.Context(), "k"), orca.UFSFailure)
}

// TestCounts: the proxy sees every request once.
func TestCounts(t *testing.T) {
	srv := ufstest.StartMinIO(t, minio.Config{Buckets: []string{"counts"}, Count: true})
	f := open(t, srv.Config("counts", ""))
	srv.ResetCounts()
	in, err := ufstest.Put(t.Context(), f, "d/k", make([]byte, 70_000))
	require.NoError(t, err)
	require.Equal(t, minio.Counts{Put: 1, PutBytes: 70_000}, srv.Counts())
	_, err = ufstest.Get(t.Context(), f, "d/k", 10, 20_000, in.Fingerprint)
	require.NoError(t, err)
	require.NoError(t, f.List(t.Context(), "d", func(ufs.Info) error { return nil }))
	_, err = f.Stat(t.Context(), "d/k")
	require.NoError(t, err)
	require.NoError(t, f.Remove(t.Context(), "d/k"))
	require.Equal(t, minio.Counts{Put: 1, PutBytes: 70_000, Get: 1, GetBytes: 20_000, List: 1, Head: 2, Delete: 1}, srv.Counts())
}
