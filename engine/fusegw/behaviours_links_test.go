// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// names records how many names a file says it has, and whether they are names
// of one inode.
func (s *say) names(ps ...string) {
	var first unix.Stat_t
	for i, p := range ps {
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			s.err("stat", err)
			continue
		}
		if i == 0 {
			first = st
		}
		s.f("nlink %d, the same %v", st.Nlink, st.Ino == first.Ino)
	}
}

func behaveHardLinks(d string, _ int) string {
	var s say
	a, b, c := d+"/a", d+"/b", d+"/sub/c"
	s.err("mkdir", os.Mkdir(d+"/sub", 0o755))
	s.err("w", os.WriteFile(a, []byte("one"), 0o644))
	s.err("link", os.Link(a, b))
	s.err("link of a link", os.Link(b, c))
	s.names(a, b, c)
	s.err("again", os.Link(a, b))
	s.err("on itself", os.Link(a, a))
	s.err("of a directory", os.Link(d+"/sub", d+"/x"))
	s.err("of nothing", os.Link(d+"/none", d+"/x"))
	s.err("into nothing", os.Link(a, d+"/none/x"))
	s.err("below a file", os.Link(a, b+"/x"))
	s.err("w by another name", os.WriteFile(b, []byte("two and more"), 0o644))
	for _, p := range []string{a, b, c} {
		s.content(p)
	}
	s.err("chmod", os.Chmod(c, 0o600))
	s.stat(a)
	s.err("rename of the same", unix.Rename(a, b))
	s.names(a, b, c)
	s.err("rename", os.Rename(a, d+"/d"))
	s.names(d+"/d", b, c)

	// One name of an open file goes; it is still there for the others.
	f, err := os.OpenFile(b, os.O_RDWR, 0)
	s.err("open", err)
	_, err = f.WriteAt([]byte("TWO"), 0)
	s.err("write", err)
	s.err("unlink", os.Remove(b))
	_, err = f.WriteAt([]byte("MORE"), 8)
	s.err("write without that name", err)
	var st unix.Stat_t
	s.err("fstat", unix.Fstat(int(f.Fd()), &st))
	s.f("nlink %d", st.Nlink)
	s.err("close", f.Close())
	s.content(c)
	s.content(d + "/d")
	s.names(d+"/d", c)

	// The last name of an open file goes.
	f, err = os.Open(c)
	s.err("open", err)
	s.err("unlink", os.Remove(c))
	s.err("unlink", os.Remove(d+"/d"))
	got, err := io.ReadAll(f)
	s.err("read", err)
	s.f("%q", got)
	s.err("fstat", unix.Fstat(int(f.Fd()), &st))
	s.f("nlink %d", st.Nlink)
	s.err("close", f.Close())

	// A name replaced leaves the others.
	s.err("w", os.WriteFile(a, []byte("old"), 0o644))
	s.err("link", os.Link(a, b))
	s.err("w", os.WriteFile(d+"/n", []byte("new"), 0o644))
	s.err("rename over", os.Rename(d+"/n", a))
	s.content(a)
	s.content(b)
	s.names(a, b)

	// One made and not closed yet.
	f, err = os.Create(d + "/fresh")
	s.err("create", err)
	_, _ = f.WriteString("fresh")
	s.err("link", os.Link(d+"/fresh", d+"/fresh2"))
	_, _ = f.WriteString(" and on")
	s.err("close", f.Close())
	s.content(d + "/fresh2")
	s.names(d+"/fresh", d+"/fresh2")
	s.err("symlink", os.Symlink("b", d+"/l"))
	s.err("link of a symlink", unix.Linkat(unix.AT_FDCWD, d+"/l", unix.AT_FDCWD, d+"/l2", 0))
	s.names(d+"/l", d+"/l2")
	s.content(d + "/l2")
	s.err("rm -r", os.RemoveAll(d+"/sub"))
	return s.String()
}

func behaveExchange(d string, _ int) string {
	var s say
	swap := func(a, b string, flags uint) error {
		return unix.Renameat2(unix.AT_FDCWD, d+"/"+a, unix.AT_FDCWD, d+"/"+b, unix.RENAME_EXCHANGE|flags)
	}
	s.err("w", os.WriteFile(d+"/f", []byte("file"), 0o644))
	s.err("w", os.WriteFile(d+"/g", []byte("another"), 0o600))
	s.err("mkdir", os.Mkdir(d+"/dir", 0o755))
	s.err("w", os.WriteFile(d+"/dir/in", []byte("in"), 0o644))
	s.err("files", swap("f", "g", 0))
	s.content(d + "/f")
	s.content(d + "/g")
	s.stat(d + "/f")
	s.err("file and directory", swap("f", "dir", 0))
	s.content(d + "/f/in")
	s.content(d + "/dir")
	s.err("nothing", swap("f", "none", 0))
	s.err("nothing", swap("none", "f", 0))
	s.err("itself", swap("f", "f", 0))
	s.err("what is in it", swap("f", "f/in", 0))
	s.err("not to replace", swap("f", "dir", unix.RENAME_NOREPLACE))
	f, err := os.OpenFile(d+"/g", os.O_WRONLY|os.O_APPEND, 0)
	s.err("open", err)
	_, _ = f.WriteString("!")
	s.err("while it is written", swap("g", "dir", 0))
	_, _ = f.WriteString("!")
	s.err("close", f.Close())
	s.content(d + "/g")
	s.content(d + "/dir")
	s.err("link", os.Link(d+"/g", d+"/g2"))
	s.err("two names of a file", swap("g", "g2", 0))
	s.err("one name of a file", swap("g2", "dir", 0))
	s.content(d + "/dir")
	s.content(d + "/g2")
	s.names(d+"/g", d+"/dir")
	return s.String()
}

func behaveSticky(d string, _ int) string {
	var s say
	s.err("mkdir", os.Mkdir(d+"/t", 0o755))
	s.err("chmod", os.Chmod(d, 0o755))
	s.err("chmod", os.Chmod(d+"/t", 0o777|os.ModeSticky))
	as := func(uid uint32, cmd string) {
		c := exec.Command("sh", "-c", "cd '"+d+"/t' && "+cmd+" >/dev/null 2>&1")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 65534}}
		s.f("%d %s: %v", uid, cmd, c.Run() == nil)
	}
	as(1, "echo a > a")
	as(1, "mkdir d")
	for _, cmd := range []string{"echo b > b", "rm -f a", "mv a c", "mv -f b a", "rmdir d", "mv d e", "mv b c", "rm -f c"} {
		as(2, cmd)
	}
	as(1, "mv a c")
	as(1, "rmdir d")
	as(1, "rm c")
	return s.String()
}
