package probe

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestSessionsOfFewHostsAreKeptForSoManyHandshakes(t *testing.T) {
	s := newSessions(3)
	state := &tls.ClientSessionState{}
	for i, want := range []bool{false, true, true, false, true, true, false} {
		if _, ok := s.Get("a"); ok != want {
			t.Errorf("handshake %d: resumed %v", i, ok)
		}
		s.Put("a", state) // a new ticket comes with every handshake, and does not begin the count again
	}
	for i := range 100 {
		s.Put(fmt.Sprint(i), state)
	}
	if len(s.hosts) != maxSessionHosts {
		t.Errorf("%d hosts", len(s.hosts))
	}
	s.Put("a", nil)
	if _, ok := s.Get("a"); ok {
		t.Error("a session that was taken back is resumed")
	}
	never := newSessions(1)
	if never.Put("a", state); len(never.hosts) > 0 {
		t.Error("a session is kept that is never resumed")
	}
}

func TestNoSessionOutlivesWhatIsDemandedOfItsChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions(100)
		for _, host := range []string{"a", "b"} {
			s.Put(host, &tls.ClientSessionState{})
		}
		s.full(time.Now().Add(2 * time.Hour))
		s.full(time.Now().Add(time.Hour))
		time.Sleep(time.Hour - 1)
		if _, ok := s.Get("a"); !ok {
			t.Error("a session is not resumed that could be")
		}
		time.Sleep(time.Nanosecond)
		for _, host := range []string{"a", "b"} {
			if _, ok := s.Get(host); ok {
				t.Errorf("the session with %s is resumed too late", host)
			}
		}
		s.full(time.Now().Add(3 * time.Hour))
		s.Put("a", &tls.ClientSessionState{})
		time.Sleep(2 * time.Hour)
		if _, ok := s.Get("a"); !ok {
			t.Error("the end of what was forgotten still counts")
		}
	})
}

// samplePEM is an authority.
func samplePEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestTrustedCertificatesAreSharedByThePEMAndForgottenWithTheirLastCheck(t *testing.T) {
	text := samplePEM(t)
	env := Env{Shared: NewShared()}
	one, err := env.TLSConfig(&meshv1.TlsConfig{CaPem: text}, "a")
	if err != nil {
		t.Fatal(err)
	}
	two, err := env.TLSConfig(&meshv1.TlsConfig{CaPem: text}, "b")
	if err != nil || one.RootCAs != two.RootCAs || env.Shared.size() != 1 {
		t.Fatalf("two pools of the same PEM: %v", err)
	}
	if other, err := TLSConfig(&meshv1.TlsConfig{CaPem: text}, "b"); err != nil || other.RootCAs == two.RootCAs {
		t.Errorf("a pool is shared without Shared: %v", err)
	}
	if _, err := env.TLSConfig(&meshv1.TlsConfig{CaPem: "x"}, "c"); err == nil || env.Shared.size() != 1 {
		t.Errorf("a PEM that is none: %v", err)
	}
	runtime.KeepAlive(one)
	runtime.KeepAlive(two)
	one, two = nil, nil
	for end := time.Now().Add(10 * time.Second); env.Shared.size() > 0; {
		if time.Now().After(end) {
			t.Fatal("the pool is remembered although no check uses it")
		}
		runtime.GC()
		runtime.Gosched()
	}
	// The system's pool is that of crypto/x509, which loads it once a process: nothing is loaded for a check.
	if system, err := env.TLSConfig(nil, "a"); err != nil || system.RootCAs != nil {
		t.Errorf("%v, %v", system, err)
	}
}
