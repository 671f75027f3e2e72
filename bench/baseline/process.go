// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Role is the first argument of a process that a suite starts of its own
// binary.
const Role = "baseline-process"

// Main is the body of such a process: "raw-serve FILE", "raw-receive PORT",
// "grpc-serve FILE", "crowd-serve FILE",
// "crowd-sink FOLDER", "echo-serve SIZE" or what the roles given by the caller add. It returns when stdin ends.
func Main(args []string, more map[string]func(args []string) error) error {
	if len(args) == 0 {
		return errors.New("a role is missing")
	}
	switch {
	case args[0] == "raw-serve" && len(args) == 2:
		return RawServe(args[1], os.Stdin, os.Stdout)
	case args[0] == "raw-receive" && len(args) == 2:
		port, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return RawReceive(port, os.Stdin, os.Stdout)
	case args[0] == "grpc-serve" && len(args) == 2:
		return GRPCServe(args[1], os.Stdin, os.Stdout)
	case args[0] == "crowd-serve" && len(args) == 2:
		return CrowdServe(args[1], "", os.Stdin, os.Stdout)
	case args[0] == "crowd-sink" && len(args) == 2:
		return CrowdServe("", args[1], os.Stdin, os.Stdout)
	case args[0] == "echo-serve" && len(args) == 2:
		size, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return EchoServe(size, os.Stdin, os.Stdout)
	}
	if run, ok := more[args[0]]; ok {
		return run(args[1:])
	}
	return fmt.Errorf("unknown role %q", strings.Join(args, " "))
}

// Process is a running child of this binary in some role.
type Process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// Start starts self with the role's arguments; it ends when ctx does, on
// Close, and when this process dies (its stdin ends then).
func Start(ctx context.Context, self string, args ...string) (*Process, error) {
	cmd := exec.CommandContext(ctx, self, append([]string{Role}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Process{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Line returns the next line of output.
func (p *Process) Line() (string, error) {
	if !p.lines.Scan() {
		return "", errors.Join(errors.New("the process ended early"), p.lines.Err())
	}
	return p.lines.Text(), nil
}

// Ask writes a line and returns the answer.
func (p *Process) Ask(line string) (string, error) {
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		return "", err
	}
	return p.Line()
}

// Close ends the process and waits for it.
func (p *Process) Close() error {
	p.stdin.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	return p.cmd.Wait()
}

// RawPair is a sender and a receiver in two processes, connected.
type RawPair struct {
	send, receive *Process
}

// StartRawPair starts both over file.
func StartRawPair(ctx context.Context, self, file string) (*RawPair, error) {
	send, err := Start(ctx, self, "raw-serve", file)
	if err != nil {
		return nil, err
	}
	port, err := send.Line()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw sender: %w", err), send.Close())
	}
	receive, err := Start(ctx, self, "raw-receive", port)
	if err != nil {
		return nil, errors.Join(err, send.Close())
	}
	return &RawPair{send: send, receive: receive}, nil
}

// Move moves size bytes once and returns the time it took.
func (r *RawPair) Move(p Pattern, size int64) (time.Duration, error) {
	line, err := r.receive.Ask(fmt.Sprintf("%s %d", p, size))
	if err != nil {
		return 0, fmt.Errorf("raw receiver: %w", err)
	}
	var res RawResult
	if err := json.Unmarshal([]byte(line), &res); err != nil {
		return 0, fmt.Errorf("raw receiver said %q: %w", line, err)
	}
	if res.Err != "" {
		return 0, errors.New("raw receiver: " + res.Err)
	}
	return res.Took, nil
}

// PIDs returns the ids of both processes, whose CPU time is the pair's.
func (r *RawPair) PIDs() []int { return []int{r.send.PID(), r.receive.PID()} }

// Close ends both processes.
func (r *RawPair) Close() error {
	return errors.Join(r.receive.Close(), r.send.Close())
}
