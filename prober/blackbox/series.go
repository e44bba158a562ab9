package blackbox

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxLabel is the most bytes that a label's value has of what a target sent.
const maxLabel = 4 << 10

// sample is one series and its value.
type sample struct {
	name   string
	labels string // as the text format has them, without braces
	value  float64
}

// series are what one probe measured. The zero value is none. One goroutine uses it at a time.
type series struct{ list []sample }

// set sets a series without labels, which is there once.
func (s *series) set(name string, value float64) { s.put(name, "", value) }

// with sets a series with labels, given as name, value, name, value, ...
func (s *series) with(name string, value float64, labels ...string) {
	var b strings.Builder
	for i := 0; i+1 < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(labels[i])
		b.WriteString(`="`)
		v := strings.ToValidUTF8(labels[i+1], "\uFFFD")
		if len(v) > maxLabel {
			v = strings.ToValidUTF8(v[:maxLabel], "")
		}
		_, _ = escaper.WriteString(&b, v)
		b.WriteByte('"')
	}
	s.put(name, b.String(), value)
}

var escaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func (s *series) put(name, labels string, value float64) {
	for i := range s.list {
		if s.list[i].name == name && s.list[i].labels == labels {
			s.list[i].value = value
			return
		}
	}
	s.list = append(s.list, sample{name, labels, value})
}

// flag sets a series to 1 or 0.
func (s *series) flag(name string, yes bool) {
	v := 0.0
	if yes {
		v = 1
	}
	s.set(name, v)
}

// phases sets series of a metric with label phase.
func (s *series) phases(name string, took ...phase) {
	for _, p := range took {
		s.with(name, p.d.Seconds(), "phase", p.name)
	}
}

type phase struct {
	name string
	d    time.Duration
}

// secured tells of a handshake.
func (s *series) secured(state *tls.ConnectionState) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return
	}
	s.set("probe_ssl_earliest_cert_expiry", unix(earliest(state.PeerCertificates)))
	var last time.Time
	for _, chain := range state.VerifiedChains {
		if e := earliest(chain); last.IsZero() || last.After(e) {
			last = e
		}
	}
	s.set("probe_ssl_last_chain_expiry_timestamp_seconds", unix(last))
	leaf := state.PeerCertificates[0]
	sum := sha256.Sum256(leaf.Raw)
	s.with("probe_ssl_last_chain_info", 1, "fingerprint_sha256", hex.EncodeToString(sum[:]), "issuer", leaf.Issuer.String(),
		"serialnumber", leaf.SerialNumber.Text(16), "subject", leaf.Subject.String(), "subjectalternative", strings.Join(leaf.DNSNames, ","))
	s.with("probe_tls_version_info", 1, "version", tls.VersionName(state.Version))
	s.with("probe_tls_cipher_info", 1, "cipher", tls.CipherSuiteName(state.CipherSuite))
}

// unix is a time in seconds since 1970; the zero time is far before that, as blackbox_exporter has it.
func unix(t time.Time) float64 { return float64(t.Unix()) }

// earliest is when the first certificate of a chain expires.
func earliest(chain []*x509.Certificate) time.Time {
	var t time.Time
	for _, c := range chain {
		if t.IsZero() || c.NotAfter.Before(t) {
			t = c.NotAfter
		}
	}
	return t
}

// writeTo writes the series in the text format of Prometheus, version 0.0.4, ordered by name and labels.
func (s *series) writeTo(w io.Writer) error {
	slices.SortStableFunc(s.list, func(a, b sample) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.labels, b.labels)) })
	var b bytes.Buffer
	b.Grow(128 * len(s.list))
	before := ""
	var number [32]byte
	for _, x := range s.list {
		if x.name != before {
			before = x.name
			b.WriteString("# HELP " + x.name + " " + helps(x.name) + "\n# TYPE " + x.name + " gauge\n")
		}
		b.WriteString(x.name)
		if x.labels != "" {
			b.WriteByte('{')
			b.WriteString(x.labels)
			b.WriteByte('}')
		}
		b.WriteByte(' ')
		b.Write(strconv.AppendFloat(number[:0], x.value, 'g', -1, 64))
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// atLeast sets a series with one label to 0 unless it is there.
func (s *series) atLeast(name, label, value string) {
	labels := label + `="` + value + `"`
	for _, x := range s.list {
		if x.name == name && x.labels == labels {
			return
		}
	}
	s.put(name, labels, 0)
}
