// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package buildinfo says which build of Orca this is. It refuses to know
// anything at run time but what the linker and the Go tool chain recorded.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

// Version is set by the linker (make build); "dev" otherwise.
var Version = "dev"

// Info describes the build.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Read returns the build's facts; Commit is "" when the build recorded none.
func Read() Info {
	i := Info{Version: Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				i.Commit = s.Value
			}
		}
	}
	return i
}
