package peer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mesh"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, key := a.sign(template)
	a.key = key
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

// issue gives a certificate that is valid for use by clients and servers, for 127.0.0.1 or for a name.
func (a *authority) issue(name string, usage ...x509.ExtKeyUsage) tls.Certificate {
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, key := a.sign(template)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Probers have certificates of the same authority as servers. Theirs must not let them pass for one.
func TestAProbersCertificateDoesNotOpenTheStreamsBetweenServers(t *testing.T) {
	a := newAuthority(t)
	server := a.issue("127.0.0.1", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
	prober := a.issue("prober-1", x509.ExtKeyUsageClientAuth)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &benchHost{list: []*statev1.ServerRecord{{Name: "servers/a", GrpcAddress: socket.Addr().String(), BootId: "a1"}, {Name: "servers/b", GrpcAddress: "127.0.0.1:1", BootId: "b1"}}}
	dial := func(c tls.Certificate, address string) *grpc.ClientConn {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{c}, RootCAs: a.pool})))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	p, err := New(Config{Server: "a", BootID: "a1", Dir: t.TempDir()}, Deps{Log: slog.New(slog.DiscardHandler), Meter: noop.Meter{}, History: h,
		Dial: func(address string) (*grpc.ClientConn, error) { return dial(server, address), nil }})
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert})))
	p.Register(s)
	go s.Serve(socket)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, h) }()
	defer func() {
		cancel()
		<-ended
		s.Stop()
	}()
	for _, c := range []struct {
		who  string
		cert tls.Certificate
		ok   bool
	}{{"a server", server, true}, {"a prober", prober, false}} {
		conn := dial(c.cert, socket.Addr().String())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stream, err := peerv1.NewPeerServiceClient(conn).Follow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&peerv1.FollowRequest{Message: &peerv1.FollowRequest_Start{Start: &peerv1.Start{Server: "servers/b", BootId: "b1", Protocol: 1}}}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		switch {
		case c.ok && (err != nil || m.GetStarted().GetServer() != "servers/a"):
			t.Errorf("%s was answered %v: %v", c.who, m, err)
		case !c.ok && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "only servers may follow")):
			t.Errorf("%s was answered %v: %v", c.who, m, err)
		}
		cancel()
		conn.Close()
	}
	// What the system says of a port where nobody listens is understood.
	for {
		views, changed := p.Watch()
		if len(views) == 1 && views[0].Refused {
			break
		}
		<-changed
	}
}
