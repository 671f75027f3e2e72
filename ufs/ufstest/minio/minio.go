// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package minio runs a MinIO server for tests and benchmarks: a real S3
// service on a loopback port, with credentials and a folder of its own.
//
// Ensure builds the server once per host, from the Go module proxy at a fixed
// version; Start runs it and Stop ends it. With Config.Count a small reverse
// proxy stands before it and counts requests, which is how a test proves that
// a second pass asked for no data.
//
// The server dies with this process, also when that is killed: it is started
// from a locked thread with a parent-death signal.
package minio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/ufs/s3"
)

// Module is what Ensure builds.
const Module = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	startTries   = 3 // a port may be taken between choosing and binding
)

// Binary returns where Ensure puts the server.
func Binary() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", orca.PathE("minio.Binary", "", orca.Unavailable, err)
	}
	return filepath.Join(dir, "orca", "bin", "minio"), nil
}

// Ensure returns the path of the server, building it when it is missing (some
// minutes of processor time). Progress is written to out, which may be nil;
// several processes at once build it once.
func Ensure(ctx context.Context, out io.Writer) (string, error) {
	const op = "minio.Ensure"
	bin, err := Binary()
	if err != nil {
		return "", err
	}
	if executable(bin) {
		return bin, nil
	}
	if out == nil {
		out = io.Discard
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return "", orca.PathE(op, bin, orca.Unavailable, err)
	}
	lock, err := os.OpenFile(bin+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", orca.PathE(op, bin, orca.Unavailable, err)
	}
	defer lock.Close()
	if err := flock(ctx, lock, out); err != nil {
		return "", orca.PathE(op, bin, orca.Timeout, err)
	}
	if executable(bin) {
		return bin, nil
	}
	return bin, build(ctx, bin, out)
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// flock waits for the lock of whoever builds now.
func flock(ctx context.Context, f *os.File, out io.Writer) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !told {
			told = true
			fmt.Fprintln(out, "minio: another process is building the server, waiting")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// build compiles into a temporary folder and moves the result into place.
func build(ctx context.Context, bin string, out io.Writer) error {
	const op = "minio.Ensure"
	tmp, err := os.MkdirTemp(filepath.Dir(bin), ".build-")
	if err != nil {
		return orca.PathE(op, bin, orca.Unavailable, err)
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(out, "minio: building %s, once; this takes some minutes ", Module)
	var log strings.Builder
	cmd := exec.CommandContext(ctx, "go", "install", Module)
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = &log, &log
	done := make(chan struct{})
	defer close(done)
	go func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				fmt.Fprint(out, ".")
			}
		}
	}()
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return &orca.Error{Op: op, Path: bin, Kind: orca.Unavailable, Msg: "go install failed: " + tail(log.String()), Err: err}
	}
	if err := os.Rename(filepath.Join(tmp, "minio"), bin); err != nil {
		return orca.PathE(op, bin, orca.Unavailable, err)
	}
	fmt.Fprintf(out, " done in %s\n", time.Since(start).Round(time.Second))
	return nil
}

func tail(s string) string {
	const most = 2000
	return strings.TrimSpace(s[max(0, len(s)-most):])
}

// Config says what to run.
type Config struct {
	// Dir is a folder for data and log; it is made when missing.
	Dir string
	// Buckets are made before Start returns.
	Buckets []string
	// Count puts the counting proxy before the server.
	Count bool
	// Progress gets what Ensure says; may be nil.
	Progress io.Writer
	// AccessKey and SecretKey; "": random ones.
	AccessKey, SecretKey string
	// Addr to listen on; "": a free loopback port.
	Addr string
}

// Server is a running MinIO.
type Server struct {
	// Endpoint is the URL to use: the proxy's when requests are counted.
	Endpoint             string
	AccessKey, SecretKey string

	cfg   Config
	addr  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	count *counter
}

