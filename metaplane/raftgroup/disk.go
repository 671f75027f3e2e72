// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lni/vfs"
)

// slowSync is from when on a write to the journal's disk is worth a line.
const slowSync = time.Second

// watchedDisk is the disk of the journal. A write or fsync that fails is the
// end of this member, in an orderly way, wherever the engine may have met it:
// some of its goroutines would answer with a panic, others go on. One that
// hangs is told of when it is over; the leadership has moved by then, because
// the engine sends no heartbeats before its disk has answered.
type watchedDisk struct {
	vfs.FS
	die func(reason string)
	log *slog.Logger

	mu   sync.Mutex
	logs map[string]*aheadLog // that are being written, by path; GUARDED_BY(mu)
}

func (d *watchedDisk) watch(f vfs.File, path string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err //nolint:wrapcheck // the engine looks into it
	}
	return &watchedFile{File: f, d: d, path: path}, nil
}

// Create makes a file.
func (d *watchedDisk) Create(path string) (vfs.File, error) {
	f, err := d.FS.Create(path)
	if osf, ok := f.(*os.File); ok && err == nil && strings.HasSuffix(path, logSuffix) {
		f = d.ahead(osf, path)
	}
	return d.watch(f, path, err)
}

// ahead has a log written ahead until it is closed.
func (d *watchedDisk) ahead(f *os.File, path string) *aheadLog {
	var l *aheadLog
	l = newAheadLog(f, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.logs[path] == l {
			delete(d.logs, path)
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.logs == nil {
		d.logs = map[string]*aheadLog{}
	}
	d.logs[path] = l
	return l
}

// Open opens a file to be read.
func (d *watchedDisk) Open(path string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(path, opts...)
	if err != nil {
		return nil, err //nolint:wrapcheck // the engine looks into it
	}
	d.mu.Lock()
	l := d.logs[path]
	d.mu.Unlock()
	if l == nil {
		return f, nil
	}
	return newLogView(f, l.size.Load()), nil
}

// OpenForAppend opens a file to write at its end.
func (d *watchedDisk) OpenForAppend(path string) (vfs.File, error) {
	f, err := d.FS.OpenForAppend(path)
	return d.watch(f, path, err)
}

// ReuseForWrite renames a file and opens it.
func (d *watchedDisk) ReuseForWrite(old, path string) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, path)
	return d.watch(f, path, err)
}

// OpenDir opens a folder to be synced.
func (d *watchedDisk) OpenDir(path string) (vfs.File, error) {
	f, err := d.FS.OpenDir(path)
	return d.watch(f, path, err)
}

// watchedFile is one of its files. It is no *os.File, so tan does not allocate the
// 64 MiB of a new one ahead: writing ahead gains more than that would (ADR 0030).
type watchedFile struct {
	vfs.File
	d    *watchedDisk
	path string
}

// over takes note of what became of a write.
func (f *watchedFile) over(what string, began time.Time, err error) error {
	if err != nil {
		f.d.die(fmt.Sprintf("the journal has failed: %s: %v", what, err))
	}
	if took := time.Since(began); took > slowSync {
		f.d.log.Warn("the disk of the journal is slow", "op", what, "path", f.path, "dur", took)
	}
	return err
}

// Write writes at the end.
func (f *watchedFile) Write(b []byte) (int, error) {
	began := time.Now()
	n, err := f.File.Write(b)
	return n, f.over("write", began, err)
}

// WriteAt writes somewhere.
func (f *watchedFile) WriteAt(b []byte, off int64) (int, error) {
	began := time.Now()
	n, err := f.File.WriteAt(b, off)
	return n, f.over("write", began, err)
}

// Sync waits for the disk.
func (f *watchedFile) Sync() error {
	began := time.Now()
	return f.over("fsync", began, f.File.Sync())
}
