// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockservice_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
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

const (
	slowEach   = 48 // requests, of 1 MiB each, that a slow receiver sends
	slowPlaces = 4
	slowSize   = slowEach << 20
)

// slowReaders are receivers that ask for all of an encrypted block and read
// nothing.
type slowReaders struct {
	id     orca.BlockID
	want   []byte
	hits   *atomic.Int64 // extents that were decrypted
	server *blockserver.Server
	client *blockclient.Client
	grant  dataplane.Grant
	conns  []net.Conn
}

// newSlowReaders has n of them ask a server that may have so much decrypted.
func newSlowReaders(t *testing.T, n, decrypted int, cfg transport.ServerConfig) *slowReaders {
	t.Helper()
	log, key := slog.New(slog.DiscardHandler), tiertest.Bytes(7, 32)
	keyFile := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(keyFile, tiertest.Bytes(8, cryptfile.KeyLen), 0o600))
	store, err := tiered.Open(tiered.Config{
		Dirs:         []dir.Config{{Path: t.TempDir() + "/ssd", Tier: orca.SSD, Capacity: 128 << 20, KeyFile: keyFile}},
		MaxDecrypted: decrypted, RoomWait: 10 * time.Millisecond,
	}, log)
	require.NoError(t, err)
	s := blockservice.New(blockservice.Config{}, blockservice.Deps{Store: store}, log)
	t.Cleanup(func() { _ = s.Close() })
	r := &slowReaders{id: tiertest.ID(1), want: tiertest.Bytes(1, slowSize)}
	tiertest.Fill(t, store, r.id, r.want)
	r.server, err = blockserver.New(blockserver.Config{Transport: cfg}, s, grant.NewChecker(func() []byte { return key }, 0), log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.server.Shutdown(context.WithoutCancel(t.Context()))) })
	addr, err := r.server.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.grant = grant.Make(key, dataplane.Grant{File: r.id.File, Version: r.id.Version, Expiry: time.Now().Add(time.Hour)})
	r.client, err = blockclient.New(blockclient.Config{Transport: transport.ClientConfig{Addr: addr.String()}}, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.client.Close() })

	r.hits = &store.Metrics.Hits[orca.SSD][tiered.Decrypted]
	for range n {
		c, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
		var all []byte
		for i := range int64(slowEach) {
			q := datapb.ReadRequest{Block: datapb.FromBlock(r.id), Off: i << 20, N: 1 << 20, Grant: datapb.FromGrant(&r.grant)}
			meta, err := q.MarshalVT()
			require.NoError(t, err)
			h := frame.Header{Op: frame.OpRead, Seq: uint64(i + 1), Meta: uint32(len(meta))}
			all = append(h.AppendTo(all), meta...)
		}
		_, err = c.Write(all)
		require.NoError(t, err)
		r.conns = append(r.conns, c)
	}
	return r
}

// whole reads the block as who is not slow.
func (r *slowReaders) whole(t *testing.T) {
	t.Helper()
	got := make([]byte, slowSize)
	n, err := r.client.ReadAt(t.Context(), dataplane.ReadRequest{ID: r.id, N: slowSize, Grant: r.grant}, got)
	require.NoError(t, err, "all that may be decrypted is held by the others")
	require.True(t, n == slowSize && bytes.Equal(r.want, got))
}

// TestSlowReadersOfEncryptedBlocks: three slow receivers together do not hold
// what may be decrypted at a time, and one that reads gets its bytes as if they
// were not there. When they read at last, they have theirs.
func TestSlowReadersOfEncryptedBlocks(t *testing.T) {
	const slow = 3
	r := newSlowReaders(t, slow, slow*slowPlaces+2, transport.ServerConfig{})
	// The kernel takes a few MiB of each, then the places are what is left.
	tiertest.Eventually(t, "all requests are in work", func() bool { return r.server.Metrics().Reads.Load() == slow*slowEach })
	still := int64(-1)
	tiertest.Eventually(t, "nothing moves any more", func() bool {
		last := still
		still = r.hits.Load()
		return last == still && still >= slow*slowPlaces
	})
	require.Less(t, still, int64(slow*slowEach), "they wait: else this tests nothing")
	r.whole(t)
	for _, c := range r.conns {
		for range slowEach {
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
			require.True(t, bytes.Equal(r.want[off:off+1<<20], body[h.Meta:]))
		}
	}
	require.Zero(t, r.server.Metrics().Denied.Load())
}

// TestManySlowReadersOfEncryptedBlocks: there are so many slow receivers that
// together they would hold all that may be decrypted. They have half of the
// places; some are closed instead of keeping one that reads waiting.
func TestManySlowReadersOfEncryptedBlocks(t *testing.T) {
	const all = 12
	r := newSlowReaders(t, 5, all+2, transport.ServerConfig{MaxBodiesAll: all, SlowBody: 100 * time.Millisecond})
	m := r.server.Transport()
	tiertest.Eventually(t, "all places are taken", func() bool { return m.Bodies.Load() >= all || m.SlowBody.Load() > 0 })
	r.whole(t)
	require.NotZero(t, m.SlowBody.Load())
	require.LessOrEqual(t, m.Bodies.Load(), int64(all))
}
