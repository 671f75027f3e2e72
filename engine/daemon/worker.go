// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"orca"
	"orca/dataplane"
	"orca/dataplane/blockclient"
	"orca/dataplane/blockserver"
	"orca/dataplane/grant"
	"orca/dataplane/shortcircuit"
	"orca/engine/client"
	"orca/engine/telemetry"
	"orca/jobs/jobworker"
	"orca/metaplane"
	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
	"orca/tiers"
	"orca/tiers/blockservice"
	"orca/tiers/dir"
	"orca/tiers/scrub"
	"orca/tiers/tiered"
	"orca/tiers/writeback"
	"orca/ufs/ledger"
)

// workerRole is a block worker: tiers, the block service with its doors, the
// agent that speaks with the metaplane, and the job worker.
type workerRole struct {
	mem      *memTier
	tierDirs *tierDirs
	store    *tiered.Store
	blocks   *blockservice.Service
	peers    *peers
	agent    *agent
	grants   *grant.Checker
	server   *blockserver.Server
	fds      *shortcircuit.Server
	table    *tableClient // nil when the metaplane is in this process
	jobs     *jobworker.Worker
	more     groupJobs
	scrub    *scrub.Scrubber
	uploads  *ledger.Ledger
	ns       io.Closer // the connection to the metaplane, when it is ours
	stores   mountsOf
	begin    func() error // polls for jobs, once registered
	spool    string
	log      *slog.Logger

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startWorker opens the tiers and the block service; stores finds the store of
// a mount, in table where the metaplane is in another process (else nil).
func startWorker(ctx context.Context, cfg *Config, d *dataDir, ns metaplane.Namespace, stores mountsOf, table *tableClient, log *slog.Logger) (*workerRole, error) {
	w := &workerRole{log: log, spool: d.join("worker", "spool"), table: table}
	if err := os.MkdirAll(w.spool, 0o700); err != nil {
		return nil, orca.PathE("daemon.worker", w.spool, orca.Permission, err)
	}
	var err error
	if w.tierDirs, err = openTierDirs(d.join("worker", "tiers.json")); err != nil {
		return nil, err
	}
	if w.uploads, err = ledger.Open(d.join("worker", "uploads"), log); err != nil {
		return nil, err
	}
	w.stores, stores = stores, stores.writtenDown(w.uploads)
	if err := w.openTiers(cfg); err != nil {
		w.close(ctx)
		return nil, err
	}
	self := &metapb.Worker{Node: cfg.Node, Rack: cfg.Rack}
	w.agent, err = newAgent(ns, nil, self, d.join("worker"), w.mountsChanged, log)
	if err != nil {
		w.close(ctx)
		return nil, err
	}
	if c, ok := ns.(*metaclient.Client); ok {
		w.agent.at = c.At
	}
	if r, ok := ns.(interface {
		In(group uint16) (*metaclient.Session, error)
	}); ok {
		w.agent.in = func(group uint16) (metaplane.Workers, error) { return r.In(group) }
		w.agent.onGroup = func(group uint16) {
			err := w.more.add(func() (*jobworker.Worker, error) {
				s, err := r.In(group)
				if err != nil {
					return nil, err
				}
				return w.startJobs(s, stores)
			})
			if err != nil {
				log.Error("the jobs of a group are not worked on", "group", group, "err", err)
			}
		}
	}
	w.peers = newPeers(w.agent.grantKey, log)
	blocks := blockservice.Config{Write: writeback.Config{Peers: w.peers, Hold: func(ctx context.Context, session, fence uint64, length int64) error {
		_, err := ns.Renew(ctx, &metapb.RenewRequest{H: &metapb.Header{}, Sessions: []uint64{session}, Fence: fence, Length: length})
		return err
	}}}
	w.blocks = blockservice.New(blocks, blockservice.Deps{
		Store: w.store, Resolver: resolver{ns, w.agent.id}, Mounts: stores, Peers: w.peers,
		OnStale: w.staleReporter(ns),
	}, log)
	w.agent.cache = w.blocks
	w.grants = grant.NewChecker(w.agent.grantKey, uint32(os.Geteuid()))
	w.scrub, err = scrub.New(scrub.Config{Period: cfg.ScrubPeriod, Rate: cfg.ScrubRate, State: d.join("worker", "scrub")}, w.store, log)
	if err != nil {
		w.close(ctx)
		return nil, err
	}
	w.begin = func() (err error) {
		w.jobs, err = w.startJobs(ns, stores)
		return err
	}
	return w, nil
}

// openTiers opens the store over MEM, SSD and further directories.
func (w *workerRole) openTiers(cfg *Config) error {
	var mem, dirs []dir.Config
	if cfg.Mem > 0 {
		var err error
		if w.mem, err = openMemTier(cfg.MemDir, cfg.Mem, w.log); err != nil {
			return err
		}
		mem = append(mem, dir.Config{Path: w.mem.Dir, Tier: orca.MEM, Capacity: cfg.Mem})
	}
	if cfg.SSD > 0 {
		dirs = append(dirs, dir.Config{Path: cfg.SSDDir, Tier: orca.SSD, Capacity: cfg.SSD})
	}
	for _, c := range cfg.Dirs {
		p, err := filepath.Abs(c.Path)
		if err != nil {
			return orca.PathE("daemon.tiers", c.Path, orca.Invalid, err)
		}
		c.Path = p
		dirs = append(dirs, c)
	}
	dirs = append(mem, w.tierDirs.apply(dirs)...)
	if len(dirs) == 0 {
		return orca.E("daemon.tiers", orca.Invalid, "a worker needs a tier: --mem, --ssd or --tier")
	}
	tc := cfg.Tiers
	tc.Dirs = dirs
	var err error
	w.store, err = tiered.Open(tc, w.log)
	return err
}

// staleReporter tells the metaplane of content that changed behind a version.
// Reports queue up to a cap; what does not fit is reported by the next reader.
func (w *workerRole) staleReporter(ns metaplane.Workers) func(orca.Ino, uint32) {
	queue := make(chan *metapb.StaleUFSRequest, 256)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case q := <-queue:
				c, done := context.WithTimeout(ctx, 30*time.Second)
				if _, err := ns.StaleUFS(c, q); err != nil && ctx.Err() == nil {
					w.log.Warn("reporting a changed object", "ino", q.File, "err", err)
				}
				done()
			}
		}
	})
	return func(file orca.Ino, version uint32) {
		select {
		case queue <- &metapb.StaleUFSRequest{H: &metapb.Header{}, File: uint64(file), Version: version}:
		default:
		}
	}
}

