// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import "testing"

// What the tests on the real stack share with those on memFS.

// BehaviourNames returns the names of the POSIX behaviours.
func BehaviourNames() (names []string) {
	for _, b := range behaviours() {
		names = append(names, b.name)
	}
	return names
}

// InChild runs a behaviour in a process of its own and returns what it saw.
func InChild(t *testing.T, name string, names int, dir string) string {
	return inChild(t, name, names, dir)
}

// FastDir is a folder in memory.
func FastDir(t testing.TB) string { return fastDir(t) }

// UnmountLazily detaches what is mounted on dir.
func UnmountLazily(dir string) error { return unmountLazily(dir) }
