// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package memorca

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/metaplane/metapb"
)

// Worker keeps blocks as files in a folder.
type Worker struct {
	o   *Orca
	dir string
	pb  *metapb.Worker

	mu      sync.Mutex
	blocks  map[orca.BlockID]int64  // complete blocks and their lengths; GUARDED_BY(mu)
	gens    map[orca.BlockID]uint64 // how many files a block has had
	writes  map[uint64]string       // private files
	fail    func(op string) error
	down    bool
	noDescs bool
	calls   map[string]int
	next    uint64
}

var _ dataplane.Blocks = (*Worker)(nil)

func newWorker(o *Orca, dir string, id uint64, node string) (*Worker, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	node, rack, _ := strings.Cut(node, "@")
	return &Worker{
		o: o, dir: dir, blocks: map[orca.BlockID]int64{}, gens: map[orca.BlockID]uint64{}, writes: map[uint64]string{}, calls: map[string]int{},
		pb: &metapb.Worker{Id: id, Node: node, Rack: rack, Addr: fmt.Sprintf("127.0.0.1:%d", 20000+id), Live: true, Boot: 1,
			Tiers: []*metapb.TierUsage{{Capacity: 1 << 30, Healthy: true, Dir: dir}}},
	}, nil
}

// Fail makes every later call for which f returns an error fail with it.
func (w *Worker) Fail(f func(op string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail = f
}

// SetDown cuts the worker off: all calls are Unavailable, yet the namespace
// still lists it as live.
func (w *Worker) SetDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// RefuseDescriptors makes the worker serve by range only.
func (w *Worker) RefuseDescriptors(refuse bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noDescs = refuse
}

// Calls returns how often op was called.
func (w *Worker) Calls(op string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[op]
}

func (w *Worker) isDown() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

func (w *Worker) proto() *metapb.Worker {
	return &metapb.Worker{Id: w.pb.Id, Node: w.pb.Node, Rack: w.pb.Rack, Addr: w.pb.Addr, Live: true, Boot: 1, Tiers: w.pb.Tiers}
}

func (w *Worker) enter(op string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[op]++
	if w.down {
		return orca.PathE("memorca."+op, w.pb.Addr, orca.Unavailable, nil)
	}
	if w.fail != nil {
		return w.fail(op)
	}
	return nil
}

func (w *Worker) cachedOf(ino uint64, version uint32) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var n int64
	for id, l := range w.blocks {
		if uint64(id.File) == ino && id.Version == version {
			n += l
		}
	}
	return n
}

func (w *Worker) location(ino uint64, version uint32) *metapb.Location {
	w.mu.Lock()
	defer w.mu.Unlock()
	var l *metapb.Location
	for id, n := range w.blocks {
		if uint64(id.File) == ino && id.Version == version {
			if l == nil {
				l = &metapb.Location{Worker: w.pb.Id}
			}
			l.Cached += n
			l.Complete = append(l.Complete, id.Index)
		}
	}
	return l
}

// drop evicts all blocks of a file.
func (w *Worker) drop(ino uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.blocks {
		if uint64(id.File) == ino {
			delete(w.blocks, id)
			_ = os.Remove(w.path(id))
		}
	}
}

func (w *Worker) path(id orca.BlockID) string { return filepath.Join(w.dir, id.String()) }

// Open implements dataplane.Blocks: a block that is not here is first copied
// from the store, if the store still has its version.
func (w *Worker) Open(_ context.Context, r dataplane.ReadRequest) (dataplane.Extent, error) {
	if err := w.enter("Open"); err != nil {
		return dataplane.Extent{}, err
	}
	if err := w.fill(r.ID); err != nil {
		return dataplane.Extent{}, err
	}
	f, err := os.Open(w.path(r.ID))
	if err != nil {
		return dataplane.Extent{}, orca.PathE("memorca.Open", r.ID.String(), orca.NotFound, err)
	}
	st, err := f.Stat()
	if err != nil {
		return dataplane.Extent{}, orca.PathE("memorca.Open", r.ID.String(), orca.Internal, err)
	}
	// Never more than three grains at a time, so that short extents are the rule.
	end := min(r.Off+r.N, st.Size(), r.Off/orca.GrainSize*orca.GrainSize+3*orca.GrainSize)
	return dataplane.Extent{File: f, Off: r.Off, N: max(0, end-r.Off), Release: func() { _ = f.Close() }}, nil
}

func (w *Worker) fill(id orca.BlockID) error {
	w.mu.Lock()
	_, ok := w.blocks[id]
	w.mu.Unlock()
	if ok {
		return nil
	}
	s := w.o.storeOf(uint64(id.File))
	switch {
	case s.path == "":
		return orca.PathE("memorca.Open", id.String(), orca.NotFound, nil)
	case s.version != id.Version:
		return orca.PathE("memorca.Open", id.String(), orca.Stale, nil)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		return orca.PathE("memorca.Open", id.String(), orca.UFSFailure, err)
	}
	if len(b) > WholeMax {
		b = b[int64(id.Index)*BlockSize : min(int64(id.Index+1)*BlockSize, int64(len(b)))]
	}
	return w.adopt(id, b)
}

