// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"

	"orca"
	"orca/metaplane/metapb"
	"orca/metaplane/ufsexec"
)

// lengthAway is the length of the file that one of this group is to change places
// with, for which there must be room here. It is asked for as the caller; the state
// machine of the other group refuses one that has grown since.
func (s *Service) lengthAway(ctx context.Context, r *metapb.RenameRequest, at *metapb.Target) (int64, error) {
	ns, err := s.groupAt(orca.Ino(at.Ino).Home())
	if err != nil {
		return 0, err
	}
	st, err := ns.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{Caller: r.H.GetCaller()}, Target: at})
	switch {
	case orca.KindOf(err) == orca.Referral || err == nil && st.Attr.Type == uint32(orca.TypeDir):
		return 0, &orca.Error{Op: "metaserver.Rename", Path: r.Dst.Path, Kind: orca.CrossMount, Msg: "a directory stays in its group"}
	case err != nil:
		return 0, err
	}
	return st.Attr.Length, nil
}

// refusedBy is a decision of another group not to take a file. An object that is
// not the one that this group knows is looked at before the client tries again.
func refusedBy(rec *metapb.TransferRecord) error {
	no := &ufsexec.Refused{Err: &orca.Error{Op: "metaserver.Rename", Path: rec.Path, Kind: orca.Kind(rec.Kind), Msg: rec.Msg}}
	if orca.Kind(rec.Kind) == orca.Stale {
		no.Changed = true
		no.Err = &orca.Error{Op: "metaserver.Rename", Path: rec.Path, Kind: orca.Busy, Msg: rec.Msg}
	}
	return no
}
