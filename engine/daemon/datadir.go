// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"orca"
)

// Endpoints is what DATA/endpoints.json tells other programs: where this
// process listens. Fields are "" for doors that are closed.
type Endpoints struct {
	PID        int    `json:"pid"`
	Node       string `json:"node"`
	Meta       string `json:"meta,omitempty"`          // host:port of the metadata RPC
	MetaSocket string `json:"meta_socket,omitempty"`   // the same on a Unix socket
	Raft       string `json:"raft,omitempty"`          // of a member of a cluster
	HTTP       string `json:"http,omitempty"`          // metrics, health, profiles
	Worker     string `json:"worker,omitempty"`        // host:port of the block server
	Socket     string `json:"worker_socket,omitempty"` // Unix socket that passes descriptors
	Domain     string `json:"worker_domain,omitempty"` // Unix socket of the block server
	Mount      string `json:"mount,omitempty"`
	Root       string `json:"root,omitempty"`
}

// dataDir is the folder of one process, held by a lock while it runs.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes and locks the folder. A second process on the same folder
// is refused by name.
func openDataDir(path string) (*dataDir, error) {
	const op = "daemon.openDataDir"
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, orca.PathE(op, path, orca.Invalid, err)
	}
	for _, d := range []string{abs, filepath.Join(abs, "run")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, orca.PathE(op, d, orca.Permission, err)
		}
	}
	f, err := os.OpenFile(filepath.Join(abs, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, orca.PathE(op, abs, orca.Permission, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name())
		f.Close()
		return nil, &orca.Error{Op: op, Path: abs, Kind: orca.Busy,
			Msg: "another orca (pid " + strings.TrimSpace(string(holder)) + ") uses this data folder", Err: err}
	}
	if err := errors.Join(f.Truncate(0), writeString(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		f.Close()
		return nil, orca.PathE(op, abs, orca.NoSpace, err)
	}
	return &dataDir{path: abs, lock: f}, nil
}

func writeString(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func (d *dataDir) join(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// publish writes endpoints.json atomically.
func (d *dataDir) publish(e Endpoints) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.join("endpoints.json.tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return orca.PathE("daemon.publish", tmp, orca.NoSpace, err)
	}
	return os.Rename(tmp, d.join("endpoints.json"))
}

// close removes endpoints.json and releases the lock.
func (d *dataDir) close() {
	os.Remove(d.join("endpoints.json"))
	d.lock.Close()
}
