// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"orca/bench/facts"
)

// native returns a folder on a file system of the same type and options as the
// MEM tier: a tmpfs of our own where we may mount one (as Orca does), else a
// folder in shared memory (as Orca does then).
func (s *stage) native() (string, error) {
	if s.nativeDir != "" {
		return s.nativeDir, nil
	}
	dir, err := s.dir("native")
	if err != nil {
		return "", err
	}
	err = unix.Mount("orcabench-native", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,huge=advise")
	if errors.Is(err, unix.EINVAL) { // a kernel without huge pages in tmpfs
		err = unix.Mount("orcabench-native", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755")
	}
	if err == nil {
		s.last = append(s.last, func() error { return unix.Unmount(dir, unix.MNT_DETACH) })
	} else {
		if dir, err = os.MkdirTemp(sharedMemory, "orcabench-"); err != nil {
			return "", fmt.Errorf("no tmpfs for the native side: %w", err)
		}
		s.last = append(s.last, func() error { return os.RemoveAll(dir) })
	}
	s.note("native", dir)
	s.nativeDir = dir
	return dir, nil
}

// sameTier checks that the folder of the native side is of the same type of
// file system as the tier that serves Orca's side.
func (s *stage) sameTier(tierDir string) error {
	dir, err := s.native()
	if err != nil {
		return err
	}
	want, opts, err := facts.Mount(tierDir)
	if err != nil {
		return err
	}
	got, nativeOpts, err := facts.Mount(dir)
	if err != nil {
		return err
	}
	if got != want || huge(opts) != huge(nativeOpts) {
		return fmt.Errorf("the tier is on %s (%s), the native folder on %s (%s): not comparable", want, opts, got, nativeOpts)
	}
	return nil
}

func huge(opts string) string {
	for o := range strings.SplitSeq(opts, ",") {
		if v, ok := strings.CutPrefix(o, "huge="); ok {
			return v
		}
	}
	return ""
}
