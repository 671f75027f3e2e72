// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

func entry(t *testing.T, cs ...*command.Command) *metapb.JournalEntry {
	t.Helper()
	var e command.Entry
	e.Tag(1, 2)
	for _, c := range cs {
		b, err := command.Append(nil, c)
		require.NoError(t, err)
		e.Add(b)
	}
	return &metapb.JournalEntry{Index: 7, Term: 3, Data: e.Bytes()}
}

func TestEntry(t *testing.T) {
	cs := Entry(entry(t,
		&command.Command{Client: 1, Seq: 2, Now: 3, Caller: &metapb.Caller{Uid: 5}, Mkdir: &metapb.MkdirOp{Target: &metapb.Target{Path: "/d"}, Mode: 0o755}},
		&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: 1}},
		&command.Command{Mount: &metapb.MountOp{Mount: &metapb.Mount{Path: "/", Options: map[string]string{"s3.secret_key": "hush", "s3.region": "r"}}}},
		&command.Command{SetFact: &metapb.SetFactOp{Key: "grant.key", Value: []byte("hush")}},
		&command.Command{},
	))
	require.Len(t, cs, 5)
	ops := []string{}
	for i, c := range cs {
		require.Equal(t, i, c.N)
		require.EqualValues(t, 7, c.Index)
		require.NotContains(t, string(c.Body), "hush")
		require.NotContains(t, string(c.Body), "aHVzaA", "not in base64 either")
		ops = append(ops, c.Op)
	}
	require.Equal(t, []string{"mkdir", "sync_apply", "mount", "set_fact", "none"}, ops)
	require.EqualValues(t, 1, cs[0].Client)
	require.JSONEq(t, `{"target":{"path":"/d"},"mode":493}`, string(cs[0].Body))
	require.JSONEq(t, `{"uid":5}`, string(cs[0].Rest["caller"]))
	require.Contains(t, string(cs[2].Body), `"s3.region":"r"`)

	require.Equal(t, "leader", Entry(&metapb.JournalEntry{Index: 1})[0].Op)
	require.Equal(t, "membership", Entry(&metapb.JournalEntry{Index: 1, Membership: true, Data: []byte{1}})[0].Op)
	for _, bad := range [][]byte{{9}, {0xC0, 5, 1}, {0xC0, 2, 1, 0xff}} {
		c := Entry(&metapb.JournalEntry{Index: 1, Data: bad})[0]
		require.Equal(t, "unreadable", c.Op)
		require.NotEmpty(t, c.Error)
	}
}

// TestRecords: every key space that there is has a name and is shown, a bad
// record as bytes, and one of a space that is not known, too.
func TestRecords(t *testing.T) {
	file := inode.File{Ino: 17, Mode: 0o644, Length: 5, Runs: nil}
	dir := inode.Dir{Ino: 18, Parent: 1, Name: "d"}
	rare := func(m interface{ MarshalVT() ([]byte, error) }) []byte {
		b, err := m.MarshalVT()
		require.NoError(t, err)
		return append([]byte{1}, b...)
	}
	res, err := command.AppendResult(make([]byte, 8), &command.Result{Path: "/p"})
	require.NoError(t, err)
	for _, tc := range []struct {
		key, value []byte
		kind, says string
	}{
		{inode.AppliedKey, []byte{0, 0, 0, 0, 0, 0, 0, 9}, "applied", "9"},
		{inode.CountersKey, make([]byte, 53), "counters", `"inode":0`},
		{inode.AppendDirent(nil, 1, "f"), inode.AppendFile(nil, &file), "dentry", `"Ino":17`},
		{inode.AppendDirent(nil, 1, "d"), inode.AppendSubdir(nil, 18), "dentry", `"directory":18`},
		{inode.AppendKey8(nil, inode.SpaceDir, 18), inode.AppendDir(nil, &dir), "directory", `"Name":"d"`},
		{inode.AppendKey8(nil, inode.SpaceInode, 17), inode.AppendPlace(nil, 1, "f"), "place", `"name":"f"`},
		{inode.AppendFact(nil, "grant.key"), []byte("hush"), "fact", "******"},
		{inode.AppendFact(nil, "member.1"), []byte("host:1 a"), "fact", "host:1 a"},
		{inode.AppendHosted(nil, "jobs", []byte{1}), []byte{2}, "hosted", "0x02"},
		{inode.AppendMount(nil, 1), rare(&command.Mount{Mount: &metapb.Mount{Options: map[string]string{"s3.secret_key": "hush"}}}), "mount", "******"},
		{inode.AppendKey8(nil, inode.SpaceSession, 3), rare(&command.Session{Id: 3}), "session", `"id":"3"`},
		{inode.AppendKey8(nil, inode.SpaceIntent, 4), rare(&command.Intent{Id: 4}), "intent", `"id":"4"`},
		{inode.AppendKey8(nil, inode.SpaceWorker, 5), rare(&command.Worker{Id: 5}), "worker", `"id":"5"`},
		{inode.AppendXattr(nil, 17, "user.a"), []byte("v"), "xattr", "v"},
		{inode.AppendKey8(nil, inode.SpaceTrash, 18), []byte{1, 0, 0, 0, 1}, "trash", "null"},
		{inode.AppendKey8(nil, inode.SpaceRemoved, 18), make([]byte, 25), "removed", `"names":1`},
		{inode.AppendKey8(nil, inode.SpaceClient, 6), make([]byte, 17), "client", `"floor":0`},
		{inode.AppendSlot(nil, 6, 1), res, "client", `"path":"/p"`},
		{[]byte("~x"), []byte("new"), "", "0x6e6577"},
	} {
		r := Of(tc.key, tc.value)
		require.Equal(t, tc.kind, r.Kind, "%q", tc.key)
		require.Empty(t, r.Error, "%q", tc.key)
		b, err := json.Marshal(r.Value)
		require.NoError(t, err)
		require.Contains(t, string(b), tc.says)
		require.NotContains(t, string(b), "hush")
	}
	for space, kind := range kinds {
		require.NotEmpty(t, kind)
		_ = Of([]byte{space}, nil) // the shortest key there can be
		_ = Of([]byte{space, 0, 0}, []byte{1, 0xff})
	}
	require.NotEmpty(t, Of(inode.AppendDirent(nil, 1, "f"), []byte{9}).Error)
	require.Empty(t, Of(nil, nil).Space)
}
