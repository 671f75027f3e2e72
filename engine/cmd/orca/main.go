// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Command orca is the whole of Orca: servers, command line and mount.
package main

import (
	"os"

	"orca/engine/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Standard(), cli.Hooks{Up: up, Start: start, Mount: mount, Restore: restore, Inspect: inspect}))
}
