// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"orca"
)

// Exchange implements ufs.Exchanger by renameat2. Which is which is written
// down first, in a temporary file beside a that a Sweep of a removes: else a
// repetition could not tell whether the two have changed places.
func (f *FS) Exchange(ctx context.Context, a, b, token string) error {
	const op = "Exchange"
	for _, key := range []string{a, b} {
		if err := f.begin(ctx, op, key); err != nil {
			return err
		}
	}
	if err := checkToken(op, a, token); err != nil {
		return err
	}
	if a == "" || b == "" || token == "" || strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/") {
		return &orca.Error{Op: "local.Exchange", Path: a, Kind: orca.Invalid, Msg: "the root, a directory with what is below it, or no token"}
	}
	afd, aname, err := f.parent(a)
	if err != nil {
		return fail(op, a, err)
	}
	defer unix.Close(afd)
	bfd, bname, err := f.parent(b)
	if err != nil {
		return fail(op, b, err)
	}
	defer unix.Close(bfd)
	have, err := whichOf(afd, aname, bfd, bname)
	if err != nil {
		return fail(op, a, err)
	}
	was, err := writtenDown(afd, tempName(aname, token), have)
	switch {
	case err != nil:
		return fail(op, a, err)
	case have == pair{was.b, was.a}:
		return nil
	case have != was:
		return &orca.Error{Op: "local.Exchange", Path: a, Kind: orca.Conflict, Msg: "somebody has changed one of the two"}
	}
	err = unix.Renameat2(afd, aname, bfd, bname, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		return orca.PathE("local.Exchange", a, orca.Unsupported, err)
	case errors.Is(err, unix.EXDEV):
		return orca.PathE("local.Exchange", a, orca.CrossMount, err)
	case err != nil:
		return fail(op, a, err)
	}
	if err := syncDir(bfd); err != nil {
		return fail(op, b, err)
	}
	return wrapped(op, a, syncDir(afd))
}

// pair are the inodes at two keys.
type pair struct{ a, b uint64 }

func whichOf(afd int, aname string, bfd int, bname string) (pair, error) {
	var a, b unix.Stat_t
	if err := unix.Fstatat(afd, aname, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pair{}, err
	}
	err := unix.Fstatat(bfd, bname, &b, unix.AT_SYMLINK_NOFOLLOW)
	return pair{a.Ino, b.Ino}, err
}

// writtenDown returns the pair that is in a temporary file, and writes p into
// one where there is none.
func writtenDown(dirfd int, name string, p pair) (pair, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return p, err
	}
	defer unix.Close(fd)
	var buf [16]byte
	n, err := unix.Pread(fd, buf[:], 0)
	if err != nil || n == len(buf) && buf != [16]byte{} { // nothing but zeros: not what was written before a crash
		return pair{binary.BigEndian.Uint64(buf[:]), binary.BigEndian.Uint64(buf[8:])}, err
	}
	binary.BigEndian.PutUint64(buf[:], p.a)
	binary.BigEndian.PutUint64(buf[8:], p.b)
	if _, err := unix.Pwrite(fd, buf[:], 0); err != nil {
		return p, err
	}
	if err := unix.Fsync(fd); err != nil {
		return p, err
	}
	return p, syncDir(dirfd)
}
