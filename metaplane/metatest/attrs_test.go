// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// change is one change of attributes.
func change(t *testing.T, e *Env, p string, q *metapb.SetAttrRequest) {
	t.Helper()
	q.H, q.Target = e.h(), at(p)
	_, err := e.NS.SetAttr(e.ctx(), q)
	require.NoError(t, err)
}

// Attributes that change while a file is being persisted reach the store, and
// no sync brings the old ones back.
func TestAttributesOfAFileBeingPersisted(t *testing.T) {
	when := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, moment := range []string{"before the upload", "before the name is held", "before the commit", "before it is on record"} {
		t.Run(moment, func(t *testing.T) {
			h := quick(t)
			e := newEnv(t, h)
			a := e.write("/d/f", orca.AsyncThrough, "content")
			now := func(m string) {
				if m == moment {
					change(t, e, "/d/f", &metapb.SetAttrRequest{Mask: 1 | 2 | 4 | 8 | 16, Mode: 0o444, Uid: 12, Gid: 34, Atime: when.UnixNano(), Mtime: when.UnixNano()})
				}
			}
			now("before the upload")
			w, err := e.fs(a.MountId).Create(e.ctx(), "d/f", "token")
			require.NoError(t, err)
			w.(ufs.Hinted).Hint(ufs.WriteHint{Owned: true, Mode: a.Mode, UID: a.Uid, GID: a.Gid})
			_, err = io.WriteString(w, "content")
			require.NoError(t, err)
			now("before the name is held")
			prep, err := e.NS.PersistPrepare(e.ctx(), &metapb.PersistPrepareRequest{H: e.h(), File: a.Ino, Version: a.Version})
			require.NoError(t, err)
			now("before the commit")
			in, err := w.Commit(e.ctx())
			require.NoError(t, err)
			now("before it is on record")
			_, err = e.NS.PersistCommit(e.ctx(), &metapb.PersistCommitRequest{H: e.h(), Intent: prep.Intent, Fingerprint: in.Fingerprint,
				Owned: true, Mode: a.Mode, Uid: a.Uid, Gid: a.Gid})
			require.NoError(t, err)
			e.equal(os.FileMode(0o444), os.FileMode(e.stat("/d/f").Mode))
			e.drained()
			st, err := os.Stat(e.onDisk("d/f"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o444), st.Mode())
			require.True(t, when.Equal(st.ModTime()), st.ModTime())
			sys := st.Sys().(*syscall.Stat_t)
			require.EqualValues(t, []uint32{12, 34}, []uint32{sys.Uid, sys.Gid})
			e.names("/d", every(0))
			got, err := e.statErr("/d/f", every(0))
			require.NoError(t, err)
			require.EqualValues(t, 0o444, got.Mode)
			require.EqualValues(t, a.Version, got.Version, "a change of attributes is no change of content")
			require.Equal(t, when.UnixNano(), got.Mtime)
			e.content("/d/f", "content")
		})
	}
}

// A chmod while an overwrite is open: what is published has the new mode, in
// the store, too.
func TestAttributesChangedUnderAWriter(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	e.write("/d/f", orca.CacheThrough, "one")
	r, err := e.create("/d/f", orca.CacheThrough)
	require.NoError(t, err)
	change(t, e, "/d/f", &metapb.SetAttrRequest{Mask: 1, Mode: 0o600})
	w, err := e.fs(r.Session.MountId).Create(e.ctx(), r.Session.UfsKey, "token")
	require.NoError(t, err)
	w.(ufs.Hinted).Hint(ufs.WriteHint{Owned: true, Mode: r.Attr.Mode, UID: r.Attr.Uid, GID: r.Attr.Gid})
	_, err = io.WriteString(w, "two")
	require.NoError(t, err)
	in, err := w.Commit(e.ctx())
	require.NoError(t, err)
	_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: r.Session.Id, Fence: r.Session.Fence, Length: 3, Fingerprint: in.Fingerprint})
	require.NoError(t, err)
	e.drained()
	st, err := os.Stat(e.onDisk("d/f"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	got, err := e.statErr("/d/f", every(0))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, got.Mode)
	e.content("/d/f", "two")
}

