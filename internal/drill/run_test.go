package drill_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
)

// A run of a scenario that breaks nothing, without a mesh: what it reports is what the scenario found.
func execute(t *testing.T, run func(ctx context.Context, r *drill.Run) error, requires ...drill.Requirement) *drill.Report {
	t.Helper()
	return drill.Execute(t.Context(), drill.Scenario{Name: "made-up", Summary: "nothing", Times: 3, Requires: requires, Run: run}, drill.Options{Data: t.TempDir(), Seed: 7})
}

func TestARunPassesOnlyWhenEveryFigureHoldsAndItCameToItsEnd(t *testing.T) {
	t.Parallel()
	lacking := drill.Requirement{Text: "a moon", Check: func() error { return errors.New("it needs a moon") }}
	for _, c := range []struct {
		name     string
		report   *drill.Report
		pass     bool
		contains string
	}{
		{"every figure holds", execute(t, func(_ context.Context, r *drill.Run) error { r.AtMost("x", "things", 0, 0, ""); return nil }), true, ""},
		{"one does not", execute(t, func(_ context.Context, r *drill.Run) error {
			r.AtMost("x", "things", 0, 0, "")
			r.AtMost("y", "things", 1, 0, "")
			return nil
		}), false, ""},
		{"there is none", execute(t, func(context.Context, *drill.Run) error { return nil }), false, ""},
		{"it breaks off", execute(t, func(_ context.Context, r *drill.Run) error {
			r.AtMost("x", "things", 0, 0, "")
			return errors.New("no etcd")
		}), false, "no etcd"},
		{"the machine lacks something", execute(t, nil, lacking), false, "a moon"},
	} {
		if c.report.Passed != c.pass || !strings.Contains(c.report.Error+c.report.Skipped, c.contains) {
			t.Errorf("%s: passed %t, error %q, skipped %q", c.name, c.report.Passed, c.report.Error, c.report.Skipped)
		}
	}
}

func TestTheSameSeedMakesTheSameChoices(t *testing.T) {
	t.Parallel()
	draw := func() (n uint64, times int) {
		execute(t, func(_ context.Context, r *drill.Run) error { n, times = r.Rand.Uint64(), r.Times; return nil })
		return n, times
	}
	a, times := draw()
	if b, _ := draw(); a != b || times != 3 {
		t.Errorf("drawn %d, then %d; %d times", a, b, times)
	}
}

func TestADirectoryThatIsInUseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "made-up", "mesh"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := drill.Execute(t.Context(), drill.Scenario{Name: "made-up", Run: nil}, drill.Options{Data: dir})
	if r.Passed || !strings.Contains(r.Error, "not empty") {
		t.Errorf("error %q", r.Error)
	}
}

// The receiver remembers what comes, answers as it is told, and refuses connections while it is closed.
func TestTheReceiverRemembersAndAnswersAsTold(t *testing.T) {
	t.Parallel()
	report := execute(t, func(_ context.Context, r *drill.Run) error {
		post := func(key, body string) (int, error) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.Receiver.URL, bytes.NewBufferString(body))
			if err != nil {
				return 0, err
			}
			req.Header.Set("Idempotency-Key", key)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return 0, err
			}
			return resp.StatusCode, resp.Body.Close()
		}
		if code, err := post("1", `{"incident": "incidents/1", "transition": "OPENED"}`); code != 200 || err != nil {
			t.Errorf("answered %d, %v", code, err)
		}
		told := make(chan bool, 1)
		r.Receiver.OnDelivery(func(drill.Delivery) drill.Answer { return drill.Answer{Status: 503, After: func() { told <- true }} })
		if code, err := post("", "{}"); code != 503 || err != nil || !<-told {
			t.Errorf("answered %d, %v", code, err)
		}
		r.Receiver.Close()
		if _, err := post("2", "{}"); err == nil {
			t.Error("a closed receiver answers")
		}
		if err := r.Receiver.Open(); err != nil {
			return err
		}
		r.Receiver.OnDelivery(nil)
		if _, err := post("3", "what"); err != nil {
			t.Error(err)
		}
		all := r.Receiver.All()
		if len(all) != 3 || all[0].Key != "1" || all[0].Fault != "" || !strings.Contains(all[1].Fault, "Idempotency-Key") || !strings.Contains(all[2].Fault, "no Notification") {
			t.Errorf("remembered %+v", all)
		}
		r.AtMost("x", "things", 0, 0, "")
		return nil
	})
	if !report.Passed {
		t.Errorf("%+v", report)
	}
	if b, err := os.ReadFile(filepath.Join(report.Data, "receiver.jsonl")); err != nil || bytes.Count(b, []byte("\n")) != 3 {
		t.Errorf("the record that was written down: %v\n%s", err, b)
	}
}

func TestUntilSaysWhatItWaitedForAndHowThingsStood(t *testing.T) {
	t.Parallel()
	err := drill.Until(t.Context(), "the moon is up", 30*time.Millisecond, func() (bool, string) { return false, "it is below the horizon" })
	if !errors.Is(err, drill.ErrNotYet) || !strings.Contains(err.Error(), "the moon is up") || !strings.Contains(err.Error(), "below the horizon") {
		t.Errorf("%v", err)
	}
}
