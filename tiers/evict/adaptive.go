// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package evict

// mode is one way of choosing between the segments.
type mode uint8

const (
	frequency mode = iota // admission by frequency: skewed popularity, scans
	rounds                // pinning: loops and shuffled epochs
	recency               // LRU: working sets that move on
	modes
)

// Adaptive is the default. Frequency, recency and pinning each win where the
// others fail, and nobody sets flags, so it finds out: of a sample of the
// blocks, chosen by hash, it runs all three over small directories without
// bytes (C. Waldspurger et al., "Cache Modeling and Optimization using
// Miniature Simulations", USENIX ATC 2017), and treats the real one by the rule
// whose trial hits most lately. All three work on the same segments: a
// change of mode moves nothing. Before anything is known it pins: what came
// first stays until something was read again.
type Adaptive struct {
	segments
	mode  mode
	trial sample
}

var _ Policy = (*Adaptive)(nil)

// NewAdaptive returns an empty Adaptive.
func NewAdaptive() *Adaptive {
	p := &Adaptive{mode: rounds}
	p.init()
	p.trial.init()
	return p
}

// Add implements Policy.
func (p *Adaptive) Add(e *Entry, now uint64) {
	fresh := e.home == none || e.home == moved
	p.segments.Add(e, now)
	if fresh {
		p.observe(e)
	}
}

// Touch implements Policy.
func (p *Adaptive) Touch(e *Entry, now uint64) {
	p.segments.Touch(e, now)
	p.observe(e)
}

// Next implements Policy.
func (p *Adaptive) Next(_ uint64, keep int64) *Entry {
	p.trial.resize(p.Len(), keep)
	return p.take(p.choose(p.mode, keep, p.trial.stale()))
}

// First implements Policy.
func (p *Adaptive) First(_ uint64, keep int64) *Entry {
	return p.choose(p.mode, keep, p.trial.stale()).leaves
}

func (p *Adaptive) observe(e *Entry) {
	if h := hash(e.ID); p.trial.wants(h) {
		p.trial.use(e.ID, h, e.Size)
		p.mode = p.trial.best(p.mode)
	}
}

// choose chooses in a mode.
func (s *segments) choose(m mode, keep int64, stale uint64) choice {
	switch m {
	case rounds:
		return s.pinned(keep, stale)
	case recency:
		return choice{leaves: s.recent()}
	}
	return s.frequent(keep, windowShare)
}

// recent is what was used longest ago.
func (s *segments) recent() *Entry {
	v := s.window.oldest()
	for _, l := range []*list{&s.probation, &s.protected} {
		if e := l.oldest(); e != nil && (v == nil || e.seen < v.seen) {
			v = e
		}
	}
	return v
}
