package expect_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/expect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func response(t testing.TB) *meshv1.Response {
	t.Helper()
	json, err := structpb.NewValue(map[string]any{"ok": true, "n": 3, "tags": []any{"a", "b"}, "deep": map[string]any{"x": "y"}})
	if err != nil {
		t.Fatal(err)
	}
	return &meshv1.Response{
		Status:   200,
		Headers:  map[string]string{"content-type": "application/json", "x-cache": "HIT"},
		Body:     `{"ok": true}`,
		Json:     json,
		Duration: durationpb.New(120 * time.Millisecond),
		Timings:  &meshv1.ResponseTimings{Connect: durationpb.New(3 * time.Millisecond)},
		Tls:      &meshv1.ResponseTls{Version: "1.3", DaysLeft: 20, Names: []string{"shop.example.com"}},
		Dns:      &meshv1.ResponseDns{Rcode: "NOERROR", Answers: []string{"192.0.2.1"}},
		Icmp:     &meshv1.ResponseIcmp{Sent: 3, Received: 2, Loss: 1.0 / 3},
		Grpc:     &meshv1.ResponseGrpc{Serving: "SERVING"},
	}
}

func TestEveryFieldOfTheResponseCanBeExpected(t *testing.T) {
	for _, expr := range []string{
		`response.status == 200`,
		`response.status in [200, 204]`,
		`response.headers["content-type"].startsWith("application/json")`,
		`"x-cache" in response.headers`,
		`response.body.contains("ok")`,
		`response.body.matches("^\\{.*\\}$")`,
		`response.json.ok`,
		`response.json.n == 3 && response.json.n < 5`,
		`response.json.n >= 3.0`,
		`response.json.tags[1] == "b"`,
		`response.json.tags.exists(x, x == "a")`,
		`response.json.deep.x == "y"`,
		`has(response.json.deep) && !has(response.json.absent)`,
		`response.duration < duration("300ms")`,
		`response.timings.connect < duration("5ms")`,
		`response.timings.resolve == duration("0s")`,
		`response.tls.days_left >= 14`,
		`response.tls.names.exists(n, n.endsWith(".example.com"))`,
		`"192.0.2.1" in response.dns.answers`,
		`response.icmp.loss <= 0.34`,
		`response.grpc.serving == "SERVING"`,
		`response.version == "" && response.uri == "" && response.remote_address == ""`,
	} {
		p, err := expect.Compile([]string{expr})
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if failed, why := p.Eval(response(t)); failed != "" || why != nil {
			t.Errorf("%s: does not hold: %v", expr, why)
		}
	}
}

func TestAFailedExpectationSaysWhatWasSeen(t *testing.T) {
	for _, c := range []struct{ expr, why string }{
		{`response.status == 503`, "response.status is 200"},
		{`response.tls.days_left >= 30`, "response.tls.days_left is 20"},
		{`response.headers["x-cache"] == "MISS"`, `response.headers["x-cache"] is "HIT"`},
		{`response.headers["x-absent"] == "MISS"`, `there is no "x-absent" in the response`},
		{`response.json.n`, `it is 3, not a bool`},
		{`response.json.absent`, `there is no "absent" in the response`},
		{`response.duration < duration("100ms")`, "response.duration is 120ms"},
		{`response.dns.answers == ["192.0.2.9"]`, "response.dns.answers is list of 1"},
		{`response.status == 200 && response.json.n > 5`, "response.status is 200, response.json.n is 3"},
		{`1 == 2`, "it is false"},
		{`response.body.contains("zebra")`, `response.body is "{\"ok\": true}"`},
	} {
		p, err := expect.Compile([]string{`response.status == 200`, c.expr})
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		failed, why := p.Eval(response(t))
		if failed != c.expr {
			t.Errorf("%s: failed is %q", c.expr, failed)
		}
		if why == nil || why.Error() != c.why {
			t.Errorf("%s: why is %v, want %s", c.expr, why, c.why)
		}
	}
}

