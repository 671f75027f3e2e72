// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package metaclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane"
	"orca/metaplane/metapb"
)

// Router is the namespace over all groups of a metaplane: one Session for each,
// so that mutations are exactly once within each. An inode, a session, an
// intent and a job carry their group; a path is asked of the first group, which
// refers to another one where it passes a junction. Referrals are kept, so that
// the next path goes to its group directly.
//
// It is safe for concurrent use, and has no goroutines. With one group it adds
// two loads to a call.
type Router struct {
	home *Session
	open func(group uint16) (*Session, error)
	refs atomic.Pointer[[]referral] // newest last; nil: none

	mu     sync.Mutex // serialises open, and changes of refs
	groups [maxGroups + 1]atomic.Pointer[Session]
}

const (
	// maxGroups is the highest number of a group.
	maxGroups = 16
	// maxReferrals bounds the referrals that are kept.
	maxReferrals = 256
	// referralTTL is for how long the first group is not asked again whether
	// the caller may pass what lies above a junction. root always may.
	referralTTL = time.Second
	// maxReferred bounds how often one request is sent on.
	maxReferred = 8
)

// referral says that what is below a path lives in a group.
type referral struct {
	path   string
	group  uint16
	caller *metapb.Caller
	until  time.Time // zero: for ever
}

var _ metaplane.Namespace = (*Router)(nil)

// NewRouter makes a router over the session of the first group; open makes that
// of another one.
func NewRouter(home *Session, open func(group uint16) (*Session, error)) *Router {
	r := &Router{home: home, open: open}
	r.groups[1].Store(home)
	return r
}

