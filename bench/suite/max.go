// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"orca/bench/facts"
	"orca/bench/hist"
)

const (
	// maxGrowth is by how much a step must beat the best one before it to count
	// as growth, and maxFlat how many steps in a row may not.
	maxGrowth = 1.05
	maxFlat   = 2
	// maxOutstanding is the last step.
	maxOutstanding = 1024
)

// MaxStep is what so many clients came to, one request outstanding each.
type MaxStep struct {
	Clients int           `json:"clients"`
	Rate    float64       `json:"ops_per_second"`
	CPU     float64       `json:"cpu_us_per_op"` // of clients and server
	Latency *hist.Summary `json:"latency"`
	Within  bool          `json:"within_bound"`
}

// Max is a run of orcabench max: the highest rate that is sustained.
type Max struct {
	Machine facts.Machine `json:"machine"`
	Op      string        `json:"op"`
	BoundMS float64       `json:"bound_p99_ms"`
	Steps   []MaxStep     `json:"steps"`
	// Best is the index of the highest rate within the bound; -1: there is none.
	Best int `json:"best"`
}

// maxOps are the operations that MeasureMax knows.
var maxOps = []string{"create", "stat", "mixed"}

// MeasureMax doubles the clients until the rate of an operation grows no more,
// or the slowest hundredth of the requests takes longer than bound.
func MeasureMax(ctx context.Context, opt Options, op string, bound time.Duration, command string) (out *Max, err error) {
	if !slices.Contains(maxOps, op) {
		return nil, fmt.Errorf("no operation %q: there are %s", op, strings.Join(maxOps, ", "))
	}
	if opt.Pipeline > 1 || opt.Clients > 0 {
		return nil, errors.New("the number of clients is what is looked for")
	}
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	s, err := newStage(ctx, opt)
	if err != nil {
		return nil, err
	}
	out = &Max{Machine: facts.Read(time.Now(), command), Op: op, BoundMS: float64(bound) / float64(time.Millisecond), Best: -1}
	s.facts = &out.Machine
	s.describe()
	delete(out.Machine.Config, "pairs")
	delete(out.Machine.Config, "order")
	defer func() {
		err = errors.Join(err, s.close())
		out.Machine.LoadEnd = facts.Load()
	}()
	flat, highest := 0, 0.0
	for n := 1; n <= maxOutstanding && flat < maxFlat; n *= 2 {
		step, err := s.maxStep(ctx, op, n)
		if err != nil {
			return out, err
		}
		step.Within = step.Latency.P99 <= bound.Seconds()*1e6
		out.Steps = append(out.Steps, *step)
		s.progress("%d clients: %.0f %s/s, p99 %.1f ms", n, step.Rate, op, step.Latency.P99/1e3)
		if step.Within && (out.Best < 0 || step.Rate > out.Steps[out.Best].Rate) {
			out.Best = len(out.Steps) - 1
		}
		if flat++; step.Rate > highest*maxGrowth {
			flat = 0
		}
		highest = max(highest, step.Rate)
		if !step.Within {
			break
		}
	}
	return out, nil
}

// maxStep measures one number of clients, after a sample that is thrown away.
func (s *stage) maxStep(ctx context.Context, op string, n int) (*MaxStep, error) {
	c, err := s.metaOf(ctx, n)
	if err != nil {
		return nil, err
	}
	var sys side
	switch op {
	case "create":
		sys = c.createSide(op)
	case "mixed":
		sys, err = c.mixedSide(ctx)
	default:
		var paths [][]string
		if paths, err = c.files(ctx, c.perLane()); err == nil {
			sys = c.statSide(op, paths, []int{c.orca.PID()})
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := sys.run(ctx); err != nil {
		return nil, err
	}
	m, err := sample(ctx, sys, s.opt.Tiny)
	if err != nil {
		return nil, err
	}
	return &MaxStep{Clients: n, Rate: m.value(), CPU: cost(unitOps, m), Latency: m.lat.Summary()}, nil
}

// WriteJSON writes the run as one object.
func (m *Max) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(m)
}

// WriteTable writes the run for people.
func (m *Max) WriteTable(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "CLIENTS\t%s/S\tCPU µs\tP50 ms\tP99 ms\t\n", strings.ToUpper(m.Op))
	for i, x := range m.Steps {
		mark := ""
		switch {
		case i == m.Best:
			mark = "highest sustained"
		case !x.Within:
			mark = "over the bound"
		}
		fmt.Fprintf(tw, "%d\t%.0f\t%.1f\t%.2f\t%.2f\t%s\n", x.Clients, x.Rate, x.CPU, x.Latency.P50/1e3, x.Latency.P99/1e3, mark)
	}
	if m.Best < 0 {
		fmt.Fprintf(tw, "no number of clients stayed within %.0f ms\n", m.BoundMS)
	}
	return tw.Flush()
}
