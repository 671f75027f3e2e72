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
	session *metaclient.Router
	jobs    *jobsRole
	groups  groupSet
	cfg     *Config
	stores  *stores
	log     *slog.Logger

	addr, socket string
	made         chan struct{} // closed when all of this is there
}

// startMeta opens the journal and the namespace. Nothing listens yet.
func startMeta(ctx context.Context, cfg *Config, d *dataDir, st *stores, ends ends, log *slog.Logger) (*metaRole, error) {
	if err := d.unfinished(); err != nil {
		return nil, err
	}
	m := &metaRole{log: log, cfg: cfg, stores: st, made: make(chan struct{})}
	m.groups.init()
	var err error
	if m.jobs, err = newJobsRole(cfg, 1, log); err != nil {
		return nil, err
	}
	rc, err := cfg.raftConfig(ctx, d.join("meta"), m)
	if err != nil {
		return nil, err
	}
	rc.Machine, rc.Hosted = fsm.Config{Group: 1}, m.jobs.hosted()
	rc.OnFatal = func(reason string) { ends.fatal(orca.E("daemon.meta", orca.Unavailable, reason)) }
	rc.OnRemoved = ends.fail
	if m.host, err = raftgroup.Open(rc, log); err != nil {
		return nil, err
	}
	sc := m.serviceConfig()
	sc.Conf, sc.Groups, sc.OnGroups = cfg.values, m.groups.numbers, m.groups.changed
	sc.Here = m.groupHere
	m.jobs.attach(&sc)
	if !m.alone() {
		lead := m.onLead(cfg)
		sc.OnLead = func(ctx context.Context) error {
			<-m.made
			return lead(ctx)
		}
	}
	m.service, err = metaserver.New(ctx, sc, m.host.Group(), st.open, log)
	if err != nil {
		m.close(ctx)
		return nil, err
	}
	m.session = metaclient.NewRouter(metaclient.NewSession(m.service, metaclient.SessionConfig{}), m.openGroup)
	close(m.made)
	go boundHeap(ctx)
	m.jobs.start(m.service)
	if err := m.startGroups(ctx); err != nil {
		m.close(ctx)
		return nil, err
	}
	m.followGroups(ends.fail)
	return m, nil
}

// serviceConfig is what the services of all groups have in common.
func (m *metaRole) serviceConfig() metaserver.Config {
	return metaserver.Config{
		Cluster:    m.host.Cluster(),
		Version:    buildinfo.Version,
		WriteType:  m.cfg.WriteType,
		Replicas:   m.cfg.Replicas,
		WholeMax:   m.cfg.WholeMax,
		SessionTTL: m.cfg.SessionTTL,
		Others:     m.otherGroup,
		// Mounts are told of changes by the watch stream. A path's sync
		// interval still bounds what depends on its store.
		CacheTTL: time.Hour,
	}
}

// alone reports whether this is the only member of the metaplane, for ever.
func (m *metaRole) alone() bool { return m.host.Group().Alone() }

// root returns what is mounted at the root as far as this member has applied;
// "": nothing.
func (m *metaRole) root() string {
	for _, r := range m.host.Group().Machine().Mounts() {
		if r.Mount.GetPath() == "/" {
			return r.Mount.GetUri()
		}
	}
	return ""
}

func (m *metaRole) mountRoot(ctx context.Context, cfg *Config, root string) (uri string, err error) {
	r, err := m.session.Mount(ctx, &metapb.MountRequest{Mount: &metapb.Mount{
		Path: "/", Uri: root, Options: cfg.RootOptions, ReadOnly: cfg.RootReadOnly, SyncIntervalMs: intervalMS(cfg.SyncInterval),
		TrashRetentionMs: cfg.TrashRetention.Milliseconds(),
	}})
	if err != nil {
		return "", err
	}
	return r.Mount.Uri, nil
}

// ensureRoot mounts the root on the first start, and afterwards makes sure
// that what was asked for is what is mounted.
func (m *metaRole) ensureRoot(ctx context.Context, cfg *Config, d *dataDir) (uri string, err error) {
	const op = "daemon.ensureRoot"
	if have := m.root(); have != "" {
		if cfg.Root == "" || cfg.Root == have || backends.Same(cfg.Root, have) {
			return have, nil
		}
		return "", &orca.Error{Op: op, Path: cfg.Root, Kind: orca.Conflict,
			Msg: "this data folder has its root on " + have + ": start without --root, or with another --data"}
	}
	root := cfg.Root
	if root == "" {
		root = d.join("files")
		if err := os.MkdirAll(root, 0o755); err != nil {
			return "", orca.PathE(op, root, orca.Permission, err)
		}
	}
	return m.mountRoot(ctx, cfg, root)
}

// listen opens the doors of the namespace.
func (m *metaRole) listen(cfg *Config, d *dataDir) error {
	var err error
	m.server, err = metaserver.NewServer(m.service, transport.ServerConfig{}, m.log)
	if err != nil {
		return err
	}
	m.server.ServeGroups(m.serveGroup)
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
	if err := os.Chmod(m.socket, 0o666); err != nil {
		return err
	}
	return m.groups.dial(m.alone(), m.socket, m.log)
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
	m.groups.close(step)
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
