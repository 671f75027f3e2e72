// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"orca"
)

// Config shapes one mount.
type Config struct {
	// Dir is the mount point, an existing directory.
	Dir string
	FS  FS
	// Root is the directory of FS shown at Dir. Default orca.RootIno.
	Root orca.Ino
	// AllowOther lets users other than the mounting one in. Without root it
	// needs user_allow_other in /etc/fuse.conf.
	AllowOther bool
	ReadOnly   bool
	// NoPassthrough serves all reads and writes through the daemon.
	NoPassthrough bool
	// MaxTTL bounds how long the kernel believes an answer while the watch
	// stream is up. Default 1 h.
	MaxTTL time.Duration
	// StaleTTL is that bound while the stream is down. Default 1 s.
	StaleTTL time.Duration
	// Timeout bounds each call of FS but reads. Default 60 s.
	Timeout time.Duration
	// ReadTimeout bounds one read from FS. Default 5 min.
	ReadTimeout time.Duration
	// PublishTimeout bounds the publication of one file, the upload to its
	// store included. Default 1 h.
	PublishTimeout time.Duration
	// BusyRetry is how long a request that meets a busy inode is tried again
	// before it fails with EBUSY. Default 5 s.
	BusyRetry time.Duration
	// Backings bounds the backing ids kept for files that nobody has open.
	// Default 4096.
	Backings int
	// BackingIdle is how long such an id is kept; it holds the space of an
	// evicted block. Default 60 s.
	BackingIdle time.Duration
	// KnownNodes bounds the node ids tracked one by one. Beyond it the kernel
	// is notified of inodes it may not know. Default 1 Mi.
	KnownNodes int
	// ReadAheadKB is the kernel's read-ahead on this mount. Default 1024.
	ReadAheadKB int
	// SpoolDir keeps private files of writers whose worker is on another
	// host, and of files unlinked while open. Default os.TempDir().
	SpoolDir string
	// SpoolUnlinked is the longest file that is copied when it is unlinked
	// while open for reading through the daemon. Default 1 GiB.
	SpoolUnlinked int64
	// Debug logs every request (to the standard logger).
	Debug bool
	// Logger gets life-cycle and degraded service. Default: none.
	Logger *slog.Logger
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.MaxTTL, time.Hour)
	def(&c.StaleTTL, time.Second)
	def(&c.Timeout, time.Minute)
	def(&c.ReadTimeout, 5*time.Minute)
	def(&c.PublishTimeout, time.Hour)
	def(&c.BusyRetry, 5*time.Second)
	def(&c.BackingIdle, time.Minute)
	if c.Root == 0 {
		c.Root = orca.RootIno
	}
	if c.Backings <= 0 {
		c.Backings = 4096
	}
	if c.KnownNodes <= 0 {
		c.KnownNodes = 1 << 20
	}
	if c.ReadAheadKB <= 0 {
		c.ReadAheadKB = 1024
	}
	if c.SpoolDir == "" {
		c.SpoolDir = os.TempDir()
	}
	if c.SpoolUnlinked <= 0 {
		c.SpoolUnlinked = 1 << 30
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports what Mount would refuse without looking at the system.
func (c *Config) Validate() error {
	switch {
	case c.FS == nil:
		return orca.E("fusegw.Mount", orca.Invalid, "no file system")
	case c.Dir == "":
		return orca.E("fusegw.Mount", orca.Invalid, "no mount point")
	}
	return nil
}

// Mounted is a mount being served.
type Mounted struct {
	g      *gateway
	dir    string
	direct bool
	served chan struct{} // closed when go-fuse has ended
	stop   context.CancelFunc
	loops  sync.WaitGroup
	once   sync.Once
	err    error
}

// maxWrite is the largest request, in bytes (the kernel's max_pages).
const maxWrite = 1 << 20

// Mount mounts cfg.FS on cfg.Dir and serves it until Unmount; ctx bounds the
// mounting only. A dead mount of ours on the same directory is detached first;
// a live one is Busy. NotFound, NotDir, Permission, Unavailable (no /dev/fuse
// or fusermount3).
func Mount(ctx context.Context, cfg Config) (*Mounted, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, orca.PathE("fusegw.Mount", cfg.Dir, orca.Invalid, err)
	}
	if err := detachStale(dir, cfg.Logger); err != nil {
		return nil, err
	}
	if err := checkMountPoint(dir); err != nil {
		return nil, err
	}
	g := newGateway(cfg)
	srv, direct, err := g.attach(dir)
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.Background())
	m := &Mounted{g: g, dir: dir, direct: direct, served: make(chan struct{}), stop: stop}
	go func() {
		defer close(m.served)
		srv.Serve()
	}()
	if err := g.settle(ctx, srv, dir); err != nil {
		_ = m.Unmount(ctx)
		return nil, err
	}
	m.loops.Add(2)
	go func() { defer m.loops.Done(); g.watchLoop(run) }()
	go func() { defer m.loops.Done(); g.notifyLoop(run) }()
	cfg.Logger.Info("mounted", "dir", dir, "passthrough", g.m.PassEnabled.Load(), "direct", direct)
	return m, nil
}

