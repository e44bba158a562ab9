package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestQueryRangeReturnsExactlyWhatWasAppendedInWhateverOrder(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{})
	base := now().Add(-3 * time.Hour)
	var entries []Entry
	want := map[string][]string{}
	for i := range 600 { // three hours of live results and backlog, so that many are older than the in-order window
		at := base.Add(time.Duration(i) * 18 * time.Second)
		for _, p := range []string{"fra-1", "iad-1"} {
			took := time.Duration(i+1) * time.Millisecond
			entries = append(entries, httpOK(p, at, took))
			want["probers/"+p] = append(want["probers/"+p], fmt.Sprintf("%d=%g", at.UnixMilli(), took.Seconds()))
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for len(entries) > 0 {
		n := min(len(entries), 1+r.IntN(90))
		if err := h.Append(t.Context(), entries[:n]); err != nil {
			t.Fatal(err)
		}
		if r.IntN(3) == 0 { // an acknowledgement was lost: everything comes again
			if err := h.Append(t.Context(), entries[:n]); err != nil {
				t.Fatal(err)
			}
		}
		entries = entries[n:]
	}
	got := query(t, h, &meshv1.QueryRangeRequest{Check: "checks/shop", Metric: "probe_duration_seconds", StartTime: timestamppb.New(base)})
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %d and %d points, want %d and %d; the first: %v", len(got["probers/fra-1"]), len(got["probers/iad-1"]),
			len(want["probers/fra-1"]), len(want["probers/iad-1"]), got["probers/fra-1"][:min(3, len(got["probers/fra-1"]))])
	}
}

