// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package backends

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"orca"
	"orca/ufs/wrap"
)

// Mask is what a secret's value is shown as.
const Mask = "******"

// maxHint is the edit distance up to which a known name is proposed.
const maxHint = 5

// MaskOptions returns a copy of the options with the values of secrets
// masked, for replies, logs and reports.
func MaskOptions(uri string, options map[string]string) map[string]string {
	out := maps.Clone(options)
	secrets := Secrets(uri)
	b, _ := New().find(uri)
	for k := range out {
		name := k
		if c, ok := b.Aliases[k]; ok {
			name = c
		}
		if slices.Contains(secrets, name) {
			out[k] = Mask
		}
	}
	return out
}

// Secrets returns the canonical names of the options of this URI's store whose
// values must not be shown.
func Secrets(uri string) []string {
	b, _ := New().find(uri)
	return b.Secrets
}

// Masked returns the URI without a password.
func Masked(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.User == nil {
		return uri
	}
	return u.Redacted()
}

// canonical resolves aliases and refuses unknown names.
func (b Backend) canonical(options map[string]string) (map[string]string, error) {
	known := slices.Concat(b.Options, commonOptions)
	out := make(map[string]string, len(options))
	for _, k := range slices.Sorted(maps.Keys(options)) {
		name := k
		if c, ok := b.Aliases[k]; ok {
			name = c
		}
		if !slices.Contains(known, name) {
			return nil, unknownOption(k, known, b.Aliases)
		}
		if old, dup := out[name]; dup && old != options[k] {
			return nil, orca.E("backends.Validate", orca.Invalid, "option "+name+" is given twice, under different names")
		}
		out[name] = options[k]
	}
	return out, nil
}

func unknownOption(k string, known []string, aliases map[string]string) error {
	msg := "unknown option " + strconv.Quote(k)
	best, dist := "", maxHint+1
	for _, name := range slices.Sorted(slices.Values(slices.Concat(known, slices.Collect(maps.Keys(aliases))))) {
		if d := distance(strings.ToLower(k), strings.ToLower(name)); d < dist {
			best, dist = name, d
		}
	}
	if best != "" {
		msg += ", did you mean " + strconv.Quote(best) + "?"
	} else {
		msg += "; known are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
	}
	return orca.E("backends.Validate", orca.Invalid, msg)
}

// distance is the Levenshtein distance of two short names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			sub := diag
			if a[i-1] != b[j-1] {
				sub++
			}
			diag = row[j]
			row[j] = min(sub, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// decoration reads the options that every store has.
func decoration(o map[string]string) (r wrap.RetryConfig, l wrap.LimitConfig, err error) {
	if r.Attempts, err = intOption(o, "retry.attempts"); err != nil {
		return r, l, err
	}
	if l.Concurrent, err = intOption(o, "limit.concurrent"); err != nil {
		return r, l, err
	}
	iops, err := intOption(o, "limit.iops")
	if err != nil {
		return r, l, err
	}
	l.IOPS = int64(iops)
	if l.ReadRate, err = rateOption(o, "limit.read_rate"); err != nil {
		return r, l, err
	}
	if l.WriteRate, err = rateOption(o, "limit.write_rate"); err != nil {
		return r, l, err
	}
	if err := r.Validate(); err != nil {
		return r, l, err
	}
	return r, l, l.Validate()
}

func intOption(o map[string]string, k string) (int, error) {
	v, ok := o[k]
	if !ok || v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, badOption(k, v, "a number that is not negative")
	}
	return n, nil
}

func boolOption(o map[string]string, k string) (bool, error) {
	v, ok := o[k]
	if !ok || v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, badOption(k, v, "true or false")
	}
	return b, nil
}

// bytesOption reads a size such as 16MiB or 100MB.
func bytesOption(o map[string]string, k string) (int64, error) {
	v, ok := o[k]
	if !ok || v == "" {
		return 0, nil
	}
	n, err := humanize.ParseBytes(v)
	if err != nil || n > 1<<62 {
		return 0, badOption(k, v, "a size such as 16MiB")
	}
	return int64(n), nil
}

// rateOption reads bytes per second, such as 100MB or 100MB/s.
func rateOption(o map[string]string, k string) (int64, error) {
	v := o[k]
	n, err := bytesOption(map[string]string{k: strings.TrimSuffix(v, "/s")}, k)
	switch {
	case err != nil:
		return 0, badOption(k, v, "bytes per second, such as 100MB/s")
	case n > 0 && n < wrap.MinRate:
		return 0, badOption(k, v, "at least 64KiB per second")
	}
	return n, nil
}

func badOption(k, v, want string) error {
	return orca.E("backends.Validate", orca.Invalid, "option "+k+"="+strconv.Quote(v)+": want "+want)
}
