// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func behaveCreateAndReadBack(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("write", os.WriteFile(p, []byte("hello"), 0o640))
	s.content(p)
	s.stat(p)
	s.err("again", os.WriteFile(p, []byte("hi"), 0o600))
	s.content(p)
	s.stat(p)
	return s.String()
}

func behaveEmptyFile(d string, _ int) string {
	var s say
	f, err := os.Create(d + "/f")
	s.err("create", err)
	s.err("close", f.Close())
	s.stat(d + "/f")
	s.content(d + "/f")
	s.err("again", os.WriteFile(d+"/f", []byte("x"), 0o600))
	s.err("trunc", os.WriteFile(d+"/f", nil, 0o600))
	s.content(d + "/f")
	return s.String()
}

func behaveAppend(d string, _ int) string {
	var s say
	p := d + "/f"
	for i := range 3 {
		f, err := os.OpenFile(p, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		s.err("open", err)
		_, err = fmt.Fprintf(f, "line %d\n", i)
		s.err("write", err)
		s.err("close", f.Close())
		s.content(p)
	}
	f, err := os.OpenFile(p, os.O_APPEND|os.O_RDWR, 0)
	s.err("open rw", err)
	_, err = f.WriteString("end\n")
	s.err("write", err)
	b := make([]byte, 6)
	_, err = f.ReadAt(b, 0)
	s.err("read", err)
	s.f("%q", b)
	s.err("close", f.Close())
	s.content(p)
	return s.String()
}

func behaveRandomWriteInPlace(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("write", os.WriteFile(p, bytes.Repeat([]byte("abcdefgh"), 40000), 0o644))
	for _, flag := range []int{os.O_RDWR, os.O_WRONLY} {
		f, err := os.OpenFile(p, flag, 0)
		s.err("open", err)
		_, err = f.WriteAt([]byte("XYZ"), 12345)
		s.err("write", err)
		_, err = f.WriteAt([]byte("TAIL"), 319998)
		s.err("write", err)
		s.stat(p)
		s.content(p)
		s.err("close", f.Close())
		s.content(p)
	}
	return s.String()
}

func behaveTruncate(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("write", os.WriteFile(p, []byte("0123456789"), 0o644))
	s.err("shrink", os.Truncate(p, 4))
	s.content(p)
	s.err("grow", os.Truncate(p, 8))
	s.content(p)
	f, err := os.OpenFile(p, os.O_RDWR, 0)
	s.err("open", err)
	s.err("ftruncate", f.Truncate(2))
	s.stat(p)
	_, err = f.WriteAt([]byte("Z"), 5)
	s.err("write", err)
	s.err("close", f.Close())
	s.content(p)
	s.err("zero", os.Truncate(p, 0))
	s.content(p)
	s.err("missing", os.Truncate(d+"/none", 0))
	return s.String()
}

func behaveOddOpens(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("w", os.WriteFile(p, []byte("0123456789"), 0o644))
	f, err := os.OpenFile(p, os.O_RDONLY|os.O_TRUNC, 0)
	s.err("read-only truncate", err)
	f.Close()
	s.content(p)
	f, err = os.OpenFile(d+"/none", os.O_CREATE|os.O_WRONLY, 0)
	s.err("mode 0", err)
	_, _ = f.WriteString("x")
	s.err("close", f.Close())
	s.stat(d + "/none")
	f, err = os.OpenFile(d+"/ro", os.O_CREATE|os.O_RDONLY, 0o600)
	s.err("create read-only", err)
	_, err = f.Read(make([]byte, 1))
	s.f("%v", err)
	f.Close()
	s.stat(d + "/ro")
	return s.String()
}

func behaveRename(d string, _ int) string {
	var s say
	s.err("w", os.WriteFile(d+"/a", []byte("A"), 0o644))
	s.err("w", os.WriteFile(d+"/b", []byte("B"), 0o644))
	s.content(d + "/b")
	s.err("over", os.Rename(d+"/a", d+"/b"))
	s.stat(d + "/a")
	s.content(d + "/b")
	s.err("noreplace", unix.Renameat2(unix.AT_FDCWD, d+"/b", unix.AT_FDCWD, d+"/b2", unix.RENAME_NOREPLACE))
	s.err("w", os.WriteFile(d+"/c", []byte("C"), 0o644))
	s.err("noreplace", unix.Renameat2(unix.AT_FDCWD, d+"/b2", unix.AT_FDCWD, d+"/c", unix.RENAME_NOREPLACE))
	s.err("mkdir", os.Mkdir(d+"/dir", 0o755))
	s.err("into", os.Rename(d+"/c", d+"/dir/c"))
	s.content(d + "/dir/c")
	s.err("file over dir", os.Rename(d+"/b2", d+"/dir"))
	s.err("dir over file", os.Rename(d+"/dir", d+"/b2"))
	s.err("mkdir", os.Mkdir(d+"/full", 0o755))
	s.err("w", os.WriteFile(d+"/full/x", nil, 0o644))
	s.err("dir over full dir", unix.Rename(d+"/dir", d+"/full"))
	s.err("rm", os.Remove(d+"/full/x"))
	s.err("dir over empty dir", unix.Rename(d+"/dir", d+"/full"))
	s.content(d + "/full/c")
	s.err("missing", unix.Rename(d+"/none", d+"/x"))
	return s.String()
}

func behaveRenameWhileOpen(d string, _ int) string {
	var s say
	f, err := os.Create(d + "/tmp")
	s.err("create", err)
	_, err = f.WriteString("one ")
	s.err("write", err)
	s.err("rename", os.Rename(d+"/tmp", d+"/final"))
	_, err = f.WriteString("two")
	s.err("write", err)
	s.err("close", f.Close())
	s.stat(d + "/tmp")
	s.content(d + "/final")
	g, err := os.OpenFile(d+"/final", os.O_WRONLY, 0)
	s.err("open", err)
	_, err = g.WriteString("ONE")
	s.err("write", err)
	s.err("w", os.WriteFile(d+"/new", []byte("new"), 0o644))
	s.err("rename over", os.Rename(d+"/new", d+"/final"))
	s.err("close", g.Close())
	s.content(d + "/final")
	return s.String()
}

func behaveUnlinkWhileOpen(d string, _ int) string {
	var s say
	p := d + "/f"
	f, err := os.OpenFile(p, os.O_CREATE|os.O_RDWR, 0o644)
	s.err("create", err)
	_, err = f.WriteString("before")
	s.err("write", err)
	s.err("unlink", os.Remove(p))
	s.stat(p)
	_, err = f.WriteString(" after")
	s.err("write", err)
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	s.f("%q %v", b[:n], err)
	st, err := f.Stat()
	s.err("fstat", err)
	s.f("size %d nlink %d", st.Size(), st.Sys().(*syscall.Stat_t).Nlink)
	s.err("close", f.Close())
	s.stat(p)
	s.err("write", os.WriteFile(p, bytes.Repeat([]byte("0123456789"), 30000), 0o644))
	g, err := os.Open(p)
	s.err("open", err)
	s.err("unlink", os.Remove(p))
	all, err := io.ReadAll(g)
	s.err("read", err)
	s.f("%d %x", len(all), sha256.Sum256(all))
	_, err = g.Stat()
	s.err("fstat", err)
	s.err("close", g.Close())
	return s.String()
}

func behaveRemovedAfterItsCreatorHasGone(d string, _ int) string {
	var s say
	for _, replace := range []bool{false, true} {
		p := fmt.Sprintf("%s/f%v", d, replace)
		f, err := os.Create(p)
		s.err("create", err)
		_, err = f.Write(bytes.Repeat([]byte("0123456789"), 10000))
		s.err("write", err)
		g, err := os.Open(p)
		s.err("open", err)
		s.err("close", f.Close())
		s.content(p)
		if replace {
			s.err("w", os.WriteFile(d+"/new", []byte("new"), 0o644))
			s.err("rename", os.Rename(d+"/new", p))
		} else {
			s.err("unlink", os.Remove(p))
		}
		st, err := g.Stat()
		s.err("fstat", err)
		s.f("size %d nlink %d", st.Size(), st.Sys().(*syscall.Stat_t).Nlink)
		b, err := unix.Mmap(int(g.Fd()), 0, 100_000, unix.PROT_READ, unix.MAP_PRIVATE)
		s.err("mmap", err)
		s.f("%x", sha256.Sum256(b))
		s.err("munmap", unix.Munmap(b))
		all, err := io.ReadAll(g)
		s.err("read", err)
		s.f("%d %x", len(all), sha256.Sum256(all))
		s.err("close", g.Close())
	}
	return s.String()
}

func behaveExclusiveCreate(d string, _ int) string {
	var s say
	f, err := os.OpenFile(d+"/f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	s.err("first", err)
	_, err = os.OpenFile(d+"/f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	s.err("second, while open", err)
	s.err("close", f.Close())
	_, err = os.OpenFile(d+"/f", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	s.err("third", err)
	return s.String()
}

func behaveDirectories(d string, _ int) string {
	var s say
	s.err("mkdir", os.Mkdir(d+"/x", 0o750))
	s.stat(d + "/x")
	s.err("again", os.Mkdir(d+"/x", 0o750))
	s.err("all", os.MkdirAll(d+"/x/y/z", 0o755))
	s.err("rmdir full", unix.Rmdir(d+"/x"))
	s.err("unlink dir", unix.Unlink(d+"/x"))
	s.err("rmdir", unix.Rmdir(d+"/x/y/z"))
	s.err("w", os.WriteFile(d+"/file", nil, 0o644))
	s.err("rmdir file", unix.Rmdir(d+"/file"))
	s.err("below file", os.Mkdir(d+"/file/x", 0o755))
	s.err("rmdir missing", unix.Rmdir(d+"/none"))
	_, err := os.ReadDir(d + "/file")
	s.err("readdir file", err)
	s.err("open dir for writing", func() error { _, err := os.OpenFile(d+"/x", os.O_WRONLY, 0); return err }())
	s.err("chdir", os.Chdir(d+"/x/y"))
	wd, err := unix.Getwd()
	s.err("getcwd", err)
	s.f("%v", wd == d+"/x/y")
	s.err("back", os.Chdir("/"))
	s.err("long name", os.Mkdir(d+"/"+strings.Repeat("n", 256), 0o755))
	return s.String()
}

func behaveCwdInANewDirectory(d string, _ int) string {
	var s say
	s.err("mkdir", os.Mkdir(d+"/work", 0o755))
	cmd := exec.Command("sh", "-c", "sleep 0.3; mkdir sub && cd sub && sleep 0.2 && /bin/pwd -P | tail -c 10 && echo x > y && cat ../sub/y")
	cmd.Dir = d + "/work"
	out, err := cmd.CombinedOutput()
	s.err("sh", err)
	s.f("%s", out)
	return s.String()
}

func behaveManyNames(d string, names int) string {
	var s say
	for i := range names {
		if err := os.WriteFile(fmt.Sprintf("%s/f%04d", d, i), nil, 0o644); err != nil {
			s.err("create", err)
		}
	}
	es, err := os.ReadDir(d)
	s.err("readdir", err)
	seen := map[string]bool{}
	for _, e := range es {
		seen[e.Name()] = e.Type().IsRegular()
	}
	s.f("%d %d", len(es), len(seen))
	f, err := os.Open(d)
	s.err("open", err)
	var got []string
	for {
		part, err := f.Readdirnames(777)
		got = append(got, part...)
		if err != nil {
			break
		}
	}
	sort.Strings(got)
	s.f("%d %x", len(got), sha256.Sum256([]byte(strings.Join(got, "/"))))
	_, err = f.Seek(0, io.SeekStart)
	s.err("rewind", err)
	part, _ := f.Readdirnames(-1)
	s.f("%d", len(part))
	f.Close()
	for i := 0; i < names; i += 2 {
		if err := os.Remove(fmt.Sprintf("%s/f%04d", d, i)); err != nil {
			s.err("rm", err)
		}
	}
	es, err = os.ReadDir(d)
	s.err("readdir", err)
	s.f("%d", len(es))
	return s.String()
}

func behaveRemovingWhileListing(d string, names int) string {
	var s say
	for i := range names / 2 {
		if err := os.WriteFile(fmt.Sprintf("%s/f%04d", d, i), nil, 0o644); err != nil {
			s.err("create", err)
		}
	}
	out, err := exec.Command("sh", "-c", "cd '"+d+"' && rm -rf f* && ls | wc -l").CombinedOutput()
	s.err("sh", err)
	s.f("%s", strings.TrimSpace(string(out)))
	return s.String()
}

func behaveTimes(d string, _ int) string {
	var s say
	p := d + "/f"
	at, mt := time.Unix(1e9, 5000), time.Unix(1.5e9, 123456000)
	s.err("w", os.WriteFile(p, []byte("x"), 0o644))
	s.err("utimens", os.Chtimes(p, at, mt))
	st, _ := os.Stat(p)
	s.f("%v", st.ModTime().Equal(mt))
	f, err := os.OpenFile(p, os.O_WRONLY, 0)
	s.err("open", err)
	_, err = f.WriteString("y")
	s.err("write", err)
	s.err("futimens", unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 5}, {Sec: 7}}))
	st, _ = f.Stat()
	s.f("%d", st.ModTime().Unix())
	s.err("close", f.Close())
	st, _ = os.Stat(p)
	s.f("after close %d", st.ModTime().Unix())
	f, _ = os.OpenFile(p, os.O_WRONLY, 0)
	s.err("close unwritten", f.Close())
	st, _ = os.Stat(p)
	s.f("unwritten %d", st.ModTime().Unix())
	f, _ = os.OpenFile(p, os.O_WRONLY, 0)
	s.err("futimens", unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 5}, {Sec: 7}}))
	_, err = f.WriteString("z")
	s.err("write after", err)
	s.err("close", f.Close())
	st, _ = os.Stat(p)
	s.f("recent %v", time.Since(st.ModTime()) < time.Minute)
	return s.String()
}

