// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/metapb"
)

// A directory that lives in one group moves to another one, with all that is in it.
func TestAPartMovesToAGroup(t *testing.T) {
	t.Parallel()
	p := newTriple(t)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	before, quotas := p.seen("/m/p"), p.quotas("/m/p/d/f01")
	first, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	p.move("/m/p")
	p.settled("/m/p")
	second, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	above, err := p.stat("/m")
	require.NoError(t, err)
	lists := p.one.Syncer.Stats.Lists.Load()

	p.moveTo("/m/p", 3)
	a, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	require.Equal(t, uint16(3), orca.Ino(a.Ino).Group())
	require.Equal(t, before, p.seen("/m/p"))
	require.Equal(t, quotas, p.quotas("/m/p/d/f01"))
	require.Equal(t, lists, p.one.Syncer.Stats.Lists.Load(), "nothing is listed again")
	require.Zero(t, p.two.Syncer.Stats.Lists.Load()+p.three.Syncer.Stats.Lists.Load())
	now, err := p.stat("/m")
	require.NoError(t, err)
	require.Equal(t, above, now, "what is above has not changed")
	p.moveTo("/m/p", 3) // nothing happens
	p.settled("/m/p")
	p.check()
	// Who has a file open by a number that it had goes on, whichever that was.
	for _, ino := range []uint64{first.Ino, second.Ino} {
		o, err := p.ns.Open(ctx, &metapb.OpenRequest{Target: &metapb.Target{Ino: ino}})
		require.NoError(t, err)
		require.Equal(t, a.Ino, o.Attr.Ino)
		require.Equal(t, first.Fingerprint, o.Attr.Fingerprint)
		_, err = p.ns.Stat(ctx, &metapb.StatRequest{Target: &metapb.Target{Ino: ino}})
		require.ErrorIs(t, err, orca.NotFound)
	}
	// It is a part like any other, and may come back.
	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	require.NoError(t, p.touch("/m/p/d/new"))
	require.FileExists(t, filepath.Join(store, "p/d/new"))
	require.NoError(t, p.remove("/m/p/d/new", false))
	before = p.seen("/m/p")
	p.moveTo("/m/p", 2)
	p.settled("/m/p")
	require.Equal(t, before, p.seen("/m/p"))
	p.check()
	p.stop()
	p.start()
	require.Equal(t, before, p.seen("/m/p"))
	p.check()
	require.NoError(t, p.remove("/m/p", true))
	require.NoDirExists(t, filepath.Join(store, "p"))
	p.check()
}

// point is where the leader of a group dies in a move away from group 2.
type point struct {
	name   string
	group  int  // that dies
	unread bool // meanwhile
}

// sweep moves parts of group 2 to another group while leaders die.
type sweep struct {
	*pair
	to uint32
}

// dies waits until the leader of a group is dead.
func (s *sweep) dies(point string, group int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.dead[group].Load() }, time.Minute, time.Millisecond, point)
}

func (s *sweep) again() {
	s.cut.Store("")
	s.leave()
	s.serve()
}

// part makes a directory of group 2.
func (s *sweep) part(store, path string) map[string]string {
	s.t.Helper()
	s.furnish(store, path)
	s.move(path)
	s.settled(path)
	return s.seen(path)
}

// there waits until all is over, and looks at what has become of it.
func (s *sweep) there(path string, before map[string]string, point string) {
	t := s.t
	t.Helper()
	s.movedTo(path, s.to)
	if s.told(); s.to > 1 {
		s.settled(path)
	} else {
		require.Nil(t, s.row(path))
	}
	require.Equal(t, before, s.seen(path), point)
	a, err := s.stat(path + "/d/f03")
	require.NoError(t, err)
	require.Equal(t, uint16(s.to), orca.Ino(a.Ino).Home())
	require.NoError(t, s.touch(path+"/late"), point)
	s.check()
}

func (s *sweep) moves(store string, points []point) {
	t := s.t
	for i := range 2 * len(points) {
		x := points[i/2]
		point := []string{"before ", "after "}[i%2] + x.name
		path := "/m/moves " + point
		before := s.part(store, path)
		if x.name != "look" {
			s.cut.Store(point)
		}
		s.then.Store(func(at string) {
			if x.name == "look" && strings.HasSuffix(at, " hold") { // not when it was looked at before it was to move
				s.cut.Store(point)
			}
		})
		_, err := s.regroup(path, s.to, metapb.RegroupAsk_REGROUP_BEGIN)
		if x.name == "begin" {
			require.Error(t, err, point)
		}
		s.dies(point, x.group)
		s.then.Store(func(string) {})
		if !x.unread && (i%2 == 0 || !strings.HasSuffix(x.name, "close")) {
			require.Equal(t, before, s.seen(path), point)
		}
		s.again()
		if point == "before begin" {
			s.moveTo(path, s.to)
		}
		s.there(path, before, point)
	}
}

