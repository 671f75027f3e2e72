// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"testing"
	"time"

	"orca"
	"orca/dataplane/frame"
	"orca/dataplane/transport"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

var cutFor = flag.Duration("cut", 1500*time.Millisecond, "for how long links are cut")

// answerBound is within what time a member that cannot decide must have said
// so: it steps down when it has not heard of a majority for an election, and
// gives the rest up soon after.
const answerBound = 2 * time.Second

// lone asks one member, once per call, whatever it answers.
type lone struct {
	t *testing.T
	c *transport.Client
}

func (c *cluster) lone(node string) *lone {
	c.t.Helper()
	tc, err := transport.NewClient(transport.ClientConfig{Network: "tcp", Addr: c.meta[node]}, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { tc.Close() })
	return &lone{c.t, tc}
}

func (l *lone) call(ctx context.Context, op frame.Op, q, p metawire.Message) error {
	l.t.Helper()
	b, err := metawire.Marshal(q)
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := l.c.Call(ctx, op, b, nil)
	if err != nil {
		return err
	}
	defer r.Release()
	return p.UnmarshalVT(r.Meta)
}

// reads stats a path over and over while a fault lasts, as a client of the
// history, and notes the longest time without an answer.
func (l *lone) reads(ctx context.Context, h *history, id int, path string) (answers int, longest time.Duration) {
	for i := 0; ctx.Err() == nil; i++ {
		a := &act{client: id, verb: "stat", path: path, call: time.Since(h.begun).Nanoseconds()}
		began := time.Now()
		rep := &metapb.StatReply{}
		err := l.call(context.WithoutCancel(ctx), metawire.OpStat, &metapb.StatRequest{H: &metapb.Header{AnyMember: i%2 == 1}, Target: &metapb.Target{Path: path}, Sync: &metapb.SyncOption{}}, rep)
		longest = max(longest, time.Since(began))
		a.ret = time.Since(h.begun).Nanoseconds()
		a.kind = orca.KindOf(err)
		switch {
		case err == nil:
			a.dir = rep.Attr.GetType() == uint32(orca.TypeDir)
		case a.kind == orca.NotFound || a.kind == orca.NotDir:
		default:
			if !a.kind.Retryable() {
				l.t.Errorf("a member that is cut off answers %v", err)
			}
			a.unknown, a.ret = true, math.MaxInt64
		}
		if !a.unknown {
			answers++
			h.mu.Lock()
			h.acts = append(h.acts, a)
			h.mu.Unlock()
		}
		<-time.After(10 * time.Millisecond)
	}
	return answers, longest
}

