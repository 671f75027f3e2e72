// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"slices"

	"orca"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
)

// MaxCopies is the most workers that a file may be asked to be on.
const MaxCopies = 1024

// copies returns the bounds of a file's copies.
func (m *Machine) copies(f *inode.File) inode.Copies {
	if !f.Flags.Has(inode.Replicated) {
		return inode.Copies{}
	}
	var kb [16]byte
	c, err := inode.DecodeCopies(m.get(inode.AppendKey8(kb[:0], inode.SpaceReplicas, uint64(f.Ino))))
	if err != nil {
		m.fail(err)
	}
	return c
}

// boundCopies fills in the bounds of a file's copies.
func (m *Machine) boundCopies(a *metapb.Attr, f *inode.File) {
	c := m.copies(f)
	a.ReplicaMin, a.ReplicaLimit = c.Min, c.Max
}

// setCopies bounds the copies of f, which is a record that is not stored yet.
func (m *Machine) setCopies(f *inode.File, c inode.Copies) {
	if c.Any() && !f.Flags.Has(inode.Replicated) {
		return
	}
	key := inode.AppendKey8(nil, inode.SpaceReplicas, uint64(f.Ino))
	if f.Flags = f.Flags.With(inode.Replicated, !c.Any()); c.Any() {
		m.tx.Delete(key)
	} else {
		m.tx.Set(key, inode.AppendCopies(nil, c))
	}
	m.effect(Effect{Kind: EffectCopies, File: f.Ino, Version: f.Version})
}

// written takes note that a version of f is written with n copies, as its writer
// asked for: no fewer are kept from now on.
func (m *Machine) written(f *inode.File, n uint32) {
	c := m.copies(f)
	if n < 2 || n <= c.Min {
		return
	}
	if c.Min = n; c.Max != 0 {
		c.Max = max(c.Max, n+1)
	}
	m.setCopies(f, c)
}

func checkCopies(o *metapb.SetAttrOp, s *spot) *refusal {
	switch {
	case s.file != nil && s.file.Type != orca.TypeFile:
		return refuse(orca.Invalid, s.path, "only files have copies")
	case o.ReplicaMin > MaxCopies:
		return refuse(orca.Invalid, s.path, "more copies than any cluster has workers")
	case o.ReplicaLimit != 0 && o.ReplicaLimit-1 < o.ReplicaMin:
		return refuse(orca.Invalid, s.path, "the most copies are fewer than the least")
	}
	return nil
}

// addHolders takes note that workers have a copy of a version that is in no UFS.
func (m *Machine) addHolders(_ *call, o *metapb.HoldOp) *refusal {
	n, name, f := m.byIno(orca.Ino(o.File))
	if f == nil || !m.attached(n) || f.Version != o.Version || f.Persist != orca.NotPersisted && f.Persist != orca.ToBePersisted || len(f.Workers) == 0 {
		return nil
	}
	holders := slices.Clone(f.Workers)
	for _, w := range o.Workers {
		if len(holders) < MaxCopies && !slices.Contains(holders, w) {
			holders = append(holders, w)
		}
	}
	if len(holders) > len(f.Workers) {
		f = clone(f)
		f.Workers = holders
		m.putFile(n, name, f)
	}
	return nil
}

// Located is Lookup with the path. NotFound for what is in the trash.
func (m *Machine) Located(ino orca.Ino) (*View, string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.failed(); err != nil {
		return nil, "", err
	}
	n, name, f := m.byIno(ino)
	if f == nil || !m.attached(n) {
		return nil, "", &orca.Error{Op: "fsm.Located", Path: ino.String(), Kind: orca.NotFound}
	}
	v := m.fileView(n, name, f)
	return &v, orca.JoinPath(n.path(), name), m.failed()
}

// Replicated returns files with bounds of their copies, by number after after,
// at most limit; more says that there are more.
func (m *Machine) Replicated(after orca.Ino, limit int) (files []orca.Ino, more bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.failed(); err != nil {
		return nil, false, err
	}
	lower := append(inode.AppendKey8(nil, inode.SpaceReplicas, uint64(after)), 0)
	m.eachKey(lower, []byte{inode.SpaceReplicas + 1}, func(k, _ []byte) bool {
		if more = len(files) == limit; more {
			return false
		}
		files = append(files, orca.Ino(inode.Number(k)))
		return true
	})
	return files, more, m.failed()
}
