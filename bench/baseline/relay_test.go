// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/bench/baseline"
)

// TestRelay: bytes arrive whole and in order, none earlier than a round trip,
// and an end on one side is one on the other.
func TestRelay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	const delay = 20 * time.Millisecond
	r, err := baseline.NewRelay(l.Addr().String(), delay)
	require.NoError(t, err)
	start := time.Now()
	c, err := net.Dial("tcp", r.Addr())
	require.NoError(t, err)
	defer c.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB, more than the window
	go func() {
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	first := make([]byte, 1)
	_, err = io.ReadFull(c, first)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), 4*delay, "handshake and one echo")
	rest, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, append(first, rest...)))
	require.NoError(t, r.Close())
	_, err = net.DialTimeout("tcp", r.Addr(), time.Second)
	require.Error(t, err)
}
