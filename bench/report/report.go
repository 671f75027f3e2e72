// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package report is the form of a result: the JSON that programs read and the
// table that people read. Both show the same rows; neither computes anything.
//
// The JSON is one object, {"schema":1,"machine":{…},"results":[…]}, with one
// row per case. Names of suites, cases and metrics are stable and larger is
// always better. A row that failed has an error, null figures, and makes the
// run fail: there is no figure that stands for "we could not measure it".
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"orca/bench/facts"
	"orca/bench/hist"
	"orca/bench/ratio"
)

// Schema is the version of the JSON; a change that breaks a reader raises it.
const Schema = 1

// Report is one run.
type Report struct {
	Schema  int           `json:"schema"`
	Machine facts.Machine `json:"machine"`
	Results []Row         `json:"results"`
}

// Row is the result of one case. The figures are nil exactly when Error is set.
type Row struct {
	Suite         string   `json:"suite"`
	Case          string   `json:"case"`
	Metric        string   `json:"metric"`
	Unit          string   `json:"unit"`
	Value         *float64 `json:"value"`
	BaselineName  string   `json:"baseline_name"`
	BaselineValue *float64 `json:"baseline_value"`
	Ratio         *float64 `json:"ratio"`
	Samples       []Sample `json:"samples"`
	Error         string   `json:"error,omitempty"`

	// spread of Ratio, for the table; a reader of the JSON has the samples.
	low, high, min, max float64
}

// Sample is one pair: what the system and the baseline did next to each other.
type Sample struct {
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Ratio    float64 `json:"ratio"`
	// CPU is what all processes of a side used per unit of work, in CPUUnit;
	// 0 where the case does not say. Less is better.
	CPU         float64 `json:"cpu,omitempty"`
	BaselineCPU float64 `json:"baseline_cpu,omitempty"`
	CPUUnit     string  `json:"cpu_unit,omitempty"`
	// Allocs are the heap objects that the measuring process, which holds the
	// client of either side, made per operation or MB.
	Allocs         float64 `json:"allocs,omitempty"`
	BaselineAllocs float64 `json:"baseline_allocs,omitempty"`
	// Latency of single operations, where the case times them.
	Latency         *hist.Summary `json:"latency,omitempty"`
	BaselineLatency *hist.Summary `json:"baseline_latency,omitempty"`
	// Rivals are the baselines that were measured too and lost to the one
	// that is used.
	Rivals map[string]float64 `json:"rivals,omitempty"`
}

// Fill sets the figures of a row from its samples and returns their
// comparison; with invalid samples it sets Error instead.
func (r *Row) Fill(samples []Sample) {
	system, baseline := make([]float64, len(samples)), make([]float64, len(samples))
	for i, s := range samples {
		system[i], baseline[i] = s.Value, s.Baseline
	}
	res, err := ratio.Of(system, baseline)
	if err != nil {
		r.Fail(err)
		return
	}
	for i := range samples {
		samples[i].Ratio = res.Ratios[i]
	}
	r.Samples = samples
	r.Value, r.BaselineValue, r.Ratio = &res.System, &res.Baseline, &res.Ratio
	r.low, r.high, r.min, r.max = res.Low, res.High, res.Min, res.Max
}

// Fail makes the row an error row.
func (r *Row) Fail(err error) {
	r.Value, r.BaselineValue, r.Ratio = nil, nil, nil
	r.Samples = []Sample{}
	r.Error = err.Error()
}

// Summary is the row in a few words.
func (r *Row) Summary() string {
	if r.Error != "" {
		return "failed: " + r.Error
	}
	return fmt.Sprintf("%s, ratio %.3f to %s", quantity(*r.Value, r.Unit), *r.Ratio, r.BaselineName)
}

// Failed returns how many rows are error rows.
func (r *Report) Failed() int {
	n := 0
	for _, row := range r.Results {
		if row.Error != "" {
			n++
		}
	}
	return n
}

// WriteJSON writes the report with two spaces of indentation.
func (r *Report) WriteJSON(w io.Writer) error { return EncodeJSON(w, r) }

// EncodeJSON writes what a run has measured with two spaces of indentation.
func EncodeJSON(w io.Writer, measured any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(measured)
}

