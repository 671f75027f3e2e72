// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package ufssync brings the namespace in line with the stores below it: UFS →
// namespace. What appeared behind Orca is imported, what changed becomes a new
// version, what vanished is removed.
//
// Flow: metaserver resolves paths through Syncer.Path and lists directories
// after Syncer.Dir. Each asks the UFS only when the sync interval says so (-1:
// a directory is listed once, a missing name of a directory that was not
// listed yet is asked for by itself; 0: every access; N ms: at most every N),
// compares, and proposes SyncApply commands that carry the machine's index at
// the start of the question, so that the state machine skips whatever changed
// since, is masked by an intent or is being written.
//
// A listing streams: the UFS's order and the machine's order are merged, only
// differences become commands, at most BatchNames of them each, so that the
// memory of a sync does not grow with the directory.
//
// Goroutines: background loads of directories that are asked for missing names
// again and again (at most Background, ended by Close). Locks: Syncer.mu guards
// the flights, and each memory has its own; none is held across a call. It
// refuses nothing by itself: errors are the store's, or the state machine's.
package ufssync

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/ufs"
)

// Group is what the syncer needs of a Raft group; *raftgroup.Group is one.
type Group interface {
	Propose(ctx context.Context, c *command.Command) (*command.Result, error)
	Machine() *fsm.Machine
}

// Stores opens the store of a mount; *mount.Stores is one.
type Stores interface {
	FS(ctx context.Context, mountID uint32) (ufs.FS, error)
}

