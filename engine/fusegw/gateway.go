// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"orca"
)

// gateway answers the kernel's requests.
type gateway struct {
	fuse.RawFileSystem // the answers to what is not implemented: ENOSYS

	cfg  Config
	fs   FS
	m    Metrics
	srv  *fuse.Server
	dev  atomic.Int32 // number of go-fuse's /dev/fuse, -1 when there are no epochs
	conn uint32       // number of the connection below /sys/fs/fuse

	backings   backings
	graves     graves
	linked     sync.Mutex // held while a name goes whose inode has others
	dirs       dirCache
	own        ownOps
	stale      staleness
	groups     groupCache
	renumbered renumbered
	notes      chan note
	refill     atomic.Bool // notes were dropped: invalidate everything

	nextFh atomic.Uint64

	mu      sync.Mutex
	nodes   map[uint64]*node
	aliases map[orca.Ino]uint64 // current node id, when it is not the inode number
	nextID  uint64              // of the next alias
	untrack uint64              // lookups of nodes beyond cfg.KnownNodes
	handles map[uint64]*handle
	dirFhs  map[uint64]*dirHandle
	writes  map[orca.Ino]*writing
	pending map[entryKey]*writing // new files not published yet
	bounces map[uint32]time.Time  // threads sent back by ESTALE

	removals map[*removal]struct{} // in progress

	// openHeld opens what somebody reads: others remove it when there is a copy.
	openHeld func(ctx context.Context, c orca.Caller, ino orca.Ino) (File, error)
}

type entryKey struct {
	dir  orca.Ino
	name string
}

func newGateway(cfg Config) *gateway {
	g := &gateway{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg, fs: cfg.FS,
		notes:   make(chan note, notesMax),
		nodes:   map[uint64]*node{},
		aliases: map[orca.Ino]uint64{},
		handles: map[uint64]*handle{},
		dirFhs:  map[uint64]*dirHandle{},
		writes:  map[orca.Ino]*writing{},
		pending: map[entryKey]*writing{},

		removals: map[*removal]struct{}{},
		openHeld: cfg.FS.Open,
	}
	g.dev.Store(-1)
	g.backings.init(g)
	if h, ok := cfg.FS.(Holder); ok {
		g.openHeld = h.OpenHeld
		h.OnLeaving(g.leaving)
	}
	return g
}

// String names the file system in /proc/mounts.
func (g *gateway) String() string { return "orca" }

// Init keeps the server for notifications and backing ids.
func (g *gateway) Init(s *fuse.Server) { g.srv = s }

// OnUnmount is called when the connection has ended.
func (g *gateway) OnUnmount() {}

// call returns the context of one request to FS. Requests are not cancelled
// by signals: half of them could not be undone.
func (g *gateway) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), g.cfg.Timeout)
}

// longCall is call for what may copy or upload a whole file.
func (g *gateway) longCall() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), g.cfg.PublishTimeout)
}

func (g *gateway) count(op Op) { g.m.Ops[op].Add(1) }

// fail translates an error and counts what is no everyday answer.
func (g *gateway) fail(err error) fuse.Status {
	st := status(err)
	if st != fuse.OK && st != fuse.ENOENT && st != fuse.ENODATA {
		g.m.Errors.Add(1)
	}
	return st
}

// retryBusy calls fn until it does not meet a busy inode any more.
func (g *gateway) retryBusy(ctx context.Context, fn func() error) error {
	end := time.Now().Add(g.cfg.BusyRetry)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := fn()
		if orca.KindOf(err) != orca.Busy || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// ttl bounds what FS allows by what the watch stream keeps coherent.
func (g *gateway) ttl(d time.Duration) time.Duration {
	if !g.m.WatchUp.Load() {
		return min(d, g.cfg.StaleTTL)
	}
	return min(d, g.cfg.MaxTTL)
}

// entryTTL is ttl for names: without epochs a lost stream could not take them
// back.
func (g *gateway) entryTTL(d time.Duration) time.Duration {
	if g.dev.Load() < 0 {
		d = min(d, g.cfg.StaleTTL)
	}
	return g.ttl(d)
}

var typeBits = map[orca.FileType]uint32{
	orca.TypeFile: syscall.S_IFREG, orca.TypeDir: syscall.S_IFDIR, orca.TypeSymlink: syscall.S_IFLNK,
}

func setTime(t time.Time, sec *uint64, nsec *uint32) {
	if !t.IsZero() {
		*sec, *nsec = uint64(t.Unix()), uint32(t.Nanosecond())
	}
}

// fillAttr encodes an attribute.
func fillAttr(a *orca.Attr, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: uint64(a.Ino), Size: uint64(a.Length), Blocks: uint64(a.Length+511) / 512,
		Mode: typeBits[a.Type] | a.Mode&0o7777, Nlink: a.Nlink,
	}
	out.Uid, out.Gid = a.UID, a.GID
	switch a.Type {
	case orca.TypeDir:
		out.Size, out.Blocks = 4096, 8
	case orca.TypeSymlink:
		out.Size, out.Blocks = uint64(len(a.Target)), 0
	}
	setTime(a.Mtime, &out.Mtime, &out.Mtimensec)
	setTime(a.Ctime, &out.Ctime, &out.Ctimensec)
	at := a.Atime
	if at.IsZero() {
		at = a.Mtime
	}
	setTime(at, &out.Atime, &out.Atimensec)
	if a.Ctime.IsZero() {
		out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
	}
}

