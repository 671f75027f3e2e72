// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"orca"
	"orca/jobs/jobpb"
	"orca/jobs/machine"
	"orca/metaplane/fsm"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the stories' answers")

// table is a store in memory: what a host hands in.
type table map[string][]byte

func (t table) Get(k []byte) []byte { return t[string(k)] }
func (t table) Set(k, v []byte)     { t[string(k)] = bytes.Clone(v) }
func (t table) Delete(k []byte)     { delete(t, string(k)) }

func (t table) Scan(prefix, after []byte, fn func(k, v []byte) bool) {
	var keys []string
	for k := range t {
		if strings.HasPrefix(k, string(prefix)) && (after == nil || k > string(after)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if !fn([]byte(k), t[k]) {
			return
		}
	}
}

// TestStories runs the scripts in testdata: a line is a command, the lines
// after "----" are its answer.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(f)
			require.NoError(t, err)
			got := run(t, string(b))
			if *rewrite {
				require.NoError(t, os.WriteFile(f, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(b), got)
		})
	}
}

type teller struct {
	t   *testing.T
	tab table
	m   *machine.Machine
	now int64
}

func run(t *testing.T, script string) string {
	var out strings.Builder
	w := &teller{t: t, tab: table{}, m: machine.New()}
	answer := false
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			answer = false
			fmt.Fprintln(&out, line)
		case line == "----":
			answer = true
		case answer && line != "":
		case line == "":
			answer = false
			fmt.Fprintln(&out)
		default:
			answer = false
			fmt.Fprintf(&out, "%s\n----\n%s", line, w.tell(strings.Fields(line)))
		}
	}
	return out.String()
}

// args are k=v words.
type args map[string]string

func (a args) num(k string) uint64 {
	n, _ := strconv.ParseUint(a[k], 10, 64)
	return n
}

// items parses file:version:bytes[@block], comma separated.
func items(s string) (out []*jobpb.Item) {
	for f := range strings.SplitSeq(s, ",") {
		if f == "" {
			continue
		}
		i := &jobpb.Item{}
		f, block, _ := strings.Cut(f, "@")
		_, _ = fmt.Sscanf(f, "%d:%d:%d", &i.File, &i.Version, &i.Bytes)
		_, _ = fmt.Sscanf(block, "%d", &i.FirstBlock)
		i.Path = fmt.Sprint("/f", i.File)
		out = append(out, i)
	}
	return out
}

func failures(s string) (out []*jobpb.Failure) {
	for f := range strings.SplitSeq(s, ",") {
		if p, msg, ok := strings.Cut(f, ":"); ok {
			out = append(out, &jobpb.Failure{Path: p, Error: msg})
		}
	}
	return out
}

