package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxSentence is the most bytes that the error of a result has.
const maxSentence = 1 << 10

// Failure is why a probe did not go well. As an error it can be returned by Talk, and is then taken as it is.
type Failure struct {
	// Class is the kind of failure; PROBER makes the outcome ERROR.
	Class meshv1.Result_ErrorClass
	// Phase is where it failed.
	Phase meshv1.Result_Phase
	// Sentence says what happened, for an operator.
	Sentence string
	// Expectation is the expectation that did not hold, with class EXPECTATION.
	Expectation string
	// Fenced: the prober may not connect there, see [Fence].
	Fenced bool
}

// Error is the sentence.
func (f *Failure) Error() string { return f.Sentence }

// record writes the failure into a result.
func (f *Failure) record(r *meshv1.Result) {
	r.Outcome = f.outcome()
	r.ErrorClass, r.FailedPhase, r.FailedExpectation = f.Class, f.Phase, f.Expectation
	r.Error = clip(f.Sentence, maxSentence)
}

// outcome is ERROR when the fault is the prober's own.
func (f *Failure) outcome() meshv1.Result_Outcome {
	if f.Class == meshv1.Result_PROBER {
		return meshv1.Result_ERROR
	}
	return meshv1.Result_FAIL
}

// Failf makes a failure in the phase that the attempt is in.
func Failf(a *Attempt, class meshv1.Result_ErrorClass, format string, args ...any) *Failure {
	return &Failure{Class: class, Phase: a.Phase(), Sentence: fmt.Sprintf(format, args...)}
}

// Classify says what kind of failure err is, given where the attempt stands. Whatever is not known to be something else is the target
// breaking the protocol once it is connected, and unreachable before.
func Classify(err error, a *Attempt) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	class, reason := classify(err, a)
	return &Failure{Class: class, Phase: a.Phase(), Sentence: doing(a) + ": " + reason}
}

// doing says what the attempt was about in its phase.
func doing(a *Attempt) string {
	remote, host := a.Remote(), a.Host()
	if remote == "" {
		remote = host
	}
	switch a.Phase() {
	case meshv1.Result_RESOLVE:
		return "resolve " + host
	case meshv1.Result_CONNECT:
		return "connect to " + remote
	case meshv1.Result_HANDSHAKE:
		return "TLS handshake with " + remote
	case meshv1.Result_PROCESSING:
		return "wait for the answer of " + remote
	case meshv1.Result_TRANSFER:
		return "read the answer of " + remote
	}
	return "probe " + remote
}

func classify(err error, a *Attempt) (meshv1.Result_ErrorClass, string) {
	var dnsError *net.DNSError
	switch {
	case errors.As(err, &dnsError):
		return classifyResolve(dnsError, err, a)
	case timedOut(err):
		return meshv1.Result_TIMEOUT, "timed out after " + round(a.Timeout())
	}
	if class, reason, ok := classifyErrno(err, a); ok {
		return class, reason
	}
	if class, reason, ok := classifyTLS(err); ok {
		return class, reason
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return meshv1.Result_CONNECTION_RESET, "the peer closed the connection too early"
	case a.Phase() == meshv1.Result_HANDSHAKE:
		return meshv1.Result_TLS, strings.TrimPrefix(err.Error(), "tls: ")
	case a.Phase() <= meshv1.Result_CONNECT:
		return meshv1.Result_UNREACHABLE, innermost(err)
	}
	return meshv1.Result_PROTOCOL, innermost(err)
}

// timedOut tells whether err means that the time of the probe ran out.
func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) ||
		errors.As(err, &t) && t.Timeout()
}

