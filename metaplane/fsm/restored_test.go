// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"io"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

// restore makes a world of the state of another one, as orca admin restore does,
// and says what has become of a record.
func (w *world) restore(t *testing.T, created int64) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := inodekv.Open(inodekv.Config{Memory: true}, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(false) })
	c, err := w.m.Cursor()
	require.NoError(t, err)
	defer c.Close()
	r := &Renewal{Created: created}
	var rest [][2][]byte
	over := false
	require.NoError(t, db.Fill(c.Applied, func() ([]byte, []byte, error) {
		for !over {
			k, v, err := c.Next()
			require.NoError(t, err)
			if k == nil {
				over = true
				require.NoError(t, r.Rest(func(k, v []byte) { rest = append(rest, [2][]byte{k, v}) }))
				break
			}
			v, keep, err := r.Record(k, v)
			require.NoError(t, err)
			if keep {
				return k, v, nil
			}
		}
		if len(rest) == 0 {
			return nil, nil, nil
		}
		kv := rest[0]
		rest = rest[1:]
		return kv[0], kv[1], nil
	}))
	m, err := Open(Config{}, db, nil, log)
	require.NoError(t, err)
	return &world{t: t, db: db, m: m, index: w.index, now: w.now}
}

// TestRestoredGivesNothingAwayTwice: inodes, versions, sessions and intents that
// may have been given away after the backup are not given away again, not even
// when a restored state is backed up and restored.
func TestRestoredGivesNothingAwayTwice(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	w.must(&command.Command{Mount: &metapb.MountOp{Mount: &metapb.Mount{Path: "/", Uri: "mem://x", SyncIntervalMs: -1}}})
	w.must(&command.Command{SetFact: &metapb.SetFactOp{Key: "grant.key", Value: []byte("secret")}})
	w.must(&command.Command{SetFact: &metapb.SetFactOp{Key: "member.1", Value: []byte("addr node")}})
	w.must(&command.Command{SetFact: &metapb.SetFactOp{Key: "other", Value: []byte("kept")}})
	w.must(&command.Command{Reign: 7, Noop: &metapb.NoopOp{}})
	w.must(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: uint64(orca.RootIno), Change: w.index, Loaded: true,
		Entries: []*metapb.SyncEntry{{Name: "f", Length: 1, Fingerprint: "one", Mtime: 1}}}})
	open := w.must(&command.Command{Create: &metapb.CreateOp{Target: at("/f"), Overwrite: true, WriteType: uint32(orca.MustCache)}}).Session
	// A record of a feature that this build does not have.
	tx := w.db.NewTx()
	tx.Set([]byte("~future"), []byte("unknown"))
	require.NoError(t, tx.Commit(w.index, 1))
	require.NoError(t, tx.Close())
	w.reopen()

	// The time that is lost: what it gave away.
	created := w.now
	r := w.restore(t, created)
	lostFile := w.must(&command.Command{Create: &metapb.CreateOp{Target: at("/lost"), Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
	w.must(&command.Command{Complete: &metapb.CompleteOp{Session: open.Id, Fence: open.Fence, Length: 3}})
	lostVersion := w.must(&command.Command{Create: &metapb.CreateOp{Target: at("/f"), Overwrite: true, Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
	require.Greater(t, lostVersion.Version, open.Version)

	require.NoError(t, r.m.Check())
	require.Zero(t, r.m.Reign(), "a new cluster's terms begin anew")
	require.Nil(t, r.m.Fact("grant.key"))
	require.Nil(t, r.m.Fact("member.1"))
	require.Equal(t, "kept", string(r.m.Fact("other")))
	v, err := r.db.Get(nil, []byte("~future"))
	require.NoError(t, err)
	require.Equal(t, "unknown", string(v))
	require.Equal(t, r.index, r.db.Base(), "the index goes on")
	walked, err := r.m.Walk(orca.Caller{}, 0, "/")
	require.NoError(t, err)
	require.False(t, walked.Loaded, "its store is to be listed again")
	taken, restored := r.m.RestoredIntent(0)
	require.True(t, restored)
	require.Equal(t, created, taken)
	// The writer is fenced off, and what it left is looked at.
	kind := orca.Kind(r.do(&command.Command{Complete: &metapb.CompleteOp{Session: open.Id, Fence: open.Fence, Length: 3}}).Kind)
	require.Equal(t, orca.Stale, kind)
	s, err := r.m.Session(open.Id)
	require.NoError(t, err)
	require.Equal(t, metapb.SessionState_SESSION_EXPIRED, s.State)
	r.must(&command.Command{DropSession: &metapb.DropSessionOp{Session: open.Id}})

	for _, name := range []string{"/new", "/newer"} {
		fresh := r.must(&command.Command{Create: &metapb.CreateOp{Target: at(name), Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
		require.Greater(t, fresh.Ino, lostFile.Ino)
		next := r.must(&command.Command{Create: &metapb.CreateOp{Target: at("/f"), Overwrite: true, Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
		require.Greater(t, next.Version, lostVersion.Version)
		se := r.must(&command.Command{Create: &metapb.CreateOp{Target: at(name + "-open"), WriteType: uint32(orca.MustCache)}}).Session
		require.Greater(t, se.Id, open.Id+1000)
		require.Greater(t, r.m.count.intent, uint64(1000))
		require.NoError(t, r.m.Check())
		// What a restored state gives away is lost once more.
		was := r
		r = r.restore(t, was.now)
		lostFile = was.must(&command.Command{Create: &metapb.CreateOp{Target: at(name + "-lost"), Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
		lostVersion = was.must(&command.Command{Create: &metapb.CreateOp{Target: at("/f"), Overwrite: true, Complete: true, WriteType: uint32(orca.MustCache)}}).Attr
	}
}

// TestNothingRestored: of a namespace in which nothing was ever done there is
// nothing but the gap.
func TestNothingRestored(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	r := w.restore(t, 1)
	require.NoError(t, r.m.Check())
	a := r.must(&command.Command{Mkdir: &metapb.MkdirOp{Target: at("/d"), Mode: 0o755}}).Attr
	require.Greater(t, orca.Ino(a.Ino), orca.NewIno(0, counterGap))
}

// TestClearDirFlags: fields that are appended to a record later survive.
func TestClearDirFlags(t *testing.T) {
	d := inode.Dir{Ino: 77, Parent: 1, Name: "n", Mode: 0o755, Flags: inode.Loaded | inode.Persisted | inode.HasSync, Mtime: 5, Entries: 3, Mount: 2}
	b := append(inode.AppendDir(nil, &d), "a later field"...)
	out, err := inode.ClearDirFlags(b, inode.Loaded)
	require.NoError(t, err)
	require.Contains(t, string(out), "a later field")
	got, err := inode.DecodeDir(out)
	require.NoError(t, err)
	d.Flags = inode.Persisted | inode.HasSync
	require.Equal(t, d, got)
	_, err = inode.ClearDirFlags(b[:10], inode.Loaded)
	require.ErrorIs(t, err, orca.Corrupt)
}