func (w *teller) tell(words []string) string {
	w.now++
	a, flags := args{}, map[string]bool{}
	for _, f := range words[1:] {
		if k, v, ok := strings.Cut(f, "="); ok {
			a[k] = v
		} else {
			flags[f] = true
		}
	}
	c := &jobpb.Command{}
	switch words[0] {
	case "at":
		w.now = int64(a.num("t"))
		return ""
	case "jobs":
		return w.jobs()
	case "open":
		return w.open()
	case "reopen":
		w.m = machine.New()
		require.NoError(w.t, w.m.Reopen(w.tab))
		return ""
	case "fresh":
		ks := w.m.Fresh()
		slices.SortFunc(ks, func(a, b machine.Key) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return fmt.Sprintln(ks)
	case "promise":
		w.m.OnPersistNeeded(w.tab, fsm.PersistFile{
			File: orca.Ino(a.num("file")), Version: uint32(a.num("v")), Length: int64(a.num("len")), Path: a["path"], Mount: 1, Workers: []uint64{4},
		}, w.now)
		return ""
	case "submit":
		k := jobpb.Kind(jobpb.Kind_value[strings.ToUpper(a["kind"])])
		c.Submit = &jobpb.Submit{Spec: &jobpb.Spec{Kind: k, Path: a["path"], Uid: uint32(a.num("uid"))}, MaxActive: int64(a.num("max"))}
	case "cancel":
		c.Cancel = &jobpb.Cancel{Job: a.num("job"), Uid: uint32(a.num("uid"))}
	case "plan":
		c.Planned = &jobpb.Planned{
			Job: a.num("job"), From: a["from"], Cursor: a["to"], Last: flags["last"], Awaited: items(a["await"]),
			Failures: failures(a["fail"]), Skipped: int64(a.num("skipped")), Error: a["error"],
		}
		for t := range strings.SplitSeq(a["tasks"], "|") {
			if t != "" {
				c.Planned.Tasks = append(c.Planned.Tasks, &jobpb.Task{Items: items(t)})
			}
		}
	case "repair":
		k := jobpb.Kind(jobpb.Kind_value[strings.ToUpper(a["kind"])])
		c.Repair = &jobpb.Repair{Spec: &jobpb.Spec{Kind: k, Path: "/"}}
		for t := range strings.SplitSeq(a["tasks"], "|") {
			if t != "" {
				c.Repair.Tasks = append(c.Repair.Tasks, &jobpb.Task{Items: items(t), Worker: a.num("worker")})
			}
		}
	case "done":
		c.Done = []*jobpb.Done{{
			Job: a.num("job"), Task: uint32(a.num("task")), Files: int64(a.num("files")), Skipped: int64(a.num("skipped")),
			Bytes: int64(a.num("bytes")), Failures: failures(a["fail"]),
		}}
	case "persisted", "gone", "lost":
		c.Done = []*jobpb.Done{{File: a.num("file"), Version: uint32(a.num("v")), Outcome: jobpb.Outcome(jobpb.Outcome_value[strings.ToUpper(words[0])])}}
	case "note":
		c.Notes = []*jobpb.Note{{File: a.num("file"), Version: uint32(a.num("v")), Attempts: uint32(a.num("attempts")), Error: a["error"]}}
	case "expire":
		c.Expire = &jobpb.Expire{Before: int64(a.num("before")), Keep: int64(a.num("keep")), Limit: int64(a.num("limit"))}
	default:
		w.t.Fatalf("unknown word %q", words[0])
	}
	b, err := c.MarshalVT()
	require.NoError(w.t, err)
	var rep jobpb.Reply
	require.NoError(w.t, rep.UnmarshalVT(w.m.Apply(w.tab, b, w.now)))
	switch {
	case rep.Kind != 0:
		return fmt.Sprintf("%s: %s\n", orca.Kind(rep.Kind), rep.Error)
	case rep.Job != 0:
		return fmt.Sprintf("job %d\n", rep.Job)
	case c.Expire != nil:
		return fmt.Sprintf("forgot %d\n", rep.Expired)
	}
	return ""
}

func (w *teller) jobs() string {
	var out strings.Builder
	machine.Jobs(w.tab, 0, func(j *jobpb.Job) bool {
		fmt.Fprintf(&out, "%d %s %s %s files %d/%d", j.Id, j.Spec.Kind, j.Spec.Path, j.State, j.FilesDone, j.Files)
		for _, x := range []struct {
			name string
			n    int64
		}{{"skipped", j.FilesSkipped}, {"failed", j.FilesFailed}, {"open", int64(j.OpenTasks)}, {"attempts", int64(j.Attempts)}} {
			if x.n != 0 {
				fmt.Fprintf(&out, " %s %d", x.name, x.n)
			}
		}
		fmt.Fprintf(&out, " bytes %d/%d", j.BytesDone, j.Bytes)
		if !j.Planned {
			fmt.Fprintf(&out, " planned to %q", j.Cursor)
		}
		for _, f := range j.Failures {
			fmt.Fprintf(&out, " [%s: %s]", f.Path, f.Error)
		}
		if j.Error != "" {
			fmt.Fprintf(&out, " (%s)", j.Error)
		}
		fmt.Fprintln(&out)
		return true
	})
	c := machine.Counts(w.tab)
	fmt.Fprintf(&out, "active %d finished %d promises %d\n", c.Active, c.Finished, c.Persists)
	return out.String()
}

func (w *teller) open() string { return fmt.Sprintln(machine.Open(w.tab)) }

// TestGarbage: what is no command is refused and changes nothing.
func TestGarbage(t *testing.T) {
	tab := table{}
	var rep jobpb.Reply
	require.NoError(t, rep.UnmarshalVT(machine.New().Apply(tab, []byte{0xff, 0xff}, 1)))
	require.EqualValues(t, orca.Corrupt, rep.Kind)
	require.Empty(t, tab)
}
