// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"orca"
	"orca/engine/client"
	"orca/fuzz/model"
	"orca/metaplane/metaclient"
)

var historySeed = flag.Uint64("history-seed", 0, "seed of the operations of TestClusterHistory; 0: any")

// act is one operation of a client, and what came of it.
type act struct {
	client    int
	verb      string
	path, dst string
	under     string // where the names are; "" is the root
	kind      orca.Kind
	unknown   bool // it may have taken effect, or may yet
	dir       bool // of a stat
	names     []string
	call, ret int64
}

func (a *act) String() string {
	end := a.kind.String()
	if a.unknown {
		end = "unknown (" + end + ")"
	}
	return fmt.Sprintf("%8d-%-8d client %d: %s %s %s = %s %v", a.call/1000, min(a.ret, math.MaxInt32*1000)/1000, a.client, a.verb, a.path, a.dst, end, a.names)
}

// perform makes the operation of a.
func (a *act) perform(ctx context.Context, fs *client.FS) {
	var err error
	switch p := client.Path(a.under + a.path); a.verb {
	case "mkdir":
		_, err = fs.Mkdir(ctx, p, 0o755)
	case "touch":
		_, err = fs.CreateEmpty(ctx, p, client.CreateOptions{})
	case "rename":
		err = fs.Rename(ctx, p, client.Path(a.under+a.dst), false)
	case "remove":
		err = fs.Remove(ctx, p, client.RemoveOptions{})
	case "stat":
		var i client.Info
		if i, err = fs.Stat(ctx, p, client.Sync{}); err == nil {
			a.dir = i.Type == orca.TypeDir
		}
	case "list":
		var page *client.Page
		if page, err = fs.List(ctx, p, client.ListOptions{}); err == nil {
			for _, e := range page.Entries {
				a.names = append(a.names, e.Name)
			}
		}
	}
	a.kind = orca.KindOf(err)
	switch a.kind {
	case orca.OK, orca.NotFound, orca.Exists, orca.NotDir, orca.IsDir, orca.NotEmpty, orca.Invalid:
	default:
		a.unknown = true
	}
}

// step returns the trees that an operation with this answer may leave.
func (a *act) step(t model.Tree) []model.Tree {
	after := t.Clone()
	var k orca.Kind
	switch a.verb {
	case "mkdir":
		k = after.Mkdir(a.path, 0, false)
	case "touch":
		k = after.Put(a.path, model.Node{}, false)
	case "rename":
		k = after.Rename(a.path, a.dst)
	case "remove":
		k = after.Remove(a.path, false)
	case "stat":
		var n model.Node
		if n, k = t.Find(a.path); k == orca.OK && a.kind == orca.OK && n.Dir != a.dir {
			return nil
		}
	case "list":
		var n model.Node
		if n, k = t.Find(a.path); k == orca.OK && !n.Dir {
			k = orca.NotDir
		}
		if k == orca.OK && a.kind == orca.OK && !slices.Equal(t.Children(a.path), a.names) {
			return nil
		}
	}
	switch {
	case a.unknown && k == orca.OK:
		return []model.Tree{t, after}
	case a.unknown:
		return []model.Tree{t}
	case k != a.kind:
		return nil
	case k != orca.OK:
		return []model.Tree{t}
	}
	return []model.Tree{after}
}

// linearizable asks whether the acts can be put in an order that the model
// allows.
func linearizable(acts []*act, patience time.Duration) porcupine.CheckResult {
	var ops []porcupine.Operation
	for _, a := range acts {
		ops = append(ops, porcupine.Operation{ClientId: a.client, Input: a, Call: a.call, Output: a, Return: a.ret})
	}
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{model.New()} },
		Step: func(state, input, _ any) (out []any) {
			for _, t := range input.(*act).step(state.(model.Tree)) {
				out = append(out, t)
			}
			return out
		},
		Equal: func(a, b any) bool { return maps.Equal(a.(model.Tree), b.(model.Tree)) },
	}
	return porcupine.CheckOperationsTimeout(m.ToModel(), ops, patience)
}

const (
	historyClients = 4
	historyOps     = 10 // of each client in each phase
)

// history is what some clients did to one cluster.
type history struct {
	t     *testing.T
	c     *cluster
	seed  uint64
	under string
	begun time.Time
	rnd   *rand.Rand

	mu   sync.Mutex
	acts []*act
}

// draw chooses an operation on a few names, so that clients meet.
func (h *history) draw(id int) *act {
	h.mu.Lock()
	defer h.mu.Unlock()
	pick := func(of ...string) string { return of[h.rnd.IntN(len(of))] }
	name := func() string { return pick("/a", "/b") + pick("", "/x", "/y") }
	a := &act{client: id, under: h.under, verb: pick("mkdir", "mkdir", "touch", "touch", "rename", "rename", "remove", "stat", "stat", "list"), path: name()}
	switch a.verb {
	case "rename":
		a.dst = name()
	case "list":
		a.path = pick("/", "/a", "/b")
	}
	return a
}

