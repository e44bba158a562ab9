package http

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// security is how the check meets hosts by TLS. It does not change.
type security struct {
	own, others *tls.Config // for the check's own host, and without its secrets for others
	named       *tls.Config // own with the name of the check's host, for connections without a transport; nil when its URL is http
}

// mayStayClear tells whether probes need TLS only if a redirect leads to it, and the check asks for nothing special of it. Then nothing of it can be wrong, so that it need
// not be made before: it is more than all else of a plain check, of which a prober may have many thousands.
func (r *runner) mayStayClear() bool {
	t := r.options.GetTls()
	usual := t == nil || proto.Equal(t, &meshv1.TlsConfig{MinVersion: spec.DefaultMinVersion})
	return usual && r.url.Scheme == "http" && r.isPlain() && !r.options.GetKeepAlive()
}

// newSecurity makes what TLS needs of the options of the check, in common with all checks that ask the same of the same host, but for the sessions that one keeps. The error says which option is not valid.
func (r *runner) newSecurity(env probe.Env) (*security, error) {
	if r.options.GetTls().GetResumeSessions() {
		return r.compileSecurity(env)
	}
	text := fmt.Sprintf("%s\x00%s\x00%t\x00%q\x00%s", r.url.Scheme, r.url.Hostname(), r.isPlain(), r.alpn(), probe.Text(r.options.GetTls()))
	return probe.Share(env.Shared, "http.security", text, func() (*security, error) { return r.compileSecurity(env) })
}

func (r *runner) compileSecurity(env probe.Env) (*security, error) {
	options := r.options.GetTls()
	// A certificate that is signed by itself is verified by the policy, which must know the name.
	name := ""
	if options.GetAllowSelfSigned() {
		name = r.url.Hostname()
	}
	s := &security{}
	var err error
	if s.own, err = env.TLSConfig(options, name); err != nil {
		return nil, err
	}
	s.others = s.own
	if strangers := withoutSecrets(options); !proto.Equal(options, strangers) {
		if s.others, err = env.TLSConfig(strangers, ""); err != nil {
			return nil, err
		}
	}
	if r.url.Scheme == "https" && r.isPlain() {
		s.named = named(s.own, r.url.Hostname(), r.alpn())
	}
	return s, nil
}

// security is what TLS needs, made now if it was not before: see mayStayClear.
func (r *runner) security() (*security, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secured != nil {
		return r.secured, nil
	}
	var err error
	r.secured, err = r.newSecurity(probe.Env{}) // an environment is for trusted certificates, of which there are none: see mayStayClear
	return r.secured, err
}

// handshake begins TLS over a connection to the host of a URL. The connection stays the caller's to close when it fails.
func (v *visit) handshake(conn net.Conn, u *url.URL, own bool) (*tls.Conn, error) {
	s, err := v.security()
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	switch {
	case own && s.named != nil:
		config = s.named
	case own:
		config = named(s.own, u.Hostname(), v.alpn())
	default:
		config = named(s.others, u.Hostname(), v.alpn())
	}
	if v.a.Options().Fresh {
		config = probe.Anew(config)
	}
	return probe.Handshake(v.base, v.a, conn, config)
}

// named is a configuration for one host, unless it has a name already.
func named(config *tls.Config, host string, alpn []string) *tls.Config {
	config = config.Clone()
	config.NextProtos = alpn
	if config.ServerName == "" {
		config.ServerName = host
	}
	return config
}

// withoutSecrets are the TLS options that other hosts than the check's own are met with: nothing that is about who that one is.
func withoutSecrets(t *meshv1.TlsConfig) *meshv1.TlsConfig {
	if t == nil {
		return nil
	}
	out := proto.CloneOf(t)
	out.ServerName, out.ClientCertificatePem, out.ClientKeyPem, out.CertificatePins, out.PublicKeyPins, out.AllowSelfSigned = "", "", "", nil, nil, false
	return out
}
