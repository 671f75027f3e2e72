// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package memufs is an under file system in memory, for tests, for demos and
// as the model of the contract in package ufs. A Store holds the objects and
// is shared by any number of handles; Config.Objects chooses whether handles
// behave like a POSIX file system (directories, atomic rename, owners) or like
// an object store (implied directories, markers, server-side copy).
//
// Keys are kept as object stores keep them: one sorted list in which a
// directory ends with a slash. Inserting is O(number of keys) in memory moves,
// which is fine up to some hundred thousand keys.
//
// No goroutines. Store.mu guards everything and is never held while a
// callback of List or Walk runs. Nothing survives the process.
package memufs

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/ufs"
)

// Config says how a Store behaves.
type Config struct {
	// Objects makes it an object store; default: a POSIX-like file system.
	Objects bool
	// Capacity bounds the bytes held; 0: no bound. Commit fails with NoSpace
	// beyond it.
	Capacity int64
}

// Counters counts the calls of all handles of a Store.
type Counters struct {
	Stat, List, Open, Create, Commit, Abort, Mkdir, Remove, Rename, Copy, Walk, Sweep, SetAttr atomic.Int64
	// ReadBytes and WriteBytes count data handed out and committed.
	ReadBytes, WriteBytes atomic.Int64
}

// Store holds objects.
type Store struct {
	cfg Config
	// Counters may be read at any time.
	Counters Counters

	mu      sync.RWMutex
	nodes   map[string]*node // by raw key; GUARDED_BY(mu)
	order   []string         // sorted raw keys; GUARDED_BY(mu)
	used    int64            // GUARDED_BY(mu)
	serial  uint64           // last fingerprint; GUARDED_BY(mu)
	uploads map[*writer]bool // open ones; GUARDED_BY(mu)

	exchanged map[exchangeOf]bool // done and not forgotten; GUARDED_BY(mu)
}

// exchangeOf names an exchange: its first key and its token.
type exchangeOf struct{ key, token string }

// node is one object or directory. data is never changed, only replaced.
type node struct {
	data        []byte
	mtime       time.Time
	mode        uint32
	uid, gid    uint32
	fingerprint string
}

// New makes an empty store.
func New(cfg Config) *Store {
	return &Store{cfg: cfg, nodes: map[string]*node{}, uploads: map[*writer]bool{}, exchanged: map[exchangeOf]bool{}}
}

// shared are the stores of mem:// URIs: every opener of a name in this process
// sees the same objects, as with a real store.
var shared struct {
	mu     sync.Mutex
	stores map[string]*Store
}

// Shared returns the store of this name in this process, making it with cfg
// at its first use.
func Shared(name string, cfg Config) *Store {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if s, ok := shared.stores[name]; ok {
		return s
	}
	if shared.stores == nil {
		shared.stores = map[string]*Store{}
	}
	s := New(cfg)
	shared.stores[name] = s
	return s
}

// FS returns a new handle on the store.
func (s *Store) FS() ufs.FS {
	h := &handle{store: s}
	if s.cfg.Objects {
		return &objectFS{h}
	}
	return &posixFS{h}
}

// Put makes or replaces an object behind the back of every handle, with its
// parents, as another program would.
func (s *Store) Put(key, data string) ufs.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parentsLocked(key)
	s.setLocked(key, &node{data: []byte(data), mode: 0o644})
	return s.infoLocked(key)
}

// Drop deletes an object, or a directory with all that is in it, behind the
// back of every handle; false when there was none.
func (s *Store) Drop(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.dropLocked(key)
	for _, raw := range s.underLocked(key + "/") {
		found = s.dropLocked(raw) || found
	}
	return found
}

// Keys returns every raw key in order; directories (POSIX) and directory
// markers (objects) end with a slash.
func (s *Store) Keys() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.order)
}

// Data returns the content of an object.
func (s *Store) Data(key string) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, ok := s.nodes[key]
	if !ok {
		return "", false
	}
	return string(n.data), true
}

// Uploads returns how many uploads are neither committed nor aborted.
func (s *Store) Uploads() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.uploads)
}

// setLocked stores n under the raw key with a new fingerprint.
func (s *Store) setLocked(raw string, n *node) {
	if old, ok := s.nodes[raw]; ok {
		s.used -= int64(len(old.data))
	} else {
		i, _ := slices.BinarySearch(s.order, raw)
		s.order = slices.Insert(s.order, i, raw)
	}
	s.serial++
	n.fingerprint = fmt.Sprintf("m%x", s.serial)
	if n.mtime.IsZero() {
		n.mtime = time.Now()
	}
	s.used += int64(len(n.data))
	s.nodes[raw] = n
}

func (s *Store) dropLocked(raw string) bool {
	n, ok := s.nodes[raw]
	if !ok {
		return false
	}
	i, _ := slices.BinarySearch(s.order, raw)
	s.order = slices.Delete(s.order, i, i+1)
	s.used -= int64(len(n.data))
	delete(s.nodes, raw)
	return true
}

// underLocked returns a copy of the raw keys that start with prefix.
func (s *Store) underLocked(prefix string) []string {
	i, _ := slices.BinarySearch(s.order, prefix)
	j := i
	for j < len(s.order) && strings.HasPrefix(s.order[j], prefix) {
		j++
	}
	return slices.Clone(s.order[i:j])
}

// anyUnderLocked reports whether a raw key other than prefix starts with it.
func (s *Store) anyUnderLocked(prefix string) bool {
	i, exact := slices.BinarySearch(s.order, prefix)
	if exact {
		i++
	}
	return i < len(s.order) && strings.HasPrefix(s.order[i], prefix)
}

// parentsLocked makes the directories above key (POSIX flavour only).
func (s *Store) parentsLocked(key string) {
	if s.cfg.Objects {
		return
	}
	for i, c := range key {
		if c != '/' {
			continue
		}
		if _, ok := s.nodes[key[:i+1]]; !ok {
			s.setLocked(key[:i+1], &node{mode: 0o755})
		}
	}
}

// fileAboveLocked reports whether a component above key is a file.
func (s *Store) fileAboveLocked(key string) bool {
	for i, c := range key {
		if c == '/' && s.nodes[key[:i]] != nil {
			return true
		}
	}
	return false
}

// isDirLocked reports whether key is a directory: kept, marked or implied.
func (s *Store) isDirLocked(key string) bool {
	if key == "" || s.nodes[key+"/"] != nil {
		return true
	}
	return s.cfg.Objects && s.anyUnderLocked(key+"/")
}

// infoLocked describes the object or directory at a clean key that exists.
func (s *Store) infoLocked(key string) ufs.Info {
	if n, ok := s.nodes[key]; ok {
		return ufs.Info{
			Key: key, Size: int64(len(n.data)), Mtime: n.mtime,
			Mode: n.mode, UID: n.uid, GID: n.gid, Fingerprint: n.fingerprint,
		}
	}
	in := ufs.Info{Key: key, Dir: true, Mode: 0o755}
	if n, ok := s.nodes[key+"/"]; ok {
		in.Mtime, in.Mode, in.UID, in.GID = n.mtime, n.mode, n.uid, n.gid
	}
	return in
}

func refuse(op, key string, k orca.Kind) error {
	return &orca.Error{Op: "memufs." + op, Path: key, Kind: k}
}
