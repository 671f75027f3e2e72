// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaserver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"orca"
	"orca/metaplane/backup"
	"orca/metaplane/inodekv"
)

// views are the stores of all groups, the first one's first, each at one moment.
type views []*inodekv.Cursor

func (v views) close() error {
	var errs []error
	for _, c := range v {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (v views) estimate() (n int64) {
	for _, c := range v {
		n += c.Estimate
	}
	return n
}

func (v views) sources() []backup.Source {
	out := make([]backup.Source, len(v))
	for i, c := range v {
		out[i] = c
	}
	return out
}

// viewTries is how often a view is taken again because junctions were changing.
const viewTries = 20

// view takes the stores of all groups. Whatever was acknowledged before the call
// is in it. The groups' moments are different ones, and need not be the same:
// nothing is done in two groups at once, but for a junction and the mount behind
// it. No junction has changed from before the first view to after the last, so
// that each is in all of them as it was throughout: one that is active has its
// mount in the group behind it, and any other is brought in line by whoever leads
// the first group, as after any change of leaders.
func (s *Service) view(ctx context.Context) (views, []backup.Group, error) {
	const op = "metaserver.Backup"
	all, err := s.services()
	if err != nil {
		return nil, nil, err
	}
	for range viewTries {
		for _, g := range all {
			if err := g.raw.ReadReady(ctx); err != nil {
				return nil, nil, err
			}
		}
		before := s.junctions(all)
		var vs views
		var groups []backup.Group
		for _, g := range all {
			c, err := g.raw.Machine().Cursor()
			if err != nil {
				return nil, nil, errors.Join(err, vs.close())
			}
			vs = append(vs, c)
			groups = append(groups, backup.Group{ID: g.groupNumber(), Applied: c.Applied})
		}
		if len(all) == 1 {
			return vs, groups, nil
		}
		// A member that lags behind sees a junction late: not before this.
		for _, g := range all {
			if err := g.raw.ReadReady(ctx); err != nil {
				return nil, nil, errors.Join(err, vs.close())
			}
		}
		if slices.Equal(before, s.junctions(all)) {
			return vs, groups, nil
		}
		if err := vs.close(); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, orca.E(op, orca.Busy, "mounts in groups of their own are just being made and removed: try again")
}

// services are those of all groups in this process, the first one's first.
// Unavailable: one that is on record does not run here yet.
func (s *Service) services() ([]*Service, error) {
	all := []*Service{s}
	numbers := s.groups()
	for n := range s.GroupFacts() {
		if !slices.Contains(numbers, uint32(n)) {
			numbers = append(slices.Clone(numbers), uint32(n))
		}
	}
	for _, n := range slices.Sorted(slices.Values(numbers)) {
		if n <= 1 {
			continue
		}
		var g *Service
		if s.cfg.Here != nil {
			g = s.cfg.Here(uint16(n))
		}
		if g == nil {
			return nil, orca.E("metaserver.Backup", orca.Unavailable, fmt.Sprintf("group %d does not run on this member yet", n))
		}
		all = append(all, g)
	}
	return all, nil
}

// junctions are the states of all junctions, and of moves to other groups, each as
// the group that they leave has it; a state is never come back to, for each change
// of a row has a serial of its own.
func (s *Service) junctions(all []*Service) []string {
	var out []string
	for _, r := range s.raw.Machine().Mounts() {
		if m := r.Mount; m.GetGroup() > 1 {
			out = append(out, fmt.Sprint(m.Id, m.Serial, m.Junction))
		}
	}
	for _, g := range all {
		for _, it := range g.raw.Machine().Regroups() {
			out = append(out, fmt.Sprint("regroup ", it.Id, it.Closed))
		}
	}
	for n, members := range s.GroupFacts() {
		out = append(out, fmt.Sprint(n, members))
	}
	slices.Sort(out)
	return out
}
