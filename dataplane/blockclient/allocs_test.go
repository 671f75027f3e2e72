// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockclient_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datatest"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
)

// serveEnv names the folder in which this binary serves a block, in a process
// of its own.
const serveEnv = "ORCA_TEST_SERVE"

const aloneSize = 4<<20 + 1000

// serveAlone serves one block until stdin ends.
func serveAlone() {
	store := datatest.NewStoreIn(os.Getenv(serveEnv))
	if err := store.Add(blockOne, datatest.Data(31, aloneSize)); err != nil {
		panic(err)
	}
	s, err := blockserver.New(blockserver.Config{}, store, grant.NewChecker(func() []byte { return datatest.Key }, 0), nil)
	if err != nil {
		panic(err)
	}
	a, err := s.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(a)
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Shutdown(context.Background())
}

// A read of what a remote worker holds allocates nothing at the reader, small
// or long, aligned or not.
func TestRemoteHitAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget on purpose")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { _ = in.Close(); require.NoError(t, cmd.Wait()) }()
	sc := bufio.NewScanner(out)
	require.True(t, sc.Scan())
	c, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: sc.Text()}}, nil)
	require.NoError(t, err)
	defer c.Close()
	data := datatest.Data(31, aloneSize)
	for _, n := range []int{1, 4096, 65536, 300_000, 1 << 20, 3 << 20} {
		p := make([]byte, n)
		off := int64(0)
		read := func() {
			off = (off + 123_457) % int64(aloneSize-n)
			if m, err := c.ReadAt(context.Background(), request(off), p); err != nil || m != n || !bytes.Equal(p, data[off:off+int64(n)]) {
				t.Errorf("%d bytes, %v", m, err)
			}
		}
		for range 20 {
			read()
		}
		requestAllocs := testing.AllocsPerRun(200, func() { _ = request(0) })
		require.Zero(t, testing.AllocsPerRun(200, read)-requestAllocs, "%d bytes", n)
	}
}