func behaveModesAndOwners(d string, _ int) string {
	var s say
	p := d + "/f"
	f, err := os.Create(p)
	s.err("create", err)
	s.err("fchmod new", f.Chmod(0o600))
	s.err("fchown new", f.Chown(12, 34))
	_, _ = f.WriteString("x")
	s.stat(p)
	s.err("close", f.Close())
	s.stat(p)
	var st unix.Stat_t
	_ = unix.Stat(p, &st)
	s.f("%d %d", st.Uid, st.Gid)
	s.err("chmod", os.Chmod(p, 0o4711))
	s.stat(p)
	s.err("chown", os.Chown(p, 1, 2))
	_ = unix.Stat(p, &st)
	s.f("%d %d", st.Uid, st.Gid)
	s.err("mkdir", os.Mkdir(d+"/t", 0o755))
	s.err("chmod", unix.Chmod(d+"/t", 0o1777))
	s.stat(d + "/t")
	return s.String()
}

func behavePermission(d string, _ int) string {
	var s say
	s.err("chmod", os.Chmod(d, 0o755))
	s.err("w", os.WriteFile(d+"/secret", []byte("x"), 0o600))
	s.err("w", os.WriteFile(d+"/open", []byte("x"), 0o644))
	s.err("mkdir", os.Mkdir(d+"/closed", 0o700))
	s.err("w", os.WriteFile(d+"/closed/f", []byte("x"), 0o644))
	s.err("w", os.WriteFile(d+"/group", []byte("x"), 0o640))
	s.err("chgrp", os.Chown(d+"/group", 0, 4321))
	for _, cmd := range []string{"cat secret", "cat open", "cat closed/f", "echo y > open", "touch new", "rm open", "cat group"} {
		c := exec.Command("sh", "-c", "cd '"+d+"' && "+cmd+" >/dev/null 2>&1")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{4321}}}
		s.f("%s: %v", cmd, c.Run() == nil)
	}
	return s.String()
}

