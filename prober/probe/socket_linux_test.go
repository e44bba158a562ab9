package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full is a listener whose queue is full: who connects waits until somebody accepts.
func full(t *testing.T) (at netip.AddrPort, accept func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	first, err := open(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return at, func() {
		taken, _, err := unix.Accept(fd)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = unix.Close(taken) })
	}
}

func TestASocketThatHasToWaitEndsWithItsContext(t *testing.T) {
	at, accept := full(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := open(ctx, "tcp", at); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("past its deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := open(ctx, "tcp", at); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, accept) // the system asks for the connection again after a second
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := open(ctx, "tcp", at)
	if err != nil {
		t.Fatalf("after the listener has accepted: %v", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Errorf("the deadline of connecting bounds writing: %v", err)
	}
}

func TestAClosedPortRefusesAndIsNeverConnectedToItself(t *testing.T) {
	// Linux listens on odd ports and connects from even ones as long as there are any.
	var at netip.AddrPort
	for !at.IsValid() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		odd := netip.MustParseAddrPort(l.Addr().String())
		even := netip.AddrPortFrom(odd.Addr(), odd.Port()^1)
		if free, err := net.Listen("tcp", even.String()); err == nil {
			free.Close()
			at = even
		}
		l.Close()
	}
	for i := range 30_000 { // more than there are such ports: this one is among them
		conn, err := open(t.Context(), "tcp", at)
		if err == nil {
			t.Fatalf("attempt %d is connected from %s to %s, where nobody listens", i, conn.LocalAddr(), conn.RemoteAddr())
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

func TestASocketSpeaksAsOneOfPackageNetDoes(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.Copy(c, io.LimitReader(c, 3))
		}()
		conn, err := open(t.Context(), "tcp", netip.MustParseAddrPort(l.Addr().String()))
		if err != nil {
			t.Fatal(err)
		}
		if own, peer := conn.LocalAddr().String(), conn.RemoteAddr().String(); own == peer || peer != l.Addr().String() {
			t.Errorf("from %s to %s", own, peer)
		}
		if err := conn.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading past a deadline: %v", err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = conn.Write([]byte("abc"))
		text, failed := io.ReadAll(conn)
		if err != nil || failed != nil || !bytes.Equal(text, []byte("abc")) {
			t.Errorf("%q, %v, %v", text, err, failed)
		}
		conn.Close()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading after Close: %v", err)
		}
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closing twice: %v", err)
		}
	}
}

func TestClosingASocketEndsItsReading(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := open(t.Context(), "tcp", netip.MustParseAddrPort(l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	time.AfterFunc(20*time.Millisecond, func() { conn.Close() })
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ended by %v", err)
	}
}

func TestAnEmptyDatagramIsNoEnd(t *testing.T) {
	peer, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	conn, err := open(t.Context(), "udp", netip.MustParseAddrPort(peer.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	for _, payload := range []string{"", "text"} {
		if _, err := peer.WriteTo([]byte(payload), conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		var b [16]byte
		if n, err := conn.Read(b[:]); err != nil || string(b[:n]) != payload {
			t.Errorf("%q, %v; %q was sent", b[:n], err, payload)
		}
	}
}