// TestCutLinks cuts the links between three members, all and some, both ways
// and one way, for a while and on and off, while clients reach all of them. A
// member that cannot decide says so within a bound, what a client has asked of
// it is done once, and one order of all operations explains the answers.
func TestCutLinks(t *testing.T) {
	inside, whyNot := isolate(t)
	if whyNot != nil {
		t.Skipf("links cannot be cut here: %v", whyNot)
	}
	if !inside {
		return
	}
	c := newCluster(t)
	n, err := newNetwork(t, firstMembers)
	if err != nil {
		t.Skipf("no network can be made of namespaces here: %v", err)
	}
	c.where = n.ns
	for _, node := range firstMembers {
		c.raft[node], c.meta[node] = n.ip[node]+":18200", n.ip[node]+":18998"
	}
	c.begin()
	h, clients := newHistory(t, c)
	fs := c.fs()
	roles := func() (leader string, followers []string) {
		leader = c.leader(fs)
		for _, node := range firstMembers {
			if node != leader {
				followers = append(followers, node)
			}
		}
		return leader, followers
	}
	id := 100
	// during has the links be as cut makes them, and clients that know but one
	// member, node, among the others.
	during := func(what, node string, cut, mend func()) {
		t.Helper()
		id++
		began := time.Now()
		l := c.lone(node)
		h.phase(clients, func() {
			ctx, over := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			var answers int
			var longest, pending time.Duration
			wg.Go(func() { answers, longest = l.reads(ctx, h, id+100, "/a") })
			cut()
			wg.Go(func() { pending = h.once(id, node, ctx.Done()) })
			<-time.After(*cutFor)
			mend()
			over()
			wg.Wait()
			if longest > answerBound {
				t.Errorf("%s: %v without an answer", what, longest)
			}
			t.Logf("%-42s %3d answers of %s, longest wait %v; its pending write was settled after %v", what, answers, node,
				longest.Round(time.Millisecond), pending.Round(time.Millisecond))
		})
		t.Logf("%-42s over after %v", what, time.Since(began).Round(time.Millisecond))
	}
	both := func(do func(from, to string), a string, others ...string) func() {
		return func() {
			for _, b := range others {
				do(a, b)
				do(b, a)
			}
		}
	}
	oneWay := func(do func(from, to string), a string, others ...string) func() {
		return func() {
			for _, b := range others {
				do(a, b)
			}
		}
	}

	leader, followers := roles()
	during("leader cut off", leader, both(n.cut, leader, followers...), both(n.mend, leader, followers...))
	leader, followers = roles()
	during("follower cut off", followers[0], both(n.cut, followers[0], leader, followers[1]), both(n.mend, followers[0], leader, followers[1]))
	leader, followers = roles()
	during("leader cut from one follower", leader, both(n.cut, leader, followers[0]), both(n.mend, leader, followers[0]))
	leader, followers = roles()
	during("leader is not heard", leader, oneWay(n.cut, leader, followers...), oneWay(n.mend, leader, followers...))
	leader, followers = roles()
	during("leader does not hear", leader, func() {
		n.cut(followers[0], leader)
		n.cut(followers[1], leader)
	}, func() {
		n.mend(followers[0], leader)
		n.mend(followers[1], leader)
	})
	leader, followers = roles()
	stop, flapped := make(chan struct{}), make(chan struct{})
	during("links of the leader flap", leader, func() {
		go func() {
			defer close(flapped)
			for i := 0; ; i++ {
				f := followers[i%2]
				both(n.cut, leader, f)()
				<-time.After(150 * time.Millisecond)
				both(n.mend, leader, f)()
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		}()
	}, func() { close(stop); <-flapped })
	h.phase(clients, func() {}) // all is well again
	h.judge()
}

// once makes a directory that nobody else makes, with one number, and has it
// noted: first at the member that a fault is about, which may say only that it
// does not lead, and from mended on at whoever leads. Its one answer is that it
// was made.
func (h *history) once(id int, node string, mended <-chan struct{}) time.Duration {
	t := h.t
	a := &act{client: id, verb: "mkdir", path: fmt.Sprintf("/once%d", id), call: time.Since(h.begun).Nanoseconds()}
	q := &metapb.MkdirRequest{H: &metapb.Header{Client: 1<<40 + uint64(id), Seq: 1, Caller: &metapb.Caller{}}, Target: &metapb.Target{Path: a.path}, Mode: 0o755}
	began := time.Now()
	asked := []*lone{h.c.lone(node)}
	for i := 0; ; i++ {
		at := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := asked[i%len(asked)].call(ctx, metawire.OpMkdir, q, &metapb.MkdirReply{})
		cancel()
		if took := time.Since(at); took > answerBound {
			t.Errorf("a write at a member that is cut off had no answer for %v", took)
		}
		if kind := orca.KindOf(err); !kind.Retryable() || time.Since(began) > time.Minute {
			a.kind, a.ret = kind, time.Since(h.begun).Nanoseconds()
			if err != nil {
				t.Errorf("%s: %v", a.path, err)
			}
			h.mu.Lock()
			h.acts = append(h.acts, a)
			h.mu.Unlock()
			return time.Since(began)
		}
		select {
		case <-mended:
			if len(asked) == 1 {
				asked = nil
				for _, n := range firstMembers {
					asked = append(asked, h.c.lone(n))
				}
			}
		default:
		}
		<-time.After(10 * time.Millisecond)
	}
}
