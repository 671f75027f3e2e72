// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"orca"
	"orca/engine/client"
)

func (e *env) tierCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "tier", Short: "Look after the tier directories of a worker",
		Long: `Look after the tier directories of a worker while it runs. What is changed
holds after a restart too, and goes before what the start command says. A
worker, named by its id or its node, takes such orders from its own host only.
The memory tier is what --mem says.`,
		Example: `  orca admin tier ls
  orca admin tier add node-7 SSD:/mnt/ssd2=1TB,reserve=5%
  orca admin tier resize node-7 /mnt/ssd1 200GB
  orca admin tier remove node-7 /mnt/ssd1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(e.tierLsCommand(), e.tierAddCommand(), e.tierResizeCommand(), e.tierRemoveCommand())
	return c
}

func (e *env) tierLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls [WORKER...]", Short: "List the tier directories of live workers",
		Long:    "List the tier directories of the workers given by id or node, or of all live ones.",
		Example: "  orca admin tier ls --json",
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			fs, err := e.open(cmd.Context())
			if err != nil {
				return err
			}
			ws, err := e.scrubbed(cmd.Context(), fs, args)
			if err != nil {
				return err
			}
			return e.printWorkers(ws, true)
		}),
	}
}

func (e *env) tierAddCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add WORKER TIER:DIR=SIZE[,reserve=SIZE][,encrypt=KEYFILE]", Short: "Add a tier directory",
		Long: `Add a tier directory to a worker, spelled as for --tier: SSD:/path=100GB or
HDD:/path=1TB, and ,reserve=20GB or ,reserve=10% behind it to leave so much of
the file system free, ,encrypt=KEYFILE to encrypt what is in it. Blocks of an earlier life that are in it are taken over.`,
		Example: "  orca admin tier add node-7 SSD:/mnt/ssd2=1TB,reserve=5%",
		Args:    words(2, "add WORKER TIER:DIR=SIZE"),
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			d, err := parseTier(args[1])
			if err != nil {
				return err
			}
			return e.orderTier(cmd, args[0], client.TierOrder{Op: client.TierAdd, Dir: d.Path, Tier: d.Tier, Capacity: d.Capacity, Reserve: d.Reserve, ReservePart: d.ReservePart, KeyFile: d.KeyFile})
		}),
	}
}

func (e *env) tierResizeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resize WORKER DIR SIZE", Short: "Give a tier directory another quota",
		Long: `Give a tier directory of a worker another quota. When it is smaller, clean
blocks leave in the background, to a slower tier where there is one. Data that
is nowhere else, pinned files and files that are being written stay: a quota
that is too small for them is refused.`,
		Example: "  orca admin tier resize node-7 /mnt/ssd1 200GB",
		Args:    words(3, "resize WORKER DIR SIZE"),
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			n, err := humanize.ParseBytes(args[2])
			if err != nil || n == 0 || n > 1<<62 {
				return usagef("%q: not a size", args[2])
			}
			return e.orderTier(cmd, args[0], client.TierOrder{Op: client.TierResize, Dir: args[1], Capacity: int64(n)})
		}),
	}
}

func (e *env) tierRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "remove WORKER DIR", Short: "Empty a tier directory and let go of it",
		Long: `Empty a tier directory of a worker and let go of it; the command returns when
that is done, and takes as long as moving its blocks to the other directories
does, at most at --move-rate. Data that is nowhere else is durable in another
directory before it leaves this one; cached blocks for which there is no room
are dropped. Nothing new comes into the directory meanwhile, and writers and
readers that are in it are waited for. Stopping the command gives it up: the
directory is used again.

The last directory cannot be removed, nor one that holds more than fits the
others of data that is nowhere else or pinned.`,
		Example: "  orca admin tier remove node-7 /mnt/ssd1",
		Args:    words(2, "remove WORKER DIR"),
		RunE: e.run(func(cmd *cobra.Command, args []string) error {
			return e.orderTier(cmd, args[0], client.TierOrder{Op: client.TierRemove, Dir: args[1]})
		}),
	}
}

// words wants n arguments.
func words(n int, usage string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("want %s", usage)
		}
		return nil
	}
}

// orderTier sends an order to one worker.
func (e *env) orderTier(cmd *cobra.Command, worker string, o client.TierOrder) error {
	if !filepath.IsAbs(o.Dir) {
		return usagef("%q: want the absolute path of a folder on the worker's host", o.Dir)
	}
	o.Dir = filepath.Clean(o.Dir)
	fs, err := e.open(cmd.Context())
	if err != nil {
		return err
	}
	ws, err := e.scrubbed(cmd.Context(), fs, []string{worker})
	if err != nil {
		return err
	}
	if len(ws) > 1 {
		return &orca.Error{Op: "cli.tier", Path: worker, Kind: orca.Invalid, Msg: "several workers are on this node: name one by its id"}
	}
	if err := fs.OrderTier(cmd.Context(), ws[0], o); err != nil {
		return err
	}
	if e.json {
		return e.emit(struct {
			Worker uint64 `json:"worker"`
			Node   string `json:"node"`
			client.TierOrder
		}{ws[0].Id, ws[0].Node, o})
	}
	return nil
}
