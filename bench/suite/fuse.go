// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"orca"
	"orca/bench/baseline"
	"orca/bench/facts"
	"orca/bench/hist"
	"orca/bench/target"
	"orca/bench/workload"
	"orca/engine/client"
)

// The fuse suite runs the same system calls on a mount of Orca and on a native
// folder with the same bytes, on a file system like that of the tier that
// serves the mount. Orca has the data in its cache; whatever the kernel keeps
// for the mount (pages, names, attributes) is dropped before each pass, so
// that no pass measures the kernel's cache of an earlier one. The native side
// is read once before each of its passes: it is the page-cached file system.
func fuseCases() []Case {
	return []Case{
		{Suite: "fuse", Name: "seq-1m", Metric: "read rate", Unit: unitMBs, Baseline: nativeName,
			About: "sequential pread of 1 MiB through the mount, kernel cache of the mount dropped, against the native file", open: openSeq},
		{Suite: "fuse", Name: "rand-4k", Metric: "reads", Unit: unitOps, Baseline: nativeName,
			About: "pread of 4 KiB at distinct random offsets, the same way", open: openRand},
		{Suite: "fuse", Name: "open-read-close-100k", Metric: "files read", Unit: unitOps, Baseline: nativeName,
			About: "open, read and close files of 100 KB, each once", open: openSmall},
		{Suite: "fuse", Name: "stat", Metric: "stats", Unit: unitOps, Baseline: nativeName,
			About: "lstat of files by path, each once", open: openFuseStat},
		{Suite: "fuse", Name: "ls-l", Metric: "entries listed", Unit: unitEntries, Baseline: nativeName,
			About: "read a directory and lstat each entry, as ls -l does", open: openLs},
	}
}

const (
	nativeName = "native file system of the tier"
	smallSize  = 100_000
	smallSeed  = 1000
)

// fuseStage is the mounted Orca of the fuse suite, with its files.
type fuseStage struct {
	s      *stage
	orca   *target.Orca
	fs     *client.FS
	big    pair   // the bulk file
	small  []pair // small files
	dir    pair   // their directory
	bigLen int64
	tier   string // file system type of the tier
}

// pair is one path on the mount and in the native folder.
type pair struct{ mount, native string }

// fuse returns the mounted Orca, with nothing written yet.
func (s *stage) fuse(ctx context.Context) (*fuseStage, error) {
	if s.mounted != nil {
		return s.mounted, s.mounted.orca.Alive()
	}
	mnt, err := s.dir("mnt")
	if err != nil {
		return nil, err
	}
	f := &fuseStage{s: s, bigLen: s.opt.size(defaultBulk)}
	mem := 2*f.bigLen + 2*smallSize*int64(s.opt.Files) + 256<<20
	if f.orca, err = s.up("fuse", "--mem", fmt.Sprint(mem), "--mount", mnt); err != nil {
		return nil, err
	}
	if f.fs, err = s.connect(ctx, f.orca, client.Config{Node: f.orca.Endpoints.Node}); err != nil {
		return nil, err
	}
	if _, err := s.native(); err != nil {
		return nil, err
	}
	s.mounted = f
	return f, nil
}

// paths returns where a path of Orca is on the mount and in the native folder.
func (f *fuseStage) paths(p string) pair {
	return pair{mount: filepath.Join(f.s.temp, "mnt", p), native: filepath.Join(f.s.nativeDir, p)}
}

// withBig makes the bulk file on both sides, verified, at first use.
func (f *fuseStage) withBig(ctx context.Context) error {
	if f.big.mount != "" {
		return nil
	}
	if err := put(ctx, f.fs, bulkPath, bulkSeed, f.bigLen); err != nil {
		return err
	}
	if err := f.served(ctx, bulkPath, f.bigLen); err != nil {
		return err
	}
	big := f.paths(bulkPath)
	if err := os.MkdirAll(filepath.Dir(big.native), 0o755); err != nil {
		return err
	}
	if err := baseline.WriteFile(big.native, bulkSeed, f.bigLen); err != nil {
		return err
	}
	for _, p := range []string{big.mount, big.native} {
		if err := baseline.Verify(p, bulkSeed, f.bigLen); err != nil {
			return err
		}
	}
	f.big = big
	return nil
}

// withSmall makes the small files on both sides, verified, at first use.
func (f *fuseStage) withSmall(ctx context.Context) error {
	if f.small != nil {
		return nil
	}
	dir := f.paths("/bench/small")
	native, err := baseline.WriteTree(dir.native, smallSeed, f.s.opt.Files, smallSize)
	if err != nil {
		return err
	}
	small := make([]pair, len(native))
	for i, n := range native {
		small[i] = pair{mount: filepath.Join(dir.mount, filepath.Base(n)), native: n}
		if err := put(ctx, f.fs, "/bench/small/"+filepath.Base(n), smallSeed+uint64(i), smallSize); err != nil {
			return err
		}
	}
	if err := f.served(ctx, "/bench/small/"+filepath.Base(native[len(native)-1]), smallSize); err != nil {
		return err
	}
	for i, p := range small {
		if err := baseline.Verify(p.mount, smallSeed+uint64(i), smallSize); err != nil {
			return err
		}
	}
	f.dir, f.small = dir, small
	return nil
}

// served checks that a file is wholly in MEM and that the native side lies on
// the same kind of file system.
func (f *fuseStage) served(ctx context.Context, path string, size int64) error {
	if err := f.s.inMemory(ctx, f.fs, path, size); err != nil {
		return err
	}
	_, locs, err := f.fs.Locations(ctx, client.Path(path))
	if err != nil {
		return err
	}
	for _, l := range locs {
		if l.Worker == nil {
			continue
		}
		for _, t := range l.Worker.Tiers {
			if orca.Tier(t.Tier) == orca.MEM {
				if f.tier, _, err = facts.Mount(t.Dir); err != nil {
					return err
				}
				return f.s.sameTier(t.Dir)
			}
		}
	}
	return fmt.Errorf("no worker says in which folder %s is", path)
}