// attach mounts and negotiates: by mount(2) where allowed, else by
// fusermount3.
func (g *gateway) attach(dir string) (*fuse.Server, bool, error) {
	opts := &fuse.MountOptions{
		AllowOther: g.cfg.AllowOther, Options: []string{"default_permissions"},
		FsName: "orca", Name: "orca", MaxWrite: maxWrite, MaxBackground: 64, MaxStackDepth: 1,
		DisableSplice: true, IgnoreSecurityLabels: true, EnableSymlinkCaching: true,
		ExplicitDataCacheControl: true, Debug: g.cfg.Debug,
		ExtraCapabilities: fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ATOMIC_O_TRUNC,
		Logger:            log.New(logWriter{g.cfg.Logger}, "", 0),
	}
	if g.cfg.NoPassthrough {
		opts.DisabledCapabilities = fuse.CAP_PASSTHROUGH
	}
	if g.cfg.ReadOnly {
		opts.Options = append(opts.Options, "ro")
	}
	fd, err := mountDirect(dir, g.cfg.AllowOther, g.cfg.ReadOnly)
	if err == nil {
		g.dev.Store(int32(fd)) // for notifications that go-fuse does not know
		srv, err := fuse.NewServer(g, fmt.Sprintf("/dev/fd/%d", fd), opts)
		if err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			_ = unix.Close(fd)
			return nil, false, orca.PathE("fusegw.Mount", dir, orca.Unavailable, err)
		}
		return srv, true, nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return nil, false, mountError(dir, err)
	}
	srv, err := fuse.NewServer(g, dir, opts)
	if err != nil {
		return nil, false, &orca.Error{Op: "fusegw.Mount", Path: dir, Kind: orca.Unavailable,
			Msg: "not root, and fusermount3 failed (install fuse3)", Err: err}
	}
	return srv, false, nil
}

// settle waits for the mount to answer and tunes it.
func (g *gateway) settle(ctx context.Context, srv *fuse.Server, dir string) error {
	if err := srv.WaitMount(); err != nil {
		return orca.PathE("fusegw.Mount", dir, orca.Unavailable, err)
	}
	ready := make(chan error, 1)
	go func() { ready <- firstRequest(dir) }()
	select {
	case err := <-ready:
		if err != nil {
			return orca.PathE("fusegw.Mount", dir, orca.Unavailable, err)
		}
	case <-ctx.Done():
		return orca.PathE("fusegw.Mount", dir, orca.Timeout, ctx.Err())
	}
	if err := g.setReadAhead(dir, g.cfg.ReadAheadKB); err != nil {
		g.cfg.Logger.Warn("read-ahead stays at the kernel's default", "dir", dir, "err", err)
	}
	g.probePassthrough()
	return nil
}

// Metrics returns the counters of the mount.
func (m *Mounted) Metrics() *Metrics { return &m.g.m }

// Dir returns the mount point.
func (m *Mounted) Dir() string { return m.dir }

// Done is closed when the mount is not served any more, also when somebody
// else unmounted it.
func (m *Mounted) Done() <-chan struct{} { return m.served }

// Unmount publishes what is written, detaches the mount point (lazily when
// files are open) and ends serving. It is idempotent.
func (m *Mounted) Unmount(ctx context.Context) error {
	m.once.Do(func() { m.err = m.unmount(ctx) })
	return m.err
}

func (m *Mounted) unmount(ctx context.Context) error {
	g := m.g
	busy := detach(ctx, m.dir, m.direct)
	g.publishAll(ctx)
	var err error
	if busy != nil {
		// Files are open there. Their server goes away: they get errors from
		// now on, rather than hang.
		if err = unmountForced(m.dir); err == nil && !m.direct {
			g.abortConnection()
		}
	}
	select {
	case <-m.served:
	case <-time.After(5 * time.Second):
		g.abortConnection()
		select {
		case <-m.served:
		case <-ctx.Done():
			err = orca.PathE("fusegw.Unmount", m.dir, orca.Timeout, ctx.Err())
		}
	}
	m.stop()
	m.loops.Wait()
	g.shutdown(ctx)
	g.cfg.Logger.Info("unmounted", "dir", m.dir)
	return err
}

// logWriter passes go-fuse's lines on.
type logWriter struct{ l *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.l.Warn("fuse", "msg", string(p))
	return len(p), nil
}
