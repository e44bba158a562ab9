package history

import (
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestVerdictTimesAddUp(t *testing.T) {
	const (
		up, degraded, down, unknown, paused = 1, 2, 3, 4, 5
	)
	for _, c := range []struct {
		name     string
		samples  []point // times in seconds
		up, down time.Duration
	}{
		{name: "nothing known"},
		{"up all the time", []point{{0, up}, {10, up}, {20, up}, {30, up}, {40, up}, {50, up}, {60, up}}, 60 * time.Second, 0},
		{"degraded counts as up", []point{{0, degraded}, {30, degraded}}, 60 * time.Second, 0},
		{"down in the middle", []point{{0, up}, {10, down}, {20, down}, {30, up}, {40, up}}, 40 * time.Second, 20 * time.Second},
		{"a gap of more than three periods is nobody's", []point{{0, up}, {50, up}}, 40 * time.Second, 0},
		{"a sample from before the period reaches into it", []point{{-10, down}, {20, up}}, 30 * time.Second, 20 * time.Second},
		{"a sample too long before does not", []point{{-30, down}}, 0, 0},
		{"unknown and paused are unmonitored", []point{{0, unknown}, {20, paused}, {40, up}, {50, unknown}}, 10 * time.Second, 0},
		{"a sample at the end adds nothing", []point{{60, down}}, 0, 0},
		{"two verdicts within a period", []point{{0, up}, {3, down}, {5, up}, {10, unknown}}, 8 * time.Second, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			ms := make([]point, len(c.samples))
			for i, s := range c.samples {
				ms[i] = point{s.t * 1000, s.v}
			}
			gotUp, gotDown := verdictTimes(ms, 0, 60_000, 30_000)
			if gotUp != c.up || gotDown != c.down {
				t.Errorf("up %v down %v, want %v %v", gotUp, gotDown, c.up, c.down)
			}
		})
	}
}

func TestProberUptimeCountsResultsAndWhatIsMissing(t *testing.T) {
	const ok, fail, own = meshv1.Result_OK, meshv1.Result_FAIL, meshv1.Result_ERROR
	for _, c := range []struct {
		name     string
		results  []outcomeAt // times in seconds
		interval time.Duration
		ok       int64
		mean     time.Duration
		missing  int64
	}{
		{"one", []outcomeAt{{0, ok, 0.5}}, 0, 1, 500 * time.Millisecond, 0},
		{"failures have no part in the mean", []outcomeAt{{0, ok, 0.5}, {10, fail, 9}, {20, ok, 1.5}}, 10 * time.Second, 2, time.Second, 0},
		{"a gap of twice the interval may be jitter", []outcomeAt{{0, ok, 1}, {20, ok, 1}}, 10 * time.Second, 2, time.Second, 0},
		{"a gap of six intervals has lost five", []outcomeAt{{0, ok, 1}, {60, ok, 1}}, 10 * time.Second, 2, time.Second, 5},
		{"without an interval the median stands for it", []outcomeAt{{0, fail, 1}, {10, fail, 1}, {20, fail, 1}, {70, own, 0}}, 0, 0, 0, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.results {
				c.results[i].t *= 1000
			}
			u := proberUptime("probers/p", c.results, c.interval)
			if u.Results != int64(len(c.results)) || u.Ok != c.ok || u.MeanDuration.AsDuration() != c.mean || u.Missing != c.missing ||
				u.LastOutcome != c.results[len(c.results)-1].outcome {
				t.Errorf("got %v", u)
			}
		})
	}
}

