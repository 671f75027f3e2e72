// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddrs(t *testing.T) {
	addrs, err := Addrs(50)
	require.NoError(t, err)
	require.Len(t, addrs, 50)
	low, err := ephemeral()
	require.NoError(t, err)
	for _, a := range addrs {
		l, err := net.Listen("tcp", a) // fails for one that was given twice
		require.NoError(t, err)
		defer l.Close()
		require.Less(t, l.Addr().(*net.TCPAddr).Port, low)
	}
}
