package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSFiles names PEM files. They are read once.
type TLSFiles struct {
	// CA holds the certificates to trust. For a client: instead of the system's roots. For a server: those that may sign clients, which then
	// must have a certificate.
	CA string
	// Certificate is the chain to present. Needed by a server; makes a client's connection mutual.
	Certificate string
	// Key is the private key of Certificate.
	Key string
	// ServerName, for a client, is the name to verify instead of the host of the address.
	ServerName string
}

// ServerTLS reads what a server needs to speak TLS 1.3 (1.2 at least). Without files it returns nil: plain text.
func ServerTLS(f TLSFiles) (*tls.Config, error) {
	if f.Certificate == "" && f.Key == "" && f.CA == "" {
		return nil, nil
	}
	if f.Certificate == "" || f.Key == "" {
		return nil, errors.New("TLS of a server needs a certificate and its key; give both files")
	}
	c, err := f.config()
	if err != nil {
		return nil, err
	}
	if c.RootCAs != nil {
		c.ClientCAs, c.RootCAs, c.ClientAuth = c.RootCAs, nil, tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// ClientTLS reads what a client needs to speak TLS. Without files it trusts the system's roots.
func ClientTLS(f TLSFiles) (*tls.Config, error) {
	if (f.Certificate == "") != (f.Key == "") {
		return nil, errors.New("a client certificate and its key belong together; give both files or none")
	}
	return f.config()
}

func (f TLSFiles) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate %s and the key %s: %w; give the two files in PEM that belong to each other", f.Certificate, f.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read the certificates to trust: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate; give a file with at least one", f.CA)
		}
	}
	return c, nil
}
