// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package facts reads the facts that a benchmark figure means nothing
// without: processor, memory, kernel, file systems, load and build. It only
// reads /proc and the build record; what cannot be read is left empty, never
// guessed.
package facts

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"orca/engine/buildinfo"
)

// Machine describes the machine and the build of one run.
type Machine struct {
	Started     string            `json:"started"` // RFC 3339
	CPU         string            `json:"cpu"`
	Cores       int               `json:"cores"`
	MemoryBytes int64             `json:"memory_bytes"`
	Kernel      string            `json:"kernel"`
	OS          string            `json:"os"`
	Arch        string            `json:"arch"`
	Filesystems map[string]string `json:"filesystems"`  // role → type and options
	LoadAverage [3]float64        `json:"load_average"` // at the start of the run
	LoadEnd     [3]float64        `json:"load_average_end"`
	Go          string            `json:"go"`
	Version     string            `json:"version"`
	Commit      string            `json:"commit"`
	Command     string            `json:"command"`
	Config      map[string]string `json:"config"` // flags of the run and of the servers
}

// Read returns the facts at now. Filesystems and Config are empty, not nil.
func Read(now time.Time, command string) Machine {
	b := buildinfo.Read()
	return Machine{
		Started: now.UTC().Format(time.RFC3339),
		CPU:     cpuModel("/proc/cpuinfo"), Cores: runtime.NumCPU(), MemoryBytes: memTotal("/proc/meminfo"),
		Kernel: kernel(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Filesystems: map[string]string{}, LoadAverage: Load(),
		Go: b.Go, Version: b.Version, Commit: b.Commit,
		Command: command, Config: map[string]string{},
	}
}

// Load returns the load averages of 1, 5 and 15 minutes.
func Load() (l [3]float64) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return l
	}
	f := strings.Fields(string(b))
	for i := range min(len(f), len(l)) {
		l[i], _ = strconv.ParseFloat(f[i], 64)
	}
	return l
}

// Filesystem returns type and options of the file system that holds path, such
// as "tmpfs rw,huge=advise".
func Filesystem(path string) (string, error) {
	m, err := mountOf(path)
	if err != nil {
		return "", err
	}
	return m.FSType + " " + m.VFSOptions, nil
}

// Mount returns type and the options of the superblock that holds path.
func Mount(path string) (fsType, options string, err error) {
	m, err := mountOf(path)
	if err != nil {
		return "", "", err
	}
	return m.FSType, m.VFSOptions, nil
}

func mountOf(path string) (*mountinfo.Info, error) {
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	if p, err = filepath.Abs(p); err != nil {
		return nil, err
	}
	infos, err := mountinfo.GetMounts(mountinfo.ParentsFilter(p))
	if err != nil {
		return nil, err
	}
	var best *mountinfo.Info
	for _, m := range infos {
		if best == nil || len(m.Mountpoint) >= len(best.Mountpoint) {
			best = m // of equal ones the later lies on top
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no mount holds %s", p)
	}
	return best, nil
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpuModel(file string) string { return field(file, "model name") }

func memTotal(file string) int64 {
	kb, _, _ := strings.Cut(field(file, "MemTotal"), " ")
	n, _ := strconv.ParseInt(kb, 10, 64)
	return n << 10
}

// field returns the value of the first "name : value" line of a /proc file.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// AnonMemory returns the bytes of memory of its own that a process has in
// RAM: heaps and stacks, not files and shared memory.
func AnonMemory(pid int) (int64, error) { return memory(pid, "RssAnon") }

// Resident returns the bytes that a process has in RAM, and the most that it
// ever had.
func Resident(pid int) (now, peak int64, err error) {
	if now, err = memory(pid, "VmRSS"); err == nil {
		peak, err = memory(pid, "VmHWM")
	}
	return now, peak, err
}

func memory(pid int, name string) (int64, error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	kb, unit, _ := strings.Cut(field(file, name), " ")
	n, err := strconv.ParseInt(kb, 10, 64)
	if err != nil || unit != "kB" {
		return 0, fmt.Errorf("no %s in %s", name, file)
	}
	return n << 10, nil
}

// CPUTime returns the CPU time, user and system, that all threads of a process
// have used so far, dead ones included. It reads the process's own CPU clock
// (clock_getcpuclockid(3)), to the nanosecond.
func CPUTime(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED: what the scheduler has accounted
	id := int32(^uint32(pid))<<3 | schedClock
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}
