// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package minio_test

import (
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"orca/ufs/ufstest/minio"
)

// TestLife: start, kill, start again on the same address, stop.
func TestLife(t *testing.T) {
	s, err := minio.Start(t.Context(), minio.Config{Dir: t.TempDir(), Buckets: []string{"one", "two"}, Progress: os.Stderr})
	require.NoError(t, err)
	defer s.Stop()
	alive := func() bool {
		c := http.Client{Timeout: time.Second}
		r, err := c.Get(s.Endpoint + "/minio/health/live")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
	require.True(t, alive())
	addr := strings.TrimPrefix(s.Endpoint, "http://")
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", host)
	s.Kill()
	require.False(t, alive())
	require.NoError(t, s.Restart(t.Context()))
	require.True(t, alive())
	require.NoError(t, s.CreateBucket(t.Context(), "one"), "one's own bucket again")
	pid := s.Pid()
	s.Stop()
	require.ErrorIs(t, unix.Kill(pid, 0), unix.ESRCH, "the process is gone")
}
