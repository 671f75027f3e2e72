// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"io/fs"

	"github.com/colinmarc/hdfs/v2"
)

// HDFS is one client of a NameNode that somebody else has started, with one
// connection and one request outstanding.
type HDFS struct{ c *hdfs.Client }

// blockSize of new files; no block is ever written.
const blockSize = 128 << 20

// DialHDFS connects to a NameNode at host:port as hdfsUser.
func DialHDFS(addr string) (*HDFS, error) {
	c, err := hdfs.NewClient(hdfs.ClientOptions{Addresses: []string{addr}, User: hdfsUser})
	if err != nil {
		return nil, err
	}
	return &HDFS{c}, nil
}

// hdfsUser is whom files are made as: the superuser of most NameNodes that are
// started by hand.
const hdfsUser = "root"

// CreateEmpty makes an empty file of one replica: create and complete.
func (h *HDFS) CreateEmpty(path string) error {
	w, err := h.c.CreateFile(path, 1, blockSize, 0o644)
	if err != nil {
		return err
	}
	return w.Close()
}

// CreateOpen begins a file and leaves it so: create alone.
func (h *HDFS) CreateOpen(path string) error {
	_, err := h.c.CreateFile(path, 1, blockSize, 0o644)
	return err
}

// Stat asks for a file's attributes.
func (h *HDFS) Stat(path string) error {
	i, err := h.c.Stat(path)
	if err == nil && i.IsDir() {
		err = errors.New("stat " + path + ": a directory")
	}
	return err
}

// MkdirAll makes a directory and those above it.
func (h *HDFS) MkdirAll(path string) error { return h.c.MkdirAll(path, 0o755) }

// RemoveAll removes a tree.
func (h *HDFS) RemoveAll(path string) error {
	err := h.c.RemoveAll(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close ends the connection.
func (h *HDFS) Close() error { return h.c.Close() }