func (s *sweep) stays(store string, points []point) {
	t := s.t
	for i := range 2 * len(points) {
		x := points[i/2]
		point := []string{"before ", "after "}[i%2] + x.name
		path := "/m/stays " + point
		before := s.part(store, path)
		s.cut.Store("after close") // all of it is there, and nobody reads it
		_, err := s.regroup(path, s.to, metapb.RegroupAsk_REGROUP_BEGIN)
		require.NoError(t, err)
		s.dies(point, 1)
		s.cut.Store("before switch")
		s.dead[1].Store(false)
		s.dies(point, 1)
		s.cut.Store(point)
		s.dead[1].Store(false)
		_, err = s.regroup(path, 0, metapb.RegroupAsk_REGROUP_ABORT)
		if x.name == "give up" {
			require.Error(t, err, point)
		}
		s.dies(point, x.group)
		s.again()
		if point == "before give up" { // nobody knows that it was to be
			s.there(path, before, point)
			continue
		}
		s.told()
		s.movedTo(path, 2) // it is where it was
		require.Equal(t, before, s.seen(path), point)
		require.NoError(t, s.touch(path+"/late"), point)
		require.NoError(t, s.remove(path+"/late", false), point)
		s.check()
		before = s.seen(path)
		s.moveTo(path, s.to)
		s.there(path, before, point)
	}
}

// The leader of either group dies at every point of a move from one group to
// another: the next one ends it, and all is there as it was. Or it gives it up, and
// all is there as it was.
func TestMovesBetweenGroupsSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	s := sweep{newTriple(t), 3}
	store := t.TempDir()
	s.mount("/m", "file://"+store, 0)
	s.moves(store, []point{
		{"begin", 1, false}, {"hold", 1, false}, {"departing hold", 2, false}, {"mount", 1, false}, {"self", 1, false}, {"look", 1, false},
		{"pages", 1, false}, {"seal", 1, false}, {"close", 1, false}, {"departing close", 2, false}, {"switch", 1, true}, {"active", 1, true},
		{"leave", 1, true}, {"departing leave", 2, true}, {"settled", 1, true}, // in any order with active
	})
	s.stays(store, []point{{name: "give up", group: 1}, {name: "lift", group: 1}, {name: "departing lift", group: 2}, {name: "settled", group: 1},
		{name: "unmount", group: 1}, {name: "cleared", group: 1}})
}

// So it is on the way back to the first group.
func TestMovesHomeSurviveACrashAnywhere(t *testing.T) {
	t.Parallel()
	s := sweep{newPairOn(t, true), 1}
	store := t.TempDir()
	s.mount("/m", "file://"+store, 0)
	s.moves(store, []point{
		{"begin", 1, false}, {"hold", 1, false}, {"departing hold", 2, false}, {"staging self", 1, false}, {"look", 1, false},
		{"staging pages", 1, false}, {"staging seal", 1, false}, {"close", 1, false}, {"departing close", 2, false}, {"switch", 1, true},
		{"leave", 1, true}, {"departing leave", 2, true}, {"settled", 1, false},
	})
	s.stays(store, []point{{name: "give up", group: 1}, {name: "lift", group: 1}, {name: "departing lift", group: 2}, {name: "settled", group: 1}})
}