// groupCache remembers the supplementary groups of processes for a second.
type groupCache struct {
	mu sync.Mutex
	by map[groupKey]groupsOf
}

type groupKey struct{ pid, uid, gid uint32 }

type groupsOf struct {
	groups []uint32
	until  time.Time
}

// groupCacheMax bounds the processes remembered.
const groupCacheMax = 1024

// caller is who made the request. Supplementary groups come from /proc; the
// superuser needs none.
func (g *gateway) caller(h *fuse.InHeader) orca.Caller {
	c := orca.Caller{UID: h.Uid, GID: h.Gid}
	if h.Uid == 0 || h.Pid == 0 {
		return c
	}
	k, now := groupKey{h.Pid, h.Uid, h.Gid}, time.Now()
	gc := &g.groups
	gc.mu.Lock()
	e, ok := gc.by[k]
	gc.mu.Unlock()
	if !ok || now.After(e.until) {
		e = groupsOf{readGroups(h.Pid), now.Add(time.Second)}
		gc.mu.Lock()
		if gc.by == nil || len(gc.by) >= groupCacheMax {
			gc.by = make(map[groupKey]groupsOf)
		}
		gc.by[k] = e
		gc.mu.Unlock()
	}
	c.Groups = e.groups
	return c
}

func readGroups(pid uint32) []uint32 {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return nil // gone: it has no groups that could help it
	}
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, "Groups:")
		if !ok {
			continue
		}
		var gs []uint32
		for f := range strings.FieldsSeq(rest) {
			if n, err := strconv.ParseUint(f, 10, 32); err == nil {
				gs = append(gs, uint32(n))
			}
		}
		return gs
	}
	return nil
}

// allowed checks permission bits: for files that the metaplane cannot see yet,
// and for access(2).
func allowed(a *orca.Attr, c orca.Caller, mask uint32) bool {
	if c.UID == 0 {
		return mask&fuse.X_OK == 0 || a.IsDir() || a.Mode&0o111 != 0
	}
	bits := a.Mode
	switch {
	case c.UID == a.UID:
		bits >>= 6
	case c.GID == a.GID || contains(c.Groups, a.GID):
		bits >>= 3
	}
	return bits&mask == mask
}

func contains(gs []uint32, g uint32) bool {
	for _, x := range gs {
		if x == g {
			return true
		}
	}
	return false
}

// probePassthrough registers a scratch file: whether the kernel accepts it
// decides for the whole mount.
func (g *gateway) probePassthrough() {
	if g.cfg.NoPassthrough {
		return
	}
	f, err := scratchFile(g.cfg.SpoolDir)
	if err != nil {
		g.cfg.Logger.Warn("no passthrough: no scratch file", "err", err)
		return
	}
	defer f.Close()
	id, errno := g.srv.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	if errno != 0 && errno != syscall.ELOOP {
		g.cfg.Logger.Warn("no passthrough: the kernel refuses backing files", "err", errno)
		return
	}
	if errno == 0 {
		_ = g.srv.UnregisterBackingFd(id)
	}
	// ELOOP is the scratch folder's file system only (overlay).
	g.m.PassEnabled.Store(true)
}

// scratchFile makes an unnamed file.
func scratchFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "scratch")), nil
	}
	f, err := os.CreateTemp(dir, ".orca-spool-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
