// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package datapb

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca/dataplane"
)

// fill sets every field of a struct to something that is not its zero value.
func fill(t *testing.T, v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); {
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(time.Unix(3, int64(i+1))))
		case f.Kind() == reflect.Struct:
			fill(t, f)
		case f.CanInt():
			f.SetInt(int64(i + 1))
		case f.CanUint():
			f.SetUint(uint64(i + 1))
		case f.Kind() == reflect.String:
			f.SetString("text")
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Type() == reflect.TypeFor[[]byte]():
			f.SetBytes([]byte{byte(i)})
		case f.Type() == reflect.TypeFor[[]uint64]():
			f.Set(reflect.ValueOf([]uint64{uint64(i + 1), 7}))
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct:
			f.Set(reflect.MakeSlice(f.Type(), 2, 2))
			for j := range f.Len() {
				fill(t, f.Index(j))
			}
		default:
			t.Fatalf("%s: this test cannot fill a %s", v.Type().Field(i).Name, f.Type())
		}
	}
}

// A field that is added to the contract and not to the messages is lost on
// the way to another host: this fails then.
func TestTranslationsAreComplete(t *testing.T) {
	var target dataplane.WriteTarget
	fill(t, reflect.ValueOf(&target).Elem())
	b, err := FromTarget(&target).MarshalVT()
	require.NoError(t, err)
	var m Target
	require.NoError(t, m.UnmarshalVT(b))
	require.Equal(t, target, m.ToTarget())

	var res dataplane.SealResult
	fill(t, reflect.ValueOf(&res).Elem())
	require.Equal(t, res, FromSeal(&res).ToSeal())

	require.Equal(t, dataplane.Grant{}, (*Grant)(nil).ToGrant())
	require.Equal(t, dataplane.WriteTarget{}, (*Target)(nil).ToTarget())
}
