// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package writeback

import (
	"context"
	"hash/crc32"
	"io"
	"strconv"
	"time"

	"orca"
	"orca/tiers/blockfile"
	"orca/ufs"
)

// uploadBuf is the size of a piece: a few grains, hot while they are summed.
const uploadBuf = 4 * orca.GrainSize

// Upload is one upload of a file into a UFS; the persist job uses it too.
type Upload struct {
	Key string
	// Session names the attempt: Token is what ufs.FS.Sweep finds its remains
	// by.
	Session uint64
	// Again says that another worker began the upload and failed: what is left
	// of that one may still be written to.
	Again          bool
	Length         int64
	Mode, UID, GID uint32
	// Expect makes the commit conditional, as ufs.WriteHint does.
	Expect string
	// Prepared, if set, is called between Prepare and Commit; its error aborts
	// the upload.
	Prepared func(ctx context.Context) error
}

// Token returns the upload token of a session.
func Token(session uint64) string { return strconv.FormatUint(session, 16) }

// TakeoverToken returns the token of the upload by a worker that took over from
// another one.
func TakeoverToken(session uint64) string { return Token(session) + "t" }

// Uploaded is what an upload found out.
type Uploaded struct {
	Info   ufs.Info
	Sums   []uint32 // of each grain
	CRC32C uint32   // of the whole
}

// Run reads Length bytes from r, uploads and commits them. On any failure the
// upload is aborted and the old object stays.
func (u Upload) Run(ctx context.Context, fs ufs.FS, r io.Reader) (up Uploaded, err error) {
	token := Token(u.Session)
	if u.Again {
		token = TakeoverToken(u.Session)
	}
	w, err := fs.Create(ctx, u.Key, token)
	if err != nil {
		return up, err
	}
	defer func() {
		if err != nil {
			actx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = w.Abort(actx)
		}
	}()
	if h, ok := w.(ufs.Hinted); ok {
		h.Hint(ufs.WriteHint{Length: u.Length, Owned: true, Mode: u.Mode, UID: u.UID, GID: u.GID, Expect: u.Expect})
	}
	if err = u.send(ctx, w, r, &up); err != nil {
		return up, err
	}
	if p, ok := w.(ufs.Preparer); ok {
		if err = p.Prepare(ctx); err != nil {
			return up, err
		}
	}
	if u.Prepared != nil {
		if err = u.Prepared(ctx); err != nil {
			return up, err
		}
	}
	up.Info, err = w.Commit(ctx)
	return up, err
}

// send streams the content in bounded memory.
func (u Upload) send(ctx context.Context, w io.Writer, r io.Reader, up *Uploaded) error {
	up.Sums = make([]uint32, 0, blockfile.Grains(u.Length))
	buf := make([]byte, min(uploadBuf, max(u.Length, 1)))
	for left := u.Length; left > 0; {
		if err := ctx.Err(); err != nil {
			return orca.PathE("writeback.Upload", u.Key, orca.Canceled, err)
		}
		p := buf[:min(int64(len(buf)), left)]
		if _, err := io.ReadFull(r, p); err != nil {
			return &orca.Error{Op: "writeback.Upload", Path: u.Key, Kind: orca.Corrupt, Msg: "file became shorter while it was uploaded", Err: err}
		}
		up.Sums = blockfile.AppendSums(up.Sums, p)
		up.CRC32C = crc32.Update(up.CRC32C, blockfile.Castagnoli, p)
		if _, err := w.Write(p); err != nil {
			return err
		}
		left -= int64(len(p))
	}
	return nil
}

func itoa(fd uintptr) string { return strconv.FormatUint(uint64(fd), 10) }
