// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Command ensure builds the MinIO of the tests into the user's cache, if it is
// not there, and prints its path. `make deps` runs it, so that no test has to
// wait for the build.
package main

import (
	"context"
	"fmt"
	"os"

	"orca/ufs/ufstest/minio"
)

func main() {
	bin, err := minio.Ensure(context.Background(), os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(bin)
}
