// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package metaserver is the namespace as a service: metaplane.Namespace over
// one Raft group, the stores below it and the registry of workers.
//
// Flow of a read: ReadReady → ufssync.Path (one walk of the machine, and a
// question to the UFS when the sync interval wants one) → reply. Flow of a
// mutation: make parent and target known from the UFS → propose → if the
// machine answers with an undecided intent, ufsexec.Run makes the UFS call and
// decides → reply. A mutation that meets somebody's intent (Busy) is repeated
// here for Config.BusyWait.
//
// Service may be called in process (wrapped in metaclient.Session, so that
// mutations are exactly once) or through Server, which speaks frames.
//
// A mutation that needs nothing but memory before it is proposed is begun on the
// parser of its connection and answered where it is applied (Start): nothing
// waits for it.
//
// Of several members one serves, the leader; leader.go says what it does
// before it serves, and what the others do.
//
// Goroutines: one reader of the group's effects, in a cluster one that follows
// the leadership, those of ufssync and ufsexec, and those of the transport;
// Close ends them all. Locks: none of its own but the one around the mount
// table's rebuilding. It refuses requests without target, paths that
// orca.CleanPath refuses, and with NotLeader what only the leader serves.
package metaserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/dataplane/grant"
	"orca/metaplane"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/members"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
	"orca/metaplane/ufsexec"
	"orca/metaplane/ufssync"
	"orca/metaplane/workers"
)

// Config describes a Service. The zero value means the defaults.
type Config struct {
	// Cluster is the cluster's name for workers and reports.
	Cluster string
	// Version is the build's version for reports.
	Version string
	// WriteType of a create that names none. Default CACHE_THROUGH.
	WriteType orca.WriteType
	// Replicas of a create that names none. Default 1.
	Replicas uint32
	// OnCopies is told, where the group leads, that the bounds of the copies of
	// a file have changed; it must not block. nil: nobody.
	OnCopies func()
	// BlockSize of files longer than WholeMax; WholeMax is the cluster fact
	// block.whole_max. Defaults orca.DefaultBlockSize, orca.MaxWholeBlock.
	BlockSize, WholeMax int64
	// SessionTTL is the term of a write session. Default 15 s.
	SessionTTL time.Duration
	// ReadGrantTTL and WriteGrantTTL are how long grants hold. Defaults 15 min
	// and 24 h (a writer is fenced by its session, not by its grant).
	ReadGrantTTL, WriteGrantTTL time.Duration
	// BusyWait is how long a mutation waits for another one's intent. Default
	// 5 s.
	BusyWait time.Duration
	// UFSWait is how long a caller waits for the store in a synchronous
	// mutation before it is told Unavailable; the work goes on. Default 30 s.
	UFSWait time.Duration
	// CacheTTL caps how long a client may cache attributes. Default 1 s.
	CacheTTL time.Duration
	// ListBytes caps a listing reply. Default 2 MiB.
	ListBytes int
	// Conf returns the effective configuration for operators; may be nil.
	Conf func() []*metapb.ConfReply_Value
	// Group is the number of the group. Default 1, the first.
	Group uint16
	// Home is the service of the first group in this process, of any other
	// group: it knows the members and the key of grants. Nil: this is the first.
	Home *Service
	// Others returns the way to who serves another group. May be nil: there are
	// none.
	Others func(group uint16) (metaplane.Namespace, error)
	// Groups returns the numbers of the groups that there are, OnGroups is told
	// when they may have changed. Of the first group; may be nil.
	Groups   func() []uint32
	OnGroups func()
	// Here returns the service of another group in this process, nil while it
	// does not run. Of the first group, and for backups; may be nil.
	Here func(group uint16) *Service
	// OnLead is called before this member serves as the leader of a cluster;
	// what it returns an error for is tried again. May be nil.
	OnLead func(ctx context.Context) error
	// Hosted serves requests for hosted machines, by machine name.
	Hosted map[string]HostedHandler
	// OnHosted is called when a hosted machine has applied something; it must
	// not block. May be nil.
	OnHosted func(machine string)

	Workers workers.Config
	Sync    ufssync.Config
	Exec    ufsexec.Config
}

