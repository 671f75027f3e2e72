// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"orca/engine/client"
)

// check is one line of `orca admin validate`.
type check struct {
	Name   string `json:"check"`
	State  string `json:"state"` // ok, warning, failed
	Detail string `json:"detail"`
}

const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailed  = "failed"
)

func (e *env) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate", Short: "Check this host and the Orca it uses",
		Long: `Check what this host offers Orca (descriptors, FUSE, privileges, shared memory)
and whether the metaplane, its workers and its stores answer. A warning means
that something works, but not at its best. Exit code 1 if a check failed.`,
		Example: "  orca admin validate",
		Args:    noArgs,
		RunE: e.run(func(cmd *cobra.Command, _ []string) error {
			checks := []check{checkFiles(), checkFuse(), checkAdmin(), checkShm()}
			checks = append(checks, e.checkCluster(cmd.Context())...)
			t := e.table("CHECK", "STATE", "DETAIL")
			failed := false
			for _, c := range checks {
				failed = failed || c.State == checkFailed
				var err error
				if e.json {
					err = e.emit(c)
				} else {
					err = t.row(c.Name, c.State, c.Detail)
				}
				if err != nil {
					return err
				}
			}
			if err := t.flush(); err != nil {
				return err
			}
			if failed {
				return errReported
			}
			return nil
		}),
	}
}

func checkFiles() check {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return check{"descriptors", checkFailed, err.Error()}
	}
	c := check{"descriptors", checkOK, fmt.Sprintf("limit %d", l.Max)}
	if l.Max < 65536 {
		c.State, c.Detail = checkWarning, c.Detail+": a worker wants 65536 or more (ulimit -Hn)"
	}
	return c
}

func checkFuse() check {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return check{"fuse", checkWarning, "no mounts on this host: " + err.Error()}
	}
	_ = f.Close() // only looked at
	return check{"fuse", checkOK, "/dev/fuse can be opened"}
}

// checkAdmin looks for CAP_SYS_ADMIN, which a tmpfs of our own and FUSE
// passthrough need.
func checkAdmin() check {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return check{"privileges", checkFailed, err.Error()}
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return check{"privileges", checkWarning, "no CAP_SYS_ADMIN: the memory tier is a folder in /dev/shm, and mounts have no passthrough"}
	}
	return check{"privileges", checkOK, "CAP_SYS_ADMIN"}
}

func checkShm() check {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil {
		return check{"shared memory", checkWarning, "/dev/shm: " + err.Error()}
	}
	free := int64(st.Bavail) * st.Bsize
	c := check{"shared memory", checkOK, size(free, true) + " free in /dev/shm"}
	if free < 256<<20 {
		c.State = checkWarning
	}
	return c
}

func (e *env) checkCluster(ctx context.Context) []check {
	fs, err := e.open(ctx)
	if err != nil {
		return []check{{"metaplane", checkFailed, message(err)}}
	}
	r, err := fs.Report(ctx)
	if err != nil {
		return []check{{"metaplane", checkFailed, message(err)}}
	}
	out := []check{{"metaplane", checkOK, fmt.Sprintf("%s, version %s", fs.MetaAddress(), r.Version)}}
	live, local := 0, ""
	for _, w := range r.Workers {
		if !w.Live {
			continue
		}
		live++
		if w.Node == fs.Node() {
			local = "; one of them on this node"
		}
		for _, t := range w.Tiers {
			if !t.Healthy {
				out = append(out, check{"tier", checkWarning, fmt.Sprintf("%s on %s has failed and is left out", t.Dir, w.Node)})
			}
		}
	}
	state := checkOK
	if live == 0 {
		state = checkFailed
	}
	out = append(out, check{"workers", state, fmt.Sprintf("%d live%s", live, local)})
	for _, m := range r.Mounts {
		out = append(out, checkMount(ctx, fs, m))
	}
	return out
}

func checkMount(ctx context.Context, fs *client.FS, m *client.Mount) check {
	name := "mount " + m.Path
	if _, err := fs.Stat(ctx, client.Path(m.Path), client.SyncEvery(0)); err != nil {
		return check{name, checkFailed, message(err)}
	}
	return check{name, checkOK, m.Uri}
}
