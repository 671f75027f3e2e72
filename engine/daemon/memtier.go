// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"orca"
)

// shmRoot holds the private folders of memory tiers without CAP_SYS_ADMIN.
const shmRoot = "/dev/shm"

// memTier is the folder of the MEM tier: a tmpfs of our own where the process
// may mount one, else a private folder in shared memory.
type memTier struct {
	Dir   string
	owned bool // a tmpfs that we mounted: unmount it at the end
}

// openMemTier prepares the MEM folder at dir with room for size bytes. A tmpfs
// that an earlier process left there is adopted with its content: the store
// verifies every block of it before its first use.
func openMemTier(dir string, size int64, log *slog.Logger) (*memTier, error) {
	const op = "daemon.openMemTier"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, orca.PathE(op, dir, orca.Permission, err)
	}
	left, err := leftover(dir)
	if err != nil {
		return nil, orca.PathE(op, dir, orca.Internal, err)
	}
	// One extra sixteenth for metadata and private files in flight: the
	// quota, not the mount, is what the store obeys.
	room := fmt.Sprintf("size=%d", size+size/16)
	if left {
		if err := unix.Mount("orca-mem", dir, "tmpfs", unix.MS_REMOUNT|memFlags, room); err != nil {
			return nil, orca.PathE(op, dir, orca.NoSpace, err)
		}
		log.Info("adopted the memory tier of an earlier process", "dir", dir)
		return &memTier{Dir: dir, owned: true}, nil
	}
	opts := room + ",mode=0700"
	err = unix.Mount("orca-mem", dir, "tmpfs", memFlags, opts+",huge=advise")
	if errors.Is(err, unix.EINVAL) { // a kernel without huge pages in tmpfs
		err = unix.Mount("orca-mem", dir, "tmpfs", memFlags, opts)
	}
	if err == nil {
		return &memTier{Dir: dir, owned: true}, nil
	}
	private := filepath.Join(shmRoot, "orca-"+strconv.Itoa(os.Getuid())+"-"+pathKey(dir))
	if mkErr := os.Mkdir(private, 0o700); mkErr != nil && !errors.Is(mkErr, os.ErrExist) {
		return nil, orca.PathE(op, private, orca.Permission, mkErr)
	}
	if ownErr := ownFolder(private); ownErr != nil {
		return nil, ownErr
	}
	log.Warn("cannot mount a tmpfs for the MEM tier; using a private folder in shared memory",
		"dir", private, "err", err)
	return &memTier{Dir: private}, nil
}

// memFlags are how our tmpfs is mounted.
const memFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// Close gives the memory back, unless keep says that something is in it that
// is nowhere else: then the next start finds it.
func (m *memTier) Close(keep bool) error {
	switch {
	case keep:
		return nil
	case m.owned:
		return unix.Unmount(m.Dir, unix.MNT_DETACH)
	}
	return os.RemoveAll(m.Dir)
}

// leftover reports whether a tmpfs of ours is mounted on dir.
func leftover(dir string) (bool, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint != abs || i.Source != "orca-mem", false
	})
	return len(infos) > 0, err
}

// ownFolder refuses a folder in shared memory that others could have made or
// can write: blocks in it would be theirs.
func ownFolder(p string) error {
	const op = "daemon.openMemTier"
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return orca.PathE(op, p, orca.Permission, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return &orca.Error{Op: op, Path: p, Kind: orca.Permission, Msg: "is not a private folder of this user"}
	}
	return nil
}

// pathKey is a short, stable name for a path.
func pathKey(p string) string {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(p) {
		h = (h ^ uint64(p[i])) * 1099511628211
	}
	return strconv.FormatUint(h, 36)
}

// memoryLimit returns what this process may use: the least of the machine's
// memory and the limits of its cgroups.
func memoryLimit() int64 {
	var si unix.Sysinfo_t
	limit := int64(8 << 30)
	if unix.Sysinfo(&si) == nil {
		limit = int64(si.Totalram) * int64(si.Unit)
	}
	for _, f := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 && n < limit {
			limit = n
		}
	}
	return limit
}

// diskFree returns the free bytes of the file system that holds dir.
func diskFree(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, orca.PathE("daemon.diskFree", dir, orca.Internal, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}
