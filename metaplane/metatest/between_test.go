// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
	"orca/metaplane/ufssync"
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