// In returns the session of a group; 0 is the first. Invalid: no group has
// such a number.
func (r *Router) In(group uint16) (*Session, error) {
	if group <= 1 {
		return r.home, nil
	}
	if group > maxGroups {
		return nil, orca.E("metaclient.In", orca.NotFound, fmt.Sprintf("there is no group %d", group))
	}
	if s := r.groups[group].Load(); s != nil {
		return s, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.groups[group].Load(); s != nil {
		return s, nil
	}
	s, err := r.open(group)
	if err == nil {
		r.groups[group].Store(s)
	}
	return s, err
}

// owner returns the session of the group that has handed out a number. The
// first group knows what to say of a number of no group.
func (r *Router) owner(ctx context.Context, group uint16) (*Session, error) {
	if group <= 1 || group > maxGroups {
		return r.home, nil
	}
	if s := r.groups[group].Load(); s != nil {
		return s, nil
	}
	have, err := r.Groups(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(have, group) {
		return r.home, nil
	}
	return r.In(group)
}

// Groups returns the numbers of the groups that there are.
func (r *Router) Groups(ctx context.Context) ([]uint16, error) {
	rep, err := r.home.ListMounts(ctx, &metapb.ListMountsRequest{H: &metapb.Header{}})
	if err != nil {
		return nil, err
	}
	out := []uint16{1}
	for _, n := range rep.Groups {
		if n > 1 && n <= maxGroups {
			out = append(out, uint16(n))
		}
	}
	return out, nil
}

// GroupOf returns the group that a clean path would live in, whether it is there
// or not.
func (r *Router) GroupOf(ctx context.Context, path string) (uint16, error) {
	rep, err := r.home.ListMounts(ctx, &metapb.ListMountsRequest{H: &metapb.Header{}})
	if err != nil {
		return 0, err
	}
	for _, m := range rep.Mounts {
		if _, ok := orca.Under(m.Path, path); ok && m.Group > 1 { // none lies in another
			return uint16(m.Group), nil
		}
	}
	return 1, nil
}

// absolute returns the path of a target that is resolved from the root.
func absolute(t *metapb.Target) (string, bool) {
	if t == nil || orca.Ino(t.Ino) > orca.RootIno {
		return "", false
	}
	p, err := orca.CleanPath("/" + strings.TrimPrefix(t.Path, "/"))
	return p, err == nil
}

// pick returns the session that a target is asked of first.
func (r *Router) pick(ctx context.Context, h *metapb.Header, t *metapb.Target) (*Session, error) {
	if t == nil {
		return r.home, nil
	}
	if g := orca.Ino(t.Ino).Group(); g > 1 {
		return r.owner(ctx, g)
	}
	if refs := r.refs.Load(); refs != nil {
		if p, ok := absolute(t); ok {
			if i := find(*refs, r.callerOf(h), p); i >= 0 {
				return r.In((*refs)[i].group)
			}
		}
	}
	return r.home, nil
}

func (r *Router) callerOf(h *metapb.Header) *metapb.Caller {
	if c := h.GetCaller(); c != nil {
		return c
	}
	return r.home.cfg.Caller
}

// find returns the index of the referral that a path falls under, -1 if there
// is none.
func find(refs []referral, c *metapb.Caller, path string) int {
	for i := len(refs) - 1; i >= 0; i-- {
		f := &refs[i]
		if _, ok := orca.Under(f.path, path); !ok || !same(f.caller, c) {
			continue
		}
		if f.until.IsZero() || time.Now().Before(f.until) {
			return i
		}
	}
	return -1
}

func same(a, b *metapb.Caller) bool {
	return a.GetUid() == b.GetUid() && a.GetGid() == b.GetGid() && slices.Equal(a.GetGroups(), b.GetGroups())
}

// keep notes a referral in the place of what was known of its path.
func (r *Router) keep(f referral) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.without(f.path, f.caller)
	if len(next) >= maxReferrals {
		next = next[1:]
	}
	next = append(next, f)
	r.refs.Store(&next)
}

// drop forgets what led a path of a caller astray.
func (r *Router) drop(path string, c *metapb.Caller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refs := r.refs.Load()
	if refs == nil {
		return
	}
	if i := find(*refs, c, path); i >= 0 {
		next := r.without((*refs)[i].path, c)
		if len(next) == 0 {
			r.refs.Store(nil)
			return
		}
		r.refs.Store(&next)
	}
}

// without returns a copy of the referrals but for a caller's of a path, and
// those whose time is over.
func (r *Router) without(path string, c *metapb.Caller) []referral {
	var out []referral
	if refs := r.refs.Load(); refs != nil {
		now := time.Now()
		for _, f := range *refs {
			if (f.path != path || !same(f.caller, c)) && (f.until.IsZero() || now.Before(f.until)) {
				out = append(out, f)
			}
		}
	}
	return out
}

// referred takes note of a referral, and returns the target to go on with.
func (r *Router) referred(h *metapb.Header, t *metapb.Target, err error) (*metapb.Target, *Session, error) {
	root, rest, ok := orca.AsReferral(err)
	if !ok {
		return nil, nil, orca.PathE("metaclient.referred", "", orca.Corrupt, err)
	}
	c := r.callerOf(h)
	path, abs := absolute(t)
	if root.Group() <= 1 && root > orca.RootIno && !abs { // to where a file is that was in another group
		return &metapb.Target{Ino: uint64(root), Path: rest}, r.home, nil
	}
	if root.Group() <= 1 { // back to where paths begin
		if !abs {
			return nil, nil, orca.PathE("metaclient.referred", t.GetPath(), orca.NotFound, errors.New("its mount is gone"))
		}
		r.drop(path, c)
		return t, r.home, nil
	}
	s, err := r.In(root.Group())
	if err != nil {
		return nil, nil, err
	}
	if !abs {
		return &metapb.Target{Ino: uint64(root), Path: rest}, s, nil
	}
	f := referral{path: path, group: root.Group(), caller: &metapb.Caller{Uid: c.GetUid(), Gid: c.GetGid(), Groups: slices.Clone(c.GetGroups())}}
	if rest = strings.Trim(rest, "/"); rest != "" {
		f.path = strings.TrimSuffix(strings.TrimSuffix(path, rest), "/")
	}
	if c.GetUid() != 0 {
		f.until = time.Now().Add(referralTTL)
	}
	if f.path != "" {
		r.keep(f)
	}
	return t, s, nil
}

// route runs a call about a target in the group that has it.
func route[P any](ctx context.Context, r *Router, h *metapb.Header, t **metapb.Target, call func(s *Session) (P, error)) (P, error) {
	var zero P
	s, err := r.pick(ctx, h, *t)
	if err != nil {
		return zero, err
	}
	p, err := call(s)
	for range maxReferred {
		if err == nil || orca.KindOf(err) != orca.Referral {
			return p, err
		}
		next, to, rerr := r.referred(h, *t, err)
		if rerr != nil {
			return zero, rerr
		}
		*t = next
		p, err = call(to)
	}
	if orca.KindOf(err) == orca.Referral {
		return zero, orca.PathE("metaclient.route", (*t).GetPath(), orca.Unavailable, errors.New("the groups send each other's paths around"))
	}
	return p, err
}

// numbered returns the session of the group that handed out a number.
func (r *Router) numbered(ctx context.Context, n uint64) (*Session, error) {
	return r.owner(ctx, orca.Ino(n).Home())
}

// Junctions returns the mounts in other groups below a clean path, for what takes a
// tree: the group of the path passes them over.
func (r *Router) Junctions(ctx context.Context, h *metapb.Header, path string) ([]string, error) {
	rep, err := r.home.ListMounts(ctx, &metapb.ListMountsRequest{H: &metapb.Header{Caller: h.GetCaller()}})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range rep.Mounts {
		if rel, ok := orca.Under(path, m.Path); ok && rel != "" && m.Group > 1 {
			out = append(out, m.Path)
		}
	}
	return out, nil
}

// below runs a call that takes a tree for the mounts in other groups below its
// target, too. A target that is an inode of the first group but its root has no
// path here: with junctions anywhere it is refused.
func (r *Router) below(ctx context.Context, h *metapb.Header, t *metapb.Target, call func(t *metapb.Target) error) error {
	if orca.Ino(t.GetIno()).Group() > 1 {
		return nil
	}
	path, abs := absolute(t)
	if !abs {
		path = "/"
	}
	js, err := r.Junctions(ctx, h, path)
	if err != nil || len(js) == 0 {
		return err
	}
	if !abs {
		return &orca.Error{Op: "metaclient.below", Path: t.Path, Kind: orca.Unsupported, Msg: "some mounts live in groups of their own: give the path of the tree"}
	}
	for _, p := range js {
		if err := call(&metapb.Target{Path: p}); err != nil {
			return err
		}
	}
	return nil
}