func (w *Worker) adopt(id orca.BlockID, b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	tmp := w.path(id) + ".tmp"
	if err := errors.Join(os.WriteFile(tmp, b, 0o600), os.Rename(tmp, w.path(id))); err != nil {
		return orca.PathE("memorca.adopt", id.String(), orca.NoSpace, err)
	}
	w.blocks[id] = int64(len(b))
	w.gens[id]++
	return nil
}

// Descriptor implements dataplane.Blocks.
func (w *Worker) Descriptor(_ context.Context, id orca.BlockID, _ dataplane.Grant) (*os.File, int64, uint64, error) {
	if err := w.enter("Descriptor"); err != nil {
		return nil, 0, 0, err
	}
	w.mu.Lock()
	n, ok := w.blocks[id]
	gen, refuse := w.gens[id], w.noDescs
	w.mu.Unlock()
	if !ok || refuse {
		return nil, 0, 0, orca.PathE("memorca.Descriptor", id.String(), orca.Unsupported, nil)
	}
	f, err := os.Open(w.path(id))
	if err != nil {
		return nil, 0, 0, orca.PathE("memorca.Descriptor", id.String(), orca.NotFound, err)
	}
	return f, n, gen, nil
}

// CreateWrite implements dataplane.Writes.
func (w *Worker) CreateWrite(_ context.Context, t dataplane.WriteTarget) (uint64, error) {
	if err := w.enter("CreateWrite"); err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	p := filepath.Join(w.dir, fmt.Sprintf("private-%d-%d", t.Session, w.next))
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		return 0, orca.PathE("memorca.CreateWrite", p, orca.NoSpace, err)
	}
	w.writes[w.next] = p
	return w.next, nil
}

func (w *Worker) private(id uint64) (*os.File, error) {
	w.mu.Lock()
	p, ok := w.writes[id]
	w.mu.Unlock()
	if !ok {
		return nil, orca.E("memorca.private", orca.NotFound, "no such write handle")
	}
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	if err != nil {
		return nil, orca.PathE("memorca.private", p, orca.Internal, err)
	}
	return f, nil
}

// WriteFile implements dataplane.Writes.
func (w *Worker) WriteFile(_ context.Context, id uint64) (*os.File, error) {
	if err := w.enter("WriteFile"); err != nil {
		return nil, err
	}
	return w.private(id)
}

// WriteAt implements dataplane.Writes.
func (w *Worker) WriteAt(_ context.Context, id uint64, p []byte, off int64) error {
	if err := w.enter("WriteAt"); err != nil {
		return err
	}
	f, err := w.private(id)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(p, off)
	return err
}

// Truncate implements dataplane.Writes.
func (w *Worker) Truncate(_ context.Context, id uint64, length int64) error {
	f, err := w.private(id)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(length)
}

// Sync implements dataplane.Writes.
func (w *Worker) Sync(_ context.Context, id uint64) error {
	f, err := w.private(id)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Seal implements dataplane.Writes; it always copies.
func (w *Worker) Seal(_ context.Context, id uint64, t dataplane.WriteTarget, keep bool) (dataplane.SealResult, error) {
	if err := w.enter("Seal"); err != nil {
		return dataplane.SealResult{}, err
	}
	f, err := w.private(id)
	if err != nil {
		return dataplane.SealResult{}, err
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return dataplane.SealResult{}, orca.PathE("memorca.Seal", "", orca.Internal, err)
	}
	res := dataplane.SealResult{Length: int64(len(b)), BlockSize: WholeMax, Copies: 1, CRC32C: crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))}
	if len(b) > WholeMax {
		res.BlockSize = BlockSize
	}
	if t.Type == orca.CacheThrough || t.Type == orca.Through {
		p := filepath.Join(w.dir, fmt.Sprintf("store-%d-%d", t.File, t.Version))
		if err := os.WriteFile(p, b, 0o600); err != nil {
			return res, orca.PathE("memorca.Seal", p, orca.UFSFailure, err)
		}
		w.o.setStore(uint64(t.File), t.Version, p)
		res.Fingerprint, res.UFSMtime = fmt.Sprintf("%08x", res.CRC32C), time.Now()
	}
	if t.Type != orca.Through {
		for i := int64(0); i*res.BlockSize < res.Length; i++ {
			bid := orca.BlockID{File: t.File, Version: t.Version, Index: uint32(i)}
			if err := w.adopt(bid, b[i*res.BlockSize:min((i+1)*res.BlockSize, res.Length)]); err != nil {
				return res, err
			}
		}
	}
	if !keep {
		return res, w.forget(id)
	}
	return res, nil
}

func (w *Worker) forget(id uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.writes[id]
	if !ok {
		return orca.E("memorca.Abort", orca.NotFound, "no such write handle")
	}
	delete(w.writes, id)
	if err := os.Remove(p); err != nil {
		return orca.PathE("memorca.Abort", p, orca.Internal, err)
	}
	return nil
}

// Private counts private files not yet sealed or aborted.
func (w *Worker) Private() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.writes)
}

// Abort implements dataplane.Writes.
func (w *Worker) Abort(_ context.Context, id uint64) error {
	if err := w.enter("Abort"); err != nil {
		return err
	}
	return w.forget(id)
}
