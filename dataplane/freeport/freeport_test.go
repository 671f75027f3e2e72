// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddrs(t *testing.T) {
	var addrs []string
	for _, n := range []int{0, 1, 1, 50} {
		more, err := Addrs(n)
		require.NoError(t, err)
		require.Len(t, more, n)
		addrs = append(addrs, more...)
	}
	low, err := ephemeral()
	require.NoError(t, err)
	for _, a := range addrs {
		l, err := net.Listen("tcp", a) // fails for one that was given twice
		require.NoError(t, err)
		defer l.Close()
		require.Less(t, l.Addr().(*net.TCPAddr).Port, low)
	}
}
