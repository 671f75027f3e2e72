// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package sim runs the metaplane as it is, in one process and from one seed:
// the session and the router of a client, the services, the executor of intents, the syncer and
// the state machine on its store, over stores in memory. Only the Raft journal
// and the wire are its own, for they are where it does harm.
//
// Flow: Run makes a Plan from a seed (what each client does, which faults there
// are), plays it in a testing/synctest bubble, and judges it. Every message,
// proposal and call of a store waits at a gate; one goroutine, the scheduler,
// waits until all others wait, too, draws one gate, says what happens there
// (pass, fail, do it and lose the answer), and lets it go. In between it moves
// the clock, crashes the coordinator, cuts the power of the machine's disk, or
// changes a store behind Orca's back. So the seed decides everything, and the
// same seed gives the same run.
//
// What it does: messages between client and service are lost, repeated (at once
// or much later, in another life of the service, too) and overtake each other;
// proposals are lost, committed without an answer, committed late, packed into
// entries in any order; a coordinator ends between any two proposals and any
// two calls of a store, and a new one finds what the machine remembers; the
// machine is opened again from what its disk had synced, and the journal is
// replayed; clients die in the middle of a write, sessions expire and are
// stolen; stores fail, do the work and lose the answer, list late; objects are
// made and removed behind Orca.
//
// What must hold: fsm's Check after every entry (sums and quotas are those of
// the tree), and no quota is passed but by what a sync finds; replaying the journal gives
// the same store; a request has one outcome, however often it arrives; every
// persisted file is in its store under its key with its fingerprint at every
// moment, unless a mutation of just that key is in the making; the history of
// the clients is linearizable by package model (not judged when somebody else
// changes the stores); and once the faults are over, every intent is drained,
// every session is gone, no upload is left, and tree and stores are equal.
//
// Several groups: each has a journal, a machine and coordinators of its own, and
// what these say to each other fares as the messages of clients do; what a
// coordinator has asked another group for goes on there when it ends. Clients
// walk through referrals by the real metaclient.Router. At every moment what is
// referred to is there, what is there is referred to, and no number is used
// again; at rest no row of the mount table is in between, and the stores are the
// namespace over all groups. The history has, beside what clients were told, what
// the mount table says at the moment at which it changes.
//
// Files and directories go between the groups of a mount, and directories move to
// other groups online. By the history a file is at one name at any moment, and a move is seen by
// nobody; who takes a file or a directory has all that was kept of it, and what is
// switched to is exactly what the directory held. They also move on to further groups, and
// home: a group holds what moves, and what it does not know the end of yet, and
// nothing else, and shows to nobody what is elsewhere. Files and links of two groups
// change places, and what comes back is what was there. At rest no decision is on
// record, and nothing that was staged or held is left. A group may be led by nobody
// for a while, and what it is told twice may come seconds later.
//
// Members that follow apply the journal later and answer reads after a round.
//
// What it does not do: more than one voter (so no coordinator that does not know
// it was replaced); a call of a store that takes effect after its caller has
// given it up; permissions, owners; trash in several groups; blocks on workers
// (a file that is not persisted has no content here); wrong disks (inodekv's own
// tests); the transport's frames.
//
// One more operation: its meaning is an entry of operations (ops.go, groups.go),
// and a plan draws it. One more defect: an entry of bugs in the tests.
//
// Goroutines: those of the metaplane, one per client, one per repeated message;
// all end before Run returns. Locks: world.mu guards the gates and what they
// note; it is a leaf.
package sim

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"orca"
	"orca/metaplane/metapb"
	"orca/ufs"
	"orca/ufs/memufs"
	"orca/ufs/wrap"
)

// Failure is a run in which something did not hold.
type Failure struct {
	Plan    *Plan
	Rule    string // what was broken, in a word
	Msg     string
	History string
	Trace   []string
}

// Error tells what was broken, and how to see it again.
func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d: %s: %s", f.Plan.Seed, f.Rule, f.Msg)
}

// Report is the failure for a person: the history of the clients and the end
// of the trace.
func (f *Failure) Report() string {
	tail := f.Trace[max(0, len(f.Trace)-400):]
	return fmt.Sprintf("%v\nagain: go test ./fuzz/sim -run TestSeeds -seed %d\n\n%s\nhistory:\n%s\ntrace (last %d of %d):\n%s\n",
		f, f.Plan.Seed, f.Plan, f.History, len(tail), len(f.Trace), strings.Join(tail, "\n"))
}

