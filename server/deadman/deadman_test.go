package deadman_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probemesh/probemesh/server/deadman"
)

// outside is whoever listens: a transport that notes when it was called, and answers as it is told.
type outside struct {
	mu    sync.Mutex
	calls []time.Duration // since begin
	begin time.Time
	fail  error
	code  int
	hang  bool
	last  *http.Request
	body  string
}

func (o *outside) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, time.Since(o.begin))
	o.last, o.body = r, ""
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		o.body = string(b)
	}
	if o.hang {
		o.mu.Unlock()
		<-r.Context().Done()
		o.mu.Lock()
		return nil, r.Context().Err()
	}
	if o.fail != nil {
		return nil, o.fail
	}
	code := o.code
	if code == 0 {
		code = http.StatusOK
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: http.NoBody, Request: r}, nil
}

// since gives the calls made since the last time it was asked.
func (o *outside) take() []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.calls
	o.calls = nil
	return c
}

func (o *outside) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// world is a switch in a bubble whose leadership and permission a test turns on and off.
type world struct {
	*outside
	*deadman.Switch
	leads, may atomic.Bool
}

func start(t *testing.T, cfg deadman.Config) *world {
	w := &world{outside: &outside{begin: time.Now()}}
	w.leads.Store(true)
	w.may.Store(true)
	cfg.URL = "https://switch.example.com/secret-path"
	cfg.Leads = w.leads.Load
	cfg.May = func(time.Time) error {
		if w.may.Load() {
			return nil
		}
		return errors.New("nobody hears the mesh")
	}
	s, err := deadman.New(cfg, deadman.Deps{Transport: w.outside})
	if err != nil {
		t.Fatal(err)
	}
	w.Switch = s
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func after(d time.Duration) {
	time.Sleep(d) // in a bubble: no time passes
	synctest.Wait()
}

func TestTheFirstCallOfAReignIsMadeAtOnceAndThenOneEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, deadman.Config{Interval: time.Minute})
		after(3*time.Minute + 30*time.Second)
		got := w.take()
		if len(got) != 4 || got[0] > time.Second {
			t.Errorf("calls at %v, want at once and after 1, 2 and 3 minutes", got)
		}
		w.leads.Store(false)
		after(5 * time.Minute)
		if got := w.take(); len(got) != 0 {
			t.Errorf("a server that does not lead calls at %v", got)
		}
		w.leads.Store(true)
		after(2 * time.Second)
		if got := w.take(); len(got) != 1 {
			t.Errorf("%d calls in the first 2 s of the next reign, want 1", len(got))
		}
	})
}

func TestNoCallIsMadeWhileAlertsMayNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, deadman.Config{Interval: time.Minute})
		w.may.Store(false)
		after(10 * time.Minute)
		calls := w.take()
		if len(calls) > 1 || w.State().Held == "" {
			t.Errorf("calls at %v, held %q", calls, w.State().Held)
		}
		w.may.Store(true)
		after(2 * time.Second)
		if got := w.take(); len(got) != 1 || w.State().Held != "" {
			t.Errorf("%d calls within 2 s of being allowed again, want 1; held %q", len(got), w.State().Held)
		}
	})
}

func TestAFailedCallIsRepeatedWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, deadman.Config{Interval: time.Minute})
		after(time.Second)
		w.take()
		w.set(func() { w.code = http.StatusBadGateway })
		after(2 * time.Minute)
		st, got := w.State(), w.take()
		if len(got) < 5 || len(got) > 20 {
			t.Errorf("%d calls in a minute of failures: %v", len(got), got)
		}
		if st.FailingSince.IsZero() || !strings.Contains(st.Error, "Bad Gateway") || time.Since(st.Told) < 2*time.Minute {
			t.Errorf("state %+v", st)
		}
		w.set(func() { w.code = 0 })
		after(20 * time.Second)
		if st := w.State(); !st.FailingSince.IsZero() || st.Error != "" || len(w.take()) != 1 {
			t.Errorf("after it answers again: %+v", st)
		}
	})
}

func TestACallThatHangsEndsAndIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, deadman.Config{Interval: time.Minute, Timeout: 5 * time.Second})
		w.set(func() { w.hang = true })
		after(30 * time.Second)
		if st := w.State(); len(w.take()) < 3 || !strings.Contains(st.Error, "in time") {
			t.Errorf("state %+v", st)
		}
	})
}

func TestErrorsDoNotTellTheURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, deadman.Config{})
		w.set(func() { w.fail = errors.New("connection refused") })
		after(2 * time.Minute)
		if st := w.State(); st.Error == "" || strings.Contains(st.Error, "secret") {
			t.Errorf("error %q", st.Error)
		}
	})
}

func TestAPostCarriesTheBodyAndAGetNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for method, want := range map[string]string{"POST": `{"state":"HEALTHY"}`, "GET": ""} {
			w := start(t, deadman.Config{Method: method, Body: func() []byte { return []byte(`{"state":"HEALTHY"}`) }})
			after(time.Second)
			w.set(func() {
				if w.last == nil || w.last.Method != method || w.body != want {
					t.Errorf("%s carried %q, want %q", method, w.body, want)
				}
			})
		}
	})
}

func TestCertificatesAreVerified(t *testing.T) {
	called := make(chan string, 10)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { called <- r.Method }))
	defer srv.Close()
	s, err := deadman.New(deadman.Config{URL: srv.URL, Leads: func() bool { return true }, May: func(time.Time) error { return nil }}, deadman.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	deadline := time.After(30 * time.Second)
	for s.State().Error == "" {
		select {
		case <-deadline:
			t.Fatal("no error after 30 s")
		case m := <-called:
			t.Fatalf("%s went to a server whose certificate nobody vouches for", m)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil || !strings.Contains(s.State().Error, "certificate") {
		t.Errorf("%v, error %q", err, s.State().Error)
	}
}

func TestARealServerIsCalledAndReadsTheBody(t *testing.T) {
	bodies := make(chan []byte, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- b
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	s, err := deadman.New(deadman.Config{URL: srv.URL, Leads: func() bool { return true }, May: func(time.Time) error { return nil },
		Body: func() []byte { return []byte(`{"term":"7"}`) }}, deadman.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var got map[string]any
	if err := json.Unmarshal(<-bodies, &got); err != nil || got["term"] != "7" {
		t.Errorf("body %v, %v", got, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAConfigurationSaysWhatIsWrongWithIt(t *testing.T) {
	for want, c := range map[string]deadman.Config{
		"form https://host/path": {URL: "switch.example.com"},
		"neither POST nor GET":   {URL: "https://switch.example.com", Method: "PUT"},
		"between 10s and 1h":     {URL: "https://switch.example.com", Interval: time.Second},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want something about %q", c, err, want)
		}
	}
}
