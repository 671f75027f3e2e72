// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// copyFlags are those of cp, copyFromLocal and copyToLocal.
type copyFlags struct {
	recursive, force, preserve bool
	threads                    int
	write, read                *string
	replicas                   *uint32
}

func (o *copyFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.BoolVarP(&o.recursive, "recursive", "R", false, "copy directories with all that is below them")
	f.BoolVarP(&o.recursive, "r", "r", false, "the same")
	f.BoolVarP(&o.force, "force", "f", false, "replace files that are there")
	f.BoolVar(&o.preserve, "preserve", false, "keep permission bits and modification times")
	f.IntVar(&o.threads, "thread", 2*runtime.NumCPU(), "how many files at a time")
	f.IntVar(&o.threads, "threads", 2*runtime.NumCPU(), "the same")
	f.Lookup("thread").DefValue, f.Lookup("threads").DefValue = "twice the CPUs", "twice the CPUs"
	o.write, o.read = writeType(c), readType(c)
	o.replicas = replicas(c, 0, replicasDoc)
}

func (e *env) cpCommand() *cobra.Command {
	var o copyFlags
	c := e.verb("cp [-R] SOURCE... TARGET", "Copy files and directories",
		`Copy files, and trees with -R, within Orca or from and to this host, whose
paths are spelled file:///path. If TARGET is a directory the copies go into
it. A file appears under its name only when it is complete.`,
		`  orca fs cp /a/x /b
  orca fs cp -R --thread 16 file:///data/train /train
  orca fs cp -R /results file:///tmp/results`, 2,
		func(cmd *cobra.Command, args []string) error { return e.copy(cmd, args, &o) })
	o.register(c)
	return c
}

func (e *env) copyFromLocalCommand() *cobra.Command {
	var o copyFlags
	c := e.verb("copyFromLocal SOURCE... TARGET", "Copy from this host",
		"Copy files and trees of this host to Orca. The source - is standard input.",
		`  orca fs copyFromLocal --thread 16 /data/train /train
  zcat dump.gz | orca fs copyFromLocal - /dump`, 2,
		func(cmd *cobra.Command, args []string) error {
			o.recursive = true
			return e.copy(cmd, toFiles(args[:len(args)-1], args[len(args)-1:]...), &o)
		})
	c.Aliases = []string{"copy-from-local", "put"}
	c.ValidArgsFunction = nil
	o.register(c)
	return c
}

func (e *env) copyToLocalCommand() *cobra.Command {
	var o copyFlags
	c := e.verb("copyToLocal SOURCE... TARGET", "Copy to this host",
		"Copy files and trees of Orca to this host.",
		`  orca fs copyToLocal '/results/part-*' /tmp/results/`, 2,
		func(cmd *cobra.Command, args []string) error {
			o.recursive = true
			n := len(args) - 1
			return e.copy(cmd, append(append([]string{}, args[:n]...), toFiles(args[n:])...), &o)
		})
	c.Aliases = []string{"copy-to-local", "get"}
	o.register(c)
	return c
}

// toFiles spells local paths as URIs; rest is appended as it is.
func toFiles(local []string, rest ...string) []string {
	out := make([]string, 0, len(local)+len(rest))
	for _, p := range local {
		if p != "-" && !strings.HasPrefix(p, "file:") {
			if abs, err := filepath.Abs(p); err == nil {
				p = abs
			}
			p = rawFile + p
		}
		out = append(out, p)
	}
	return append(out, rest...)
}

// rawFile marks a local path that needs no URL decoding.
const rawFile = "file\x00"

// place is one end of a copy: a path in Orca or on this host.
type place struct {
	path  string
	local bool
}

func (e *env) place(arg string) (place, error) {
	if p, ok := strings.CutPrefix(arg, rawFile); ok {
		return place{p, true}, nil
	}
	if p, ok := localPath(arg); ok {
		return place{p, true}, nil
	}
	p, err := e.clean(arg)
	return place{unescape(p), false}, err
}

func (p place) String() string {
	if p.local {
		return "file://" + p.path
	}
	return p.path
}

func (p place) join(name string) place {
	if p.local {
		return place{filepath.Join(p.path, name), true}
	}
	return place{orca.JoinPath(p.path, name), false}
}

// up is the directory that p is in; the root's is the root.
func (p place) up() place {
	if p.local {
		return place{filepath.Dir(p.path), true}
	}
	dir, _ := orca.SplitPath(p.path)
	return place{dir, false}
}

func (p place) base() string { return filepath.Base(p.path) }