// What lives in a group comes back to the first one, and is a directory as before.
func TestAPartComesHome(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	before, quotas := p.seen("/m/p"), p.quotas("/m/p/d/f01")
	above, err := p.stat("/m")
	require.NoError(t, err)
	usage, err := p.ns.Usage(ctx, &metapb.UsageRequest{Target: at("/m")})
	require.NoError(t, err)
	p.move("/m/p")
	p.settled("/m/p")
	there, err := p.stat("/m/p/d/f03")
	require.NoError(t, err)
	lists := p.one.Syncer.Stats.Lists.Load()

	p.moveTo("/m/p", 1)
	p.told()
	require.Nil(t, p.row("/m/p"))
	require.Equal(t, before, p.seen("/m/p"))
	require.Equal(t, quotas, p.quotas("/m/p/d/f01"))
	require.Equal(t, lists, p.one.Syncer.Stats.Lists.Load(), "nothing is listed again")
	now, err := p.stat("/m")
	require.NoError(t, err)
	require.Equal(t, above, now, "what is above has not changed")
	p.moveTo("/m/p", 1) // nothing happens
	p.check()
	u, err := p.ns.Usage(ctx, &metapb.UsageRequest{Target: at("/m")})
	require.NoError(t, err)
	require.Equal(t, usage.Usage, u.Usage, "the sums above count it again")
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m"), Bytes: -1, Inodes: 1000})
	require.NoError(t, err)
	_, err = p.ns.SetQuota(ctx, &metapb.SetQuotaRequest{Target: at("/m"), Bytes: -1, Inodes: 0})
	require.NoError(t, err)
	o, err := p.ns.Open(ctx, &metapb.OpenRequest{Target: &metapb.Target{Ino: there.Ino}})
	require.NoError(t, err)
	require.Equal(t, uint16(1), orca.Ino(o.Attr.Ino).Home())
	require.Equal(t, there.Fingerprint, o.Attr.Fingerprint)

	s, err := p.ns.Sync(ctx, &metapb.SyncRequest{Target: at("/m"), Recursive: true})
	require.NoError(t, err)
	require.Zero(t, s.Created+s.Changed+s.Removed, "the store and the namespace are in line")
	_, err = p.ns.Rename(ctx, &metapb.RenameRequest{Src: at("/m/p"), Dst: at("/m/q")})
	require.NoError(t, err, "it is a directory like any other")
	require.FileExists(t, filepath.Join(store, "q/d/f03"))
	before = p.seen("/m/q")
	p.stop()
	p.start()
	require.Equal(t, before, p.seen("/m/q"))
	p.check()
	p.move("/m/q") // there and back again
	p.settled("/m/q")
	p.moveTo("/m/q", 1)
	p.told()
	require.Equal(t, before, p.seen("/m/q"))
	p.check()
	require.NoError(t, p.remove("/m/q", true))
	require.Eventually(t, func() bool { // a tree of the first group leaves the store behind its back
		_, err := os.Stat(filepath.Join(store, "q"))
		return os.IsNotExist(err)
	}, time.Minute, 5*time.Millisecond)
	p.check()
}

// While a directory moves from group to group, what one client has done every other
// sees at once, whichever group that asks first; and nothing is lost.
func TestWhatIsDoneWhileAPartMovesIsSeenByAll(t *testing.T) {
	t.Parallel()
	p := newTriple(t)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	stop := make(chan struct{})
	kept := make([][]string, 4)
	var wg sync.WaitGroup
	var done atomic.Int64
	for w := range kept {
		one, other := p.client(), p.client()
		mutate := func(do func() error) error {
			for {
				switch err := do(); orca.KindOf(err) {
				case orca.Busy, orca.OverQuota:
				default:
					return err
				}
			}
		}
		sees := func(path string) orca.Kind {
			for {
				_, err := other.Stat(ctx, &metapb.StatRequest{Target: at(path)})
				if k := orca.KindOf(err); k != orca.Busy {
					return k
				}
			}
		}
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := fmt.Sprintf("/m/p/d/deep/w%d-%d", w, i)
				err := mutate(func() error {
					_, err := one.Create(ctx, &metapb.CreateRequest{Target: at(path), Mode: 0o644, Complete: true})
					return err
				})
				if k := sees(path); err != nil && orca.KindOf(err) != orca.Exists || k != orca.OK {
					t.Errorf("%s was made (%v), and another client sees: %v", path, err, k)
					return
				}
				if i%8 == 0 {
					kept[w] = append(kept[w], path)
					done.Add(1)
					continue
				}
				err = mutate(func() error {
					_, err := one.Delete(ctx, &metapb.DeleteRequest{Target: at(path)})
					return err
				})
				if k := sees(path); err != nil && orca.KindOf(err) != orca.NotFound || k != orca.NotFound {
					t.Errorf("%s was removed (%v), and another client sees: %v", path, err, k)
					return
				}
				done.Add(1)
			}
		})
	}
	for _, to := range []uint32{2, 3, 1, 3, 2, 1} {
		n := done.Load()
		require.Eventually(t, func() bool { return t.Failed() || done.Load() > n+20 }, time.Minute, time.Millisecond)
		p.moveTo("/m/p", to)
	}
	close(stop)
	wg.Wait()
	p.told()
	for _, paths := range kept {
		for _, path := range paths {
			_, err := p.stat(path)
			require.NoError(t, err)
			require.FileExists(t, filepath.Join(store, path[2:]))
		}
	}
	names := p.names("/m/p/d/deep")
	entries, err := os.ReadDir(filepath.Join(store, "p/d/deep"))
	require.NoError(t, err)
	require.Len(t, names, len(entries), "the store and the namespace are in line")
	p.check()
}

