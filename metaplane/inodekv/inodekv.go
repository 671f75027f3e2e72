// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package inodekv is the store below a metaplane group: an ordered map of
// bytes on pebble, of which it is the sole user.
//
// The flow: fsm reads and writes through one Tx per Raft update; Commit makes
// one batch of it together with the index that was applied. There is no
// write-ahead log, for the Raft journal is one: what a crash leaves is the
// effect of a prefix of the commits, the applied index tells which, and Raft
// replays the rest. DB flushes by itself every FlushEvery or FlushOps, so that
// the replay is short.
//
// Goroutines: one for the flushes, besides pebble's. DB is safe for many
// readers beside one Tx; Tx is for one goroutine. mu of flusher is a leaf.
//
// It refuses a store of another format. When the disk fails it calls OnFatal
// once and every later call returns an error.
package inodekv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"orca"
	"orca/metaplane/inode"
)

// Config describes a store. Zero fields have the stated defaults.
type Config struct {
	// Dir is the folder of the store; ignored with Memory.
	Dir string
	// Memory keeps the store in memory (simulators and tests).
	Memory bool
	// Disk, if set, is the disk in memory that holds the store; Dir is on it.
	Disk *Disk
	// ReadOnly opens a store that is there already, to read it; the folder is
	// left as it is.
	ReadOnly bool
	// FlushEvery is the longest time between a commit and its flush.
	// Default 2 s.
	FlushEvery time.Duration
	// FlushOps is the number of commands after which a flush starts early.
	// Default 50,000.
	FlushOps int
	// CacheBytes is the size of the block cache, of what was read from the disk.
	// Default 64 MiB.
	CacheBytes int64
	// OnFatal is called once when the disk has failed. Default: nothing but
	// the log line.
	OnFatal func(reason string)
	// Die ends the process when pebble cannot go on; it does not return.
	// Default: a panic.
	Die func(reason string)
}

func (c Config) withDefaults() Config {
	if c.FlushEvery <= 0 {
		c.FlushEvery = 2 * time.Second
	}
	if c.FlushOps <= 0 {
		c.FlushOps = 50_000
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = 64 << 20
	}
	if c.Die == nil {
		c.Die = func(reason string) { panic("FATAL: metadata store: " + reason) }
	}
	return c
}

// Stats counts what a store did.
type Stats struct {
	Commits, Gets, Flushes atomic.Int64
}

// DB is one open store.
type DB struct {
	Stats   Stats
	cfg     Config
	log     *slog.Logger
	db      *pebble.DB
	applied atomic.Uint64
	base    uint64       // see Base
	ops     atomic.Int64 // commands since the last flush started
	fatal   sync.Once
	dead    chan struct{} // closed by fail
	kick    chan struct{}
	quit    chan struct{}
	done    chan struct{}

	curs struct { // open walks; its lock is a leaf
		sync.Mutex
		open   map[*Cursor]struct{}
		closed bool
	}
}

// Open opens or makes the store.
func Open(cfg Config, log *slog.Logger) (*DB, error) {
	fs := vfs.Default
	switch {
	case cfg.Disk != nil:
		fs, cfg.Dir = cfg.Disk.fs, cmp.Or(cfg.Dir, "store")
	case cfg.Memory:
		fs, cfg.Dir = vfs.NewMem(), "store"
	}
	return open(cfg, fs, log)
}

func open(cfg Config, fs vfs.FS, log *slog.Logger) (*DB, error) {
	const op = "inodekv.Open"
	cfg = cfg.withDefaults()
	d := &DB{
		cfg: cfg, log: log,
		dead: make(chan struct{}), kick: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	if !cfg.ReadOnly {
		if err := fs.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, orca.PathE(op, cfg.Dir, orca.Unavailable, err)
		}
	}
	var err error
	if d.db, err = pebble.Open(cfg.Dir, d.options(fs)); err != nil {
		return nil, orca.PathE(op, cfg.Dir, orca.Unavailable, err)
	}
	v, err := d.Get(nil, inode.AppliedKey)
	if err == nil && v != nil {
		var n uint64
		if n, err = decodeApplied(v); err == nil {
			d.applied.Store(n)
		}
	}
	if err == nil {
		err = d.readBase()
	}
	if err != nil {
		_ = d.db.Close()
		return nil, fmt.Errorf("open %s: %w", cfg.Dir, err)
	}
	go d.flushLoop()
	return d, nil
}

const (
	// memTable bounds what is gathered in memory before it is written: flushes
	// come long before that unless very much is written.
	memTable = 32 << 20
	// l0Depth is how many flushes may lie on each other before they are merged
	// into what is below, which is rewritten then: flushes are frequent and small
	// here, so pebble's own 4 would have the store rewritten every few seconds.
	// l0Stop is where writes wait for the merging.
	l0Depth, l0Stop = 8, 24
)

