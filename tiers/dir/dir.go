// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package dir owns one storage directory of a worker: its lock, its quota, its
// block files, its index and its scratch folder. An SSD or HDD directory is a
// folder; a MEM directory is a folder on a tmpfs that the caller mounted.
//
//	PATH/lock      flock: one worker per directory
//	PATH/index     what is in the blocks (package blockfile)
//	PATH/blocks/   block files, two levels of fan-out, mode 0400
//	PATH/scratch/  private files of writers; emptied by Open
//	PATH/key       in an encrypted one: a mark of its key (package cryptfile)
//
// It knows nothing of eviction or placement (package tiered), and starts no
// goroutines but a timer's that lets go of spare memory (spares). Quota is counted here and never exceeded: bytes are reserved
// before they are written. A directory whose medium fails is marked bad and is
// refused by its owner from then on; that is never fatal to the worker.
package dir

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"orca"
	"orca/tiers/blockfile"
	"orca/tiers/cryptfile"
)

// Config describes one directory.
type Config struct {
	// Path of the folder; it is created.
	Path string
	Tier orca.Tier
	// Capacity is the quota in bytes of blocks and private files.
	Capacity int64
	// Reserve is how many bytes of the file system are left free for others,
	// ReservePart which part of its size; the larger of the two holds. Less
	// than Capacity may be used then.
	Reserve     int64
	ReservePart float64
	// KeyFile names the file of the key that everything in the directory is
	// encrypted with (package cryptfile); "": nothing is. It is for good: a
	// directory that was begun with it, or without, is refused otherwise.
	KeyFile string
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	const op = "dir.Config"
	switch {
	case !filepath.IsAbs(c.Path):
		return &orca.Error{Op: op, Path: c.Path, Kind: orca.Invalid, Msg: "tier directory is not an absolute path"}
	case c.Tier > orca.HDD:
		return &orca.Error{Op: op, Path: c.Path, Kind: orca.Invalid, Msg: "unknown tier"}
	case c.Reserve < 0 || c.ReservePart < 0 || c.ReservePart >= 1:
		return &orca.Error{Op: op, Path: c.Path, Kind: orca.Invalid, Msg: "reserve is negative, or all of the file system"}
	case c.Capacity < 2*orca.GrainSize:
		return &orca.Error{Op: op, Path: c.Path, Kind: orca.Invalid, Msg: "capacity under two grains (128 KiB)"}
	}
	return nil
}

// Dir is one open directory. It is safe for concurrent use.
type Dir struct {
	Config
	Index *blockfile.Index
	Found blockfile.Loaded

	ops  blockfile.Ops
	log  *slog.Logger
	lock *os.File
	huge bool
	key  *cryptfile.Key // nil: in the clear
	size atomic.Int64   // the quota
	used atomic.Int64
	full atomic.Int64 // what fits, where the file system has less than the quota; 0: the quota
	bad  atomic.Bool

	spare spares

	mu     sync.Mutex
	synced map[string]bool // folders whose own entry is durable; GUARDED_BY(mu)
}

