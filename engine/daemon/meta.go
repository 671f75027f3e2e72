// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"
	"time"

	"orca"
	"orca/dataplane/transport"
	"orca/engine/buildinfo"
	"orca/metaplane/fsm"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/metaplane/metaserver"
	"orca/metaplane/raftgroup"
	"orca/ufs/backends"
)

// metaRole is a member of the metaplane: journal, namespace and its doors.
type metaRole struct {
	host    *raftgroup.Host
	service *metaserver.Service
	server  *metaserver.Server
	// session is the namespace for the roles of this process: exactly once,
	// without a connection.
	session *metaclient.Session
	jobs    *jobsRole
	log     *slog.Logger

	addr, socket string
}

// startMeta opens the journal and the namespace. Nothing listens yet.
func startMeta(ctx context.Context, cfg *Config, d *dataDir, st *stores, fatal func(error), log *slog.Logger) (*metaRole, error) {
	m := &metaRole{log: log}
	var err error
	if m.jobs, err = newJobsRole(log); err != nil {
		return nil, err
	}
	m.host, err = raftgroup.Open(raftgroup.Config{
		Dir:     d.join("meta"),
		Machine: fsm.Config{Group: 1},
		Hosted:  m.jobs.hosted(),
		OnFatal: func(reason string) { fatal(orca.E("raftgroup", orca.Internal, reason)) },
	}, log)
	if err != nil {
		return nil, err
	}
	sc := metaserver.Config{
		Cluster:    m.host.Cluster(),
		Version:    buildinfo.Version,
		WriteType:  cfg.WriteType,
		WholeMax:   cfg.WholeMax,
		SessionTTL: cfg.SessionTTL,
		Conf:       cfg.values,
		// Mounts are told of changes by the watch stream. A path's sync
		// interval still bounds what depends on its store.
		CacheTTL: time.Hour,
	}
	m.jobs.attach(&sc)
	m.service, err = metaserver.New(ctx, sc, m.host.Group(), st.open, log)
	if err != nil {
		m.close(ctx)
		return nil, err
	}
	m.session = metaclient.NewSession(m.service, metaclient.SessionConfig{})
	m.jobs.start(m.host.Group(), m.service)
	return m, nil
}

// ensureRoot mounts the root on the first start, and afterwards makes sure
// that what was asked for is what is mounted.
func (m *metaRole) ensureRoot(ctx context.Context, cfg *Config, d *dataDir) (uri string, err error) {
	const op = "daemon.ensureRoot"
	mounts, err := m.session.ListMounts(ctx, &metapb.ListMountsRequest{})
	if err != nil {
		return "", err
	}
	for _, mt := range mounts.Mounts {
		if mt.Path != "/" {
			continue
		}
		if cfg.Root == "" || cfg.Root == mt.Uri || backends.Same(cfg.Root, mt.Uri) {
			return mt.Uri, nil
		}
		return "", &orca.Error{Op: op, Path: cfg.Root, Kind: orca.Conflict,
			Msg: "this data folder has its root on " + mt.Uri + ": start without --root, or with another --data"}
	}
	root := cfg.Root
	if root == "" {
		root = d.join("files")
		if err := os.MkdirAll(root, 0o755); err != nil {
			return "", orca.PathE(op, root, orca.Permission, err)
		}
	}
	r, err := m.session.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{
		Path: "/", Uri: root, Options: cfg.RootOptions, ReadOnly: cfg.RootReadOnly, SyncIntervalMs: intervalMS(cfg.SyncInterval),
	}})
	if err != nil {
		return "", err
	}
	return r.Mount.Uri, nil
}

// listen opens the doors of the namespace.
func (m *metaRole) listen(cfg *Config, d *dataDir) error {
	var err error
	m.server, err = metaserver.NewServer(m.service, transport.ServerConfig{}, m.log)
	if err != nil {
		return err
	}
	a, err := m.server.Listen(cfg.MetaAddr)
	if err != nil {
		return err
	}
	m.addr = a.String()
	m.socket = d.join("run", "meta.sock")
	if _, err := m.server.Listen("unix:" + m.socket); err != nil {
		return err
	}
	// Anybody on the host may ask; who they are is what the kernel says.
	return os.Chmod(m.socket, 0o666)
}

// close stops the doors, then the service, then the journal.
func (m *metaRole) close(ctx context.Context) {
	step := func(what string, err error) {
		if err != nil {
			m.log.Warn("stopping the metaplane", "op", what, "err", err)
		}
	}
	if m.server != nil {
		sctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		step("server", m.server.Shutdown(sctx))
		cancel()
	}
	m.jobs.close()
	if m.service != nil {
		step("service", m.service.Close())
	}
	if m.host != nil {
		step("journal", m.host.Close())
	}
}

// intervalMS is a sync interval in the table's unit: any negative one means
// load once.
func intervalMS(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return d.Milliseconds()
}
