package tcp_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tcp"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mail speaks SMTP as far as the tests need it: a greeting, EHLO, STARTTLS, QUIT.
func mail(config *tls.Config) func(net.Conn) {
	return func(c net.Conn) {
		fmt.Fprint(c, "220 mail.example.com ESMTP\r\n")
		lines := bufio.NewReader(c)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			switch verb, rest, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
			case "EHLO":
				fmt.Fprintf(c, "250-mail.example.com greets %s\r\n250-STARTTLS\r\n250 OK\r\n", rest)
			case "STARTTLS":
				fmt.Fprint(c, "220 go ahead\r\n")
				secure := tls.Server(c, config)
				if secure.Handshake() != nil {
					return
				}
				c, lines = secure, bufio.NewReader(secure)
			case "QUIT":
				fmt.Fprint(c, "221 bye\r\n")
				return
			default:
				fmt.Fprint(c, "500 what?\r\n")
			}
		}
	}
}

func TestADialogueGoesThroughSTARTTLSToAnOrderlyEnd(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, 24*time.Hour, "127.0.0.1")
	address := probetest.Listen(t, mail(&tls.Config{Certificates: []tls.Certificate{pair}})) //nolint:gosec // for a test
	steps := []*meshv1.DialogueStep{
		{Name: "greeting", Expect: `^220 (?P<host>\S+) `, Reject: "^[45]"},
		{Name: "hello", Send: "EHLO ${host}\r\n", Expect: "^250[ -]STARTTLS$"},
		{Name: "upgrade", Send: "STARTTLS\r\n", Expect: "^220 ", Reject: "^[45]", Starttls: true},
		{Name: "again", Send: "EHLO ${host}\r\n", Expect: "^250 ", Timeout: durationpb.New(3 * time.Second)},
		{Name: "bye", Send: "QUIT\r\n", Expect: "^221 ", ExpectClose: true},
	}
	r := run(t, address, &meshv1.TcpProbe{Steps: steps, Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{`response.captures.host == "mail.example.com"`, `response.tls.version == "1.3"`,
		`response.body.contains("greets mail.example.com")`}})
	probetest.OK().Match(t, r)
	if r.Tcp.GetStepsDone() != 5 || r.Tcp.GetBytesSent() != int64(len("EHLO mail.example.com\r\nSTARTTLS\r\nEHLO mail.example.com\r\nQUIT\r\n")) || r.Timings.Handshake == nil || len(r.Steps) != 5 || r.Steps[2].Name != "upgrade" {
		t.Errorf("got %v", r)
	}
	r = run(t, address, &meshv1.TcpProbe{Steps: steps})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "step upgrade: TLS handshake with").Match(t, r)
	if r.Tcp.GetFailedStep() != "upgrade" || r.Tcp.GetStepsDone() != 2 {
		t.Errorf("got %v", r.Tcp)
	}
	for _, o := range []*meshv1.TcpProbe{{}, {Steps: []*meshv1.DialogueStep{{Send: "QUIT\r\n", Expect: "^221"}}}, {Send: "QUIT\r\n", Expect: []string{`response.body == "221 bye\r\n"`}}} {
		o.Starttls, o.Tls = "smtp", &meshv1.TlsConfig{CaPem: ca.PEM}
		r = run(t, address, o)
		probetest.OK().Match(t, r)
		if r.Tls == nil {
			t.Error("nothing is told of TLS")
		}
	}
	plain := probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "* OK IMAP4rev2\r\n"); probetest.Hang(c) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "STARTTLS (smtp) with").Match(t, run(t, plain, &meshv1.TcpProbe{Starttls: "smtp"}))
	ahead := probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "220 go\r\n250 EVIL\r\n"); probetest.Hang(c) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, `step 1: the peer sent 10 bytes in the clear ahead of the TLS handshake: "250 EVIL\r\n"`).
		Match(t, run(t, ahead, &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: "^220", Starttls: true}}}))
}