func TestFaultyExpressionsAreExplainedAllAtOnce(t *testing.T) {
	exprs := []string{
		`response.staus == 200`,
		`response.tls.daysLeft > 3`,
		`response.status`,
		`response.status == "200"`,
		`status == 200`,
		`foo`,
		`response.status ==`,
		``,
		`response.body.matches("(")`,
		`response.status == 200`,
		`response.body`,
		`response.duration < duration("soon")`,
	}
	want := []struct {
		index  int
		column int
		text   string
	}{
		{0, 9, `response has no field "staus"; it has body, captures, dns,`},
		{1, 13, `response.tls has no field "daysLeft"; it has alpn, certificates_days_left, chain_days_left,`},
		{2, 0, `is of type int, not bool; compare it with something, for example response.status > 0`},
		{3, 17, `== cannot be applied to int and string`},
		{4, 1, `"status" is not known; write response.status`},
		{5, 1, `"foo" is not known; the only variable is response`},
		{6, 19, `syntax error: the expression ends too early`},
		{7, 0, `is empty`},
		{8, 0, `invalid matches argument`},
		{11, 0, `duration`},
		{10, 0, `response.body == "..."`},
	}
	_, err := expect.Compile(exprs)
	var all expect.Errors
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	for _, w := range want {
		found := false
		for _, e := range all {
			if e.Index == w.index && strings.Contains(e.Problem, w.text) {
				found = true
				if w.column != 0 && e.Column != w.column {
					t.Errorf("expression %d: column %d, want %d (%s)", w.index, e.Column, w.column, e.Problem)
				}
			}
		}
		if !found {
			t.Errorf("expression %d: nothing says %q in:\n%v", w.index, w.text, err)
		}
	}
	for _, e := range all {
		if e.Index == 9 {
			t.Errorf("a good expression is called faulty: %v", e)
		}
	}
}

func TestJSONThatIsNotThereIsNull(t *testing.T) {
	p, err := expect.Compile([]string{`response.json == null`})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]*structpb.Value{"unset": nil, "null": structpb.NewNullValue()} {
		if failed, why := p.Eval(&meshv1.Response{Json: v}); failed != "" {
			t.Errorf("%s: %v", name, why)
		}
	}
}

