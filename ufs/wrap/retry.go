// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package wrap

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"orca"
	"orca/ufs"
)

// RetryConfig bounds Retry.
type RetryConfig struct {
	// Attempts of one call in all; 0: 3. At most 10.
	Attempts int
	// Base is the pause before the second attempt, doubled before each later
	// one; each is drawn from its upper half. 0: 50 ms.
	Base time.Duration
	// Max bounds one pause; 0: 2 s.
	Max time.Duration
}

// Validate checks the bounds.
func (c RetryConfig) Validate() error {
	if c.Attempts < 0 || c.Attempts > 10 || c.Base < 0 || c.Max < 0 {
		return orca.E("wrap.RetryConfig", orca.Invalid, "attempts must be 0 to 10, pauses not negative")
	}
	return nil
}

func (c RetryConfig) filled() RetryConfig {
	if c.Attempts == 0 {
		c.Attempts = 3
	}
	if c.Base == 0 {
		c.Base = 50 * time.Millisecond
	}
	if c.Max == 0 {
		c.Max = 2 * time.Second
	}
	return c
}

// retry is the decorator.
type retry struct {
	cfg RetryConfig
	in  ufs.FS
}

// Retry repeats calls that failed with a retryable kind. Listings go on behind
// the last entry that was handed out; a reader goes on at its offset, when it
// was opened with a fingerprint. The parts of an upload and its Commit are not
// repeated: only the store knows whether a lost answer was a success.
func Retry(inner ufs.FS, cfg RetryConfig) ufs.FS {
	r := &retry{cfg: cfg.filled(), in: inner}
	l := &layer{in: inner, around: r.around, open: r.open, list: r.list}
	return shape(l)
}

// retryable tells apart what another attempt may heal. A Timeout of the
// caller's own deadline is caught by the pause.
func retryable(err error) bool { return err != nil && orca.KindOf(err).Retryable() }

// pause waits before attempt i (from 1); false when the context ended.
func (r *retry) pause(ctx context.Context, i int) bool {
	d := min(r.cfg.Base<<(i-1), r.cfg.Max)
	d = d/2 + rand.N(d/2+1)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (r *retry) around(ctx context.Context, c Call, do func(context.Context) error) error {
	err := do(ctx)
	switch c.Op {
	case Write, Read, Prepare, Commit:
		return err
	}
	for i := 1; i < r.cfg.Attempts && retryable(err) && r.pause(ctx, i); i++ {
		err = do(ctx)
		// The attempt before may have succeeded and lost its answer.
		if c.Op == Remove && errors.Is(err, orca.NotFound) || c.Op == Mkdir && errors.Is(err, orca.Exists) {
			return nil
		}
	}
	return err
}

// stopped carries an error of the caller's function through the store, so that
// it is not taken for a failure of the listing.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }

func (r *retry) list(ctx context.Context, c Call, fn func(ufs.Info) error, run func(context.Context, string, func(ufs.Info) error) error) error {
	var last ufs.Info
	begun := false
	err := r.around(ctx, c, func(ctx context.Context) error {
		skip := begun
		return run(ctx, c.Key, func(in ufs.Info) error {
			if skip && ufs.Compare(in, last) <= 0 {
				return nil
			}
			last, begun = in, true
			if err := fn(in); err != nil {
				return stopped{err}
			}
			return nil
		})
	})
	var s stopped
	if errors.As(err, &s) {
		return s.err
	}
	return err
}

func (r *retry) open(ctx context.Context, key string, off, n int64, want string) (rc io.ReadCloser, err error) {
	err = r.around(ctx, Call{Op: Open, Key: key}, func(ctx context.Context) error {
		rc, err = r.in.Open(ctx, key, off, n, want)
		return err
	})
	if err != nil || want == "" {
		return rc, err
	}
	return &resumer{r: r, ctx: ctx, rc: rc, key: key, off: off, n: n, want: want}, nil
}

// resumer re-opens a broken reader at its offset, at most Attempts-1 times
// without a byte of progress in between.
type resumer struct {
	r     *retry
	ctx   context.Context //nolint:containedctx // a reader's life is one call of its opener
	rc    io.ReadCloser
	key   string
	off   int64
	n     int64 // bytes left; negative: to the end
	want  string
	tries int
}

func (s *resumer) Read(p []byte) (int, error) {
	for {
		n, err := s.rc.Read(p)
		if n > 0 {
			s.off, s.tries = s.off+int64(n), 0
			if s.n > 0 {
				s.n -= int64(n)
			}
		}
		if n > 0 || err == nil || errors.Is(err, io.EOF) || !retryable(err) {
			if n > 0 && retryable(err) {
				err = nil // the next Read meets it again
			}
			return n, err
		}
		if s.tries++; s.tries >= s.r.cfg.Attempts || !s.r.pause(s.ctx, s.tries) {
			return 0, err
		}
		_ = s.rc.Close()
		rc, oerr := s.r.in.Open(s.ctx, s.key, s.off, s.n, s.want)
		if oerr != nil {
			s.rc = failed{oerr}
			continue
		}
		s.rc = rc
	}
}

// Close implements io.Closer.
func (s *resumer) Close() error { return s.rc.Close() }

// failed is a reader of an error.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
func (f failed) Close() error             { return nil }
