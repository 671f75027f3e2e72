// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestEncryptedTier writes and reads, here and from another node, with all cached data in an encrypted directory: no plain
// text is in it, readers on the host come over the Unix socket, and a start with another key harms nothing.
func TestEncryptedTier(t *testing.T) {
	data, root, tier := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "ssd")
	key, other := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "other")
	for path, b := range map[string]string{key: "0123456789abcdef0123456789ABCDEF", other: "fedcba98765432100123456789ABCDEF"} {
		if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := func(key string) []string {
		return []string{"--root", root, "--mem", "0", "--ssd", "0", "--tier", "SSD:" + tier + "=256MB,encrypt=" + key}
	}
	const secret = "what is in the file is nobody's business but its reader's\n"
	want := strings.Repeat(secret, 50_000)
	if err := os.WriteFile(filepath.Join(root, "cold"), []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	p := up(t, data, args(key)...)
	ctx := ctxFor(t, time.Minute)
	for name, w := range map[string]orca.WriteType{"/only": orca.MustCache, "/through": orca.CacheThrough} {
		if err := write(ctx, p.fs(), name, want, client.CreateOptions{WriteType: w}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) {
		t.Helper()
		for _, mode := range []string{"fd", "stream", "off"} {
			if p.must("--short-circuit", mode, "fs", "cat", name) != want {
				t.Errorf("%s with --short-circuit=%s: wrong bytes", name, mode)
			}
		}
	}
	for _, name := range []string{"/only", "/through", "/cold"} {
		read(name)
	}
	if n := p.metric("orca_worker_server_domain_bytes_total"); n < 6*float64(len(want)) {
		t.Errorf("%v bytes went over the Unix socket", n)
	}
	if page := p.page(); !strings.Contains(page, `kind="decrypted"`) {
		t.Error("no read was counted as decrypted")
	}
	clean := func() {
		t.Helper()
		err := filepath.WalkDir(tier, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(secret[:16])) {
				t.Errorf("plain text in %s", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	clean()
	p.kill()

	bad, _ := launch(t, data, nil, slices.Concat([]string{"up", "--data", data}, freePorts, args(other))...)
	select {
	case err := <-bad.exit:
		bad.exit <- err
	case <-ctx.Done():
		t.Fatal("a worker without any directory goes on")
	}
	if log := bad.output(); !strings.Contains(log, "another key") {
		t.Errorf("not said why: %s", log)
	}
	p = up(t, data, args(key)...)
	read("/only")
	clean()
}
