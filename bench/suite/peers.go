// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"orca/bench/target"
	"orca/bench/workload"
)

// The peers suite drives the namespaces of other systems, which the user has
// started, and Orca's with the same operations and as many clients, in turns:
// HDFS's NameNode by its own protocol, Alluxio's master by the stress bench that
// comes with it. Files are empty, and durable on both sides.
func peersCases() []Case {
	var out []Case
	for _, n := range []int{16, 128} {
		out = append(out,
			hdfsCase("create", n, "create an empty file and complete it (two RPCs there, one here)", openHDFSCreate),
			hdfsCase("create-open", n, "create an empty file, which HDFS is not asked to complete (one RPC on both sides)", openHDFSOpen),
			hdfsCase("stat", n, "stat by path", openHDFSStat),
			alluxioCase("create", n, "CreateFile", "create an empty file and complete it"),
			alluxioCase("stat", n, "GetFileStatus", "stat by path"))
	}
	return out
}

func hdfsCase(op string, n int, about string, open func(ctx context.Context, s *stage, n int) (*trial, error)) Case {
	return Case{Suite: "peers", Name: fmt.Sprintf("hdfs-%s-%d", op, n), Metric: op, Unit: unitOps, Baseline: hdfsName,
		About: fmt.Sprintf("%s, %d clients, against HDFS's NameNode", about, n),
		needs: func(o *Options) bool { return o.HDFS != "" },
		open:  func(ctx context.Context, s *stage) (*trial, error) { return open(ctx, s, n) }}
}

func alluxioCase(op string, n int, name, about string) Case {
	return Case{Suite: "peers", Name: fmt.Sprintf("alluxio-%s-%d", op, n), Metric: op, Unit: unitOps, Baseline: alluxioName,
		About: fmt.Sprintf("%s, %d clients, against Alluxio's master by its StressMasterBench", about, n),
		needs: func(o *Options) bool { return len(o.Alluxio) > 0 },
		open:  func(ctx context.Context, s *stage) (*trial, error) { return openAlluxio(ctx, s, name, n) }}
}

const (
	hdfsName    = "HDFS NameNode"
	alluxioName = "Alluxio master"
)

// hdfsCrowd is n clients of a NameNode, with a connection and a directory each.
type hdfsCrowd struct {
	s       *stage
	clients []*target.HDFS
	base    string
}