// Stats tells what a run contained.
type Stats struct {
	Steps, Entries, Ops   int
	Crashes, Cuts         int
	Repeats, Lost, Faults int
	Transfers, Refused    int  // files and directories that another group has taken, or not
	Trees, Exchanges      int  // directories among them, and files for which others came back
	Moves, Stays          int  // directories that have moved to another group, or not after all
	Onward, Homes         int  // those of them that another group than the first has given up
	Unjudged              bool // the history took too long to judge
}

// Result is what a run came to.
type Result struct {
	Failure *Failure // nil: all held
	Stats   Stats
	Trace   []string
}

// Play runs a plan. bug may be nil.
func Play(t *testing.T, p *Plan, bug *Bug) Result {
	var w *world
	synctest.Test(t, func(*testing.T) {
		w = newWorld(p, bug)
		w.run()
	})
	if w.failure == nil {
		w.judge()
	}
	if f := w.failure; f != nil {
		f.Trace, f.History = w.trace, w.report()
	}
	return Result{Failure: w.failure, Stats: w.stats, Trace: w.trace}
}

// gateKind says what waits at a gate.
type gateKind uint8

const (
	gateSend    gateKind = iota + 1 // a request on its way
	gateReply                       // a reply on its way
	gateRepeat                      // a repeated request
	gatePropose                     // a command on its way into the journal
	gateStore                       // a call of a store
	gateStart                       // a client's next operation
	gateRead                        // who follows, on its way to learn what was committed
)

// verdict is what happens at a gate.
type verdict uint8

const (
	pass   verdict = iota + 1
	fail           // nothing happens; an error comes back
	lose           // it happens; an error comes back
	repeat         // it happens, and once more later
	late           // an error comes back now; it happens later
	gone           // the life that it belonged to is over
)

// gate is where a goroutine waits for the scheduler.
type gate struct {
	kind  gateKind
	label string
	life  *life // that it ends with; nil: none
	open  chan verdict
	prop  *proposal
	again int    // of a repeated message: which; tells gates of one label apart
	token string // of an upload: does the same
	write bool   // a call that changes a store
	index int    // of gateRead: what was committed
}

// world is one run. Fields without a guard belong to the scheduler, which runs
// only while everybody else waits.
type world struct {
	plan  *Plan
	bug   *Bug
	rng   *rand.Rand
	began time.Time
	stats Stats
	trace []string
	clock int64       // of the history
	came  map[int]int // clients so far, by number
	verbs map[string]*operation

	stores  []*store
	groups  []*group                 // the first is the one that clients ask first
	mounts  map[uint32]*metapb.Mount // all that there have been, by number, as they were made
	backs   map[uint64]string        // what comes back for files that went to other groups, by transaction
	left    map[uint32]int64         // when the group behind a junction gave a mount up, by number
	healing bool
	setup   bool // nothing that happens is part of the history

	mu      sync.Mutex
	gates   []*gate           // GUARDED_BY(mu)
	active  int               // clients and repeated messages that go on; GUARDED_BY(mu)
	history []event           // GUARDED_BY(mu)
	was     map[uint64]string // paths of parts that have moved on, by root; GUARDED_BY(mu)
	gone    map[uint32]int64  // when a part moved away from a mount; GUARDED_BY(mu)
	outcome map[string]first  // by client and seq; GUARDED_BY(mu)
	notes   []string          // for the trace; GUARDED_BY(mu)
	touched bool              // a store changed since the last look; GUARDED_BY(mu)
	failure *Failure          // GUARDED_BY(mu)
}

// first is the outcome that a request had first.
type first struct{ what, outcome string }

// store is one store below the namespace.
type store struct {
	name   string // of the mount: "/p" or "/o"
	mem    *memufs.Store
	group  uint32 // that it is mounted in at first
	files  bool   // it renames in one call
	raw    ufs.FS // without gates and faults
	faults *wrap.Faults
}

// keepOpen returns a store that outlives the services that close it.
func keepOpen(fs ufs.FS) ufs.FS {
	if f, ok := fs.(fileSystem); ok {
		return keptFiles{f}
	}
	return keptObjects{fs.(objectStore)}
}

