// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
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

// Watch calls fn with every change of the namespace, in order, until ctx ends
// (it then returns ctx's error) or fn returns an error. ready, if not nil, is
// called once when no later change can be missed.
//
// lost is true when changes may have been missed (the stream was cut, or fn
// was too slow): everything cached must be dropped. While the metaplane cannot
// be reached fn is called once with lost and Watch goes on trying.
func (fs *FS) Watch(ctx context.Context, ready func(), fn func(events []Event, lost bool) error) error {
	var cursor uint64
	pause := watchPause
	cut := false
	for {
		r, err := fs.meta.Watch(ctx, &metapb.WatchRequest{H: fs.header(), Cursor: cursor, WaitMs: watchWaitMS(cursor)})
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
