// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"

	"orca"
	"orca/metaplane/members"
)

// alone is the membership of a simulated group: one member for ever.
type alone struct{}

// Alone implements metaserver.Group, as do those below.
func (alone) Alone() bool { return true }

// Replica is 1.
func (alone) Replica() uint64 { return 1 }

// LeaderReplica is 1.
func (alone) LeaderReplica() (replica, term uint64) { return 1, 1 }

// Heir is nobody.
func (alone) Heir() (replica uint64, over <-chan struct{}) { return 0, nil }

// Known is this one.
func (alone) Known() []uint64 { return []uint64{1} }

// Members is this one.
func (alone) Members(context.Context) (*members.Members, error) {
	return &members.Members{List: []members.Member{{Replica: 1, Voter: true, Leader: true}}}, nil
}

var errAlone = orca.E("sim", orca.Unsupported, "a simulated group stays alone")

// AddLearner is refused.
func (alone) AddLearner(context.Context, uint64, string) error { return errAlone }

// Promote is refused.
func (alone) Promote(context.Context, uint64) error { return errAlone }

// Spare is refused.
func (alone) Spare(context.Context, uint64) error { return errAlone }

// Remove is refused.
func (alone) Remove(context.Context, uint64) error { return errAlone }

// Transfer is refused.
func (alone) Transfer(context.Context, uint64) error { return errAlone }
