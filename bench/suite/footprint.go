// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"orca"
	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/bench/report"
	"orca/bench/target"
	"orca/engine/client"
)

const (
	// footprintLanes is how many clients read and write while the server is
	// measured.
	footprintLanes = 8
	// footprintWrites is for how long they write before the server is killed,
	// so that it has something to replay.
	footprintWrites = 3 * time.Second
)

// Footprint is a run of orcabench footprint: what a namespace costs.
type Footprint struct {
	Machine facts.Machine   `json:"machine"`
	Sizes   []FootprintSize `json:"sizes"`
}

// FootprintSize is what was measured with so many inodes.
type FootprintSize struct {
	Inodes      int64   `json:"inodes"`
	Directories int64   `json:"directories"`
	GrowRate    float64 `json:"grow_per_second"` // inodes brought in per second, through the journal
	// DiskPerInode is the store's size, compacted, over the inodes.
	DiskPerInode float64 `json:"disk_bytes_per_inode"`
	// Start is from the start of the process, after kill -9 under writes, to
	// the first stat served; StartClean the same after a clean stop.
	Start      float64 `json:"start_seconds"`
	StartClean float64 `json:"start_clean_seconds"`
	// Anonymous memory of the server: after the start, and after it was read
	// all over and written to.
	RSSStart  int64 `json:"rss_start_bytes"`
	RSSServed int64 `json:"rss_served_bytes"`
	RSSPeak   int64 `json:"rss_peak_bytes"`
	// RSSCached is the same with a cache that all records fit in, when all were
	// read.
	RSSCached int64 `json:"rss_cached_bytes"`
	// Stats is how many stats of files chosen at random were served per second.
	Stats float64 `json:"stats_per_second"`
}