// Config bounds a Syncer. The zero value means the defaults.
type Config struct {
	// BlockSize and WholeMax go into imported files (orca.Attr.BlockSize).
	// Defaults: orca.DefaultBlockSize, orca.MaxWholeBlock.
	BlockSize, WholeMax int64
	// BatchNames caps the names of one command. Default and most: 1000.
	BatchNames int
	// NegativeTTL is how long a missing name is believed to be missing under
	// interval -1 in a directory that was not listed yet. Default 1 s.
	NegativeTTL time.Duration
	// Memory caps the remembered times of checks, and of missing names.
	// Default 100,000 each.
	Memory int
	// LoadAfter is how many missing names of a directory that was not listed
	// yet are asked for one by one before it is listed in the background.
	// Default 4.
	LoadAfter int
	// Background caps concurrent background listings. Default 4.
	Background int
	// Settle is for how long a listing may be behind what Orca itself did: such
	// differences are checked key by key. Default 5 min.
	Settle time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

func (c *Config) setDefaults() {
	c.BlockSize = cmp.Or(c.BlockSize, orca.DefaultBlockSize)
	c.WholeMax = cmp.Or(c.WholeMax, orca.MaxWholeBlock)
	c.BatchNames = min(cmp.Or(c.BatchNames, 1000), 1000)
	c.NegativeTTL = cmp.Or(c.NegativeTTL, time.Second)
	c.Memory = cmp.Or(c.Memory, 100_000)
	c.LoadAfter = cmp.Or(c.LoadAfter, 4)
	c.Background = cmp.Or(c.Background, 4)
	c.Settle = cmp.Or(c.Settle, 5*time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
}

// Stats are counters for telemetry.
type Stats struct {
	Stats    atomic.Int64 // UFS stats
	Lists    atomic.Int64 // UFS listings
	Created  atomic.Int64
	Changed  atomic.Int64
	Removed  atomic.Int64
	Failures atomic.Int64 // UFS calls that failed
}

// Option says how an access looks at the UFS.
type Option struct {
	// Set says that Interval overrides that of the path.
	Set bool
	// Interval: below 0 load once; 0 on each access; else at most so often.
	Interval time.Duration
	// Force lists a directory whatever the interval.
	Force bool
}

// OptionOf translates a request's option; nil is the path's default.
func OptionOf(o *metapb.SyncOption) Option {
	switch o.GetMode() {
	case 1:
		return Option{Set: true, Interval: -1}
	case 2:
		return Option{Set: true, Interval: max(0, time.Duration(o.IntervalMs)*time.Millisecond)}
	}
	return Option{}
}

// IntervalOf returns the interval that applies to an inode.
func (o Option) IntervalOf(v *fsm.View) time.Duration {
	switch {
	case o.Set:
		return o.Interval
	case v.SyncInterval < 0:
		return -1
	}
	return time.Duration(v.SyncInterval) * time.Millisecond
}

// Syncer is safe for concurrent use.
type Syncer struct {
	cfg    Config
	group  Group
	stores Stores
	log    *slog.Logger
	Stats  Stats

	checked  *recent[orca.Ino] // last comparison of an inode with its key
	listed   *recent[orca.Ino] // last listing of a directory
	negative *recent[childKey] // names that were missing
	misses   *recent[orca.Ino] // counted, not timed
	removed  *recent[ufsKey]   // keys (with all below) that Orca removed
	removals removals

	ctx    context.Context // of background loads
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu      sync.Mutex
	flights map[orca.Ino]*flightPair
	closed  bool
}

type childKey struct {
	dir  orca.Ino
	name string
}

type ufsKey struct {
	mount uint32
	key   string
}

// New makes a syncer.
func New(cfg Config, g Group, stores Stores, log *slog.Logger) *Syncer {
	cfg.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Syncer{
		cfg: cfg, group: g, stores: stores, log: log,
		checked:  newRecent[orca.Ino](cfg.Memory),
		listed:   newRecent[orca.Ino](cfg.Memory),
		negative: newRecent[childKey](cfg.Memory),
		misses:   newRecent[orca.Ino](cfg.Memory),
		removed:  newRecent[ufsKey](cfg.Memory),
		removals: removals{inherited: map[uint32]int64{}, noted: map[uint32]int64{}},
		ctx:      ctx, cancel: cancel,
		slots:   make(chan struct{}, cfg.Background),
		flights: map[orca.Ino]*flightPair{},
	}
}

// Close ends background loads and waits for them.
func (s *Syncer) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return nil
}

// Forget drops what is remembered of an inode's last check, so that the next
// access under an interval looks again.
func (s *Syncer) Forget(ino orca.Ino) {
	s.checked.drop(ino)
	s.listed.drop(ino)
}

// Removed notes that Orca removed a key and all below it: a late listing that
// still shows one is not believed.
func (s *Syncer) Removed(mountID uint32, key string) {
	s.removed.set(ufsKey{mountID, key}, s.cfg.Now().UnixNano())
}

// removedLately reports whether Orca removed the key, or a directory above it,
// within Settle.
func (s *Syncer) removedLately(mountID uint32, key string) bool {
	if s.removed.empty() {
		return false
	}
	now := s.cfg.Now().UnixNano()
	for {
		if at := s.removed.get(ufsKey{mountID, key}); at != 0 && now-at < int64(s.cfg.Settle) {
			return true
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 {
			return false
		}
		key = key[:i]
	}
}

// due reports whether something last seen at (unix ns, 0: never) is to be
// looked at again.
func (s *Syncer) due(last int64, interval time.Duration) bool {
	switch {
	case interval < 0:
		return false
	case interval == 0:
		return true
	}
	return s.cfg.Now().UnixNano()-last >= int64(interval)
}

func (s *Syncer) propose(ctx context.Context, op *metapb.SyncApplyOp) (*metapb.SyncResult, error) {
	op.BlockSize, op.WholeMax, op.Strict = s.cfg.BlockSize, s.cfg.WholeMax, true
	res, err := s.group.Propose(ctx, &command.Command{Now: s.cfg.Now().UnixNano(), SyncApply: op})
	if orca.KindOf(err) == orca.Stale {
		return nil, errMoved
	}
	if err != nil {
		return nil, err
	}
	r := res.Sync
	if r == nil {
		r = &metapb.SyncResult{}
	}
	s.Stats.Created.Add(r.Created)
	s.Stats.Changed.Add(r.Changed)
	s.Stats.Removed.Add(r.Removed)
	return r, nil
}

// errMoved says that the key that was asked about is not any more that of the
// name: its directory has moved, and the answer is for nobody.
var errMoved = orca.E("ufssync", orca.Busy, "the directory has moved while its UFS was asked")

// entry translates what a store says of one name.
func entry(name string, i ufs.Info, owners bool) *metapb.SyncEntry {
	e := &metapb.SyncEntry{Name: name, Dir: i.Dir, Length: i.Size, Fingerprint: i.Fingerprint, Owners: owners}
	if !i.Mtime.IsZero() {
		e.Mtime = i.Mtime.UnixNano()
	}
	if owners {
		e.Mode, e.Uid, e.Gid = i.Mode, i.UID, i.GID
	}
	return e
}

// same reports whether the namespace already says what the store says.
func same(v *fsm.View, i ufs.Info, owners bool) bool {
	a := v.Attr
	if (a.Type == uint32(orca.TypeDir)) != i.Dir {
		return false
	}
	if owners && (a.Mode != i.Mode || a.Uid != i.UID || a.Gid != i.GID) {
		return false
	}
	if i.Dir {
		return v.InUFS
	}
	if a.Persist != uint32(orca.Persisted) {
		return true // a version of ours waits to be written over it
	}
	return a.Fingerprint == i.Fingerprint
}