func TestConcurrentAppendsLoseNothing(t *testing.T) {
	h := openTest(t, Config{MaxGroups: 16}, Dependencies{}) // fewer groups than probers: the cache turns over all the time
	base := now().Add(-time.Minute)
	var wg sync.WaitGroup
	for w := range 40 {
		wg.Go(func() {
			for i := range 20 {
				if err := h.Append(t.Context(), []Entry{httpOK(fmt.Sprintf("p-%d", w), base.Add(time.Duration(i)*time.Second), time.Second)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"})
	if len(got) != 40 {
		t.Fatalf("%d probers, want 40", len(got))
	}
	for p, points := range got {
		if len(points) != 20 {
			t.Errorf("%s has %d points, want 20", p, len(points))
		}
	}
	if n := h.groups.size(); n > 16 {
		t.Errorf("%d groups are cached, more than the limit", n)
	}
}

// everything gives all series of h as text, sorted by the store: labels and values.
func everything(t *testing.T, h *History) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := h.ask(t.Context(), "grpc", func(ctx context.Context, st *store) error {
		all, err := st.read(ctx, 0, 1<<60, keep, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+"))
		for _, s := range all {
			b := labels.NewBuilder(s.labels)
			b.Del("check", "prober", "datacenter", "instance", "job")
			values := make([]string, len(s.points))
			for i, p := range s.points {
				values[i] = fmt.Sprint(p.v)
			}
			out[b.Labels().String()] = strings.Join(values, " ")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestResultsAreWrittenUnderTheNamesOfBlackboxExporter(t *testing.T) {
	at := now().Add(-time.Minute)
	plain := func(uri string, change func(*meshv1.Result)) Entry {
		return with(httpOK("p", at, time.Second), func(e *Entry) {
			e.URI, e.Result.Http, e.Result.Tls = uri, nil, nil
			change(e.Result)
		})
	}
	tls := map[string]string{
		`{__name__="probe_ssl_earliest_cert_expiry"}`: "2e+09", `{__name__="probe_ssl_last_chain_expiry_timestamp_seconds"}`: "2.1e+09",
		`{__name__="probe_tls_version_info", version="TLS 1.3"}`: "1", `{__name__="probe_tls_cipher_info", cipher="TLS_AES_128_GCM_SHA256"}`: "1",
	}
	basis := map[string]string{
		`{__name__="probe_success"}`: "1", `{__name__="probe_duration_seconds"}`: "1", `{__name__="probe_ip_protocol"}`: "4",
		`{__name__="probe_dns_lookup_time_seconds"}`: "0.001",
	}
	for _, c := range []struct {
		name  string
		entry Entry
		parts []map[string]string
	}{
		{"https", httpOK("p", at, time.Second), []map[string]string{basis, tls, {
			`{__name__="probe_http_status_code"}`: "200", `{__name__="probe_http_version"}`: "1.1", `{__name__="probe_http_content_length"}`: "-1",
			`{__name__="probe_http_uncompressed_body_length"}`: "512", `{__name__="probe_http_redirects"}`: "1", `{__name__="probe_http_ssl"}`: "1",
			`{__name__="probe_http_duration_seconds", phase="resolve"}`: "0.001", `{__name__="probe_http_duration_seconds", phase="connect"}`: "0.002",
			`{__name__="probe_http_duration_seconds", phase="tls"}`: "0.003", `{__name__="probe_http_duration_seconds", phase="processing"}`: "0.004",
			`{__name__="probe_http_duration_seconds", phase="transfer"}`: "0.005",
		}}},
		{"tcp", plain("tcp://x:1", func(*meshv1.Result) {}), []map[string]string{basis}},
		{"tls", with(httpOK("p", at, time.Second), func(e *Entry) { e.URI, e.Result.Http = "tls://x", nil }), []map[string]string{basis, tls}},
		{"dns", plain("dns:///x", func(r *meshv1.Result) {
			r.Dns = &meshv1.DnsResult{Answers: 2, Authorities: 3, Additionals: 4, Serial: 2026}
		}), []map[string]string{basis, {
			`{__name__="probe_dns_query_succeeded"}`: "1", `{__name__="probe_dns_answer_rrs"}`: "2", `{__name__="probe_dns_authority_rrs"}`: "3",
			`{__name__="probe_dns_additional_rrs"}`: "4", `{__name__="probe_dns_serial"}`: "2026",
			`{__name__="probe_dns_duration_seconds", phase="resolve"}`: "0.001", `{__name__="probe_dns_duration_seconds", phase="connect"}`: "0.002",
			`{__name__="probe_dns_duration_seconds", phase="request"}`: "0.009000000000000001",
		}}},
		{"icmp", plain("icmp://x", func(r *meshv1.Result) {
			r.RemoteAddress = "2001:db8::1"
			ms := func(n time.Duration) *durationpb.Duration { return durationpb.New(n * time.Millisecond) }
			r.Icmp = &meshv1.IcmpResult{Sent: 4, Received: 3, RttMin: ms(5), RttAvg: ms(7), RttMax: ms(9), Jitter: ms(2), HopLimit: 57}
		}), []map[string]string{basis, {
			`{__name__="probe_ip_protocol"}`: "6", `{__name__="probe_icmp_reply_hop_limit"}`: "57",
			`{__name__="probe_icmp_duration_seconds", phase="resolve"}`: "0.001", `{__name__="probe_icmp_duration_seconds", phase="setup"}`: "0.002",
			`{__name__="probe_icmp_duration_seconds", phase="rtt"}`: "0.007",
			`{__name__="probemesh_probe_icmp_loss_ratio"}`:          "0.25", `{__name__="probemesh_probe_icmp_jitter_seconds"}`: "0.002",
			`{__name__="probemesh_probe_icmp_rtt_seconds", statistic="min"}`: "0.005", `{__name__="probemesh_probe_icmp_rtt_seconds", statistic="avg"}`: "0.007",
			`{__name__="probemesh_probe_icmp_rtt_seconds", statistic="max"}`: "0.009",
		}}},
		{"icmp, everything lost", plain("icmp://x", func(r *meshv1.Result) {
			r.Outcome, r.Icmp = meshv1.Result_FAIL, &meshv1.IcmpResult{Sent: 3}
		}), []map[string]string{basis, {
			`{__name__="probe_success"}`: "0", `{__name__="probe_icmp_duration_seconds", phase="resolve"}`: "0.001",
			`{__name__="probe_icmp_duration_seconds", phase="setup"}`: "0.002", `{__name__="probe_icmp_duration_seconds", phase="rtt"}`: "0",
			`{__name__="probemesh_probe_icmp_loss_ratio"}`: "1",
		}}},
		{"udp", plain("udp://x:1", func(r *meshv1.Result) {
			r.Udp = &meshv1.UdpResult{Sent: 2, Received: 2, RttMin: durationpb.New(time.Millisecond), RttAvg: durationpb.New(2 * time.Millisecond), RttMax: durationpb.New(3 * time.Millisecond)}
		}), []map[string]string{basis, {
			`{__name__="probemesh_probe_udp_loss_ratio"}`: "0", `{__name__="probemesh_probe_udp_rtt_seconds", statistic="min"}`: "0.001",
			`{__name__="probemesh_probe_udp_rtt_seconds", statistic="avg"}`: "0.002", `{__name__="probemesh_probe_udp_rtt_seconds", statistic="max"}`: "0.003",
		}}},
		{"grpc", plain("grpc://x:1", func(r *meshv1.Result) {
			r.Outcome, r.Grpc = meshv1.Result_FAIL, &meshv1.GrpcResult{Status: "UNAVAILABLE", Serving: "NOT_SERVING"}
		}), []map[string]string{basis, {
			`{__name__="probe_success"}`: "0", `{__name__="probe_grpc_status_code"}`: "14", `{__name__="probe_grpc_ssl"}`: "0",
			`{__name__="probe_grpc_healthcheck_response", serving_status="UNKNOWN"}`:     "0",
			`{__name__="probe_grpc_healthcheck_response", serving_status="SERVING"}`:     "0",
			`{__name__="probe_grpc_healthcheck_response", serving_status="NOT_SERVING"}`: "1", `{__name__="probe_grpc_healthcheck_response", serving_status="SERVICE_UNKNOWN"}`: "0",
			`{__name__="probe_grpc_duration_seconds", phase="resolve"}`: "0.001", `{__name__="probe_grpc_duration_seconds", phase="connect"}`: "0.002",
			`{__name__="probe_grpc_duration_seconds", phase="tls"}`: "0.003", `{__name__="probe_grpc_duration_seconds", phase="check"}`: "0.009000000000000001",
		}}},
		{"refused", plain("http://x", func(r *meshv1.Result) {
			r.Outcome, r.RemoteAddress, r.Timings = meshv1.Result_FAIL, "", nil
		}), []map[string]string{{
			`{__name__="probe_success"}`: "0", `{__name__="probe_duration_seconds"}`: "1", `{__name__="probe_ip_protocol"}`: "0",
			`{__name__="probe_dns_lookup_time_seconds"}`: "0",
			`{__name__="probe_http_status_code"}`:        "0", `{__name__="probe_http_version"}`: "0", `{__name__="probe_http_content_length"}`: "0",
			`{__name__="probe_http_uncompressed_body_length"}`: "0", `{__name__="probe_http_redirects"}`: "0", `{__name__="probe_http_ssl"}`: "0",
			`{__name__="probe_http_duration_seconds", phase="resolve"}`: "0", `{__name__="probe_http_duration_seconds", phase="connect"}`: "0",
			`{__name__="probe_http_duration_seconds", phase="tls"}`: "0", `{__name__="probe_http_duration_seconds", phase="processing"}`: "0",
			`{__name__="probe_http_duration_seconds", phase="transfer"}`: "0",
		}}},
		{"the prober's own fault", plain("http://x", func(r *meshv1.Result) { r.Outcome = meshv1.Result_ERROR }),
			[]map[string]string{{`{__name__="probemesh_probe_error"}`: "1"}}},
		{"slow", plain("http://x", func(r *meshv1.Result) { r.Outcome = meshv1.Result_SLOW }), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := openTest(t, Config{}, Dependencies{})
			if err := h.Append(t.Context(), []Entry{c.entry}); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for _, part := range c.parts {
				for k, v := range part {
					want[k] = v
				}
			}
			if got := everything(t, h); !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%v\nwant\n%v", got, want)
			}
		})
	}
}

func TestDegradedEndsWithTheNextResultThatSaysSomethingOfTheTarget(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{})
	at := now().Add(-time.Minute)
	for i, change := range []func(*meshv1.Result){
		func(*meshv1.Result) {},
		func(r *meshv1.Result) {
			r.Degraded = "1 of 2 addresses fails"
			r.Addresses = []*meshv1.AddressResult{{Outcome: meshv1.Result_OK}, {Outcome: meshv1.Result_FAIL}}
		},
		func(r *meshv1.Result) { r.Outcome = meshv1.Result_ERROR },
		func(r *meshv1.Result) { r.Outcome = meshv1.Result_FAIL },
		func(*meshv1.Result) {},
	} {
		e := with(httpOK("p", at.Add(time.Duration(i)*time.Second), time.Second), func(e *Entry) { change(e.Result) })
		if err := h.Append(t.Context(), []Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	got := everything(t, h)
	for series, want := range map[string]string{
		`{__name__="probemesh_probe_degraded"}`: "1 0", `{__name__="probemesh_probe_addresses"}`: "2", `{__name__="probemesh_probe_addresses_ok"}`: "1",
		`{__name__="probe_success"}`: "1 1 0 1",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
}

func TestAnErrorEndsWithTheNextResultAndAChangedCertificateWithTheOldOne(t *testing.T) {
	h := openTest(t, Config{}, Dependencies{})
	at := now().Add(-time.Minute)
	for i, change := range []func(*Entry){
		func(*Entry) {},
		func(e *Entry) { e.Result.Outcome = meshv1.Result_ERROR },
		func(e *Entry) { e.Result.Tls.Version = "1.2" },
		func(*Entry) {},
	} {
		e := with(httpOK("p", at.Add(time.Duration(i)*time.Second), time.Second), change)
		if err := h.Append(t.Context(), []Entry{e}); err != nil {
			t.Fatal(err)
		}
	}
	got := everything(t, h)
	for series, want := range map[string]string{
		`{__name__="probemesh_probe_error"}`: "1 0", `{__name__="probe_success"}`: "1 1 1",
		`{__name__="probe_tls_version_info", version="TLS 1.2"}`: "1", `{__name__="probe_tls_version_info", version="TLS 1.3"}`: "1 1",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
	// The instant after the change to 1.2, only that version is current.
	if v := instant(t, h, `probe_tls_version_info`, at.Add(2*time.Second)); len(v) != 1 || !strings.Contains(v[0], "TLS 1.2") {
		t.Errorf("current versions are %v, want TLS 1.2 alone", v)
	}
}

func TestWhatCannotBeKeptIsSkippedCountedAndLoggedOnce(t *testing.T) {
	log := &lines{}
	h := openTest(t, Config{OutOfOrder: 30 * time.Minute}, Dependencies{Log: log.logger()})
	at := now()
	good := httpOK("p", at, time.Second)
	if err := h.Append(t.Context(), []Entry{good}); err != nil {
		t.Fatal(err)
	}
	var bad []Entry
	for range 3 {
		bad = append(bad,
			httpOK("p", at.Add(-26*time.Hour), time.Second),
			httpOK("p", at.Add(24*time.Hour), time.Second),
			with(good, func(e *Entry) { e.Result = nil }),
			with(httpOK("p", at, time.Second), func(e *Entry) { e.Result.Outcome = 0 }),
			with(httpOK("p", at, time.Second), func(e *Entry) { e.Result.StartTime = nil }))
	}
	bad = append(bad, httpOK("p", at.Add(time.Second), time.Second))
	if err := h.Append(t.Context(), bad); err != nil {
		t.Fatalf("one bad result must not hold up the others: %v", err)
	}
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop", StartTime: timestamppb.New(at.Add(-48 * time.Hour)), EndTime: timestamppb.New(at.Add(48 * time.Hour))}); len(got["probers/p"]) != 2 {
		t.Errorf("stored %v, want the two good results", got)
	}
	for _, want := range []string{"older than the out-of-order window", "begin in the future", "without start, check, prober or outcome"} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%q is logged %d times, want once:\n%s", want, n, log)
		}
	}
	if !strings.Contains(log.String(), "count=9") {
		t.Errorf("the log does not count the malformed:\n%s", log)
	}
}

func TestARestartKeepsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	h, err := Open(Config{Dir: dir}, Dependencies{})
	if err != nil {
		t.Fatal(err)
	}
	at := now().Add(-time.Minute)
	for i := range 10 {
		if err := h.Append(t.Context(), []Entry{httpOK("p", at.Add(time.Duration(i)*time.Second), time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Append(t.Context(), []Entry{httpOK("p", at, time.Second)}); err == nil {
		t.Error("a closed history took a result")
	}
	again := openTest(t, Config{Dir: dir}, Dependencies{})
	if got := query(t, again, &meshv1.QueryRangeRequest{Check: "shop"}); len(got["probers/p"]) != 10 {
		t.Errorf("%v after the restart, want 10 points", got)
	}
}

func TestAKilledProcessKeepsWhatWasAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	h := openTest(t, Config{Dir: dir}, Dependencies{})
	at := now().Add(-90 * time.Minute)
	for i := range 100 {
		if err := h.Append(t.Context(), []Entry{httpOK("p", at.Add(time.Duration((i*37)%100)*50*time.Second), time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RecordVerdicts(t.Context(), []VerdictSample{{Check: "checks/shop", Verdict: meshv1.CheckStatus_UP, Time: at}}); err != nil {
		t.Fatal(err)
	}
	log := &lines{}
	killed := openTest(t, Config{Dir: copyTree(t, dir)}, Dependencies{Log: log.logger()})
	if got := query(t, killed, &meshv1.QueryRangeRequest{Check: "shop", StartTime: timestamppb.New(at), EndTime: timestamppb.New(at.Add(3 * time.Hour))}); len(got["probers/p"]) != 100 {
		t.Errorf("%d points survived, want 100\n%s", len(got["probers/p"]), log)
	}
	if got := query(t, killed, &meshv1.QueryRangeRequest{Check: "shop", Metric: metricVerdict, StartTime: timestamppb.New(at)}); len(got[""]) != 1 {
		t.Errorf("the verdict is lost: %v", got)
	}
}

func TestADamagedStoreIsRepairedOrSetAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	h := openTest(t, Config{Dir: dir}, Dependencies{})
	at := now().Add(-time.Minute)
	for i := range 50 {
		if err := h.Append(t.Context(), []Entry{httpOK("p", at.Add(time.Duration(i)*time.Second), time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		damage func(dir string) error
		keeps  bool
		says   string
	}{
		{"a torn log", func(dir string) error { return os.Truncate(filepath.Join(dir, "wal", "00000000"), 2000) }, true, ""},
		{"a log with garbage at its end", func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "wal", "00000000"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteString(strings.Repeat("garbage", 5000))
			return err
		}, true, ""},
		{"a damaged block", func(dir string) error {
			block := filepath.Join(dir, "01HZZZZZZZZZZZZZZZZZZZZZZZ")
			if err := os.MkdirAll(filepath.Join(block, "chunks"), 0o755); err != nil {
				return err
			}
			meta := `{"ulid":"01HZZZZZZZZZZZZZZZZZZZZZZZ","minTime":1,"maxTime":2,"version":1,"compaction":{"level":1,"sources":["01HZZZZZZZZZZZZZZZZZZZZZZZ"]}}`
			if err := os.WriteFile(filepath.Join(block, "meta.json"), []byte(meta), 0o644); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(block, "index"), []byte("garbage"), 0o644)
		}, true, "a block of the history is damaged and was set aside"},
		{"no store at all", func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "wal"), []byte("garbage"), 0o644)
		}, false, "the history does not open and was set aside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			copied := copyTree(t, dir)
			if err := c.damage(copied); err != nil {
				t.Fatal(err)
			}
			log := &lines{}
			d := openTest(t, Config{Dir: copied}, Dependencies{Log: log.logger()})
			if !strings.Contains(log.String(), c.says) {
				t.Errorf("the log lacks %q:\n%s", c.says, log)
			}
			set, _ := filepath.Glob(copied + ".set-aside-*")
			if (len(set) > 0) != (c.says != "") {
				t.Errorf("set aside: %v", set)
			}
			if got := query(t, d, &meshv1.QueryRangeRequest{Check: "shop"}); (len(got["probers/p"]) > 0) != c.keeps {
				t.Errorf("%d points are left", len(got["probers/p"]))
			}
			if err := d.Append(t.Context(), []Entry{httpOK("p", now(), time.Second)}); err != nil {
				t.Errorf("it takes no results: %v", err)
			}
		})
	}
}

func TestADirectoryInUseIsNotSetAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	openTest(t, Config{Dir: dir}, Dependencies{})
	_, err := Open(Config{Dir: dir}, Dependencies{})
	if err == nil || !strings.Contains(err.Error(), "another process uses the directory") {
		t.Errorf("Open of a directory in use: %v", err)
	}
	if set, _ := filepath.Glob(dir + ".set-aside-*"); len(set) > 0 {
		t.Errorf("set aside: %v", set)
	}
}
