// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
)

// TestStartUpTraps: what would make a member forget, or the engine change its
// ways, is refused at the start with what to do; and once it is undone, the
// member starts as ever.
func TestStartUpTraps(t *testing.T) {
	t.Chdir(t.TempDir())
	c := newTrio(t, nil)
	proposeUntil(t, c.leader().group, "/a")
	applied(t, c.hosts[2], "/a")
	c.close(2)
	dir := c.cfgs[2].Dir
	host, err := os.Hostname()
	require.NoError(t, err)
	rename := func(from, to string) func(*testing.T) {
		return func(t *testing.T) { require.NoError(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to))) }
	}
	format := func(from, to string) func(*testing.T) {
		return func(t *testing.T) {
			p := filepath.Join(dir, formatFile)
			b, err := os.ReadFile(p)
			require.NoError(t, err)
			require.Contains(t, string(b), from)
			require.NoError(t, os.WriteFile(p, bytes.ReplaceAll(b, []byte(from), []byte(to)), 0o600))
		}
	}
	settings := func(name string) func(*testing.T) {
		return func(*testing.T) { require.NoError(t, os.WriteFile(name, []byte("{}"), 0o600)) }
	}
	remove := func(name string) func(*testing.T) {
		return func(*testing.T) { require.NoError(t, os.Remove(name)) }
	}
	away := filepath.Join("..", filepath.Base(dir)+".away")
	for _, tc := range []struct {
		name     string
		do, undo func(*testing.T)
		kind     orca.Kind
		says     []string
	}{
		{"the journal is gone", rename("journal", away), func(t *testing.T) {
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal"))) // what the engine has begun
			rename(away, "journal")(t)
		}, orca.Corrupt, []string{"the journal of this member is gone", "quorum remove 2"}},
		{"the store is gone", rename("store-1", away), rename(away, "store-1"), orca.Corrupt, []string{"the store of this member is gone", "quorum remove 2"}},
		{"FORMAT is gone", rename(formatFile, away), rename(away, formatFile), orca.Corrupt, []string{"no FORMAT file", "restore"}},
		{"another host name", format(`"`+host+`"`, `"elsewhere"`), format(`"elsewhere"`, `"`+host+`"`), orca.Invalid, []string{"belongs to host elsewhere", "quorum remove 2"}},
		{"soft settings", settings("dragonboat-soft-settings.json"), remove("dragonboat-soft-settings.json"), orca.Invalid, []string{"settings file", "remove it"}},
		{"hard settings", settings("dragonboat-hard-settings.json"), remove("dragonboat-hard-settings.json"), orca.Invalid, []string{"settings file", "remove it"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.do(t)
			_, err := Open(c.cfgs[2], quiet())
			tc.undo(t)
			require.ErrorIs(t, err, tc.kind)
			for _, s := range tc.says {
				require.ErrorContains(t, err, s)
			}
		})
	}
	proposeUntil(t, c.leader().group, "/b")
	applied(t, c.open(2), "/b")
}

// TestTakenAddressIsRefused: somebody else listens where this member would.
func TestTakenAddressIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	addrs := freeAddrs(t, 2)
	_, err = Open(Config{Dir: t.TempDir(), Address: l.Addr().String(), Members: map[uint64]string{1: l.Addr().String(), 2: addrs[0], 3: addrs[1]}}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "address already in use")
}