type fileSystem interface {
	ufs.FS
	ufs.Renamer
	ufs.Exchanger
	ufs.Owner
	ufs.Spacer
}

type objectStore interface {
	ufs.FS
	ufs.Copier
	ufs.Lister
	ufs.BulkRemover
}

type (
	keptFiles   struct{ fileSystem }
	keptObjects struct{ objectStore }
)

func (keptFiles) Close() error   { return nil }
func (keptObjects) Close() error { return nil }

func newWorld(p *Plan, bug *Bug) *world {
	w := &world{plan: p, bug: bug, rng: rand.New(rand.NewPCG(p.Seed, 2)), began: time.Now(), came: map[int]int{},
		verbs: operations(), mounts: map[uint32]*metapb.Mount{}, left: map[uint32]int64{}, was: map[uint64]string{}, gone: map[uint32]int64{}, backs: map[uint64]string{}, outcome: map[string]first{}}
	w.addStore("/p", false, 0)
	w.addStore("/o", true, 0)
	if p.Groups > 0 {
		w.addStore("/q", p.Seed%2 == 0, 2)
	}
	w.seedStores()
	w.groups = []*group{newGroup(w, p.Group)}
	for n := 2; n <= p.Groups; n++ {
		w.groups = append(w.groups, newGroup(w, uint16(n)))
	}
	return w
}

func (w *world) addStore(name string, objects bool, group uint32) {
	mem := memufs.New(memufs.Config{Objects: objects})
	w.stores = append(w.stores, &store{name: name, group: group, files: !objects, mem: mem, raw: mem.FS(), faults: wrap.NewFaults(keepOpen(mem.FS()))})
}

// broken notes the first thing that does not hold. Safe for any goroutine.
func (w *world) broken(rule, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == nil {
		w.failure = &Failure{Plan: w.plan, Rule: rule, Msg: fmt.Sprintf(format, args...)}
	}
}

func (w *world) over() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure != nil
}

// tracef adds a line; for the scheduler.
func (w *world) tracef(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3fs ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

// note adds a line from any goroutine, in an order that does not depend on
// which of those that run together is faster.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
	w.mu.Unlock()
}

// settle waits until everybody waits, and writes down what they noted.
func (w *world) settle() {
	synctest.Wait()
	w.mu.Lock()
	notes := w.notes
	w.notes = nil
	w.mu.Unlock()
	slices.Sort(notes)
	for _, n := range notes {
		w.tracef("    %s", n)
	}
}

// wait stops at a gate until the scheduler opens it. gone when its life or ctx
// is over.
func (w *world) wait(ctx context.Context, g *gate) verdict {
	g.open = make(chan verdict, 1)
	g.again, _ = ctx.Value(againKey{}).(int)
	w.mu.Lock()
	if g.life != nil && g.life.over {
		w.mu.Unlock()
		return gone
	}
	w.gates = append(w.gates, g)
	w.mu.Unlock()
	select {
	case v := <-g.open:
		return v
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.gates, g); i >= 0 {
		w.gates = slices.Delete(w.gates, i, i+1)
	}
	return gone
}

// waiting returns the gates in an order that only the run decides.
func (w *world) waiting() []*gate {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.gates, func(a, b *gate) int {
		return cmp.Or(strings.Compare(a.label, b.label), cmp.Compare(a.again, b.again), strings.Compare(a.token, b.token))
	})
	return slices.Clone(w.gates)
}

func (w *world) release(g *gate, v verdict) {
	w.mu.Lock()
	i := slices.Index(w.gates, g)
	if i >= 0 {
		w.gates = slices.Delete(w.gates, i, i+1)
	}
	w.mu.Unlock()
	if i >= 0 {
		g.open <- v
	}
}

// chance is true n times of a thousand.
func (w *world) chance(n int) bool { return n > 0 && w.rng.IntN(1000) < n }

// maxSteps bounds a run; one that takes longer is stuck.
const maxSteps = 60_000

// run plays the plan to its end.
func (w *world) run() {
	w.start()
	if !w.over() {
		w.clients()
	}
	for i := 0; !w.over() && w.busy(); i++ {
		if i == maxSteps {
			w.broken("liveness", "the clients do not come to an end")
			break
		}
		w.step()
	}
	if !w.over() {
		w.heal()
	}
	w.stop()
}

