// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
)

// passing is a group whose leadership is handed over.
type passing struct {
	Group
	over  chan struct{}
	leads bool
}

func (p *passing) Heir() (uint64, <-chan struct{}) {
	select {
	case <-p.over:
		return 0, nil
	default:
		return 2, p.over
	}
}

func (p *passing) Leader() (bool, uint64) { return p.leads, 5 }

// TestNoStoreIsChangedWhileTheLeadershipPasses: the proof that a member leads
// outlives an election that its own leader has asked for.
func TestNoStoreIsChangedWhileTheLeadershipPasses(t *testing.T) {
	for _, leads := range []bool{true, false} {
		g := &passing{over: make(chan struct{}), leads: true}
		s := &Service{raw: g}
		s.lead.reign.Store(5)
		s.lead.proven = time.Now().Add(time.Hour) // not old, whenever this ends
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.Equal(t, orca.Canceled, orca.KindOf(s.stillLeads(ctx)), "it waits")
		g.leads = leads
		close(g.over)
		require.Equal(t, leads, s.stillLeads(t.Context()) == nil)
	}
}
