// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"orca"
	"orca/engine/client"
)

// emit prints v as one line of JSON.
func (e *env) emit(v any) error {
	enc := json.NewEncoder(e.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// table prints rows: aligned under a heading on a terminal, tab-separated
// without one otherwise.
type table struct {
	e    *env
	tw   *tabwriter.Writer
	head []string
}

func (e *env) table(head ...string) *table {
	t := &table{e: e, head: head}
	if e.OutTTY {
		t.tw = tabwriter.NewWriter(e.Out, 0, 4, 2, ' ', 0)
	}
	return t
}

func (t *table) row(cells ...any) error {
	s := make([]string, len(cells))
	for i, c := range cells {
		s[i] = fmt.Sprint(c)
	}
	if t.tw == nil {
		_, err := fmt.Fprintln(t.e.Out, strings.Join(s, "\t"))
		return err
	}
	if t.head != nil {
		if _, err := fmt.Fprintln(t.tw, strings.Join(t.head, "\t")); err != nil {
			return err
		}
		t.head = nil
	}
	_, err := fmt.Fprintln(t.tw, strings.Join(s, "\t"))
	return err
}

func (t *table) flush() error {
	if t.tw == nil {
		return nil
	}
	return t.tw.Flush()
}

// size formats bytes, for people if human.
func size(n int64, human bool) string {
	if !human {
		return strconv.FormatInt(n, 10)
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + "B"
	}
	return strings.ReplaceAll(strings.Replace(humanize.IBytes(uint64(n)), "iB", "", 1), " ", "")
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// percent is how much of n bytes is cached.
func percent(cached, n int64) string {
	if n <= 0 {
		return "100%"
	}
	return strconv.FormatInt(min(cached*100/n, 100), 10) + "%"
}

// names turns numeric identities into names, once each.
type identities struct {
	mu     sync.Mutex
	users  map[uint32]string
	groups map[uint32]string
}

var ids = identities{users: map[uint32]string{}, groups: map[uint32]string{}}

func (x *identities) user(id uint32) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, ok := x.users[id]
	if !ok {
		n = strconv.FormatUint(uint64(id), 10)
		if u, err := user.LookupId(n); err == nil {
			n = u.Username
		}
		x.users[id] = n
	}
	return n
}

func (x *identities) group(id uint32) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, ok := x.groups[id]
	if !ok {
		n = strconv.FormatUint(uint64(id), 10)
		if g, err := user.LookupGroupId(n); err == nil {
			n = g.Name
		}
		x.groups[id] = n
	}
	return n
}

func lookupUser(s string) (uint32, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(n), nil
	}
	u, err := user.Lookup(s)
	if err != nil {
		return 0, usagef("unknown user %q", s)
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, usagef("user %q has no numeric id", s)
	}
	return uint32(n), nil
}

func lookupGroup(s string) (uint32, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return uint32(n), nil
	}
	g, err := user.LookupGroup(s)
	if err != nil {
		return 0, usagef("unknown group %q", s)
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		return 0, usagef("group %q has no numeric id", s)
	}
	return uint32(n), nil
}

// entryJSON is what --json says about one name. Names are never changed.
type entryJSON struct {
	Path        string    `json:"path"`
	Type        string    `json:"type"` // file, directory, symlink
	Inode       string    `json:"inode"`
	Length      int64     `json:"length"` // bytes; of a directory: entries known
	Mode        string    `json:"mode"`   // octal
	UID         uint32    `json:"uid"`
	GID         uint32    `json:"gid"`
	Owner       string    `json:"owner"`
	Group       string    `json:"group"`
	Nlink       uint32    `json:"nlink"`
	Mtime       time.Time `json:"mtime"`
	Ctime       time.Time `json:"ctime"`
	Atime       time.Time `json:"atime"`
	BlockSize   int64     `json:"block_size,omitempty"`
	Blocks      int64     `json:"blocks"`
	Version     uint32    `json:"version,omitempty"`
	Persistence string    `json:"persistence"` // PERSISTED, TO_BE_PERSISTED, NOT_PERSISTED, LOST
	CachedBytes int64     `json:"cached_bytes"`
	Pinned      bool      `json:"pinned"`
	MountPoint  bool      `json:"mount_point"`
	RaftGroup   uint16    `json:"raft_group"` // that it lives in
	UFSPath     string    `json:"ufs_path,omitempty"`
	UFS         string    `json:"ufs,omitempty"` // PENDING while the store has still to follow
	Fingerprint string    `json:"fingerprint,omitempty"`
	Target      string    `json:"target,omitempty"`
}

func entryOf(path string, i *client.Info) entryJSON {
	j := entryJSON{
		Path: path, Type: typeName(i), Inode: i.Ino.String(), Length: i.Length, Mode: fmt.Sprintf("%04o", i.Mode),
		UID: i.UID, GID: i.GID, Owner: ids.user(i.UID), Group: ids.group(i.GID), Nlink: i.Nlink,
		Mtime: i.Mtime, Ctime: i.Ctime, Atime: i.Atime, Version: i.Version, Persistence: i.Persist.String(),
		CachedBytes: i.CachedBytes, Pinned: i.Pinned, MountPoint: i.MountPoint, RaftGroup: i.Ino.Home(), UFSPath: i.UFSPath,
		Fingerprint: i.Fingerprint, Target: i.Target,
	}
	if i.UFSPending {
		j.UFS = "PENDING"
	}
	if i.Type == orca.TypeFile {
		j.BlockSize, j.Blocks = i.BlockSize, blocksOf(i)
	}
	return j
}

func blocksOf(i *client.Info) int64 {
	if i.BlockSize <= 0 {
		return 0
	}
	return (i.Length + i.BlockSize - 1) / i.BlockSize
}

func typeName(i *client.Info) string {
	switch i.Type {
	case orca.TypeDir:
		return "directory"
	case orca.TypeSymlink:
		return "symlink"
	}
	return "file"
}
