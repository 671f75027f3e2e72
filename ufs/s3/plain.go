// Copyright The Orca Authors. SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// emptyHash is the SHA-256 of no bytes: the body of a GET.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// plain sends the GETs of objects past the SDK, whose way from call to request
// costs more than all of net/http. It knows one answer, the bytes that were
// asked for. Whatever else happens, the SDK asks again and finds the words for
// it.
//
// It is used with an explicit endpoint only: where Amazon's are is for the SDK
// to know.
type plain struct {
	base   url.URL                 // of the bucket, without a slash at its end
	prefix string                  // escaped path of base
	creds  aws.CredentialsProvider // nil: anonymous
	region string
	signer *v4.Signer
	client *http.Client
}

// newPlain returns nil where the SDK has to do it.
func newPlain(cfg *Config, endpoint string, ac *aws.Config, client *http.Client) *plain {
	base, err := url.Parse(endpoint)
	if err != nil || base.RawQuery != "" || base.User != nil || base.Scheme != "http" && base.Scheme != "https" {
		return nil
	}
	p := &plain{region: ac.Region, signer: v4.NewSigner(), client: client}
	if !cfg.Anonymous {
		p.creds = ac.Credentials
	}
	path := strings.TrimSuffix(base.Path, "/")
	host := base.Host
	if cfg.PathStyle {
		path += "/" + cfg.Bucket
	} else {
		host = cfg.Bucket + "." + host
	}
	p.base = url.URL{Scheme: base.Scheme, Host: host, Path: path}
	p.prefix = escaped(path)
	return p
}

// escaped is a path as S3 signs it: all but unreserved characters and slashes
// in hexadecimal.
func escaped(path string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(path) + 16)
	for i := range len(path) {
		switch c := path[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// get asks for an object; span is the value of a Range header, or "". nil: the
// SDK is to be asked, unless ctx has ended. The caller closes the body.
func (p *plain) get(ctx context.Context, object, span, want string) *http.Response {
	req, err := p.request(ctx, object, span, want)
	if err != nil {
		return nil
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil
	}
	code := http.StatusOK
	if span != "" {
		code = http.StatusPartialContent
	}
	if resp.StatusCode != code {
		_ = resp.Body.Close()
		return nil
	}
	return resp
}

// request makes a signed request.
func (p *plain) request(ctx context.Context, object, span, want string) (*http.Request, error) {
	u := p.base
	u.Path += "/" + object
	u.RawPath = p.prefix + "/" + escaped(object)
	h := make(http.Header, 8)
	if span != "" {
		h["Range"] = []string{span}
	}
	if want != "" {
		h["If-Match"] = []string{*quoted(want)}
	}
	req := (&http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: h}).WithContext(ctx)
	if p.creds != nil {
		creds, err := p.creds.Retrieve(ctx)
		if err != nil {
			return nil, err
		}
		h["X-Amz-Content-Sha256"] = []string{emptyHash}
		if err := p.signer.SignHTTP(ctx, creds, req, emptyHash, "s3", p.region, time.Now(), pathAsIs); err != nil {
			return nil, err
		}
	}
	h["Accept-Encoding"] = []string{"identity"} // not signed: it is for what is between
	return req, nil
}

func pathAsIs(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }
