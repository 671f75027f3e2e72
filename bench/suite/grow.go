// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"orca"
	"orca/jobs"
	"orca/jobs/machine"
	"orca/metaplane/command"
	"orca/metaplane/fsm"
	"orca/metaplane/metapb"
	"orca/metaplane/raftgroup"
)

// The grown tree: branches of growBranch leaves, each with growFiles files, so
// that one inode in twenty is a directory. What is brought in are listings of a
// store, as a sync proposes them, through journal and apply; only the store
// below is not asked.
const (
	growRole   = "grow"
	growBranch = 500
	growFiles  = 19
)

// treeFilesOf is how many files a tree of n inodes has.
func treeFilesOf(n int) int { return leavesOf(n) * growFiles }

func leavesOf(n int) int { return max(n/(growFiles+1), 1) }

func treeBranch(leaf int) string { return fmt.Sprintf("g%05d", leaf/growBranch) }
func treeLeaf(leaf int) string   { return fmt.Sprintf("d%08d", leaf) }
func treeName(file int) string   { return fmt.Sprintf("part-%09d.bin", file) }

// treeFile is the path of a file.
func treeFile(file int) string {
	leaf := file / growFiles
	return "/" + treeBranch(leaf) + "/" + treeLeaf(leaf) + "/" + treeName(file)
}

// grown is what the process says.
type grown struct {
	Inodes, Dirs int64
	Made         int64 // now
	Took         time.Duration
	Disk         int64 // bytes of the store, compacted
	Err          string
}

// grow is the process "grow META INODES".
func grow(args []string) error {
	var g grown
	if len(args) != 2 {
		return errors.New("usage: grow META INODES")
	}
	n, err := strconv.Atoi(args[1])
	if err == nil {
		err = g.run(context.Background(), args[0], n)
	}
	if err != nil {
		g.Err = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(&g)
}

func (g *grown) run(ctx context.Context, dir string, n int) error {
	h, err := raftgroup.Open(raftgroup.Config{Dir: dir, Machine: fsm.Config{Group: 1},
		Hosted: map[string]fsm.Hosted{jobs.Machine: machine.New()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	gr := &grower{g: h.Group(), slots: make(chan struct{}, growOutstanding)}
	before := gr.g.Machine().Counts()
	begun := time.Now()
	err = gr.tree(ctx, leavesOf(n))
	g.Took = time.Since(begun)
	after := gr.g.Machine().Counts()
	g.Inodes, g.Dirs, g.Made = after.Files+after.Dirs, after.Dirs, after.Files+after.Dirs-before.Files-before.Dirs
	if err == nil {
		err = h.Group().CompactStore(ctx)
	}
	if err = errors.Join(err, h.Close()); err != nil {
		return err
	}
	g.Disk, err = diskUsage(dir, "store-*")
	return err
}

// diskUsage sums the files of the folders that match.
func diskUsage(dir, pattern string) (int64, error) {
	roots, err := filepath.Glob(filepath.Join(dir, pattern))
	var sum int64
	for _, root := range roots {
		werr := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			st, err := d.Info()
			if err == nil {
				sum += st.Size()
			}
			return err
		})
		err = errors.Join(err, werr)
	}
	return sum, err
}

// growOutstanding is how many listings wait to be applied.
const growOutstanding = 2048

// grower proposes listings without waiting for each.
type grower struct {
	g     *raftgroup.Group
	slots chan struct{}

	mu  sync.Mutex
	err error // the first
}

// Done implements raftgroup.Waiter.
func (w *grower) Done(_ *command.Result, err error) {
	if err != nil {
		w.mu.Lock()
		w.err = errors.Join(w.err, err)
		w.mu.Unlock()
	}
	<-w.slots
}

// list proposes a complete listing of a directory.
func (w *grower) list(dir uint64, entries []*metapb.SyncEntry) error {
	c := &command.Command{Now: time.Now().UnixNano(), SyncApply: &metapb.SyncApplyOp{Dir: dir, Change: w.g.Machine().Applied(), Entries: entries, Loaded: true}}
	for {
		w.slots <- struct{}{}
		err := w.g.Start(c, time.Time{}, w)
		if err == nil {
			return nil
		}
		<-w.slots
		if orca.KindOf(err) != orca.Busy {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// wait returns when all that was proposed is applied.
func (w *grower) wait() error {
	for range cap(w.slots) {
		w.slots <- struct{}{}
	}
	for range cap(w.slots) {
		<-w.slots
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// tree brings in what is missing of a tree of so many leaves.
func (w *grower) tree(ctx context.Context, leaves int) error {
	mtime := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	branches := (leaves + growBranch - 1) / growBranch
	var top []*metapb.SyncEntry
	for b := range branches {
		top = append(top, &metapb.SyncEntry{Name: treeBranch(b * growBranch), Dir: true, Mtime: mtime})
	}
	if err := errors.Join(w.list(uint64(orca.RootIno), top), w.wait()); err != nil {
		return err
	}
	for b := range branches {
		dir, err := w.ino(orca.RootIno, treeBranch(b*growBranch))
		if err != nil {
			return err
		}
		var sub []*metapb.SyncEntry
		for leaf := b * growBranch; leaf < min((b+1)*growBranch, leaves); leaf++ {
			sub = append(sub, &metapb.SyncEntry{Name: treeLeaf(leaf), Dir: true, Mtime: mtime})
		}
		if err := errors.Join(w.list(dir, sub), w.wait(), ctx.Err()); err != nil {
			return err
		}
		for leaf := b * growBranch; leaf < min((b+1)*growBranch, leaves); leaf++ {
			v, err := w.g.Machine().Walk(orca.Caller{}, orca.Ino(dir), treeLeaf(leaf))
			if err != nil {
				return err
			}
			if !v.Found || v.Loaded {
				continue // of an earlier round
			}
			var files []*metapb.SyncEntry
			for i := leaf * growFiles; i < (leaf+1)*growFiles; i++ {
				at := mtime + int64(i)*1_000_003
				files = append(files, &metapb.SyncEntry{Name: treeName(i), Length: int64(i), Mtime: at,
					// As the local store has it: inode, length and time.
					Fingerprint: strconv.FormatInt(int64(1_000_000+i), 36) + "-" + strconv.FormatInt(int64(i), 36) + "-" + strconv.FormatInt(at, 36)})
			}
			if err := w.list(v.Attr.Ino, files); err != nil {
				return err
			}
		}
	}
	return w.wait()
}

func (w *grower) ino(dir orca.Ino, name string) (uint64, error) {
	v, err := w.g.Machine().Walk(orca.Caller{}, dir, name)
	if err != nil {
		return 0, err
	}
	if !v.Found {
		return 0, fmt.Errorf("%s was not made", name)
	}
	return v.Attr.Ino, nil
}
