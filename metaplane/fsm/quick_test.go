// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/metapb"
)

// TestQuickAgreesWithWalk: after any history, whatever memory answers is what
// the walk answers, for several callers and spellings.
func TestQuickAgreesWithWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	w := newWorld(t, Config{}, nil)
	w.must(mountOp("/", "s3://b", nil))
	callers := []orca.Caller{{}, {UID: 1, GID: 1}, {UID: 7, GID: 7}}
	answered := 0
	for range 60 {
		for range 20 {
			w.do(randomCommand(r, w))
		}
		paths := []string{"/", "/a/../a", "//a", "/none/x"}
		var below func(dir orca.Ino, at string)
		below = func(dir orca.Ino, at string) {
			kids, _, err := w.m.Children(orca.Caller{}, dir, "", 100)
			require.NoError(t, err)
			i := 0
			require.NoError(t, w.m.EachChild(orca.Caller{}, dir, "", func(name []byte, a *metapb.Attr) bool {
				require.Equal(t, kids[i].Name, string(name))
				require.True(t, proto.Equal(kids[i].Attr, a), "%v\n%v", kids[i].Attr, a)
				i++
				return true
			}))
			require.Len(t, kids, i)
			for _, k := range kids {
				p := at + "/" + k.Name
				paths = append(paths, p, p+"/x", p+"/.")
				if k.Attr.Type == uint32(orca.TypeDir) {
					below(orca.Ino(k.Attr.Ino), p)
				}
			}
		}
		below(orca.RootIno, "")
		for _, p := range paths {
			for i := range callers {
				v, ok := w.m.Quick(&callers[i], 0, p, nil)
				if !ok {
					continue
				}
				answered++
				walked, err := w.m.Walk(callers[i], 0, p)
				require.NoError(t, err, p)
				require.True(t, walked.Found, p)
				require.Equal(t, walked.View, v, p)
				again, ok := w.m.Quick(&callers[i], orca.Ino(v.Attr.Ino), "", nil)
				require.True(t, ok, p)
				require.Equal(t, v.Attr, again.Attr)
				if byName, ok := w.m.Quick(&callers[i], v.Parent, v.Name, nil); ok && v.Name != "" {
					require.Equal(t, v, byName)
				}
			}
		}
	}
	require.Greater(t, answered, 1000)
}

func TestSettled(t *testing.T) {
	w := newWorld(t, Config{}, nil)
	root := orca.Caller{}
	w.must(mountOp("/", "s3://b", nil))
	w.must(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: uint64(orca.RootIno), Change: w.index,
		Entries: []*metapb.SyncEntry{{Name: "made", Dir: true}}}})
	f := w.must(touchFile("/seen"))
	settled := func(from uint64, path string) bool { return w.m.Settled(&root, orca.Ino(from), path) }

	require.False(t, settled(0, "/other"), "the root was never listed")
	require.True(t, settled(0, "/seen"), "what is there needs no question")
	require.False(t, settled(0, "/seen/x"), "left to the walk")
	require.True(t, settled(0, "/made"))
	require.False(t, settled(f.Attr.Ino, "x"))
	require.False(t, settled(0, "/a//b"))

	made, err := w.m.Walk(root, 0, "/made")
	require.NoError(t, err)
	require.False(t, settled(0, "/made/new0"), "it was never listed either")
	w.must(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: made.Attr.Ino, Change: w.index, Loaded: true}})
	for i := range 3 {
		require.True(t, settled(0, fmt.Sprintf("/made/new%d", i)), "it is known to be missing")
	}
	require.True(t, settled(made.Attr.Ino, "new"))
	require.False(t, settled(made.Attr.Ino, ".."))
	require.False(t, w.m.Settled(&orca.Caller{UID: 9}, 0, "/none/x"))

	w.must(&command.Command{SetAttr: &metapb.SetAttrOp{Target: at("/made"),
		Mask: uint32(metapb.SetAttrMask_SET_SYNC), SyncIntervalMs: 0}})
	require.False(t, settled(0, "/made/new"), "each access looks")
	require.False(t, settled(0, "/made"))
}

// maxQuickAllocs is how many allocations the machine's part of a stat may cost:
// the URI of the file.
const maxQuickAllocs = 1

// TestQuickAllocs holds the machine's part of a stat to its allocations.
func TestQuickAllocs(t *testing.T) {
	w := quietWorld(t)
	entry := w.creates(1, 8)[0]
	w.index++
	_, err := w.m.Apply([]Entry{{Index: w.index, Data: entry, Want: WantNone}})
	require.NoError(t, err)
	var root orca.Caller
	var a metapb.Attr
	per := testing.AllocsPerRun(100, func() {
		runs := a.Runs
		a.Reset()
		a.Runs = runs
		if _, ok := w.m.Quick(&root, 0, "/dir-3/file-00000000-3", &a); !ok || a.UfsPath != "s3://bucket/prefix/dir-3/file-00000000-3" {
			t.Error("not known")
		}
	})
	require.LessOrEqual(t, per, float64(maxQuickAllocs))
}