func classifyResolve(d *net.DNSError, err error, a *Attempt) (meshv1.Result_ErrorClass, string) {
	switch {
	case d.IsNotFound:
		return meshv1.Result_NAME_NOT_FOUND, "no such host; the name does not exist or has no address"
	case errors.Is(err, context.DeadlineExceeded) || d.IsTimeout && time.Since(a.Start()) >= a.Timeout():
		return meshv1.Result_TIMEOUT, "timed out after " + round(a.Timeout())
	}
	if class, reason, ok := classifyErrno(err, a); ok && class == meshv1.Result_PROBER {
		return class, reason
	}
	if to, err := netip.ParseAddrPort(d.Server); !hasNetwork() || err == nil && !routed(to.Addr().Unmap()) {
		return meshv1.Result_PROBER, "this prober's machine has no network, or no route to its resolver: " + d.Err
	}
	server := ""
	if d.Server != "" {
		server = " (resolver " + d.Server + ")"
	}
	return meshv1.Result_RESOLVER_FAILED, d.Err + server
}

// classifyErrno knows what the kernel says.
func classifyErrno(err error, a *Attempt) (meshv1.Result_ErrorClass, string, bool) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return 0, "", false
	}
	switch errno {
	case syscall.ECONNREFUSED:
		return meshv1.Result_CONNECTION_REFUSED, "connection refused", true
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED:
		return meshv1.Result_CONNECTION_RESET, "connection reset by peer", true
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN:
		if !hasNetwork() {
			return meshv1.Result_PROBER, "this prober has no network: no interface besides loopback is up", true
		}
		if to, err := netip.ParseAddrPort(a.Remote()); err == nil && !routed(to.Addr().Unmap()) {
			return meshv1.Result_PROBER, "this prober's machine has no route to that address", true
		}
		return meshv1.Result_UNREACHABLE, errno.Error(), true
	case syscall.EMFILE, syscall.ENFILE:
		return meshv1.Result_PROBER, "this prober has no file descriptor left (" + errno.Error() + "); raise its limit (ulimit -n)", true
	case syscall.ENOMEM:
		return meshv1.Result_PROBER, "this prober has no memory left for sockets (" + errno.Error() + ")", true
	case syscall.ENOBUFS: // for a packet: send(2), and net_xmit_errno of Linux, which sockets with IP_RECVERR are told of; for a socket: socket(2)
		return meshv1.Result_PROBER, "this prober's machine could not take it on: the send queue of its network interface is full, or the kernel is short of memory for sockets (" + errno.Error() + "); give the prober less to send, or raise txqueuelen", true
	case syscall.EADDRNOTAVAIL:
		return meshv1.Result_PROBER, "this prober has no local address or port left (" + errno.Error() + "); widen net.ipv4.ip_local_port_range", true
	case syscall.EPERM, syscall.EACCES:
		return meshv1.Result_PROBER, "this prober may not do that (" + errno.Error() + "); look at its firewall and its permissions", true
	case syscall.EAFNOSUPPORT:
		return meshv1.Result_PROBER, "this prober does not have that IP family (" + errno.Error() + ")", true
	}
	return meshv1.Result_UNREACHABLE, errno.Error(), true
}

// hasNetwork tells whether the prober has any network: an interface besides loopback that is up, not without its carrier, and has an address.
func hasNetwork() bool {
	interfaces, err := net.Interfaces()
	if err != nil {
		return true // not known: do not blame the prober
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagRunning == 0 {
			continue
		}
		if addrs, err := i.Addrs(); err != nil || len(addrs) > 0 {
			return true
		}
	}
	return false
}

// routed tells whether this machine can send to an address at all. That a router on the way has no route is not seen here: connecting a UDP socket asks the system, and sends nothing.
func routed(to netip.Addr) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err == nil {
		conn.Close()
		return true
	}
	// No route, or one with no address of ours to send from.
	return !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EADDRNOTAVAIL)
}

