//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// webTarget is an HTTP server that can be stopped and started on the same port: stopped, its port refuses connections.
type webTarget struct {
	t       *testing.T
	address string
	handler http.Handler
	server  *http.Server
	done    chan struct{}
}

func startWebTarget(t *testing.T, handler http.HandlerFunc) *webTarget {
	t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "fine") }
	}
	w := &webTarget{t: t, address: quietAddress(t), handler: handler}
	// A mesh of another test may take the port between its being found free and being used.
	for range 5 {
		l, err := net.Listen("tcp", w.address)
		if err == nil {
			l.Close()
			break
		}
		w.address = quietAddress(t)
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *webTarget) url() string { return "http://" + w.address + "/" }

func (w *webTarget) start() {
	w.t.Helper()
	l, err := net.Listen("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.server, w.done = &http.Server{Handler: w.handler}, make(chan struct{})
	go func(s *http.Server, done chan struct{}) {
		defer close(done)
		_ = s.Serve(l)
	}(w.server, w.done)
}

// stop closes the listener and every connection. It may be called twice.
func (w *webTarget) stop() {
	w.server.Close()
	<-w.done
}

// swallower is a TCP server that can stop accepting so thoroughly that the kernel drops the packets of whoever connects: its listen queue is full.
type swallower struct {
	t       *testing.T
	address string
	fd      int

	mu     sync.Mutex
	dead   bool
	filler []net.Conn
}

func startSwallower(t *testing.T) *swallower {
	t.Helper()
	return startSwallowerOn(t, [4]byte{127, 0, 0, 1})
}

// startSwallowerOn is startSwallower on an address of its own.
func startSwallowerOn(t *testing.T, ip [4]byte) *swallower {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: ip}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	s := &swallower{t: t, fd: fd, address: fmt.Sprintf("%d.%d.%d.%d:%d", ip[0], ip[1], ip[2], ip[3], name.(*syscall.SockaddrInet4).Port)}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				s.acceptAll()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		for _, c := range s.filler {
			c.Close()
		}
		syscall.Close(fd)
	})
	return s
}

func (s *swallower) acceptAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.dead {
		c, _, err := syscall.Accept(s.fd)
		if err != nil {
			return
		}
		syscall.Close(c)
	}
}

// die fills the listen queue: from now on the first packet of every connection is dropped.
func (s *swallower) die() {
	s.t.Helper()
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	for range 20 {
		c, err := net.DialTimeout("tcp", s.address, 150*time.Millisecond)
		if err != nil {
			return
		}
		s.filler = append(s.filler, c)
	}
	s.t.Fatal("the kernel goes on accepting connections although the listen queue is full")
}
