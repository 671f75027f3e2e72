// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQueuedIn(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:4682 0100007F:D431 01 0027AC40:00000000 01:00000014 00000000     0        0 1
   1: 0100007F:4682 0100007F:D432 01 00000010:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:D431 0100007F:4682 01 00000005:00600000 00:00000000 00000000     0        0 3
   3: 0100007F:4683 0100007F:D431 01 00000007:00000000 00:00000000 00000000     0        0 4
`
	require.EqualValues(t, 0x27ac40, queuedIn(table, "18050", map[string]bool{"54321": true}))
	require.EqualValues(t, 0x27ac50, queuedIn(table, "18050", map[string]bool{"54321": true, "54322": true}))
	require.Zero(t, queuedIn(table, "18050", nil))
}

// TestQueued sees the real queue of a receiver that reads nothing.
func TestQueued(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	sender, err := ln.Accept()
	require.NoError(t, err)
	defer sender.Close()
	st := &stalled{addr: ln.Addr().String(), conns: []net.Conn{c}}
	require.Zero(t, st.queued())
	done := make(chan error, 1)
	go func() {
		_, err := sender.Write(make([]byte, 64<<20))
		done <- err
	}()
	require.NoError(t, st.until(t.Context(), "nothing waits", func() bool { return st.queued() > 0 }))
	_, err = io.CopyN(io.Discard, c, 64<<20)
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.NoError(t, st.until(t.Context(), "something waits", func() bool { return st.queued() == 0 }))
}
