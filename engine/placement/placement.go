// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package placement orders workers: which of them a new file should be written
// to, and which should fetch what no worker holds.
//
//	client.Create ──┐
//	client.File ────┼─► Policy.Order ─► workers, best first
//	daemon (home) ──┘
//
// It is pure: no clock, no chance, no I/O, no goroutines. What turns (round
// robin) is told by a number that the caller counts up. Whether a worker is
// alive or holds the data is the caller's business; a policy decides among
// workers that would do equally well.
//
// It refuses to know what the network looks like beyond node and rack.
package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"orca"
)

// Place is where a process runs. An empty rack is no rack: it is never shared.
type Place struct {
	Node, Rack string
}

// Distance from p to another place: 0 the same node, 1 the same rack, 2
// elsewhere.
func (p Place) Distance(o Place) int {
	switch {
	case p.Node == o.Node:
		return 0
	case p.Rack != "" && p.Rack == o.Rack:
		return 1
	}
	return 2
}

// Worker is what is known of a worker.
type Worker struct {
	ID uint64
	Place
	Free     int64 // bytes that it takes without evicting anything
	Capacity int64 // bytes that it can hold at all
}

// Task is what workers are ordered for.
type Task struct {
	Key  uint64 // of the file: equal keys get equal orders
	Size int64  // bytes that come, as far as known; else 0
	At   Place  // of the client
	Turn uint64 // counted up by the client with each task
}

// Policy is a rule to order workers by. The zero value is LocalFirst.
type Policy struct {
	kind kind
	node string // of specific
	n    int    // of deterministic-hash
}

type kind uint8

const (
	localFirst kind = iota
	localFirstAvoidEviction
	mostAvailable
	roundRobin
	specific
	deterministicHash
)

// LocalFirst is the default: the nearest worker, by rendezvous hashing among
// those that are equally near.
var LocalFirst = Policy{}

var names = map[kind]string{
	localFirst: "local-first", localFirstAvoidEviction: "local-first-avoid-eviction", mostAvailable: "most-available",
	roundRobin: "round-robin", specific: "specific", deterministicHash: "deterministic-hash",
}

// Parse reads a policy as String writes it: Invalid when there is none of that
// name.
//
//	local-first  local-first-avoid-eviction  most-available  round-robin
//	specific:NODE  deterministic-hash  deterministic-hash:N
func Parse(s string) (Policy, error) {
	if s == "" {
		return LocalFirst, nil
	}
	name, arg, hasArg := strings.Cut(s, ":")
	for k, n := range names {
		if n != name {
			continue
		}
		p := Policy{kind: k}
		var err error
		switch {
		case k == specific && arg != "":
			p.node = arg
		case k == deterministicHash && hasArg:
			if p.n, err = strconv.Atoi(arg); err != nil || p.n < 1 {
				return p, bad(s, "the number of workers must be at least 1")
			}
		case k == specific:
			return p, bad(s, "specific needs a node: specific:NODE")
		case hasArg:
			return p, bad(s, name+" takes no argument")
		}
		return p, nil
	}
	return Policy{}, bad(s, "known are local-first, local-first-avoid-eviction, most-available, round-robin, specific:NODE and deterministic-hash[:N]")
}

func bad(s, msg string) error {
	return &orca.Error{Op: "placement.Parse", Path: s, Kind: orca.Invalid, Msg: msg}
}

// String is what Parse reads.
func (p Policy) String() string {
	switch {
	case p.kind == specific:
		return names[p.kind] + ":" + p.node
	case p.n > 0:
		return names[p.kind] + ":" + strconv.Itoa(p.n)
	}
	return names[p.kind]
}

// PrefersLocal reports whether a worker of the client's own node comes before
// all others.
func (p Policy) PrefersLocal() bool {
	return p.kind == localFirst || p.kind == localFirstAvoidEviction
}

// Confined returns the node that new files may be written to, "" for any.
func (p Policy) Confined() string { return p.node }

// Order sorts ws in place, best first. Equal workers are in the order of Rank,
// so that clients agree on them.
func (p Policy) Order(ws []Worker, t Task) {
	rank := func(a, b Worker) int {
		return cmp.Or(cmp.Compare(Rank(t.Key, b.ID), Rank(t.Key, a.ID)), cmp.Compare(a.ID, b.ID))
	}
	near := func(a, b Worker) int {
		return cmp.Or(cmp.Compare(t.At.Distance(a.Place), t.At.Distance(b.Place)), rank(a, b))
	}
	switch p.kind {
	case localFirst:
		slices.SortFunc(ws, near)
	case localFirstAvoidEviction:
		full := func(w Worker) bool { return w.Free < max(t.Size, 1) }
		slices.SortFunc(ws, func(a, b Worker) int {
			switch fa, fb := full(a), full(b); {
			case fa && fb:
				return cmp.Or(cmp.Compare(b.Free, a.Free), near(a, b))
			case fa:
				return 1
			case fb:
				return -1
			}
			return near(a, b)
		})
	case mostAvailable:
		slices.SortFunc(ws, func(a, b Worker) int { return cmp.Or(cmp.Compare(b.Free, a.Free), near(a, b)) })
	case roundRobin:
		slices.SortFunc(ws, func(a, b Worker) int { return cmp.Compare(a.ID, b.ID) })
		rotate(ws, t.Turn)
	case specific:
		slices.SortFunc(ws, func(a, b Worker) int {
			here := func(w Worker) int {
				if w.Node == p.node {
					return 0
				}
				return 1
			}
			return cmp.Or(cmp.Compare(here(a), here(b)), near(a, b))
		})
	case deterministicHash:
		slices.SortFunc(ws, rank)
		rotate(ws[:min(max(p.n, 1), len(ws))], t.Turn)
	}
}

// Spread sorts ws in place for the further copies of what the worker at first
// has: those on nodes of their own come first, and of the others the one on a
// node that has fewer of those before it. Apart from that the order stays.
func Spread(ws []Worker, first Place) {
	on := map[string]int{first.Node: 1}
	for i := range ws {
		best := i
		for j := i + 1; j < len(ws) && on[ws[best].Node] > 0; j++ {
			if on[ws[j].Node] < on[ws[best].Node] {
				best = j
			}
		}
		w := ws[best]
		copy(ws[i+1:best+1], ws[i:best])
		ws[i] = w
		on[w.Node]++
	}
}

// rotate moves the first turn elements to the end.
func rotate(ws []Worker, turn uint64) {
	if len(ws) < 2 {
		return
	}
	n := int(turn % uint64(len(ws)))
	slices.Reverse(ws[:n])
	slices.Reverse(ws[n:])
	slices.Reverse(ws)
}

// Rank is the weight of a worker for a key: the heaviest is the home of the
// key. When a worker comes or goes only its own keys move (rendezvous hashing,
// Thaler and Ravishankar 1998).
func Rank(key, worker uint64) uint64 { return mix(key ^ mix(worker)) }

// mix is the finaliser of splitmix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
