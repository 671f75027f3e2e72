// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// WriteDocs writes docs/cli.md: every command with its help. All commands are
// there, whatever hooks this build has.
func WriteDocs(w io.Writer) error {
	e := &env{hooks: Hooks{
		Up:    func(context.Context, UpOptions, Streams) error { return nil },
		Start: func(context.Context, StartOptions, Streams) error { return nil },
		Mount: func(context.Context, MountOptions, Streams) error { return nil },
		Restore: func(context.Context, RestoreOptions, Streams) (*Restored, error) {
			return nil, nil //nolint:nilnil // never called
		},
	}}
	root := e.root()
	var b strings.Builder
	b.WriteString("<!-- Made from the commands themselves: go test ./engine/cli -run Docs -rewrite -->\n# The command line\n\n")
	b.WriteString(plain(root.Long) + "\n\n")
	b.WriteString("Lists are aligned tables on a terminal, and tab-separated without a heading when\npiped. With `--json` a list is one JSON object a line, a single thing one object;\nfield names are only ever added.\n\n")
	b.WriteString("Options of every command:\n\n" + flagTable(root.PersistentFlags()) + "\n")
	document(&b, root)
	_, err := io.WriteString(w, b.String())
	return err
}

func document(b *strings.Builder, c *cobra.Command) {
	for _, s := range c.Commands() {
		if s.Hidden || s.Name() == "help" || c.Name() == "completion" {
			continue
		}
		fmt.Fprintf(b, "## %s\n\n", s.CommandPath())
		if len(s.Aliases) > 0 {
			fmt.Fprintf(b, "Also: %s\n\n", strings.Join(s.Aliases, ", "))
		}
		fmt.Fprintf(b, "```\n%s\n```\n\n", s.UseLine())
		text := s.Long
		if text == "" {
			text = s.Short
		}
		b.WriteString(plain(text) + "\n\n")
		if t := flagTable(s.LocalNonPersistentFlags()); t != "" {
			b.WriteString(t + "\n")
		}
		if s.Example != "" {
			fmt.Fprintf(b, "```sh\n%s\n```\n\n", strings.Trim(strings.ReplaceAll("\n"+s.Example, "\n  ", "\n"), "\n"))
		}
		document(b, s)
	}
}

// plain keeps indented lines of help texts as they are.
func plain(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "  ") {
			lines[i] = "  " + l
		}
	}
	return strings.Join(lines, "\n")
}

func flagTable(fs *pflag.FlagSet) string {
	var b strings.Builder
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		if f.Value.Type() != "bool" {
			name += " *" + strings.TrimSuffix(f.Value.Type(), "Array") + "*"
		}
		def := ""
		if d := f.DefValue; d != "" && d != "false" && d != "[]" && !strings.Contains(f.Usage, "default") {
			def = " (default " + d + ")"
		}
		fmt.Fprintf(&b, "| %s | %s%s |\n", name, strings.ReplaceAll(f.Usage, "|", "\\|"), def)
	})
	if b.Len() == 0 {
		return ""
	}
	return "| option | meaning |\n|---|---|\n" + b.String()
}
