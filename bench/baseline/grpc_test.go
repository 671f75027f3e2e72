// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/bench/workload"
)

// TestGRPC moves a file between two processes and compares every byte.
func TestGRPC(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	const size = 3<<20 + 12345
	require.NoError(t, WriteFile(p, 7, size))
	self, err := os.Executable()
	require.NoError(t, err)
	g, err := StartGRPC(t.Context(), self, p)
	require.NoError(t, err)
	buf, want := make([]byte, Chunk), make([]byte, Chunk)
	seen := int64(0)
	for range 2 {
		_, err = g.Read(t.Context(), size, buf, func(off int64, got []byte) error {
			seen += int64(len(got))
			workload.Fill(want[:len(got)], 7, off)
			if !bytes.Equal(got, want[:len(got)]) {
				return errors.New("wrong bytes")
			}
			return nil
		})
		require.NoError(t, err)
	}
	require.EqualValues(t, 2*size, seen)
	_, err = g.Read(t.Context(), size+1, buf, nil)
	require.ErrorContains(t, err, "past the end")
	_, err = g.Read(t.Context(), size, make([]byte, 1000), nil)
	require.Error(t, err, "a message larger than the buffer")
	require.Len(t, g.PIDs(), 1)
	require.NoError(t, g.Close())
}