func TestAnExpensiveExpressionIsCutOff(t *testing.T) {
	p, err := expect.Compile([]string{`response.dns.answers.all(a, response.dns.answers.all(b, response.dns.answers.all(c, a + b + c != "x")))`})
	if err != nil {
		t.Fatal(err)
	}
	answers := make([]string, 1000)
	begin := time.Now()
	_, why := p.Eval(&meshv1.Response{Dns: &meshv1.ResponseDns{Answers: answers}})
	if why == nil || !strings.Contains(why.Error(), "costs more than 100000") {
		t.Errorf("why is %v", why)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestTheLongestBodyCanBeSearched(t *testing.T) {
	p, err := expect.Compile([]string{`response.body.contains("needle")`, `!response.body.startsWith("x") && response.body.endsWith("needle")`})
	if err != nil {
		t.Fatal(err)
	}
	if failed, why := p.Eval(&meshv1.Response{Body: strings.Repeat("a", 10<<20) + "needle"}); failed != "" {
		t.Errorf("%s: %v", failed, why)
	}
	p, err = expect.Compile([]string{`response.body.matches("ne+dle")`})
	if err != nil {
		t.Fatal(err)
	}
	if failed, why := p.Eval(&meshv1.Response{Body: strings.Repeat("a", 1<<20) + "needle"}); failed != "" {
		t.Errorf("%s: %v", failed, why)
	}
}

func TestReadsNamesTheFieldsThatAreUsed(t *testing.T) {
	p, err := expect.Compile([]string{`response.status == 200`, `has(response.json.x) || response.headers.exists(h, h == "a")`})
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]bool{"status": true, "json": true, "headers": true, "body": false, "tls": false} {
		if p.Reads(field) != want {
			t.Errorf("Reads(%s) is %v", field, !want)
		}
	}
	p, err = expect.Compile([]string{`[response].all(r, r.body == "")`})
	if err != nil {
		t.Fatal(err)
	}
	if !p.Reads("body") {
		t.Error("a response used as a value is not read whole")
	}
}

func TestAFieldThatIsAskedForIsNotReliedOn(t *testing.T) {
	for source, want := range map[string]string{
		`response.status == 200 && response.body == ""`:                "body status",
		`has(response.tls)`:                                            "",
		`has(response.tls.version)`:                                    "",
		`!has(response.tls) || response.tls.days_left > 3`:             "",
		`has(response.tls) || response.dns.answers.exists(a, a == "")`: "dns",
		`has(response.json.ok) && response.status == 200`:              "status",
		`[response].all(r, r.status == 200)`:                           "",
	} {
		p, err := expect.Compile([]string{source})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(p.Relies(), " "); got != want {
			t.Errorf("%s relies on %q, want %q", source, got, want)
		}
	}
	p, err := expect.Compile([]string{`has(response.tls)`, `response.tls.days_left > 3`, `has(response.tls)`})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Relies(); len(got) != 1 || !p.Reads("tls") {
		t.Errorf("one of three expressions relies on tls, and they are said to rely on %v", got)
	}
}

func TestAFunctionThatThereIsNotIsNamedWithTheOneThatWasMeant(t *testing.T) {
	for source, want := range map[string]string{
		`response.body.contain("x")`:       `column 22: there is no function "contain"; did you mean "contains"?`,
		`response.body.startswith("x")`:    `there is no function "startswith"; did you mean "startsWith"?`,
		`response.dns.answers.exist(1, 2)`: `there is no function "exist"; did you mean "exists"?`,
		`response.body.zzzzzzzz("x")`:      `there is no function "zzzzzzzz"; among those that there are: contains,`,
		`response.body == contain`:         `"contain" is not known; the only variable is response, and texts need quotes`,
	} {
		_, err := expect.Compile([]string{source})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func TestNoExpressionsIsTheNilProgram(t *testing.T) {
	p, err := expect.Compile(nil)
	if p != nil || err != nil {
		t.Fatalf("got %v, %v", p, err)
	}
	if failed, why := p.Eval(&meshv1.Response{}); failed != "" || why != nil || p.Reads("body") || p.Len() != 0 || len(p.Relies()) != 0 {
		t.Error("the nil program expects something")
	}
}

func TestAProgramMayBeUsedByManyAtOnce(t *testing.T) {
	p, err := expect.Compile([]string{`response.json.ok && response.status == 201`})
	if err != nil {
		t.Fatal(err)
	}
	r := response(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, why := p.Eval(r); why == nil || why.Error() != "response.json.ok is true, response.status is 200" {
					t.Errorf("why is %v", why)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`response.status == 200`, `response.`, `[1].all(x, x`, `response.tls.names[0]`, "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			t.Skip()
		}
		p, err := expect.Compile([]string{s})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		p.Eval(&meshv1.Response{Status: 200, Body: "x"})
	})
}

func BenchmarkEval(b *testing.B) {
	p, err := expect.Compile([]string{`response.status == 200 && response.duration < duration("300ms")`, `response.json.ok`})
	if err != nil {
		b.Fatal(err)
	}
	r := response(b)
	b.ReportAllocs()
	for b.Loop() {
		if failed, why := p.Eval(r); failed != "" {
			b.Fatal(why)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := expect.Compile([]string{`response.status == 200 && response.duration < duration("300ms")`}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestOperatorWrittenWithOneCharacterIsOneFault(t *testing.T) {
	for source, want := range map[string]string{
		"response.status = 200":                           `column 17: "=" is no operator; write == to compare`,
		"response.status == 200 & response.status == 200": `column 24: "&" is no operator; write && to ask for both`,
		"response.status == 200 | response.status == 200": `column 24: "|" is no operator; write || to ask for one of two`,
	} {
		_, err := expect.Compile([]string{source})
		var faults expect.Errors
		if !errors.As(err, &faults) || len(faults) != 1 || faults[0].Error() != want {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}