// phase has every client do its operations, and fault happen when about a
// third of them are done.
func (h *history) phase(clients []*client.FS, fault func()) {
	var wg sync.WaitGroup
	var done atomic.Int64
	third := make(chan struct{})
	ctx := ctxFor(h.t, 3*time.Minute)
	for id, fs := range clients {
		wg.Go(func() {
			for range historyOps {
				a := h.draw(id)
				a.call = time.Since(h.begun).Nanoseconds()
				a.perform(ctx, fs)
				a.ret = time.Since(h.begun).Nanoseconds()
				if a.unknown {
					a.ret = math.MaxInt64
				}
				h.mu.Lock()
				h.acts = append(h.acts, a)
				h.mu.Unlock()
				if done.Add(1) == int64(len(clients)*historyOps/3) {
					close(third)
				}
			}
		})
	}
	<-third
	fault()
	wg.Wait()
}

// TestClusterHistory has clients work on the same few names while leaders are
// killed, stopped and woken, and holds every answer against the model: there
// is one order of all operations that explains them.
func TestClusterHistory(t *testing.T) {
	c := startCluster(t)
	h, clients := newHistory(t, c)
	fs := c.fs()
	var dead, stopped string
	h.phase(clients, func() {
		dead = c.leader(fs)
		c.kill(dead)
	})
	h.phase(clients, func() { c.restart(dead) })
	stopped = c.leader(fs)
	pinned := dial(t, client.Config{Addresses: []string{c.meta[stopped]}, FirstAnswer: time.Minute})
	h.phase(append(slices.Clone(clients), pinned), func() { c.nodes[stopped].cmd.Process.Signal(syscall.SIGSTOP) })
	h.phase(clients, func() { c.nodes[stopped].cmd.Process.Signal(syscall.SIGCONT) })
	for _, node := range firstMembers {
		if node != c.leader(fs) {
			stopped = node
		}
	}
	h.phase(clients, func() { c.nodes[stopped].cmd.Process.Signal(syscall.SIGSTOP) })
	h.phase(clients, func() { c.nodes[stopped].cmd.Process.Signal(syscall.SIGCONT) })
	h.phase(clients, func() {
		if _, err := fs.TransferLeader(ctxFor(t, time.Minute), 0); err != nil {
			t.Logf("transfer: %v", err) // another change was faster
		}
	})
	h.judge()
	h.followed()
}

// followed fails the test unless members answered reads that did not lead.
func (h *history) followed() {
	h.t.Helper()
	n := 0
	for _, p := range h.c.nodes {
		if m := regexp.MustCompile(`(?m)^orca_meta_followed_total (\d+)$`).FindStringSubmatch(p.page()); m != nil {
			i, _ := strconv.Atoi(m[1])
			n += i
		}
	}
	if h.t.Logf("%d reads were answered by followers", n); n == 0 {
		h.t.Error("no read was answered by a follower")
	}
}

// newHistory begins one, with clients that know all members; half of them read
// from any.
func newHistory(t *testing.T, c *cluster) (*history, []*client.FS) {
	t.Helper()
	seed := *historySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	clients := make([]*client.FS, historyClients)
	for i := range clients {
		cfg := client.Config{Addresses: c.addrs(), FirstAnswer: time.Minute}
		if i%2 == 1 {
			cfg.ReadFrom = metaclient.AnyMember
		}
		clients[i] = dial(t, cfg)
	}
	// What is not in a directory that was listed, a follower may say.
	if _, err := clients[0].List(ctxFor(t, time.Minute), client.Path("/"), client.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	return &history{t: t, c: c, seed: seed, begun: time.Now(), rnd: rand.New(rand.NewPCG(seed, 0))}, clients
}

// judge holds what the clients saw against the model.
func (h *history) judge() {
	t, seed := h.t, h.seed
	t.Helper()
	slices.SortFunc(h.acts, func(a, b *act) int { return int(a.call - b.call) })
	unknown := 0
	for _, a := range h.acts {
		if a.unknown {
			unknown++
		}
	}
	t.Logf("seed %d: %d operations, %d of unknown outcome, %v", seed, len(h.acts), unknown, time.Since(h.begun).Round(time.Millisecond))
	if unknown > len(h.acts)/3 {
		t.Errorf("%d of %d operations have no answer: the judge has little to hold on to", unknown, len(h.acts))
	}
	var text strings.Builder
	for _, a := range h.acts {
		text.WriteString(a.String() + "\n")
	}
	if got := linearizable(h.acts, 2*time.Minute); got != porcupine.Ok {
		t.Fatalf("seed %d: %s\n%s", seed, got, text.String())
	}
	// The judge can tell: with one answer changed there is no such order.
	for _, a := range h.acts {
		if a.verb == "mkdir" && a.kind == orca.OK {
			lie := *a
			lie.kind = orca.NotEmpty
			bent := slices.Clone(h.acts)
			bent[slices.Index(bent, a)] = &lie
			if linearizable(bent, 2*time.Minute) == porcupine.Ok {
				t.Error("the judge believes anything")
			}
			break
		}
	}
}
