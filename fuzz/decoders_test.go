// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fuzz

import (
	"bytes"
	"strings"
	"testing"

	"orca"
	"orca/metaplane/backup"
	"orca/metaplane/command"
	"orca/metaplane/inode"
	"orca/metaplane/metapb"
	"orca/metaplane/metawire"
)

// FuzzCleanPath: what is clean stays as it is, has no component that a dentry
// cannot have, and leads nowhere above the root.
func FuzzCleanPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "//a/./../b/", "/\xff\x00", "/" + strings.Repeat("x", 300), "a", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		c, err := orca.CleanPath(p)
		if err != nil {
			if k := orca.KindOf(err); k != orca.Invalid && k != orca.NameTooLong {
				t.Fatalf("%q: kind %v", p, k)
			}
			return
		}
		if again, err := orca.CleanPath(c); err != nil || again != c {
			t.Fatalf("%q: cleaned to %q, and that to %q, %v", p, c, again, err)
		}
		if c == "/" {
			return
		}
		for name := range strings.SplitSeq(c[1:], "/") {
			if err := orca.CheckName(name); err != nil {
				t.Fatalf("%q: component %q of the clean path: %v", p, name, err)
			}
		}
		dir, name := orca.SplitPath(c)
		if orca.JoinPath(dir, name) != c {
			t.Fatalf("%q: split and joined to %q", c, orca.JoinPath(dir, name))
		}
	})
}

// FuzzBackup: whatever a file holds, it is refused with a kind or is whole, and
// what is refused was not larger in memory than a frame may be.
func FuzzBackup(f *testing.F) {
	s, err := backup.NewStream(backup.Header{Groups: []backup.Group{{ID: 1, Applied: 3}}}, []backup.Source{&oneRecord{}})
	if err != nil {
		f.Fatal(err)
	}
	var file []byte
	for b, err := s.Next(); err == nil; b, err = s.Next() {
		file = append(file, b...)
	}
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add([]byte("orcabak\x01D\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := backup.Verify(bytes.NewReader(b))
		switch orca.KindOf(err) {
		case orca.OK, orca.Corrupt, orca.Invalid, orca.Unsupported:
		default:
			t.Fatalf("%v", err)
		}
	})
}

// oneRecord is a store with one record.
type oneRecord struct{ over bool }

func (o *oneRecord) Next() (key, value []byte, err error) {
	if o.over {
		return nil, nil, nil
	}
	o.over = true
	return []byte("key"), []byte("value"), nil
}

// FuzzBlockID: a name that parses is the name of what it parsed to.
func FuzzBlockID(f *testing.F) {
	f.Add("0001000000000011-00000001-00000000", []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, s string, b []byte) {
		if id, err := orca.ParseBlockID(s); err == nil && id.String() != s {
			t.Fatalf("%q parsed to %v", s, id)
		}
		if id, ok := orca.DecodeBlockID(b); ok && !bytes.Equal(id.AppendTo(nil), b[:orca.BlockIDLen]) {
			t.Fatalf("%x decoded to %v", b, id)
		}
	})
}

// FuzzCommand: a journal entry of any bytes is refused or splits into items
// that are refused or decode to commands that encode and decode again.
func FuzzCommand(f *testing.F) {
	c := &command.Command{Client: 1, Seq: 2, Now: 3, Mkdir: &metapb.MkdirOp{Target: &metapb.Target{Path: "/a"}, Mode: 0o755}}
	item, err := command.Append(nil, c)
	if err != nil {
		f.Fatal(err)
	}
	var e command.Entry
	e.Add(item)
	f.Add(e.Bytes())
	f.Add(item)
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = command.Split(b, func(_ int, item []byte) error {
			roundTrip(t, item)
			return nil
		})
		roundTrip(t, b)
		var r command.Result
		_ = command.DecodeResult(b, &r)
	})
}

func roundTrip(t *testing.T, item []byte) {
	t.Helper()
	var c, again command.Command
	if command.Decode(item, &c) != nil {
		return
	}
	enc, err := command.Append(nil, &c)
	if err != nil {
		t.Fatalf("a decoded command does not encode: %v", err)
	}
	if err := command.Decode(enc, &again); err != nil {
		t.Fatalf("an encoded command does not decode: %v", err)
	}
	enc2, err := command.Append(nil, &again)
	if err != nil || !bytes.Equal(enc, enc2) {
		t.Fatalf("a command encodes in two ways: %x, %x (%v)", enc, enc2, err)
	}
}

// FuzzRecords: records of the namespace are refused or stay what they are.
func FuzzRecords(f *testing.F) {
	f.Add(inode.AppendSubdir(nil, 7))
	f.Add(inode.AppendPlace(nil, 7, "name"))
	f.Add(inode.AppendDir(nil, &inode.Dir{}))
	f.Add(inode.AppendFile(nil, &inode.File{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := inode.DecodeDir(b); err == nil {
			enc := inode.AppendDir(nil, &d)
			if d2, err := inode.DecodeDir(enc); err != nil || !bytes.Equal(inode.AppendDir(nil, &d2), enc) {
				t.Fatalf("directory %x: %v", b, err)
			}
		}
		if d, err := inode.DecodeDentry(b); err == nil && d.File != nil {
			enc := inode.AppendFile(nil, d.File)
			if d2, err := inode.DecodeDentry(enc); err != nil || !bytes.Equal(inode.AppendFile(nil, d2.File), enc) {
				t.Fatalf("file %x: %v", b, err)
			}
		}
		if dir, name, err := inode.DecodePlace(b); err == nil {
			d2, n2, err := inode.DecodePlace(inode.AppendPlace(nil, dir, name))
			if err != nil || d2 != dir || n2 != name {
				t.Fatalf("place %x: %v", b, err)
			}
		}
	})
}

// FuzzRequests: the body of any RPC is refused with Invalid or decodes to a
// request with a header; nothing panics.
func FuzzRequests(f *testing.F) {
	for op := range metawire.Methods() {
		f.Add(uint16(op), []byte{0x0a, 0x02, 0x08, 0x01})
	}
	methods := metawire.Methods()
	f.Fuzz(func(t *testing.T, op uint16, b []byte) {
		m := methods[metawire.Op(op)]
		if m == nil {
			return
		}
		r, err := m.Decode(b)
		if err != nil {
			if orca.KindOf(err) != orca.Invalid {
				t.Fatalf("%s: kind %v", m.Name, orca.KindOf(err))
			}
			return
		}
		if r.GetH() == nil {
			t.Fatalf("%s: a request without a header was let in", m.Name)
		}
	})
}
