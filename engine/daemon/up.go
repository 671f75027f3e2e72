// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"orca"
	"orca/engine/telemetry"
	"orca/metaplane/metaclient"
)

// stopTimeout bounds a clean stop.
const stopTimeout = 20 * time.Second

// ends are the ways in which a role ends its process: fail stops cleanly, fatal
// at once, like kill -9, because a role cannot be trusted to stop.
type ends struct{ fail, fatal func(error) }

// running is what one process has started, in order.
type running struct {
	cfg    Config
	out    io.Writer
	log    *slog.Logger
	fail   context.CancelCauseFunc
	dead   atomic.Bool // nothing is to be stopped: see die
	data   *dataDir
	stores *stores
	meta   *metaRole
	worker *workerRole
	mount  *mountRole
	http   *telemetry.Server
	httpLn net.Listener // until http has it
	ep     Endpoints
}

// Up runs all roles in this process until ctx ends, and then stops cleanly.
// Endpoints and the line "orca is ready" go to out.
func Up(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger) error {
	return serve(ctx, cfg, out, log, (*running).startAll)
}

// StartWorker runs a worker of the metaplane at cfg.Meta until ctx ends.
func StartWorker(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger) error {
	return serve(ctx, cfg, out, log, (*running).startWorkerOnly)
}

// StartMeta runs a metaplane member without a worker until ctx ends.
func StartMeta(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger) error {
	return serve(ctx, cfg, out, log, (*running).startMetaOnly)
}

func serve(ctx context.Context, cfg Config, out io.Writer, log *slog.Logger, start func(*running, context.Context) error) (err error) {
	if err := cfg.resolve(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &running{cfg: cfg, out: out, log: log, fail: fail, stores: newStores(log)}
	r.ep = Endpoints{PID: os.Getpid(), Node: cfg.Node}
	if r.data, err = openDataDir(cfg.Data); err != nil {
		return err
	}
	defer r.data.close()
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		r.stop(stop)
	}()
	if err := start(r, ctx); err != nil {
		return r.cause(ctx, err)
	}
	if err := r.data.publish(r.ep); err != nil {
		return err
	}
	r.announce()
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	log.Info("stopping")
	return nil
}

// die ends the process without stopping anything: what has failed might never
// stop, and nobody may be answered until it has.
func (r *running) die(err error) {
	r.dead.Store(true)
	r.fail(err)
}

// cause is why the process ends: what it died of, if it did, else err.
func (r *running) cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil && (r.dead.Load() || orca.KindOf(c) == orca.Removed) {
		return c
	}
	return err
}

func (r *running) startAll(ctx context.Context) error {
	if err := r.startMetaOnlyQuiet(ctx); err != nil {
		return err
	}
	if !r.meta.alone() {
		return r.startMemberAndWorker(ctx)
	}
	var err error
	if r.worker, err = startWorker(ctx, &r.cfg, r.data, r.meta.session, r.meta.service.Stores.FS, nil, r.log); err != nil {
		return err
	}
	if err := r.listen(r.cfg.WebAddr); err != nil {
		return err
	}
	if err := r.worker.listen(&r.cfg, r.data, &r.ep); err != nil {
		return err
	}
	if err := r.worker.join(ctx); err != nil {
		return err
	}
	if r.ep.Root, err = r.meta.ensureRoot(ctx, &r.cfg, r.data); err != nil {
		return err
	}
	if err := r.openMeta(); err != nil {
		return err
	}
	if r.cfg.MountDir != "" {
		if r.mount, err = startMount(ctx, r); err != nil {
			return err
		}
		r.ep.Mount = r.cfg.MountDir
	}
	r.serveHTTP()
	return nil
}

func (r *running) startMetaOnly(ctx context.Context) error {
	if err := r.startMetaOnlyQuiet(ctx); err != nil {
		return err
	}
	if !r.meta.alone() {
		return r.startMember(ctx, true)
	}
	var err error
	if r.ep.Root, err = r.meta.ensureRoot(ctx, &r.cfg, r.data); err != nil {
		return err
	}
	if err := r.openMeta(); err != nil {
		return err
	}
	if err := r.listen(r.cfg.WebAddr); err != nil {
		return err
	}
	r.serveHTTP()
	return nil
}

// startMember has an open member of a cluster take part in it.
func (r *running) startMember(ctx context.Context, http bool) (err error) {
	if err := r.listen(r.cfg.WebAddr); err != nil {
		return err
	}
	if err := r.openMeta(); err != nil {
		return err
	}
	if http { // while it waits, too
		r.serveHTTP()
	}
	r.ep.Raft = r.meta.host.Address()
	r.ep.Root, err = r.meta.takePart(ctx, &r.cfg)
	return err
}