func TestTLSMayBeginWithTheFirstByte(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, 24*time.Hour, "127.0.0.1")
	address := probetest.Listen(t, func(c net.Conn) {
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}) //nolint:gosec // for a test
		defer secure.Close()
		_, _ = io.Copy(secure, secure)
	})
	options := &meshv1.TlsConfig{CaPem: ca.PEM}
	r := run(t, address, &meshv1.TcpProbe{UseTls: true, Tls: options})
	probetest.OK().Match(t, r)
	if r.Tls == nil {
		t.Error("nothing is told of TLS")
	}
	probetest.OK().Match(t, run(t, address, &meshv1.TcpProbe{UseTls: true, Tls: options, SendBytes: []byte("a\x00b"), Expect: []string{`response.body == "a\x00b"`, `response.tls.days_left == 0`}}))
	probetest.OK().Match(t, run(t, address, &meshv1.TcpProbe{UseTls: true, Tls: options, Steps: []*meshv1.DialogueStep{{SendBytes: []byte{0, 0xff, 1}, ExpectBytes: []byte{0, 0xff, 1}}}}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted").Match(t, run(t, address, &meshv1.TcpProbe{UseTls: true}))
}

func TestUnixSocketsAreConnectedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello from here\n")
			c.Close()
		}
	}()
	uri := "unix://" + strings.ReplaceAll(path, " ", "%20")
	once := func(uri string, o *meshv1.TcpProbe) *meshv1.Result {
		return probetest.Run(t, tcp.Compile, uri, 5*time.Second, probe.Options{}, func(c *meshv1.Check) { c.Tcp = o })
	}
	r := once(uri, nil)
	probetest.OK().Match(t, r)
	if r.RemoteAddress != path || r.Timings.Connect == nil || r.Timings.Resolve != nil {
		t.Errorf("got %v", r)
	}
	probetest.OK().Match(t, once(uri, &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: "^hello (?P<whence>.*)$", ExpectClose: true}}, Expect: []string{`response.captures.whence == "from here"`}}))
	l.Close()
	<-done
	probetest.Fail(meshv1.Result_UNREACHABLE, meshv1.Result_CONNECT, "no such file or directory").Match(t, once(uri, nil))
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connect to "+path+": connection refused").Match(t, once(uri, nil))
}

