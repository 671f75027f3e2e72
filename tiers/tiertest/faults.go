// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiertest

import (
	"os"
	"sync"
	"syscall"

	"orca/tiers/blockfile"
)

// Faults is blockfile.Ops that fails on demand. Mutating calls (writes, syncs,
// creations, renames, removals) are counted; the nth can be made to fail, and
// a hook sees each before it happens.
type Faults struct {
	blockfile.OS

	mu     sync.Mutex
	n      int                                 // mutating calls so far; GUARDED_BY(mu)
	at     int                                 // call that fails, counted from 1; 0: none; GUARDED_BY(mu)
	always bool                                // and all after it; GUARDED_BY(mu)
	err    error                               // GUARDED_BY(mu)
	hook   func(n int, op string, path string) // GUARDED_BY(mu)
}

var _ blockfile.Ops = (*Faults)(nil)

// FailAt makes the nth mutating call from now on fail with err (default EIO),
// and every later one too when always.
func (f *Faults) FailAt(n int, always bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = syscall.EIO
	}
	f.n, f.at, f.always, f.err = 0, n, always, err
}

// Before calls hook ahead of each mutating call; nil ends that.
func (f *Faults) Before(hook func(n int, op, path string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.hook = 0, hook
}

// Count returns the number of mutating calls since FailAt or Before.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *Faults) step(op, path string) error {
	f.mu.Lock()
	f.n++
	n, hook := f.n, f.hook
	fail := f.at > 0 && (n == f.at || f.always && n > f.at)
	err := f.err
	f.mu.Unlock()
	if hook != nil {
		hook(n, op, path)
	}
	if fail {
		return &os.PathError{Op: op, Path: path, Err: err}
	}
	return nil
}

// OpenFile fails only when it creates.
func (f *Faults) OpenFile(path string, flag int, perm os.FileMode) (*os.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := f.step("open", path); err != nil {
			return nil, err
		}
	}
	return f.OS.OpenFile(path, flag, perm)
}

// WriteAt writes half of p before it fails.
func (f *Faults) WriteAt(w *os.File, p []byte, off int64) (int, error) {
	if err := f.step("write", w.Name()); err != nil {
		n, _ := f.OS.WriteAt(w, p[:len(p)/2], off)
		return n, err
	}
	return f.OS.WriteAt(w, p, off)
}

// Datasync fails without syncing.
func (f *Faults) Datasync(w *os.File) error {
	if err := f.step("fdatasync", w.Name()); err != nil {
		return err
	}
	return f.OS.Datasync(w)
}

// SyncDir fails without syncing.
func (f *Faults) SyncDir(path string) error {
	if err := f.step("syncdir", path); err != nil {
		return err
	}
	return f.OS.SyncDir(path)
}

// Truncate fails without effect.
func (f *Faults) Truncate(w *os.File, length int64) error {
	if err := f.step("truncate", w.Name()); err != nil {
		return err
	}
	return f.OS.Truncate(w, length)
}

// Chmod fails without effect.
func (f *Faults) Chmod(path string, perm os.FileMode) error {
	if err := f.step("chmod", path); err != nil {
		return err
	}
	return f.OS.Chmod(path, perm)
}

// Rename fails without effect.
func (f *Faults) Rename(from, to string) error {
	if err := f.step("rename", to); err != nil {
		return err
	}
	return f.OS.Rename(from, to)
}

// Remove fails without effect.
func (f *Faults) Remove(path string) error {
	if err := f.step("remove", path); err != nil {
		return err
	}
	return f.OS.Remove(path)
}
