// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

// quietWorld is a world whose store does nothing in the background, so that
// only what a test does allocates.
func quietWorld(t testing.TB) *world {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := inodekv.Open(inodekv.Config{Memory: true, FlushEvery: time.Hour, FlushOps: 1 << 30}, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(false) })
	m, err := Open(Config{}, db, nil, log)
	require.NoError(t, err)
	return &world{t: t, db: db, m: m}
}

// creates encodes n entries of size creates each, by eight clients in eight
// directories of a mount, as the clients of Orca number them.
func (w *world) creates(n, size int) [][]byte {
	w.must(mountOp("/", "s3://bucket/prefix", nil))
	const clients = 8
	dirs := &metapb.SyncApplyOp{Dir: uint64(orca.RootIno), Change: w.index}
	for i := range clients {
		dirs.Entries = append(dirs.Entries, &metapb.SyncEntry{Name: fmt.Sprintf("dir-%d", i), Dir: true})
	}
	w.must(&command.Command{SyncApply: dirs})
	for _, e := range dirs.Entries { // listed: the UFS need not be asked for a new name
		d, err := w.m.Walk(orca.Caller{}, 0, "/"+e.Name)
		require.NoError(w.t, err)
		w.must(&command.Command{SyncApply: &metapb.SyncApplyOp{Dir: d.Attr.Ino, Change: w.index, Loaded: true}})
	}
	var entries [][]byte
	seq := uint64(0)
	for len(entries) < n {
		var e command.Entry
		for i := range size {
			c := touchFile(fmt.Sprintf("/dir-%d/file-%08d-%d", i%clients, len(entries), i))
			c.Client, c.Seq, c.Now = uint64(1+i%clients), 1+seq/clients, int64(seq)
			if len(entries) > 0 {
				c.AckedBelow = c.Seq - uint64(size/clients)
			}
			c.Caller = &metapb.Caller{Uid: 0}
			c.Checks = uint32(metapb.CommandCheck_CHECK_NAMES)
			raw, err := command.Append(nil, c)
			require.NoError(w.t, err)
			e.Add(raw)
			seq++
		}
		entries = append(entries, e.Bytes())
	}
	return entries
}

// maxApplyAllocs is how many allocations one applied create may cost, the growth
// of all tables included: its record, and a share of the memory of its name.
const maxApplyAllocs = 1.5

// TestApplyAllocs holds an applied create to its allocations.
func TestApplyAllocs(t *testing.T) {
	const size, warm, runs = 64, 40, 100
	w := quietWorld(t)
	entries := w.creates(warm+runs+1, size)
	apply := func() {
		w.index++
		outs, err := w.m.Apply([]Entry{{Index: w.index, Data: entries[0], Want: WantDecoded}})
		entries = entries[1:]
		if err != nil || len(outs[0].Decoded) != size {
			t.Fatal(err, len(outs))
		}
		for _, r := range outs[0].Decoded {
			if r.Kind != uint32(orca.OK) || r.Attr.UfsPath == "" || len(r.Attr.Runs) != 1 {
				t.Fatal(r)
			}
		}
	}
	for range warm {
		apply()
	}
	per := testing.AllocsPerRun(runs, apply) / size
	t.Logf("%.2f allocations per applied create", per)
	require.LessOrEqual(t, per, float64(maxApplyAllocs))
}
