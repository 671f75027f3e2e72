// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package task

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/jobs/jobpb"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

// names is a metaplane with one empty file that waits for its store.
type names struct {
	key     string // that it prepares
	settled []*metapb.PersistCommitRequest
}

func (n *names) Open(_ context.Context, r *metapb.OpenRequest) (*metapb.OpenReply, error) {
	return &metapb.OpenReply{Attr: &metapb.Attr{
		Ino: r.Target.Ino, Type: uint32(orca.TypeFile), Version: 2, Mode: 0o640, Persist: uint32(orca.ToBePersisted), MountId: 1,
	}}, nil
}

func (n *names) PersistPrepare(context.Context, *metapb.PersistPrepareRequest) (*metapb.PersistPrepareReply, error) {
	return &metapb.PersistPrepareReply{Intent: 9, MountId: 1, UfsKey: n.key}, nil
}

func (n *names) PersistCommit(ctx context.Context, r *metapb.PersistCommitRequest) (*metapb.Empty, error) {
	n.settled = append(n.settled, r)
	return &metapb.Empty{}, ctx.Err()
}

type one struct{ fs ufs.FS }

func (o one) FS(context.Context, uint32) (ufs.FS, error) { return o.fs, nil }

// TestPersistSettlesItsIntent: whatever becomes of a commit, the metaplane is
// told all that the worker knows, and nothing that it does not.
func TestPersistSettlesItsIntent(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		name   string
		rule   wrap.Rule
		key    string
		there  bool // an object, in the end
		failed bool
		told   *metapb.PersistCommitRequest
	}{
		{name: "committed", key: "d/f", there: true, told: &metapb.PersistCommitRequest{Intent: 9, Owned: true, Mode: 0o640}},
		{name: "the answer was lost", key: "d/f", there: true, failed: true, told: &metapb.PersistCommitRequest{Intent: 9, Unsure: true},
			rule: wrap.Rule{Op: wrap.Commit, Lose: orca.E("store", orca.Timeout, "")}},
		{name: "failed", key: "d/f", failed: true, told: &metapb.PersistCommitRequest{Intent: 9, Unsure: true},
			rule: wrap.Rule{Op: wrap.Commit, Err: orca.E("store", orca.Unavailable, "")}},
		{name: "moved meanwhile", key: "d/g", failed: true, told: &metapb.PersistCommitRequest{Intent: 9}},
		{name: "the task was taken away", key: "d/f", there: true, failed: true, told: &metapb.PersistCommitRequest{Intent: 9, Unsure: true},
			rule: wrap.Rule{Op: wrap.Commit, Lose: orca.E("store", orca.Canceled, ""), After: func(wrap.Call) { cancel() }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := memufs.New(memufs.Config{Objects: true})
			f := wrap.NewFaults(store.FS())
			if c.rule.Op != 0 {
				f.Add(c.rule)
			}
			ns := &names{key: c.key}
			done, err := Persist(ctx, &Env{NS: ns, Stores: one{f.FS()}}, &jobpb.Persist{File: 7, Version: 2, MountId: 1}, "d/f")
			require.Equal(t, c.failed, err != nil, "%v", err)
			if !c.failed {
				require.Equal(t, jobpb.Outcome_PERSISTED, done.Outcome)
			}
			require.Len(t, ns.settled, 1)
			got := ns.settled[0]
			require.Equal(t, c.failed, got.Fingerprint == "")
			require.Equal(t, c.told.Intent, got.Intent)
			require.Equal(t, c.told.Unsure, got.Unsure)
			require.Equal(t, c.told.Mode, got.Mode)
			f.Clear()
			_, err = store.FS().Stat(t.Context(), "d/f")
			require.Equal(t, c.there, err == nil)
			require.NoError(t, store.FS().Sweep(t.Context(), "d/f", ufsexec.PersistToken(7, 2)))
			require.Zero(t, store.Uploads())
		})
	}
}
