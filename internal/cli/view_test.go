package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func checkStatus(name string, v meshv1.CheckStatus_Verdict, since time.Time, summary string) *meshv1.CheckStatus {
	return &meshv1.CheckStatus{Check: "checks/" + name, Verdict: v, Reason: meshv1.CheckStatus_QUORUM_UP, Since: timestamppb.New(since), Summary: summary}
}

func TestTableFitsTheTerminal(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	items := []proto.Message{
		checkStatus("a-check-with-a-long-name-that-goes-on", meshv1.CheckStatus_UP, now.Add(-3*time.Minute-12*time.Second), "2 of 3 datacenters see it answer, which is enough for the quorum of 2"),
		checkStatus("日本", meshv1.CheckStatus_DOWN, now.Add(-5*time.Hour), "an escape \x1b[31m and\na line break are shown as spaces"),
	}
	for _, width := range []int{50, 60, 80, 120} {
		for _, line := range statusResource().table(items, false, now).lines(screen{width: width}) {
			if cells(line) > width {
				t.Errorf("a line of %d cells does not fit %d: %s", cells(line), width, line)
			}
			if strings.ContainsAny(line, "\x1b\n") {
				t.Errorf("a control character reaches the terminal: %q", line)
			}
		}
	}
	got := strings.Join(statusResource().table(items, false, now).lines(screen{width: 72}), "\n")
	want := `CHECK                  VERDICT  SINCE  REASON     SUMMARY
a-check-with-a-long-…  UP       3m12s  QUORUM_UP  2 of 3 datacenters se…
日本                   DOWN     5h     QUORUM_UP  an escape  [31m and a…`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = strings.Join(statusResource().table(items, false, now).lines(screen{}), "\n")
	if strings.Contains(got, "…") || !strings.Contains(got, "which is enough for the quorum of 2") {
		t.Errorf("without a terminal something is cut:\n%s", got)
	}
}

func TestIncidentsFitEightyColumnsWithTheirWholeNames(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const name = "01m83es737w551kagfedet3qaq"
	items := []proto.Message{&meshv1.Incident{
		Name: "incidents/" + name, Check: "checks/a-check-with-a-long-name", State: meshv1.Incident_RESOLVED, Verdict: meshv1.CheckStatus_DOWN,
		StartTime: timestamppb.New(now.Add(-time.Minute)), EndTime: timestamppb.New(now.Add(-time.Minute + 5900*time.Millisecond)), AcknowledgedBy: "someone@example.com",
		Summary: "a-check-with-a-long-name is UP again after 6s: 2 of 2 datacenters see it answer. (https://shop.example.com/health)",
	}}
	got := strings.Join(incidentResource().table(items, false, now).lines(screen{width: 80}), "\n")
	want := `NAME                        CHECK      STATE     STARTED  ACKED BY    SUMMARY
01m83es737w551kagfedet3qaq  a-check-…  RESOLVED  1m       someone@e…  a-check-w…`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	got = strings.Join(incidentResource().table(items, false, now).lines(screen{width: 130}), "\n")
	if !strings.Contains(got, "VERDICT") || !strings.Contains(got, "  6s  ") {
		t.Errorf("130 columns have room for all:\n%s", got)
	}
	for _, width := range []int{20, 40, 60, 80} {
		for _, line := range incidentResource().table(items, true, now).fitted(width, true).lines(screen{width: width}) {
			if cells(line) > max(width, len(name)) {
				t.Errorf("a line of %d cells of a table that is drawn in place does not fit %d: %s", cells(line), width, line)
			}
		}
	}
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	row := []cell{verdictCell(meshv1.CheckStatus_UP), text("x")}
	if got := renderRow(screen{colours: true}, row, []int{4, 1}); got != "\x1b[32mUP\x1b[0m    x" {
		t.Errorf("with colours: %q", got)
	}
	if got := renderRow(screen{}, row, []int{4, 1}); got != "UP    x" {
		t.Errorf("without colours: %q", got)
	}
	if s := newScreen(&bytes.Buffer{}, false, func(string) string { return "" }); s.terminal || s.colours || s.width != 0 {
		t.Errorf("a buffer is taken for a terminal: %+v", s)
	}
}

func TestAgesHaveTwoUnitsAtMost(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 42 * time.Second: "42s", 3*time.Minute + 12*time.Second: "3m12s", 5 * time.Minute: "5m", 5*time.Hour + 3*time.Minute + time.Second: "5h3m",
		12*24*time.Hour + 4*time.Hour: "12d4h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is %s, not %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{42123 * time.Microsecond: "42.1ms", 870 * time.Microsecond: "870µs", 1234 * time.Millisecond: "1.23s", 90 * time.Second: "1m30s", 0: "0s"} {
		if got := brief(durationpb.New(d)); got != want {
			t.Errorf("%v is %s, not %s", d, got, want)
		}
	}
}

// terminal is an app that writes to a terminal of so many cells, kept in a buffer.
func terminalApp(width, height int) (*app, *bytes.Buffer) {
	var b bytes.Buffer
	a := &app{env: Environment{Out: &b, Err: &b}}
	a.out = screen{out: &b, terminal: true, width: width, height: height}
	return a, &b
}

func TestLiveViewDrawsInPlace(t *testing.T) {
	a, b := terminalApp(60, 24)
	v := a.newView(statusResource(), getOptions{output: formatTable})
	v.apply(change{name: "checks/a", item: checkStatus("a", meshv1.CheckStatus_UP, time.Now(), "fine")})
	if strings.Contains(b.String(), "fine") {
		t.Error("it draws before the snapshot is complete")
	}
	v.apply(change{synced: true})
	first := b.String()
	if !strings.Contains(first, "fine") || strings.Contains(first, "\x1b[3A") {
		t.Errorf("the first drawing is %q", first)
	}
	b.Reset()
	v.apply(change{name: "checks/a", item: checkStatus("a", meshv1.CheckStatus_DOWN, time.Now(), "refused")})
	v.tick()
	if got := b.String(); !strings.HasPrefix(got, "\x1b[3A\r") || !strings.Contains(got, "refused") || strings.Contains(got, "fine") {
		t.Errorf("the next drawing does not replace the first: %q", got)
	}
	b.Reset()
	v.broken("cannot reach a server at x: refused\n  choose another", time.Second)
	if got := b.String(); !strings.Contains(got, "lost the connection: cannot reach a server at x") || strings.Contains(got, "choose") {
		t.Errorf("a break is told as %q", got)
	}
	v.close()
	if !strings.HasSuffix(b.String(), showCursor) {
		t.Error("the cursor stays hidden")
	}
}

func TestLiveViewStaysWithinTheTerminal(t *testing.T) {
	a, b := terminalApp(40, 8)
	v := a.newView(statusResource(), getOptions{output: formatTable})
	for i := range 50 {
		name := "checks/c" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		v.apply(change{name: name, item: checkStatus(name[7:], meshv1.CheckStatus_UP, time.Now(), "fine")})
	}
	b.Reset()
	v.apply(change{synced: true})
	if lines := strings.Count(b.String(), "\n"); lines > 7 {
		t.Errorf("%d lines on a terminal of 8", lines)
	}
	if !strings.Contains(b.String(), "… 47 more") {
		t.Errorf("what is hidden is not counted: %q", b.String())
	}
}
