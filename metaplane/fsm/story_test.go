// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fsm

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inodekv"
	"orca/metaplane/metapb"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the stories' outcomes")

// world is a machine on a store in memory, with a clock of one second per
// command.
type world struct {
	t      testing.TB
	db     *inodekv.DB
	m      *Machine
	hosted map[string]Hosted
	index  uint64
	now    int64
	caller *metapb.Caller
	out    Output // of the last command
}

func newWorld(t testing.TB, cfg Config, hosted map[string]Hosted) *world {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := inodekv.Open(inodekv.Config{Memory: true}, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close(false) })
	m, err := Open(cfg, db, hosted, log)
	require.NoError(t, err)
	return &world{t: t, db: db, m: m, hosted: hosted}
}

// reopen reads the machine anew from its store.
func (w *world) reopen() {
	require.NoError(w.t, w.m.Reset(w.db))
}

// do applies one command in an entry of its own.
func (w *world) do(c *command.Command) *command.Result {
	return w.doAll(c)[0]
}

// doAll applies commands in one entry.
func (w *world) doAll(cs ...*command.Command) []*command.Result {
	var e command.Entry
	for _, c := range cs {
		w.now += 1e9
		if c.Now == 0 {
			c.Now = w.now
		}
		if c.Caller == nil {
			c.Caller = w.caller
		}
		b, err := command.Append(nil, c)
		require.NoError(w.t, err)
		e.Add(b)
	}
	w.index++
	outs, err := w.m.Apply([]Entry{{Index: w.index, Data: e.Bytes()}})
	require.NoError(w.t, err)
	w.out = outs[0]
	var rs []*command.Result
	require.NoError(w.t, command.Split(outs[0].Results, func(_ int, b []byte) error {
		r := &command.Result{}
		rs = append(rs, r)
		return command.DecodeResult(b, r)
	}))
	require.Len(w.t, rs, len(cs))
	return rs
}

func at(path string) *metapb.Target { return &metapb.Target{Path: path} }

// TestStories plays the scripts in testdata: lines "> command" with the
// outcome below. Each file says at its top what it is about.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.story")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".story"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			got := play(t, string(text))
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

func play(t *testing.T, text string) string {
	cfg := Config{}
	if strings.HasPrefix(text, "# Group 2: ") {
		cfg.Group = 2
	}
	st := &story{world: newWorld(t, cfg, map[string]Hosted{"jobs": &journal{}})}
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			out.WriteString(line + "\n" + st.run(line[2:]))
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		}
	}
	return out.String()
}

// story is a world with the words that a script may use.
type story struct {
	*world
	client, seq uint64 // of the next command
	acked       uint64
}

// args are the words of a line: plain ones and k=v or -flag.
type args struct {
	plain []string
	opts  map[string]string
}

func parseArgs(line string) args {
	a := args{opts: map[string]string{}}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.opts[k] = v
		} else if strings.HasPrefix(w, "-") {
			a.opts[w[1:]] = "true"
		} else {
			a.plain = append(a.plain, w)
		}
	}
	return a
}

func (a args) has(k string) bool { return a.opts[k] != "" }

