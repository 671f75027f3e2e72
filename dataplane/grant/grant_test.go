// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package grant

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane"
)

var (
	key  = bytes.Repeat([]byte{7}, KeyLen)
	when = time.Unix(1_700_000_000, 123)
)

func sample() dataplane.Grant {
	return Make(key, dataplane.Grant{File: 42, Version: 3, UID: 1000, Write: true, Expiry: when.Add(time.Minute)})
}

func TestGolden(t *testing.T) {
	g := sample()
	require.Equal(t, goldenToken, hex.EncodeToString(g.Token),
		"the MAC is shared by all processes of a cluster: a change needs a new version in its domain")
}

// goldenToken was computed by an independent HMAC-SHA256 (python hmac).
const goldenToken = "0edd2dfc240be5f966f3b63b0c4eab70b995bfff0c11ac13bd50eee26e6b8dcc"

func TestVerify(t *testing.T) {
	g := sample()
	require.NoError(t, Verify(key, &g, when))
	for name, change := range map[string]func(g *dataplane.Grant){
		"file":    func(g *dataplane.Grant) { g.File++ },
		"version": func(g *dataplane.Grant) { g.Version++ },
		"uid":     func(g *dataplane.Grant) { g.UID = 0 },
		"write":   func(g *dataplane.Grant) { g.Write = false },
		"expiry":  func(g *dataplane.Grant) { g.Expiry = g.Expiry.Add(1) },
		"token":   func(g *dataplane.Grant) { g.Token[31] ^= 1 },
		"short":   func(g *dataplane.Grant) { g.Token = g.Token[:31] },
		"none":    func(g *dataplane.Grant) { g.Token = nil },
	} {
		g := sample()
		change(&g)
		require.ErrorIs(t, Verify(key, &g, when), orca.Permission, name)
	}
	require.ErrorIs(t, Verify(bytes.Repeat([]byte{8}, KeyLen), &g, when), orca.Permission)
	require.ErrorIs(t, Verify(key, &g, when.Add(time.Minute)), orca.Stale)
}

func TestChecker(t *testing.T) {
	k := key
	c := NewChecker(func() []byte { return k }, 500)
	c.now = func() time.Time { return when }
	g, tcp := sample(), Peer{}
	id := orca.BlockID{File: 42, Version: 3, Index: 9}
	require.NoError(t, c.Read(&g, id, tcp))
	require.ErrorIs(t, c.Read(&g, orca.BlockID{File: 42, Version: 4}, tcp), orca.Permission)
	require.ErrorIs(t, c.Read(&g, orca.BlockID{File: 41, Version: 3}, tcp), orca.Permission)
	require.ErrorIs(t, c.Read(&dataplane.Grant{File: 42, Version: 3}, id, tcp), orca.Permission)
	for uid, want := range map[uint32]error{0: nil, 500: nil, 1000: nil, 1001: orca.Permission} {
		require.ErrorIs(t, c.Read(&g, id, Peer{Unix: true, UID: uid}), want, "uid %d", uid)
	}

	target := dataplane.WriteTarget{File: 42, Version: 3, Grant: g}
	require.NoError(t, c.Write(&target, tcp))
	require.ErrorIs(t, c.Handle(5, &g, tcp), orca.NotFound)
	c.Opened(5, &target)
	require.NoError(t, c.Handle(5, &g, tcp))
	other := Make(key, dataplane.Grant{File: 43, Version: 3, Write: true, Expiry: g.Expiry})
	require.ErrorIs(t, c.Handle(5, &other, tcp), orca.Permission)
	read := Make(key, dataplane.Grant{File: 42, Version: 3, Expiry: g.Expiry})
	require.ErrorIs(t, c.Handle(5, &read, tcp), orca.Permission)
	require.ErrorIs(t, c.Write(&dataplane.WriteTarget{File: 42, Version: 3, Grant: read}, tcp), orca.Permission)
	c.Closed(5)
	require.ErrorIs(t, c.Handle(5, &g, tcp), orca.NotFound)

	k = bytes.Repeat([]byte{9}, KeyLen)
	require.ErrorIs(t, c.Read(&g, id, tcp), orca.Permission, "the old key's grants end with it")
	k = nil
	require.ErrorIs(t, c.Read(&g, id, tcp), orca.Unavailable)
	require.NoError(t, NewChecker(nil, 0).Read(&dataplane.Grant{}, id, tcp))
}

func TestHandleTableIsBounded(t *testing.T) {
	c := NewChecker(func() []byte { return key }, 0)
	target := dataplane.WriteTarget{Grant: sample()}
	for id := range uint64(maxHandles + 100) {
		c.Opened(id, &target)
	}
	require.LessOrEqual(t, len(c.handles), maxHandles)
}

func TestCheckAllocations(t *testing.T) {
	c := NewChecker(func() []byte { return key }, 0)
	c.now = func() time.Time { return when }
	g, id := sample(), orca.BlockID{File: 42, Version: 3}
	require.NoError(t, c.Read(&g, id, Peer{}))
	n := testing.AllocsPerRun(1000, func() { _ = c.Read(&g, id, Peer{}) })
	require.Zero(t, n, "a grant that has held is made sure of without a MAC")
}

// TestHeldGrant: that a grant has held says nothing of one that differs.
func TestHeldGrant(t *testing.T) {
	c := NewChecker(func() []byte { return key }, 0)
	now := when
	c.now = func() time.Time { return now }
	held := sample()
	require.NoError(t, c.check(&held, Peer{}))
	require.NoError(t, c.check(&held, Peer{}))
	for name, change := range map[string]func(*dataplane.Grant){
		"file":        func(g *dataplane.Grant) { g.File++ },
		"version":     func(g *dataplane.Grant) { g.Version++ },
		"user":        func(g *dataplane.Grant) { g.UID++ },
		"right":       func(g *dataplane.Grant) { g.Write = !g.Write },
		"expiry":      func(g *dataplane.Grant) { g.Expiry = g.Expiry.Add(1) },
		"first byte":  func(g *dataplane.Grant) { g.Token[0] ^= 1 },
		"last byte":   func(g *dataplane.Grant) { g.Token[len(g.Token)-1] ^= 1 },
		"short token": func(g *dataplane.Grant) { g.Token = g.Token[:16] },
		"long token":  func(g *dataplane.Grant) { g.Token = append(g.Token, 0) },
		"no token":    func(g *dataplane.Grant) { g.Token = nil },
	} {
		g := sample()
		change(&g)
		require.ErrorIs(t, c.check(&g, Peer{}), orca.Permission, name)
	}
	require.NoError(t, c.check(&held, Peer{}), "what did not hold has changed nothing")
	now = held.Expiry
	require.ErrorIs(t, c.check(&held, Peer{}), orca.Stale)
}

func BenchmarkCheck(b *testing.B) {
	c := NewChecker(func() []byte { return key }, 0)
	c.now = func() time.Time { return when }
	g, id := sample(), orca.BlockID{File: 42, Version: 3}
	b.ReportAllocs()
	for b.Loop() {
		_ = c.Read(&g, id, Peer{})
	}
}
