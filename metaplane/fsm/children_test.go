// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"fmt"
	"hash/maphash"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"orca/metaplane/inode"
)

// TestChildrenAreAMap compares the table with a map, over any history.
func TestChildrenAreAMap(t *testing.T) {
	seed := maphash.MakeSeed()
	rapid.Check(t, func(t *rapid.T) {
		c, want := newChildren(seed, rapid.IntRange(0, 20).Draw(t, "room")), map[string]*node{}
		names := rapid.IntRange(0, rapid.SampledFrom([]int{2, 20, 400}).Draw(t, "names"))
		for range rapid.IntRange(0, 600).Draw(t, "steps") {
			name := fmt.Sprintf("d%d", names.Draw(t, "name"))
			if rapid.Bool().Draw(t, "add") {
				n := &node{rec: inode.Dir{Name: name}}
				c.add(n)
				want[name] = n
			} else {
				c.remove(name)
				delete(want, name)
			}
			if c.len() != len(want) || c.get(name) != want[name] {
				t.Fatalf("%d and %v of %s, want %d and %v", c.len(), c.get(name), name, len(want), want[name])
			}
		}
		got := map[string]*node{}
		for n := range c.all() {
			if got[n.rec.Name] = n; c.get(n.rec.Name) != n {
				t.Fatalf("%s is not found", n.rec.Name)
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%d directories, want %d", len(got), len(want))
		}
	})
}

// TestChildrenComeAndGo: a table whose directories are exchanged again and again
// stays as large as they are many, and none of them has none.
func TestChildrenComeAndGo(t *testing.T) {
	c := newChildren(maphash.MakeSeed(), 1)
	for i := range 100_000 {
		c.add(&node{rec: inode.Dir{Name: fmt.Sprint(i)}})
		if i >= 10 {
			c.remove(fmt.Sprint(i - 10))
		}
	}
	if c.len() != 10 || len(c.slots) > 64 {
		t.Errorf("%d directories in %d slots", c.len(), len(c.slots))
	}
	var none *children
	for range none.all() {
		t.Error("a directory")
	}
	if none.remove("x"); none.len() != 0 || none.get("x") != nil {
		t.Error("there is one in none")
	}
}
