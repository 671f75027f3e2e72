// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package capture

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/google/pprof/profile"
)

// Sum is one profile, summed.
type Sum struct {
	Unit  string // "nanoseconds" or "bytes"
	Total int64
	Rooms []Room // largest first
}

// Room is a room of Orca, or the module that is to blame where no frame of
// Orca is on the stack.
type Room struct {
	Name     string // "metaplane", or "go: runtime", "github.com/lni/dragonboat"
	Value    int64
	Packages []Package // largest first; of rooms of Orca only
}

// Package is one package of a room.
type Package struct {
	Name  string // without the leading "orca/"
	Value int64
}

// PerRoom sums the samples of one type. A sample counts for the package of the
// innermost frame of Orca on its stack: what a room spends in the kernel, in
// the Go runtime or in an engine that it calls is its own. Stacks without a
// frame of Orca count for their innermost module, or for the Go package.
func PerRoom(p *profile.Profile, sampleType string) (Sum, error) {
	at := slices.IndexFunc(p.SampleType, func(t *profile.ValueType) bool { return t.Type == sampleType })
	if at < 0 {
		return Sum{}, fmt.Errorf("the profile has no values of type %s", sampleType)
	}
	sum := Sum{Unit: p.SampleType[at].Unit}
	byRoom := map[string]int64{}
	byPackage := map[string]map[string]int64{}
	for _, s := range p.Sample {
		room, pkg := blame(s)
		sum.Total += s.Value[at]
		byRoom[room] += s.Value[at]
		if pkg != "" {
			if byPackage[room] == nil {
				byPackage[room] = map[string]int64{}
			}
			byPackage[room][pkg] += s.Value[at]
		}
	}
	for name, v := range byRoom {
		r := Room{Name: name, Value: v}
		for pkg, v := range byPackage[name] {
			r.Packages = append(r.Packages, Package{pkg, v})
		}
		slices.SortFunc(r.Packages, func(a, b Package) int {
			return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
		})
		sum.Rooms = append(sum.Rooms, r)
	}
	slices.SortFunc(sum.Rooms, func(a, b Room) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
	})
	return sum, nil
}

// blame returns whom a sample counts for; pkg is "" outside of Orca.
func blame(s *profile.Sample) (room, pkg string) {
	foreign, gopkg := "", ""
	for _, loc := range s.Location { // innermost first
		for _, line := range loc.Line {
			if line.Function == nil {
				continue
			}
			path := packageOf(line.Function.Name)
			rest, ours := strings.CutPrefix(path, "orca/")
			switch {
			case path == "orca":
				return "orca", "orca"
			case ours:
				room, _, _ = strings.Cut(rest, "/")
				return room, rest
			case foreign == "" && strings.Contains(strings.SplitN(path, "/", 2)[0], "."):
				foreign = module(path)
			case gopkg == "" && path != "":
				gopkg = "go: " + path
			}
		}
	}
	return cmp.Or(foreign, gopkg, "unknown"), ""
}

// packageOf cuts the package path out of a symbol such as
// "orca/metaplane/fsm.(*Machine).Apply"; dots in an element but the last are
// part of the path, and the linker writes those of the last as %2e.
func packageOf(symbol string) string {
	if i := strings.IndexByte(symbol, '['); i >= 0 {
		symbol = symbol[:i] // type arguments have paths of their own
	}
	slash := strings.LastIndexByte(symbol, '/') + 1
	name, _, _ := strings.Cut(symbol[slash:], ".")
	return strings.ReplaceAll(symbol[:slash]+name, "%2e", ".")
}

// module shortens a package path to its first three elements.
func module(path string) string {
	parts := strings.SplitN(path, "/", 4)
	return strings.Join(parts[:min(3, len(parts))], "/")
}

// WriteTable prints CPU and allocations of each source per room.
func WriteTable(w io.Writer, taken []Taken) error {
	for _, t := range taken {
		cores := float64(t.CPU.Total) / float64(t.Window.Nanoseconds())
		fmt.Fprintf(w, "profile of %s over %s: %.2f cores busy, %s allocated\n", t.Source, t.Window, cores, humanize.IBytes(uint64(max(0, t.Allocs.Total))))
		allocs := map[string]int64{}
		for _, r := range t.Allocs.Rooms {
			allocs[r.Name] = r.Value
			for _, p := range r.Packages {
				allocs[r.Name+"\x00"+p.Name] = p.Value
			}
		}
		rooms := t.CPU.Rooms
		for _, r := range t.Allocs.Rooms { // those that only allocated
			if !slices.ContainsFunc(rooms, func(o Room) bool { return o.Name == r.Name }) {
				rooms = append(slices.Clip(rooms), Room{Name: r.Name})
			}
		}
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "  ROOM\tPACKAGE\tCPU\tCPU %\tALLOCATED\tALLOC %")
		othersCPU, othersBytes := int64(0), int64(0)
		for _, r := range rooms {
			if len(r.Packages) == 0 && percent(r.Value, t.CPU.Total) < small && percent(allocs[r.Name], t.Allocs.Total) < small {
				othersCPU, othersBytes = othersCPU+r.Value, othersBytes+allocs[r.Name]
				continue
			}
			writeRow(tw, t, r.Name, "", r.Value, allocs[r.Name])
			for _, p := range r.Packages {
				writeRow(tw, t, "", p.Name, p.Value, allocs[r.Name+"\x00"+p.Name])
			}
		}
		if othersCPU > 0 || othersBytes > 0 {
			writeRow(tw, t, "others", "", othersCPU, othersBytes)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// small is the share in percent below which what is not of Orca is summed as
// "others".
const small = 1

func percent(v, of int64) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(v) / float64(of)
}

func writeRow(w io.Writer, t Taken, room, pkg string, cpu, bytes int64) {
	fmt.Fprintf(w, "  %s\t%s\t%.2fs\t%.1f\t%s\t%.1f\n", room, pkg, float64(cpu)/1e9, percent(cpu, t.CPU.Total), humanize.IBytes(uint64(max(0, bytes))), percent(bytes, t.Allocs.Total))
}
