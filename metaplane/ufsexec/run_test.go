// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package ufsexec

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
)

// TestRunSaysWhyItIsNotWaitedFor: who gives up is told so, and who waited for as
// long as it had is told what the store says, or that it says nothing.
func TestRunSaysWhyItIsNotWaitedFor(t *testing.T) {
	gone, giveUp := context.WithCancel(t.Context())
	giveUp()
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	for name, tc := range map[string]struct {
		ctx  context.Context
		last error
		want orca.Kind
	}{
		"gave up":                   {gone, nil, orca.Canceled},
		"gave up after a refusal":   {gone, orca.E("test", orca.NoSpace, ""), orca.Canceled},
		"in time":                   {late, nil, orca.Timeout},
		"in time, after an attempt": {late, orca.E("test", orca.Busy, ""), orca.Busy},
		"in time, after a refusal":  {late, orca.E("test", orca.NoSpace, ""), orca.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{done: make(chan struct{})}
			if tc.last != nil {
				r.last.Store(&tc.last)
			}
			e := &Executor{runs: map[uint64]*run{1: r}}
			_, err := e.Run(tc.ctx, &command.Intent{Id: 1})
			require.ErrorIs(t, err, tc.want)
		})
	}
}
