// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"orca/engine/client"
)

// orcaBin is the binary under test, built once by TestMain from this tree.
var orcaBin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if orcaBin = os.Getenv(isolated); orcaBin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "orca-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	orcaBin = filepath.Join(dir, "orca")
	build := exec.Command("go", "build", "-o", orcaBin, "orca/engine/cmd/orca")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building orca:", err)
		return 1
	}
	defer stopMinIO()
	return m.Run()
}

// endpoints mirrors DATA/endpoints.json: the test reads it as a stranger would.
type endpoints struct {
	PID          int    `json:"pid"`
	Meta         string `json:"meta"`
	MetaSocket   string `json:"meta_socket"`
	HTTP         string `json:"http"`
	Worker       string `json:"worker"`
	WorkerSocket string `json:"worker_socket"`
}

// proc is one running orca daemon.
type proc struct {
	t    *testing.T
	cmd  *exec.Cmd
	data string
	ep   endpoints
	took time.Duration // from exec to the ready line
	exit chan error
	mu   sync.Mutex
	log  bytes.Buffer
}

// Write collects the daemon's log for failures.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.Len() < 1<<20 {
		p.log.Write(b)
	}
	return len(b), nil
}

func (p *proc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// launch starts the binary without waiting for it to be ready.
func launch(t *testing.T, data string, env []string, args ...string) (*proc, <-chan struct{}) {
	t.Helper()
	return launchIn(t, data, 0, env, args...)
}

// launchIn is launch in another network namespace; 0 is this one.
func launchIn(t *testing.T, data string, net netns, env []string, args ...string) (*proc, <-chan struct{}) {
	t.Helper()
	p := &proc{t: t, data: data, exit: make(chan error, 1)}
	p.cmd = exec.Command(orcaBin, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := net.do(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		sc := bufio.NewScanner(out)
		seen := false
		for sc.Scan() {
			fmt.Fprintln(p, sc.Text())
			if !seen && strings.Contains(sc.Text(), "orca is ready") {
				seen = true
				p.took = time.Since(begin)
				close(ready)
			}
		}
		io.Copy(io.Discard, out)
		p.exit <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		// What a killed process leaves for its next start to adopt has no next
		// start here.
		syscall.Unmount(filepath.Join(data, "run", "mem"), syscall.MNT_DETACH)
		if t.Failed() {
			t.Logf("log of orca %s:\n%s", strings.Join(args, " "), tail(p.output(), 6000))
		}
	})
	return p, ready
}

// freePorts lets the kernel choose every port.
var freePorts = []string{"--meta-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0", "--worker-addr", "127.0.0.1:0", "--worker-web-addr", "127.0.0.1:0"}

// up runs `orca up` on free ports and waits until it is ready.
func up(t *testing.T, data string, args ...string) *proc {
	t.Helper()
	return upEnv(t, data, nil, args...)
}

func upEnv(t *testing.T, data string, env []string, args ...string) *proc {
	t.Helper()
	all := slices.Concat([]string{"up", "--data", data}, freePorts, args)
	p, ready := launch(t, data, env, all...)
	select {
	case <-ready:
	case err := <-p.exit:
		p.exit <- err
		t.Fatalf("orca up ended before it was ready: %v\n%s", err, tail(p.output(), 6000))
	case <-time.After(2 * time.Minute):
		p.kill()
		t.Fatalf("orca up was not ready in time\n%s", tail(p.output(), 6000))
	}
	p.loadEndpoints()
	return p
}

func (p *proc) loadEndpoints() {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.data, "endpoints.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p.ep); err != nil {
		p.t.Fatal(err)
	}
}

// kill is kill -9 by process id; it waits until the process is gone.
func (p *proc) kill() {
	p.cmd.Process.Signal(syscall.SIGKILL)
	err := <-p.exit
	p.exit <- err
}

// stop is SIGTERM; it returns the exit error.
func (p *proc) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.exit:
		p.exit <- err
		return err
	case <-time.After(2 * time.Minute):
		p.kill()
		return errors.New("no clean stop within 30 s")
	}
}

// fs returns a client of the process over its Unix socket.
func (p *proc) fs() *client.FS {
	p.t.Helper()
	return dial(p.t, client.Config{Addresses: []string{p.ep.MetaSocket}})
}

func dial(t *testing.T, cfg client.Config) *client.FS {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fs, err := client.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// cli runs one command of the binary against p and returns its outputs and
// exit code.
func (p *proc) cli(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	cmd := exec.Command(orcaBin, args...)
	cmd.Env = append(os.Environ(), "ORCA_ADDRESS="+p.ep.MetaSocket)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		code = ee.ExitCode()
	case err != nil:
		p.t.Fatal(err)
	}
	return o.String(), e.String(), code
}

// must is cli that has to succeed; it returns stdout.
func (p *proc) must(args ...string) string {
	p.t.Helper()
	o, e, code := p.cli(args...)
	if code != 0 {
		p.t.Fatalf("orca %s: exit %d\n%s%s", strings.Join(args, " "), code, o, e)
	}
	return o
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// eventually polls cond until it holds; what is asked of the world outside has
// a deadline, never a sleep that hopes.
func eventually(t *testing.T, d time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", d, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// metric sums a metric over its labels.
func (p *proc) metric(name string) float64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.ep.HTTP + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	sum := 0.0
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		line := sc.Text()
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				p.t.Fatalf("metric line %q: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}
