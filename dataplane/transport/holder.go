// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package transport

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process that listens on addr, as " (held by name, pid N)",
// or returns "" when /proc does not show it (another user's process).
func holder(network, addr string) string {
	inode := ""
	if strings.HasPrefix(network, "unix") {
		inode = unixInode(addr)
	} else if _, port, err := net.SplitHostPort(addr); err == nil {
		if n, err := net.LookupPort("tcp", port); err == nil {
			inode = tcpInode(n)
		}
	}
	if inode == "" {
		return ""
	}
	pid := socketOwner("socket:[" + inode + "]")
	if pid == "" {
		return " (its holder is a process of another user)"
	}
	name, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return " (held by pid " + pid + ")"
	}
	return fmt.Sprintf(" (held by %s, pid %s)", bytes.TrimSpace(name), pid)
}

// tcpInode finds the inode of the socket that listens on port.
func tcpInode(port int) string {
	want := fmt.Sprintf(":%04X", port)
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		found := ""
		eachLine(file, func(f []string) bool {
			// sl local rem st(0A: listening) queues timer retrnsmt uid timeout inode
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], want) {
				found = f[9]
			}
			return found == ""
		})
		if found != "" {
			return found
		}
	}
	return ""
}

// unixInode finds the inode of the socket bound to path.
func unixInode(path string) (found string) {
	eachLine("/proc/net/unix", func(f []string) bool {
		// num refcount protocol flags(__SO_ACCEPTCON) type st inode path
		if len(f) > 7 && f[3] == "00010000" && f[7] == path {
			found = f[6]
		}
		return found == ""
	})
	return found
}

func eachLine(file string, fn func(fields []string) bool) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if !fn(strings.Fields(sc.Text())) {
			return
		}
	}
}

// socketOwner finds the pid of a process that has link among its descriptors.
func socketOwner(link string) string {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		fds, err := os.ReadDir(p + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if l, err := os.Readlink(p + "/fd/" + fd.Name()); err == nil && l == link {
				if pid := filepath.Base(p); isNumber(pid) {
					return pid
				}
			}
		}
	}
	return ""
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}