// startMemberAndWorker starts a worker beside a member of a cluster; it finds
// the leader as if it were on another host.
func (r *running) startMemberAndWorker(ctx context.Context) error {
	if err := r.startMember(ctx, false); err != nil {
		return err
	}
	return r.startWorkerOf(ctx, []string{"unix:" + r.meta.socket}, "")
}

// startMetaOnlyQuiet starts the namespace without opening its doors, so that
// nobody sees it before it has its root.
func (r *running) startMetaOnlyQuiet(ctx context.Context) (err error) {
	r.meta, err = startMeta(ctx, &r.cfg, r.data, r.stores, ends{fail: func(err error) { r.fail(err) }, fatal: r.die}, r.log)
	return err
}

func (r *running) openMeta() error {
	if err := r.meta.listen(&r.cfg, r.data); err != nil {
		return err
	}
	r.ep.Meta, r.ep.MetaSocket = r.meta.addr, r.meta.socket
	return nil
}

func (r *running) startWorkerOnly(ctx context.Context) error {
	return r.startWorkerOf(ctx, r.cfg.Meta, r.cfg.WorkerWebAddr)
}

// startWorkerOf starts a worker of the metaplane at addrs.
func (r *running) startWorkerOf(ctx context.Context, addrs []string, web string) error {
	ns, err := metaclient.New(metaclient.Config{Addrs: addrs}, r.log)
	if err != nil {
		return err
	}
	table := newTableClient(ns, r.stores.open)
	if r.worker, err = startWorker(ctx, &r.cfg, r.data, ns, table.FS, table, r.log); err != nil {
		return errors.Join(err, ns.Close())
	}
	r.worker.ns = ns
	if err := r.listen(web); err != nil {
		return err
	}
	if err := r.worker.listen(&r.cfg, r.data, &r.ep); err != nil {
		return err
	}
	if err := r.worker.join(ctx); err != nil {
		return err
	}
	r.serveHTTP()
	return nil
}

// listen opens the HTTP door, so that a worker can say where it is when it
// registers; what stands behind it is not there before serveHTTP.
func (r *running) listen(addr string) error {
	if addr == "" {
		return nil
	}
	var err error
	if r.httpLn, err = telemetry.Listen(addr); err == nil {
		r.ep.HTTP = r.httpLn.Addr().String()
	}
	return err
}

// serveHTTP serves the door that listen opened.
func (r *running) serveHTTP() {
	if r.httpLn == nil {
		return
	}
	cfg := telemetry.Config{Listener: r.httpLn, Ready: r.ready, Sources: r.sources()}
	if r.worker != nil {
		cfg.Handlers = r.worker.handlers()
	}
	r.http, r.httpLn = telemetry.NewServer(cfg, r.log), nil
}

// ready answers /readyz.
func (r *running) ready(ctx context.Context) error {
	if r.meta != nil {
		if err := r.meta.service.Ready(ctx); err != nil {
			return err
		}
	}
	if r.worker != nil && !r.worker.agent.first.Load() {
		return orca.E("daemon.ready", orca.Unavailable, "the worker has not registered yet")
	}
	return nil
}

// announce prints where everything is, for a person; programs read
// endpoints.json.
func (r *running) announce() {
	line := func(what, where string) {
		if where != "" {
			fmt.Fprintf(r.out, "  %-9s %s\n", what, where)
		}
	}
	line("root", r.ep.Root)
	line("mount", r.ep.Mount)
	line("meta", r.ep.Meta)
	line("raft", r.ep.Raft)
	line("socket", r.ep.MetaSocket)
	line("worker", r.ep.Worker)
	line("metrics", withScheme(r.ep.HTTP))
	line("data", r.cfg.Data)
	fmt.Fprintln(r.out, "orca is ready")
}

func withScheme(addr string) string {
	if addr == "" {
		return ""
	}
	return "http://" + addr + "/metrics"
}

// stop ends what was started, in the reverse order.
func (r *running) stop(ctx context.Context) {
	if r.dead.Load() {
		return
	}
	if r.mount != nil {
		if err := r.mount.close(ctx); err != nil {
			r.log.Warn("unmounting", "err", err)
		}
	}
	if r.httpLn != nil {
		_ = r.httpLn.Close() // nothing was served yet
	}
	if r.http != nil {
		if err := r.http.Close(); err != nil {
			r.log.Warn("stopping http", "err", err)
		}
	}
	if r.worker != nil {
		r.worker.close(ctx)
	}
	if r.meta != nil {
		r.meta.close(ctx)
	}
}