func (a args) num(k string, def int64) int64 {
	v, ok := a.opts[k]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 0, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (a args) arg(i int) string {
	if i < len(a.plain) {
		return a.plain[i]
	}
	return ""
}

func (s *story) run(line string) string {
	a := parseArgs(line)
	verb := a.arg(0)
	if len(a.plain) > 0 {
		a.plain = a.plain[1:]
	}
	switch verb {
	case "as":
		s.as(a)
		return ""
	case "call":
		s.client, s.seq, s.acked = uint64(a.num("client", 0)), uint64(a.num("seq", 0)), uint64(a.num("acked", 0))
		return ""
	case "reopen":
		s.reopen()
		return ""
	case "tick":
		s.now += a.num("s", 0) * 1e9
		return ""
	case "stat", "walk":
		return s.walk(a)
	case "lookup":
		return s.lookup(a)
	case "ls", "tree":
		return s.list(a, verb == "tree")
	case "state":
		return s.state()
	case "usage":
		return s.usage(a)
	case "trash":
		return s.trash(a)
	}
	c := s.build(verb, a)
	if c == nil {
		return "no such word\n"
	}
	c.Client, c.Seq, c.AckedBelow = s.client, s.seq, s.acked
	s.client, s.seq, s.acked = 0, 0, 0
	return s.show(s.do(c), a)
}

func (s *story) as(a args) {
	s.caller = nil
	if a.arg(0) == "root" {
		return
	}
	var ids []uint32
	for _, w := range strings.Split(a.arg(0), ":") {
		n, err := strconv.Atoi(w)
		require.NoError(s.t, err)
		ids = append(ids, uint32(n))
	}
	s.caller = &metapb.Caller{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}
}

func (s *story) show(r *command.Result, a args) string {
	var b strings.Builder
	if r.Kind != 0 {
		fmt.Fprintf(&b, "%s", orca.Kind(r.Kind))
		if r.Msg != "" {
			fmt.Fprintf(&b, ": %s", r.Msg)
		}
		if r.BusyIntent != 0 {
			fmt.Fprintf(&b, " (intent %d)", r.BusyIntent)
		}
		if r.Unknown {
			b.WriteString(" (unknown)")
		}
		if o := r.Rehome; o != nil {
			fmt.Fprintf(&b, " (rehome %x from %x/%s)", o.File, o.Dir, o.Name)
		}
		if r.NeedWalk {
			b.WriteString(" (walk)")
		}
		b.WriteString("\n")
		return b.String()
	}
	if it := r.Intent; it != nil {
		b.WriteString(showIntent(it) + "\n")
	}
	if se := r.Session; se != nil {
		fmt.Fprintf(&b, "session %d fence %d file %x version %d key %s", se.Id, se.Fence, se.File, se.Version, se.UfsKey)
		if se.Replicas > 1 {
			fmt.Fprintf(&b, " copies %d", se.Replicas)
		}
		b.WriteString("\n")
	}
	if r.Attr != nil && r.Session == nil && (r.Intent == nil || r.Intent.Deferred) && !a.has("q") {
		b.WriteString(showAttr(r.Attr) + "\n")
	}
	if y := r.Sync; y != nil {
		fmt.Fprintf(&b, "created %d changed %d removed %d skipped %d", y.Created, y.Changed, y.Removed, y.Skipped)
		if len(y.NotEmpty) > 0 {
			fmt.Fprintf(&b, " not empty %v", y.NotEmpty)
		}
		b.WriteString("\n")
	}
	if r.Mount != nil {
		fmt.Fprintf(&b, "mount %d\n", r.Mount.Mount.Id)
	}
	if d := r.Transfer; d != nil {
		fmt.Fprintf(&b, "decided %d: %s", d.Tx, orca.Kind(d.Kind))
		if d.Ino != 0 {
			fmt.Fprintf(&b, ", as %x", d.Ino)
		}
		if d.Back != nil {
			f, err := transferred(d.Back)
			require.NoError(s.t, err)
			fmt.Fprintf(&b, ", for %x len %d %s%s", uint64(f.Ino), f.Length, f.Fingerprint, f.Target)
		}
		b.WriteString(strings.TrimSuffix(" "+d.Msg, " ") + "\n")
	}
	if len(r.Ids) > 0 {
		fmt.Fprintf(&b, "ids %v\n", r.Ids)
	}
	if r.More {
		b.WriteString("more\n")
	}
	if len(r.Value) > 0 {
		fmt.Fprintf(&b, "value %q\n", r.Value)
	}
	if a.has("v") {
		for _, e := range s.out.Events {
			fmt.Fprintf(&b, "event %v ino %x %x/%s\n", e.Kind, uint64(e.Ino), uint64(e.Parent), e.Name)
		}
		for _, e := range s.out.Effects {
			fmt.Fprintf(&b, "effect %d file %x version %d id %d %s\n", e.Kind, uint64(e.File), e.Version, e.ID, e.Name)
		}
	}
	if b.Len() == 0 {
		return "ok\n"
	}
	return b.String()
}

func showIntent(it *command.Intent) string {
	state := "undecided"
	if it.Deferred {
		state = "deferred"
	}
	op := strings.ToLower(strings.TrimPrefix(it.Op.String(), "INTENT_"))
	s := fmt.Sprintf("intent %d %s %s mount %d", it.Id, state, op, it.MountId)
	if it.Source != "" {
		s += " source " + it.Source
	}
	if it.Target != "" {
		s += " target " + it.Target
	}
	if it.Want != "" {
		s += " want " + it.Want
	}
	if it.Have != "" && it.Command.GetTransfer().GetExchange() {
		s += " have " + it.Have
	}
	return s
}

func showAttr(a *metapb.Attr) string {
	kind := map[orca.FileType]string{orca.TypeFile: "file", orca.TypeDir: "dir", orca.TypeSymlink: "link"}[orca.FileType(a.Type)]
	s := fmt.Sprintf("%s %x %04o %d:%d", kind, a.Ino, a.Mode, a.Uid, a.Gid)
	if orca.FileType(a.Type) == orca.TypeDir {
		s += fmt.Sprintf(" entries %d nlink %d", a.Length, a.Nlink)
	} else {
		s += fmt.Sprintf(" len %d v%d %s", a.Length, a.Version, orca.PersistState(a.Persist))
		if a.Nlink != 1 {
			s += fmt.Sprintf(" nlink %d", a.Nlink)
		}
	}
	if a.Fingerprint != "" {
		s += " fp " + a.Fingerprint
	}
	if a.UfsPath != "" {
		s += " at " + a.UfsPath
	}
	if a.UfsPending {
		s += " pending"
	}
	if a.Target != "" {
		s += " -> " + a.Target
	}
	if a.MountPoint {
		s += " mount"
	}
	if a.Pinned {
		s += " pinned"
	}
	if a.ReplicaMin != 0 || a.ReplicaLimit != 0 {
		s += fmt.Sprintf(" copies %d..%d", a.ReplicaMin, int(a.ReplicaLimit)-1)
	}
	return s
}

func (s *story) who() orca.Caller { return who(s.caller) }

func (s *story) walk(a args) string {
	w, err := s.m.Walk(s.who(), orca.Ino(a.num("ino", 0)), a.arg(0))
	if err != nil {
		return orca.KindOf(err).String() + "\n"
	}
	if !w.Found {
		return fmt.Sprintf("missing %v below %x, key %s pending %d\n", w.Rest, w.Dir.Attr.Ino, w.TargetKey, w.TargetPending)
	}
	out := showAttr(w.Attr)
	if w.Session != 0 {
		out += fmt.Sprintf(" session %d", w.Session)
	}
	if w.Moved {
		out += " moved"
	}
	return out + "\n"
}

func (s *story) lookup(a args) string {
	v, err := s.m.Lookup(orca.Ino(a.num("ino", 0)))
	if err != nil {
		return orca.KindOf(err).String() + "\n"
	}
	out := showAttr(v.Attr)
	if v.Fresh {
		out += " fresh"
	}
	return out + "\n"
}

func (s *story) list(a args, deep bool) string {
	w, err := s.m.Walk(s.who(), 0, a.arg(0))
	if err != nil {
		return orca.KindOf(err).String() + "\n"
	}
	if !w.Found {
		return "not found\n"
	}
	var b strings.Builder
	s.listInto(&b, orca.Ino(w.Attr.Ino), a, deep, "")
	if b.Len() == 0 {
		return "(empty)\n"
	}
	return b.String()
}

func (s *story) listInto(b *strings.Builder, dir orca.Ino, a args, deep bool, indent string) {
	cs, more, err := s.m.Children(s.who(), dir, a.opts["after"], int(a.num("limit", 1000)))
	if err != nil {
		fmt.Fprintf(b, "%s\n", orca.KindOf(err))
		return
	}
	for _, c := range cs {
		fmt.Fprintf(b, "%s%s: %s\n", indent, c.Name, showAttr(c.Attr))
		if deep && c.Attr.Type == uint32(orca.TypeDir) {
			s.listInto(b, orca.Ino(c.Attr.Ino), a, deep, indent+"  ")
		}
	}
	if more {
		fmt.Fprintf(b, "%smore\n", indent)
	}
}

func (s *story) state() string {
	var b strings.Builder
	c := s.m.Counts()
	fmt.Fprintf(&b, "files %d dirs %d sessions %d intents %d mounts %d trash %d\n", c.Files, c.Dirs, c.Sessions, c.Intents, c.Mounts, c.Trash)
	for _, se := range s.m.Sessions() {
		fmt.Fprintf(&b, "session %d %s file %x %s\n", se.Id, se.State, se.File, se.Name)
	}
	for _, it := range s.m.Intents() {
		b.WriteString(showIntent(it) + "\n")
	}
	return b.String()
}

func (s *story) usage(a args) string {
	w, err := s.m.Walk(s.who(), 0, a.arg(0))
	if err != nil || !w.Found {
		return "not found\n"
	}
	u, err := s.m.Usage(orca.Ino(w.Attr.Ino))
	require.NoError(s.t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "bytes %d files %d dirs %d", u.Bytes, u.Files, u.Dirs)
	if u.Whole {
		b.WriteString(" whole")
	}
	b.WriteString("\n")
	for _, q := range u.Quotas {
		fmt.Fprintf(&b, "quota of %s: bytes %d of %d, held %d; inodes %d of %d, held %d\n", q.Path,
			q.Usage.Bytes, q.Limit.Bytes, q.HeldBytes, q.Usage.Inodes(), q.Limit.Inodes, q.HeldInodes)
	}
	require.NoError(s.t, s.m.Check())
	return b.String()
}

func (s *story) trash(a args) string {
	var b strings.Builder
	for _, e := range s.m.Trash(s.who(), a.arg(0), nil, 100) {
		fmt.Fprintf(&b, "%x %s by %d, %d s old, %d s to go: %d bytes, %d inodes", e.Ino, e.Path, e.Uid, (s.now-e.Deleted)/1e9, (e.Expires-s.now)/1e9, e.Bytes, e.Inodes)
		if e.Dir {
			b.WriteString(", a directory")
		}
		b.WriteString("\n")
	}
	require.NoError(s.t, s.m.Check())
	if ids := s.m.Expired(s.now, 10); len(ids) > 0 {
		fmt.Fprintf(&b, "expired %x\n", ids)
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}

// journal is a hosted machine that appends to a list.
type journal struct{}

func (j *journal) Apply(tx Tx, cmd []byte, _ int64) []byte {
	old := slices.Clone(tx.Get([]byte("log")))
	tx.Set([]byte("log"), append(old, cmd...))
	n := 0
	tx.Scan(nil, nil, func(k, _ []byte) bool { n++; return true })
	return fmt.Appendf(nil, "%s keys=%d", tx.Get([]byte("log")), n)
}

func (j *journal) OnPersistNeeded(tx Tx, f PersistFile, _ int64) {
	tx.Set(fmt.Appendf(nil, "p%x", uint64(f.File)), []byte(f.Path))
}
