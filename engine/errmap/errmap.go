// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

// Package errmap is the single place where an orca.Kind becomes what the
// people outside know: an errno for a mount, an exit code and a message for a
// command line, an HTTP status, an S3 error code, an exception class of HDFS.
// Every gateway and the command line translate here and nowhere else.
//
// It sits at the very end of each door: error ─► errmap ─► errno, status, code.
// It is pure: no goroutines, no locks.
//
// It refuses to look inside foreign errors. In particular it never unwraps to
// a syscall.Errno: errors of the network layer may carry numbers that look
// like an errno and mean nothing to a kernel. What has no Kind is Internal.
package errmap

import (
	"syscall"

	"orca"
)

// Exit codes of the command line.
const (
	ExitOK          = 0
	ExitFailed      = 1   // the operation failed, in whole or in part
	ExitUsage       = 2   // the command line is wrong; nothing was done
	ExitRemoved     = 3   // this member was removed from its cluster: do not start it again
	ExitInterrupted = 130 // SIGINT or SIGTERM
)

// Row is what one Kind is called behind each door.
type Row struct {
	Kind  orca.Kind
	Errno syscall.Errno
	Exit  int
	HTTP  int
	S3    string // error code of the S3 API
	HDFS  string // Java class of the exception in a Hadoop RPC reply
	Text  string // what a shell user expects to read
}

// table is indexed by Kind. ENOSYS is never used: for several FUSE requests it
// tells the kernel never to ask again.
var table = [...]Row{
	{orca.OK, 0, 0, 200, "", "", "Success"},
	{orca.Internal, syscall.EIO, 1, 500, "InternalError", "java.io.IOException", "Internal error"},
	{orca.Invalid, syscall.EINVAL, 1, 400, "InvalidRequest", "org.apache.hadoop.HadoopIllegalArgumentException", "Invalid argument"},
	{orca.NotFound, syscall.ENOENT, 1, 404, "NoSuchKey", "java.io.FileNotFoundException", "No such file or directory"},
	{orca.Exists, syscall.EEXIST, 1, 409, "PreconditionFailed", "org.apache.hadoop.fs.FileAlreadyExistsException", "File exists"},
	{orca.NotDir, syscall.ENOTDIR, 1, 409, "InvalidRequest", "org.apache.hadoop.fs.ParentNotDirectoryException", "Not a directory"},
	{orca.IsDir, syscall.EISDIR, 1, 409, "InvalidRequest", "org.apache.hadoop.fs.PathIsDirectoryException", "Is a directory"},
	{orca.NotEmpty, syscall.ENOTEMPTY, 1, 409, "BucketNotEmpty", "org.apache.hadoop.fs.PathIsNotEmptyDirectoryException", "Directory not empty"},
	{orca.Permission, syscall.EACCES, 1, 403, "AccessDenied", "org.apache.hadoop.security.AccessControlException", "Permission denied"},
	{orca.NameTooLong, syscall.ENAMETOOLONG, 1, 400, "KeyTooLongError", "org.apache.hadoop.hdfs.protocol.FSLimitException$PathComponentTooLongException", "File name too long"},
	{orca.ReadOnly, syscall.EROFS, 1, 403, "AccessDenied", "org.apache.hadoop.security.AccessControlException", "Read-only file system"},
	{orca.CrossMount, syscall.EXDEV, 1, 400, "InvalidRequest", "java.io.IOException", "Invalid cross-device link"},
	{orca.Busy, syscall.EBUSY, 1, 503, "SlowDown", "org.apache.hadoop.ipc.RetriableException", "Device or resource busy"},
	{orca.Unavailable, syscall.EIO, 1, 503, "ServiceUnavailable", "org.apache.hadoop.ipc.RetriableException", "Service unavailable"},
	{orca.NoSpace, syscall.ENOSPC, 1, 507, "InsufficientStorage", "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "No space left on device"},
	{orca.Stale, syscall.ESTALE, 1, 409, "OperationAborted", "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException", "Stale file handle"},
	{orca.Conflict, syscall.ESTALE, 1, 409, "OperationAborted", "java.io.IOException", "Changed in the under file system"},
	{orca.Corrupt, syscall.EIO, 1, 500, "InternalError", "org.apache.hadoop.fs.ChecksumException", "Checksum mismatch"},
	{orca.LostData, syscall.EIO, 1, 500, "InternalError", "org.apache.hadoop.hdfs.BlockMissingException", "Data lost"},
	{orca.Unsupported, syscall.EOPNOTSUPP, 1, 501, "NotImplemented", "java.lang.UnsupportedOperationException", "Operation not supported"},
	{orca.Unauthenticated, syscall.EACCES, 1, 401, "InvalidAccessKeyId", "org.apache.hadoop.security.AccessControlException", "Credentials refused"},
	{orca.Timeout, syscall.ETIMEDOUT, 1, 504, "RequestTimeout", "org.apache.hadoop.ipc.RetriableException", "Timed out"},
	{orca.SessionExpired, syscall.ESTALE, 1, 409, "OperationAborted", "org.apache.hadoop.hdfs.server.namenode.LeaseExpiredException", "Session expired"},
	{orca.Canceled, syscall.EINTR, 130, 499, "RequestTimeout", "java.io.InterruptedIOException", "Interrupted"},
	{orca.TooLarge, syscall.EFBIG, 1, 413, "EntityTooLarge", "java.io.IOException", "File too large"},
	{orca.UFSFailure, syscall.EIO, 1, 502, "InternalError", "java.io.IOException", "Under file system error"},
	{orca.NoData, syscall.ENODATA, 1, 404, "NoSuchKey", "java.io.IOException", "No such attribute"},
	{orca.NotLeader, syscall.EIO, 1, 503, "ServiceUnavailable", "org.apache.hadoop.ipc.RetriableException", "Service unavailable"},
	{orca.Referral, syscall.EIO, 1, 503, "ServiceUnavailable", "org.apache.hadoop.ipc.RetriableException", "Service unavailable"},
	{orca.Removed, syscall.EIO, ExitRemoved, 500, "InternalError", "java.io.IOException", "No member of the cluster any more"},
	{orca.OverQuota, syscall.EDQUOT, 1, 507, "QuotaExceeded", "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException", "Disk quota exceeded"},
}

// Of returns the row of err: that of OK for nil, that of Internal for what has
// no Kind or one from a newer build.
func Of(err error) Row {
	k := orca.KindOf(err)
	if int(k) >= len(table) {
		k = orca.Internal
	}
	return table[k]
}

// Errno returns what a mount answers; 0 for nil.
func Errno(err error) syscall.Errno { return Of(err).Errno }

// Exit returns the exit code of a command that ended with err.
func Exit(err error) int { return Of(err).Exit }

// HTTP returns the status code.
func HTTP(err error) int { return Of(err).HTTP }

// S3 returns the error code of the S3 API, "" for nil.
func S3(err error) string { return Of(err).S3 }

// HDFS returns the Java class name of the exception, "" for nil.
func HDFS(err error) string { return Of(err).HDFS }

// Text returns the message a shell user expects, such as "No such file or
// directory".
func Text(err error) string { return Of(err).Text }

// Table returns a copy of the whole table in the order of the Kinds.
func Table() []Row {
	t := table
	return t[:]
}
