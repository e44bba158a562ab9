package probe

import (
	"sort"
	"strings"

	"github.com/probemesh/probemesh/prober/probe/tls/inspect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of evidence, as result.proto documents them.
const (
	MaxEvidenceBody    = 4 << 10
	MaxEvidenceRecords = 32
	MaxEvidenceHops    = 16
	maxEvidenceHeaders = 64
	maxHeaderBytes     = 8 << 10
	maxAddresses       = 16
	maxCertificates    = 8
	maxRecordBytes     = 512
)

// hidden replaces values that must not be kept.
const hidden = "(hidden)"

// evidence is what the attempt and the answer show.
func evidence(a *Attempt, answer Answer) *meshv1.Evidence {
	e := &meshv1.Evidence{}
	for _, addr := range a.addresses[:min(len(a.addresses), maxAddresses)] {
		e.ResolvedAddresses = append(e.ResolvedAddresses, addr.String())
	}
	for _, c := range a.certs[:min(len(a.certs), maxCertificates)] {
		e.Certificates = append(e.Certificates, inspect.Certificate(c, a.start))
	}
	if answer != nil {
		answer.Evidence(e)
	}
	return e
}

// EvidenceBody sets the body of the evidence to the beginning of what was received. more tells that there was more than body.
func EvidenceBody(e *meshv1.Evidence, body []byte, more bool) {
	e.BodyTruncated = more || len(body) > MaxEvidenceBody
	e.Body = append([]byte(nil), body[:min(len(body), MaxEvidenceBody)]...)
}

// EvidenceHeaders adds headers or metadata to the evidence, by name, up to its limits, hiding the values of those that carry secrets.
func EvidenceHeaders(e *meshv1.Evidence, headers map[string][]string) {
	names := make([]string, 0, len(headers))
	for n := range headers {
		names = append(names, n)
	}
	sort.Strings(names)
	size := 0
	for _, n := range names {
		for _, v := range headers[n] {
			if secret(n) {
				v = hidden
			}
			n, v := strings.ToValidUTF8(n, "\uFFFD"), strings.ToValidUTF8(v, "\uFFFD")
			size += len(n) + len(v)
			if len(e.Headers) == maxEvidenceHeaders || size > maxHeaderBytes {
				return
			}
			e.Headers = append(e.Headers, &meshv1.Header{Name: n, Value: v})
		}
	}
}

// EvidenceRecords adds lines such as DNS records to the evidence, up to its limit.
func EvidenceRecords(e *meshv1.Evidence, lines []string) {
	for _, l := range lines {
		if len(e.Records) == MaxEvidenceRecords {
			return
		}
		e.Records = append(e.Records, clip(l, maxRecordBytes))
	}
}

// secret tells whether a header's value must not be kept.
func secret(name string) bool {
	switch strings.ToLower(name) {
	case "set-cookie", "authorization", "proxy-authorization":
		return true
	}
	return false
}
