// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/bench/workload"
)

// TestCrowd reads and writes over several connections at once, and compares
// what arrives.
func TestCrowd(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, WriteFile(file, 5, 4<<20))
	const conns = 3
	c, err := StartCrowd(t.Context(), self, file, "", conns)
	require.NoError(t, err)
	each(t, conns, func(i int) error {
		p, want := make([]byte, 100_000), make([]byte, 100_000)
		for off := int64(i) * 1000; off < 3<<20; off += 700_000 {
			if err := c.Read(i, p, off); err != nil {
				return err
			}
			if workload.Fill(want, 5, off); !bytes.Equal(want, p) {
				return os.ErrInvalid
			}
		}
		return nil
	})
	require.NoError(t, c.Close())

	into := filepath.Join(dir, "into")
	require.NoError(t, os.Mkdir(into, 0o700))
	c, err = StartCrowd(t.Context(), self, "", into, conns)
	require.NoError(t, err)
	for range 2 { // a write at 0 begins anew
		each(t, conns, func(i int) error {
			p := bytes.Repeat([]byte{byte(i + 1)}, 300_000)
			for k := range int64(3) {
				if err := c.Write(i, p, k*int64(len(p))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, c.Close())
	seen := map[byte]bool{}
	es, err := os.ReadDir(into)
	require.NoError(t, err)
	for _, e := range es {
		b, err := os.ReadFile(filepath.Join(into, e.Name()))
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat(b[:1], 900_000), b)
		seen[b[0]] = true
	}
	require.Equal(t, map[byte]bool{1: true, 2: true, 3: true}, seen)
}

func each(t *testing.T, n int, fn func(i int) error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
}
