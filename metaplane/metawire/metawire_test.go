// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metawire

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/dataplane/frame"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Every method of the contract has exactly one row, so that nothing can be
// added to the interface and forgotten on the wire.
func TestTableCoversTheContract(t *testing.T) {
	names := map[string]bool{}
	for op, m := range Methods() {
		require.Equal(t, op, m.Op)
		require.GreaterOrEqual(t, op, frame.OpMetaFirst)
		require.Less(t, op, frame.OpJobFirst)
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
