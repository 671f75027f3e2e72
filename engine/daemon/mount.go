// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"orca"
	"orca/engine/client"
	"orca/engine/fusegw"
)

// MountConfig describes a mount served by a process of its own.
type MountConfig struct {
	Dir        string // mount point; created when missing
	Path       string // directory of Orca shown there; "": all of it
	ReadOnly   bool
	AllowOther bool
}

// Mount serves fs at cfg.Dir until ctx ends or somebody unmounts it.
func Mount(ctx context.Context, cfg MountConfig, fs *client.FS, out io.Writer, log *slog.Logger) error {
	m, err := mountAt(ctx, cfg, fs, "", log)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "mounted at %s\n", cfg.Dir)
	select {
	case <-ctx.Done():
	case <-m.Done():
		return nil
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return m.Unmount(stop)
}

func mountAt(ctx context.Context, cfg MountConfig, fs *client.FS, spool string, log *slog.Logger) (*fusegw.Mounted, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		// A dead mount answers "transport endpoint is not connected": fusegw
		// detaches it if it is ours, and says what is wrong otherwise.
		if _, statErr := os.Lstat(cfg.Dir); statErr == nil || os.IsNotExist(statErr) {
			return nil, orca.PathE("daemon.mount", cfg.Dir, orca.Permission, err)
		}
	}
	root := orca.RootIno
	if cfg.Path != "" && cfg.Path != "/" {
		i, err := fs.Stat(ctx, client.Path(cfg.Path), client.Sync{})
		if err != nil {
			return nil, err
		}
		if i.Type != orca.TypeDir {
			return nil, orca.PathE("daemon.mount", cfg.Path, orca.NotDir, nil)
		}
		root = i.Ino
	}
	return fusegw.Mount(ctx, fusegw.Config{
		Dir: cfg.Dir, Root: root, FS: fusegw.OnClient(fs), ReadOnly: cfg.ReadOnly, AllowOther: cfg.AllowOther,
		SpoolDir: spool, Logger: log,
	})
}

// mountRole is the FUSE mount of `orca up`.
type mountRole struct {
	fs *client.FS
	m  *fusegw.Mounted
}

// startMount mounts on the roles of this process, without a connection.
func startMount(ctx context.Context, r *running) (*mountRole, error) {
	fs, err := r.localClient(ctx)
	if err != nil {
		return nil, err
	}
	m, err := mountAt(ctx, MountConfig{Dir: r.cfg.MountDir, AllowOther: os.Geteuid() == 0 || r.cfg.AllowOther}, fs, r.worker.spool, r.log)
	if err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	return &mountRole{fs: fs, m: m}, nil
}

func (m *mountRole) close(ctx context.Context) error {
	return errors.Join(m.m.Unmount(ctx), m.fs.Close())
}
