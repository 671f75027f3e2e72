// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"orca"
	"orca/metaplane/inodekv"
)

// Image is the state that Restore begins with.
type Image struct {
	// Digest is the identity of the backup.
	Digest string
	// Applied is the index of its last entry; the first that is applied here
	// is the next one.
	Applied uint64
	// Next returns the records one by one, a nil key at the end; those of
	// inode.SpaceApplied are left out.
	Next func() (key, value []byte, err error)
}

// Restore makes the folder of a host that was never started, and whose state is
// an image. Of cfg the folder, and who its members are, count: all first members
// of a cluster restore the same image, and have a common identity that comes of
// both. The folder must not exist or be empty: Exists. It has no FORMAT file,
// and is refused by Open, until all is there and durable.
func Restore(cfg Config, img Image, log *slog.Logger) (cluster string, err error) {
	const op = "raftgroup.Restore"
	if err := errors.Join(cfg.Validate(), refuseSettings()); err != nil {
		return "", err
	}
	if cfg.Join != nil {
		return "", orca.E(op, orca.Invalid, "a member that joins gets its state from the others")
	}
	cfg = cfg.withDefaults()
	if entries, err := os.ReadDir(cfg.Dir); err == nil && len(entries) > 0 {
		return "", &orca.Error{Op: op, Path: cfg.Dir, Kind: orca.Exists, Msg: "the folder is not empty"}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return "", orca.PathE(op, cfg.Dir, orca.Unavailable, err)
	}
	lk, err := lock(cfg.Dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lk.Close()) }()
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "", orca.PathE(op, "", orca.Unavailable, fmt.Errorf("host name: %w", err))
	}
	f, err := makeFormat(cfg, host, img.Digest)
	if err != nil {
		return "", err
	}
	db, err := inodekv.Open(inodekv.Config{Dir: storeDir(cfg.Dir, f.Store)}, log)
	if err != nil {
		return "", err
	}
	if err := db.Fill(img.Applied, img.Next); err != nil {
		return "", errors.Join(err, db.Close(false))
	}
	if err := db.Close(true); err != nil {
		return "", err
	}
	return f.Cluster, f.save(cfg.Dir)
}