// sources expands what is to be copied.
func (e *env) sources(ctx context.Context, arg string) ([]place, error) {
	if arg == "-" {
		return []place{{"-", true}}, nil
	}
	if p, ok := strings.CutPrefix(arg, rawFile); ok {
		return []place{{p, true}}, nil
	}
	if p, ok := localPath(arg); ok {
		if !hasGlob(p) {
			return []place{{p, true}}, nil
		}
		ms, err := filepath.Glob(p)
		if err == nil && len(ms) == 0 {
			err = orca.PathE("cli.cp", arg, orca.NotFound, nil)
		}
		out := make([]place, len(ms))
		for i, m := range ms {
			out[i] = place{m, true}
		}
		return out, err
	}
	ps, err := e.expand(ctx, arg)
	out := make([]place, len(ps))
	for i, p := range ps {
		out[i] = place{p, false}
	}
	return out, err
}

// copier runs one cp.
type copier struct {
	e     *env
	fs    *client.FS
	o     *copyFlags
	write orca.WriteType
	read  orca.ReadType
	bar   *progress
	verb  string

	tasks chan [2]place

	mu     sync.Mutex
	failed bool
}

func (e *env) copy(cmd *cobra.Command, args []string, o *copyFlags) error {
	ctx := cmd.Context()
	w, err := parseWriteType(*o.write)
	if err != nil {
		return err
	}
	r, err := parseReadType(*o.read)
	if err != nil {
		return err
	}
	dst, err := e.place(args[len(args)-1])
	if err != nil {
		return err
	}
	fs, err := e.open(ctx)
	if err != nil {
		return err
	}
	c := &copier{e: e, fs: fs, o: o, write: w, read: r, verb: cmd.Name(), bar: e.progress(cmd.Name()), tasks: make(chan [2]place)}
	defer c.bar.stop()
	into, err := c.isDir(ctx, dst)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for range max(1, min(o.threads, 256)) {
		wg.Go(func() {
			for t := range c.tasks {
				c.check(ctx, t[0], c.file(ctx, t[0], t[1]))
			}
		})
	}
	err = c.plan(ctx, args[:len(args)-1], dst, into)
	close(c.tasks)
	wg.Wait()
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return orca.PathE("cli.cp", "", orca.Canceled, ctx.Err())
	case c.failed:
		return errReported
	}
	return nil
}

// plan finds the files to copy, making directories on the way.
func (c *copier) plan(ctx context.Context, args []string, dst place, into bool) error {
	var srcs []place
	for _, a := range args {
		ps, err := c.e.sources(ctx, a)
		if err != nil {
			if stops(ctx, err) {
				return err
			}
			c.check(ctx, place{path: strings.TrimPrefix(a, rawFile)}, err)
			continue
		}
		srcs = append(srcs, ps...)
	}
	if len(srcs) > 1 && !into {
		return orca.PathE("cli.cp", dst.String(), orca.NotDir, nil)
	}
	for _, s := range srcs {
		to := dst
		if into && s.path != "-" {
			to = dst.join(s.base())
		}
		c.check(ctx, s, c.tree(ctx, s, to))
	}
	return nil
}

// check reports a failure; the copy goes on with other files.
func (c *copier) check(ctx context.Context, p place, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = true
	if m := (*missingError)(nil); errors.As(err, &m) {
		p = m.place
	}
	c.e.report(c.verb, p.path, err)
}

// missingError says which directory above the target there is not: the source
// is not at fault.
type missingError struct {
	place
	err error
}

func (m *missingError) Error() string { return m.err.Error() }
func (m *missingError) Unwrap() error { return m.err }

// missing finds the uppermost directory above p that there is not, if that is
// why writing p has failed.
func (c *copier) missing(ctx context.Context, p place, err error) error {
	if orca.KindOf(err) != orca.NotFound {
		return err
	}
	out := err
	for up := p.up(); up != p; p, up = up, up.up() {
		if _, _, lerr := c.look(ctx, up); orca.KindOf(lerr) != orca.NotFound {
			break
		}
		out = &missingError{up, err}
	}
	return out
}