func TestWhatComesInsteadNamesTheStep(t *testing.T) {
	says := func(text string, then func(net.Conn)) string {
		return probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, text); then(c) })
	}
	closes := func(net.Conn) {}
	short := durationpb.New(150 * time.Millisecond)
	expectation := func(sentence string) probetest.Want {
		return probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, sentence)
	}
	for name, c := range map[string]struct {
		address string
		step    *meshv1.DialogueStep
		want    probetest.Want
	}{
		"other lines":            {says("a\nb\n", probetest.Hang), &meshv1.DialogueStep{Name: "x", Expect: "^c$", Timeout: short}, expectation(`step x: expected ^c$, and "a\nb\n" came within 150ms`)},
		"other lines, then end":  {says("a\nb\n", closes), &meshv1.DialogueStep{Expect: "^c$"}, expectation(`step 1: expected ^c$, and "a\nb\n" came before the peer closed the connection`)},
		"a rejected line":        {says("a\nb\n", probetest.Hang), &meshv1.DialogueStep{Expect: "^c$", Reject: "^b"}, expectation(`"b" came, which is rejected (^b)`)},
		"a line without its end": {says("abc", probetest.Hang), &meshv1.DialogueStep{Expect: "^abc", Timeout: short}, expectation(`"abc" came within`)},
		"the last line":          {says("a\nabc", closes), &meshv1.DialogueStep{Expect: "^abc$"}, probetest.OK()},
		"a prompt":               {says("a\nlogin: ", probetest.Hang), &meshv1.DialogueStep{Expect: "login: $", Match: meshv1.DialogueStep_TEXT}, probetest.OK()},
		"bytes":                  {says("\x00\xff\xfe", probetest.Hang), &meshv1.DialogueStep{Expect: `^\x00\xff\xfe$`, Match: meshv1.DialogueStep_BYTES}, probetest.OK()},
		"rejected text":          {says("a\nno: ", probetest.Hang), &meshv1.DialogueStep{Expect: "login: $", Reject: "no", Match: meshv1.DialogueStep_TEXT}, expectation("which is rejected")},
		"literal":                {says("abcd", probetest.Hang), &meshv1.DialogueStep{ExpectBytes: []byte("abc")}, probetest.OK()},
		"other literal":          {says("abd", probetest.Hang), &meshv1.DialogueStep{ExpectBytes: []byte("abcd")}, expectation(`expected "abcd", and "abd" came`)},
		"half a literal":         {says("ab", closes), &meshv1.DialogueStep{ExpectBytes: []byte("abc")}, expectation(`"ab" came before the peer closed`)},
		"silence":                {says("", probetest.Hang), &meshv1.DialogueStep{Expect: "x", Timeout: short}, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "step 1: timed out after 150ms")},
		"nothing":                {says("", closes), &meshv1.DialogueStep{Expect: "x"}, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "closed the connection instead of answering")},
		"no close":               {says("x", probetest.Hang), &meshv1.DialogueStep{ExpectClose: true, Timeout: short}, expectation("the peer did not close the connection within 150ms")},
		"close":                  {says("x", closes), &meshv1.DialogueStep{ExpectClose: true}, probetest.OK()},
		"capture":                {says("{\"a\": 1}\n", closes), &meshv1.DialogueStep{Expect: "a", Capture: []*meshv1.Capture{{Name: "b", JsonPath: "b"}}}, expectation("capture b: b is not in the JSON")},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, c.address, &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{c.step}})
			c.want.Match(t, r)
			if c.want.Outcome == meshv1.Result_FAIL && r.Tcp.GetFailedStep() == "" {
				t.Error("the step is not named")
			}
		})
	}
}

func TestWhatIsLeftOfAMatchIsForTheNextStep(t *testing.T) {
	address := probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "one\r\ntwo three\nfour;five"); probetest.Hang(c) })
	r := run(t, address, &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{
		{Expect: "^one$"},
		{Expect: "two", Match: meshv1.DialogueStep_TEXT},
		{ExpectBytes: []byte(" thr")},
		{Expect: "^ee$"},
		{Expect: "^(?P<n>[a-z]+);", Match: meshv1.DialogueStep_BYTES, Capture: []*meshv1.Capture{{Name: "whole"}}},
		{ExpectBytes: []byte("five")},
	}, Expect: []string{`response.captures.n == "four"`, `response.captures.whole == "four;"`}})
	probetest.OK().Match(t, r)
}

// TestHostilePeersAreBoundedInEveryWayToMatch holds each probe to its time (probetest.Run) and to its limits, in the middle of a dialogue.
func TestHostilePeersAreBoundedInEveryWayToMatch(t *testing.T) {
	write := func(text string, pause time.Duration) func(net.Conn) {
		return func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, text); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}
	}
	steps := map[string]*meshv1.DialogueStep{
		"line":    {Expect: "never", Reject: "^no"},
		"text":    {Expect: "never", Match: meshv1.DialogueStep_TEXT},
		"bytes":   {Expect: "(n+)+(e|v)*er", Match: meshv1.DialogueStep_BYTES},
		"literal": {ExpectBytes: []byte(strings.Repeat("x", 4000) + "y")},
		"close":   {ExpectClose: true},
		"tls":     {Starttls: true},
	}
	peers := map[string]func(net.Conn){
		"endless":         write(strings.Repeat("x", 1000), 0),
		"endless lines":   write("x\n", 0),
		"byte by byte":    write("x", 100*time.Microsecond),
		"reset":           probetest.Reset,
		"half closed":     func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); probetest.Hang(c) },
		"half, then gone": func(c net.Conn) { fmt.Fprint(c, "xx"); probetest.Reset(c) },
		"silent":          probetest.Hang,
	}
	for how, step := range steps {
		for name, peer := range peers {
			t.Run(how+" "+name, func(t *testing.T) {
				t.Parallel()
				address := probetest.Listen(t, func(c net.Conn) {
					fmt.Fprint(c, "hi\n")
					buffer := make([]byte, 1)
					_, _ = io.ReadFull(c, buffer)
					peer(c)
				})
				r := within(t, 500*time.Millisecond, address, &meshv1.TcpProbe{ReadLimit: 32 << 10, LineLimit: 100, Tls: tlsFor(step), Steps: []*meshv1.DialogueStep{
					{Expect: "^hi$"}, {Send: "?"}, step}})
				if how == "close" && name == "half closed" {
					probetest.OK().Match(t, r)
					return
				}
				if r.Outcome != meshv1.Result_FAIL || r.Tcp.GetFailedStep() != "3" || r.Tcp.GetBytesReceived() > 32<<10 || !strings.HasPrefix(r.Error, "step 3: ") {
					t.Errorf("got %v %s: %s, %v", r.Outcome, r.ErrorClass, r.Error, r.Tcp)
				}
				if name == "silent" && how != "close" && r.ErrorClass != meshv1.Result_TIMEOUT || name == "reset" && r.ErrorClass != meshv1.Result_CONNECTION_RESET {
					t.Errorf("got %s: %s", r.ErrorClass, r.Error)
				}
			})
		}
	}
}

