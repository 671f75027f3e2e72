// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/tiers"
)

// silent is a group that a voice reaches and that never answers.
type silent struct{ metaplane.Workers }

func (silent) Register(ctx context.Context, _ *metapb.RegisterRequest) (*metapb.RegisterReply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// nothing is a cache that holds nothing.
type nothing struct{ cache }

func (nothing) Reports() (files []tiers.FileReport, next uint64) { return nil, 0 }
func (nothing) Usage() []tiers.Usage                             { return nil }

// TestSettle: a worker that starts waits until the last group has had its report,
// not a moment longer, and not for one that has no leader.
func TestSettle(t *testing.T) {
	start := func(t *testing.T) (a *agent, settled func() time.Duration) {
		ctx, cancel := context.WithCancel(t.Context())
		a, err := newAgent(silent{}, nothing{}, &metapb.Worker{}, t.TempDir(), func() {}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		a.ctx = ctx
		a.in = func(uint16) (metaplane.Workers, error) { return silent{}, nil }
		t.Cleanup(func() {
			cancel()
			a.wg.Wait()
		})
		begin, end := time.Now(), make(chan time.Duration)
		go func() {
			a.settle(ctx)
			end <- time.Since(begin)
		}()
		return a, func() time.Duration { return <-end }
	}
	const first, second = 100*time.Millisecond + time.Microsecond, time.Second
	for name, tc := range map[string]struct {
		tell func(a *agent)
		want time.Duration
	}{
		"one group":  {func(a *agent) { a.knownTo(1); a.heard([]uint32{1}) }, first},
		"heard last": {func(a *agent) { a.heard([]uint32{1}); a.knownTo(1); a.heard([]uint32{1}) }, first},
		"two groups": {func(a *agent) {
			a.knownTo(1)
			a.heard([]uint32{1, 2})
			time.Sleep(second)
			a.knownTo(2)
		}, first + second},
		"no leader": {func(a *agent) { a.knownTo(1); a.heard([]uint32{1, 2}) }, groupsWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, settled := start(t)
				time.Sleep(first)
				tc.tell(a)
				require.Equal(t, tc.want, settled())
			})
		})
	}
}