func (c *copier) isDir(ctx context.Context, p place) (bool, error) {
	if !p.local {
		return isDir(ctx, c.fs, p.path)
	}
	st, err := os.Stat(p.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && st.IsDir(), localError(err)
}

// tree hands out src, or the files below it.
func (c *copier) tree(ctx context.Context, src, dst place) error {
	if src.path == "-" {
		return c.hand(ctx, src, dst)
	}
	dir, length, err := c.look(ctx, src)
	if err != nil {
		return err
	}
	if !dir {
		c.bar.expect(length)
		return c.hand(ctx, src, dst)
	}
	if !c.o.recursive {
		return orca.PathE("cli.cp", src.path, orca.IsDir, nil)
	}
	if !src.local && !dst.local {
		if _, inside := orca.Under(src.path, dst.path); inside {
			return &orca.Error{Op: "cli.cp", Path: src.path, Kind: orca.Invalid, Msg: "cannot copy a directory into itself"}
		}
	}
	if err := c.mkdir(ctx, dst); err != nil {
		return err
	}
	names, err := c.children(ctx, src)
	if err != nil {
		return err
	}
	for _, n := range names {
		s := src.join(n)
		if err := c.tree(ctx, s, dst.join(n)); err != nil {
			c.check(ctx, s, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (c *copier) hand(ctx context.Context, src, dst place) error {
	select {
	case c.tasks <- [2]place{src, dst}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *copier) look(ctx context.Context, p place) (dir bool, length int64, err error) {
	if p.local {
		st, err := os.Stat(p.path)
		if err != nil {
			return false, 0, localError(err)
		}
		return st.IsDir(), st.Size(), nil
	}
	i, err := c.fs.Stat(ctx, client.Path(p.path), client.Sync{})
	return i.IsDir(), i.Length, err
}

func (c *copier) mkdir(ctx context.Context, p place) error {
	if p.local {
		return localError(os.MkdirAll(p.path, 0o755))
	}
	_, err := c.fs.MkdirAll(ctx, client.Path(p.path), 0o755)
	return err
}

func (c *copier) children(ctx context.Context, p place) ([]string, error) {
	var names []string
	if p.local {
		es, err := os.ReadDir(p.path)
		for _, x := range es {
			names = append(names, x.Name())
		}
		return names, localError(err)
	}
	for x, err := range c.fs.Entries(ctx, client.Path(p.path), client.ListOptions{}) {
		if err != nil {
			return nil, err
		}
		names = append(names, x.Name)
	}
	return names, nil
}

// source is an open file on either side.
type source struct {
	io.Reader
	close  func() error
	mode   uint32
	mtime  time.Time
	length int64 // 0: not known
}

func (c *copier) openSource(ctx context.Context, p place) (*source, error) {
	if p.path == "-" && p.local {
		return &source{Reader: c.e.In, close: func() error { return nil }, mode: 0o644}, nil
	}
	if p.local {
		f, err := os.Open(p.path)
		if err != nil {
			return nil, localError(err)
		}
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(localError(err), f.Close())
		}
		return &source{f, f.Close, uint32(st.Mode().Perm()), st.ModTime(), st.Size()}, nil
	}
	f, err := c.fs.Open(ctx, client.Path(p.path), client.ReadOptions{Type: c.read})
	if err != nil {
		return nil, err
	}
	i := f.Info()
	return &source{io.NewSectionReader(f.WithContext(ctx), 0, f.Size()), f.Close, i.Attr.Mode, i.Mtime, f.Size()}, nil
}

// file copies one file.
func (c *copier) file(ctx context.Context, src, dst place) error {
	s, err := c.openSource(ctx, src)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }() // read only
	if dst.local {
		err = c.toLocal(ctx, s, dst.path)
	} else {
		err = c.toOrca(ctx, s, dst.path)
	}
	return c.missing(ctx, dst, err)
}

func (c *copier) toOrca(ctx context.Context, s *source, path string) error {
	o := client.CreateOptions{WriteType: c.write, Overwrite: c.o.force, Expect: s.length, Replicas: *c.o.replicas}
	if c.o.preserve {
		o.Mode = s.mode
	}
	w, err := c.fs.Create(ctx, client.Path(path), o)
	if err != nil {
		return err
	}
	if err := c.pump(ctx, w, s.Reader); err != nil {
		return errors.Join(err, w.Abort())
	}
	if err := w.CloseContext(ctx); err != nil {
		return err
	}
	if c.o.preserve && !s.mtime.IsZero() {
		return c.fs.Chtimes(ctx, client.Path(path), s.mtime, s.mtime)
	}
	return nil
}

// toLocal writes a temporary file beside path and renames it at the end.
func (c *copier) toLocal(ctx context.Context, s *source, path string) (err error) {
	if _, serr := os.Lstat(path); serr == nil && !c.o.force {
		return orca.PathE("cli.cp", path, orca.Exists, nil)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".orca-*.part")
	if err != nil {
		return localError(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error at hand says more
		}
	}()
	if err = c.pump(ctx, f, s.Reader); err != nil {
		return errors.Join(err, f.Close())
	}
	mode := uint32(0o644)
	if c.o.preserve {
		mode = s.mode
	}
	err = errors.Join(f.Chmod(os.FileMode(mode)), f.Close())
	if err == nil && c.o.preserve && !s.mtime.IsZero() {
		err = os.Chtimes(f.Name(), s.mtime, s.mtime)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return localError(err)
}

// pump copies, a megabyte at a time so that the bar moves and ctx is heeded.
func (c *copier) pump(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return orca.PathE("cli.cp", "", orca.Canceled, ctx.Err())
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			c.bar.add(n)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// localError gives an error of this host's files its kind.
func localError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrNotExist):
		return orca.PathE("cli.local", "", orca.NotFound, err)
	case errors.Is(err, os.ErrPermission):
		return orca.PathE("cli.local", "", orca.Permission, err)
	}
	return err
}
