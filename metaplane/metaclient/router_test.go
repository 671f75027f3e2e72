// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// newRouter is a router whose sessions lead nowhere: what it knows is tested,
// not what it asks.
func newRouter() *Router {
	return NewRouter(NewSession(nil, SessionConfig{}), func(group uint16) (*Session, error) {
		return NewSession(nil, SessionConfig{Group: group}), nil
	})
}

func (r *Router) groupOf(t *testing.T, c *metapb.Caller, target *metapb.Target) uint16 {
	t.Helper()
	s, err := r.pick(t.Context(), &metapb.Header{Caller: c}, target)
	require.NoError(t, err)
	return max(s.cfg.Group, 1)
}

func refer(t *testing.T, r *Router, c *metapb.Caller, target *metapb.Target, group uint16, rest string) (*metapb.Target, *Session) {
	t.Helper()
	next, s, err := r.referred(&metapb.Header{Caller: c}, target, orca.ReferralE("test", orca.NewIno(group, 17), rest))
	require.NoError(t, err)
	return next, s
}

func path(p string) *metapb.Target { return &metapb.Target{Path: p} }

func TestReferralsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, root, user := newRouter(), &metapb.Caller{}, &metapb.Caller{Uid: 7, Gid: 7, Groups: []uint32{8}}
		require.Equal(t, uint16(1), r.groupOf(t, root, path("/a/b/c")))
		next, s := refer(t, r, root, path("/a/b/c/d"), 2, "c/d")
		require.Equal(t, path("/a/b/c/d").Path, next.Path, "the group knows the whole path")
		require.Equal(t, uint16(2), s.cfg.Group)
		for p, want := range map[string]uint16{"/a/b": 2, "/a/b/x": 2, "/a/bb": 1, "/a": 1, "/": 1} {
			require.Equal(t, want, r.groupOf(t, root, path(p)), p)
			require.Equal(t, want, r.groupOf(t, root, &metapb.Target{Ino: 1, Path: p[1:]}), p)
			require.Equal(t, uint16(1), r.groupOf(t, user, path(p)), "%s: who may pass is asked of each caller", p)
		}
		refer(t, r, user, path("/a/b"), 2, "")
		require.Equal(t, uint16(2), r.groupOf(t, user, path("/a/b/x")))
		require.Equal(t, uint16(1), r.groupOf(t, &metapb.Caller{Uid: 7, Gid: 7}, path("/a/b/x")))
		time.Sleep(referralTTL + time.Millisecond)
		require.Equal(t, uint16(1), r.groupOf(t, user, path("/a/b/x")), "and again after a while")
		require.Equal(t, uint16(2), r.groupOf(t, root, path("/a/b/x")))

		// The group that does not have it sends back.
		_, s, err := r.referred(&metapb.Header{Caller: root}, path("/a/b/x"), orca.ReferralE("test", orca.RootIno, "a/b/x"))
		require.NoError(t, err)
		require.Same(t, r.home, s)
		require.Equal(t, uint16(1), r.groupOf(t, root, path("/a/b/x")))
		require.Nil(t, r.refs.Load())
	})
}

func TestReferralsOfInodes(t *testing.T) {
	r := newRouter()
	at := &metapb.Target{Ino: uint64(orca.NewIno(1, 20)), Path: "m/x"}
	next, s := refer(t, r, nil, at, 3, "x")
	require.Equal(t, uint64(orca.NewIno(3, 17)), next.Ino)
	require.Equal(t, "x", next.Path)
	require.Equal(t, uint16(3), s.cfg.Group)
	require.Nil(t, r.refs.Load(), "its path is not known here")
	require.Equal(t, uint16(3), r.groupOf(t, nil, &metapb.Target{Ino: uint64(orca.NewIno(3, 99))}))
	require.Equal(t, uint16(1), r.groupOf(t, nil, &metapb.Target{Ino: 1 << 60}), "the first group knows what to say of junk")
	_, _, err := r.referred(nil, next, orca.ReferralE("test", orca.RootIno, "x"))
	require.ErrorIs(t, err, orca.NotFound)
	_, _, err = r.referred(nil, at, &orca.Error{Kind: orca.Referral, Path: "junk"})
	require.ErrorIs(t, err, orca.Corrupt)
	_, _, err = r.referred(nil, at, orca.ReferralE("test", orca.NewIno(999, 17), ""))
	require.ErrorIs(t, err, orca.NotFound)
}

func TestReferralsAreBounded(t *testing.T) {
	r := newRouter()
	for i := range maxReferrals + 10 {
		refer(t, r, nil, path(fmt.Sprintf("/m%d", i)), 2, "")
	}
	require.Len(t, *r.refs.Load(), maxReferrals)
	require.Equal(t, uint16(1), r.groupOf(t, nil, path("/m3")), "the oldest went")
	require.Equal(t, uint16(2), r.groupOf(t, nil, path("/m200/x")))
	refer(t, r, nil, path("/m200"), 3, "")
	require.Equal(t, uint16(3), r.groupOf(t, nil, path("/m200/x")), "the newest holds")
	require.Len(t, *r.refs.Load(), maxReferrals)
}

// A call costs nothing more where there is one group.
func TestRoutingAllocatesNothing(t *testing.T) {
	r := newRouter()
	h, target := &metapb.Header{Caller: &metapb.Caller{}}, path("/a/b")
	n := testing.AllocsPerRun(100, func() {
		_, _ = route(t.Context(), r, h, &target, func(*Session) (*metapb.Empty, error) { return nil, nil })
	})
	require.Zero(t, n)
}