func TestGetUptimeSeesVerdictsAndProbers(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{Interval: func(string) time.Duration { return 10 * time.Second }})
	start := now().Add(-10 * time.Minute)
	for i := range 30 { // five minutes, the third of them down, then nobody monitored
		at := start.Add(time.Duration(i) * 10 * time.Second)
		v, outcome := meshv1.CheckStatus_UP, meshv1.Result_OK
		if i >= 12 && i < 18 {
			v, outcome = meshv1.CheckStatus_DOWN, meshv1.Result_FAIL
		}
		if err := h.RecordVerdicts(t.Context(), []VerdictSample{{Check: "checks/shop", Verdict: v, Time: at}, {Check: "checks/other", Verdict: meshv1.CheckStatus_UP, Time: at}}); err != nil {
			t.Fatal(err)
		}
		e := with(httpOK("probers/fra-1", at, 250*time.Millisecond), func(e *Entry) { e.Result.Outcome = outcome })
		if i == 29 {
			e.Result.Outcome = meshv1.Result_ERROR
		}
		if err := h.Append(t.Context(), []Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	u, err := client(t, h).GetUptime(t.Context(), &meshv1.GetUptimeRequest{Check: "checks/shop", StartTime: timestamppb.New(start),
		EndTime: timestamppb.New(start.Add(10 * time.Minute))})
	if err != nil {
		t.Fatal(err)
	}
	// The last of the 30 samples is at 290 s and holds until 320 s.
	if u.Up.AsDuration() != 260*time.Second || u.Down.AsDuration() != time.Minute || u.Unmonitored.AsDuration() != 280*time.Second {
		t.Errorf("up %v down %v unmonitored %v, want 260s 60s 280s", u.Up.AsDuration(), u.Down.AsDuration(), u.Unmonitored.AsDuration())
	}
	if math.Abs(u.GetAvailability()-260.0/320) > 1e-9 {
		t.Errorf("availability %v, want %v", u.GetAvailability(), 260.0/320)
	}
	if len(u.Probers) != 1 {
		t.Fatalf("probers %v, want one", u.Probers)
	}
	p := u.Probers[0]
	if p.Prober != "probers/fra-1" || p.Results != 30 || p.Ok != 23 || p.MeanDuration.AsDuration() != 250*time.Millisecond || p.Missing != 0 ||
		p.LastOutcome != meshv1.Result_ERROR {
		t.Errorf("prober is %v", p)
	}

	// Nothing is known of another check.
	u, err = client(t, h).GetUptime(t.Context(), &meshv1.GetUptimeRequest{Check: "checks/unknown"})
	if err != nil || u.Availability != nil || u.Unmonitored.AsDuration() != day || len(u.Probers) != 0 {
		t.Errorf("uptime of an unknown check: %v %v", u, err)
	}
}

func TestQuestionsThatAreNotValidListTheirFaults(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{})
	c := client(t, h)
	_, err := c.QueryRange(t.Context(), &meshv1.QueryRangeRequest{Check: "Shop!", Prober: "-", Metric: "a b", Step: durationpb.New(-1),
		StartTime: timestamppb.New(now().Add(time.Hour))})
	f, _ := fault.From(err)
	if f == nil || f.Code != codes.InvalidArgument || len(f.Violations) != 5 {
		t.Errorf("QueryRange: %v", err)
	}
	_, err = c.QueryRange(t.Context(), &meshv1.QueryRangeRequest{Check: "shop", StartTime: timestamppb.New(now().Add(-day)), Step: durationpb.New(time.Second)})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("86400 points: %v", err)
	}
	_, err = c.GetUptime(t.Context(), &meshv1.GetUptimeRequest{Check: "shop", StartTime: timestamppb.New(now().Add(-500 * day))})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("500 days: %v", err)
	}
	_, err = c.GetUptime(t.Context(), &meshv1.GetUptimeRequest{Check: "shop", StartTime: timestamppb.New(now().Add(time.Hour)), EndTime: timestamppb.New(now().Add(2 * time.Hour))})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("the future: %v", err)
	}
}

func TestAStepKeepsTheNewestSampleAndIncompleteIsPassedOn(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{Incomplete: func(check string) bool { return check == "checks/shop" }})
	start := now().Add(-10 * time.Minute)
	for i := range 60 {
		at := start.Add(time.Duration(i) * 10 * time.Second)
		if err := h.Append(t.Context(), []Entry{httpOK("p", at, time.Duration(i)*time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := client(t, h).QueryRange(t.Context(), &meshv1.QueryRangeRequest{Check: "shop", Metric: "probe_duration_seconds",
		StartTime: timestamppb.New(start), EndTime: timestamppb.New(start.Add(179 * time.Second)), Step: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if !answer.Incomplete {
		t.Error("incomplete is not set")
	}
	if len(answer.Series) != 1 || len(answer.Series[0].Points) != 3 {
		t.Fatalf("series %v, want one of three points", answer.Series)
	}
	for i, p := range answer.Series[0].Points {
		if want := float64(i*6 + 5); p.Value != want {
			t.Errorf("point %d is %v, want %v", i, p.Value, want)
		}
	}
	l := answer.Series[0].Labels
	if l["check"] != "shop" || l["prober"] != "p" || l["datacenter"] != "fra" || l["instance"] != "https://shop.example.com/" || l["job"] != "probemesh" {
		t.Errorf("labels %v", l)
	}
}

func TestTheNewestVerdictsAreFoundAgainWithSinceWhenTheyHold(t *testing.T) {
	dir := t.TempDir()
	at := now().Truncate(time.Second)
	since := at.Add(-40 * time.Hour).Add(250 * time.Millisecond)
	h, err := Open(Config{Dir: dir}, Dependencies{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []VerdictSample{
		{Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, Time: at.Add(-10 * time.Second), Since: at.Add(-time.Minute)},
		{Check: "checks/shop", Verdict: meshv1.CheckStatus_UP, Time: at, Since: since},
		{Check: "checks/old", Verdict: meshv1.CheckStatus_UP, Time: at.Add(-20 * time.Minute), Since: since},
		{Check: "checks/bare", Verdict: meshv1.CheckStatus_UP, Time: at},
	} {
		if err := h.RecordVerdicts(t.Context(), []VerdictSample{v}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := openTest(t, Config{Dir: dir}, Dependencies{}).LastVerdicts(t.Context(), at.Add(time.Minute), 15*time.Minute)
	if err != nil || len(got) != 1 || got[0].Check != "checks/shop" || got[0].Verdict != meshv1.CheckStatus_UP || !got[0].Since.Equal(since) {
		t.Fatalf("found %+v, %v; want shop UP since %s alone", got, err, since)
	}
}
