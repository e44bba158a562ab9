package blackbox

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"

	pconfig "github.com/prometheus/common/config"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxLine is the longest line that a target may send in a dialogue, as blackbox_exporter has it; a longer one fails the probe.
const maxLine = 64 << 10

// maxDialogue is the most bytes that a target may send in a dialogue.
const maxDialogue = 16 << 20

func probeTCP(ctx context.Context, j *job) *meshv1.Result {
	o := &j.module.TCP
	j.out.set("probe_failed_due_to_regex", 0)
	j.out.set("probe_failed_due_to_bytes", 0)
	return j.run(ctx, func(ctx context.Context, a *probe.Attempt) error {
		host, port, err := net.SplitHostPort(j.target)
		if err != nil {
			return probe.Failf(a, meshv1.Result_PROBER, "the target must be host:port: %v", err)
		}
		ip, err := j.choose(ctx, a, o.Family, host)
		if err != nil {
			return err
		}
		conn, err := j.dial(ctx, a, "tcp", ip, port, o.SourceIPAddress)
		if err != nil {
			return err
		}
		defer conn.Close()
		name := host
		if j.hostname != "" {
			name = j.hostname
		}
		return j.converse(ctx, a, conn, &o.Dialogue, name)
	})
}

func probeUnix(ctx context.Context, j *job) *meshv1.Result {
	j.out.set("probe_failed_due_to_regex", 0)
	j.out.set("probe_failed_due_to_bytes", 0)
	return j.run(ctx, func(ctx context.Context, a *probe.Attempt) error {
		a.Meeting(j.target)
		a.Enter(meshv1.Result_CONNECT)
		a.Connecting(j.target)
		dialer := net.Dialer{Control: j.exporter.options.Env.Fence.Control}
		conn, err := dialer.DialContext(ctx, "unix", j.target)
		if err != nil {
			return err
		}
		defer conn.Close()
		return j.converse(ctx, a, conn, &j.module.Unix.Dialogue, "")
	})
}

// talk is a dialogue under way.
type talk struct {
	*job
	attempt *probe.Attempt
	conn    net.Conn // the outermost: TLS once there is TLS
	lines   *bufio.Scanner
}

// converse goes through the steps of a dialogue. name is what TLS verifies unless tls_config has another.
func (j *job) converse(ctx context.Context, a *probe.Attempt, raw net.Conn, d *Dialogue, name string) error {
	stop := probe.Watch(ctx, raw)
	defer stop()
	t := &talk{job: j, attempt: a, conn: &limited{Conn: raw, left: maxDialogue}}
	if d.TLS {
		if err := t.secure(ctx, &d.TLSConfig, name); err != nil {
			return err
		}
	}
	a.Enter(meshv1.Result_PROCESSING)
	for n := range d.Steps {
		j.log.Info("processing query response entry", "entry_number", n)
		if err := t.step(ctx, &d.Steps[n], d, name); err != nil {
			return err
		}
	}
	return nil
}

// scanner reads lines from where the dialogue stands.
func (t *talk) scanner() *bufio.Scanner {
	if t.lines == nil {
		t.lines = bufio.NewScanner(t.conn)
		t.lines.Buffer(make([]byte, 0, 1<<10), maxLine)
	}
	return t.lines
}

func (t *talk) step(ctx context.Context, s *Step, d *Dialogue, name string) error {
	send := s.Send
	if s.Expect.Regexp != nil {
		line, match, err := t.await(ctx, s.Expect)
		if err != nil {
			return err
		}
		send = string(s.Expect.Expand(nil, []byte(send), line, match))
		if len(s.Labels) > 0 {
			pairs := make([]string, 0, 2*len(s.Labels))
			for _, l := range s.Labels {
				pairs = append(pairs, l.Name, string(s.Expect.Expand(nil, []byte(l.Value), line, match)))
			}
			t.out.with("probe_expect_info", 1, pairs...)
		}
	}
	if s.ExpectBytes != "" {
		if err := t.exactly([]byte(s.ExpectBytes)); err != nil {
			return err
		}
	}
	if send != "" {
		t.log.Debug("sending line", "line", send)
		if _, err := io.WriteString(t.conn, send+"\n"); err != nil {
			return err
		}
	}
	if s.StartTLS {
		return t.secure(ctx, &d.TLSConfig, name)
	}
	return nil
}

// await reads lines until one matches.
func (t *talk) await(ctx context.Context, want Regexp) (line []byte, match []int, err error) {
	lines, verbose := t.scanner(), t.log.Enabled(ctx, slog.LevelDebug)
	var last []byte
	for lines.Scan() {
		if verbose {
			t.log.Debug("read line", "line", lines.Text())
		}
		if match = want.FindSubmatchIndex(lines.Bytes()); match != nil && lines.Err() == nil { // what was cut off by an error is no line
			t.out.set("probe_failed_due_to_regex", 0)
			return lines.Bytes(), match, nil
		}
		last = append(last[:0], lines.Bytes()...)
	}
	if err := lines.Err(); err != nil {
		return nil, nil, err
	}
	t.out.set("probe_failed_due_to_regex", 1)
	return nil, nil, probe.Failf(t.attempt, meshv1.Result_EXPECTATION, "the target closed and no line matched %s; the last one was %q", want, last)
}

// exactly reads as many bytes as are expected, which may not come in one piece, and compares them. Bytes that a scanner before has read already are lost to it, as they are to
// blackbox_exporter: expect and expect_bytes do not mix.
func (t *talk) exactly(want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(t.conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		t.out.set("probe_failed_due_to_bytes", 1)
		return probe.Failf(t.attempt, meshv1.Result_EXPECTATION, "the target sent %q, not %q", got, want)
	}
	t.out.set("probe_failed_due_to_bytes", 0)
	return nil
}

// secure makes the rest of the dialogue go over TLS.
func (t *talk) secure(ctx context.Context, c *pconfig.TLSConfig, name string) error {
	config, err := tlsConfig(t.attempt, c, name)
	if err != nil {
		return err
	}
	secure, err := probe.Handshake(ctx, t.attempt, t.conn, config)
	if err != nil {
		return err
	}
	state := secure.ConnectionState()
	t.out.secured(&state)
	t.conn, t.lines = secure, nil
	t.attempt.Enter(meshv1.Result_PROCESSING)
	return nil
}

// tlsConfig makes the configuration that a module asks for, reading the files that it names. host is the name to verify unless the module has another.
func tlsConfig(a *probe.Attempt, c *pconfig.TLSConfig, host string) (*tls.Config, error) {
	config, err := pconfig.NewTLSConfig(c)
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "tls_config: %v", err)
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	return config, nil
}

// limited is a connection that a target may send so many bytes over.
type limited struct {
	net.Conn
	left int64
}

// Read implements net.Conn.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("the target sent more than %d MiB", maxDialogue>>20)
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.Conn.Read(p)
	l.left -= int64(n)
	return n, err
}
