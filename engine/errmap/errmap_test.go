// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package errmap

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/require"

	"orca"
)

var rewrite = flag.Bool("rewrite", false, "rewrite testdata")

// The table is a promise to users of every door; the golden is its review.
func TestTableGolden(t *testing.T) {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "kind\tname\terrno\texit\thttp\ts3\thdfs\ttext")
	for _, r := range Table() {
		fmt.Fprintf(w, "%d\t%s\t%d\t%d\t%d\t%s\t%s\t%s\n", r.Kind, r.Kind, int(r.Errno), r.Exit, r.HTTP, r.S3, r.HDFS, r.Text)
	}
	require.NoError(t, w.Flush())
	const golden = "testdata/table.txt"
	if *rewrite {
		require.NoError(t, os.WriteFile(golden, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// Every Kind that has a name has a row, at its own index.
func TestTableIsExhaustive(t *testing.T) {
	for k := orca.Kind(0); ; k++ {
		if strings.HasPrefix(k.String(), "kind ") {
			require.Len(t, table, int(k), "a Kind without a row")
			return
		}
		require.Less(t, int(k), len(table), "no row for %s", k)
		r := table[k]
		require.Equal(t, k, r.Kind)
		require.NotEmpty(t, r.Text)
		if k == orca.OK {
			continue
		}
		require.NotZero(t, r.Errno, k)
		require.NotEqual(t, syscall.ENOSYS, r.Errno, "ENOSYS switches FUSE requests off for good")
		require.NotZero(t, r.Exit, k)
		require.NotEmpty(t, r.S3, k)
		require.NotEmpty(t, r.HDFS, k)
		require.GreaterOrEqual(t, r.HTTP, 400, k)
	}
}

func TestForeignErrorsAreInternal(t *testing.T) {
	// Error numbers of the network layer look like an errno; none may reach a kernel.
	for _, e := range []error{syscall.Errno(0x101), fmt.Errorf("dial: %w", syscall.Errno(0x105)), errors.New("x"), orca.Kind(60000)} {
		require.Equal(t, syscall.EIO, Errno(e), "%v", e)
		require.Equal(t, 500, HTTP(e))
	}
	require.Zero(t, Errno(nil))
	require.Equal(t, 200, HTTP(nil))
	require.Equal(t, ExitOK, Exit(nil))
}

func TestWrappedKindsAreFound(t *testing.T) {
	err := fmt.Errorf("cp: %w", orca.PathE("local.Stat", "/x", orca.NotFound, syscall.EIO))
	require.Equal(t, syscall.ENOENT, Errno(err))
	require.Equal(t, "NoSuchKey", S3(err))
	require.Equal(t, "java.io.FileNotFoundException", HDFS(err))
	require.Equal(t, ExitInterrupted, Exit(orca.E("x", orca.Canceled, "")))
}