func (d *DB) options(fs vfs.FS) *pebble.Options {
	opts := &pebble.Options{
		FS:                          fs,
		CacheSize:                   d.cfg.CacheBytes,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       l0Depth,
		L0StopWritesThreshold:       l0Stop,
		Logger:                      pebbleLog{d},
		BytesPerSync:                1 << 20,
		ReadOnly:                    d.cfg.ReadOnly,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { d.fail("the store has failed: " + err.Error()) },
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return opts
}

// fail reports the end of the store once.
func (d *DB) fail(reason string) {
	d.fatal.Do(func() {
		defer close(d.dead)
		d.log.Warn("metadata store failed", "dir", d.cfg.Dir, "err", reason)
		if d.cfg.OnFatal != nil {
			d.cfg.OnFatal(reason)
		}
	})
}

// pebbleLog routes pebble's log; its chatter is for debugging only.
type pebbleLog struct{ d *DB }

func (l pebbleLog) Infof(format string, args ...any) {
	l.d.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.d.log.Warn("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLog) Fatalf(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	reason = "the store has failed: " + reason
	l.d.fail(reason)
	l.d.cfg.Die(reason)
}

// Applied returns the index of the last commit.
func (d *DB) Applied() uint64 { return d.applied.Load() }

// Base is what is added to the index of a journal's entry to get the index that
// it is applied under: of a store that was restored, the index of its backup,
// for a new journal counts from 1, and indexes in records must not come again.
func (d *DB) Base() uint64 { return d.base }

func (d *DB) readBase() error {
	v, err := d.Get(nil, inode.BaseKey)
	if err == nil && v != nil {
		d.base, err = decodeApplied(v)
	}
	return err
}

// Get appends the value of key to dst; it returns nil if there is none.
func (d *DB) Get(dst, key []byte) ([]byte, error) {
	d.Stats.Gets.Add(1)
	v, closer, err := d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, orca.PathE("inodekv.Get", "", orca.Unavailable, err)
	}
	dst = append(dst, v...)
	if dst == nil {
		dst = []byte{}
	}
	return dst, closer.Close()
}

// Scan calls fn for the keys in [lower, upper) in order until it returns
// false; upper nil is the end. Key and value are valid during the call only.
func (d *DB) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return orca.PathE("inodekv.Scan", "", orca.Unavailable, err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if !fn(it.Key(), it.Value()) {
			break
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return orca.PathE("inodekv.Scan", "", orca.Unavailable, err)
	}
	return nil
}

// Flush makes all commits so far durable.
func (d *DB) Flush() error {
	d.ops.Store(0)
	d.Stats.Flushes.Add(1)
	done, err := d.db.AsyncFlush()
	if err != nil {
		d.fail("the store has failed: " + err.Error())
		return orca.PathE("inodekv.Flush", d.cfg.Dir, orca.Unavailable, err)
	}
	select {
	case <-done:
		return nil
	case <-d.dead: // pebble tries again for ever
		return orca.E("inodekv.Flush", orca.Unavailable, "the store has failed")
	}
}

func (d *DB) flushLoop() {
	defer close(d.done)
	tick := time.NewTicker(d.cfg.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-d.quit:
			return
		case <-tick.C:
		case <-d.kick:
		}
		if d.ops.Load() > 0 && d.Flush() != nil {
			return
		}
	}
}

// Checkpoint makes a consistent copy in dir, which must not exist, mostly of
// hard links.
func (d *DB) Checkpoint(dir string) error {
	if err := d.Flush(); err != nil {
		return err
	}
	if err := d.db.Checkpoint(dir); err != nil {
		return orca.PathE("inodekv.Checkpoint", dir, orca.Unavailable, err)
	}
	return nil
}

// Compact rewrites the whole store as small as it gets. It takes long, beside
// everything else.
func (d *DB) Compact(ctx context.Context) error {
	if err := d.Flush(); err != nil {
		return err
	}
	if err := d.db.Compact(ctx, []byte{0}, []byte{0xff}, true); err != nil {
		return orca.PathE("inodekv.Compact", d.cfg.Dir, orca.Unavailable, err)
	}
	return nil
}

// Close stops the flusher, flushes if flush is set, and closes. Without flush
// it leaves what a crash at this point would. A store that has failed is left
// open, for pebble would wait for its disk.
func (d *DB) Close(flush bool) error {
	close(d.quit)
	<-d.done
	select {
	case <-d.dead:
		return orca.E("inodekv.Close", orca.Unavailable, "the store has failed")
	default:
	}
	var ferr error
	if flush {
		ferr = d.Flush()
	}
	ferr = errors.Join(ferr, d.endCursors())
	if err := errors.Join(ferr, d.db.Close()); err != nil {
		return orca.PathE("inodekv.Close", d.cfg.Dir, orca.Unavailable, err)
	}
	return nil
}
