// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package target starts what a benchmark drives: Orca as separate processes on
// free ports below one folder. It finds the binary, waits for the ready line
// and endpoints.json, and stops every process by its id, with SIGTERM first.
//
// Flow: bench/suite starts an Orca per run. One goroutine per process drains
// its output into a bounded log, which is part of the error when a start
// fails. Nothing is left running when Stop returns, whatever happened before.
package target

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"orca/dataplane/freeport"
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	logTail      = 16 << 10
)

// Find returns the path of the orca binary: the one beside self, else the one
// on PATH, else it is built from the module that the working directory is in,
// into dir.
func Find(ctx context.Context, self, dir string, progress io.Writer) (string, error) {
	beside := filepath.Join(filepath.Dir(self), "orca")
	if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
		return beside, nil
	}
	if p, err := exec.LookPath("orca"); err == nil {
		return p, nil
	}
	fmt.Fprintln(progress, "building orca (the first build takes a few minutes)")
	out := filepath.Join(dir, "orca")
	b, err := exec.CommandContext(ctx, "go", "build", "-o", out, "orca/engine/cmd/orca").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("no orca binary beside %s or on PATH, and building one failed: %w\n%s", self, err, b)
	}
	return out, nil
}

// Endpoints is where an Orca listens, as its DATA/endpoints.json says. It is
// read here as any program would, so that orcabench links no server.
type Endpoints struct {
	Node       string `json:"node"`
	Meta       string `json:"meta"`        // host:port of the metadata RPC
	MetaSocket string `json:"meta_socket"` // the same on a Unix socket
	HTTP       string `json:"http"`        // metrics, health, profiles
	Mount      string `json:"mount"`
}

func readEndpoints(data string) (e Endpoints, err error) {
	b, err := os.ReadFile(filepath.Join(data, "endpoints.json"))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("endpoints.json: %w", err)
	}
	if e.Meta == "" {
		return e, errors.New("endpoints.json names no metadata address")
	}
	return e, nil
}

// Orca is one running process.
type Orca struct {
	// Endpoints is what the process says in endpoints.json.
	Endpoints Endpoints
	// Data is its folder.
	Data string

	cmd  *exec.Cmd
	args []string
	exit chan struct{} // closed when the process is gone
	log  *tail
	// grace is how long Stop waits before it kills.
	grace time.Duration
}

// Up runs "orca up" with all ports free and waits until it is ready. ctx bounds
// the start alone: a running process ends by Stop, or with this process.
func Up(ctx context.Context, bin, data string, args ...string) (*Orca, error) {
	const free = "127.0.0.1:0"
	return start(ctx, bin, data, append([]string{"up", "--data", data, "--meta-addr", free, "--worker-addr", free, "--web-addr", free}, args...))
}

// Start runs orca with arguments that serve from the folder data, and waits
// until it is ready, as Up does.
func Start(ctx context.Context, bin, data string, args []string) (*Orca, error) {
	return start(ctx, bin, data, args)
}

// Three runs a metaplane of three members below dir, with its root on a folder,
// and waits until all take part. What runs is returned with an error, too.
func Three(ctx context.Context, bin, dir, root string) ([]*Orca, error) {
	addrs, err := freeport.Addrs(6)
	if err != nil {
		return nil, err
	}
	names := []string{"a", "b", "c"}
	var peers []string
	for i, n := range names {
		peers = append(peers, n+"="+addrs[i])
	}
	members, errs := make([]*Orca, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		wg.Go(func() {
			data := filepath.Join(dir, n)
			members[i], errs[i] = start(ctx, bin, data, []string{"start", "--role", "meta", "--node", n, "--data", data,
				"--meta-addr", addrs[3+i], "--web-addr", "127.0.0.1:0", "--root", root, "--peers", strings.Join(peers, ",")})
		})
	}
	wg.Wait()
	return slices.DeleteFunc(members, func(o *Orca) bool { return o == nil }), errors.Join(errs...)
}

func start(ctx context.Context, bin, data string, args []string) (*Orca, error) {
	o := &Orca{Data: data, args: args, exit: make(chan struct{}), log: &tail{}, grace: stopTimeout}
	o.cmd = exec.Command(bin, args...)
	o.cmd.Stderr = o.log
	// A group of its own: Ctrl-C reaches us alone, and we stop it in order.
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stdout, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ready, started := make(chan struct{}), make(chan error, 1)
	go o.watch(stdout, started, ready)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", bin, err)
	}
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-ready:
	case <-o.exit:
		return nil, fmt.Errorf("orca ended before it was ready: %s\n%s", o.cmd.ProcessState, o.log)
	case <-timer.C:
		err = fmt.Errorf("orca was not ready within %s", startTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		o.Endpoints, err = readEndpoints(data)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, o.log), o.Stop())
	}
	return o, nil
}

// watch starts the process and reads its output until it ends.
func (o *Orca) watch(stdout io.Reader, started chan<- error, ready chan<- struct{}) {
	runtime.LockOSThread() // the parent-death signal is that of the starting thread
	defer runtime.UnlockOSThread()
	err := o.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	seen := false
	for sc := bufio.NewScanner(stdout); sc.Scan(); {
		fmt.Fprintln(o.log, sc.Text())
		if !seen && strings.Contains(sc.Text(), "orca is ready") {
			seen = true
			close(ready)
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // a line too long for the scanner
	_ = o.cmd.Wait()                   // how it ended is in ProcessState
	close(o.exit)
}

// PID returns the process id.
func (o *Orca) PID() int { return o.cmd.Process.Pid }

// Kill is kill -9; it returns when the process is gone.
func (o *Orca) Kill() error {
	err := o.cmd.Process.Kill()
	if err == nil {
		<-o.exit
	}
	return err
}

// Again starts a process that is gone as it was started, on its folder.
func (o *Orca) Again(ctx context.Context) (*Orca, error) {
	return start(ctx, o.cmd.Path, o.Data, o.args)
}

// Alive returns an error, with the end of its log, when the process is gone.
func (o *Orca) Alive() error {
	select {
	case <-o.exit:
		return fmt.Errorf("orca is gone: %s\n%s", o.cmd.ProcessState, o.log)
	default:
		return nil
	}
}

// Stop asks the process to end, waits, and kills it when it does not.
func (o *Orca) Stop() error {
	select {
	case <-o.exit:
		return nil
	default:
	}
	_ = o.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
	timer := time.NewTimer(o.grace)
	defer timer.Stop()
	select {
	case <-o.exit:
		return nil
	case <-timer.C:
	}
	_ = o.cmd.Process.Kill()
	<-o.exit
	return fmt.Errorf("orca did not stop within %s and was killed\n%s", o.grace, o.log)
}

// tail keeps the last bytes written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if n := len(t.b); n > logTail {
		t.b = append(t.b[:0], t.b[n-logTail:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
