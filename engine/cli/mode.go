// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"
)

// modeChange is a parsed argument of chmod.
type modeChange struct {
	octal bool
	bits  uint32
	steps []modeStep
}

// modeStep is one clause such as go-w.
type modeStep struct {
	who   uint32 // mask of the permission bits concerned
	op    byte   // + - =
	perms string // of r w x X s t
}

func parseMode(s string) (modeChange, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > 0o7777 {
			return modeChange{}, usagef("mode %s: more than 7777", s)
		}
		return modeChange{octal: true, bits: uint32(n)}, nil
	}
	var m modeChange
	for clause := range strings.SplitSeq(s, ",") {
		i := strings.IndexAny(clause, "+-=")
		if i < 0 || strings.Trim(clause[:i], "ugoa") != "" || strings.Trim(clause[i+1:], "rwxXst") != "" {
			return modeChange{}, usagef("mode %q: neither octal nor such as u+x,go-w", s)
		}
		st := modeStep{op: clause[i], perms: clause[i+1:]}
		for _, w := range clause[:i] {
			st.who |= map[rune]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[w]
		}
		if i == 0 {
			st.who = 0o7777
		}
		m.steps = append(m.steps, st)
	}
	return m, nil
}

// apply returns the bits after the change; X counts for directories and for
// files that somebody may execute already.
func (m modeChange) apply(mode uint32, dir bool) uint32 {
	if m.octal {
		return m.bits
	}
	for _, st := range m.steps {
		var p uint32
		for _, c := range st.perms {
			switch c {
			case 'r':
				p |= 0o444
			case 'w':
				p |= 0o222
			case 'x':
				p |= 0o111
			case 'X':
				if dir || mode&0o111 != 0 {
					p |= 0o111
				}
			case 's':
				p |= 0o6000
			case 't':
				p |= 0o1000
			}
		}
		p &= st.who
		switch st.op {
		case '+':
			mode |= p
		case '-':
			mode &^= p
		case '=':
			mode = mode&^st.who | p
		}
	}
	return mode
}
