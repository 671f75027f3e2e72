// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package tiered

import "testing"

// What was asked of a directory is taken back when nobody waits there any more,
// whoever waits elsewhere; and not while somebody does.
func TestServedByDirectory(t *testing.T) {
	p, q := &place{}, &place{}
	s := &Store{}
	s.roomWaiters.Add(2) // one for each
	p.ask(10, false)
	p.waitLocked()
	q.ask(20, false)
	q.waitLocked()
	s.waited(p) // he has his room
	s.servedLocked(p)
	s.servedLocked(q)
	if p.want != 0 || q.want != 20 {
		t.Errorf("asked are %d and %d, want 0 and 20", p.want, q.want)
	}
}
