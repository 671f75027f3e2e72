// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"reflect"
	"strings"
	"sync/atomic"
	"unicode"

	"orca/dataplane/timing"
)

// Counters returns a Source that exports every atomic.Int64, atomic.Bool and
// timing.Histogram field of the struct that stats points to as
// prefix_field_name: the lower rooms state a counter once, where they count it.
// A field named in gauges is a gauge, the others are counters and end in
// _total; histograms end in _seconds. help says whose they
// are. It panics when stats is no pointer to a struct: a bug of the composer.
func Counters(prefix, help string, stats any, gauges ...string) Source {
	v := reflect.ValueOf(stats)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic("BUG: telemetry.Counters wants a pointer to a struct, not " + v.Type().String())
	}
	gauge := map[string]bool{}
	for _, g := range gauges {
		gauge[g] = true
	}
	type field struct {
		name    string
		counter bool
		read    func() float64
		times   *timing.Histogram
	}
	var fields []field
	for i := range v.Elem().NumField() {
		t := v.Elem().Type().Field(i)
		if !t.IsExported() {
			continue
		}
		f := field{name: prefix + "_" + snake(t.Name), counter: !gauge[t.Name]}
		switch p := v.Elem().Field(i).Addr().Interface().(type) {
		case *atomic.Int64:
			f.read = func() float64 { return float64(p.Load()) }
		case *atomic.Bool:
			f.counter = false
			f.read = func() float64 {
				if p.Load() {
					return 1
				}
				return 0
			}
		case *timing.Histogram:
			f.counter, f.times = false, p
			f.name += "_seconds"
		default:
			continue
		}
		if f.counter {
			f.name += "_total"
		}
		fields = append(fields, f)
	}
	return func(emit func(Sample)) {
		for _, f := range fields {
			if f.times != nil {
				upTo, n, sum := f.times.Snapshot()
				emit(Sample{Name: f.name, Help: help, UpTo: upTo, Count: n, Value: sum.Seconds()})
				continue
			}
			emit(Sample{Name: f.name, Help: help, Counter: f.counter, Value: f.read()})
		}
	}
}

// snake turns CorruptGrains into corrupt_grains, and UFSBytes into ufs_bytes.
func snake(s string) string {
	var b strings.Builder
	rs := []rune(s)
	for i, r := range rs {
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(rs[i-1]) || i+1 < len(rs) && unicode.IsLower(rs[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
