// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"orca"
)

// codeKinds is what the error codes of S3 (and of MinIO) mean to a caller.
// NoSuchBucket is deliberately not NotFound: a bucket that vanished must not
// look like objects that were deleted.
var codeKinds = map[string]orca.Kind{
	"NoSuchKey":                      orca.NotFound,
	"NoSuchVersion":                  orca.NotFound,
	"NoSuchBucket":                   orca.UFSFailure,
	"NoSuchUpload":                   orca.Stale,
	"PreconditionFailed":             orca.Stale,
	"ConditionalRequestConflict":     orca.Busy,
	"OperationAborted":               orca.Busy,
	"AccessDenied":                   orca.Permission,
	"AllAccessDisabled":              orca.Permission,
	"InvalidObjectState":             orca.Permission, // archived: restore it first
	"InvalidAccessKeyId":             orca.Unauthenticated,
	"SignatureDoesNotMatch":          orca.Unauthenticated,
	"ExpiredToken":                   orca.Unauthenticated,
	"InvalidToken":                   orca.Unauthenticated,
	"TokenRefreshRequired":           orca.Unauthenticated,
	"RequestTimeTooSkewed":           orca.Unauthenticated,
	"AuthorizationHeaderMalformed":   orca.Unauthenticated, // wrong region
	"SlowDown":                       orca.Busy,
	"Throttling":                     orca.Busy,
	"TooManyRequests":                orca.Busy,
	"SlowDownRead":                   orca.Busy,
	"SlowDownWrite":                  orca.Busy,
	"RequestTimeout":                 orca.Unavailable,
	"ServiceUnavailable":             orca.Unavailable,
	"InternalError":                  orca.Unavailable,
	"XMinioServerNotInitialized":     orca.Unavailable,
	"EntityTooLarge":                 orca.TooLarge,
	"KeyTooLongError":                orca.NameTooLong,
	"XMinioInvalidObjectName":        orca.Invalid,
	"XMinioStorageFull":              orca.NoSpace,
	"XMinioAdminBucketQuotaExceeded": orca.NoSpace,
	"QuotaExceeded":                  orca.NoSpace,
	"XMinioParentIsObject":           orca.NotDir,
	"XMinioObjectExistsAsDirectory":  orca.IsDir,
	"NotImplemented":                 orca.Unsupported,
	"InvalidBucketName":              orca.Invalid,
}

// statusKinds is the meaning of a status without a known code.
var statusKinds = map[int]orca.Kind{
	http.StatusUnauthorized:        orca.Unauthenticated,
	http.StatusForbidden:           orca.Permission,
	http.StatusNotFound:            orca.NotFound,
	http.StatusConflict:            orca.Busy,
	http.StatusPreconditionFailed:  orca.Stale,
	http.StatusRequestTimeout:      orca.Unavailable,
	http.StatusTooManyRequests:     orca.Busy,
	http.StatusInternalServerError: orca.Unavailable,
	http.StatusNotImplemented:      orca.Unsupported,
	http.StatusBadGateway:          orca.Unavailable,
	http.StatusServiceUnavailable:  orca.Unavailable,
	http.StatusGatewayTimeout:      orca.Unavailable,
	http.StatusInsufficientStorage: orca.NoSpace,
}

// status returns the HTTP status of an error, 0 if there was no answer.
func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// code returns the error code of the service, "" if there was no answer.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// fail translates an error of the SDK; it is this package's in-edge. The
// message names the request: operation, object, endpoint, status and code.
func (f *FS) fail(op, key string, err error) error {
	e := &orca.Error{Op: "s3." + op, Path: f.cfg.uri(key), Kind: orca.UFSFailure}
	request := "request"
	var oe *smithy.OperationError
	if errors.As(err, &oe) {
		request = oe.OperationName
	}
	e.Msg = fmt.Sprintf("%s at %s (bucket %s): ", request, f.endpoint, f.cfg.Bucket)
	var api smithy.APIError
	var ne net.Error
	switch st := status(err); {
	case errors.Is(err, context.Canceled):
		e.Kind, e.Err = orca.Canceled, context.Canceled
		if f.base.Err() != nil {
			e.Kind = orca.Unavailable
		}
		e.Msg += "given up"
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Err = orca.Timeout, context.DeadlineExceeded
		e.Msg += "no answer in time"
	case errors.As(err, &api):
		e.Kind = kindOf(api.ErrorCode(), st)
		e.Msg += fmt.Sprintf("HTTP %d %s: %s", st, api.ErrorCode(), strings.TrimSpace(api.ErrorMessage()))
	case st != 0:
		e.Kind = kindOf("", st)
		e.Msg += fmt.Sprintf("HTTP %d", st)
	case errors.As(err, &ne), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Kind = orca.Unavailable
		e.Msg += root(err).Error()
	default:
		e.Msg += root(err).Error()
	}
	return e
}

func kindOf(code string, st int) orca.Kind {
	if k, ok := codeKinds[code]; ok {
		return k
	}
	if k, ok := statusKinds[st]; ok {
		return k
	}
	return orca.UFSFailure
}

// root returns the innermost error of a chain: the SDK wraps many times.
func root(err error) error {
	for {
		if op := (*net.OpError)(nil); errors.As(err, &op) {
			return op
		}
		in := errors.Unwrap(err)
		if in == nil {
			return err
		}
		err = in
	}
}
