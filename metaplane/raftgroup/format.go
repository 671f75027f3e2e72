// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"orca"
)

// The layouts of a host's folder: of a host that is alone, and of a member of
// a cluster, which an older build must not open as the former.
const (
	formatAlone   = 1
	formatCluster = 2
	// formatGroups is either with more groups than the first, which an older
	// build would forget.
	formatGroups = 3
	// formatRestored is any of them whose state comes from a backup: its store
	// has a base (inodekv.DB.Base) that an older build does not know.
	formatRestored = 4
)

// formatFile is the file that says what the folder is, in JSON:
//
//	DIR/FORMAT           this
//	DIR/journal/         dragonboat's: HOST/DEPLOYMENT/...
//	DIR/store-N/         the store of the first group; N is in FORMAT
//	DIR/group-G/store-N/ that of group G
const formatFile = "FORMAT"

// format is the identity of a host, written before its first use and kept
// whatever the flags of a later start say.
type format struct {
	Format     int    `json:"format"`
	Cluster    string `json:"cluster"`    // random, 16 bytes in hex
	Deployment uint64 `json:"deployment"` // from Cluster
	Address    string `json:"address"`    // Raft address
	Host       string `json:"host"`       // name of the host that the journal is filed under
	Journal    string `json:"journal"`
	Shards     uint64 `json:"shards"` // step workers and journal shards
	part              // of the first group

	// Of a member of a cluster:

	// Replica is its number in the group; 0 of a host that is alone.
	Replica uint64 `json:"replica,omitempty"`
	// Incarnation is random, of this folder: another one under the same
	// replica has lost its journal.
	Incarnation string `json:"incarnation,omitempty"`
	// Removed is set once this member has learnt that it is none any more.
	Removed bool `json:"removed,omitempty"`
	// Groups are the further groups, by number.
	Groups map[uint64]*part `json:"groups,omitempty"`
	// Peers are the incarnations of the replicas that were met.
	Peers map[uint64]string `json:"peers,omitempty"`

	// Restored is the digest of the backup that the state of the first members
	// comes from; "": it began empty. It is part of the cluster's identity, so
	// that members which began with another state are strangers.
	Restored string `json:"restored,omitempty"`

	mu sync.Mutex // guards Peers, Format, Groups and what parts say once the host runs, and save
}

// part is what a folder says of one group.
type part struct {
	// Store is the generation of its store.
	Store uint64 `json:"store"`
	// Started is set once the replica has a journal: from then on a missing
	// journal is a loss, not a beginning.
	Started bool `json:"started"`
	// Members are the Raft addresses of the first members, by replica; where
	// this one joined later there are none.
	Members map[uint64]string `json:"members,omitempty"`
	// Learner is set from joining to promotion: it has no vote.
	Learner bool `json:"learner,omitempty"`
}

// alone reports whether the host is the only member, without a network.
func (f *format) alone() bool { return f.Address == localAddress }

// replica is the host's number in the group.
func (f *format) replica() uint64 {
	if f.alone() {
		return loneReplica
	}
	return f.Replica
}

// localAddress is the Raft address of a host without a listener.
const localAddress = "local"

// Used reports whether a folder is a host's already.
func Used(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, formatFile))
	return err == nil
}

// loadFormat reads the format file, or makes a new identity.
func loadFormat(cfg Config) (*format, error) {
	const op = "raftgroup.Open"
	host, err := os.Hostname()
	if err != nil || host == "" {
		return nil, orca.PathE(op, "", orca.Unavailable, fmt.Errorf("host name: %w", err))
	}
	path := filepath.Join(cfg.Dir, formatFile)
	f, err := readFormat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newFormat(cfg, host)
	}
	if err != nil {
		return nil, err
	}
	if err := f.check(cfg, path); err != nil {
		return nil, err
	}
	return f, f.adoptHost(cfg.Dir, host)
}

func readFormat(path string) (*format, error) {
	const op = "raftgroup.Open"
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, orca.PathE(op, path, orca.Unavailable, err)
	}
	f := &format{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, orca.PathE(op, path, orca.Corrupt, err)
	}
	if f.Format < formatAlone || f.Format > formatRestored {
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Unsupported, Msg: fmt.Sprintf("format %d of another Orca", f.Format)}
	}
	return f, nil
}

// check holds what this start asks for against what the folder is.
func (f *format) check(cfg Config, path string) error {
	refuse := func(msg string) error {
		return &orca.Error{Op: "raftgroup.Open", Path: path, Kind: orca.Invalid, Msg: msg}
	}
	switch {
	case f.Removed:
		return &orca.Error{Op: "raftgroup.Open", Path: path, Kind: orca.Removed, Msg: removedMessage(f.Replica)}
	case f.alone() && (len(cfg.Members) > 0 || cfg.Join != nil || cfg.Address != "" && cfg.Address != localAddress):
		return refuse("this folder is an Orca of one member and cannot become one of several: start the cluster in a new folder, or go on here without a Raft address and peers")
	case cfg.Address != "" && cfg.Address != f.Address:
		return refuse("this member's Raft address is " + f.Address + ", not " + cfg.Address +
			": start it there, or replace the member (orca admin quorum remove " + strconv.FormatUint(f.Replica, 10) + ", then add)")
	case len(cfg.Members) > 0 && len(f.Members) > 0 && clusterOf(cfg.Members, f.Restored) != f.Cluster:
		return refuse("this folder belongs to another cluster, whose first members were " + memberList(f.Members) +
			": give that list or none, or another folder")
	case cfg.Join != nil && cfg.Join.Cluster != f.Cluster:
		return refuse("this folder belongs to cluster " + f.Cluster + ", not to " + cfg.Join.Cluster + ": give another folder")
	}
	return nil
}

