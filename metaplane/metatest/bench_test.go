// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metatest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"orca/metaplane/metaclient"
	"orca/metaplane/metapb"
)

func benchHarness(b *testing.B) (*Harness, *metaclient.Session) {
	h := NewHarness(b)
	h.Start(b)
	b.Cleanup(h.Stop)
	s := metaclient.NewSession(h.Service, metaclient.SessionConfig{})
	if _, err := s.Mkdir(b.Context(), &metapb.MkdirRequest{Target: at("/p/a/b/c"), Mode: 0o755, Parents: true}); err != nil {
		b.Fatal(err)
	}
	return h, s
}

func BenchmarkStat(b *testing.B) {
	_, s := benchHarness(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Stat(b.Context(), &metapb.StatRequest{Target: at("/p/a/b/c")}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateEmpty(b *testing.B) {
	_, s := benchHarness(b)
	var n atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			q := &metapb.CreateRequest{Target: at(fmt.Sprintf("/p/a/b/c/f%d", n.Add(1))), Complete: true, WriteType: 1}
			if _, err := s.Create(b.Context(), q); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkCreateThrough(b *testing.B) {
	_, s := benchHarness(b)
	var n atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			q := &metapb.CreateRequest{Target: at(fmt.Sprintf("/p/a/b/c/f%d", n.Add(1))), Complete: true}
			if _, err := s.Create(b.Context(), q); err != nil {
				b.Error(err)
			}
		}
	})
}
