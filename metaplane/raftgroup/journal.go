// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package raftgroup

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"
	"github.com/lni/dragonboat/v4/plugin/tan"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"

	"orca"
)

// The journals; docs/adr/0002-raft-log.md says why tan is the default.
const (
	journalTan    = "tan"
	journalPebble = "pebble"
	// journalDir is the folder of either.
	journalDir = "journal"
)

// lockedTanFactory makes tan journals behind lockedTan.
type lockedTanFactory struct{}

// Create makes one.
func (lockedTanFactory) Create(c config.NodeHostConfig, cb config.LogDBCallback, dirs, wals []string) (raftio.ILogDB, error) {
	db, err := tan.Factory.Create(c, cb, dirs, wals)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &lockedTan{ILogDB: db}, nil
}

// Name is the type that dragonboat notes in its folder.
func (lockedTanFactory) Name() string { return tan.Factory.Name() }

// lockedTan keeps whatever may start a new log file of tan from running
// beside a write: tan fsyncs the current file without its lock and closes the
// old one without an fsync, so that else an acknowledged entry may not be
// durable, or the fsync meets a closed file.
type lockedTan struct {
	raftio.ILogDB
	mu sync.RWMutex
}

// SaveRaftState appends entries and waits for the disk.
func (l *lockedTan) SaveRaftState(updates []pb.Update, shard uint64) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.ILogDB.SaveRaftState(updates, shard)
}

// readAtMost is how much of the journal is read at a time. The engine reads what a
// member that was away has missed on the goroutine that sends its heartbeats, up to
// 64 MiB in one go, and tan opens a file for every few entries: seconds, in which
// nobody hears of the leader.
const readAtMost = 128 << 10

// IterateEntries reads some entries, in order; the engine comes again for the rest.
func (l *lockedTan) IterateEntries(ents []pb.Entry, size, shard, replica, low, high, atMost uint64) ([]pb.Entry, uint64, error) {
	if atMost <= readAtMost || atMost == math.MaxUint64 { // 0 is one entry's
		return l.ILogDB.IterateEntries(ents, size, shard, replica, low, high, atMost)
	}
	ents, size, err := l.ILogDB.IterateEntries(ents, size, shard, replica, low, high, readAtMost)
	if err == nil && size > readAtMost && uint64(len(ents)) < high-low {
		size = max(size, atMost+1) // says that these are not all
	}
	return ents, size, err
}

// SaveSnapshots may start a new log file.
func (l *lockedTan) SaveSnapshots(updates []pb.Update) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ILogDB.SaveSnapshots(updates)
}

// RemoveNodeData may start a new log file.
func (l *lockedTan) RemoveNodeData(shard, replica uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ILogDB.RemoveNodeData(shard, replica)
}

// ImportSnapshot may start a new log file.
func (l *lockedTan) ImportSnapshot(s pb.Snapshot, replica uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ILogDB.ImportSnapshot(s, replica)
}

// noTransport is the network of a host that is alone: it opens no port and
// reaches nobody.
type noTransport struct{}

// Create makes the transport.
func (noTransport) Create(config.NodeHostConfig, raftio.MessageHandler, raftio.ChunkHandler) raftio.ITransport {
	return noTransport{}
}

// Validate accepts the one address there is.
func (noTransport) Validate(addr string) bool { return addr == localAddress }

// Name is for dragonboat's log.
func (noTransport) Name() string { return "none" }

// Start does nothing.
func (noTransport) Start() error { return nil }

// Close does nothing.
func (noTransport) Close() error { return nil }

// GetConnection refuses.
func (noTransport) GetConnection(context.Context, string) (raftio.IConnection, error) {
	return nil, orca.E("raftgroup.transport", orca.Unsupported, "this host is alone")
}

// GetSnapshotConnection refuses.
func (noTransport) GetSnapshotConnection(context.Context, string) (raftio.ISnapshotConnection, error) {
	return nil, orca.E("raftgroup.transport", orca.Unsupported, "this host is alone")
}

// dragonboat's log is one for the process; it goes to the logger of the host
// that was opened last.
var (
	raftLogOnce sync.Once
	raftLogTo   atomic.Pointer[slog.Logger]
)

func routeRaftLog(log *slog.Logger) {
	raftLogTo.Store(log)
	raftLogOnce.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger { return raftLog(pkg) })
	})
}

// raftLog is dragonboat's logger for one of its packages. Its informational
// lines are for debugging only.
type raftLog string

// SetLevel does nothing: slog decides.
func (raftLog) SetLevel(logger.LogLevel) {}

func (l raftLog) line(level slog.Level, format string, args []any) {
	log := raftLogTo.Load()
	if log.Enabled(context.Background(), level) {
		log.Log(context.Background(), level, "raft: "+fmt.Sprintf(format, args...), "pkg", string(l))
	}
}

// Debugf drops the line.
func (l raftLog) Debugf(string, ...any) {}

// Infof logs for debugging.
func (l raftLog) Infof(format string, args ...any) { l.line(slog.LevelDebug, format, args) }

// Warningf logs for debugging: dragonboat warns of what is usual here.
func (l raftLog) Warningf(format string, args ...any) { l.line(slog.LevelDebug, format, args) }

// Errorf logs a warning.
func (l raftLog) Errorf(format string, args ...any) { l.line(slog.LevelWarn, format, args) }

// Panicf logs the reason and does not return: the member is dead.
func (l raftLog) Panicf(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	reason, stack, _ := strings.Cut(reason, "\n")
	l.line(slog.LevelDebug, "%s", []any{stack})
	reason = "the journal has failed: " + reason
	if f := dieTo.Load(); f != nil {
		(*f)(reason)
	}
	panic("FATAL: raft: " + reason)
}

// dieTo is told of dragonboat's panics; it ends the process.
var dieTo atomic.Pointer[func(string)]

// refuseSettings refuses files that would change dragonboat's internals.
func refuseSettings() error {
	for _, name := range []string{"dragonboat-soft-settings.json", "dragonboat-hard-settings.json"} {
		if _, err := os.Stat(name); err == nil {
			return &orca.Error{
				Op: "raftgroup.Open", Path: name, Kind: orca.Invalid,
				Msg: "a settings file in the working directory would change the journal: remove it",
			}
		}
	}
	return nil
}