func (c *Config) setDefaults() {
	c.WriteType = cmp.Or(c.WriteType, orca.CacheThrough)
	c.BlockSize = cmp.Or(c.BlockSize, orca.DefaultBlockSize)
	c.WholeMax = cmp.Or(c.WholeMax, orca.MaxWholeBlock)
	c.SessionTTL = cmp.Or(c.SessionTTL, 15*time.Second)
	c.ReadGrantTTL = cmp.Or(c.ReadGrantTTL, 15*time.Minute)
	c.WriteGrantTTL = cmp.Or(c.WriteGrantTTL, 24*time.Hour)
	c.BusyWait = cmp.Or(c.BusyWait, 5*time.Second)
	c.UFSWait = cmp.Or(c.UFSWait, 30*time.Second)
	c.CacheTTL = cmp.Or(c.CacheTTL, time.Second)
	c.ListBytes = cmp.Or(c.ListBytes, 2<<20)
	c.Sync.BlockSize, c.Sync.WholeMax = c.BlockSize, c.WholeMax
	c.Exec.SessionTTL = c.SessionTTL
}

// Validate reports what cannot be.
func (c *Config) Validate() error {
	const op = "metaserver.Config"
	switch {
	case c.BlockSize < 0 || c.WholeMax < 0 || c.ListBytes < 0:
		return orca.E(op, orca.Invalid, "a size is negative")
	case c.SessionTTL < 0 || c.BusyWait < 0 || c.UFSWait < 0:
		return orca.E(op, orca.Invalid, "a time is negative")
	case c.Replicas > fsm.MaxCopies:
		return orca.E(op, orca.Invalid, "more replicas than any cluster has workers")
	case c.WriteType > orca.Through:
		return orca.E(op, orca.Invalid, "unknown write type")
	}
	return nil
}

// Group is what the service needs of a Raft group; *raftgroup.Group is one.
type Group interface {
	ufsexec.Group
	// ReadReady waits until reads on Machine are linearizable; ReadProven
	// reports whether it would return at once.
	ReadReady(ctx context.Context) error
	ReadProven() bool
	// Start proposes a command without waiting; see raftgroup.Group. It is
	// only called while ReadProven.
	Start(c *command.Command, until time.Time, w command.Waiter) error
	// Effects has one reader, the service.
	Effects() <-chan fsm.Effect
	// Watch returns the events after a cursor; see raftgroup.Group.
	Watch(ctx context.Context, cursor uint64) (events []fsm.Event, next uint64, lost bool)

	// Alone reports whether this host is the only member, for ever; then only
	// Quorum asks for what follows.
	Alone() bool
	Replica() uint64
	LeaderReplica() (replica, term uint64)
	// Heir is who this host is handing the leadership to; see raftgroup.Group.
	Heir() (replica uint64, over <-chan struct{})
	Known() []uint64
	Members(ctx context.Context) (*members.Members, error)
	AddLearner(ctx context.Context, replica uint64, address string) error
	Promote(ctx context.Context, replica uint64) error
	Spare(ctx context.Context, replica uint64) error
	Remove(ctx context.Context, replica uint64) error
	Transfer(ctx context.Context, replica uint64) error
}

// Stats are counters for telemetry.
type Stats struct {
	Reads     atomic.Int64
	Followed  atomic.Int64 // of Reads: without leading
	Referred  atomic.Int64 // reads that were asked here, but take the leader
	Mutations atomic.Int64
	BusyWaits atomic.Int64
	Errors    atomic.Int64
	Lost      atomic.Int64 // files found lost
	Recalls   atomic.Int64 // removals that waited for who has the file open
	CutShort  atomic.Int64 // of Recalls: in vain
}