func behaveSymbolicLinks(d string, _ int) string {
	var s say
	s.err("w", os.WriteFile(d+"/f", []byte("x"), 0o644))
	s.err("symlink", os.Symlink("f", d+"/l"))
	s.stat(d + "/l")
	t, err := os.Readlink(d + "/l")
	s.err("readlink", err)
	s.f("%s", t)
	s.content(d + "/l")
	s.err("again", os.Symlink("g", d+"/l"))
	_, err = os.Readlink(d + "/f")
	s.err("readlink file", err)
	s.err("dangling", os.Symlink("nowhere", d+"/d"))
	_, err = os.Stat(d + "/d")
	s.err("stat", err)
	s.err("through", os.WriteFile(d+"/l", []byte("yy"), 0o644))
	s.content(d + "/f")
	s.err("rm", os.Remove(d+"/l"))
	s.content(d + "/f")
	return s.String()
}

func behaveExtendedAttributes(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("w", os.WriteFile(p, []byte("x"), 0o644))
	s.err("set", unix.Setxattr(p, "user.a", []byte("value"), 0))
	s.err("create", unix.Setxattr(p, "user.a", []byte("v"), unix.XATTR_CREATE))
	s.err("replace", unix.Setxattr(p, "user.b", []byte("v"), unix.XATTR_REPLACE))
	b := make([]byte, 100)
	n, err := unix.Getxattr(p, "user.a", b)
	s.err("get", err)
	s.f("%q", b[:max(n, 0)])
	n, err = unix.Getxattr(p, "user.a", nil)
	s.err("size", err)
	s.f("%d", n)
	_, err = unix.Getxattr(p, "user.a", make([]byte, 2))
	s.err("short", err)
	_, err = unix.Getxattr(p, "user.none", b)
	s.err("none", err)
	n, err = unix.Listxattr(p, b)
	s.err("list", err)
	s.f("%v", strings.Contains(string(b[:max(n, 0)]), "user.a\x00"))
	s.err("remove", unix.Removexattr(p, "user.a"))
	s.err("remove", unix.Removexattr(p, "user.a"))
	return s.String()
}

