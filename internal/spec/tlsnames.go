package spec

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TLSVersion is the number of a TLS version given as text: "1.2" is tls.VersionTLS12.
func TLSVersion(s string) (uint16, bool) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, true
	case "1.1":
		return tls.VersionTLS11, true
	case "1.2":
		return tls.VersionTLS12, true
	case "1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
}

// TLSVersions are the lowest and the highest version that valid options offer: those of min_version and max_version for which cipher_suites has a suite. When none is left, the
// lowest is above the highest.
func TLSVersions(t *meshv1.TlsConfig) (least, most uint16) {
	least, _ = TLSVersion(cmp.Or(t.GetMinVersion(), DefaultMinVersion))
	most, _ = TLSVersion(cmp.Or(t.GetMaxVersion(), "1.3"))
	if len(t.GetCipherSuites()) == 0 {
		return least, most
	}
	new13, old := false, false
	for _, name := range t.GetCipherSuites() {
		if suite, _, ok := CipherSuite(name); ok && slices.Contains(suite.SupportedVersions, tls.VersionTLS13) {
			new13 = true
		} else if ok {
			old = true
		}
	}
	if !new13 {
		most = min(most, tls.VersionTLS12)
	}
	if !old {
		least = max(least, tls.VersionTLS13)
	}
	return least, most
}

// CipherSuite is the cipher suite of an IANA name. weak ones are known and must not be offered.
func CipherSuite(name string) (suite *tls.CipherSuite, weak, ok bool) {
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			return s, false, true
		}
	}
	for _, s := range tls.InsecureCipherSuites() {
		if s.Name == name {
			return s, true, true
		}
	}
	return nil, false, false
}

// TLSGroup is the number of a key exchange group by the name that [TLSGroupName] gives it.
func TLSGroup(name string) (tls.CurveID, bool) {
	for _, g := range tlsGroups() {
		if TLSGroupName(g) == name {
			return g, true
		}
	}
	return 0, false
}

// tlsGroups are the key exchange groups that Go speaks.
func tlsGroups() []tls.CurveID {
	return []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

func tlsGroupNames() []string {
	var names []string
	for _, g := range tlsGroups() {
		names = append(names, TLSGroupName(g))
	}
	return names
}

// TLSGroupName is the name of a key exchange group: that of the curve where it is one, else IANA's; empty for none.
func TLSGroupName(g tls.CurveID) string {
	switch g {
	case 0:
		return ""
	case tls.CurveP256:
		return "P-256"
	case tls.CurveP384:
		return "P-384"
	case tls.CurveP521:
		return "P-521"
	}
	return g.String()
}

// SignatureAlgorithm is a signature algorithm by the name that x509 gives it. Only those are known that still verify.
func SignatureAlgorithm(name string) (x509.SignatureAlgorithm, bool) {
	for _, a := range signatureAlgorithms() {
		if a.String() == name {
			return a, true
		}
	}
	return 0, false
}

func signatureAlgorithms() []x509.SignatureAlgorithm {
	return []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519}
}

func signatureAlgorithmNames() []string {
	var names []string
	for _, a := range signatureAlgorithms() {
		names = append(names, a.String())
	}
	return names
}

// CertificatePin is the SHA-256 fingerprint of a certificate, from hex in either case with or without colons.
func CertificatePin(text string) (sum [sha256.Size]byte, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("%q is not a SHA-256 fingerprint: that has 64 hex digits, as openssl x509 -fingerprint -sha256 prints it", clip(text))
	}
	return [sha256.Size]byte(raw), nil
}

// PublicKeyPin is the SHA-256 of a public key, from base64 with or without "sha256//" before it.
func PublicKeyPin(text string) (sum [sha256.Size]byte, err error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "sha256//"))
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("%q is not the SHA-256 of a public key in base64: that has 44 characters (curl takes it as --pinnedpubkey, after sha256//)", clip(text))
	}
	return [sha256.Size]byte(raw), nil
}

// SCTLogKey is the public key of a certificate transparency log, and the id that its timestamps bear, from the base64 of the log lists.
func SCTLogKey(text string) (key crypto.PublicKey, id [sha256.Size]byte, err error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, id, errors.New("is not base64; write the key of the log as in the log lists of browsers")
	}
	key, err = x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, id, errors.New("is not a public key in DER; write the key of the log as in the log lists of browsers")
	}
	switch key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
		return key, sha256.Sum256(der), nil
	}
	return nil, id, errors.New("is neither an ECDSA nor an RSA key, and logs have no others")
}

// StartTLSProtocols are the protocols in which a check of kind tls may begin, in alphabetical order.
func StartTLSProtocols() []string {
	return []string{"ftp", "imap", "ldap", "lmtp", "mysql", "nntp", "pop3", "postgres", "sieve", "smtp", "xmpp", "xmpp-server"}
}

// StartTLSPort is the port on which a protocol with STARTTLS is usually spoken.
func StartTLSPort(protocol string) (port uint16, ok bool) {
	switch protocol {
	case "ftp":
		return 21, true
	case "imap":
		return 143, true
	case "ldap":
		return 389, true
	case "lmtp":
		return 24, true
	case "mysql":
		return 3306, true
	case "nntp":
		return 119, true
	case "pop3":
		return 110, true
	case "postgres":
		return 5432, true
	case "sieve":
		return 4190, true
	case "smtp":
		return 25, true
	case "xmpp":
		return 5222, true
	case "xmpp-server":
		return 5269, true
	}
	return 0, false
}