func (w *workerRole) mountsChanged() {
	if w.table == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := w.table.refresh(ctx); err != nil {
		w.log.Warn("reading the mount table", "err", err)
	}
}

// listen opens the doors of the worker and says where they are.
func (w *workerRole) listen(cfg *Config, d *dataDir, ep *Endpoints) error {
	var err error
	if w.server, err = blockserver.New(blockserver.Config{}, w.blocks, w.grants, w.log); err != nil {
		return err
	}
	a, err := w.server.Listen("tcp", cfg.WorkerAddr)
	if err != nil {
		return err
	}
	if w.fds, err = shortcircuit.NewServer(shortcircuit.ServerConfig{}, w.blocks, w.grants, w.log); err != nil {
		return err
	}
	sock := d.join("run", "worker.sock")
	if err := w.fds.Listen(sock); err != nil {
		return err
	}
	domain := d.join("run", "data.sock")
	if _, err := w.server.Listen("unix", domain); err != nil {
		return err
	}
	for _, s := range []string{sock, domain} {
		if err := os.Chmod(s, 0o666); err != nil { // grants and SO_PEERCRED decide who gets what
			return orca.PathE("daemon.worker", s, orca.Permission, err)
		}
	}
	w.agent.self.Addr, w.agent.self.Socket, w.agent.self.Domain, w.agent.self.Http = a.String(), sock, domain, ep.HTTP
	ep.Worker, ep.Socket, ep.Domain = a.String(), sock, domain
	return nil
}