func newFormat(cfg Config, host string) (*format, error) {
	const op = "raftgroup.Open"
	if entries, err := os.ReadDir(filepath.Join(cfg.Dir, journalDir)); err == nil && len(entries) > 0 {
		return nil, &orca.Error{Op: op, Path: cfg.Dir, Kind: orca.Corrupt,
			Msg: "there is a journal but no FORMAT file: restore the file, or start with an empty folder as a new member"}
	}
	if stores, err := filepath.Glob(filepath.Join(cfg.Dir, "store-*")); err == nil && len(stores) > 0 {
		return nil, &orca.Error{Op: op, Path: cfg.Dir, Kind: orca.Corrupt,
			Msg: "there is a store but no FORMAT file: restore the file, or start with an empty folder"}
	}
	f, err := makeFormat(cfg, host, "")
	if err != nil {
		return nil, err
	}
	return f, f.save(cfg.Dir)
}

// makeFormat makes a new identity; restored is that of format.
func makeFormat(cfg Config, host, restored string) (*format, error) {
	const op = "raftgroup.Open"
	f := &format{Format: formatAlone, Address: localAddress, Host: host, Journal: cfg.Journal, Shards: 2, part: part{Store: 1}, Restored: restored}
	switch {
	case len(cfg.Members) > 0:
		for id, addr := range cfg.Members {
			if addr == cfg.Address {
				f.Replica = id
			}
		}
		f.Members, f.Cluster = cfg.Members, clusterOf(cfg.Members, restored)
	case cfg.Join != nil:
		f.Replica, f.Cluster, f.Learner = cfg.Join.Replica, cfg.Join.Cluster, true
	default:
		if cfg.Address != "" {
			return nil, orca.E(op, orca.Invalid, "a Raft address, but neither the first members of a cluster nor one to join: give --peers or --join")
		}
		f.Cluster = randomHex()
	}
	if f.Replica != 0 {
		f.Format, f.Address, f.Incarnation = formatCluster, cfg.Address, randomHex()
	}
	if restored != "" {
		f.Format = formatRestored
	}
	id, err := hex.DecodeString(f.Cluster)
	if err != nil || len(id) != 16 {
		return nil, &orca.Error{Op: op, Path: f.Cluster, Kind: orca.Invalid, Msg: "not the identity of a cluster", Err: err}
	}
	f.Deployment = binary.BigEndian.Uint64(id)>>1 | 1
	return f, nil
}

func randomHex() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// clusterOf is the identity of a cluster: the members that it begins with, and
// the backup whose state they begin with.
func clusterOf(members map[uint64]string, restored string) string {
	text := "orca cluster " + memberList(members)
	if restored != "" {
		text += " restored from " + restored
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// memberList spells members as the command line does.
func memberList(members map[uint64]string) string {
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(members)) {
		parts = append(parts, strconv.FormatUint(id, 10)+"="+members[id])
	}
	return strings.Join(parts, ",")
}

// adoptHost lets a folder follow its single node to a new host name (a
// container gets another at each start): dragonboat files its journal under
// the name and notes it in a file that it makes anew.
func (f *format) adoptHost(dir, host string) error {
	if f.Host == host {
		return nil
	}
	if !f.alone() {
		return &orca.Error{Op: "raftgroup.Open", Path: dir, Kind: orca.Invalid, Msg: "this member belongs to host " + f.Host + ", but this host is called " + host +
			": give it its name back, or replace the member (orca admin quorum remove " + strconv.FormatUint(f.Replica, 10) + ", then add)"}
	}
	journal := filepath.Join(dir, journalDir)
	if err := os.Rename(filepath.Join(journal, f.Host), filepath.Join(journal, host)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return orca.PathE("raftgroup.Open", journal, orca.Unavailable, err)
	}
	if err := os.Remove(filepath.Join(journal, "dragonboat.ds")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return orca.PathE("raftgroup.Open", journal, orca.Unavailable, err)
	}
	f.Host = host
	return f.save(dir)
}

// save replaces the format file durably.
func (f *format) save(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.saveLocked(dir)
}

// update changes f and saves it.
func (f *format) update(dir string, change func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	return f.saveLocked(dir)
}

func (f *format) saveLocked(dir string) error {
	const op = "raftgroup.save"
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return orca.PathE(op, dir, orca.Internal, err)
	}
	tmp := filepath.Join(dir, formatFile+".tmp")
	if err := writeSynced(tmp, append(b, '\n')); err != nil {
		return orca.PathE(op, tmp, orca.Unavailable, err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, formatFile)); err != nil {
		return orca.PathE(op, dir, orca.Unavailable, err)
	}
	if err := syncDir(dir); err != nil {
		return orca.PathE(op, dir, orca.Unavailable, err)
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	w, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, werr := w.Write(b)
	return errors.Join(werr, w.Sync(), w.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// storeDir is where the store of generation n is.
func storeDir(dir string, n uint64) string {
	return filepath.Join(dir, fmt.Sprintf("store-%d", n))
}

// sweepStores removes stores of other generations: what an interrupted
// transfer of a snapshot left.
func sweepStores(dir string, keep uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return orca.PathE("raftgroup.Open", dir, orca.Unavailable, err)
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), "store-") && p != storeDir(dir, keep) {
			if err := os.RemoveAll(p); err != nil {
				return orca.PathE("raftgroup.Open", p, orca.Unavailable, err)
			}
		}
	}
	return nil
}

// lock takes the folder for this process until the file is closed. Busy:
// another process (or host) has it.
func lock(dir string) (*os.File, error) {
	const op = "raftgroup.Open"
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, orca.PathE(op, path, orca.Unavailable, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, &orca.Error{Op: op, Path: dir, Kind: orca.Busy, Msg: "another process uses this folder", Err: err}
	}
	return f, nil
}