// What a listing saw before a chmod does not undo it.
func TestListingFromBeforeAChangeOfAttributes(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	e.mkdir("/d/sub")
	a := e.write("/d/f", orca.CacheThrough, "one")
	dir := e.stat("/d")
	m := h.host.Group().Machine()
	old := &metapb.SyncApplyOp{
		Dir: dir.Ino, Change: m.Applied(),
		Self: &metapb.SyncEntry{Dir: true, Owners: true, Mode: dir.Mode, Uid: dir.Uid, Gid: dir.Gid},
		Entries: []*metapb.SyncEntry{
			{Name: "f", Length: a.Length, Fingerprint: a.Fingerprint, Owners: true, Mode: a.Mode, Uid: a.Uid, Gid: a.Gid},
			{Name: "sub", Dir: true, Owners: true, Mode: 0o755},
		},
	}
	names := []string{"/d", "/d/f", "/d/sub"}
	for _, p := range names {
		change(t, e, p, &metapb.SetAttrRequest{Mask: 1, Mode: 0o711})
	}
	_, err := h.host.Group().Propose(e.ctx(), &command.Command{Now: time.Now().UnixNano(), SyncApply: old})
	require.NoError(t, err)
	for _, p := range names {
		require.EqualValues(t, 0o711, e.stat(p).Mode, p)
	}
}

// A worker asks before it commits an upload: once another writer has taken the
// session over the answer is Stale, and while it commits nobody takes it over.
func TestFenceBeforeTheCommit(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	for _, dir := range []string{"/d", "/p/d", "/o/d"} {
		e.write(dir+"/f", orca.MustCache, "one") // its upload replaces nothing in particular
		hold := func(s *metapb.WriteSession) error {
			_, err := e.NS.Renew(e.ctx(), &metapb.RenewRequest{H: e.h(), Sessions: []uint64{s.Id}, Fence: s.Fence})
			return err
		}
		steal := func() (*metapb.CreateReply, error) {
			return e.NS.Create(e.ctx(), &metapb.CreateRequest{H: e.h(), Target: at(dir + "/f"), Overwrite: true, Steal: true, WriteType: uint32(orca.Through)})
		}
		finish := func(s *metapb.WriteSession, data string) {
			in, err := e.upload(s, data)
			require.NoError(t, err)
			_, err = e.NS.Complete(e.ctx(), &metapb.CompleteRequest{H: e.h(), Session: s.Id, Fence: s.Fence, Length: int64(len(data)), Fingerprint: in.Fingerprint})
			require.NoError(t, err)
		}
		first, err := e.create(dir+"/f", orca.Through)
		require.NoError(t, err)
		second, err := steal()
		require.NoError(t, err)
		e.want(orca.Stale, hold(first.Session))
		require.NoError(t, hold(second.Session))
		_, err = steal()
		e.want(orca.Busy, err)
		e.want(orca.Stale, hold(&metapb.WriteSession{Id: second.Session.Id, Fence: second.Session.Fence + 1}))
		finish(second.Session, "second")
		e.content(dir+"/f", "second")
		e.want(orca.Stale, hold(second.Session))

		third, err := steal()
		require.NoError(t, err)
		require.NoError(t, hold(third.Session))
		finish(third.Session, "third")
		e.content(dir+"/f", "third")
	}
	_, err := e.NS.Renew(e.ctx(), &metapb.RenewRequest{H: e.h(), Sessions: []uint64{1, 2}, Fence: 1})
	e.want(orca.Invalid, err)
}

// Who looks at the store sees what is there also when somebody else brings the
// namespace in line at the same moment.
func TestTwoSyncsOfOneFile(t *testing.T) {
	h := quick(t)
	e := newEnv(t, h)
	h.Posix.Put("s/f", "")
	a, err := e.statErr("/p/s/f", every(0))
	require.NoError(t, err)
	for i := range 300 {
		h.Posix.Put("s/f", strings.Repeat("x", i+1))
		done := make(chan error, 1)
		go func() { done <- h.Service.Syncer.File(e.ctx(), orca.Ino(a.Ino)) }()
		got, err := e.statErr("/p/s/f", every(0))
		require.NoError(t, err)
		require.EqualValues(t, i+1, got.Length)
		require.NoError(t, <-done)
	}
}
