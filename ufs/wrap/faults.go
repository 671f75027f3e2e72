// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"orca"
	"orca/ufs"
)

// AnyOp in a Rule matches every method.
const AnyOp = NumOps

// Rule is one scripted fault. The zero fields do nothing; those set act in the
// order Before, Delay, Block, Err (or the call and then Lose), After.
type Rule struct {
	Op  Op     // AnyOp: every method
	Key string // "": every key; "dir/*": every key below dir
	// Nth is which matching call it strikes, from 1; 0: each of them.
	Nth int
	// Err fails the call without reaching the store.
	Err error
	// Lose lets the store do the call and then fails it with this error: a
	// lost answer.
	Lose error
	// Delay and Block make the call wait, within its context.
	Delay time.Duration
	Block <-chan struct{}
	// Before and After are called around it: crash points, or what another
	// program does at that moment.
	Before, After func(Call)

	seen int // GUARDED_BY(Faults.mu)
	hits int // GUARDED_BY(Faults.mu)
}

func (r *Rule) matches(c Call) bool {
	if r.Op != AnyOp && r.Op != c.Op {
		return false
	}
	if dir, ok := strings.CutSuffix(r.Key, "/*"); ok {
		return strings.HasPrefix(c.Key, dir+"/")
	}
	return r.Key == "" || r.Key == c.Key
}

// veil is how listings and stats are behind the truth at one key.
type veil struct {
	hide  bool
	stat  bool      // Stat and Open are behind too, not only listings
	ghost *ufs.Info // shown though gone
	until time.Time // zero: until Show
}

// Faults injects scripted faults and stale views into a store.
type Faults struct {
	mu    sync.Mutex
	rules []*Rule         // GUARDED_BY(mu)
	calls [NumOps]int     // GUARDED_BY(mu)
	veils map[string]veil // by key; GUARDED_BY(mu)
	lag   time.Duration   // GUARDED_BY(mu)
	in    ufs.FS
}

// NewFaults decorates inner; FS returns the decorated store.
func NewFaults(inner ufs.FS) *Faults {
	return &Faults{in: inner, veils: map[string]veil{}}
}

// FS returns the store with the faults.
func (f *Faults) FS() ufs.FS {
	return shape(&layer{in: f.in, around: f.around, list: f.list, data: true})
}

// Add scripts a fault; Hits tells how often it struck.
func (f *Faults) Add(r Rule) *Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &r)
	return &r
}

// Clear removes every rule and every veil.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.lag = nil, 0
	clear(f.veils)
}

// Hits returns how often a rule struck.
func (f *Faults) Hits(r *Rule) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return r.hits
}

// Calls returns how often a method was called.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Hide keeps an object out of listings, and with stat set from Stat and Open,
// until Show: an object that is visible late.
func (f *Faults) Hide(key string, stat bool) { f.veil(key, veil{hide: true, stat: stat}) }

// Ghost keeps an object in listings though it may be gone, until Show.
func (f *Faults) Ghost(in ufs.Info) { f.veil(in.Key, veil{ghost: &in}) }

// Show ends what Hide or Ghost did to the key.
func (f *Faults) Show(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.veils, key)
}

// Lag makes listings late by d: new objects are missing, removed ones are
// still there, as in stores with eventually consistent listings.
func (f *Faults) Lag(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag = d
}

func (f *Faults) veil(key string, v veil) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.veils[key] = v
}

// strike returns the rules that this call meets.
func (f *Faults) strike(c Call) []*Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[c.Op]++
	var out []*Rule
	for _, r := range f.rules {
		if !r.matches(c) {
			continue
		}
		if r.seen++; r.Nth == 0 || r.Nth == r.seen {
			r.hits++
			out = append(out, r)
		}
	}
	return out
}