// MeasureFootprint brings a tree with a tenth of the inodes into a new
// namespace, measures it, and goes on to all of them. reads is how many files
// are stated at random each time.
func MeasureFootprint(ctx context.Context, opt Options, inodes, reads int, command string) (*Footprint, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	if inodes < 100 {
		return nil, fmt.Errorf("%d inodes: want 100 at least", inodes)
	}
	temp, err := os.MkdirTemp(opt.Temp, "orcabench-footprint-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	if opt.Orca == "" {
		if opt.Orca, err = target.Find(ctx, opt.Self, temp, opt.Progress); err != nil {
			return nil, err
		}
	}
	root := filepath.Join(temp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	f := &footprint{opt: &opt, data: filepath.Join(temp, "data"), reads: reads}
	f.args = []string{"start", "--role", "meta", "--data", f.data, "--meta-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0", "--root", root}
	out := &Footprint{Machine: facts.Read(time.Now(), command)}
	for _, n := range []int{inodes / 10, inodes} {
		size, err := f.measure(ctx, n)
		if err != nil {
			return nil, errors.Join(err, f.stop())
		}
		out.Sizes = append(out.Sizes, *size)
	}
	out.Machine.LoadEnd = facts.Load()
	return out, f.stop()
}

// footprint is one run.
type footprint struct {
	opt   *Options
	data  string
	args  []string
	reads int
	orca  *target.Orca // nil: not running
	fs    []*client.FS
	round int
}

// start starts the server and returns how long it took to serve a stat.
func (f *footprint) start(ctx context.Context, path string) (took time.Duration, err error) {
	begun := time.Now()
	if f.orca, err = target.Start(ctx, f.opt.Orca, f.data, f.args); err != nil {
		return 0, err
	}
	for len(f.fs) < footprintLanes {
		fs, err := client.Open(ctx, client.Config{Addresses: []string{f.orca.Endpoints.MetaSocket}, WriteType: orca.MustCache})
		if err != nil {
			return 0, err
		}
		f.fs = append(f.fs, fs)
		if _, err := fs.Stat(ctx, client.Path(path), client.Sync{}); err != nil {
			return 0, err
		}
		if took == 0 {
			took = time.Since(begun)
		}
	}
	return took, nil
}

// stop stops the server cleanly.
func (f *footprint) stop() error {
	errs := []error{f.hangUp()}
	if f.orca != nil {
		errs = append(errs, f.orca.Stop())
		f.orca = nil
	}
	return errors.Join(errs...)
}

func (f *footprint) hangUp() error {
	var errs []error
	for _, fs := range f.fs {
		errs = append(errs, fs.Close())
	}
	f.fs = nil
	return errors.Join(errs...)
}

// kill is kill -9.
func (f *footprint) kill() error {
	err := errors.Join(f.hangUp(), f.orca.Kill())
	f.orca = nil
	return err
}

// measure brings the namespace to n inodes and measures it.
func (f *footprint) measure(ctx context.Context, n int) (*FootprintSize, error) {
	if f.round == 0 { // the root is mounted by the first start
		if _, err := f.start(ctx, "/"); err != nil {
			return nil, err
		}
		if err := f.stop(); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(f.opt.Progress, "growing the namespace to %d inodes\n", n)
	g, err := f.grow(ctx, n)
	if err != nil {
		return nil, err
	}
	s := &FootprintSize{Inodes: g.Inodes, Directories: g.Dirs, GrowRate: float64(g.Made) / g.Took.Seconds(), DiskPerInode: float64(g.Disk) / float64(g.Inodes)}
	fmt.Fprintf(f.opt.Progress, "%d inodes at %.0f/s, %.1f bytes of disk each\n", s.Inodes, s.GrowRate, s.DiskPerInode)
	clean, err := f.start(ctx, treeFile(n/2))
	if err != nil {
		return nil, err
	}
	s.StartClean = clean.Seconds()
	if err := f.write(ctx, footprintWrites); err != nil {
		return nil, err
	}
	if err := f.kill(); err != nil {
		return nil, err
	}
	took, err := f.start(ctx, treeFile(n/3))
	if err != nil {
		return nil, err
	}
	s.Start = took.Seconds()
	if s.RSSStart, _, err = facts.Resident(f.orca.PID()); err != nil {
		return nil, err
	}
	fmt.Fprintf(f.opt.Progress, "served %.2f s after kill -9 (%.2f s after a clean stop), %d MB resident\n", s.Start, s.StartClean, s.RSSStart>>20)
	if s.Stats, err = f.read(ctx, n); err != nil {
		return nil, err
	}
	if err := f.write(ctx, footprintWrites); err != nil {
		return nil, err
	}
	if s.RSSServed, s.RSSPeak, err = facts.Resident(f.orca.PID()); err != nil {
		return nil, err
	}
	fmt.Fprintf(f.opt.Progress, "%.0f stats/s, %d MB resident, %d MB at the most\n", s.Stats, s.RSSServed>>20, s.RSSPeak>>20)
	if err := f.stop(); err != nil {
		return nil, err
	}
	if s.RSSCached, err = f.cached(ctx, n); err != nil {
		return nil, err
	}
	fmt.Fprintf(f.opt.Progress, "%d MB resident with all in the cache\n", s.RSSCached>>20)
	return s, nil
}

// cachedPerInode is the cache that is given to each inode, more than it needs.
const cachedPerInode = 256

// cached starts the server with a cache that all fits in, has it read all
// names, and then files at random, and returns the memory that it has then.
func (f *footprint) cached(ctx context.Context, n int) (int64, error) {
	args := f.args
	defer func() { f.args = args }()
	f.args = append(slices.Clone(args), "--meta-cache", strconv.Itoa(max(64<<20, n*cachedPerInode)))
	if _, err := f.start(ctx, "/"); err != nil {
		return 0, err
	}
	err := f.lanes(func(lane int, fs *client.FS) error {
		for leaf := lane; leaf < leavesOf(n); leaf += footprintLanes {
			p, err := fs.List(ctx, client.Path("/"+treeBranch(leaf)+"/"+treeLeaf(leaf)), client.ListOptions{})
			if err == nil && len(p.Entries) != growFiles {
				err = fmt.Errorf("%s has %d files, not %d", treeLeaf(leaf), len(p.Entries), growFiles)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if _, err := f.read(ctx, n); err != nil {
		return 0, err
	}
	rss, _, err := facts.Resident(f.orca.PID())
	return rss, errors.Join(err, f.stop())
}

// lanes runs do on each client.
func (f *footprint) lanes(do func(lane int, fs *client.FS) error) error {
	errs := make([]error, len(f.fs))
	var wg sync.WaitGroup
	for i, fs := range f.fs {
		wg.Go(func() { errs[i] = do(i, fs) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// read stats files of the first n inodes at random and checks each.
func (f *footprint) read(ctx context.Context, n int) (perSecond float64, err error) {
	share := max(f.reads/footprintLanes, 1)
	begun := time.Now()
	err = f.lanes(func(lane int, fs *client.FS) error {
		rnd := rand.New(rand.NewPCG(uint64(n), uint64(lane)))
		for range share {
			i := rnd.IntN(treeFilesOf(n))
			st, err := fs.Stat(ctx, client.Path(treeFile(i)), client.Sync{})
			if err != nil {
				return err
			}
			if st.Length != int64(i) {
				return fmt.Errorf("%s is not what it was: %d bytes", treeFile(i), st.Length)
			}
		}
		return nil
	})
	return float64(share*footprintLanes) / time.Since(begun).Seconds(), err
}

// write creates files for a while.
func (f *footprint) write(ctx context.Context, d time.Duration) error {
	if f.opt.Tiny {
		d /= 10
	}
	f.round++
	until := time.Now().Add(d)
	return f.lanes(func(lane int, fs *client.FS) error {
		dir := fmt.Sprintf("/w%d-%d", f.round, lane)
		if _, err := fs.Mkdir(ctx, client.Path(dir), 0o755); err != nil {
			return err
		}
		for i := 0; time.Now().Before(until); i++ {
			if _, err := fs.CreateEmpty(ctx, client.Path(fmt.Sprintf("%s/f%d", dir, i)), client.CreateOptions{Exclusive: true}); err != nil {
				return err
			}
		}
		return nil
	})
}

// grow runs the process that brings the tree in.
func (f *footprint) grow(ctx context.Context, n int) (*grown, error) {
	p, err := baseline.Start(ctx, f.opt.Self, growRole, filepath.Join(f.data, "meta"), strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	line, err := p.Line()
	if err = errors.Join(err, p.Close()); err != nil {
		return nil, err
	}
	g := &grown{}
	if err := json.Unmarshal([]byte(line), g); err != nil {
		return nil, fmt.Errorf("process said %q: %w", line, err)
	}
	if g.Err != "" {
		return nil, errors.New(g.Err)
	}
	return g, nil
}

// WriteJSON writes all of it.
func (r *Footprint) WriteJSON(w io.Writer) error { return report.EncodeJSON(w, r) }

// WriteTable writes a row per size.
func (r *Footprint) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "INODES\tDIRS\tGROWN\tDISK\tSTART (KILLED)\tSTART (CLEAN)\tRSS AT START\tSERVED\tPEAK\tPER INODE\tALL CACHED\tPER INODE\tSTATS\t")
	for _, s := range r.Sizes {
		fmt.Fprintf(tw, "%d\t%d\t%.0f/s\t%.1f B/inode\t%.2f s\t%.2f s\t%d MB\t%d MB\t%d MB\t%.1f B\t%d MB\t%.1f B\t%.0f/s\t\n",
			s.Inodes, s.Directories, s.GrowRate, s.DiskPerInode, s.Start, s.StartClean,
			s.RSSStart>>20, s.RSSServed>>20, s.RSSPeak>>20, float64(s.RSSServed)/float64(s.Inodes),
			s.RSSCached>>20, float64(s.RSSCached)/float64(s.Inodes), s.Stats)
	}
	return tw.Flush()
}