// Start runs a server and returns when it answers. It lives until Stop, or
// until this process ends.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	bin, err := Ensure(ctx, cfg.Progress)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "data"), 0o755); err != nil {
		return nil, orca.PathE("minio.Start", cfg.Dir, orca.Unavailable, err)
	}
	if cfg.AccessKey == "" {
		cfg.AccessKey, cfg.SecretKey = rand.Text()[:16], rand.Text()
	}
	s := &Server{cfg: cfg, AccessKey: cfg.AccessKey, SecretKey: cfg.SecretKey}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for i := range startTries {
		if err = s.run(ctx, bin); err == nil || ctx.Err() != nil || cfg.Addr != "" && i > 0 {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	s.Endpoint = "http://" + s.addr
	for _, b := range cfg.Buckets {
		if err := s.CreateBucket(ctx, b); err != nil {
			s.Stop()
			return nil, err
		}
	}
	if cfg.Count {
		if s.count, err = newCounter(s.addr); err != nil {
			s.Stop()
			return nil, err
		}
		s.Endpoint = "http://" + s.count.addr
	}
	return s, nil
}

// Restart runs the server again after Stop or Kill, on the same address with
// the same data.
func (s *Server) Restart(ctx context.Context) error {
	bin, err := Ensure(ctx, s.cfg.Progress)
	if err != nil {
		return err
	}
	s.cfg.Addr = s.addr
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.run(ctx, bin)
}

// run starts the process once and waits until it answers.
func (s *Server) run(ctx context.Context, bin string) error {
	const op = "minio.Start"
	s.addr = s.cfg.Addr
	if s.addr == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return orca.PathE(op, "", orca.Unavailable, err)
		}
		s.addr = l.Addr().String()
		_ = l.Close()
	}
	logPath := filepath.Join(s.cfg.Dir, "minio.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return orca.PathE(op, logPath, orca.Unavailable, err)
	}
	defer log.Close()
	cmd := exec.Command(bin, "server", "--quiet", "--address", s.addr, "--certs-dir", filepath.Join(s.cfg.Dir, "certs"), filepath.Join(s.cfg.Dir, "data"))
	cmd.Env = append(os.Environ(),
		"MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey,
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off", "MINIO_PROMETHEUS_AUTH_TYPE=public",
		"HOME="+s.cfg.Dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	ended := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the parent-death signal is bound to the thread
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return orca.PathE(op, bin, orca.Unavailable, err)
	}
	s.cmd, s.ended = cmd, ended
	if err := s.live(ctx); err != nil {
		s.Kill()
		b, _ := os.ReadFile(logPath)
		return &orca.Error{Op: op, Path: s.addr, Kind: orca.Unavailable, Msg: "the server does not answer; its log ends: " + tail(string(b)), Err: err}
	}
	return nil
}

// live polls the health page.
func (s *Server) live(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/minio/health/live", nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.ended:
			return errors.New("the process ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Config returns the s3.Config of a bucket of this server.
func (s *Server) Config(bucket, prefix string) s3.Config {
	return s3.Config{Bucket: bucket, Prefix: prefix, Endpoint: s.Endpoint, Region: "us-east-1", PathStyle: true, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
}

// Options returns the mount options that lead to this server.
func (s *Server) Options() map[string]string {
	return map[string]string{
		"s3.endpoint": s.Endpoint, "s3.region": "us-east-1", "s3.path_style": "true",
		"s3.access_key": s.AccessKey, "s3.secret_key": s.SecretKey,
	}
}

// CreateBucket makes a bucket.
func (s *Server) CreateBucket(ctx context.Context, name string) error {
	for {
		err := s3.CreateBucket(ctx, s.Config(name, ""))
		if !orca.KindOf(err).Retryable() || ctx.Err() != nil {
			return err
		}
		select { // it answers pings before it is initialised
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Pid returns the process id of the server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop ends the server and the proxy; a server that does not end in time is
// killed.
func (s *Server) Stop() {
	if s.count != nil {
		s.count.close()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		s.Kill()
	}
}

// Kill ends the server as a crash would; the proxy stays.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}
