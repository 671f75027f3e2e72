// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package mount

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
)

func table() *Table {
	return NewTable([]*metapb.Mount{
		{Id: 1, Path: "/", Uri: "file:///data"},
		{Id: 2, Path: "/s3", Uri: "s3://b/p"},
		{Id: 3, Path: "/s3/in", Uri: "s3://c"},
	}, 4)
}

func TestResolveLongestPrefix(t *testing.T) {
	for _, c := range []struct {
		path string
		id   uint32
		rel  string
	}{
		{"/", 1, ""}, {"/a/b", 1, "a/b"}, {"/s3", 2, ""}, {"/s3x", 1, "s3x"},
		{"/s3/f", 2, "f"}, {"/s3/in", 3, ""}, {"/s3/in/x/y", 3, "x/y"}, {"/s3/inn", 2, "inn"},
	} {
		m, rel := table().Resolve(c.path)
		require.Equal(t, c.id, m.Id, c.path)
		require.Equal(t, c.rel, rel, c.path)
	}
	m, _ := NewTable(nil, 0).Resolve("/x")
	require.Nil(t, m)
	require.Len(t, table().Below("/"), 2)
	require.Len(t, table().Below("/s3"), 1)
	require.Empty(t, table().Below("/s3/in"))
}

func TestCheckNewRefusesOverlap(t *testing.T) {
	for _, uri := range []string{"s3://b", "s3://b/p", "s3://b/p/q", "file:///data/x", "file:///"} {
		require.ErrorIs(t, table().CheckNew(&metapb.Mount{Path: "/new", Uri: uri}), orca.Exists, uri)
	}
	require.NoError(t, table().CheckNew(&metapb.Mount{Path: "/new", Uri: "s3://b/pp"}))
	require.ErrorIs(t, table().CheckNew(&metapb.Mount{Path: "/s3", Uri: "s3://z"}), orca.Exists)
}

func TestClean(t *testing.T) {
	m := &metapb.Mount{Path: "/a//b/", Uri: "/tmp/x/", Options: map[string]string{
		"aws.accessKeyId": "k", "alluxio.underfs.s3.endpoint": "http://h", "alluxio.underfs.s3.inherit.acl": "true"}}
	require.NoError(t, Clean(m))
	require.Equal(t, "/a/b", m.Path)
	require.Equal(t, "file:///tmp/x", m.Uri)
	require.Equal(t, "file", m.Scheme)
	require.Equal(t, map[string]string{"s3.access_key": "k", "s3.endpoint": "http://h"}, m.Options)
	require.Equal(t, "file:///tmp/x/k", URI(m, "k"))
	for _, uri := range []string{"", "x", "s3://", "://b", "s3://user:pw@b/p"} {
		require.ErrorIs(t, Clean(&metapb.Mount{Path: "/a", Uri: uri}), orca.Invalid, uri)
	}
	require.ErrorIs(t, Clean(&metapb.Mount{Path: "/a", Uri: "s3://b", Options: map[string]string{
		"aws.accessKeyId": "k", "s3.access_key": "other"}}), orca.Invalid)
}

func TestMaskHidesSecretsOnly(t *testing.T) {
	m := &metapb.Mount{Options: map[string]string{"s3.secret_key": "x", "s3.session_token": "y", "s3.endpoint": "e", "s3.access_key": "a"}}
	c := Mask(m)
	require.Equal(t, map[string]string{"s3.secret_key": Masked, "s3.session_token": Masked, "s3.endpoint": "e", "s3.access_key": "a"}, c.Options)
	require.Equal(t, "x", m.Options["s3.secret_key"], "the original keeps its secret")
}

type fakeFS struct {
	ufs.FS
	closed *int
}

func (f fakeFS) Close() error { *f.closed++; return nil }

func TestStoresOpenOnceAndRememberFailure(t *testing.T) {
	opens, closed := 0, 0
	fail := true
	s := NewStores(func(context.Context, *metapb.Mount) (ufs.FS, error) {
		opens++
		if fail {
			return nil, orca.E("x", orca.Unavailable, "down")
		}
		return fakeFS{closed: &closed}, nil
	}, table)
	ctx := t.Context()
	for range 3 {
		_, err := s.FS(ctx, 1)
		require.ErrorIs(t, err, orca.Unavailable)
	}
	require.Equal(t, 1, opens)
	_, err := s.FS(ctx, 99)
	require.ErrorIs(t, err, orca.NotFound)
	fail = false
	for range 3 {
		_, err := s.FS(ctx, 2)
		require.NoError(t, err)
	}
	require.Equal(t, 2, opens)
	s.Drop(2)
	require.Equal(t, 1, closed)
	_, err = s.FS(ctx, 2)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Equal(t, 2, closed)
	_, err = s.FS(ctx, 2)
	require.ErrorIs(t, err, orca.Unavailable)
}