func behaveMmap(d string, _ int) string {
	var s say
	p := d + "/f"
	s.err("w", os.WriteFile(p, bytes.Repeat([]byte("0123456789abcdef"), 4096), 0o644))
	f, err := os.Open(p)
	s.err("open", err)
	b, err := unix.Mmap(int(f.Fd()), 0, 65536, unix.PROT_READ, unix.MAP_SHARED)
	s.err("mmap", err)
	s.f("%x", sha256.Sum256(b))
	s.err("munmap", unix.Munmap(b))
	f.Close()
	f, err = os.OpenFile(p, os.O_RDWR, 0)
	s.err("open", err)
	b, err = unix.Mmap(int(f.Fd()), 0, 65536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.err("mmap", err)
	s.err("close before write", f.Close())
	copy(b[30000:], "written through the mapping")
	s.err("munmap", unix.Munmap(b))
	got, err := os.ReadFile(p)
	s.err("read", err)
	s.f("%q", got[29990:30040])
	f, err = os.OpenFile(d+"/new", os.O_RDWR|os.O_CREATE, 0o644)
	s.err("create", err)
	s.err("truncate", f.Truncate(10000))
	b, err = unix.Mmap(int(f.Fd()), 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.err("mmap", err)
	copy(b[9000:], "tail")
	s.err("msync", unix.Msync(b, unix.MS_SYNC))
	s.err("munmap", unix.Munmap(b))
	s.err("close", f.Close())
	s.content(d + "/new")
	return s.String()
}

func behaveSparse(d string, _ int) string {
	var s say
	f, err := os.Create(d + "/f")
	s.err("create", err)
	_, err = f.WriteAt([]byte("end"), 5<<20)
	s.err("write", err)
	s.err("close", f.Close())
	s.content(d + "/f")
	s.stat(d + "/f")
	f, err = os.OpenFile(d+"/f", os.O_RDWR, 0)
	s.err("open", err)
	s.err("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, 6<<20))
	s.err("close", f.Close())
	s.stat(d + "/f")
	return s.String()
}

func behaveReadersSeeWhatAWriterHasWritten(d string, _ int) string {
	var s say
	for _, flag := range []int{os.O_WRONLY, os.O_RDWR} {
		p := fmt.Sprintf("%s/f%d", d, flag)
		f, err := os.OpenFile(p, os.O_CREATE|flag, 0o644)
		s.err("create", err)
		_, _ = f.WriteString("first")
		s.content(p)
		s.stat(p)
		r, err := os.Open(p)
		s.err("open", err)
		_, _ = f.WriteString(" second")
		b, err := io.ReadAll(r)
		s.err("read", err)
		s.f("%q", b)
		s.err("close", f.Close())
		_, _ = r.Seek(0, io.SeekStart)
		b, _ = io.ReadAll(r)
		s.f("%q", b)
		g, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
		s.err("append", err)
		_, _ = g.WriteString(" third")
		s.err("close", g.Close())
		s.content(p)
		r.Close()
		s.content(p)
	}
	return s.String()
}

func behaveDuplicatedDescriptors(d string, _ int) string {
	var s say
	out, err := exec.Command("sh", "-c", "cd '"+d+"' && { echo one; (echo two); sh -c 'echo three'; } > f && cat f && echo four >> f && cat f && cp f g && cmp f g && wc -c < g").CombinedOutput()
	s.err("sh", err)
	s.f("%s", out)
	f, _ := os.Create(d + "/dup")
	fd, err := unix.Dup(int(f.Fd()))
	s.err("dup", err)
	_, _ = f.WriteString("a")
	s.err("close", f.Close())
	_, err = unix.Write(fd, []byte("b"))
	s.err("write", err)
	s.err("close", unix.Close(fd))
	s.content(d + "/dup")
	return s.String()
}

func behaveRefusals(d string, _ int) string {
	var s say
	_, err := os.Open(d + "/none")
	s.err("open", err)
	s.err("unlink", os.Remove(d+"/none"))
	s.err("w", os.WriteFile(d+"/f", nil, 0o644))
	_, err = os.Open(d + "/f/x")
	s.err("below file", err)
	f, _ := os.Open(d + "/f")
	_, err = f.WriteString("x")
	s.err("write read-only handle", err)
	f.Close()
	f, _ = os.OpenFile(d+"/f", os.O_WRONLY, 0)
	_, err = f.Read(make([]byte, 1))
	s.err("read write-only handle", err)
	f.Close()
	s.err("mknod", unix.Mknod(d+"/n", unix.S_IFREG|0o600, 0))
	s.stat(d + "/n")
	return s.String()
}

func behaveLocks(d string, _ int) string {
	var s say
	f, _ := os.Create(d + "/f")
	g, _ := os.Open(d + "/f")
	s.err("flock", unix.Flock(int(f.Fd()), unix.LOCK_EX))
	s.err("flock", unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	s.err("fcntl", unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	f.Close()
	s.err("flock", unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	g.Close()
	return s.String()
}

func behaveReplacedUnderReaders(d string, _ int) string {
	const size = 64 << 10
	page := func(c byte) []byte { return bytes.Repeat([]byte{c}, size) }
	var s say
	s.err("w", os.WriteFile(d+"/f", page('a'), 0o644))
	var wg sync.WaitGroup
	var mu sync.Mutex
	bad := map[string]bool{}
	note := func(what string, err error) bool {
		if err != nil {
			mu.Lock()
			bad[what+": "+err.Error()] = true
			mu.Unlock()
		}
		return err == nil
	}
	stop := time.Now().Add(700 * time.Millisecond)
	for i := range 2 {
		wg.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				tmp := fmt.Sprintf("%s/tmp%d", d, i)
				note("write", os.WriteFile(tmp, page(byte('a'+n%20)), 0o644))
				note("rename", os.Rename(tmp, d+"/f"))
			}
		})
		wg.Go(func() {
			for time.Now().Before(stop) {
				b, err := os.ReadFile(d + "/f")
				if note("read", err) && (len(b) != size || bytes.Count(b, b[:1]) != size) {
					note("read", fmt.Errorf("a mix of versions"))
				}
			}
		})
		wg.Go(func() {
			for time.Now().Before(stop) {
				f, err := os.Open(d + "/f")
				if !note("open", err) {
					continue
				}
				b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
				f.Close()
				if note("mmap", err) {
					if bytes.Count(b, b[:1]) != size {
						note("mmap", fmt.Errorf("a mix of versions"))
					}
					_ = unix.Munmap(b)
				}
			}
		})
	}
	wg.Wait()
	for k := range bad {
		s.f("%s", k)
	}
	return s.String()
}

func behaveConcurrentOpensOfOneFile(d string, _ int) string {
	var s say
	p := d + "/f"
	old, new := bytes.Repeat([]byte("o"), 100_000), bytes.Repeat([]byte("n"), 100_000)
	s.err("w", os.WriteFile(p, old, 0o644))
	var wg sync.WaitGroup
	var mu sync.Mutex
	bad := map[string]bool{}
	for i := range 4 {
		wg.Go(func() {
			for j := range 30 {
				if i == 0 && j%3 == 0 {
					// Whole-file replacement in place.
					f, err := os.OpenFile(p, os.O_WRONLY, 0)
					if err == nil {
						_, err = f.WriteAt([][]byte{old, new}[j%2], 0)
						err = errors.Join(err, f.Close())
					}
					if err != nil {
						mu.Lock()
						bad["write: "+err.Error()] = true
						mu.Unlock()
					}
					continue
				}
				b, err := os.ReadFile(p)
				if err == nil && len(b) != len(old) {
					err = fmt.Errorf("%d bytes", len(b))
				}
				if err != nil {
					mu.Lock()
					bad["read: "+err.Error()] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for k := range bad {
		s.f("%s", k)
	}
	return s.String()
}
