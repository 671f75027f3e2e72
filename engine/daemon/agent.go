// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	FreeClean(file orca.Ino)
	FreeOld(file orca.Ino, keep uint32)
	CleanFile(file orca.Ino, version uint32)
	Pin(file orca.Ino, pinned bool)
	Want(file orca.Ino, wanted bool)
}

// agent speaks for one worker with the metaplane: it registers, reports what
// the worker holds, and carries out orders. To a metaplane of several members
// it speaks with each of them by a voice of its own: a member that is elected
// then knows already where everything is.
type agent struct {
	ns    metaplane.Workers
	cache cache
	dir   string // where the worker's id is kept
	log   *slog.Logger
	// at is the way to one member as one of a group; nil when the metaplane is in
	// this process.
	at func(addr string, group uint16) (metaplane.Workers, error)
	// in is the way to who leads a further group, and onGroup is told, once, when
	// one is first heard of. Nil: there are none.
	in      func(group uint16) (metaplane.Workers, error)
	onGroup func(group uint16)

	// onMounts is told when the mount table has changed.
	onMounts func()

	key        atomic.Pointer[[]byte]
	workerID   atomic.Uint64
	registered chan struct{} // closed after the first registration with who leads
	first      atomic.Bool
	everywhere chan struct{} // closed once all groups have had a full report

	ctx context.Context //nolint:containedctx // that of run
	wg  sync.WaitGroup  // of the further groups

	mu     sync.Mutex
	nows   map[uint16]chan chan struct{} // by group: report now, and close the channel given; GUARDED_BY(mu)
	known  map[uint16]bool               // groups whose leader has had a full report; GUARDED_BY(mu)
	told   bool                          // what groups there are; GUARDED_BY(mu)
	self   *metapb.Worker                // GUARDED_BY(mu) once the agent runs
	mounts uint64                        // epoch of the mount table; GUARDED_BY(mu)
}

func newAgent(ns metaplane.Workers, c cache, self *metapb.Worker, dir string, onMounts func(), log *slog.Logger) (*agent, error) {
	a := &agent{ns: ns, cache: c, self: self, dir: dir, onMounts: onMounts, log: log, registered: make(chan struct{}), everywhere: make(chan struct{}), nows: map[uint16]chan chan struct{}{1: make(chan chan struct{})}, known: map[uint16]bool{}}
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

// worker is what the worker says of itself now.
func (a *agent) worker() *metapb.Worker {
	tiers := usagePB(a.cache.Usage())
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.self
	return &metapb.Worker{Id: w.Id, Node: w.Node, Addr: w.Addr, Socket: w.Socket, Http: w.Http, Tiers: tiers,
		Version: w.Version, Boot: w.Boot, Rack: w.Rack, Domain: w.Domain}
}

// run registers and beats until ctx ends. It never gives up: a metaplane that
// is away finds the worker again when it is back.
func (a *agent) run(ctx context.Context) {
	a.ctx = ctx
	a.speak(ctx, 1, a.ns, a.nows[1])
	a.wg.Wait()
}

// heard takes note of the groups that there are: each is spoken with by itself,
// about what it has.
func (a *agent) heard(groups []uint32) {
	if len(groups) > 1 && a.in != nil {
		for _, n := range groups {
			if g := uint16(n); n >= 2 && n < 1<<16 && a.begin(g) && a.onGroup != nil {
				a.onGroup(g)
			}
		}
	}
	a.mu.Lock()
	a.told = true
	a.reachedLocked()
	a.mu.Unlock()
}

// knownTo notes that who leads a group has had a full report.
func (a *agent) knownTo(group uint16) {
	a.mu.Lock()
	a.known[group] = true
	a.reachedLocked()
	a.mu.Unlock()
}

// reachedLocked notes when who leads each group knows this worker, the first time.
func (a *agent) reachedLocked() {
	if !a.told || len(a.known) < len(a.nows) {
		return
	}
	select {
	case <-a.everywhere:
	default:
		close(a.everywhere)
	}
}

// groupsWait bounds how long a worker that starts waits for further groups: one
// that has no leader must not keep it from serving the others.
const groupsWait = 3 * time.Second

// settle waits a while until every group knows this worker: before that nothing
// in it can be read here.
func (a *agent) settle(ctx context.Context) {
	late := time.NewTimer(groupsWait)
	defer late.Stop()
	select {
	case <-a.everywhere:
	case <-late.C:
	case <-ctx.Done():
	}
}

// begin begins to speak with a group; false: that has begun, or cannot yet.
func (a *agent) begin(g uint16) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nows[g] != nil {
		return false
	}
	ns, err := a.in(g)
	if err != nil {
		a.log.Debug("a group is not reached yet", "group", g, "err", err)
		return false
	}
	now := make(chan chan struct{})
	a.nows[g] = now
	a.wg.Go(func() { a.speak(a.ctx, g, ns, now) })
	return true
}

// speak speaks with one group until ctx ends.
func (a *agent) speak(ctx context.Context, group uint16, ns metaplane.Workers, now chan chan struct{}) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	v := &voice{a: a, ns: ns, group: group, need: true}
	var told chan struct{} // who waits for this report
	for {
		full := v.need
		_, members := v.turn(ctx)
		if told != nil {
			close(told)
			told = nil
		}
		if len(members) > 0 && a.at != nil {
			a.chorus(ctx, group, members, now)
			return
		}
		if (full || v.obeyed) && !v.down {
			continue // the first beat says what groups there are; who gave orders waits for it
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case told = <-now:
		}
	}
}

// tell reports what has changed without waiting for the next beat, and returns
// when the metaplane has heard of it, or the attempt has failed: what is held
// where is soft state, and the next beat tries again.
func (a *agent) tell(ctx context.Context) {
	a.mu.Lock()
	nows := slices.Collect(maps.Values(a.nows))
	a.mu.Unlock()
	var wg sync.WaitGroup
	for _, now := range nows {
		wg.Go(func() {
			told := make(chan struct{})
			select {
			case now <- told:
			case <-ctx.Done():
				return
			}
			select {
			case <-told:
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
}

// adopt keeps the identity and the key that the metaplane gave.
func (a *agent) adopt(r *metapb.RegisterReply) error {
	a.mu.Lock()
	defer a.mu.Unlock()
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

// table notes the mount table that who leads has.
func (a *agent) table(epoch uint64) {
	a.mu.Lock()
	changed := epoch != a.mounts
	a.mounts = epoch
	a.mu.Unlock()
	if changed {
		a.onMounts()
	}
}

func (a *agent) obey(o *metapb.WorkerOrder) {
	file := orca.Ino(o.File)
	switch o.Kind {
	case metapb.WorkerOrder_FREE_FILE:
		if o.Version > 0 {
			a.cache.FreeClean(file)
		} else {
			a.cache.FreeFile(file)
		}
	case metapb.WorkerOrder_FREE_OLD:
		a.cache.FreeOld(file, o.Version)
	case metapb.WorkerOrder_CLEAN_FILE:
		a.cache.CleanFile(file, o.Version)
	case metapb.WorkerOrder_PIN, metapb.WorkerOrder_UNPIN:
		on := o.Kind == metapb.WorkerOrder_PIN
		if o.Version > 0 {
			a.cache.Want(file, on)
		} else {
			a.cache.Pin(file, on)
		}
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