// busy reports whether any client goes on. Who was released last may be about
// to end: it is waited for.
func (w *world) busy() bool {
	w.settle()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active > 0
}

// step does one thing.
func (w *world) step() {
	w.settle()
	w.look()
	w.comeBack()
	w.stats.Steps++
	if w.healing {
		for _, g := range w.groups {
			g.catchUp()
		}
	} else if w.disaster() {
		return
	}
	gates := w.waiting()
	if len(gates) == 0 {
		w.sleep(w.pause())
		return
	}
	if w.rng.IntN(100) < 4 {
		w.sleep(w.pause())
		return
	}
	w.open(gates)
}

func (w *world) pause() time.Duration {
	switch n := w.rng.IntN(100); {
	case n < 60:
		return time.Duration(1+w.rng.IntN(5)) * time.Millisecond
	case n < 90:
		return time.Duration(10+w.rng.IntN(90)) * time.Millisecond
	case n < 99:
		return time.Duration(200+w.rng.IntN(1800)) * time.Millisecond
	}
	return time.Duration(5+w.rng.IntN(25)) * time.Second
}

func (w *world) sleep(d time.Duration) { time.Sleep(d) }

// open draws a gate and what happens there.
func (w *world) open(gates []*gate) {
	g := gates[w.rng.IntN(len(gates))]
	f := w.plan.Faults
	if w.healing {
		f = Faults{}
	}
	v := pass
	switch g.kind {
	case gateSend:
		switch {
		case w.chance(f.Messages):
			v = fail
			w.stats.Lost++
		case w.chance(f.Messages):
			v = repeat
			w.stats.Repeats++
		}
	case gateReply:
		if w.chance(f.Messages) {
			v = lose
			w.stats.Lost++
		}
	case gateStore:
		switch {
		case w.chance(f.Stores):
			v = fail
			w.stats.Faults++
		case g.write && w.chance(f.Stores):
			v = lose
			w.stats.Faults++
		}
	case gateRead:
		if w.chance(f.Messages) {
			v = fail
		}
		g.index = len(g.life.g.journal.entries)
	case gatePropose:
		w.commit(g, gates, f)
		return
	}
	w.tracef("%s%s", g.label, [...]string{pass: "", fail: " FAILS", lose: " LOSES ITS ANSWER", repeat: " ARRIVES TWICE"}[v])
	w.release(g, v)
}

// disaster does what no gate waits for; false when nothing was drawn.
func (w *world) disaster() bool {
	f := w.plan.Faults
	switch {
	case w.chance(f.Crashes):
		w.any().crash(w.rng.IntN(3) == 0)
	case w.chance(f.Absences):
		w.any().leave()
	case w.chance(f.Lags):
		d := time.Duration(w.rng.IntN(4)) * time.Second
		w.tracef("LISTINGS of /o are late by %v", d)
		w.stores[1].faults.Lag(d)
	case w.chance(f.Strangers):
		w.stranger()
	case w.chance(10):
		w.any().journal.flush()
	case w.chance(20):
		w.any().journal.catchUp()
	case w.plan.Followers > 0 && w.chance(200):
		w.any().follows()
	default:
		return false
	}
	return true
}

// stranger changes a store behind Orca's back: it removes what it likes, writes
// objects anew, and makes some of its own in directories that are there. It
// does not put a file where Orca may have a directory, or the other way round:
// one of the two would have to go.
func (w *world) stranger() {
	s := w.stores[w.rng.IntN(len(w.stores))]
	keys := s.mem.Keys()
	if len(keys) == 0 {
		return
	}
	key := keys[w.rng.IntN(len(keys))]
	if inTrash(key) {
		return // nobody looks for anything there
	}
	name, dir := strings.CutSuffix(key, "/")
	switch {
	case w.rng.IntN(3) == 0:
		w.tracef("STRANGER removes %s:%s: %v", s.name, name, s.mem.Drop(name))
	default:
		if dir {
			name += "/s"
		}
		n := 100_000 + w.stats.Steps
		w.tracef("STRANGER puts %s:%s %d", s.name, name, n)
		s.mem.Put(name, content(int64(n)))
	}
	w.mu.Lock()
	w.touched = true
	w.mu.Unlock()
}

func down(op string) error { return orca.E("sim."+op, orca.Unavailable, "connection refused") }
