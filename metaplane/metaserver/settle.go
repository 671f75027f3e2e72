// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"time"

	"orca"
	"orca/dataplane/transport"
	"orca/metaplane/metawire"
)

// While the leadership passes from one member to another, clients are told where
// to go, or are made to wait where they are, so that none has to guess and pause:
// the member that hands over refers them to its heir at once, and a member that
// knows nobody who serves, or is about to serve itself, has them wait until that
// is settled.

// settleFor is for how long a request waits for who serves: longer than a
// hand-over takes, and the part of an election in which it is over that the last
// leader is gone.
const settleFor = 250 * time.Millisecond

// unsettled reports whether an error says that another member serves, but not
// which.
func unsettled(err error) bool {
	e, ok := err.(*orca.Error) //nolint:errorlint // what Admit and the group return themselves
	return ok && e.Kind == orca.NotLeader && e.Path == ""
}

// Settle implements gatekeeper.
func (s *Service) Settle(ctx context.Context) {
	late := time.NewTimer(settleFor)
	defer late.Stop()
	for {
		elected, serving := s.raw.LeaderChanged(), s.group.LeaderChanged()
		if !unsettled(s.Serving()) {
			return
		}
		select {
		case <-elected:
		case <-serving:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// Refer implements gatekeeper.
func (s *Service) Refer(err error) error {
	if !unsettled(err) {
		return err
	}
	if addr := s.nextAddr(); addr != "" {
		e := *err.(*orca.Error) //nolint:errorlint // it is unsettled
		e.Path = addr
		return &e
	}
	return err
}

// nextAddr is the address of the other member that leads or is about to; "": not
// known.
func (s *Service) nextAddr() string {
	replica, _ := s.raw.LeaderReplica()
	if replica == 0 {
		replica, _ = s.raw.Heir()
	}
	if replica == 0 || replica == s.raw.Replica() {
		return ""
	}
	return s.memberAddr(replica)
}

// settled is admission after some time, of what was refused while nobody was
// known to serve.
func settled(ctx context.Context, g gatekeeper, op metawire.Op, q metawire.Request) error {
	g.Settle(ctx)
	return g.Admit(op, q)
}

// refuse makes the reply of an error; g, nil for none, knows who to ask instead.
func refuse(g gatekeeper, err error) transport.Reply {
	if g != nil {
		err = g.Refer(err)
	}
	return transport.Fail(err)
}