// WriteTable writes the machine's facts and one line per case, with a second
// line of CPU cost and latencies where the case has them.
func (r *Report) WriteTable(w io.Writer) error {
	writeHeader(w, r.Machine)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SUITE\tCASE\tVALUE\tBASELINE\t\tRATIO\t95 % INTERVAL\tMIN..MAX\tPAIRS")
	for _, row := range r.Results {
		if row.Error != "" {
			fmt.Fprintf(tw, "%s\t%s\tFAILED\t\t\t\t\t\t\n", row.Suite, row.Case)
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f..%.3f\t%.2f..%.2f\t%d\n", row.Suite, row.Case,
			quantity(*row.Value, row.Unit), quantity(*row.BaselineValue, row.Unit), row.BaselineName,
			*row.Ratio, row.low, row.high, row.min, row.max, len(row.Samples))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	writeDetails(w, r.Results)
	return nil
}

func writeHeader(w io.Writer, m facts.Machine) {
	fmt.Fprintf(w, "machine   %s, %d cores, %s memory, kernel %s\n", orDash(m.CPU), m.Cores, humanize.IBytes(uint64(m.MemoryBytes)), m.Kernel)
	for _, k := range keys(m.Filesystems) {
		fmt.Fprintf(w, "files     %s: %s\n", k, m.Filesystems[k])
	}
	fmt.Fprintf(w, "load      %.2f %.2f %.2f at start, %.2f at end\n", m.LoadAverage[0], m.LoadAverage[1], m.LoadAverage[2], m.LoadEnd[0])
	fmt.Fprintf(w, "build     orca %s %s, %s %s/%s\n", m.Version, orDash(m.Commit), m.Go, m.OS, m.Arch)
	fmt.Fprintf(w, "run       %s, started %s\n", m.Command, m.Started)
	for _, k := range keys(m.Config) {
		fmt.Fprintf(w, "config    %s=%s\n", k, m.Config[k])
	}
	fmt.Fprintln(w)
}

// writeDetails prints what does not fit the table: medians of the cost and of
// the rivals, and the latencies of the pair whose ratio is nearest the median.
func writeDetails(w io.Writer, rows []Row) {
	fmt.Fprintln(w)
	for _, row := range rows {
		name := row.Suite + "/" + row.Case
		if row.Error != "" {
			fmt.Fprintf(w, "%s: error: %s\n", name, row.Error)
			continue
		}
		s := row.middle()
		if s.CPU > 0 && s.BaselineCPU > 0 {
			c, b := medianCPU(row.Samples)
			fmt.Fprintf(w, "%s: cpu %.3g %s, baseline %.3g (%.2fx)\n", name, c, s.CPUUnit, b, c/b)
		}
		if s.Allocs > 0 {
			unit, _, _ := strings.Cut(row.Unit, "/")
			fmt.Fprintf(w, "%s: %.3g heap objects per %s in the client's process, baseline %.3g\n", name, s.Allocs, strings.TrimSuffix(unit, "s"), s.BaselineAllocs)
		}
		if s.Latency != nil {
			fmt.Fprintf(w, "%s: latency %s; baseline %s\n", name, s.Latency, s.BaselineLatency)
		}
		for _, k := range keys(s.Rivals) {
			var v []float64
			for _, s := range row.Samples {
				v = append(v, s.Rivals[k])
			}
			fmt.Fprintf(w, "%s: also measured: %s %s\n", name, k, quantity(ratio.Median(v), row.Unit))
		}
	}
}

func medianCPU(samples []Sample) (system, baseline float64) {
	var c, b []float64
	for _, s := range samples {
		c, b = append(c, s.CPU), append(b, s.BaselineCPU)
	}
	return ratio.Median(c), ratio.Median(b)
}

// middle returns the sample whose ratio is nearest the row's.
func (r *Row) middle() Sample {
	best := r.Samples[0]
	for _, s := range r.Samples {
		if abs(s.Ratio-*r.Ratio) < abs(best.Ratio-*r.Ratio) {
			best = s
		}
	}
	return best
}

func abs(v float64) float64 { return max(v, -v) }

// quantity formats a value with three significant digits and its unit.
func quantity(v float64, unit string) string {
	if v >= 1e4 {
		return humanize.Comma(int64(v+0.5)) + " " + unit
	}
	return fmt.Sprintf("%.4g %s", v, unit)
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func orDash(s string) string {
	if strings.TrimSpace(s) == "" {
		return "-"
	}
	return s
}
