// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package blockservice_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"orca"
	"orca/dataplane"
	"orca/tiers/blockservice"
	"orca/tiers/dir"
	"orca/tiers/readthrough"
	"orca/tiers/tiered"
	"orca/tiers/tiertest"
	"orca/ufs"
	"orca/ufs/memufs"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

// rig is a worker over a memufs whose metaplane is a map.
type rig struct {
	mem   *memufs.Store
	files map[orca.Ino]readthrough.Source
	s     *blockservice.Service
}

func (r *rig) Resolve(_ context.Context, file orca.Ino) (readthrough.Source, error) {
	src, ok := r.files[file]
	if !ok {
		return src, orca.E("rig", orca.NotFound, "")
	}
	return src, nil
}

func (r *rig) FS(context.Context, uint32) (ufs.FS, error) { return r.mem.FS(), nil }

func newRig(t *testing.T, root string, mem *memufs.Store) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := tiered.Open(tiered.Config{Dirs: []dir.Config{
		{Path: filepath.Join(root, "mem"), Tier: orca.MEM, Capacity: 16 << 20},
		{Path: filepath.Join(root, "ssd"), Tier: orca.SSD, Capacity: 64 << 20},
	}}, log)
	require.NoError(t, err)
	r := &rig{mem: mem, files: map[orca.Ino]readthrough.Source{}}
	r.s = blockservice.New(blockservice.Config{}, blockservice.Deps{Store: store, Resolver: r, Mounts: r,
		CheckRead: func(g dataplane.Grant, id orca.BlockID) error {
			if g.File != id.File {
				return orca.E("rig", orca.Permission, "no grant")
			}
			return nil
		}}, log)
	return r
}

func (r *rig) read(id orca.BlockID, n int64) ([]byte, error) {
	var out []byte
	for int64(len(out)) < n {
		e, err := r.s.Open(context.Background(), dataplane.ReadRequest{ID: id, Off: int64(len(out)), N: n - int64(len(out)), Sequential: true, Grant: dataplane.Grant{File: id.File}})
		if err != nil {
			return out, err
		}
		p, err := tiertest.ReadExtent(e)
		if err != nil {
			return out, err
		}
		if len(p) == 0 {
			return out, io.ErrUnexpectedEOF
		}
		out = append(out, p...)
	}
	return out, nil
}

// TestWriteReadPersistFree is the life of a file on one worker.
func TestWriteReadPersistFree(t *testing.T) {
	ctx := t.Context()
	root := t.TempDir()
	mem := memufs.New(memufs.Config{})
	r := newRig(t, root, mem)
	p := tiertest.Bytes(1, 3<<20+5)
	tg := dataplane.WriteTarget{Session: 9, File: 5, Version: 1, Type: orca.AsyncThrough, MountID: 1, UFSKey: "f", WholeMax: 8 << 20, Mode: 0o644}
	id := orca.BlockID{File: 5, Version: 1}
	h, err := r.s.CreateWrite(ctx, tg)
	require.NoError(t, err)
	require.NoError(t, r.s.WriteAt(ctx, h, p, 0))
	res, err := r.s.Seal(ctx, h, tg, false)
	require.NoError(t, err)
	require.True(t, res.Durable)
	// It survives the process.
	require.NoError(t, r.s.Close())
	r = newRig(t, root, mem)
	got, err := r.read(id, int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	files, next := r.s.Reports()
	require.Len(t, files, 1)
	require.True(t, files[0].Dirty)
	info, err := r.s.BlockInfo(ctx, id)
	require.NoError(t, err)
	require.Equal(t, dataplane.BlockInfo{Length: int64(len(p)), Cached: int64(len(p)), Complete: true, Tier: orca.SSD}, info)
	_, err = r.s.Open(ctx, dataplane.ReadRequest{ID: id, N: 1})
	require.ErrorIs(t, err, orca.Permission)
	_, _, _, err = r.s.Descriptor(ctx, id, dataplane.Grant{})
	require.ErrorIs(t, err, orca.Permission)
	// Persisted by a job: clean, and readable again once freed.
	in := mem.Put("f", string(p))
	r.s.CleanFile(5, 1)
	files, _, full := r.s.Changes(next)
	require.False(t, full)
	require.False(t, files[0].Dirty)
	r.files[5] = readthrough.Source{Key: "f", Attr: orca.Attr{Ino: 5, Length: res.Length, BlockSize: res.BlockSize, Version: 1, Persist: orca.Persisted, Fingerprint: in.Fingerprint, MountID: 1}}
	r.s.FreeFile(5)
	_, err = r.s.BlockInfo(ctx, id)
	require.ErrorIs(t, err, orca.NotFound)
	n, err := r.s.Load(ctx, id, 0, res.Length, dataplane.Grant{File: 5})
	require.NoError(t, err)
	require.Equal(t, res.Length, n)
	got, err = r.read(id, int64(len(p)))
	require.NoError(t, err)
	require.True(t, bytes.Equal(p, got))
	require.EqualValues(t, 1, mem.Counters.Open.Load())
	// An overwrite: the old version goes when the metaplane says so.
	tg.Version, tg.Type, tg.Session = 2, orca.CacheThrough, 10
	h, err = r.s.CreateWrite(ctx, tg)
	require.NoError(t, err)
	require.NoError(t, r.s.WriteAt(ctx, h, []byte("two"), 0))
	_, err = r.s.Seal(ctx, h, tg, false)
	require.NoError(t, err)
	got, err = r.read(id, int64(len(p)))
	require.NoError(t, err, "the old version is served until it is dropped")
	require.True(t, bytes.Equal(p, got))
	r.s.FreeOld(5, 2)
	_, err = r.s.BlockInfo(ctx, id)
	require.ErrorIs(t, err, orca.NotFound)
	got, err = r.read(orca.BlockID{File: 5, Version: 2}, 3)
	require.NoError(t, err)
	require.Equal(t, "two", string(got))
	r.s.Pin(5, true)
	require.NoError(t, r.s.Close())
}

func TestLoadSaysWhenThereIsNoRoom(t *testing.T) {
	r := newRig(t, t.TempDir(), memufs.New(memufs.Config{}))
	p := tiertest.Bytes(1, 40<<20)
	in := r.mem.Put("f", string(p))
	r.files[5] = readthrough.Source{Key: "f", Attr: orca.Attr{Ino: 5, Length: 40 << 20, BlockSize: 64 << 20, Version: 1, Persist: orca.Persisted, Fingerprint: in.Fingerprint}}
	_, err := r.s.Load(t.Context(), orca.BlockID{File: 5, Version: 1}, 0, 40<<20, dataplane.Grant{File: 5})
	require.ErrorIs(t, err, orca.NoSpace)
	require.NoError(t, r.s.Close())
}
