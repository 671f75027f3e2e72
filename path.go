// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package orca

import "strings"

// CleanPath returns p in canonical form: absolute, no empty, "." or ".."
// component, no trailing slash but for "/". Any other byte but NUL is legal in
// a name, as in POSIX. It refuses names over MaxName and paths over MaxPath.
func CleanPath(p string) (string, error) {
	const op = "orca.CleanPath"
	if p == "" || p[0] != '/' {
		return "", &Error{Op: op, Path: clip(p), Kind: Invalid, Msg: "path is not absolute"}
	}
	if len(p) > MaxPath {
		return "", &Error{Op: op, Path: clip(p), Kind: NameTooLong, Msg: "path too long"}
	}
	if canonical(p) {
		return p, nil
	}
	var parts []string
	for c := range strings.SplitSeq(p, "/") {
		switch c {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			if err := CheckName(c); err != nil {
				return "", err
			}
			parts = append(parts, c)
		}
	}
	return "/" + strings.Join(parts, "/"), nil
}

// canonical reports whether p needs no cleaning, without allocating.
func canonical(p string) bool {
	if p == "/" {
		return true
	}
	start := 1
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] == 0 {
			return false
		}
		if i < len(p) && p[i] != '/' {
			continue
		}
		c := p[start:i]
		if c == "" || c == "." || c == ".." || len(c) > MaxName {
			return false
		}
		start = i + 1
	}
	return true
}

// CheckName refuses what cannot be a dentry's name.
func CheckName(name string) error {
	const op = "orca.CheckName"
	switch {
	case name == "" || name == "." || name == "..":
		return &Error{Op: op, Path: name, Kind: Invalid, Msg: "reserved name"}
	case len(name) > MaxName:
		return &Error{Op: op, Path: clip(name), Kind: NameTooLong, Msg: "name too long"}
	case strings.ContainsAny(name, "/\x00"):
		return &Error{Op: op, Path: clip(name), Kind: Invalid, Msg: "slash or NUL in a name"}
	}
	return nil
}

// SplitPath splits a clean path into its parent and last name; the name of "/"
// is "".
func SplitPath(p string) (dir, name string) {
	i := strings.LastIndexByte(p, '/')
	if i <= 0 {
		return "/", p[i+1:]
	}
	return p[:i], p[i+1:]
}

// JoinPath joins a clean directory path and a name.
func JoinPath(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

// Under reports whether clean path p is dir or lies below it, and the relative
// path ("" for dir itself).
func Under(dir, p string) (rel string, ok bool) {
	switch {
	case dir == "/":
		return strings.TrimPrefix(p, "/"), true
	case p == dir:
		return "", true
	case strings.HasPrefix(p, dir) && p[len(dir)] == '/':
		return p[len(dir)+1:], true
	}
	return "", false
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:61] + "..."
	}
	return s
}
