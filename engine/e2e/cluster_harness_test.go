// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orca/dataplane/freeport"
	"orca/engine/client"
)

// cluster is a metaplane of several processes, over a folder as store.
type cluster struct {
	t     *testing.T
	root  string            // the store
	raft  map[string]string // by node
	meta  map[string]string
	data  map[string]string
	nodes map[string]*proc // that run
	where map[string]netns // of nodes that are not on this network
}

// fixedAddr returns a loopback address that stays free while its process is
// dead.
func fixedAddr(t *testing.T) string {
	t.Helper()
	addrs, err := freeport.Addrs(1)
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

// firstMembers are the nodes that a cluster begins with.
var firstMembers = []string{"a", "b", "c"}

// newCluster chooses where three members will be; begin starts them.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, root: t.TempDir(), raft: map[string]string{}, meta: map[string]string{}, data: map[string]string{}, nodes: map[string]*proc{}}
	for _, n := range firstMembers {
		c.raft[n], c.meta[n], c.data[n] = fixedAddr(t), fixedAddr(t), t.TempDir()
	}
	return c
}

// begin starts the members and waits until they serve.
func (c *cluster) begin(args ...string) {
	c.t.Helper()
	var peers []string
	for _, n := range firstMembers {
		peers = append(peers, n+"="+c.raft[n])
	}
	args = append(args, "--root", c.root, "--peers", strings.Join(peers, ","))
	var ready []<-chan struct{}
	for _, n := range firstMembers {
		ready = append(ready, c.launch(n, args...))
	}
	for i, n := range firstMembers {
		c.await(n, ready[i])
	}
}

// startCluster starts three members and waits until they serve.
func startCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.begin(args...)
	return c
}

// launch starts a member; what it is, its folder knows from the first start.
func (c *cluster) launch(node string, args ...string) <-chan struct{} {
	c.t.Helper()
	all := slices.Concat([]string{"start", "--role", "meta", "--node", node, "--data", c.data[node], "--meta-addr", c.meta[node], "--web-addr", "127.0.0.1:0"}, args)
	p, ready := launchIn(c.t, c.data[node], c.where[node], nil, all...)
	c.nodes[node] = p
	return ready
}

func (c *cluster) await(node string, ready <-chan struct{}) {
	c.t.Helper()
	p := c.nodes[node]
	select {
	case <-ready:
	case err := <-p.exit:
		p.exit <- err
		c.t.Fatalf("member %s ended: %v\n%s", node, err, tail(p.output(), 6000))
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("member %s does not take part\n%s", node, tail(p.output(), 6000))
	}
	p.loadEndpoints()
}

// restart starts a member that is dead, with nothing but its folder.
func (c *cluster) restart(node string) {
	c.t.Helper()
	c.await(node, c.launch(node))
}

// addrs are the addresses of all that were ever started.
func (c *cluster) addrs() []string {
	var out []string
	for _, a := range c.meta {
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

func (c *cluster) fs() *client.FS {
	c.t.Helper()
	return dial(c.t, client.Config{Addresses: c.addrs(), FirstAnswer: time.Minute})
}

// worker starts a worker that knows all members.
func (c *cluster) worker(node string) *proc {
	c.t.Helper()
	return startWorker(c.t, strings.Join(c.addrs(), ","), node)
}

// leader returns the node that leads.
func (c *cluster) leader(fs *client.FS) string {
	c.t.Helper()
	node := ""
	eventually(c.t, 2*time.Minute, "a member leads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		q, err := fs.Quorum(ctx)
		if err != nil {
			return false
		}
		for _, m := range q.Members {
			if m.Leader {
				node = m.Node
			}
		}
		return node != ""
	})
	return node
}

// must runs a command that has to succeed, unless nobody leads just now.
func (c *cluster) must(p *proc, args ...string) string {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		o, e, code := p.cli(args...)
		if code == 0 {
			return o
		}
		if time.Now().After(deadline) || !strings.Contains(e, "leads") && !strings.Contains(e, "no Orca answers") && !strings.Contains(e, "timed out") {
			c.t.Fatalf("orca %s: exit %d\n%s%s", strings.Join(args, " "), code, o, e)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// kill ends a member with kill -9.
func (c *cluster) kill(node string) {
	c.nodes[node].kill()
	delete(c.nodes, node)
}

// storeFiles returns path → content of what is in the store.
func (c *cluster) storeFiles() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(c.root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[strings.TrimPrefix(p, c.root)] = string(b)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}
