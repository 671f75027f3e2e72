// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"orca/bench/facts"
	"orca/bench/target"
	"orca/perf/capture"
)

// stage is what the cases of one run share: the folder, the servers (started
// when the first case asks), and the facts of the report.
type stage struct {
	opt   Options
	ctx   context.Context
	temp  string
	own   bool // temp is ours to remove
	facts *facts.Machine

	orca    map[string]*target.Orca // by configuration
	closers []func() error          // run in reverse at the end, before the servers stop
	last    []func() error          // run after the servers have stopped

	crowds    map[int]*crowd      // clients of the meta suite, by their number
	serial    atomic.Int64        // makes names unique in the run
	mounted   *fuseStage          // the mounted Orca, nil before the first use
	memDirs   map[string]struct{} // folders of MEM tiers that were used
	nativeDir string              // folder like the MEM tier's, "" before the first use
}

// profileWindow is how long one case runs under the profiler.
const profileWindow = 5 * time.Second

func newStage(ctx context.Context, o Options) (*stage, error) {
	s := &stage{opt: o, ctx: ctx, temp: o.Temp, orca: map[string]*target.Orca{}, crowds: map[int]*crowd{}, memDirs: map[string]struct{}{}}
	if s.temp == "" {
		dir, err := os.MkdirTemp("", "orcabench-")
		if err != nil {
			return nil, err
		}
		s.temp, s.own = dir, true
	}
	return s, nil
}

func (s *stage) progress(format string, args ...any) {
	fmt.Fprintf(s.opt.Progress, format+"\n", args...)
}

// describe records the configuration of the run.
func (s *stage) describe() {
	c := s.facts.Config
	c["pairs"] = strconv.Itoa(s.opt.Pairs)
	c["order"] = "A-B B-A, median of per-pair ratios"
	if s.opt.Tiny {
		c["tiny"] = "true: a test of the plumbing, the figures mean nothing"
	}
	s.note("temp", s.temp)
}

// note records the file system of a folder under a role.
func (s *stage) note(role, dir string) {
	if fs, err := facts.Filesystem(dir); err == nil {
		s.facts.Filesystems[role] = fs
	}
}

// dir makes a folder below the temporary one.
func (s *stage) dir(elem ...string) (string, error) {
	p := filepath.Join(append([]string{s.temp}, elem...)...)
	return p, os.MkdirAll(p, 0o755)
}

// atEnd runs fn when the run ends, before the servers stop.
func (s *stage) atEnd(fn func() error) { s.closers = append(s.closers, fn) }

// binary returns the orca binary, which it finds or builds first.
func (s *stage) binary() (string, error) {
	if s.opt.Orca == "" {
		bin, err := target.Find(s.ctx, s.opt.Self, s.temp, s.opt.Progress)
		if err != nil {
			return "", err
		}
		s.opt.Orca = bin
	}
	return s.opt.Orca, nil
}

// up returns the running Orca of a configuration, starting it at first use.
func (s *stage) up(name string, args ...string) (*target.Orca, error) {
	if o := s.orca[name]; o != nil {
		return o, o.Alive()
	}
	bin, err := s.binary()
	if err != nil {
		return nil, err
	}
	root, err := s.dir(name, "root")
	if err != nil {
		return nil, err
	}
	args = append([]string{"--root", root}, args...)
	s.progress("starting orca up %s", name)
	o, err := target.Up(s.ctx, bin, filepath.Join(s.temp, name, "data"), args...)
	if err != nil {
		return nil, err
	}
	s.orca[name] = o
	s.facts.Config["orca."+name] = fmt.Sprint(args)
	return o, nil
}

// healthy says whether a server has died.
func (s *stage) healthy() error {
	var errs []error
	for name, o := range s.orca {
		if err := o.Alive(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// profile runs the system once more under the profiler.
func (s *stage) profile(ctx context.Context, c Case, sys side) ([]capture.Taken, error) {
	sources := []capture.Source{{Name: "orcabench"}}
	for name, o := range s.orca {
		if o.Endpoints.HTTP != "" {
			sources = append(sources, capture.Source{Name: "orca-" + name, HTTP: o.Endpoints.HTTP})
		}
	}
	window := profileWindow
	if s.opt.Tiny {
		window = time.Second
	}
	s.progress("%s/%s: profiling for %s", c.Suite, c.Name, window)
	taken, err := capture.Take(ctx, s.opt.Profile, c.Suite+"-"+c.Name, window, sources, func(ctx context.Context) error {
		for ctx.Err() == nil {
			if _, err := sample(ctx, sys, true); err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	for i := range taken {
		taken[i].Source = c.Suite + "/" + c.Name + " " + taken[i].Source
	}
	return taken, err
}

// leftovers gives back the memory of tiers that Orca keeps for its next start,
// because our MUST_CACHE files are in it: there is no next start here.
func (s *stage) leftovers() error {
	var errs []error
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(s.temp))
	for _, m := range slices.Backward(below) {
		errs = append(errs, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	for dir := range s.memDirs {
		if filepath.Dir(dir) == sharedMemory { // without the right to mount
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(append(errs, err)...)
}

// sharedMemory is where tiers and native folders are without the right to
// mount a tmpfs.
const sharedMemory = "/dev/shm"

// close ends everything in reverse order and removes the folder.
func (s *stage) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	for _, o := range s.orca {
		errs = append(errs, o.Stop())
	}
	for i := len(s.last) - 1; i >= 0; i-- {
		errs = append(errs, s.last[i]())
	}
	errs = append(errs, s.leftovers())
	if s.own {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
}