// Open locks, creates what is missing, empties the scratch folder and replays
// the index. Busy when another process holds the directory.
func Open(c Config, ops blockfile.Ops, log *slog.Logger, fn func(*blockfile.Record)) (*Dir, error) {
	const op = "dir.Open"
	if err := c.Validate(); err != nil {
		return nil, err
	}
	d := &Dir{Config: c, ops: ops, log: log, synced: map[string]bool{}}
	d.size.Store(c.Capacity)
	for _, p := range []string{d.blocks(), d.Scratch()} {
		if err := ops.MkdirAll(p); err != nil {
			return nil, blockfile.Fail(op, p, err)
		}
	}
	l, err := os.OpenFile(filepath.Join(c.Path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, blockfile.Fail(op, c.Path, err)
	}
	d.lock = l
	if err := unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		l.Close()
		return nil, &orca.Error{Op: op, Path: c.Path, Kind: orca.Busy, Msg: "tier directory is in use by another worker", Err: err}
	}
	if err := d.unlock(); err != nil { // before anything is changed
		l.Close()
		return nil, err
	}
	d.huge = d.key == nil && onHugeTmpfs(d.blocks())
	if err := d.emptyScratch(); err != nil {
		l.Close()
		return nil, err
	}
	d.Index, d.Found, err = blockfile.Open(ops, c.Path, fn)
	if err != nil {
		l.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) blocks() string { return filepath.Join(d.Path, "blocks") }

// Scratch returns the folder for private files.
func (d *Dir) Scratch() string { return filepath.Join(d.Path, "scratch") }

func (d *Dir) emptyScratch() error {
	es, err := os.ReadDir(d.Scratch())
	if err != nil {
		return blockfile.Fail("dir.Open", d.Scratch(), err)
	}
	for _, e := range es {
		if err := d.ops.Remove(filepath.Join(d.Scratch(), e.Name())); err != nil {
			return blockfile.Fail("dir.Open", d.Scratch(), err)
		}
	}
	return nil
}

// Used returns the bytes reserved or stored.
func (d *Dir) Used() int64 { return d.used.Load() }

// Quota returns the bytes of blocks and private files that it may hold: the
// Capacity that it was opened with, until Resize.
func (d *Dir) Quota() int64 { return d.size.Load() }

// Resize sets the quota. What is above a smaller one has to leave.
func (d *Dir) Resize(n int64) { d.size.Store(n) }

// Usable returns how many bytes fit: the quota, or less while the file system
// below is full, but for what is reserved for others.
func (d *Dir) Usable() int64 {
	if n := d.full.Load(); n > 0 {
		return min(n, d.Quota())
	}
	return d.Quota()
}

// Refused notes that the file system had no space although the quota had: what
// is used now is all that fits, until Regain finds more. It reports true when
// there was spare memory to give back instead: try again.
func (d *Dir) Refused() bool {
	if d.spare.bytes.Load() > 0 {
		d.spare.fit(0)
		return true
	}
	if n := max(1, d.used.Load()); n < d.Usable() {
		d.full.Store(n)
	}
	return false
}

// Regain looks how much the file system has for the directory: after Refused
// whether there is space again, and where some is reserved whether others have
// taken of it.
func (d *Dir) Regain() {
	n := d.full.Load()
	var st unix.Statfs_t
	if n == 0 && d.Reserve == 0 && d.ReservePart == 0 || unix.Statfs(d.Path, &st) != nil {
		return
	}
	reserve := max(d.Reserve, int64(d.ReservePart*float64(st.Blocks)*float64(st.Bsize)))
	switch fits := max(1, d.used.Load()+int64(st.Bavail)*st.Bsize-reserve); {
	case fits >= d.Quota():
		d.full.CompareAndSwap(n, 0)
	case fits > n || reserve > 0:
		d.full.CompareAndSwap(n, fits)
	}
}

// Free returns what is left of the quota.
func (d *Dir) Free() int64 { return max(0, d.Usable()-d.used.Load()) }

// Take reserves n bytes of quota if they are free.
func (d *Dir) Take(n int64) bool {
	for {
		u := d.used.Load()
		if u+n > d.Usable() {
			return false
		}
		if d.used.CompareAndSwap(u, u+n) {
			d.spare.fit(d.Usable() - u - n)
			return true
		}
	}
}

// Recovered counts bytes that the index says are there already: the one way
// over a quota that was made smaller, cured by eviction.
func (d *Dir) Recovered(n int64) { d.used.Add(n) }

// Return gives n bytes of quota back.
func (d *Dir) Return(n int64) { d.used.Add(-n) }

// Healthy is false once the medium has failed.
func (d *Dir) Healthy() bool { return !d.bad.Load() }

// Probe returns why the directory cannot be used any more although no call has
// failed yet: it was removed, or what was mounted there is gone. What lies
// under its path then is not ours, and must not be filled.
func (d *Dir) Probe() error { return blockfile.Fail("dir.Probe", d.Path, d.vanished(nil)) }

// vanished returns err, or that the directory is gone if it is: a file that
// does not exist is a lost block then, and much more.
func (d *Dir) vanished(err error) error {
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	path := filepath.Join(d.Path, "lock")
	var ours, there unix.Stat_t
	if unix.Fstat(int(d.lock.Fd()), &ours) != nil {
		return err // closed
	}
	switch serr := unix.Stat(path, &there); {
	case serr == nil && ours.Dev == there.Dev && ours.Ino == there.Ino:
		return err
	case serr == nil, errors.Is(serr, unix.ENOENT), errors.Is(serr, unix.ENOTDIR):
		return &os.PathError{Op: "stat", Path: path, Err: unix.ENODEV}
	default:
		return &os.PathError{Op: "stat", Path: path, Err: serr}
	}
}

// Blocks returns the block files in the nth of blockfile.Folders.
func (d *Dir) Blocks(n int) (ids []orca.BlockID) {
	f, err := os.Open(blockfile.FolderAt(d.blocks(), n))
	if err != nil {
		return nil // no block has ever been there
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1) // what cannot be listed is found by its readers
	for _, name := range names {
		if id, err := orca.ParseBlockID(name); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// OpenDirect opens the file of a block for reading past the page cache, so
// that what is read is what the medium has; where the file system cannot, the
// cached pages of the file are dropped first.
func (d *Dir) OpenDirect(id orca.BlockID, length int64) (*File, error) {
	path := blockfile.Path(d.blocks(), id)
	raw, err := d.ops.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return nil, blockfile.Fail("dir.OpenDirect", path, d.vanished(err))
	}
	direct := err == nil
	if direct && d.key == nil {
		return &File{File: raw}, nil
	}
	f, err := d.OpenBlock(id, length, false)
	switch {
	case err != nil && direct:
		raw.Close()
		fallthrough
	case err != nil:
		return nil, err
	case direct: // the entries of the grains lie where direct reads cannot begin
		f.entries, f.File = f.File, raw
	default:
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // a hint; tmpfs has no other copy
	}
	return f, nil
}

// Check marks the directory bad when err says that its medium has failed, and
// reports whether this call did so.
func (d *Dir) Check(err error) bool {
	if !blockfile.Broken(err) || !d.bad.CompareAndSwap(false, true) {
		return false
	}
	d.log.Error("tier directory taken out", "tier", d.Tier.String(), "dir", d.Path, "err", err)
	return true
}

// Create makes the file of a block with its full length, sparse, for writing.
func (d *Dir) Create(id orca.BlockID, length int64) (*File, error) {
	const op = "dir.Create"
	path := blockfile.Path(d.blocks(), id)
	const flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := d.ops.OpenFile(path, flag, 0o400)
	if errors.Is(err, os.ErrNotExist) {
		if gone := d.vanished(nil); gone != nil {
			return nil, blockfile.Fail(op, path, gone)
		}
		if err := d.ops.MkdirAll(filepath.Dir(path)); err != nil {
			return nil, blockfile.Fail(op, path, err)
		}
		f, err = d.ops.OpenFile(path, flag, 0o400)
	}
	if errors.Is(err, os.ErrExist) {
		// What a crash or an eviction left under this name: never reused.
		if err := d.ops.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, blockfile.Fail(op, path, err)
		}
		f, err = d.ops.OpenFile(path, flag, 0o400)
	}
	if err != nil {
		return nil, blockfile.Fail(op, path, err)
	}
	bf, err := d.begin(f, id, length)
	if err != nil {
		f.Close()
		_ = d.ops.Remove(path)
		return nil, blockfile.Fail(op, path, err)
	}
	return bf, nil
}

// OpenBlock opens the file of a block, for writing when write. Corrupt when
// its length is wrong, or it is not encrypted as it should be.
func (d *Dir) OpenBlock(id orca.BlockID, length int64, write bool) (*File, error) {
	const op = "dir.OpenBlock"
	path := blockfile.Path(d.blocks(), id)
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	f, err := d.ops.OpenFile(path, flag, 0)
	if write && errors.Is(err, os.ErrPermission) {
		if err = d.ops.Chmod(path, 0o600); err == nil {
			f, err = d.ops.OpenFile(path, flag, 0)
			_ = d.ops.Chmod(path, 0o400)
		}
	}
	if err != nil {
		return nil, blockfile.Fail(op, path, d.vanished(err))
	}
	st, err := f.Stat()
	if err == nil && st.Size() != d.fileLen(length) {
		err = &orca.Error{Op: op, Path: path, Kind: orca.Corrupt, Msg: "block file has another length than its index says"}
	}
	bf := &File{File: f}
	if err == nil && d.key != nil {
		err = d.openBox(bf, id, length)
	}
	if err != nil {
		f.Close()
		return nil, blockfile.Fail(op, path, err)
	}
	return bf, nil
}

// Adopt moves a private file with length bytes to the name of a block. With durable its data
// and its folders are on disk when it returns; the index is the caller's.
func (d *Dir) Adopt(id orca.BlockID, from string, length int64, durable bool) error {
	const op = "dir.Adopt"
	path := blockfile.Path(d.blocks(), id)
	if d.key != nil {
		if err := d.checkPrivate(id, from, length); err != nil {
			return blockfile.Fail(op, from, err)
		}
	}
	if durable {
		f, err := d.ops.OpenFile(from, os.O_RDWR, 0)
		if err != nil {
			return blockfile.Fail(op, from, d.vanished(err))
		}
		err = d.ops.Datasync(f)
		f.Close()
		if err != nil {
			return blockfile.Fail(op, from, err)
		}
	}
	if err := d.ops.Chmod(from, 0o400); err != nil {
		return blockfile.Fail(op, from, d.vanished(err))
	}
	err := d.ops.Rename(from, path)
	if errors.Is(err, os.ErrNotExist) {
		if err = d.vanished(nil); err != nil {
			return blockfile.Fail(op, path, err)
		}
		if err = d.ops.MkdirAll(filepath.Dir(path)); err == nil {
			err = d.ops.Rename(from, path)
		}
	}
	if err != nil || !durable {
		return blockfile.Fail(op, path, err)
	}
	return blockfile.Fail(op, path, d.syncFolders(filepath.Dir(path)))
}

// Sync makes the file of a block that Create opened durable, with its folders.
func (d *Dir) Sync(id orca.BlockID, f *File) error {
	const op = "dir.Sync"
	if err := d.ops.Datasync(f.File); err != nil {
		return blockfile.Fail(op, f.Name(), err)
	}
	return blockfile.Fail(op, f.Name(), d.syncFolders(filepath.Dir(blockfile.Path(d.blocks(), id))))
}

// syncFolders makes the entries of a block folder durable, and once per
// process those of the folders above it.
func (d *Dir) syncFolders(folder string) error {
	if err := d.ops.SyncDir(folder); err != nil {
		return err
	}
	for p := folder; p != d.Path; {
		p = filepath.Dir(p)
		d.mu.Lock()
		done := d.synced[folder]
		d.mu.Unlock()
		if done {
			break
		}
		if err := d.ops.SyncDir(p); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.synced[folder] = true
	d.mu.Unlock()
	return nil
}

// Unlink removes the file of a block; one that is gone already is no error.
func (d *Dir) Unlink(id orca.BlockID) error {
	path := blockfile.Path(d.blocks(), id)
	var kept *spare
	if d.huge {
		kept = pin(path)
	}
	err := d.ops.Remove(path)
	if kept != nil {
		d.spare.keep(kept)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return blockfile.Fail("dir.Unlink", path, err)
	}
	return nil
}

// Has reports whether the file of a block is there with this length.
func (d *Dir) Has(id orca.BlockID, length int64) bool {
	st, err := os.Stat(blockfile.Path(d.blocks(), id))
	return err == nil && st.Size() == d.fileLen(length)
}

// Sweep calls claim for every block file until done is closed, and removes those
// that it grants: what a crash left behind. A claim holds the name until it is
// released: no new file may come under it before.
func (d *Dir) Sweep(done <-chan struct{}, claim func(orca.BlockID) (release func(), ok bool)) (removed int) {
	return d.sweep(d.blocks(), 2, done, claim)
}

func (d *Dir) sweep(folder string, depth int, done <-chan struct{}, claim func(orca.BlockID) (func(), bool)) (removed int) {
	f, err := os.Open(folder)
	if err != nil {
		return 0
	}
	defer f.Close()
	for {
		select {
		case <-done:
			return removed
		default:
		}
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			path := filepath.Join(folder, name)
			if depth > 0 {
				removed += d.sweep(path, depth-1, done, claim)
				continue
			}
			release := func() {}
			if id, perr := orca.ParseBlockID(name); perr == nil {
				ok := false
				if release, ok = claim(id); !ok {
					continue
				}
			}
			if d.ops.Remove(path) == nil {
				removed++
			}
			release()
		}
		if err != nil || len(names) == 0 {
			return removed
		}
	}
}

// Close flushes the index and gives the lock back.
func (d *Dir) Close() error {
	d.spare.close()
	err := d.Index.Close()
	if cerr := d.lock.Close(); err == nil && cerr != nil {
		err = blockfile.Fail("dir.Close", d.Path, cerr)
	}
	return err
}
