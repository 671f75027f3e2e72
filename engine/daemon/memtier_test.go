// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func TestMemTierIsAdopted(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "mem")
	m, err := openMemTier(dir, 64<<20, log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Dir, "x"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	again, err := openMemTier(dir, 128<<20, log)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(again.Dir, "x")); err != nil || string(b) != "kept" {
		t.Errorf("after adoption: %q, %v", b, err)
	}
	if err := again.Close(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !os.IsNotExist(err) {
		t.Errorf("after Close the memory is still there: %v", err)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	d, err := openDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir); err == nil {
		t.Error("two processes on one data folder")
	}
	if err := d.publish(Endpoints{PID: 7, Meta: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	var e Endpoints
	b, err := os.ReadFile(filepath.Join(dir, "endpoints.json"))
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil || e.PID != 7 || e.Meta != "127.0.0.1:1" {
		t.Errorf("endpoints: %+v, %v", e, err)
	}
	d.close()
	d, err = openDataDir(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	d.close()
}
