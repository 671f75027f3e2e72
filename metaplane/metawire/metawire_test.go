// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metawire

import (
	"errors"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Every method of the contract has exactly one row, so that nothing can be
// added to the interface and forgotten on the wire.
func TestTableCoversTheContract(t *testing.T) {
	names := map[string]bool{}
	for op, m := range Methods() {
		require.Equal(t, op, m.Op)
		require.False(t, names[m.Name], m.Name)
		names[m.Name] = true
	}
	typ := reflect.TypeFor[metaplane.Namespace]()
	require.Equal(t, typ.NumMethod(), len(names))
	for i := range typ.NumMethod() {
		require.True(t, names[typ.Method(i).Name], typ.Method(i).Name)
	}
}

func TestDecodeRefusesGarbageAndMissingHeader(t *testing.T) {
	for _, m := range Methods() {
		_, err := m.Decode([]byte{0xff, 0xff, 0xff})
		require.ErrorIs(t, err, orca.Invalid, m.Name)
		_, err = m.Decode(nil)
		require.ErrorIs(t, err, orca.Invalid, m.Name)
	}
	b, err := Marshal(&metapb.StatRequest{H: &metapb.Header{Seq: 3}, Target: &metapb.Target{Path: "/a"}})
	require.NoError(t, err)
	q, err := Methods()[OpStat].Decode(b)
	require.NoError(t, err)
	require.Equal(t, "/a", q.(*metapb.StatRequest).Target.Path)
}

func TestErrorsSurviveTheWire(t *testing.T) {
	in := &orca.Error{Op: "fsm.Rename", Path: "/a", Kind: orca.NotEmpty, Msg: "three entries", Err: errors.New("cause")}
	kind, rep := EncodeError(in)
	b, err := Marshal(rep)
	require.NoError(t, err)
	out := DecodeError(kind, b)
	require.ErrorIs(t, out, orca.NotEmpty)
	require.Contains(t, out.Error(), "/a")
	require.Contains(t, out.Error(), "three entries: cause")
	kind, _ = EncodeError(errors.New("foreign"))
	require.Equal(t, orca.Internal, kind)
	require.ErrorIs(t, DecodeError(orca.Busy, []byte{0xff}), orca.Busy)
}
