// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca

import (
	"errors"
	"strconv"
	"strings"
)

// ReferralE says that what a request names is not here: it is rest (without a
// leading slash; may be empty) below the directory root, whose number tells the
// group that has it (Ino.Home). RootIno as root sends back to where paths begin.
func ReferralE(op string, root Ino, rest string) *Error {
	return &Error{Op: op, Path: ReferralPath(root, rest), Kind: Referral, Msg: "the subtree lives in group " + strconv.Itoa(int(root.Home()))}
}

// ReferralPath is the Error.Path of a referral: the inode in hex, a slash, and
// the rest.
func ReferralPath(root Ino, rest string) string { return root.String() + "/" + rest }

// AsReferral returns what an error of kind Referral says; not ok: it is none.
func AsReferral(err error) (root Ino, rest string, ok bool) {
	var e *Error
	if !errors.As(err, &e) || e.Kind != Referral {
		return 0, "", false
	}
	hex, rest, ok := strings.Cut(e.Path, "/")
	n, perr := strconv.ParseUint(hex, 16, 64)
	return Ino(n), rest, ok && perr == nil && n != 0
}
