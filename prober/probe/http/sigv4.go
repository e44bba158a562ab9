package http

import (
	"crypto/sha256"
	"encoding/hex"
	nethttp "net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// sign signs a request to the check's own host as AWS asks for, at the time of this machine: AWS refuses what is more than five minutes off.
func (v *visit) sign(req *nethttp.Request, body []byte) error {
	o := v.options.GetAwsSigv4()
	whole := *req.URL // the signer writes into it, and probes that run at the same time share the other one
	req.URL = &whole
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	// S3 alone signs the path as it is written instead of escaping it once more.
	signer := v4.NewSigner(func(s *v4.SignerOptions) { s.DisableURIPathEscaping = o.GetService() == "s3" })
	credentials := aws.Credentials{AccessKeyID: o.GetAccessKeyId(), SecretAccessKey: o.GetSecretAccessKey(), SessionToken: o.GetSessionToken()}
	if err := signer.SignHTTP(v.base, credentials, req, hash, o.GetService(), o.GetRegion(), time.Now()); err != nil {
		return probe.Failf(v.a, meshv1.Result_PROBER, "sign the request: %s", err)
	}
	return nil
}