// join starts the agent and waits for the first registration, and a while for
// that in each further group.
func (w *workerRole) join(ctx context.Context) error {
	run, cancel := context.WithCancel(context.Background())
	stopStale := w.cancel
	w.cancel = func() { cancel(); stopStale() }
	w.wg.Go(func() { w.agent.run(run) })
	w.wg.Go(func() { w.scrub.Run(run) })
	w.wg.Go(func() { w.cleanUploads(run) })
	select {
	case <-w.agent.registered:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.agent.settle(ctx)
	return w.begin()
}

// cleanEvery is how often the stores are asked again to remove what is left of
// uploads.
const cleanEvery = time.Minute

// cleanUploads removes what is left of uploads of an earlier life, and of those
// whose abort failed.
func (w *workerRole) cleanUploads(ctx context.Context) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if n := w.uploads.Left(); n > 0 {
			c, done := context.WithTimeout(ctx, cleanEvery)
			err := w.uploads.Clean(c, w.stores)
			done()
			if err != nil && ctx.Err() == nil {
				w.log.Warn("what uploads have left in a store is not removed yet", "uploads", w.uploads.Left(), "err", err)
			}
			if n -= w.uploads.Left(); n > 0 {
				w.log.Info("removed what uploads had left in a store", "uploads", n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// access is the worker for clients in this process.
func (w *workerRole) access() dataplane.Access { return blockclient.Local{Blocks: w.blocks} }

func (w *workerRole) close(ctx context.Context) {
	var errs []error
	if w.jobs != nil {
		w.jobs.Close()
	}
	w.more.close()
	if w.fds != nil {
		errs = append(errs, w.fds.Close())
	}
	if w.server != nil {
		sctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		errs = append(errs, w.server.Shutdown(sctx))
		cancel()
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.wg.Wait()
	keep := w.store != nil && w.dirty() > 0
	switch {
	case w.blocks != nil: // closes the store
		errs = append(errs, w.blocks.Close())
	case w.store != nil:
		errs = append(errs, w.store.Close())
	}
	if w.peers != nil {
		errs = append(errs, w.peers.close())
	}
	if w.mem != nil {
		if keep {
			w.log.Warn("data that is nowhere else stays in the memory tier; the next start on this data folder finds it, a reboot does not", "dir", w.mem.Dir)
		}
		errs = append(errs, w.mem.Close(keep))
	}
	if w.uploads != nil {
		errs = append(errs, w.uploads.Close())
	}
	if w.table != nil {
		errs = append(errs, w.table.stores.Close())
	}
	if w.ns != nil {
		errs = append(errs, w.ns.Close())
	}
	if err := errors.Join(errs...); err != nil {
		w.log.Warn("stopping the worker", "err", err)
	}
}

// dirty counts the blocks in memory that are the only copy.
func (w *workerRole) dirty() (n int) {
	w.store.Each(func(m tiers.Meta) bool {
		if m.Dirty && m.Tier == orca.MEM {
			n++
		}
		return true
	})
	return n
}

// sources are the worker's metrics.
func (w *workerRole) sources() []telemetry.Source {
	return []telemetry.Source{
		telemetry.Counters("orca_worker", "Blocks in the tiers.", &w.store.Metrics, "DescriptorsOpen"),
		telemetry.Counters("orca_worker_scrub", "Blocks read again and compared with their checksums.", &w.scrub.Metrics),
		telemetry.Counters("orca_worker_read", "Reads and fills.", &w.blocks.Read.Metrics, "Streams", "Queued", "Active"),
		telemetry.Counters("orca_worker_write", "Writers' files.", &w.blocks.Write.Metrics, "Open"),
		telemetry.Counters("orca_worker_server", "Block operations over the wire.", w.server.Metrics()),
		telemetry.Counters("orca_worker_transport", "Connections of the block server.", w.server.Transport(), "Conns", "InFlight", "Handlers", "Bodies"),
		telemetry.Counters("orca_worker_descriptors", "Descriptors passed to readers on this host.", w.fds.Metrics(), "Conns"),
		telemetry.Counters("orca_job_worker", "Tasks run by this worker.", &w.jobs.Stats, "Running"),
		w.tierGauges, w.bytesRead, w.queues,
	}
}

// localClient returns a client wired to the roles of this process.
func (r *running) localClient(ctx context.Context) (*client.FS, error) {
	me := client.Self()
	return client.Open(ctx, client.Config{
		Meta: r.meta.session, Node: r.cfg.Node, Rack: r.cfg.Rack, Caller: &me, Logger: r.log,
		Dial: func(ctx context.Context, w *client.Worker) (dataplane.Access, error) {
			if w.Id == r.worker.agent.id() {
				return r.worker.access(), nil
			}
			return client.DialWorker(w, client.Dialing{Node: r.cfg.Node}, r.log)
		},
	})
}
