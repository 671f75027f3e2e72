// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orca"
	"orca/engine/client"
)

// TestOpenAcrossMounts has a file open in one mount, cold but for its beginning,
// that is removed or replaced through another one or by a client: who has it open
// reads all of it. The store keeps nothing for that.
func TestOpenAcrossMounts(t *testing.T) {
	for name, of := range map[string]func(t *testing.T) *store{"local": localStore, "minio": minioStore} {
		t.Run(name, func(t *testing.T) {
			s := of(t)
			mnt, other := t.TempDir(), t.TempDir()
			t.Cleanup(func() { syscall.Unmount(mnt, syscall.MNT_DETACH) })
			p := upEnv(t, t.TempDir(), s.env, append(s.upArgs, "--mount", mnt)...)
			m, _ := launch(t, t.TempDir(), []string{"ORCA_ADDRESS=" + p.ep.MetaSocket}, "mount", other)
			eventually(t, time.Minute, "the mount is up", func() bool { return strings.Contains(m.output(), "mounted at") })
			t.Cleanup(func() { _ = m.stop() })
			fs := p.fs()
			if name == "local" {
				p.must("admin", "group", "add")
				p.must("fs", "mkdir", "--group", "2", "/two")
				if err := os.WriteFile(filepath.Join(mnt, "two", "new"), []byte("new"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			data := make([]byte, 48<<20)
			seed := rand.NewChaCha8([32]byte{})
			_, _ = seed.Read(data)
			for _, how := range []struct {
				name   string
				reader string
				remove func(name string) error
			}{
				{"unlink", other, func(n string) error { return os.Remove(filepath.Join(mnt, n)) }},
				{"rename", other, func(n string) error {
					if err := os.WriteFile(filepath.Join(mnt, "new"), []byte("new"), 0o644); err != nil {
						return err
					}
					return os.Rename(filepath.Join(mnt, "new"), filepath.Join(mnt, n))
				}},
				{"rm", mnt, func(n string) error { p.must("fs", "rm", "/"+n); return nil }},
				{"tree", mnt, func(n string) error {
					p.must("fs", "rm", "-R", "/"+filepath.Dir(n))
					return nil
				}},
				{"transfer", mnt, func(n string) error { return fs.Rename(t.Context(), client.Path("/"+n), client.Path("/two/f"), true) }},
				{"arrival", other, func(n string) error {
					// From here on the client asks the source's group, which the target is not in.
					if _, err := fs.Stat(t.Context(), client.Path("/two/new"), client.Sync{}); err != nil {
						return err
					}
					return fs.Rename(t.Context(), client.Path("/two/new"), client.Path("/"+n), false)
				}},
			} {
				if (how.name == "transfer" || how.name == "arrival") && name != "local" {
					continue // no group takes files of object stores from another
				}
				t.Run(how.name, func(t *testing.T) {
					n := "d-" + how.name + "/sub/f"
					ctx := ctxFor(t, 2*time.Minute)
					// In the store, and nowhere else.
					w, err := fs.Create(ctx, client.Path("/"+n), client.CreateOptions{Parents: true, WriteType: orca.Through})
					if err != nil {
						t.Fatal(err)
					}
					if _, err := w.Write(data); err != nil {
						t.Fatal(err)
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					f, err := os.Open(filepath.Join(how.reader, n))
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					got := make([]byte, len(data))
					if _, err := io.ReadFull(f, got[:4096]); err != nil {
						t.Fatal(err)
					}
					recalls := p.metric("orca_meta_recalls_total")
					begin := time.Now()
					if err := how.remove(n); err != nil {
						t.Fatal(err)
					}
					t.Logf("the removal took %v", time.Since(begin))
					if n := p.metric("orca_meta_recalls_total") - recalls; how.name == "arrival" && n == 0 {
						t.Error("what was replaced was not recalled")
					}
					if k, err := io.ReadFull(f, got[4096:]); err != nil || !bytes.Equal(got, data) {
						t.Errorf("of what was removed %d bytes more are read, %v", k, err)
					}
					if how.name != "rename" && how.name != "arrival" {
						if _, err := os.Stat(filepath.Join(how.reader, n)); !os.IsNotExist(err) {
							t.Errorf("the name: %v", err)
						}
						return
					}
					if b, err := os.ReadFile(filepath.Join(how.reader, n)); err != nil || string(b) != "new" {
						t.Errorf("the name reads %d bytes, %v", len(b), err)
					}
				})
			}
		})
	}
}

// TestOpenAcrossLeaders has a file open while the member is killed that knew that:
// the next one has been told when it removes the file.
func TestOpenAcrossLeaders(t *testing.T) {
	c := startCluster(t)
	c.worker("w1")
	fs := c.fs()
	mnt := c.fuse(c.nodes[c.leader(fs)])
	ctx := ctxFor(t, 5*time.Minute)
	data := make([]byte, 48<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	w, err := fs.Create(ctx, client.Path("/f"), client.CreateOptions{WriteType: orca.Through})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(mnt, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(f, got[:4096]); err != nil {
		t.Fatal(err)
	}
	c.kill(c.leader(fs))
	lead := c.nodes[c.leader(fs)]
	eventually(t, time.Minute, "the next leader knows that it is open", func() bool { return lead.metric("orca_meta_open_files") > 0 })
	c.must(lead, "fs", "rm", "/f")
	if k, err := io.ReadFull(f, got[4096:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("of what was removed %d bytes more are read, %v", k, err)
	}
}
