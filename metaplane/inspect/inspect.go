// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package inspect shows what a journal and a store of the metaplane hold, for
// people and as JSON: entries of the journal, command by command, and records of
// the store, each by its key space.
//
// It sits above command and inode, whose records it shows, and below the commands
// that print. It is pure, starts no goroutine and holds no lock. It
// shows no secret of a mount and no key of grants, and refuses nothing: what it
// does not know is shown as bytes in hex.
package inspect

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orca/metaplane/command"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// Command is one command of a journal entry. Fields that do not concern it are
// left out of its JSON.
type Command struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	// N counts the commands of an entry from 0.
	N int `json:"n"`
	// Op is the operation as the format calls it (docs/format/command.md);
	// "leader" is the empty entry of a new one, "membership" the Raft engine's,
	// "unreadable" what this build does not understand.
	Op     string          `json:"op"`
	Client uint64          `json:"client,omitempty"`
	Seq    uint64          `json:"seq,omitempty"`
	Now    int64           `json:"now,omitempty"` // unix ns, as it was proposed
	Body   json.RawMessage `json:"body,omitempty"`
	// Rest has what else the command says: its caller, checks, reign.
	Rest  map[string]json.RawMessage `json:"with,omitempty"`
	Bytes int                        `json:"bytes"`
	Error string                     `json:"error,omitempty"`
}

// Entry returns the commands of an entry.
func Entry(e *metapb.JournalEntry) []Command {
	one := Command{Index: e.Index, Term: e.Term, Bytes: len(e.Data)}
	switch {
	case e.Membership:
		one.Op, one.Body = "membership", hexJSON(e.Data)
		return []Command{one}
	case len(e.Data) == 0:
		one.Op = "leader"
		return []Command{one}
	}
	var out []Command
	err := command.Split(e.Data, func(i int, item []byte) error {
		c := Command{Index: e.Index, Term: e.Term, N: i, Bytes: len(item)}
		c.decode(item)
		out = append(out, c)
		return nil
	})
	if err != nil {
		one.N, one.Op, one.Body, one.Error = len(out), "unreadable", hexJSON(e.Data), err.Error()
		out = append(out, one)
	}
	return out
}

// about are the fields of a command that are not its operation.
var about = map[string]bool{"client": true, "seq": true, "now": true, "ackedBelow": true, "caller": true, "checks": true, "absent": true, "reign": true}

func (c *Command) decode(item []byte) {
	cmd := &command.Command{}
	err := command.Decode(item, cmd)
	var fields map[string]json.RawMessage
	if err == nil {
		c.Client, c.Seq, c.Now = cmd.Client, cmd.Seq, cmd.Now
		if cmd.Mount != nil && cmd.Mount.Mount != nil {
			cmd.Mount.Mount = mount.Mask(cmd.Mount.Mount)
		}
		if f := cmd.SetFact; f != nil && secretFact(f.Key) {
			f.Value = nil
		}
		err = json.Unmarshal(Proto(cmd), &fields)
	}
	if err != nil {
		c.Op, c.Body, c.Error = "unreadable", hexJSON(item), err.Error()
		return
	}
	c.Op = "none"
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		switch {
		case !about[k]:
			c.Op, c.Body = snake(k), fields[k]
		case k != "client" && k != "seq" && k != "now":
			if c.Rest == nil {
				c.Rest = map[string]json.RawMessage{}
			}
			c.Rest[snake(k)] = fields[k]
		}
	}
}

// snake spells a name of JSON as the format does.
func snake(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func secretFact(name string) bool { return strings.HasSuffix(name, ".key") }

// Proto returns a message as compact JSON.
func Proto(m proto.Message) json.RawMessage {
	b, err := protojson.Marshal(m)
	var v any
	if err == nil {
		err = json.Unmarshal(b, &v) // protojson spaces at random
	}
	if err == nil {
		b, err = json.Marshal(v)
	}
	if err != nil {
		b, _ = json.Marshal(map[string]string{"error": err.Error()})
	}
	return b
}

func hexJSON(b []byte) json.RawMessage {
	out, _ := json.Marshal("0x" + hex.EncodeToString(b))
	return out
}

// text returns bytes as they are if they can be read, else in hex.
func text(b []byte) string {
	if utf8.Valid(b) && !strings.ContainsFunc(string(b), unicode.IsControl) {
		return string(b)
	}
	return "0x" + hex.EncodeToString(b)
}
