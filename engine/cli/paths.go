// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

// scheme of paths that name an Orca themselves.
const scheme = "orca://"

// clean turns an argument into a clean path: /p, or orca://host:port/p, whose
// address then holds for the whole command.
func (e *env) clean(arg string) (string, error) {
	p := arg
	if rest, ok := strings.CutPrefix(arg, scheme); ok {
		host, path, _ := strings.Cut(rest, "/")
		p = "/" + path
		if host != "" && e.fs == nil {
			e.address = host
		} else if host != "" && host != e.address {
			return "", usagef("'%s': one command works on one Orca", arg)
		}
	}
	if !strings.HasPrefix(p, "/") {
		return "", usagef("'%s': not an absolute path", arg)
	}
	return orca.CleanPath(p)
}

// localPath returns the path of a file:// argument.
func localPath(arg string) (string, bool) {
	if !strings.HasPrefix(arg, "file:") {
		return "", false
	}
	u, err := url.Parse(arg)
	if err != nil || u.Path == "" {
		return strings.TrimPrefix(strings.TrimPrefix(arg, "file:"), "//"), true
	}
	return filepath.Clean(u.Path), true
}

// hasGlob reports whether p has an unescaped wildcard.
func hasGlob(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '*', '?', '[', '{':
			return true
		}
	}
	return false
}

// expand returns the paths that an argument names. A pattern without a match
// is NotFound. Wildcards are those of a shell, and ** for any depth; a
// backslash takes their meaning away.
func (e *env) expand(ctx context.Context, arg string) ([]string, error) {
	p, err := e.clean(arg)
	if err != nil {
		return nil, err
	}
	fs, err := e.open(ctx)
	if err != nil {
		return nil, err
	}
	if !hasGlob(p) {
		return []string{unescape(p)}, nil
	}
	x, err := fs.IOFS(ctx, "/")
	if err != nil {
		return nil, err
	}
	names, err := doublestar.Glob(x, strings.TrimPrefix(p, "/"), doublestar.WithFailOnIOErrors())
	if err != nil {
		if errors.Is(err, doublestar.ErrBadPattern) {
			return nil, usagef("'%s': malformed pattern", arg)
		}
		return nil, err
	}
	if len(names) == 0 {
		return nil, orca.PathE("cli.expand", arg, orca.NotFound, nil)
	}
	for i, n := range names {
		names[i] = "/" + n
	}
	return names, nil
}

// unescape removes backslashes before wildcards only, so that other names with
// backslashes stay as they are.
func unescape(p string) string {
	if !strings.Contains(p, `\`) {
		return p
	}
	return strings.NewReplacer(`\*`, "*", `\?`, "?", `\[`, "[", `\]`, "]", `\{`, "{", `\}`, "}", `\\`, `\`).Replace(p)
}

// each runs f for every path that the arguments name. Failures are reported
// and the others go on; the command then ends with exit code 1.
func (e *env) each(cmd *cobra.Command, args []string, f func(ctx context.Context, fs *client.FS, path string) error) error {
	ctx := cmd.Context()
	failed := false
	for _, a := range args {
		if _, err := e.clean(a); err != nil { // may name the address, so before open
			return err
		}
		if _, err := e.open(ctx); err != nil {
			return err // once, not for every path
		}
		paths, err := e.expand(ctx, a)
		if err != nil {
			if stops(ctx, err) {
				return err
			}
			e.report(cmd.Name(), a, err)
			failed = true
			continue
		}
		for _, p := range paths {
			if err := f(ctx, e.fs, p); err != nil {
				if stops(ctx, err) {
					return err
				}
				if !errors.Is(err, errReported) {
					e.report(cmd.Name(), p, err)
				}
				failed = true
			}
		}
	}
	if failed {
		return errReported
	}
	return nil
}

// stops says that going on with other paths is pointless.
func stops(ctx context.Context, err error) bool {
	var u usageError
	return ctx.Err() != nil || errors.As(err, &u)
}

// completePath offers the names below what was typed; it gives up silently.
func (e *env) completePath(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	if !strings.HasPrefix(typed, "/") {
		return []string{"/"}, none
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := context.WithTimeout(parent, time.Second)
	defer stop()
	fs, err := e.open(ctx)
	if err != nil {
		return nil, none
	}
	i := strings.LastIndexByte(typed, '/')
	dir, prefix := typed[:i+1], typed[i+1:]
	var out []string
	for x, err := range fs.Entries(ctx, client.Path(dir), client.ListOptions{}) {
		if err != nil || len(out) >= 500 {
			break
		}
		if strings.HasPrefix(x.Name, prefix) {
			n := dir + x.Name
			if x.IsDir() {
				n += "/"
			}
			out = append(out, n)
		}
	}
	return out, none
}