// Service implements metaplane.Namespace.
type Service struct {
	cfg     Config
	group   Group // in a cluster: reigned
	raw     Group
	log     *slog.Logger
	started time.Time
	key     atomic.Pointer[[]byte] // of grants; nil: not read yet
	lead    leadership
	backups backups

	Workers *workers.Registry
	Stores  *mount.Stores
	Syncer  *ufssync.Syncer
	Exec    *ufsexec.Executor
	Stats   Stats

	mountMu sync.Mutex // serialises rebuilding
	joints  joints
	owing   owing
	holds   holds
	movers  movers
	mounts  atomic.Pointer[mount.Table]
	beside  atomic.Bool // directories of one mount live here that are not in each other

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ metaplane.Namespace = (*Service)(nil)

// New makes the service over an open group and starts its work. open opens the
// store of a mount. ctx bounds the start: the grant key is made on first use.
func New(ctx context.Context, cfg Config, g Group, open mount.Opener, log *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	s := &Service{cfg: cfg, group: g, raw: g, log: log, started: time.Now()}
	s.joints.wake, s.movers.wake, s.movers.clear = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	if !g.Alone() {
		s.lead.changed = make(chan struct{})
		s.group = &reigned{g, &s.lead}
		cfg.Exec.Fence = s.stillLeads
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.joints.turn = make(chan struct{}, 1)
	if g.Alone() {
		if err := g.ReadReady(ctx); err != nil {
			return nil, err
		}
		if err := s.grantKey(ctx); err != nil {
			return nil, err
		}
	}
	s.Workers = workers.New(cfg.Workers, log)
	s.mounts.Store(mount.NewTable(nil, 0))
	s.refreshMounts()
	s.Stores = mount.NewStores(open, s.mounts.Load)
	s.Syncer = ufssync.New(cfg.Sync, s.group, s.Stores, log)
	cfg.Exec.Transfer = s.sendAway
	s.Exec = ufsexec.New(cfg.Exec, s.group, s.Stores, s.Syncer, log)
	s.wg.Add(1)
	go s.effects()
	s.Exec.Start()
	s.wg.Add(1)
	go s.acknowledge()
	if s.cfg.Others != nil && s.groupNumber() == 1 {
		s.wakeJoints()
		s.wg.Add(3)
		go s.joinLoop()
		go s.regroupLoop()
		go s.clearLoop()
	}
	if !g.Alone() {
		s.wg.Add(1)
		go s.follow()
	}
	return s, nil
}

// Close ends the service's work, and closes the stores; the group stays open.
func (s *Service) Close() error {
	s.cancel()
	_ = s.Exec.Close()
	_ = s.Syncer.Close()
	s.wg.Wait()
	if err := s.endBackups(); err != nil {
		s.log.Warn("backups on their way", "err", err)
	}
	return s.Stores.Close()
}

// Ready reports whether the service can answer: nil, or why not.
func (s *Service) Ready(ctx context.Context) error { return s.raw.ReadReady(ctx) }

// Idle reports whether no intent is undecided or undrained.
func (s *Service) Idle() bool { return s.group.Machine().Counts().Intents == 0 }

const grantFact = "grant.key"

// grantKey reads the cluster's key, making it on first use.
func (s *Service) grantKey(ctx context.Context) error {
	if s.GrantKey() != nil {
		return nil
	}
	if s.cfg.Home != nil {
		return orca.E("metaserver.grantKey", orca.Unavailable, "the first group has no key yet")
	}
	fresh := make([]byte, grant.KeyLen)
	if _, err := rand.Read(fresh); err != nil {
		return &orca.Error{Op: "metaserver.grantKey", Kind: orca.Internal, Err: err}
	}
	res, err := s.group.Propose(ctx, &command.Command{Now: now(), SetFact: &metapb.SetFactOp{Key: grantFact, Value: fresh, Absent: true}})
	if err != nil {
		return err
	}
	s.key.Store(&res.Value)
	return nil
}

// GrantKey returns the key that workers verify grants with; nil while a new
// cluster has none.
func (s *Service) GrantKey() []byte {
	if p := s.key.Load(); p != nil {
		return *p
	}
	if s.cfg.Home != nil {
		return s.cfg.Home.GrantKey()
	}
	k := s.group.Machine().Fact(grantFact)
	if len(k) != grant.KeyLen {
		return nil
	}
	s.key.Store(&k)
	return k
}

func now() int64 { return time.Now().UnixNano() }

// callerOf returns the identity of a request; absent means root.
func callerOf(h *metapb.Header) orca.Caller { return callerIn(h.GetCaller()) }

func callerIn(c *metapb.Caller) orca.Caller {
	if c == nil {
		return orca.Caller{}
	}
	return orca.Caller{UID: c.Uid, GID: c.Gid, Groups: c.Groups}
}

// ready waits until reads are linearizable.
func (s *Service) ready(ctx context.Context) error {
	s.Stats.Reads.Add(1)
	return s.group.ReadReady(ctx)
}

// checkTarget refuses what cannot be walked, and cleans an absolute path.
func checkTarget(op string, t *metapb.Target) error {
	if t == nil {
		return orca.E(op, orca.Invalid, "no target")
	}
	if t.Ino != 0 && (t.Path == "" || t.Path[0] != '/') {
		if len(t.Path) > orca.MaxPath {
			return orca.E(op, orca.NameTooLong, "path too long")
		}
		return nil
	}
	p, err := orca.CleanPath(t.Path)
	if err != nil {
		return err
	}
	t.Path = p
	return nil
}

// mutate proposes a command for the caller of h and sees it through: it waits
// for intents in the way, and has undecided ones executed.
func (s *Service) mutate(ctx context.Context, h *metapb.Header, c *command.Command) (*command.Result, error) {
	s.sign(h, c)
	res, err := s.group.Propose(ctx, c)
	return s.see(ctx, c, res, err)
}

// sign makes a command that of a request.
func (s *Service) sign(h *metapb.Header, c *command.Command) {
	s.Stats.Mutations.Add(1)
	c.Client, c.Seq, c.AckedBelow = h.GetClient(), h.GetSeq(), h.GetAckedBelow()
	c.Caller = h.GetCaller()
	c.Now = now()
}

// over reports whether nothing is left to do after the first proposal of a
// command came to this.
func over(c *command.Command, res *command.Result, err error) bool {
	if err == nil {
		return res.Intent == nil || res.Intent.Deferred || !undecided(c)
	}
	return res == nil || orca.KindOf(err) != orca.Busy || !waits(res)
}

// see goes on with a command whose first proposal came to res and err.
func (s *Service) see(ctx context.Context, c *command.Command, res *command.Result, err error) (*command.Result, error) {
	until := time.Now().Add(s.cfg.BusyWait)
	pause := time.Millisecond
	for {
		again := false
		if err == nil && res.Intent != nil && !res.Intent.Deferred && undecided(c) {
			res, err = s.execute(ctx, res.Intent)
		}
		switch {
		case err == nil:
			if res.Intent != nil {
				s.Exec.Wake()
			}
			return res, nil
		case err == ufsexec.ErrDecided && c.Client != 0: //nolint:errorlint // this very error, not its kind
		case orca.KindOf(err) == orca.Busy && res != nil && waits(res):
			s.Stats.BusyWaits.Add(1)
			s.Exec.Wake()
			again = res.Unknown
			switch {
			case res.Rehome != nil && s.rehome(ctx, res.Rehome):
				pause = 0
			case res.NeedWalk:
				if werr := s.unlinkBelow(ctx, c.Delete); werr != nil {
					return res, werr
				}
				pause = 0
			}
		default:
			s.Stats.Errors.Add(1)
			return res, err
		}
		if time.Now().Add(pause).After(until) {
			return res, err
		}
		if !s.await(ctx, res.GetBusyIntent(), &pause, until) {
			return res, err
		}
		if again {
			if err := s.learn(ctx, c); err != nil {
				return nil, err
			}
		}
		c.Now = now()
		res, err = s.group.Propose(ctx, c)
	}
}

// longestPause is the longest before a command that met somebody's intent is
// proposed again.
const longestPause = 100 * time.Millisecond

// await pauses before a command is proposed again that met an intent, 0: none. If
// that is a move to another group it does so until the move is over: many may wait
// for that, and each time that they proposed in vain would be work for every
// member, just when there is enough. false: ctx or the time has ended before.
func (s *Service) await(ctx context.Context, intent uint64, pause *time.Duration, until time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(*pause):
		}
		*pause = min(2**pause+time.Millisecond, longestPause)
		it, err := s.group.Machine().Intent(intent)
		if err != nil || it.Op != metapb.IntentOp_INTENT_REGROUP {
			return true
		}
		if time.Now().Add(*pause).After(until) {
			return false
		}
	}
}

// waits reports whether a refusal as Busy says what has to be done, or to end,
// before the command is proposed again.
func waits(res *command.Result) bool {
	return res.BusyIntent != 0 || res.Unknown || res.Rehome != nil || res.NeedWalk
}

// undecided reports whether an intent in the result of this command is to be
// run here: a worker runs that of a persist, and a loop of its own a move to
// another group.
func undecided(c *command.Command) bool { return c.PersistPrepare == nil && c.Regroup == nil }

func (s *Service) execute(ctx context.Context, in *command.Intent) (*command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.UFSWait)
	defer cancel()
	return s.Exec.Run(ctx, in)
}

// effects does what applied commands ask for. The channel is only a hint:
// ufsexec searches the state for what was dropped.
func (s *Service) effects() {
	defer s.wg.Done()
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.Workers.Expire()
			s.holds.expire(time.Now())
			s.refreshMounts()
		case e, ok := <-s.group.Effects():
			if !ok {
				return
			}
			s.effect(e)
		}
	}
}
