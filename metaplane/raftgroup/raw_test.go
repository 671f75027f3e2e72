// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRaw commits payloads from several proposers on each journal.
func TestRaw(t *testing.T) {
	for _, journal := range []string{journalTan, journalPebble} {
		t.Run(journal, func(t *testing.T) {
			r, err := OpenRaw(Config{Dir: t.TempDir(), Journal: journal}, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var wg sync.WaitGroup
			errs := make([]error, 4)
			for i := range errs {
				wg.Go(func() {
					for n := 0; n < 20 && errs[i] == nil; n++ {
						errs[i] = r.Propose(ctx, make([]byte, 120))
					}
				})
			}
			wg.Wait()
			for _, err := range errs {
				require.NoError(t, err)
			}
			require.NoError(t, r.Close())
		})
	}
}
