// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/inodekv"
)

// trashIno is the parent of detached directories; it has no record.
const trashIno orca.Ino = 2

// firstCounter is the first counter that a new inode gets.
const firstCounter = 16

// node is a directory in memory. All directories are, so that resolving a
// path of any depth needs no disk.
type node struct {
	rec     inode.Dir
	parent  *node // nil: the root, or a detached directory
	sub     *children
	names   *nameSet // of all names in it; nil: not known
	removed *ring    // names removed lately; nil: not read yet
	below   sums     // of all below it
	quota   *quota   // nil: none
	linked  int64    // names of files with several, in it and below
	dirty   bool     // rec is to be written at the end of the batch
	gone    bool     // deleted
}

// nameKey names a dentry.
type nameKey struct {
	dir  orca.Ino
	name string
}

// callKey names a client's request.
type callKey struct{ client, seq uint64 }

// counters are what the group counts in apply.
type counters struct {
	ino, session, intent, worker uint64
	mount                        uint32
	files, dirs                  int64
}

// Machine is the namespace of one group.
type Machine struct {
	cfg    Config
	log    *slog.Logger
	hosted map[string]Hosted
	hnames []string // of hosted, sorted

	applied atomic.Uint64
	broken  atomic.Pointer[error] // the store has failed

	files  *bounded[nameKey, *inode.File] // records are never changed in place
	places *bounded[orca.Ino, nameKey]
	stats  machineStats

	mu       sync.RWMutex
	applying bool // Apply holds mu: reads go through tx
	db       *inodekv.DB
	tx       *inodekv.Tx
	root     *node
	dirs     map[orca.Ino]*node
	trash    map[orca.Ino]*trashed
	staging  map[uint64]*trashed // trees without a place yet, by transaction
	quotas   map[orca.Ino]*node  // directories that have one
	bins     map[uint32]*bin     // by mount
	deleted  map[orca.Ino]*command.Trashed
	charged  map[orca.Ino]room // what bins have, by who is charged for it
	unheld   bool              // quotas do not hold that until the end of the command
	sessions map[uint64]*command.Session
	byName   map[nameKey]uint64  // sessions that hold a name
	byFile   map[orca.Ino]uint64 // sessions that hold a file
	intents  map[uint64]*command.Intent
	byCall   map[callKey]uint64           // undecided intents by request
	regroups map[orca.Ino]*command.Intent // moves to other groups, by directory
	masks    map[uint32]*maskSet
	mounts   map[uint32]*command.Mount
	workers  map[uint64]*command.Worker
	clients  map[uint64]*client
	count    counters
	reign    uint64 // the latest; see underReign
	restored restored
	outcomes outcomes
	nNames   int      // hashes in all nodes' names
	freed    [][]byte // memory of forgotten results
	batch    batch
}

// machineStats counts; readers count too.
type machineStats struct {
	hits, misses, commands, remembered, presence, gets, overQuota, rehomed atomic.Int64
}

// Open reads the state that db holds. hosted are the machines that share the
// group, by name.
func Open(cfg Config, db *inodekv.DB, hosted map[string]Hosted, log *slog.Logger) (*Machine, error) {
	m := &Machine{cfg: cfg.withDefaults(), log: log, hosted: hosted, hnames: slices.Sorted(maps.Keys(hosted))}
	return m, m.Reset(db)
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxSessions, 1<<16)
	def(&c.MaxIntents, 1<<14)
	def(&c.MaxClients, 1<<16)
	def(&c.CacheEntries, 1<<18)
	return c
}

// Reset makes db the machine's store and reads everything anew: at open, and
// when a snapshot has replaced the state. The machine does not close stores.
func (m *Machine) Reset(db *inodekv.DB) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tx != nil {
		if err := m.tx.Close(); err != nil {
			return err
		}
	}
	m.db, m.tx = db, db.NewTx()
	m.files = newBounded[nameKey, *inode.File](m.cfg.CacheEntries)
	m.places = newBounded[orca.Ino, nameKey](m.cfg.CacheEntries)
	m.dirs, m.trash, m.quotas = map[orca.Ino]*node{}, map[orca.Ino]*trashed{}, map[orca.Ino]*node{}
	m.bins, m.deleted, m.charged, m.unheld = map[uint32]*bin{}, map[orca.Ino]*command.Trashed{}, map[orca.Ino]room{}, false
	m.sessions, m.byName, m.byFile = map[uint64]*command.Session{}, map[nameKey]uint64{}, map[orca.Ino]uint64{}
	m.intents, m.byCall, m.masks = map[uint64]*command.Intent{}, map[callKey]uint64{}, map[uint32]*maskSet{}
	m.regroups, m.staging = map[orca.Ino]*command.Intent{}, map[uint64]*trashed{}
	m.mounts, m.workers, m.clients = map[uint32]*command.Mount{}, map[uint64]*command.Worker{}, map[uint64]*client{}
	m.outcomes = newOutcomes()
	m.count, m.nNames, m.batch = counters{ino: firstCounter}, 0, batch{}
	if !m.first() {
		m.count.session, m.count.intent = uint64(m.cfg.Group)<<48, uint64(m.cfg.Group)<<48
	}
	m.broken.Store(nil)
	m.applied.Store(db.Applied())
	var t tree
	loadDirs, loadUsage := func() error { return m.loadDirs(&t) }, func() error { return m.loadUsage(&t) }
	for _, load := range []func() error{m.loadCounters, m.loadReign, m.loadRestored, loadDirs, m.loadNames, m.loadTrash, m.loadRecords,
		m.loadBins, loadUsage, m.loadQuotas, m.loadClients, m.reopenHosted} {
		if err := load(); err != nil {
			return fmt.Errorf("read the state of the group: %w", err)
		}
	}
	return nil
}

