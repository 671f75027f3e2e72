// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkCommit is what creates by 128 clients, each in a directory of its own, 32
// to an entry, come to: a dentry, where the file is, the directory, the client and
// a result for each.
func BenchmarkCommit(b *testing.B) {
	db, err := Open(Config{Memory: true}, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	tx := db.NewTx()
	var key []byte
	set := func(space byte, id uint64, more string, value int) {
		key = append(binary.BigEndian.AppendUint64(append(key[:0], space), id), more...)
		tx.Set(key, make([]byte, value))
	}
	b.ReportAllocs()
	for i := range b.N {
		lane := uint64(i*37%128) * 0x9e3779b97f4a7c15
		set('d', lane, fmt.Sprintf("f-0001-%08d", i/128), 60)
		set('i', uint64(i), "", 24)
		set('n', lane, "", 70)
		set('c', lane, "", 17)
		set('c', lane, string([]byte{byte(i >> 7), byte(i >> 15)}), 120)
		if i%32 == 31 {
			require.NoError(b, tx.Commit(uint64(i), 32))
		}
	}
	b.StopTimer()
	require.NoError(b, tx.Close())
	require.NoError(b, db.Close(false))
}
