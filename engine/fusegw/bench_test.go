// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package fusegw

import (
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Each benchmark runs on a native folder, on passed-through files and through
// the daemon in one run: only their ratios mean anything.
func benchmark(b *testing.B, prepare func(dir string), run func(b *testing.B, dir string)) {
	b.Run("native", func(b *testing.B) {
		d := fastDir(b)
		prepare(d)
		b.ResetTimer()
		run(b, d)
	})
	for _, v := range variants[:2] {
		b.Run(v.name, func(b *testing.B) {
			fs := newMemFS(b)
			cfg := Config{}
			v.config(fs, &cfg)
			_, d := mounted(b, fs, func(c *Config) { c.NoPassthrough = cfg.NoPassthrough })
			prepare(d)
			b.ResetTimer()
			run(b, d)
		})
	}
}

func fill(b *testing.B, n int) func(string) {
	return func(d string) {
		if err := os.WriteFile(d+"/f", make([]byte, n), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSequentialRead1M(b *testing.B) {
	const size = 256 << 20
	benchmark(b, fill(b, size), func(b *testing.B, d string) {
		buf := make([]byte, 1<<20)
		b.SetBytes(size)
		for b.Loop() {
			f, err := os.Open(d + "/f")
			if err != nil {
				b.Fatal(err)
			}
			for off := int64(0); off < size; off += int64(len(buf)) {
				if _, err := f.ReadAt(buf, off); err != nil {
					b.Fatal(err)
				}
			}
			f.Close()
		}
	})
}

func BenchmarkRandomRead4K(b *testing.B) {
	const size = 256 << 20
	benchmark(b, fill(b, size), func(b *testing.B, d string) {
		f, err := os.Open(d + "/f")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		r, buf := rand.New(rand.NewSource(1)), make([]byte, 4096)
		b.SetBytes(4096)
		for b.Loop() {
			if _, err := f.ReadAt(buf, int64(r.Intn(size/4096))*4096); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func many(b *testing.B, n, size int) func(string) {
	return func(d string) {
		data := make([]byte, size)
		for i := range n {
			if err := os.WriteFile(fmt.Sprintf("%s/f%04d", d, i), data, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkOpenReadClose100K(b *testing.B) {
	benchmark(b, many(b, 256, 100_000), func(b *testing.B, d string) {
		buf := make([]byte, 128<<10)
		i := 0
		for b.Loop() {
			f, err := os.Open(fmt.Sprintf("%s/f%04d", d, i%256))
			if err != nil {
				b.Fatal(err)
			}
			if n, err := f.Read(buf); n != 100_000 || err != nil && err != io.EOF {
				b.Fatal(n, err)
			}
			f.Close()
			i++
		}
	})
}

func BenchmarkStat(b *testing.B) {
	benchmark(b, many(b, 1000, 10), func(b *testing.B, d string) {
		var st unix.Stat_t
		paths := make([]string, 1000)
		for i := range paths {
			paths[i] = fmt.Sprintf("%s/f%04d", d, i)
		}
		i := 0
		for b.Loop() {
			if err := unix.Stat(paths[i%1000], &st); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}

// BenchmarkList is ls -l of 1,000 names.
func BenchmarkList(b *testing.B) {
	benchmark(b, many(b, 1000, 10), func(b *testing.B, d string) {
		for b.Loop() {
			es, err := os.ReadDir(d)
			if err != nil || len(es) != 1000 {
				b.Fatal(len(es), err)
			}
			for _, e := range es {
				if _, err := os.Lstat(filepath.Join(d, e.Name())); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkWrite100K creates, writes and closes files.
func BenchmarkWrite100K(b *testing.B) {
	benchmark(b, func(string) {}, func(b *testing.B, d string) {
		data := make([]byte, 100_000)
		i := 0
		for b.Loop() {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, i), data, 0o644); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}
