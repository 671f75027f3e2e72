// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"orca"
	"orca/engine/buildinfo"
	"orca/metaplane"
	"orca/metaplane/metapb"
	"orca/tiers"
)

const (
	// heartbeatEvery is how often a worker reports what has changed; idle
	// workers report as often, because the beat renews their lease.
	heartbeatEvery = 500 * time.Millisecond
	// reportPage caps the files of one page of a full report.
	reportPage = 10_000
)

// cache is what the agent reports of and obeys orders on.
type cache interface {
	// Changes returns the files that changed since cursor; full says that the
	// cursor is too old and Reports must be sent.
	Changes(cursor uint64) (files []tiers.FileReport, next uint64, full bool)
	// Reports returns every file version held, and the cursor of that moment.
	Reports() (files []tiers.FileReport, next uint64)
	Usage() []tiers.Usage
	FreeFile(file orca.Ino)
	FreeOld(file orca.Ino, keep uint32)
	CleanFile(file orca.Ino, version uint32)
	Pin(file orca.Ino, pinned bool)
}

// agent speaks for one worker with the metaplane: it registers, reports what
// the worker holds, and carries out orders.
type agent struct {
	ns    metaplane.Workers
	cache cache
	self  *metapb.Worker
	dir   string // where the worker's id is kept
	log   *slog.Logger

	// onMounts is told when the mount table has changed.
	onMounts func()

	key        atomic.Pointer[[]byte]
	workerID   atomic.Uint64
	cursor     uint64
	epoch      uint64
	registered chan struct{} // closed after the first registration
	first      atomic.Bool
	now        chan chan struct{} // report now, and close the channel given
}

func newAgent(ns metaplane.Workers, c cache, self *metapb.Worker, dir string, onMounts func(), log *slog.Logger) (*agent, error) {
	a := &agent{ns: ns, cache: c, self: self, dir: dir, onMounts: onMounts, log: log, registered: make(chan struct{}), now: make(chan chan struct{})}
	a.self.Boot = uint64(time.Now().UnixNano())
	a.self.Version = buildinfo.Version
	b, err := os.ReadFile(a.idFile())
	switch {
	case err == nil:
		if a.self.Id, err = strconv.ParseUint(strings.TrimSpace(string(b)), 16, 64); err != nil {
			return nil, orca.PathE("daemon.agent", a.idFile(), orca.Corrupt, err)
		}
	case !os.IsNotExist(err):
		return nil, orca.PathE("daemon.agent", a.idFile(), orca.Permission, err)
	}
	return a, nil
}

func (a *agent) idFile() string { return filepath.Join(a.dir, "id") }

// id is the worker's id; 0 before the first registration.
func (a *agent) id() uint64 { return a.workerID.Load() }

// grantKey is what the worker verifies grants with; nil before registration.
func (a *agent) grantKey() []byte {
	if p := a.key.Load(); p != nil {
		return *p
	}
	return nil
}

// run registers and beats until ctx ends. It never gives up: a metaplane that
// is away finds the worker again when it is back.
func (a *agent) run(ctx context.Context) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	need := true
	var told chan struct{} // who waits for this report
	for {
		var err error
		if need {
			if err = a.register(ctx); err == nil {
				need = false
			}
		} else {
			need, err = a.beat(ctx)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("the metaplane does not hear this worker", "err", err)
		}
		if told != nil {
			close(told)
			told = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case told = <-a.now:
		}
	}
}

// tell reports what has changed without waiting for the next beat, and returns
// when the metaplane has heard of it, or the attempt has failed: what is held
// where is soft state, and the next beat tries again.
func (a *agent) tell(ctx context.Context) {
	told := make(chan struct{})
	select {
	case a.now <- told:
	case <-ctx.Done():
		return
	}
	select {
	case <-told:
	case <-ctx.Done():
	}
}

// register sends the full report, in pages.
func (a *agent) register(ctx context.Context) error {
	files, next := a.cache.Reports()
	for {
		page := files[:min(len(files), reportPage)]
		files = files[len(page):]
		q := &metapb.RegisterRequest{H: &metapb.Header{}, Worker: a.self, Files: make([]*metapb.FileReport, len(page)), More: len(files) > 0}
		for i, f := range page {
			q.Files[i] = reportPB(f)
		}
		a.self.Tiers = usagePB(a.cache.Usage())
		r, err := a.ns.Register(ctx, q)
		if err != nil {
			return err
		}
		if err := a.adopt(r); err != nil {
			return err
		}
		if !q.More {
			break
		}
	}
	a.cursor = next
	if a.first.CompareAndSwap(false, true) {
		close(a.registered)
	}
	return nil
}

// adopt keeps the identity and the key that the metaplane gave.
func (a *agent) adopt(r *metapb.RegisterReply) error {
	if r.Id != a.self.Id {
		if err := os.WriteFile(a.idFile(), []byte(strconv.FormatUint(r.Id, 16)+"\n"), 0o600); err != nil {
			return orca.PathE("daemon.agent", a.idFile(), orca.NoSpace, err)
		}
		a.self.Id = r.Id
	}
	a.workerID.Store(r.Id)
	if len(r.GrantKey) > 0 {
		a.key.Store(&r.GrantKey)
	}
	return nil
}

// beat reports changes and carries out the orders of the reply; again says
// that the metaplane wants a full report.
func (a *agent) beat(ctx context.Context) (again bool, err error) {
	files, next, full := a.cache.Changes(a.cursor)
	if full {
		return true, nil
	}
	q := &metapb.HeartbeatRequest{H: &metapb.Header{}, Worker: a.self, Files: make([]*metapb.FileReport, 0, len(files))}
	a.self.Tiers = usagePB(a.cache.Usage())
	for _, f := range files {
		q.Files = append(q.Files, reportPB(f))
	}
	r, err := a.ns.Heartbeat(ctx, q)
	if err != nil {
		return false, err
	}
	a.cursor = next
	for _, o := range r.Orders {
		a.obey(o)
	}
	if r.MountEpoch != a.epoch {
		a.epoch = r.MountEpoch
		a.onMounts()
	}
	return r.Register, nil
}

func (a *agent) obey(o *metapb.WorkerOrder) {
	file := orca.Ino(o.File)
	switch o.Kind {
	case metapb.WorkerOrder_FREE_FILE:
		a.cache.FreeFile(file)
	case metapb.WorkerOrder_FREE_OLD:
		a.cache.FreeOld(file, o.Version)
	case metapb.WorkerOrder_CLEAN_FILE:
		a.cache.CleanFile(file, o.Version)
	case metapb.WorkerOrder_PIN:
		a.cache.Pin(file, true)
	case metapb.WorkerOrder_UNPIN:
		a.cache.Pin(file, false)
	}
}

func reportPB(f tiers.FileReport) *metapb.FileReport {
	return &metapb.FileReport{File: uint64(f.File), Version: f.Version, Cached: f.Cached, Complete: f.Complete, Tier: uint32(f.Tier), Dirty: f.Dirty}
}

func usagePB(us []tiers.Usage) []*metapb.TierUsage {
	out := make([]*metapb.TierUsage, len(us))
	for i, u := range us {
		out[i] = &metapb.TierUsage{Tier: uint32(u.Tier), Dir: u.Dir, Capacity: u.Capacity, Used: u.Used, Blocks: u.Blocks, Healthy: u.Healthy}
	}
	return out
}