const dropCaches = "/proc/sys/vm/drop_caches"

// drop makes the kernel forget all it caches for the mount: the pages of the
// files, then names and attributes. Where the tier is in memory all clean
// pages of the machine can go, for the native side does not suffer; else the
// pages of the mount's files go one by one.
func (f *fuseStage) drop(files []string) error {
	pages := files
	if f.tier == "tmpfs" {
		if err := dropAll("3"); err != nil { // pages, names and inodes
			return err
		}
		pages = files[:min(1, len(files))] // one, as the proof
	}
	for _, p := range pages {
		if err := dropPages(p); err != nil {
			return err
		}
	}
	return dropAll("2") // names and inodes
}

func dropAll(what string) error {
	if err := os.WriteFile(dropCaches, []byte(what), 0); err != nil {
		return fmt.Errorf("the mount's kernel cache cannot be dropped (needs root): %w", err)
	}
	return nil
}

// dropPages makes the kernel forget the pages of one file of the mount, and
// proves that it has.
func dropPages(path string) error {
	fd, err := baseline.OpenRead(path)
	if err != nil {
		return err
	}
	const tries = 10
	pages := int64(0)
	for i := 0; i < tries && err == nil && (i == 0 || pages > 0); i++ {
		if i > 0 {
			time.Sleep(time.Millisecond) // a page may be on its way to a list
		}
		if err = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err == nil {
			pages, err = baseline.CachedPages(fd)
		}
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		err = nil // an old kernel cannot tell
	case err == nil && pages > 0:
		err = fmt.Errorf("the kernel still caches %d pages after they were dropped", pages)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return fmt.Errorf("drop the pages of %s: %w", path, err)
	}
	return nil
}

// sides builds the two sides of a case from one pass over a list of paths; pid
// is the process behind the mount.
func (f *fuseStage) sides(pid int, files []pair, pass func(paths []string) (measure, error)) *trial {
	mount, native := make([]string, len(files)), make([]string, len(files))
	for i, p := range files {
		mount[i], native[i] = p.mount, p.native
	}
	return &trial{
		system: side{name: "mount", pids: []int{pid},
			before: func(context.Context) error { return f.drop(mount) },
			run:    func(context.Context) (measure, error) { return pass(mount) }},
		baselines: []side{{name: nativeName,
			before: func(context.Context) error { _, err := pass(native); return err },
			run:    func(context.Context) (measure, error) { return pass(native) }}},
	}
}

// onOpen runs a pass over one open file; opening is not timed.
func onOpen(path string, pass func(fd int) (measure, error)) (m measure, err error) {
	fd, err := baseline.OpenRead(path)
	if err != nil {
		return measure{}, err
	}
	m, err = pass(fd)
	return m, errors.Join(err, unix.Close(fd))
}

func openSeq(ctx context.Context, s *stage) (*trial, error) {
	f, err := s.fuse(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.withBig(ctx); err != nil {
		return nil, err
	}
	buf := baseline.Buffer(baseline.Chunk)
	return f.sides(f.orca.PID(), []pair{f.big}, func(paths []string) (measure, error) {
		return onOpen(paths[0], func(fd int) (measure, error) {
			took, err := baseline.ReadAll(fd, f.bigLen, buf)
			return measure{work: float64(f.bigLen) / 1e6, took: took}, err
		})
	}), nil
}

// randReads is the most random reads of one pass.
const randReads = 20_000

func openRand(ctx context.Context, s *stage) (*trial, error) {
	f, err := s.fuse(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.withBig(ctx); err != nil {
		return nil, err
	}
	buf := baseline.Buffer(4096)
	offs := workload.Offsets(7, f.bigLen, int64(len(buf)), randReads)
	return f.sides(f.orca.PID(), []pair{f.big}, func(paths []string) (measure, error) {
		return onOpen(paths[0], func(fd int) (measure, error) {
			h := hist.New()
			took, err := baseline.ReadOffsets(fd, offs, buf, h)
			return measure{work: float64(len(offs)), took: took, lat: h}, err
		})
	}), nil
}

// openFiles opens a case over the small files, in a fixed random order.
func openFiles(ctx context.Context, s *stage, pass func(paths []string, h *hist.Hist) (time.Duration, error)) (*trial, error) {
	f, err := s.fuse(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.withSmall(ctx); err != nil {
		return nil, err
	}
	files := make([]pair, len(f.small))
	for i, at := range workload.Order(9, len(files)) {
		files[i] = f.small[at]
	}
	return f.sides(f.orca.PID(), files, func(paths []string) (measure, error) {
		h := hist.New()
		took, err := pass(paths, h)
		return measure{work: float64(len(paths)), took: took, lat: h}, err
	}), nil
}

func openSmall(ctx context.Context, s *stage) (*trial, error) {
	buf := baseline.Buffer(smallSize)
	return openFiles(ctx, s, func(paths []string, h *hist.Hist) (time.Duration, error) {
		return baseline.OpenReadClose(paths, smallSize, buf, h)
	})
}

func openFuseStat(ctx context.Context, s *stage) (*trial, error) {
	return openFiles(ctx, s, func(paths []string, h *hist.Hist) (time.Duration, error) {
		return baseline.StatAll(paths, smallSize, h)
	})
}

func openLs(ctx context.Context, s *stage) (*trial, error) {
	return openFiles(ctx, s, func(paths []string, _ *hist.Hist) (time.Duration, error) {
		return baseline.ListLong(filepath.Dir(paths[0]), len(paths))
	})
}
