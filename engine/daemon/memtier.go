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

// openMemTier prepares the MEM folder at dir with room for size bytes. A
// tmpfs that a killed process left there is unmounted first: its index is
// gone with the process that knew which of it was sound.
func openMemTier(dir string, size int64, log *slog.Logger) (*memTier, error) {
	const op = "daemon.openMemTier"
	if err := detachLeftover(dir); err != nil {
		return nil, orca.PathE(op, dir, orca.Internal, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, orca.PathE(op, dir, orca.Permission, err)
	}
	// One extra sixteenth for metadata and private files in flight: the
	// quota, not the mount, is what the store obeys.
	opts := fmt.Sprintf("size=%d,mode=0700,huge=advise", size+size/16)
	err := unix.Mount("orca-mem", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, opts)
	if errors.Is(err, unix.EINVAL) { // a kernel without huge pages in tmpfs
		err = unix.Mount("orca-mem", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
			strings.TrimSuffix(opts, ",huge=advise"))
	}
	if err == nil {
		return &memTier{Dir: dir, owned: true}, nil
	}
	private := filepath.Join(shmRoot, "orca-"+strconv.Itoa(os.Getuid())+"-"+pathKey(dir))
	if rmErr := os.RemoveAll(private); rmErr != nil {
		return nil, orca.PathE(op, private, orca.Permission, rmErr)
	}
	if mkErr := os.Mkdir(private, 0o700); mkErr != nil {
		return nil, orca.PathE(op, private, orca.Permission, mkErr)
	}
	log.Warn("cannot mount a tmpfs for the MEM tier; using a private folder in shared memory",
		"dir", private, "err", err)
	return &memTier{Dir: private}, nil
}

// Close gives the memory back.
func (m *memTier) Close() error {
	if m.owned {
		return unix.Unmount(m.Dir, unix.MNT_DETACH)
	}
	return os.RemoveAll(m.Dir)
}

// detachLeftover unmounts every tmpfs of ours stacked on dir.
func detachLeftover(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for range 16 {
		infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
			return i.Mountpoint != abs || i.Source != "orca-mem", false
		})
		if err != nil {
			return err
		}
		if len(infos) == 0 {
			return nil
		}
		if err := unix.Unmount(abs, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return errors.New("leftover mounts do not end")
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
