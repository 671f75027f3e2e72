// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"orca"
)

// formatVersion numbers the layout of a host's folder.
const formatVersion = 1

// formatFile is the file that says what the folder is, in JSON:
//
//	DIR/FORMAT           this
//	DIR/journal/         dragonboat's: HOST/DEPLOYMENT/...
//	DIR/store-N/         the store of the group; N is in FORMAT
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
	Store      uint64 `json:"store"`
	// Started is set once the replica has a journal: from then on a missing
	// journal is a loss, not a beginning.
	Started bool `json:"started"`
}

// localAddress is the Raft address of a host without a listener.
const localAddress = "local"

// loadFormat reads the format file, or makes a new identity.
func loadFormat(cfg Config) (*format, error) {
	const op = "raftgroup.Open"
	host, err := os.Hostname()
	if err != nil || host == "" {
		return nil, orca.PathE(op, "", orca.Unavailable, fmt.Errorf("host name: %w", err))
	}
	path := filepath.Join(cfg.Dir, formatFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newFormat(cfg, host)
	}
	if err != nil {
		return nil, orca.PathE(op, path, orca.Unavailable, err)
	}
	f := &format{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, orca.PathE(op, path, orca.Corrupt, err)
	}
	if f.Format != formatVersion {
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Unsupported, Msg: fmt.Sprintf("format %d of another Orca", f.Format)}
	}
	if cfg.Address != "" && cfg.Address != f.Address {
		return nil, &orca.Error{Op: op, Path: path, Kind: orca.Invalid, Msg: "this member's Raft address is " + f.Address + ", not " + cfg.Address}
	}
	return f, f.adoptHost(cfg.Dir, host)
}

func newFormat(cfg Config, host string) (*format, error) {
	if entries, err := os.ReadDir(filepath.Join(cfg.Dir, "journal")); err == nil && len(entries) > 0 {
		return nil, &orca.Error{Op: "raftgroup.Open", Path: cfg.Dir, Kind: orca.Corrupt, Msg: "there is a journal but no FORMAT file"}
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	f := &format{
		Format: formatVersion, Cluster: hex.EncodeToString(id[:]), Deployment: binary.BigEndian.Uint64(id[:])>>1 | 1,
		Address: cfg.Address, Host: host, Journal: cfg.Journal, Shards: 2, Store: 1,
	}
	if f.Address == "" {
		f.Address = localAddress
	}
	return f, f.save(cfg.Dir)
}

// adoptHost lets a folder follow its single node to a new host name (a
// container gets another at each start): dragonboat files its journal under
// the name and notes it in a file that it makes anew.
func (f *format) adoptHost(dir, host string) error {
	if f.Host == host {
		return nil
	}
	if f.Address != localAddress {
		return &orca.Error{Op: "raftgroup.Open", Path: dir, Kind: orca.Invalid, Msg: "this member belongs to host " + f.Host + ", not " + host}
	}
	journal := filepath.Join(dir, "journal")
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
