// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"orca"
	"orca/metaplane/inodekv"
)

// Image is the state that Restore begins with.
type Image struct {
	// Digest is the identity of the backup.
	Digest string
	// Groups are its groups, the first one first, in the order in which their
	// records come.
	Groups []GroupImage
	// Next returns the records of the group that is filled one by one, a nil key
	// at their end; those of inode.SpaceApplied are left out.
	Next func(group uint16) (key, value []byte, err error)
}

// GroupImage is the state of one group.
type GroupImage struct {
	Number uint16
	// Applied is the index of its last entry; the first that is applied here
	// is the next one.
	Applied uint64
}

// FirstMembers are the members that the groups of a new host begin with, Raft
// addresses by replica.
func (c *Config) FirstMembers() map[uint64]string {
	if len(c.Members) == 0 {
		return map[uint64]string{loneReplica: localAddress}
	}
	return c.Members
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
	if err := img.check(); err != nil {
		return "", err
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
	for _, g := range img.Groups {
		dir := cfg.Dir
		if g.Number > firstGroup {
			dir = groupDir(cfg.Dir, uint64(g.Number))
			if f.Groups == nil {
				f.Groups = map[uint64]*part{}
			}
			f.Groups[uint64(g.Number)] = &part{Store: f.Store, Members: cfg.FirstMembers()}
		}
		next := func() (key, value []byte, err error) { return img.Next(g.Number) }
		if err := fillStore(storeDir(dir, f.Store), g.Applied, next, log); err != nil {
			return "", err
		}
	}
	return f.Cluster, f.save(cfg.Dir)
}

func (img *Image) check() error {
	for i, g := range img.Groups {
		if i == 0 && g.Number != firstGroup || i > 0 && g.Number <= img.Groups[i-1].Number || g.Number > MaxGroups {
			return orca.E("raftgroup.Restore", orca.Invalid, fmt.Sprintf("group %d cannot be restored at place %d", g.Number, i))
		}
	}
	if len(img.Groups) == 0 {
		return orca.E("raftgroup.Restore", orca.Invalid, "there is no group to be restored")
	}
	return nil
}

func fillStore(dir string, applied uint64, next func() (key, value []byte, err error), log *slog.Logger) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return orca.PathE("raftgroup.Restore", dir, orca.Unavailable, err)
	}
	db, err := inodekv.Open(inodekv.Config{Dir: dir}, log)
	if err != nil {
		return err
	}
	if err := db.Fill(applied, next); err != nil {
		return errors.Join(err, db.Close(false))
	}
	return db.Close(true)
}
