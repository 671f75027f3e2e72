// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"orca/engine/client"
	"orca/ufs/ledger"
	"orca/ufs/local"
)

// TestUploadThatNobodyKnows: a worker died in the middle of an upload that it had
// begun after its session was swept, so the metaplane knows nothing of it. The
// worker's next life removes what it left in the store, and leaves alone what was
// finished.
func TestUploadThatNobodyKnows(t *testing.T) {
	data, root := t.TempDir(), t.TempDir()
	p := up(t, data, "--root", root, "--mem", "64MB", "--ssd", "0")
	if err := write(ctxFor(t, time.Minute), p.fs(), "/d/done", "content", client.CreateOptions{Parents: true}); err != nil {
		t.Fatal(err)
	}
	p.kill()

	log := slog.New(slog.DiscardHandler)
	l, err := ledger.Open(filepath.Join(data, "worker", "uploads"), log)
	if err != nil {
		t.Fatal(err)
	}
	if l.Left() != 0 {
		t.Fatalf("%d uploads have not ended", l.Left())
	}
	fs, err := local.Open(t.Context(), local.Config{Root: root}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	const rootMount = 1
	w, err := l.Over(rootMount, fs).Create(t.Context(), "d/late", "1f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "the beginning of it"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names := func() int {
		list, err := os.ReadDir(filepath.Join(root, "d"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if names() != 2 {
		t.Fatal("no upload is under way")
	}
	up(t, data, "--root", root, "--mem", "64MB", "--ssd", "0")
	eventually(t, time.Minute, "the temporary file is removed", func() bool { return names() == 1 })
}
