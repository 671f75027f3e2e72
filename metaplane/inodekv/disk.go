// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inodekv

import (
	"math/rand/v2"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is a disk in memory that outlives the stores on it and can lose its
// power: what simulators open a store on, again and again.
type Disk struct{ fs *vfs.MemFS }

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{vfs.NewCrashableMem()} }

// Crash returns the disk as a power cut leaves it now: what was synced, and of
// the rest as much as r says. The old disk goes on for those who hold it.
func (d *Disk) Crash(r *rand.Rand) *Disk {
	return &Disk{d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: r})}
}
