// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
	"orca/metaplane/ufssync"
	"orca/ufs"
	"orca/ufs/wrap"
)

// between is a group to which something happens between the first question to
// its machine and the second.
type between struct {
	*raftgroup.Group
	asked  *atomic.Int32
	happen func()
}

func (b between) Machine() *fsm.Machine {
	if b.asked.Add(1) == 2 {
		b.happen()
	}
	return b.Group.Machine()
}

// TestLockedBehindAWalk: a reader has walked up to a name that only the store has.
// Before it judges that, somebody else learns of the name and locks it. It is
// there until the rename is through, so the lock must not pass for a sign that
// it is not.
func TestLockedBehindAWalk(t *testing.T) {
	h := quick(t)
	h.Posix.Put("d/x", "content")
	e := newEnv(t, h)
	e.stat("/p/d")
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	h.Faults(posixURI).Add(wrap.Rule{Op: wrap.Rename, Nth: 1, Before: func(wrap.Call) { close(held) }, Block: release})
	g := between{h.host.Group(), new(atomic.Int32), func() {
		go func() {
			_, err := e.NS.Rename(t.Context(), &metapb.RenameRequest{Src: at("/p/d/x"), Dst: at("/p/d/y")})
			done <- err
		}()
		<-held
	}}
	s := ufssync.New(ufssync.Config{}, g, h.Service.Stores, slog.New(slog.DiscardHandler))
	defer func() { require.NoError(t, s.Close()) }()
	w, err := s.Path(t.Context(), orca.Caller{}, 0, "/p/d/x", ufssync.Option{})
	require.NoError(t, err)
	require.True(t, w.Found, "it is there under its old name")
	require.NotZero(t, w.Pending)
	w, err = s.Path(t.Context(), orca.Caller{}, 0, "/p/d/y", ufssync.Option{})
	require.NoError(t, err)
	require.False(t, w.Found, "and not yet under its new one")
	close(release)
	require.NoError(t, <-done)
	e.absent("/p/d/x", nil)
	e.content("/p/d/y", "content")
}

// TestMovedAtEachQuestion: whenever the store is asked for a name, the directory
// above it is elsewhere, and back before the answer is used. The file is there
// all the time, so the reader may be asked to come again, but not be told that it
// is not.
func TestMovedAtEachQuestion(t *testing.T) {
	h := NewHarness(t)
	h.Config.BusyWait = time.Minute
	moves, most := 0, 0
	var move func(from, to string)
	h.Around = func(in ufs.FS) ufs.FS {
		return wrap.Intercept(in, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
			if c.Op != wrap.Stat || !strings.HasSuffix(c.Key, "d/x") || moves >= most {
				return do(ctx)
			}
			moves++
			move("/old/d", "/old/e")
			defer move("/old/e", "/old/d")
			return do(ctx)
		})
	}
	h.Start(t)
	t.Cleanup(h.Stop)
	e := newEnv(t, h)
	move = func(from, to string) { e.ok(e.rename(from, to)) }
	e.putDisk("old/d/x", "content")
	e.stat("/old/d")
	s := ufssync.New(ufssync.Config{}, h.host.Group(), h.Service.Stores, slog.New(slog.DiscardHandler))
	defer func() { require.NoError(t, s.Close()) }()
	most = 1000
	_, err := s.Path(t.Context(), orca.Caller{}, 0, "/old/d/x", ufssync.Option{})
	require.ErrorIs(t, err, orca.Busy)
	require.NotZero(t, moves)
	absent, err := s.Known(t.Context(), orca.Caller{}, 0, "/old/d/x")
	require.Nil(t, absent, "nor may a mutation rely on its absence")
	require.ErrorIs(t, err, orca.Busy)
	most = moves + 2
	w, err := s.Path(t.Context(), orca.Caller{}, 0, "/old/d/x", ufssync.Option{})
	require.NoError(t, err)
	require.True(t, w.Found, "two moves are got over")
	require.Equal(t, most, moves)
}

// TestRefusedCreateLeavesNothing: a file is made with the directories above it,
// the answer is lost, and then the store refuses it. Those directories go again,
// unless somebody has used them meanwhile: another program, or another create
// that got through and whose file is gone again.
func TestRefusedCreateLeavesNothing(t *testing.T) {
	h := NewHarness(t)
	h.Config.BusyWait = 10 * time.Second
	h.Config.Exec.FirstPause = time.Millisecond
	tries := 0
	var meanwhile func()
	h.Around = func(in ufs.FS) ufs.FS {
		return wrap.Intercept(in, func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
			if c.Op != wrap.Create || !strings.HasSuffix(c.Key, "/f") {
				return do(ctx)
			}
			if tries++; tries == 1 {
				// As much of it as outlives a process that dies here.
				if err := os.MkdirAll(filepath.Join(h.Folder, filepath.Dir(c.Key)), 0o755); err != nil {
					return err
				}
				return orca.E("test", orca.Timeout, "")
			}
			meanwhile()
			return orca.E("test", orca.NoSpace, "")
		})
	}
	h.Start(t)
	t.Cleanup(h.Stop)
	e := newEnv(t, h)
	e.mkdir("/old")
	touch := func(name string) error {
		_, err := e.NS.Create(e.ctx(), &metapb.CreateRequest{Target: at(name), Mode: 0o644, Complete: true, Parents: true, WriteType: uint32(orca.CacheThrough)})
		return err
	}
	for name, tc := range map[string]struct {
		meanwhile func()
		left      []string
	}{
		"all": {meanwhile: func() {}},
		"other": {
			meanwhile: func() { e.putDisk("old/other/b/x", "x") },
			left:      []string{"other", "other/b"},
		},
		"orca": {
			meanwhile: func() {
				e.ok(touch("/old/orca/b/g"))
				e.ok(e.delete("/old/orca/b/g", false))
			},
			left: []string{"orca", "orca/b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tries, meanwhile = 0, tc.meanwhile
			require.ErrorIs(t, touch("/old/"+name+"/b/f"), orca.NoSpace)
			require.Equal(t, 2, tries)
			for _, dir := range []string{name, name + "/b"} {
				_, err := os.Stat(e.onDisk("old/" + dir))
				require.Equal(t, slices.Contains(tc.left, dir), err == nil, "%s: %v", dir, err)
			}
		})
	}
	e.equal("[orca other]", e.names("/old", every(0)))
	e.ok(e.delete("/old", true))
}
