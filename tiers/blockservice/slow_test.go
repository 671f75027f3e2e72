// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockservice_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/datapb"
	"orca/dataplane/frame"
	"orca/dataplane/grant"
	"orca/dataplane/transport"
	"orca/tiers/blockservice"
	"orca/tiers/cryptfile"
	"orca/tiers/dir"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
)

// TestSlowReadersOfEncryptedBlocks: three receivers ask for all of an encrypted
// block and read nothing. All of them together do not hold what may be decrypted
// at a time, and one that reads gets its bytes as if they were not there. When
// they read at last, they have theirs.
func TestSlowReadersOfEncryptedBlocks(t *testing.T) {
	const slow, each, places, size = 3, 48, 4, 48 << 20
	log, key := slog.New(slog.DiscardHandler), tiertest.Bytes(7, 32)
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(keyFile, tiertest.Bytes(8, cryptfile.KeyLen), 0o600))
	store, err := tiered.Open(tiered.Config{
		Dirs:         []dir.Config{{Path: t.TempDir() + "/ssd", Tier: orca.SSD, Capacity: 128 << 20, KeyFile: keyFile}},
		MaxDecrypted: slow*places + 2, RoomWait: 10 * time.Millisecond,
	}, log)
	require.NoError(t, err)
	s := blockservice.New(blockservice.Config{}, blockservice.Deps{Store: store}, log)
	defer s.Close()
	id, want := tiertest.ID(1), tiertest.Bytes(1, size)
	tiertest.Fill(t, store, id, want)
	server, err := blockserver.New(blockserver.Config{}, s, grant.NewChecker(func() []byte { return key }, 0), log)
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Shutdown(t.Context())) }()
	addr, err := server.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grant.Make(key, dataplane.Grant{File: id.File, Version: id.Version, Expiry: time.Now().Add(time.Hour)})

	hits := &store.Metrics.Hits[orca.SSD][tiered.Decrypted]
	var conns []net.Conn
	for range slow {
		c, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
		for i := range int64(each) {
			q := datapb.ReadRequest{Block: datapb.FromBlock(id), Off: i << 20, N: 1 << 20, Grant: datapb.FromGrant(&g)}
			meta, err := q.MarshalVT()
			require.NoError(t, err)
			h := frame.Header{Op: frame.OpRead, Seq: uint64(i + 1), Meta: uint32(len(meta))}
			_, err = c.Write(append(h.AppendTo(nil), meta...))
			require.NoError(t, err)
		}
		conns = append(conns, c)
	}
	// The kernel takes a few MiB of each, then the places are what is left.
	tiertest.Eventually(t, "all requests are in work", func() bool { return server.Metrics().Reads.Load() == slow*each })
	still := int64(-1)
	tiertest.Eventually(t, "nothing moves any more", func() bool {
		last := still
		still = hits.Load()
		return last == still && still >= slow*places
	})
	require.Less(t, still, int64(slow*each), "they wait: else this tests nothing")

	client, err := blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr.String()}}, log)
	require.NoError(t, err)
	defer client.Close()
	got := make([]byte, size)
	n, err := client.ReadAt(t.Context(), dataplane.ReadRequest{ID: id, N: size, Grant: g}, got)
	require.NoError(t, err, "all that may be decrypted is held by the others")
	require.True(t, n == size && bytes.Equal(want, got))

	for _, c := range conns {
		for range each {
			head := make([]byte, frame.Size)
			_, err := io.ReadFull(c, head)
			require.NoError(t, err)
			h, err := frame.Decode(head)
			require.NoError(t, err)
			require.Equal(t, orca.OK, h.Status)
			body := make([]byte, h.Len())
			_, err = io.ReadFull(c, body)
			require.NoError(t, err)
			off := int64(h.Seq-1) << 20
			require.True(t, bytes.Equal(want[off:off+1<<20], body[h.Meta:]))
		}
	}
	require.Zero(t, server.Metrics().Denied.Load())
}
