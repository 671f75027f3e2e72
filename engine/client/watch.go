// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"orca"
	"orca/metaplane/metapb"
)

// EventKind says what changed.
type EventKind uint8

// The kinds of events.
const (
	// EventEntry: Parent/Name appeared, vanished or changed its inode.
	EventEntry = EventKind(metapb.EventKind_EVENT_ENTRY)
	// EventAttr: attributes of Ino.
	EventAttr = EventKind(metapb.EventKind_EVENT_ATTR)
	// EventContent: a new version of Ino.
	EventContent = EventKind(metapb.EventKind_EVENT_CONTENT)
	// EventMount: the mount table.
	EventMount = EventKind(metapb.EventKind_EVENT_MOUNT)
)

// Event is one change of the namespace, by whomever.
type Event struct {
	Kind   EventKind
	Ino    orca.Ino
	Parent orca.Ino
	Name   string
}

const (
	watchWait    = 20 * time.Second
	watchPause   = 100 * time.Millisecond
	watchPauseTo = 2 * time.Second
)

// Watch calls fn with every change of the namespace until ctx ends (it then
// returns ctx's error) or fn returns an error. Changes of what one group of the
// metaplane has come in order. ready, if not nil, is called once when no later
// change can be missed.
//
// lost is true when changes may have been missed (a stream was cut, fn was too
// slow, or a group was added): everything cached must be dropped. While a part
// of the metaplane cannot be reached fn is called once with lost and Watch goes
// on trying.
func (fs *FS) Watch(ctx context.Context, ready func(), fn func(events []Event, lost bool) error) error {
	return fs.WatchAs(ctx, nil, ready, fn)
}

// WatchAs is Watch over which a Holder hears of what is about to go; nil: none
// does.
func (fs *FS) WatchAs(ctx context.Context, h *Holder, ready func(), fn func(events []Event, lost bool) error) error {
	groups, _ := fs.groups(ctx) // away: the first group tells when it is back
	if len(groups) == 0 {
		groups = []uint16{1}
	}
	for {
		err := fs.watchAll(ctx, h, groups, ready, fn)
		var g *groupsChanged
		if !errors.As(err, &g) {
			return err
		}
		// What came to a mount before its group was watched is not known.
		groups, ready = g.now, nil
		fs.stats.WatchLost.Add(1)
		if err := fn(nil, true); err != nil {
			return err
		}
	}
}

// groupsChanged ends the watch of too few groups.
type groupsChanged struct{ now []uint16 }

func (*groupsChanged) Error() string { return "there are other groups now" }

// watchAll watches groups, the first of which is the first group, until one of
// the streams ends or there are others.
func (fs *FS) watchAll(ctx context.Context, h *Holder, groups []uint16, ready func(), fn func(events []Event, lost bool) error) error {
	if len(groups) == 1 {
		return fs.watchGroup(ctx, h, groups[0], ready, fs.noticing(ctx, groups, fn))
	}
	whole := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // fn is called by one at a time
	one := func(events []Event, lost bool) error {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fn(events, lost)
	}
	waits := int32(len(groups))
	up := func() {
		if atomic.AddInt32(&waits, -1) == 0 && ready != nil {
			mu.Lock()
			defer mu.Unlock()
			ready()
		}
	}
	var wg sync.WaitGroup
	for _, g := range groups {
		see := one
		if g == groups[0] {
			see = fs.noticing(ctx, groups, one)
		}
		wg.Go(func() { cancel(fs.watchGroup(ctx, h, g, up, see)) })
	}
	wg.Wait()
	if whole.Err() != nil {
		return ctxError("client.Watch", whole)
	}
	return context.Cause(ctx)
}

// noticing looks for other groups when the mount table has changed, or that may
// have been missed, and after that calls fn.
func (fs *FS) noticing(ctx context.Context, groups []uint16, fn func(events []Event, lost bool) error) func(events []Event, lost bool) error {
	return func(events []Event, lost bool) error {
		if lost && events != nil || slices.ContainsFunc(events, func(e Event) bool { return e.Kind == EventMount }) {
			if now, err := fs.groups(ctx); err == nil && !slices.Equal(now, groups) {
				return &groupsChanged{now}
			}
		}
		return fn(events, lost)
	}
}

// watchGroup is Watch of one group.
func (fs *FS) watchGroup(ctx context.Context, holder *Holder, group uint16, ready func(), fn func(events []Event, lost bool) error) error {
	var cursor uint64
	pause := watchPause
	cut := false
	for {
		h := fs.header()
		h.Group = uint32(group)
		q := &metapb.WatchRequest{H: h, Cursor: cursor, WaitMs: watchWaitMS(cursor)}
		holder.request(group, q)
		r, err := fs.meta.Watch(ctx, q)
		if ctx.Err() != nil {
			return ctxError("client.Watch", ctx)
		}
		if err != nil {
			if !cut {
				cut = true
				fs.stats.WatchLost.Add(1)
				if err := fn(nil, true); err != nil {
					return err
				}
			}
			select {
			case <-ctx.Done():
				return ctxError("client.Watch", ctx)
			case <-time.After(pause):
			}
			pause = min(pause*2, watchPauseTo)
			continue
		}
		cut, pause = false, watchPause
		holder.heard(group, r)
		started := cursor == 0
		cursor = r.Cursor
		if started && ready != nil {
			ready()
			ready = nil
		}
		if len(r.Events) == 0 && !r.Lost {
			continue
		}
		if r.Lost {
			fs.stats.WatchLost.Add(1)
		}
		if err := fn(eventsOf(r.Events), r.Lost); err != nil {
			return err
		}
	}
}

// watchWaitMS polls at once for the first cursor, long afterwards.
func watchWaitMS(cursor uint64) int64 {
	if cursor == 0 {
		return 0
	}
	return watchWait.Milliseconds()
}

func eventsOf(pb []*metapb.Event) []Event {
	es := make([]Event, len(pb))
	for i, e := range pb {
		es[i] = Event{Kind: EventKind(e.Kind), Ino: orca.Ino(e.Ino), Parent: orca.Ino(e.Parent), Name: e.Name}
	}
	return es
}