// loadRecords reads the rare records.
func (m *Machine) loadRecords() error {
	return firstErr(
		loadProto(m, inode.SpaceSession, func(s *command.Session) { m.indexSession(s) }),
		loadProto(m, inode.SpaceIntent, func(it *command.Intent) { m.indexIntent(it) }),
		loadProto(m, inode.SpaceMount, func(r *command.Mount) { m.mounts[r.GetMount().GetId()] = r }),
		m.loadTransfers(),
		loadProto(m, inode.SpaceWorker, func(w *command.Worker) { m.workers[w.Id] = w }),
	)
}

// record is a message kept in the store.
type record interface {
	MarshalVT() ([]byte, error)
	UnmarshalVT([]byte) error
}

func loadProto[T any, P interface {
	*T
	record
}](m *Machine, space byte, add func(P)) error {
	var bad error
	err := m.scan(space, func(_, v []byte) bool {
		p := P(new(T))
		if len(v) == 0 || v[0] != recordFormat || p.UnmarshalVT(v[1:]) != nil {
			bad = orca.E("fsm.Open", orca.Corrupt, fmt.Sprintf("bad record in space %c", space))
			return false
		}
		add(p)
		return true
	})
	return firstErr(bad, err)
}

// recordFormat is the first byte of a rare record's value.
const recordFormat = 1

// putRecord stores a rare record under key.
func (m *Machine) putRecord(key []byte, r record) {
	b, err := r.MarshalVT()
	if err != nil {
		m.fail(orca.PathE("fsm.putRecord", "", orca.Internal, err))
		return
	}
	m.tx.Set(key, append([]byte{recordFormat}, b...))
}

func (m *Machine) scan(space byte, fn func(k, v []byte) bool) error {
	return m.db.Scan([]byte{space}, []byte{space + 1}, fn)
}

const (
	countersFormat = 1
	countersLen    = 1 + 6*8 + 4
)

func (m *Machine) loadCounters() error {
	v, err := m.db.Get(nil, inode.CountersKey)
	if err != nil || v == nil {
		return err
	}
	if len(v) != countersLen || v[0] != countersFormat {
		return orca.E("fsm.Open", orca.Corrupt, "bad counters")
	}
	u := func(i int) uint64 { return binary.BigEndian.Uint64(v[1+8*i:]) }
	m.count = counters{
		ino: u(0), session: u(1), intent: u(2), worker: u(3), files: int64(u(4)), dirs: int64(u(5)),
		mount: binary.BigEndian.Uint32(v[49:]),
	}
	return nil
}

func (m *Machine) storeCounters() {
	c := &m.count
	b := append(m.batch.val[:0], countersFormat)
	for _, u := range [...]uint64{c.ino, c.session, c.intent, c.worker, uint64(c.files), uint64(c.dirs)} {
		b = binary.BigEndian.AppendUint64(b, u)
	}
	m.batch.val = binary.BigEndian.AppendUint32(b, c.mount)
	m.tx.Set(inode.CountersKey, m.batch.val)
}

func (m *Machine) newIno() orca.Ino {
	m.count.ino++
	return orca.NewIno(m.cfg.Group, m.count.ino)
}

// Close ends the machine: from now on reads fail with Unavailable instead of
// touching the store, which its owner may then close.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail(orca.E("fsm", orca.Unavailable, "the namespace is closed"))
	return m.tx.Close()
}

// fail notes that the store has failed; Apply and readers report it.
func (m *Machine) fail(err error) {
	m.broken.CompareAndSwap(nil, &err)
}

func (m *Machine) failed() error {
	if p := m.broken.Load(); p != nil {
		return *p
	}
	return nil
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
