// Command bare is what a prober is compared with: a loop that does the same to a target as a probe, over a new connection each time, and nothing else. It knows no checks, measures no phases and
// keeps no results.
//
//	bare KIND TARGET [CA.pem]
//
// TARGET of kind tcp may be several addresses with commas between, which take turns. For each line `RATE AT_ONCE SECONDS` on its standard input it runs for so long and prints how many it made: with rate 0 as many as AT_ONCE goroutines can, each as soon as it is done with the
// one before; else RATE a second at even distances. The first fault ends it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const timeout = 5 * time.Second

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: bare KIND TARGET [CA.pem]")
	}
	once, err := pick(os.Args[1], os.Args[2], os.Args[3:])
	if err != nil {
		log.Fatal(err)
	}
	for in := bufio.NewReader(os.Stdin); ; {
		var rate, atOnce int
		var seconds float64
		if _, err := fmt.Fscanln(in, &rate, &atOnce, &seconds); err != nil {
			return
		}
		fmt.Println(loop(once, rate, atOnce, time.Duration(seconds*float64(time.Second))))
	}
}

// loop makes requests for a while and gives their number.
func loop(once func() error, rate, atOnce int, d time.Duration) (made int64) {
	begin := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	for range atOnce {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if rate > 0 {
					due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
					if due.Sub(begin) >= d {
						return
					}
					time.Sleep(time.Until(due))
				} else if time.Since(begin) >= d {
					return
				}
				if err := once(); err != nil {
					log.Fatal(err)
				}
				atomic.AddInt64(&made, 1)
			}
		})
	}
	group.Wait()
	return made
}

// pick is what is done once.
func pick(kind, target string, rest []string) (func() error, error) {
	switch kind {
	case "http":
		return get(target, &tls.Config{}), nil
	case "https", "resumed":
		pem, err := os.ReadFile(rest[0])
		if err != nil {
			return nil, err
		}
		config := &tls.Config{RootCAs: x509.NewCertPool()}
		config.RootCAs.AppendCertsFromPEM(pem)
		if kind == "resumed" {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		return get(target, config), nil
	case "minimal":
		return minimal(target)
	case "tcp":
		targets := strings.Split(target, ",")
		var next atomic.Int64
		return func() error {
			conn, err := net.DialTimeout("tcp", targets[int(next.Add(1))%len(targets)], timeout)
			if err != nil {
				return err
			}
			return conn.Close()
		}, nil
	case "dns":
		return func() error { return ask(target) }, nil
	case "icmp":
		return func() error { return ping(net.ParseIP(target)) }, nil
	case "grpc":
		return func() error { return health(target) }, nil
	}
	return nil, fmt.Errorf("kind %q is none of http, https, resumed, minimal, tcp, dns, icmp, grpc", kind)
}

// get requests a page with net/http.
func get(target string, config *tls.Config) func() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}, Timeout: timeout}
	return func() error {
		resp, err := client.Get(target)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// minimal requests a page as the smallest client does that still reads the whole answer: it writes a fixed text and looks at the status.
func minimal(target string) (func() error, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	request := []byte("GET " + u.Path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: bare\r\nConnection: close\r\n\r\n")
	buffers := sync.Pool{New: func() any { return new([4096]byte) }}
	return func() error {
		conn, err := net.DialTimeout("tcp", u.Host, timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(timeout))
		if _, err := conn.Write(request); err != nil {
			return err
		}
		buffer, _ := buffers.Get().(*[4096]byte)
		defer buffers.Put(buffer)
		filled := 0
		for err == nil {
			var n int
			n, err = conn.Read(buffer[filled:])
			filled += n
		}
		if !errors.Is(err, io.EOF) || !bytes.HasPrefix(buffer[:filled], []byte("HTTP/1.1 200 ")) {
			return fmt.Errorf("%q, %w", buffer[:filled], err)
		}
		return nil
	}, nil
}

// ask asks a server for an address over a new socket.
func ask(server string) error {
	conn, err := net.DialTimeout("udp", server, timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(timeout))
	q := new(dns.Msg)
	q.SetQuestion("one.example.", dns.TypeA)
	wire := &dns.Conn{Conn: conn}
	if err := wire.WriteMsg(q); err != nil {
		return err
	}
	m, err := wire.ReadMsg()
	if err != nil {
		return err
	}
	if m.Id != q.Id || m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return fmt.Errorf("the answer is %s", m)
	}
	return nil
}

var echoes atomic.Int64

// ping sends one echo request over a new socket and waits for its reply.
func ping(to net.IP) error {
	var at net.Addr = &net.UDPAddr{IP: to}
	conn, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		at = &net.IPAddr{IP: to}
		if conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0"); err != nil {
			return err
		}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(timeout))
	i := echoes.Add(1)
	id, seq := int(i>>16&0xffff)^os.Getpid()&0xffff, int(i&0xffff)
	request := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: seq, Data: make([]byte, 56)}}
	b, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(b, at); err != nil {
		return err
	}
	var buffer [256]byte
	for {
		n, _, err := conn.ReadFrom(buffer[:])
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(ipv4.ICMPTypeEchoReply.Protocol(), buffer[:n])
		if err != nil || m.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		// A socket for pings has a number of its own and sees no others' replies.
		if e, ok := m.Body.(*icmp.Echo); ok && e.Seq == seq {
			return nil
		}
	}
}

// health asks the health service over a new connection.
func health(target string) error {
	conn, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return errors.New(r.GetStatus().String())
	}
	return nil
}
