// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The raw pair moves a file from one process to another over TCP with the
// least that Linux needs: a 16-byte request (offset, length; little endian),
// sendfile(2) of that range on one side, recv(2) into one reused buffer on the
// other. Sockets are blocking and no Go poller is involved.

// Pattern is how the raw receiver asks for the bytes.
type Pattern string

// The patterns; the strongest of them is the baseline of a remote read.
const (
	Pull1 Pattern = "pull-1m"   // 1 MiB ranges, one request outstanding
	Pull2 Pattern = "pull-1m-2" // 1 MiB ranges, two outstanding
	Push  Pattern = "long-push" // one request for everything
)

// Patterns are all patterns.
func Patterns() []Pattern { return []Pattern{Pull1, Pull2, Push} }

const requestLen = 16

// RawServe is the sending process: it prints the port that it listens on as
// one line and serves file to one connection after the other until stdin ends.
func RawServe(file string, stdin io.Reader, stdout io.Writer) error {
	src, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(src)
	return acceptRaw(4, stdin, stdout, func(conn int) error {
		defer unix.Close(conn)
		return serveRaw(conn, src)
	})
}

// acceptRaw prints the port that it listens on as one line, and calls serve with
// one connection after the other until stdin ends, or serve returns an error.
func acceptRaw(backlog int, stdin io.Reader, stdout io.Writer, serve func(conn int) error) error {
	ln, port, err := listenRaw(backlog)
	if err != nil {
		return err
	}
	defer unix.Close(ln)
	fmt.Fprintln(stdout, port)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)     // until its owner is gone
		_ = unix.Shutdown(ln, unix.SHUT_RDWR) // wakes accept
	}()
	for {
		conn, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil // shut down
		}
		if err := serve(conn); err != nil {
			return err
		}
	}
}

var loopback = [4]byte{127, 0, 0, 1}

// serveRaw answers requests until the peer closes.
func serveRaw(conn, src int) error {
	if err := unix.SetsockoptInt(conn, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	var req [requestLen]byte
	for {
		n, err := receive(conn, req[:])
		if err != nil || n < requestLen {
			return err
		}
		off := int64(binary.LittleEndian.Uint64(req[:]))
		left := int64(binary.LittleEndian.Uint64(req[8:]))
		for left > 0 {
			// Never more than what is left of the request: a count past the
			// end of the file would leave the segment uncorked for 200 ms.
			n, err := unix.Sendfile(conn, src, &off, int(left))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return os.NewSyscallError("sendfile", err)
			}
			if n == 0 {
				return errors.New("request past the end of the file")
			}
			left -= int64(n)
		}
	}
}

// RawResult is one answer of the receiving process.
type RawResult struct {
	Bytes int64         `json:"bytes"`
	Took  time.Duration `json:"took_ns"`
	Err   string        `json:"err,omitempty"`
}

// RawReceive is the receiving process: for each line "PATTERN BYTES" of stdin
// it pulls that many bytes from the server at port into one reused buffer of
// Chunk bytes and answers with a RawResult as a line of JSON.
func RawReceive(port int, stdin io.Reader, stdout io.Writer) error {
	conn, err := connectRaw(port)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	buf := Buffer(Chunk)
	out := json.NewEncoder(stdout)
	for in := bufio.NewScanner(stdin); in.Scan(); {
		pattern, count, _ := strings.Cut(in.Text(), " ")
		size, err := strconv.ParseInt(count, 10, 64)
		res := RawResult{Bytes: size}
		if err == nil {
			res.Took, err = receivePattern(conn, Pattern(pattern), size, buf)
		}
		if err != nil {
			res.Err = err.Error()
		}
		if err := out.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

// receivePattern pulls size bytes once.
func receivePattern(conn int, p Pattern, size int64, buf []byte) (time.Duration, error) {
	outstanding, unit := 1, int64(len(buf))
	switch p {
	case Pull1:
	case Pull2:
		outstanding = 2
	case Push:
		unit = size
	default:
		return 0, fmt.Errorf("unknown pattern %q", p)
	}
	start := time.Now()
	asked := int64(0)
	ask := func() error {
		n := min(unit, size-asked)
		if n <= 0 {
			return nil
		}
		var req [requestLen]byte
		binary.LittleEndian.PutUint64(req[:], uint64(asked))
		binary.LittleEndian.PutUint64(req[8:], uint64(n))
		asked += n
		_, err := unix.Write(conn, req[:])
		return os.NewSyscallError("write", err)
	}
	for range outstanding {
		if err := ask(); err != nil {
			return 0, err
		}
	}
	for got := int64(0); got < size; {
		want := min(int64(len(buf)), size-got)
		n, err := receive(conn, buf[:want])
		if err != nil || int64(n) < want {
			return 0, fmt.Errorf("receive: %d of %d bytes: %w", n, want, errors.Join(err, io.ErrUnexpectedEOF))
		}
		got += want
		if err := ask(); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// receive fills p by recv(2) with MSG_WAITALL: one crossing for a whole buffer
// where the kernel can. It returns fewer bytes only at the end of the stream.
func receive(conn int, p []byte) (int, error) {
	got := 0
	for got < len(p) {
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(conn), uintptr(unsafe.Pointer(&p[got])), uintptr(len(p)-got), unix.MSG_WAITALL, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return got, os.NewSyscallError("recvfrom", errno)
		}
		if n == 0 {
			return got, nil
		}
		got += int(n)
	}
	return got, nil
}