// HasFamily tells whether this machine has a route to the world over IPv4 (or, if v4 is false, IPv6), or at least an address of its own there besides
// loopback and link-local. Connecting a UDP socket looks up the route and sends nothing; the addresses are those of documentation (RFC 5737, RFC 3849).
func HasFamily(v4 bool) bool {
	network, somewhere := "udp6", "[2001:db8::1]:9"
	if v4 {
		network, somewhere = "udp4", "192.0.2.1:9"
	}
	if conn, err := net.Dial(network, somewhere); err == nil {
		conn.Close()
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap().Is4() == v4 && prefix.Addr().IsGlobalUnicast() {
			return true
		}
	}
	return false
}

// classifyTLS knows what a handshake can fail of.
func classifyTLS(err error) (meshv1.Result_ErrorClass, string, bool) {
	var (
		invalid   x509.CertificateInvalidError
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		header    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case errors.As(err, &invalid):
		return meshv1.Result_TLS, invalidReason(invalid), true
	case errors.As(err, &hostname):
		return meshv1.Result_TLS, fmt.Sprintf("the certificate is not for %s; it is for %s", hostname.Host, namesOf(hostname.Certificate)), true
	case errors.As(err, &authority):
		return meshv1.Result_TLS, untrusted(authority.Cert), true
	case errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/":
		return meshv1.Result_TLS, "the peer speaks plain HTTP on this port", true
	case errors.As(err, &header):
		return meshv1.Result_TLS, "the peer does not speak TLS on this port", true
	case errors.As(err, &alert):
		return meshv1.Result_TLS, "the peer refused the handshake: " + strings.TrimPrefix(alert.Error(), "tls: "), true
	}
	if m := err.Error(); strings.Contains(m, "remote error: tls: ") {
		_, m, _ = strings.Cut(m, "remote error: tls: ")
		return meshv1.Result_TLS, "the peer refused the handshake: " + m, true
	}
	var given *rejection
	if errors.As(err, &given) {
		return meshv1.Result_TLS, strings.TrimPrefix(given.Error(), "x509: "), true
	}
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		return meshv1.Result_TLS, strings.TrimPrefix(verification.Err.Error(), "x509: "), true
	}
	return 0, "", false
}

// untrusted says what to do about a certificate of an authority that is not trusted. c may be nil.
func untrusted(c *x509.Certificate) string {
	switch {
	case c == nil:
		return "the certificate is signed by an authority that is not trusted (its issuer); give tls.ca_pem if it is yours"
	case bytes.Equal(c.RawIssuer, c.RawSubject):
		return fmt.Sprintf("the certificate is signed by itself (%s), so nothing vouches for it; if it is yours, give tls.allow_self_signed, or the certificate in tls.ca_pem", c.Subject)
	}
	return fmt.Sprintf("the certificate is signed by an authority that is not trusted (%s); give its certificate in tls.ca_pem if it is yours", c.Issuer)
}

func invalidReason(e x509.CertificateInvalidError) string {
	if e.Reason == x509.Expired && e.Cert != nil {
		now := time.Now()
		if now.Before(e.Cert.NotBefore) {
			return fmt.Sprintf("the certificate of %s is not valid before %s", e.Cert.Subject, e.Cert.NotBefore.UTC().Format(time.DateTime))
		}
		return fmt.Sprintf("the certificate of %s expired on %s", e.Cert.Subject, e.Cert.NotAfter.UTC().Format(time.DateTime))
	}
	return strings.TrimPrefix(e.Error(), "x509: ")
}

// innermost is the message without the operations and addresses that the net package puts before it.
func innermost(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// round is a duration in few digits.
func round(d time.Duration) string {
	if d > time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}

// clip cuts a text at a number of bytes, leaving valid UTF-8.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// firstFrames is the beginning of a stack, short enough for an error.
func firstFrames(stack []byte) string {
	var out []string
	for line := range strings.SplitSeq(string(stack), "\n") {
		if strings.HasPrefix(line, "\t") && !strings.Contains(line, "runtime/") {
			out = append(out, strings.TrimSpace(line))
		}
		if len(out) == 4 {
			break
		}
	}
	return strings.Join(out, " < ")
}
