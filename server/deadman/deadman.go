package deadman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/probemesh/probemesh/internal/version"
)

const (
	// lookEvery is how often it is asked whether the switch may be called, while it may not or is due.
	lookEvery = time.Second
	// firstPause and mostPause bound the pause before a failed call is repeated, which doubles.
	firstPause, mostPause = time.Second, 15 * time.Second
	// bodyMax is how much of an answer is read.
	bodyMax = 4096
)

// Limits of the configuration.
const (
	// DefaultInterval is one minute: services of this kind count in minutes.
	DefaultInterval = time.Minute
	// MinInterval and MaxInterval bound the interval. Below ten seconds every hiccup of a network would be an alarm outside; above an hour nobody is told in time.
	MinInterval, MaxInterval = 10 * time.Second, time.Hour
	// DefaultTimeout is how long one call may take, if the interval is not shorter.
	DefaultTimeout = 10 * time.Second
)

// Config says whom to call and when.
type Config struct {
	// URL is called; https://switch.example.com/ping/abc. Required. What is secret in it is never logged.
	URL string
	// Method is POST or GET. Default POST.
	Method string
	// Interval is the time between two calls, 10 s to 1 h. Default 1 m.
	Interval time.Duration
	// Timeout is how long one call may take. Default 10 s, or half of the interval if that is less.
	Timeout time.Duration
	// May tells whether the switch may be called at a time: nil, or why not. It does not block. Required.
	May func(now time.Time) error
	// Leads tells whether this server is the one to call; if not, nothing is said about it. Required.
	Leads func() bool
	// Body is the JSON document that a POST carries. It does not block. Nil: none.
	Body func() []byte
}

// Validate lists every fault of what a user may choose: URL, Method, Interval.
func (c Config) Validate() error {
	var faults []error
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		faults = append(faults, errors.New("dead-man-url: it is not a URL of the form https://host/path"))
	}
	if c.Method != "" && c.Method != http.MethodPost && c.Method != http.MethodGet {
		faults = append(faults, fmt.Errorf("dead-man-method: %q is neither POST nor GET", c.Method))
	}
	if c.Interval != 0 && (c.Interval < MinInterval || c.Interval > MaxInterval) {
		faults = append(faults, fmt.Errorf("dead-man-interval: %s is not between %s and %s; use 60s, and let the other side wait for three of them", c.Interval, MinInterval, MaxInterval))
	}
	return errors.Join(faults...)
}

// Deps are what a switch works with. The zero value is good.
type Deps struct {
	// Transport makes the calls. Default: one of its own, which verifies certificates by the system's authorities and honours HTTPS_PROXY.
	Transport http.RoundTripper
	// Log gets changes: calls that begin to fail or to succeed, and why none is made. Default: nothing is logged.
	Log *slog.Logger
	// Meter gets the metrics. Default: none.
	Meter metric.Meter
}

// State is how the switch is.
type State struct {
	// Told is when a call last succeeded; zero when none has.
	Told time.Time
	// FailingSince is when the first of the calls failed since which none has succeeded; zero when the last one succeeded or there was none.
	FailingSince time.Time
	// Error is what the last call met; empty after a success.
	Error string
	// Held is why no call is made although this server leads; empty when one is.
	Held string
}

// Switch calls a dead man's switch. Make it with New, run it once; State may be called at any time.
type Switch struct {
	cfg  Config
	log  *slog.Logger
	http *http.Client
	m    *metrics

	mu    sync.Mutex // guards state
	state State
}

// New makes a switch. It calls nobody until Run. The error lists the faults of the configuration.
func New(cfg Config, deps Deps) (*Switch, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Method == "" {
		cfg.Method = http.MethodPost
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = min(DefaultTimeout, cfg.Interval/2)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Meter == nil {
		deps.Meter = noop.Meter{}
	}
	if deps.Transport == nil {
		deps.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: cfg.Timeout}
	}
	s := &Switch{cfg: cfg, log: deps.Log, http: &http.Client{Transport: deps.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	var err error
	if s.m, err = newMetrics(deps.Meter); err != nil {
		return nil, fmt.Errorf("make the metrics of the dead man's switch: %w", err)
	}
	return s, nil
}

// Interval is the time between two calls.
func (s *Switch) Interval() time.Duration { return s.cfg.Interval }

// State is how the switch is now.
func (s *Switch) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Run calls while it may, until ctx ends; then it returns nil, at once.
func (s *Switch) Run(ctx context.Context) error {
	defer s.http.CloseIdleConnections()
	var due time.Time
	pause, led := firstPause, false
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		now := time.Now()
		leads := s.cfg.Leads()
		if leads && !led {
			due, pause = now, firstPause // the first call of a reign is made at once
		}
		if led = leads; !leads {
			s.idle()
		} else if !now.Before(due) {
			due, pause = s.turn(ctx, now, pause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// turn calls if it may, and says when to come again and how long to pause after the next failure.
func (s *Switch) turn(ctx context.Context, now time.Time, pause time.Duration) (time.Time, time.Duration) {
	if err := s.cfg.May(now); err != nil {
		s.hold(ctx, err)
		return now, firstPause
	}
	err := s.call(ctx)
	switch {
	case ctx.Err() != nil:
		return now, pause
	case err != nil:
		s.failed(ctx, err)
		return time.Now().Add(min(pause, s.cfg.Interval)), min(2*pause, mostPause)
	}
	s.succeeded(ctx)
	return now.Add(s.cfg.Interval), firstPause
}

// call makes one call.
func (s *Switch) call(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var body io.Reader
	if s.cfg.Method == http.MethodPost && s.cfg.Body != nil {
		body = bytes.NewReader(s.cfg.Body())
	}
	req, err := http.NewRequestWithContext(ctx, s.cfg.Method, s.cfg.URL, body)
	if err != nil {
		return plain(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "probemesh/"+version.Version)
	resp, err := s.http.Do(req)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, bodyMax))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

// plain takes the URL out of an error: its path is often all that keeps others from calling.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it does not answer in time")
	}
	return err
}

// idle forgets what was said of a reign that is over.
func (s *Switch) idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.FailingSince, s.state.Error, s.state.Held = time.Time{}, "", ""
}

func (s *Switch) hold(ctx context.Context, why error) {
	s.mu.Lock()
	first := s.state.Held == ""
	s.state.Held = why.Error()
	s.mu.Unlock()
	if first {
		s.log.WarnContext(ctx, "the dead man's switch is not told that all is well", "err", why)
	}
}

func (s *Switch) failed(ctx context.Context, err error) {
	s.m.called(ctx, "failed")
	s.mu.Lock()
	first := s.state.FailingSince.IsZero()
	if first {
		s.state.FailingSince = time.Now()
	}
	s.state.Error, s.state.Held = err.Error(), ""
	s.mu.Unlock()
	if first {
		s.log.WarnContext(ctx, "the dead man's switch cannot be called, trying again", "err", err)
	}
}

func (s *Switch) succeeded(ctx context.Context) {
	s.m.called(ctx, "told")
	s.mu.Lock()
	before := s.state
	s.state = State{Told: time.Now()}
	s.mu.Unlock()
	if before.Told.IsZero() || before.Held != "" || before.Error != "" {
		s.log.InfoContext(ctx, "the dead man's switch is told that all is well")
	}
}
