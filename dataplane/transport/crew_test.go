// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A goroutine that has done its work does the next, and one that is not needed
// ends.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew
		waiting := func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.idle)
		}
		const many = 8
		var wg sync.WaitGroup
		gate := make(chan struct{})
		wg.Add(many)
		for range many {
			c.run(func() {
				defer wg.Done()
				<-gate
			})
		}
		close(gate)
		wg.Wait()
		synctest.Wait()
		if n := waiting(); n != many {
			t.Fatalf("%d goroutines wait for work, want %d", n, many)
		}
		for range 100 {
			done := make(chan struct{})
			c.run(func() { close(done) })
			<-done
			synctest.Wait()
			if n := waiting(); n != many {
				t.Fatalf("%d goroutines wait after one more task, want the same %d", n, many)
			}
		}
		time.Sleep(rest + rest/2) // one look after the first
		done := make(chan struct{})
		c.run(func() { close(done) })
		<-done
		time.Sleep(rest)
		synctest.Wait()
		if n := waiting(); n != 1 {
			t.Fatalf("%d goroutines wait, want the one that was busy lately", n)
		}
		time.Sleep(2 * rest)
		synctest.Wait()
		if n := waiting(); n != 0 {
			t.Fatalf("%d goroutines wait after a rest", n)
		}
		// The bubble ends only if every goroutine of the crew does.
	})
}
