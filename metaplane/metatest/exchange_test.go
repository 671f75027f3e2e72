// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/metaplane/metapb"
)

// Who leads dies when the store has exchanged two names of one group and that is not
// on record: the next one does not have them change back.
func TestAnExchangeIsNotMadeTwice(t *testing.T) {
	store := t.TempDir()
	p := newPairOn(t, true)
	p.mount("/m", "file://"+store, 0)
	for i, point := range []string{"before store", "after store", "before deciding exchange", "after deciding exchange"} {
		p.put(store, "a", "this one")
		p.put(store, "b", "that")
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := p.one.Rename(ctx, &metapb.RenameRequest{H: &metapb.Header{Client: 77, Seq: uint64(i + 1)}, Src: at("/m/a"), Dst: at("/m/b"), Exchange: true})
			return err
		}
		p.cut.Store(point)
		require.Error(t, ask(), point)
		p.cut.Store("")
		p.leave()
		p.serve()
		require.Eventually(t, func() bool { return ask() == nil }, time.Minute, 5*time.Millisecond, point)
		for name, want := range map[string]string{"a": "that", "b": "this one"} {
			got, err := os.ReadFile(filepath.Join(store, name))
			require.NoError(t, err)
			require.Equal(t, want, string(got), point)
			a, err := p.stat("/m/" + name)
			require.NoError(t, err)
			require.EqualValues(t, len(want), a.Length, point)
		}
	}
}