func (f *Faults) around(ctx context.Context, c Call, do func(context.Context) error) error {
	rules := f.strike(c)
	for _, r := range rules {
		if err := r.meet(ctx, c); err != nil {
			return err
		}
	}
	if (c.Op == Stat || c.Op == Open) && f.hidden(c.Key, true) {
		return &orca.Error{Op: "wrap." + c.Op.String(), Path: c.Key, Kind: orca.NotFound}
	}
	gone := f.before(ctx, c)
	err := do(ctx)
	if err == nil {
		f.after(c, gone)
	}
	for _, r := range rules {
		if r.Lose != nil && err == nil {
			err = r.Lose
		}
		if r.After != nil {
			r.After(c)
		}
	}
	return err
}

// meet does what the rule does before the call.
func (r *Rule) meet(ctx context.Context, c Call) error {
	if r.Before != nil {
		r.Before(c)
	}
	if r.Delay > 0 {
		t := time.NewTimer(r.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ended(ctx, c)
		}
	}
	if r.Block != nil {
		select {
		case <-r.Block:
		case <-ctx.Done():
			return ended(ctx, c)
		}
	}
	return r.Err
}

// hidden reports whether a veil hides the key from listings, or with stat set
// from Stat.
func (f *Faults) hidden(key string, stat bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.veils[key]
	if !ok || !v.hide || stat && !v.stat {
		return false
	}
	if !v.until.IsZero() && time.Now().After(v.until) {
		delete(f.veils, key)
		return false
	}
	return true
}

// before takes, when listings lag, the info of what the call will remove.
func (f *Faults) before(ctx context.Context, c Call) *ufs.Info {
	f.mu.Lock()
	lag := f.lag
	f.mu.Unlock()
	if lag == 0 || c.Op != Remove && c.Op != Rename {
		return nil
	}
	in, err := f.in.Stat(ctx, c.Key)
	if err != nil {
		return nil
	}
	return &in
}

// after lets listings lag behind what the call did.
func (f *Faults) after(c Call, gone *ufs.Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lag == 0 {
		return
	}
	until := time.Now().Add(f.lag)
	if gone != nil {
		f.veils[c.Key] = veil{ghost: gone, until: until}
	}
	switch c.Op {
	case Commit, Mkdir:
		f.veils[c.Key] = veil{hide: true, until: until}
	case Rename, Copy:
		f.veils[c.Dst] = veil{hide: true, until: until}
	}
}

// list merges the veils into a listing.
func (f *Faults) list(ctx context.Context, c Call, fn func(ufs.Info) error, run func(context.Context, string, func(ufs.Info) error) error) error {
	return f.around(ctx, c, func(ctx context.Context) error {
		ghosts := f.ghosts(c.Key, c.Op == Walk)
		until := func(limit *ufs.Info) error {
			for len(ghosts) > 0 && (limit == nil || ufs.Compare(ghosts[0], *limit) <= 0) {
				g := ghosts[0]
				ghosts = ghosts[1:]
				if limit != nil && g.Key == limit.Key {
					continue
				}
				if err := fn(g); err != nil {
					return err
				}
			}
			return nil
		}
		err := run(ctx, c.Key, func(in ufs.Info) error {
			if err := until(&in); err != nil {
				return err
			}
			if f.hidden(in.Key, false) {
				return nil
			}
			return fn(in)
		})
		if err != nil {
			return err
		}
		return until(nil)
	})
}

// ghosts returns what is shown below dir though it is gone, in order.
func (f *Faults) ghosts(dir string, deep bool) []ufs.Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	prefix := dir
	if dir != "" {
		prefix += "/"
	}
	var out []ufs.Info
	for key, v := range f.veils {
		if v.ghost == nil {
			continue
		}
		if !v.until.IsZero() && time.Now().After(v.until) {
			delete(f.veils, key)
			continue
		}
		rest, ok := strings.CutPrefix(key, prefix)
		if ok && (deep || !strings.Contains(rest, "/")) {
			out = append(out, *v.ghost)
		}
	}
	slices.SortFunc(out, ufs.Compare)
	return out
}
