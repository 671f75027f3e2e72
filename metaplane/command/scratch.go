// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package command

import (
	"google.golang.org/protobuf/encoding/protowire"

	"orca/metaplane/metapb"
)

// Scratch is the memory of one decoded command, used again for the next. The
// zero value is ready; it is for one goroutine.
type Scratch struct {
	cmd    Command
	caller metapb.Caller
	create metapb.CreateOp
	target metapb.Target
}

// Create decodes a command that makes a complete file, by far the most frequent
// one, without allocating: what it returns is valid until the next call, and its
// strings are parts of b. false: b is not such a command, or not plainly
// encoded, and Decode has to be asked.
func (s *Scratch) Create(b []byte) (*Command, bool) {
	if len(b) == 0 || b[0] != Version {
		return nil, false
	}
	s.cmd.Reset()
	c := &s.cmd
	ok := metapb.EachField(b[1:], func(num protowire.Number, v uint64, p []byte) bool {
		switch num {
		case 1:
			c.Client = v
		case 2:
			c.Seq = v
		case 3:
			c.AckedBelow = v
		case 4:
			if p == nil || c.Caller != nil {
				return false
			}
			c.Caller = &s.caller
			s.caller.Reset()
			return c.Caller.DecodeOnto(p)
		case 5:
			c.Now = int64(v)
		case 6:
			c.Checks = uint32(v)
		case 8:
			c.Reign = v
		case 10:
			if p == nil || c.Create != nil {
				return false
			}
			c.Create = &s.create
			return s.decodeCreate(p)
		default:
			return false
		}
		return p == nil
	})
	return c, ok && c.Create != nil && c.Create.Complete && c.Create.Symlink == "" && !c.Create.Parents
}

func (s *Scratch) decodeCreate(b []byte) bool {
	s.create.Reset()
	o := &s.create
	return metapb.EachField(b, func(num protowire.Number, v uint64, p []byte) bool {
		switch num {
		case 1:
			if p == nil || o.Target != nil {
				return false
			}
			o.Target = &s.target
			s.target.Reset()
			return o.Target.DecodeOnto(p)
		case 2:
			o.Mode = uint32(v)
		case 4:
			o.Exclusive = v != 0
		case 5:
			o.Overwrite = v != 0
		case 6:
			o.WriteType = uint32(v)
		case 7:
			o.BlockSize = int64(v)
		case 8:
			o.WholeMax = int64(v)
		case 9:
			o.Replicas = uint32(v)
		case 10:
			o.Complete = v != 0
		case 11:
			o.Steal = v != 0
		case 13:
			o.Ttl = int64(v)
		case 14:
			o.ParentMode = uint32(v)
		default:
			return false
		}
		return p == nil
	})
}
