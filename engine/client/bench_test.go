// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/engine/client"
	"orca/engine/clienttest/memorca"
)

// BenchmarkLocalRead compares a hot local read with pread on the same bytes.
func BenchmarkLocalRead(b *testing.B) {
	dir := b.TempDir()
	o, err := memorca.New(dir, "a")
	require.NoError(b, err)
	fs, err := client.Open(b.Context(), client.Config{Meta: o, Dial: o.Dial, Node: "a"})
	require.NoError(b, err)
	defer fs.Close()
	want := noise(1, 4<<20)
	w, err := fs.Create(b.Context(), client.Path("/f"), client.CreateOptions{})
	require.NoError(b, err)
	_, err = w.Write(want)
	require.NoError(b, err)
	require.NoError(b, w.Close())
	f, err := fs.Open(b.Context(), client.Path("/f"), client.ReadOptions{})
	require.NoError(b, err)
	defer f.Close()
	plain := filepath.Join(dir, "plain")
	require.NoError(b, os.WriteFile(plain, want, 0o600))
	g, err := os.Open(plain)
	require.NoError(b, err)
	defer g.Close()
	for _, size := range []int{4 << 10, 1 << 20} {
		p := make([]byte, size)
		for name, r := range map[string]interface {
			ReadAt(p []byte, off int64) (int, error)
		}{"orca": f, "pread": g} {
			b.Run(name+"-"+map[int]string{4 << 10: "4k", 1 << 20: "1m"}[size], func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := r.ReadAt(p, int64(i*size)%(4<<20-int64(size)+1)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
