// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/ufssync"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

// noSync is a Syncer that nothing is asked of.
type noSync struct{}

func (noSync) Name(context.Context, ufssync.Place) (bool, error) { return false, nil }
func (noSync) Removing(context.Context, uint32) error            { return nil }
func (noSync) Removed(uint32, string)                            {}

// TestRefusedMkdirLeavesNothing: a mkdir with parents that is refused in the
// middle takes away what it made, whether or not it was told, and nothing that
// somebody else made or has put something into.
func TestRefusedMkdirLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		calls []orca.Kind // what the first calls of Mkdir answer; Timeout: although it is made
		there string      // before
		put   string      // after the calls
		any   bool        // an earlier leader may have begun
		left  []string
	}{
		"all are its own":          {calls: []orca.Kind{orca.OK, orca.OK, orca.NoSpace}},
		"an answer is lost":        {calls: []orca.Kind{orca.Timeout, orca.Exists, orca.OK, orca.NoSpace}},
		"the topmost was there":    {calls: []orca.Kind{orca.Exists, orca.OK, orca.NoSpace}, there: "a", left: []string{"a/"}},
		"or an earlier leader's":   {calls: []orca.Kind{orca.Exists, orca.OK, orca.NoSpace}, there: "a", any: true},
		"somebody has used it":     {calls: []orca.Kind{orca.OK, orca.OK, orca.NoSpace}, put: "a/x", left: []string{"a/", "a/x"}},
		"the last is made already": {calls: []orca.Kind{orca.OK, orca.OK, orca.OK}},
	} {
		t.Run(name, func(t *testing.T) {
			store := memufs.New(memufs.Config{})
			if tc.there != "" {
				require.NoError(t, store.FS().Mkdir(t.Context(), tc.there, 0o755))
			}
			calls := tc.calls
			fs := wrap.Intercept(store.FS(), func(ctx context.Context, c wrap.Call, do func(context.Context) error) error {
				if c.Op != wrap.Mkdir {
					return do(ctx)
				}
				k := calls[0]
				calls = calls[1:]
				if k == orca.NoSpace {
					return orca.E("test", k, "")
				}
				err := do(ctx)
				if k == orca.Timeout {
					return orca.E("test", k, "")
				}
				require.Equal(t, k, orca.KindOf(err))
				return err
			})
			cfg := Config{}
			cfg.setDefaults()
			e := &Executor{cfg: cfg, stores: oneStore{fs}, sync: noSync{}}
			in := &command.Intent{Op: metapb.IntentOp_INTENT_MKDIR, Source: "a", Target: "a/b/c", Mkdirs: 3, Command: &command.Command{}}
			made := directories{any: tc.any}
			for len(calls) > 0 {
				_ = mkdir(t.Context(), fs, in, &made)
			}
			if tc.put != "" {
				store.Put(tc.put, "x")
			}
			require.NoError(t, e.unmake(t.Context(), in, &made))
			require.ElementsMatch(t, tc.left, store.Keys())
		})
	}
}