func (h *hdfsCrowd) close() error {
	var errs []error
	if len(h.clients) > 0 {
		errs = append(errs, h.clients[0].RemoveAll(h.base))
	}
	for _, c := range h.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// hdfs connects to the NameNode and warms it: a Java virtual machine compiles
// what it has run often.
func (s *stage) hdfs(ctx context.Context, n int) (*hdfsCrowd, error) {
	h := &hdfsCrowd{s: s, base: fmt.Sprintf("/orcabench-%d", time.Now().UnixNano())}
	for range n {
		c, err := target.DialHDFS(s.opt.HDFS)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		h.clients = append(h.clients, c)
	}
	for lane := range n {
		if err := h.clients[lane].MkdirAll(h.dir(lane)); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	s.facts.Config["hdfs"] = s.opt.HDFS + ", warmed for " + s.opt.Warm.String()
	if _, err := timed(ctx, n, s.opt.Warm, func(_ context.Context, lane, i int) error {
		p := fmt.Sprintf("%s/warm-%08d", h.dir(lane), i)
		if err := h.clients[lane].CreateEmpty(p); err != nil {
			return err
		}
		return h.clients[lane].Stat(p)
	}); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// dir is as deep as that of a lane of Orca.
func (h *hdfsCrowd) dir(lane int) string { return fmt.Sprintf("%s/meta/%03d", h.base, lane) }

func (h *hdfsCrowd) side(op func(c *target.HDFS, path string) error) side {
	return side{name: hdfsName, pids: h.s.opt.PeerPIDs, run: func(ctx context.Context) (measure, error) {
		run := h.s.serial.Add(1)
		return timed(ctx, len(h.clients), h.s.opt.Sample, func(_ context.Context, lane, i int) error {
			return op(h.clients[lane], fmt.Sprintf("%s/f-%04d-%08d", h.dir(lane), run, i))
		})
	}}
}

func openHDFSCreate(ctx context.Context, s *stage, n int) (*trial, error) {
	return openHDFSWith(ctx, s, n, (*target.HDFS).CreateEmpty)
}

func openHDFSOpen(ctx context.Context, s *stage, n int) (*trial, error) {
	return openHDFSWith(ctx, s, n, (*target.HDFS).CreateOpen)
}

func openHDFSWith(ctx context.Context, s *stage, n int, create func(c *target.HDFS, path string) error) (*trial, error) {
	c, err := s.metaOf(ctx, n)
	if err != nil {
		return nil, err
	}
	h, err := s.hdfs(ctx, n)
	if err != nil {
		return nil, err
	}
	return &trial{system: c.createSide("create"), baselines: []side{h.side(create)}, close: h.close}, nil
}

func openHDFSStat(ctx context.Context, s *stage, n int) (*trial, error) {
	c, err := s.metaOf(ctx, n)
	if err != nil {
		return nil, err
	}
	paths, err := c.files(ctx, c.perLane())
	if err != nil {
		return nil, err
	}
	h, err := s.hdfs(ctx, n)
	if err != nil {
		return nil, err
	}
	name := func(lane, i int) string { return fmt.Sprintf("%s/s-%08d", h.dir(lane), i) }
	if _, err := counted(ctx, n, c.perLane(), func(_ context.Context, lane, i int) error {
		return h.clients[lane].CreateEmpty(name(lane, i))
	}); err != nil {
		return nil, errors.Join(err, h.close())
	}
	order := workload.Order(1, c.perLane())
	base := side{name: hdfsName, pids: s.opt.PeerPIDs, run: func(ctx context.Context) (measure, error) {
		return timed(ctx, n, s.opt.Sample, func(_ context.Context, lane, i int) error {
			return h.clients[lane].Stat(name(lane, order[i%len(order)]))
		})
	}}
	return &trial{system: c.statSide("stat", paths, []int{c.orca.PID()}), baselines: []side{base}, close: h.close}, nil
}

// openAlluxio has StressMasterBench drive Alluxio, in a process of its own, and
// reads what it says. Its own warm-up is within the time that it is given.
func openAlluxio(ctx context.Context, s *stage, op string, n int) (*trial, error) {
	c, err := s.metaOf(ctx, n)
	if err != nil {
		return nil, err
	}
	base := fmt.Sprintf("/orcabench-%d", time.Now().UnixNano())
	stress := func(ctx context.Context, op string, d time.Duration) (measure, error) {
		// Rates above this one are not asked for; fixed files are those that
		// are stated again and again.
		return runStress(ctx, s.opt.Alluxio, "--in-process", "--client-type", "AlluxioNative", "--write-type", "MUST_CACHE", "--operation", op, "--threads", strconv.Itoa(n),
			"--base", s.opt.AlluxioURI+base, "--fixed-count", strconv.Itoa(max(n, s.opt.Files)),
			"--target-throughput", "1000000", "--warmup", "5s", "--duration", d.String())
	}
	sys := c.createSide("create")
	if op != "CreateFile" {
		paths, err := c.files(ctx, c.perLane())
		if err != nil {
			return nil, err
		}
		sys = c.statSide("stat", paths, []int{c.orca.PID()})
		if _, err := stress(ctx, "CreateFile", s.opt.Warm); err != nil { // the files to stat
			return nil, err
		}
	}
	s.facts.Config["alluxio"] = strings.Join(s.opt.Alluxio, " ") + ", " + s.opt.AlluxioURI
	return &trial{system: sys, baselines: []side{{name: alluxioName, pids: s.opt.PeerPIDs, run: func(ctx context.Context) (measure, error) {
		return stress(ctx, op, max(s.opt.Sample, 5*time.Second))
	}}}}, nil
}

// stressResult is what is read of the bench's JSON.
type stressResult struct {
	Statistics struct {
		Successes float64 `json:"mNumSuccesses"`
	} `json:"statistics"`
	DurationMs float64 `json:"durationMs"`
	Nodes      map[string]struct {
		Errors []string `json:"errors"`
	} `json:"nodeResults"`
}

// runStress runs the bench and reads its result.
func runStress(ctx context.Context, command []string, args ...string) (measure, error) {
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], args...)...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return measure{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tailOf(said.Bytes()))
	}
	return parseStress(&out)
}

func tailOf(b []byte) []byte { return b[max(0, len(b)-2000):] }

// parseStress finds the JSON object at the end of what the bench prints.
func parseStress(r io.Reader) (measure, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return measure{}, err
	}
	at := bytes.IndexByte(b, '{')
	if at < 0 {
		return measure{}, fmt.Errorf("the stress bench printed no result: %s", tailOf(b))
	}
	var res stressResult
	if err := json.NewDecoder(bytes.NewReader(b[at:])).Decode(&res); err != nil {
		return measure{}, fmt.Errorf("the result of the stress bench: %w", err)
	}
	for _, n := range res.Nodes {
		if len(n.Errors) > 0 {
			return measure{}, fmt.Errorf("the stress bench: %d errors, such as %s", len(n.Errors), n.Errors[0])
		}
	}
	if res.Statistics.Successes <= 0 || res.DurationMs <= 0 {
		return measure{}, fmt.Errorf("the stress bench counted nothing: %s", tailOf(b))
	}
	return measure{work: res.Statistics.Successes, took: time.Duration(res.DurationMs * float64(time.Millisecond))}, nil
}
