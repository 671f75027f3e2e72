// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/binary"
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/proto"

	"orca"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
	"orca/metaplane/mount"
)

// Record is one record of a store.
type Record struct {
	// Space is the first byte of the key, and Kind what it is called; "": this
	// build does not know it.
	Space string `json:"space"`
	Kind  string `json:"kind,omitempty"`
	// Key says what the record is of, in the words of docs/format/inodekeys.md.
	Key   map[string]any `json:"key,omitempty"`
	Value any            `json:"value,omitempty"`
	Bytes int            `json:"bytes"` // of key and value
	Error string         `json:"error,omitempty"`
}

// kinds are the key spaces' names.
var kinds = map[byte]string{
	inode.SpaceApplied: "applied", inode.SpaceClient: "client", inode.SpaceDirent: "dentry", inode.SpaceFact: "fact",
	inode.SpaceHosted: "hosted", inode.SpaceInode: "place", inode.SpaceCounters: "counters", inode.SpaceMount: "mount",
	inode.SpaceDir: "directory", inode.SpaceSession: "session", inode.SpaceTrash: "trash", inode.SpaceIntent: "intent",
	inode.SpaceBin: "deleted", inode.SpaceWorker: "worker", inode.SpaceXattr: "xattr", inode.SpaceRemoved: "removed",
	inode.SpaceTransfer: "transfer",
}

// Kind is the name of a key space; "": it is not known.
func Kind(space byte) string { return kinds[space] }

// Of returns what a record says. It keeps neither key nor value.
func Of(key, value []byte) Record {
	r := Record{Bytes: len(key) + len(value)}
	if len(key) == 0 {
		return r
	}
	r.Space, r.Kind = string(rune(key[0])), kinds[key[0]]
	var err error
	if r.Kind == "" {
		r.Key, r.Value = map[string]any{"bytes": text(key[1:])}, hexJSON(value)
	} else if r.Key, r.Value, err = decode(key, value); err != nil {
		r.Error, r.Value = err.Error(), hexJSON(value)
	}
	return r
}

func decode(key, value []byte) (map[string]any, any, error) {
	n, name := inode.Number(key), inode.NameOf(key)
	number := func(of string) map[string]any { return map[string]any{of: n} }
	switch key[0] {
	case inode.SpaceApplied:
		what := "index"
		if len(key) > 1 {
			what = string(key[1:])
		}
		return map[string]any{"of": what}, u64(value, 0), nil
	case inode.SpaceCounters:
		return nil, map[string]any{"inode": u64(value, 1), "session": u64(value, 9), "intent": u64(value, 17), "worker": u64(value, 25),
			"files": u64(value, 33), "directories": u64(value, 41)}, nil
	case inode.SpaceFact:
		return map[string]any{"fact": text(key[1:])}, fact(string(key[1:]), value), nil
	case inode.SpaceHosted:
		machine, rest, _ := strings.Cut(string(key[1:]), "\x00")
		return map[string]any{"machine": text([]byte(machine)), "key": text([]byte(rest))}, hexJSON(value), nil
	case inode.SpaceDirent:
		v, err := dentryOf(value)
		return map[string]any{"dir": n, "name": name}, v, err
	case inode.SpaceDir:
		d, err := inode.DecodeDir(value)
		return number("dir"), d, err
	case inode.SpaceInode:
		dir, at, err := inode.DecodePlace(value)
		return number("file"), map[string]any{"dir": dir, "name": at}, err
	case inode.SpaceXattr:
		return map[string]any{"inode": n, "name": name}, text(value), nil
	case inode.SpaceTrash:
		return number("dir"), nil, nil
	case inode.SpaceRemoved:
		return number("dir"), map[string]any{"names": max(len(value)-9, 0) / 16}, nil
	case inode.SpaceClient:
		return clientOf(key, value)
	case inode.SpaceMount:
		m := &command.Mount{}
		v, err := protoOf(value, m)
		if err == nil && m.Mount != nil {
			m.Mount = mount.Mask(m.Mount)
			v = Proto(m)
		}
		return map[string]any{"mount": u32(key, 1)}, v, err
	case inode.SpaceSession:
		v, err := protoOf(value, &command.Session{})
		return number("session"), v, err
	case inode.SpaceBin:
		v, err := protoOf(value, &command.Trashed{})
		return number("inode"), v, err
	case inode.SpaceTransfer:
		v, err := protoOf(value, &metapb.TransferRecord{})
		return number("transfer"), v, err
	case inode.SpaceIntent:
		v, err := protoOf(value, &command.Intent{})
		return number("intent"), v, err
	default:
		v, err := protoOf(value, &command.Worker{})
		return number("worker"), v, err
	}
}

func u64(b []byte, at int) uint64 {
	if len(b) < at+8 {
		return 0
	}
	return binary.BigEndian.Uint64(b[at:])
}

func u32(b []byte, at int) uint32 {
	if len(b) < at+4 {
		return 0
	}
	return binary.BigEndian.Uint32(b[at:])
}

func fact(name string, v []byte) any {
	if secretFact(name) {
		return mount.Masked
	}
	if t := text(v); len(v) != 8 || !strings.HasPrefix(t, "0x") {
		return t
	}
	return u64(v, 0)
}

func dentryOf(v []byte) (any, error) {
	d, err := inode.DecodeDentry(v)
	if err != nil {
		return nil, err
	}
	if d.File == nil {
		return map[string]any{"directory": d.Dir}, nil
	}
	return d.File, nil
}

func clientOf(key, v []byte) (map[string]any, any, error) {
	k := map[string]any{"client": inode.Number(key)}
	if len(key) < 11 {
		return k, map[string]any{"floor": u64(v, 1), "used": u64(v, 9)}, nil
	}
	k["slot"] = binary.BigEndian.Uint16(key[9:])
	if len(v) < 8 {
		return k, nil, orca.E("inspect", orca.Corrupt, "bad remembered result")
	}
	r := &command.Result{}
	if err := command.DecodeResult(v[8:], r); err != nil {
		return k, nil, err
	}
	return k, map[string]any{"seq": u64(v, 0), "result": Proto(r)}, nil
}

// message is what a rare record's value holds behind its version.
type message interface {
	proto.Message
	UnmarshalVT(b []byte) error
}

func protoOf(v []byte, m message) (json.RawMessage, error) {
	if len(v) == 0 || v[0] != 1 {
		return nil, orca.E("inspect", orca.Corrupt, "a record of another format")
	}
	if err := m.UnmarshalVT(v[1:]); err != nil {
		return nil, orca.PathE("inspect", "", orca.Corrupt, err)
	}
	return Proto(m), nil
}