func tlsFor(s *meshv1.DialogueStep) *meshv1.TlsConfig {
	if s.Starttls {
		return &meshv1.TlsConfig{InsecureSkipVerify: true}
	}
	return nil
}

func TestALineThatIsTooLongBreaksTheProtocol(t *testing.T) {
	address := probetest.Listen(t, func(c net.Conn) {
		fmt.Fprint(c, strings.Repeat("x", 10)+"\r\n"+strings.Repeat("y", 11)+"\n")
		probetest.Hang(c)
	})
	r := run(t, address, &meshv1.TcpProbe{LineLimit: 10, Steps: []*meshv1.DialogueStep{{Expect: "^x{10}$"}, {Expect: "y"}}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "step 2: a line is longer than 10 bytes").Match(t, r)
}

// FuzzDialogue: whatever a peer sends, in whatever pieces, a dialogue ends, keeps the promises of a result, and reads no more than it may.
func FuzzDialogue(f *testing.F) {
	f.Add([]byte("220 a ESMTP\r\n250 ok\r\nbye"), uint8(3))
	f.Add([]byte("\x00\xff\n\n\r\n\r\r\n"), uint8(1))
	type script struct {
		data  []byte
		piece int
	}
	var now atomic.Pointer[script]
	address := probetest.Listen(f, func(c net.Conn) {
		s := now.Load()
		for rest := s.data; len(rest) > 0; {
			n := min(len(rest), s.piece)
			if _, err := c.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = c.(*net.TCPConn).CloseWrite()
		probetest.Hang(c)
	})
	f.Fuzz(func(t *testing.T, answer []byte, size uint8) {
		now.Store(&script{answer, max(1, int(size), len(answer)/64)})
		r := probetest.Run(t, tcp.Compile, "tcp://"+address, 5*time.Second, probe.Options{}, func(c *meshv1.Check) {
			c.Tcp = &meshv1.TcpProbe{ReadLimit: 2000, LineLimit: 300, Steps: []*meshv1.DialogueStep{
				{Expect: `(?P<a>\d+)`, Reject: "^no"},
				{Send: "${a} ${1}", Expect: `(?P<b>.)\n`, Match: meshv1.DialogueStep_TEXT},
				{SendEscaped: `\xff${b}`, Expect: `[\x80-\xff](?P<c>.?)`, Match: meshv1.DialogueStep_BYTES},
				{ExpectBytes: []byte("x")},
				{ExpectClose: true},
			}}
		})
		if r.ErrorClass == meshv1.Result_PROBER || r.ErrorClass == meshv1.Result_TIMEOUT || r.Tcp.GetBytesReceived() > 2000 {
			t.Fatal(r)
		}
	})
}