// A file that is on its way into a directory which moves to another group meanwhile
// finds it there; and what keeps a part where it is is said, as of any directory.
func TestAPartMovesBeforeAFileGetsThere(t *testing.T) {
	t.Parallel()
	p := newTriple(t)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/p")
	p.move("/m/p")
	p.settled("/m/p")
	require.NoError(t, p.touch("/m/file"))
	var once sync.Once
	p.then.Store(func(at string) {
		if at == "before transfer" {
			once.Do(func() { p.moveTo("/m/p", 3) })
		}
	})
	_, err := p.ns.Rename(ctx, &metapb.RenameRequest{Src: at("/m/file"), Dst: at("/m/p/d/file")})
	require.NoError(t, err)
	p.then.Store(func(string) {})
	a, err := p.stat("/m/p/d/file")
	require.NoError(t, err)
	require.Equal(t, uint16(3), orca.Ino(a.Ino).Group())
	require.FileExists(t, filepath.Join(store, "p/d/file"))
	p.settled("/m/p")
	p.check()

	_, err = p.ns.Regroup(ctx, &metapb.RegroupRequest{H: &metapb.Header{Caller: &metapb.Caller{Uid: 7}}, Target: at("/m/p"), Group: 2})
	require.ErrorIs(t, err, orca.Permission)
	_, err = p.regroup("/m/p", 4, metapb.RegroupAsk_REGROUP_BEGIN)
	require.ErrorIs(t, err, orca.Invalid)
	_, err = p.regroup("/m/p/d", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.ErrorIs(t, err, orca.Unsupported)
	_, err = p.regroup("/m/p", 0, metapb.RegroupAsk_REGROUP_ABORT)
	require.ErrorIs(t, err, orca.Exists)
	c, err := p.ns.Create(ctx, &metapb.CreateRequest{Target: at("/m/p/w"), Mode: 0o644, WriteType: uint32(orca.MustCache)})
	require.NoError(t, err)
	before := p.seen("/m/p")
	_, err = p.regroup("/m/p", 1, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	var r *metapb.RegroupReply
	require.Eventually(t, func() bool {
		r, err = p.regroup("/m/p", 0, metapb.RegroupAsk_REGROUP_STATUS)
		require.NoError(t, err)
		return r.State == metapb.RegroupState_REGROUP_DONE
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, uint32(3), r.Group)
	require.Contains(t, r.Problem, "open for writing")
	p.told()
	require.Equal(t, before, p.seen("/m/p"))
	_, err = p.ns.Complete(ctx, &metapb.CompleteRequest{Session: c.Session.Id, Fence: c.Session.Fence, Length: 3, Workers: []uint64{1}})
	require.NoError(t, err)
	_, err = p.regroup("/m/p", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.ErrorIs(t, err, orca.Unsupported, "only the cache has it")
	require.NoError(t, p.touch("/m/p/nobody-waits"))
	require.NoError(t, p.remove("/m/p/w", false))
	p.moveTo("/m/p", 2)
	p.settled("/m/p")
	p.check()
}

// A group that is away keeps nobody waiting who has not to: what is not begun is
// refused, what is begun goes on when it is back, and may be given up at any time.
func TestAGroupIsAwayWhileADirectoryMoves(t *testing.T) {
	t.Parallel()
	p := newTriple(t)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	for _, x := range []struct {
		path     string
		from, to uint32
		away     int
		at       string // the point where it is away
	}{
		{"/m/a", 1, 2, 2, "before mount"}, {"/m/b", 1, 2, 2, "after self"}, {"/m/c", 2, 3, 3, "before seal"},
		{"/m/d", 2, 3, 2, "after hold"}, {"/m/e", 2, 1, 2, "before close"},
	} {
		p.leave()
		p.slow, p.busy = true, 0
		p.serve()
		p.furnish(store, x.path)
		if x.from > 1 {
			p.moveTo(x.path, x.from)
			p.settled(x.path)
		}
		p.leave()
		p.slow, p.busy = false, time.Millisecond // what waits is not waited for here
		p.serve()
		p.away[x.away].Store(true)
		_, err := p.regroup(x.path, x.to, metapb.RegroupAsk_REGROUP_BEGIN)
		require.ErrorIs(t, err, orca.Unavailable, x.at)
		require.NoError(t, p.touch(x.path+"/before"), "nobody waits for what is not begun")
		require.NoError(t, p.remove(x.path+"/before", false))
		p.away[x.away].Store(false)
		before := p.seen(x.path)

		begin := func() {
			t.Helper()
			p.then.Store(func(at string) {
				if at == x.at {
					p.away[x.away].Store(true)
				}
			})
			_, err := p.regroup(x.path, x.to, metapb.RegroupAsk_REGROUP_BEGIN)
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				r, err := p.regroup(x.path, 0, metapb.RegroupAsk_REGROUP_STATUS)
				require.NoError(t, err)
				require.Equal(t, metapb.RegroupState_REGROUP_MOVING, r.State, x.at)
				return strings.Contains(r.Problem, "no member leads the group")
			}, time.Minute, time.Millisecond)
			p.then.Store(func(string) {})
		}
		begin()
		require.Equal(t, before, p.seen(x.path), "it is read")
		err = p.touch(x.path + "/meanwhile")
		require.ErrorIs(t, err, orca.Busy, x.at)
		require.True(t, orca.KindOf(err).Retryable())
		_, err = p.regroup(x.path, 0, metapb.RegroupAsk_REGROUP_ABORT)
		require.NoError(t, err)
		if x.away != int(x.from) { // else its group is to be told first
			require.Eventually(t, func() bool { return p.touch(x.path+"/meanwhile") == nil }, time.Minute, time.Millisecond)
			require.NoError(t, p.remove(x.path+"/meanwhile", false))
		}
		p.away[x.away].Store(false)
		p.told()
		before = p.seen(x.path)

		begin()
		p.away[x.away].Store(false)
		p.movedTo(x.path, x.to)
		p.told()
		require.Equal(t, before, p.seen(x.path), x.at)
		p.check()
	}
	// What is closed where it was may be decided without its group, which hears of it
	// later; until then it shows it to nobody.
	p.leave()
	p.slow, p.busy = true, 0
	p.serve()
	p.furnish(store, "/m/f")
	p.move("/m/f")
	p.settled("/m/f")
	before := p.seen("/m/f")
	p.then.Store(func(at string) { p.away[2].Store(at == "after close" || p.away[2].Load()) })
	p.moveTo("/m/f", 3)
	require.Len(t, p.host.Group().Machine().Departed(), 1)
	_, err := p.client().Create(ctx, &metapb.CreateRequest{Target: at("/m/f/fresh"), Mode: 0o644, Complete: true})
	require.NoError(t, err, "who has never been there is referred to where it is")
	for _, path := range []string{"/m/f/fresh", "/m/f/made", "/m/f"} {
		_, err = p.two.Stat(ctx, &metapb.StatRequest{H: &metapb.Header{}, Target: at(path)})
		require.ErrorIs(t, err, orca.Busy, path)
	}
	p.then.Store(func(string) {})
	p.away[2].Store(false)
	p.settled("/m/f")
	require.NoError(t, p.remove("/m/f/fresh", false))
	require.Equal(t, len(before), len(p.seen("/m/f")))
	p.check()
}

// Whoever waits for a move makes no work for the members.
func TestWhoWaitsForAMoveAsksOnce(t *testing.T) {
	p := newPairOn(t, true)
	ctx := t.Context()
	store := t.TempDir()
	p.mount("/m", "file://"+store, 0)
	p.furnish(store, "/m/g")
	p.leave()
	p.slow, p.busy = false, time.Second
	p.serve()
	p.then.Store(func(at string) { p.away[2].Store(at == "after self" || p.away[2].Load()) })
	_, err := p.regroup("/m/g", 2, metapb.RegroupAsk_REGROUP_BEGIN)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.away[2].Load() }, time.Minute, time.Millisecond)
	applied := p.host.Group().Machine().Counts().Commands
	const writers = 50
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, err := p.one.Create(ctx, &metapb.CreateRequest{H: &metapb.Header{}, Target: at("/m/g/w" + strconv.Itoa(i)), Mode: 0o644, Complete: true})
			if orca.KindOf(err) != orca.Busy {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	require.Less(t, p.host.Group().Machine().Counts().Commands-applied, int64(3*writers), "each asks once, not all the time")
	p.then.Store(func(string) {})
	p.away[2].Store(false)
	p.moved("/m/g")
	p.told()
	p.check()
}
